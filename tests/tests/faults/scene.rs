//! A daemon that ends or stops where it is told, and what must be so around it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use ringfence_abi::ABI_VERSION;
use ringfence_api::{Generation, GenerationState, Status};
use ringfence_tests::{
    daemon::{Counters, Daemon, Reply},
    netns::Site,
};

use super::traffic::{CLOSED, EITHER, OPEN, Seen};

/// Where this version pins, on every host.
pub fn pins() -> PathBuf {
    format!("/sys/fs/bpf/ringfence/v{ABI_VERSION}").into()
}

/// How long to wait for what must come: emulated machines are slow.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A site and a daemon on its server.
pub struct Scene {
    pub site: Site,
    pub daemon: Daemon,
}

/// A policy that accepts one of [`EITHER`] and drops the other. `further` rules come first; `mark` makes texts differ.
pub fn policy(accepted: usize, interfaces: &str, further: &str, mark: &str) -> String {
    let rule =
        |verb: &str, port: u16| format!("      - {verb}: {{proto: udp, port: {port}}}\n        name: {verb}-{port}\n");
    // Both rules for each port, so that counters carry over by their names; the second never matches.
    let rules: String = EITHER
        .into_iter()
        .enumerate()
        .map(|(index, port)| {
            let (first, second) = if index == accepted { ("accept", "drop") } else { ("drop", "accept") };
            rule(first, port) + &rule(second, port)
        })
        .collect();
    format!(
        "ringfence: 1\n# {mark}\nnetwork:\n  interfaces: [{interfaces}]\n  ingress:\n    default: drop\n    stateless: \
         true\n    rules:\n{further}{rules}{}{}  egress: {{default: accept}}\n",
        rule("accept", OPEN),
        rule("drop", CLOSED),
    )
}

impl Scene {
    /// A daemon that runs, with nothing in force.
    pub fn new() -> Result<Self> {
        let site = Site::new()?;
        let daemon = Daemon::new(&site.server)?;
        let mut scene = Self { site, daemon };
        scene.start()?;
        Ok(scene)
    }

