//! The host half on a whole machine: only inside a virtual machine of its own, where nothing else is disturbed.

mod attempt;
mod fixture;

pub use attempt::{Attempt, Waiting, attempt};
pub use fixture::Fixture;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, anyhow, ensure};
use ringfence_api::{Client, RulesQuery};
use tokio::runtime::{Builder, Runtime};

use crate::{daemon::Daemon, netns::Host};

/// Chain of the host half in `ringctl rules`.
const CHAIN: &str = "host";
/// What [`Machine::new`] refuses to run without: the mark that `vm-init` leaves.
const MARK: &str = "/etc/ringfence-test-machine";

/// A daemon that judges this machine's system calls.
#[derive(Debug)]
pub struct Machine {
    /// The daemon.
    pub daemon: Daemon,
    runtime: Runtime,
}

impl Machine {
    /// Starts a daemon with this policy and waits until it enforces.
    pub fn new(policy: &str) -> Result<Self> {
        ensure!(Path::new(MARK).exists(), "the host half is tested in virtual machines only: cargo xtask vm");
        let host = Host::current()?;
        host.up("lo")?;
        let mut daemon = Daemon::start(&host.into(), policy)?;
        daemon.hide_log();
        Ok(Self { daemon, runtime: Builder::new_current_thread().enable_all().build()? })
    }

    /// The host chain's counters. Asked for without `ringctl`: it is done so often that starting a program each time
    /// would take longer than the tests.
    pub fn hits(&self) -> Result<Hits> {
        let client = Client::new(self.daemon.path("socket"));
        let lines = self.runtime.block_on(client.rules(RulesQuery::default()))?;
        Ok(Hits(lines.into_iter().filter(|line| line.chain == CHAIN).map(|line| (line.name, line.hits)).collect()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What is pinned goes on enforcing, which the next test must not see.
        if let Err(error) = self.daemon.ctl(["off"]).and_then(crate::daemon::Reply::done) {
            eprintln!("cannot switch off: {error:#}");
        }
    }
}

/// Counters of the host chain.
#[derive(Debug)]
pub struct Hits(BTreeMap<String, u64>);

impl Hits {
    /// Calls that a line has counted.
    pub fn of(&self, rule: &str) -> Result<u64> {
        self.0.get(rule).copied().with_context(|| format!("no line {rule} in {:?}", self.0.keys()))
    }

    /// Calls that a line has counted since `before`.
    pub fn since(&self, before: &Self, rule: &str) -> Result<u64> {
        Ok(self.of(rule)?.saturating_sub(before.of(rule)?))
    }
}

/// A machine that the tests of one program share, so that its policy is loaded once.
#[derive(Debug)]
pub struct Shared {
    /// The machine, or why there is none.
    machine: Mutex<Option<Result<Machine, String>>>,
    policy: fn() -> Result<String>,
}

impl Shared {
    /// A machine that is started when it is first used, with the policy that `policy` makes.
    #[must_use]
    pub const fn new(policy: fn() -> Result<String>) -> Self {
        Self { machine: Mutex::new(None), policy }
    }

    /// Runs a test on the machine. The end of the daemon's log is printed if it fails.
    pub fn run<T>(&self, test: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
        let mut slot: MutexGuard<'_, _> = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = slot.get_or_insert_with(|| {
            (self.policy)().and_then(|policy| Machine::new(&policy)).map_err(|error| format!("{error:#}"))
        });
        let machine = machine.as_mut().map_err(|error| anyhow!("there is no machine: {error}"))?;
        test(machine).inspect_err(|_| {
            let log = machine.daemon.log();
            let end = log.lines().rev().take(20).collect::<Vec<_>>();
            eprintln!("---- end of ringfenced's log");
            end.iter().rev().for_each(|line| eprintln!("{line}"));
        })
    }
}

/// Writes a file and the directories it needs. Everybody may read, write and execute it.
pub fn put(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = path.as_ref();
    let parent = path.parent().context("a file without a directory")?;
    make_directory(parent)?;
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o777))?)
}

/// Makes a directory, with those above it, in which everybody may do everything.
pub fn make_directory(path: impl AsRef<Path>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = path.as_ref();
    if !path.exists() {
        if let Some(parent) = path.parent() {
            make_directory(parent)?;
        }
        fs::create_dir(path).with_context(|| format!("cannot make {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

/// Gives the actor another name: another executable. Test programs share the machine, so it may have it already.
pub fn name_actor(path: &str) -> Result<()> {
    match fs::hard_link(crate::daemon::binary("actor"), path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}
