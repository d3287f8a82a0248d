//! `kill -9` at every step of an apply, of a confirmation and of a rollback.

use anyhow::{Context, Result, ensure};
use ringfence_tests::netns::Host;

use super::{
    scene::{Scene, policy},
    traffic::Traffic,
};

/// The step after which the new generation judges.
const FLIP: &str = "apply/flipped";

fn alike(accepted: usize, mark: &str) -> String {
    policy(accepted, "eth0", "", mark)
}

/// Two policies that are judged at different hooks: one reads a field that XDP does not show, and covers one interface
/// more.
fn elsewhere(accepted: usize, mark: &str) -> String {
    if accepted == 0 {
        return alike(accepted, mark);
    }
    policy(accepted, "eth0, \"wan*\"", "      - drop: {mark: 77}\n        name: marked\n", mark)
}

/// What is in force, and what a rollback would go back to.
struct Run {
    scene: Scene,
    text: fn(usize, &str) -> String,
    /// Whether the hooks stay the same, so that no packet is judged, and counted, at two of them.
    counts: bool,
    accepted: usize,
    running: u64,
    previous: Option<u64>,
}

impl Run {
    fn new(text: fn(usize, &str) -> String, counts: bool) -> Result<Self> {
        let scene = Scene::new()?;
        scene.apply(&text(0, "first"), &[])?.done()?;
        Ok(Self { scene, text, counts, accepted: 0, running: 1, previous: None })
    }

    /// Changes to the other policy, and notes each step of it.
    fn traced(&mut self) -> Result<Vec<String>> {
        self.scene.order("trace")?;
        self.scene.apply(&(self.text)(1 - self.accepted, "traced"), &[])?.done()?;
        self.has_changed()?;
        self.scene.steps()
    }

    fn has_changed(&mut self) -> Result<()> {
        self.accepted = 1 - self.accepted;
        self.previous = Some(self.running);
        self.running = self.scene.status()?.generation.context("nothing in force")?;
        Ok(())
    }

    /// Kills the daemon at a step of an apply of the other policy. `flips`: whether that is in force from then on.
    fn kill(&mut self, step: &str, flips: bool) -> Result<()> {
        let counters = self.scene.daemon.counters()?;
        let traffic = Traffic::start(&self.scene.site)?;
        ensure!(traffic.accepted()? == self.accepted, "the wrong policy is in force before");
        self.scene.order(&format!("kill {step}"))?;
        let reply = self.scene.apply(&(self.text)(1 - self.accepted, step), &[])?;
        ensure!(reply.code != 0, "the apply succeeded: {reply:?}");
        self.scene.is_dead(step)?;
        let expected = if flips { 1 - self.accepted } else { self.accepted };
        ensure!(traffic.accepted()? == expected, "without a daemon, the wrong generation is in force");
        self.scene.start()?;
        if flips {
            self.has_changed()?;
        }
        ensure!(traffic.accepted()? == self.accepted, "the new daemon has changed what is in force");
        let seen = traffic.end()?;
        seen.is_whole(usize::from(flips))?;
        self.scene.is_tidy(self.running, self.previous)?;
        if self.counts { self.scene.is_counted(&counters, &seen) } else { Ok(()) }
    }

    fn at_every_step(mut self) -> Result<()> {
        // A place for the policy that covers more.
        let peer = Host::new()?;
        self.scene.site.server.veth("wan0", &peer, "eth0")?;
        self.scene.site.server.up("wan0")?;
        let (mut traces, mut pins) = (Vec::new(), [0; 2]);
        for from in 0..2 {
            traces.push((from, self.traced()?));
            pins[self.accepted] = self.scene.pins()?.len();
        }
        // The other way is the same where hooks stay the same.
        traces.truncate(if self.counts { 1 } else { 2 });
        for (from, steps) in &traces {
            let flip = steps.iter().position(|step| step == FLIP).context("no flip")?;
            ensure!(flip >= 12 && steps.len() - flip >= 8, "steps are missing: {steps:?}");
            for (index, step) in steps.iter().enumerate() {
                // How a generation is built does not depend on hooks: the other test shows it.
                if !self.counts && ["load/", "store/"].iter().any(|of| step.starts_with(of)) {
                    continue;
                }
                if self.accepted != *from {
                    self.traced()?;
                }
                let went = self.kill(step, index >= flip);
                went.with_context(|| format!("killed at {step}; log: {}", self.scene.daemon.log()))?;
                let now = self.scene.pins()?;
                ensure!(now.len() == pins[self.accepted], "killed at {step}: {pins:?} pins became {now:?}");
            }
        }
        // All slots of the program arrays are free again.
        (0..8).try_for_each(|_| self.traced().map(drop))
    }
}

#[test]
fn an_apply_may_be_killed_at_every_step() -> Result<()> {
    Run::new(alike, true)?.at_every_step()
}

#[test]
fn an_apply_that_changes_hooks_may_be_killed_at_every_step() -> Result<()> {
    Run::new(elsewhere, false)?.at_every_step()
}

/// Nothing is in force before, so everything passes until the devices are attached; never is anything refused that the
/// policy accepts.
#[test]
fn a_first_apply_may_be_killed_at_every_step() -> Result<()> {
    let scene = Scene::new()?;
    scene.order("trace")?;
    scene.apply(&alike(0, "first"), &[])?.done()?;
    let steps = scene.steps()?;
    ensure!(steps.iter().any(|step| step == FLIP) && steps.iter().any(|step| step == "attach/linked"), "{steps:?}");
    for step in steps.iter().filter(|step| step.starts_with("apply/") || step.starts_with("attach/")) {
        first_killed(step).with_context(|| format!("killed at {step}"))?;
    }
    Ok(())
}

fn first_killed(step: &str) -> Result<()> {
    let mut scene = Scene::new()?;
    let traffic = Traffic::start(&scene.site)?;
    scene.order(&format!("kill {step}"))?;
    ensure!(scene.apply(&alike(0, "first"), &[])?.code != 0, "the apply succeeded");
    scene.is_dead(step)?;
    traffic.flow()?;
    scene.start()?;
    // Whether it came into force or not: it is the only one there is.
    if scene.status()?.generation.is_none() {
        scene.apply(&alike(0, "first"), &[])?.done()?;
    }
    ensure!(traffic.accepted()? == 0, "not in force");
    ensure!(traffic.end()?.lost_nothing(), "something was refused that must pass");
    let running = scene.status()?.generation.context("nothing in force")?;
    scene.is_tidy(running, None)
}