    /// Starts the daemon (again), without a policy of its own: it goes on with what is there.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.command();
        self.daemon.run(&mut command)
    }

    /// How it is started.
    pub fn command(&self) -> Command {
        let mut command = self.daemon.command();
        command.env("RINGFENCE_FAULTS", self.faults());
        command
    }

    fn faults(&self) -> PathBuf {
        self.daemon.path("faults")
    }

    /// Orders a fault.
    pub fn order(&self, fault: &str) -> Result<()> {
        self.daemon.write("faults", format!("{fault}\n")).map(drop)
    }

    /// The steps that the daemon came to since `trace` was ordered, each once.
    pub fn steps(&self) -> Result<Vec<String>> {
        let mut steps: Vec<String> = Vec::new();
        for step in fs::read_to_string(self.faults())?.lines().skip(1) {
            if !steps.iter().any(|known| known == step) {
                steps.push(step.to_owned());
            }
        }
        fs::remove_file(self.faults())?;
        Ok(steps)
    }

    /// Runs `ringctl apply` on a text.
    pub fn apply(&self, text: &str, further: &[&str]) -> Result<Reply> {
        let file = self.daemon.write("next.yaml", text)?;
        self.daemon.ctl([&["apply", &file.display().to_string()], further].concat())
    }

    /// The daemon has died of the fault, and the order is gone with it.
    pub fn is_dead(&mut self, step: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.daemon.was_killed()? {
            ensure!(Instant::now() < end, "the daemon never came to {step}");
            thread::sleep(Duration::from_millis(2));
        }
        ensure!(!self.faults().exists(), "the daemon was killed, but not by the fault at {step}");
        Ok(())
    }

    /// The daemon ended while it started, and the order is gone with it.
    pub fn is_gone(&self) -> Result<()> {
        ensure!(!self.daemon.runs() && !self.faults().exists(), "the daemon did not end by the fault");
        Ok(())
    }

    /// Waits until the daemon has stopped at the fault.
    pub fn has_stopped(&self, step: &str) -> Result<()> {
        let stat = format!("/proc/{}/stat", self.daemon.pid()?);
        let end = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&stat)?;
            let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).context("no state")?;
            if state == 'T' && !self.faults().exists() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the daemon never came to {step}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets a stopped daemon go on.
    pub fn go_on(&self) -> Result<()> {
        self.daemon.signal(Signal::SIGCONT)
    }

    /// Waits until something is so.
    pub fn eventually(&self, what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !holds()? {
            ensure!(Instant::now() < end, "not after {} s: {what}; {:?}", PATIENCE.as_secs(), self.status());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// As far as the daemon can tell, the machine has been switched off and on: the BPF filesystem is a new one, all that
    /// was pinned and attached is gone, and the kernel calls this boot by another name.
    pub fn reboot(&self, boot: u32) -> Result<()> {
        ensure!(!self.daemon.runs(), "a reboot kills the daemon first");
        let name = self.daemon.write(&format!("boot-{boot}"), format!("00000000-0000-4000-8000-{boot:012}\n"))?;
        self.site.server.run(|| -> Result<()> {
            let (place, none) = ("/sys/fs/bpf", None::<&str>);
            umount2(place, MntFlags::MNT_DETACH)?;
            mount(Some("bpf"), place, Some("bpf"), MsFlags::empty(), none)?;
            mount(Some(&name), "/proc/sys/kernel/random/boot_id", none, MsFlags::MS_BIND, none)?;
            Ok(())
        })??;
        self.eventually("what was attached is gone", || Ok(self.site.server.xdp_program("eth0")?.is_none()))
    }

    /// `ringctl status`.
    pub fn status(&self) -> Result<Status> {
        self.daemon.json(&["status"])
    }

    /// Nothing is left over of an apply that did not come to its end, and the daemon knows what is in force: `running`, and
    /// `previous` to go back to.
    pub fn is_tidy(&self, running: u64, previous: Option<u64>) -> Result<()> {
        let status = self.status()?;
        ensure!(status.generation == Some(running) && status.exit_code() == 0, "{status:?}");
        ensure!(status.lost.values().all(|&lost| lost == 0), "{status:?}");
        let history: Vec<Generation> = self.daemon.json(&["history"])?;
        let is = |state| history.iter().find(|one| one.state == state).map(|one| one.generation);
        ensure!(is(GenerationState::Running) == Some(running), "{history:?}");
        ensure!(is(GenerationState::Previous) == previous, "not {previous:?}: {history:?}");
        let came = |one: &Generation| one.generation <= running || one.state == GenerationState::Unconfirmed;
        ensure!(history.iter().all(came), "one that never came to be is kept: {history:?}");
        ensure!(self.loaded()? == [running], "in the kernel: {:?}", self.loaded()?);
        let state = names(&self.daemon.path("state/generations"))?;
        ensure!(state.iter().all(|name| name.parse::<u64>().is_ok()), "left on disk: {state:?}");
        Ok(())
    }

    /// The generations in the kernel. What is being built has no number.
    pub fn loaded(&self) -> Result<Vec<u64>> {
        let pinned = self.site.server.run(|| names(&pins().join("gen")))??;
        pinned.iter().map(|name| Ok(name.split_once('-').context(name.clone())?.0.parse()?)).collect()
    }

    /// All pins, by path.
    pub fn pins(&self) -> Result<Vec<String>> {
        self.site.server.run(|| below(Path::new("/sys/fs/bpf/ringfence")))?
    }

    /// Every packet of the traffic was counted, once, by the rule that decided it.
    pub fn is_counted(&self, before: &Counters, seen: &Seen) -> Result<()> {
        let after = self.daemon.counters()?;
        let count = |verb: &str, port: u16| -> Result<u64> {
            let name = format!("{verb}-{port}");
            Ok(after.packets("ingress", &name)? - before.packets("ingress", &name)?)
        };
        let sent = seen.rounds as u64;
        ensure!(count("accept", OPEN)? == sent && count("drop", CLOSED)? == sent, "{sent} sent: {after:?}");
        for (port, arrived) in EITHER.into_iter().zip(seen.arrived()) {
            let (accepted, dropped) = (count("accept", port)?, count("drop", port)?);
            ensure!(
                accepted == arrived && accepted + dropped == sent,
                "port {port}: {sent} sent, {arrived} arrived, {accepted} accepted, {dropped} dropped"
            );
        }
        Ok(())
    }
}

/// The names in a directory, in order.
pub fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut names =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Everything below a directory, in order.
pub fn below(directory: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for name in names(directory)? {
        let path = directory.join(name);
        if path.is_dir() {
            all.extend(below(&path)?);
        } else {
            all.push(path.display().to_string());
        }
    }
    Ok(all)
}
