//! A daemon of another version takes over without a gap. The other version is a daemon that keeps its pins below another
//! number; nothing of them is read but what the kernel says of any link.

use anyhow::{Context, Result, ensure};
use ringfence_tests::{daemon::Daemon, netns::Site};

use super::{
    scene::{Scene, below, policy},
    traffic::Traffic,
};

/// A policy that XDP can judge, and one that reads what only TC shows.
const POLICIES: [&str; 2] = ["", "      - drop: {mark: 77}\n        name: marked\n"];

fn text(hook: usize, accepted: usize) -> String {
    policy(accepted, "eth0", POLICIES[hook], "upgrade")
}

/// The other version with this policy in force.
fn former(text: &str) -> Result<Scene> {
    let site = Site::new()?;
    let daemon = Daemon::new(&site.server)?;
    let mut scene = Scene { site, daemon };
    let mut command = scene.command();
    scene.daemon.run(command.env("RINGFENCE_ABI", "0"))?;
    scene.apply(text, &[])?.done()?;
    ensure!(scene.pins()?.iter().all(|pin| pin.contains("/v0/")), "{:?}", scene.pins()?);
    Ok(scene)
}

fn is_taken_over(scene: &Scene) -> Result<()> {
    let status = scene.status()?;
    ensure!(status.exit_code() == 0 && status.lost.values().all(|&lost| lost == 0), "{status:?}");
    ensure!(scene.pins()?.iter().all(|pin| pin.contains("/v1/")), "{:?}", scene.pins()?);
    ensure!(!scene.site.server.run(|| std::path::Path::new("/sys/fs/bpf/ringfence/v0").exists())?, "v0 is there");
    Ok(())
}

#[test]
fn the_generation_in_force_goes_on_without_a_gap() -> Result<()> {
    for hook in 0..2 {
        let mut scene = former(&text(hook, 0))?;
        let traffic = Traffic::start(&scene.site)?;
        // As a package does it, and as a crash would.
        if hook == 0 {
            drop(scene.daemon.stop()?)
        } else {
            scene.daemon.kill()?
        }
        traffic.flow()?;
        scene.start()?;
        ensure!(traffic.accepted()? == 0, "another generation is in force");
        traffic.end()?.is_whole(0)?;
        is_taken_over(&scene)?;
        ensure!(scene.status()?.generation == Some(1), "{:?}", scene.status()?);
        // And it can be gone on with.
        scene.apply(&text(hook, 1), &[])?.done()?;
        scene.daemon.ctl(["rollback"])?.done()?;
    }
    Ok(())
}

#[test]
fn a_policy_that_is_judged_elsewhere_takes_over_without_a_gap() -> Result<()> {
    for (old, new) in [(0, 1), (1, 0)] {
        let mut scene = former(&text(old, 0))?;
        let traffic = Traffic::start(&scene.site)?;
        scene.daemon.kill()?;
        scene.daemon.write("policy.yaml", text(new, 1))?;
        let mut command = scene.command();
        command.arg("--policy").arg(scene.daemon.path("policy.yaml"));
        scene.daemon.run(&mut command)?;
        ensure!(traffic.accepted()? == 1, "the new policy is not in force");
        // While both judge, a packet must please both: of a round then neither of the two arrives. None is let through
        // that one of them refuses, and that is not counted as a flip here.
        let seen = traffic.end()?;
        seen.is_closed()?;
        is_taken_over(&scene)?;
    }
    Ok(())
}

#[test]
fn an_upgrade_may_be_killed_at_every_step() -> Result<()> {
    let mut scene = former(&text(0, 0))?;
    scene.daemon.kill()?;
    scene.order("trace")?;
    scene.start()?;
    let steps = scene.steps()?;
    ensure!(steps.iter().filter(|step| step.starts_with("upgrade/")).count() >= 4, "steps are missing: {steps:?}");
    is_taken_over(&scene)?;
    for step in steps {
        let upgraded = killed(&step);
        upgraded.with_context(|| format!("killed at {step}"))?;
    }
    Ok(())
}

fn killed(step: &str) -> Result<()> {
    let mut scene = former(&text(0, 0))?;
    scene.daemon.kill()?;
    let traffic = Traffic::start(&scene.site)?;
    scene.order(&format!("kill {step}"))?;
    ensure!(scene.start().is_err(), "the daemon started");
    scene.is_gone()?;
    ensure!(traffic.accepted()? == 0, "without a daemon, another generation is in force");
    scene.start()?;
    traffic.end()?.is_whole(0)?;
    is_taken_over(&scene)
}

#[test]
fn a_living_daemon_of_another_version_is_left_alone() -> Result<()> {
    let scene = former(&text(0, 0))?;
    let traffic = Traffic::start(&scene.site)?;
    let second = Daemon::new(&scene.site.server)?;
    let reply = second.reply(&mut second.command())?.exits(3)?;
    ensure!(reply.stderr.contains("another ringfenced"), "{reply:?}");
    ensure!(traffic.accepted()? == 0, "its policy is not in force any more");
    traffic.end()?.is_whole(0)
}

#[test]
fn off_removes_what_another_version_left() -> Result<()> {
    let mut scene = former(&text(0, 0))?;
    scene.daemon.kill()?;
    // Nothing to put in force: what the other version left goes on, and the status says so.
    std::fs::rename(scene.daemon.path("state"), scene.daemon.path("away"))?;
    scene.start()?;
    ensure!(scene.status()?.problems.iter().any(|problem| problem.contains("v0")), "{:?}", scene.status()?);
    let traffic = Traffic::start(&scene.site)?;
    ensure!(traffic.accepted()? == 0, "what the other version left is gone");
    traffic.end()?.is_whole(0)?;
    scene.daemon.ctl(["off"])?.done()?;
    let left = scene.site.server.run(|| below("/sys/fs/bpf/ringfence".as_ref()))??;
    ensure!(left.is_empty(), "{left:?}");
    ensure!(scene.site.server.xdp_program("eth0")?.is_none(), "a program stayed at XDP");
    Ok(())
}
