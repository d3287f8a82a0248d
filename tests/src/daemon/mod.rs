//! The real `ringfenced` and `ringctl` on a [`Host`].

mod binaries;
mod counters;

pub use binaries::binary;
pub use counters::Counters;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{net::UnixDatagram, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ringfence_api::{Hook, Status};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::netns::Host;

/// How long a daemon may take until it enforces, and to end. Generous: an emulated machine is ten times slower.
const PATIENCE: Duration = Duration::from_mins(2);

/// A daemon with directories of its own. It is killed with this value; its log is printed then, for a test that fails.
#[derive(Debug)]
pub struct Daemon {
    host: Arc<Host>,
    directory: TempDir,
    notifications: UnixDatagram,
    child: Option<Child>,
    shows_log: bool,
}

/// What a command answered.
#[derive(Debug)]
pub struct Reply {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Daemon {
    /// Starts a daemon with this policy on the host and waits until it enforces.
    pub fn start(host: &Arc<Host>, policy: &str) -> Result<Self> {
        let mut daemon = Self::new(host)?;
        daemon.write("policy.yaml", policy)?;
        daemon.restart()?;
        Ok(daemon)
    }

    /// Directories for a daemon that does not run yet.
    pub fn new(host: &Arc<Host>) -> Result<Self> {
        let directory = TempDir::with_prefix("ringfence-").context("cannot make a directory")?;
        let notifications = UnixDatagram::bind(directory.path().join("notify"))?;
        notifications.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self { host: Arc::clone(host), directory, notifications, child: None, shows_log: true })
    }

    /// Starts the daemon in its directories (again) and waits until it enforces.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = self.command();
        command.arg("--policy").arg(self.path("policy.yaml"));
        self.run(&mut command)
    }

    /// Starts the daemon with this command and waits until it enforces.
    pub fn run(&mut self, command: &mut Command) -> Result<()> {
        ensure!(self.child.is_none(), "the daemon runs already");
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        command.env("NOTIFY_SOCKET", self.path("notify")).stdout(log.try_clone()?).stderr(log);
        self.child = Some(self.host.spawn(command)?);
        self.wait_ready()
    }

    /// `ringfenced` with this daemon's directories and no policy.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary("ringfenced"));
        command.arg("--socket").arg(self.path("socket"));
        command.arg("--state-dir").arg(self.path("state"));
        command.args(["--bpffs", "/sys/fs/bpf/ringfence"]);
        // No cgroup: on a kernel without security hooks `connect` and `bind` of the whole machine would be judged there.
        command.arg("--cgroup").arg(self.directory.path());
        command.stdin(Stdio::null()).env_remove("RUST_LOG");
        command
    }

    /// Whether the daemon was started and neither killed nor stopped since.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut bytes = [0; 4096];
        while Instant::now() < end {
            match self.notifications.recv(&mut bytes) {
                Ok(length) if bytes[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1") => {
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = self.child.as_mut().context("the daemon was not started")?.try_wait()? {
                self.child = None;
                bail!("ringfenced ended with {status}: {}", self.log());
            }
        }
        bail!("ringfenced is not ready after {} s: {}", PATIENCE.as_secs(), self.log())
    }

    /// What the daemon has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.path("log")).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Leaves the log out at the end.
    pub fn hide_log(&mut self) {
        self.shows_log = false;
    }

    /// A path in the daemon's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the daemon's directory.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("the daemon does not run")?;
        kill(Pid::from_raw(child.id().try_into()?), signal).context("cannot signal the daemon")
    }

    /// Kills the daemon with SIGKILL, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the daemon does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The daemon's process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the daemon does not run")?.id())
    }

    /// Kilobytes of the daemon's memory.
    pub fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Whether the daemon has been killed by somebody else than this value; then it can be started again.
    pub fn was_killed(&mut self) -> Result<bool> {
        let Some(status) = self.child.as_mut().context("the daemon does not run")?.try_wait()? else {
            return Ok(false);
        };
        self.child = None;
        ensure!(status.signal() == Some(Signal::SIGKILL as i32), "ringfenced ended with {status}: {}", self.log());
        Ok(true)
    }

    /// Asks the daemon to end with SIGTERM and waits for it.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let mut child = self.child.take().context("the daemon does not run")?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        bail!("ringfenced does not end on SIGTERM")
    }

    /// Runs `ringctl` with these arguments against the daemon.
    pub fn ctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Reply> {
        self.reply(self.ctl_command().args(arguments))
    }

    /// `ringctl` for this daemon, without arguments of its own.
    #[must_use]
    pub fn ctl_command(&self) -> Command {
        let mut command = Command::new(binary("ringctl"));
        command.arg("--socket").arg(self.path("socket")).env_remove("SSH_CONNECTION");
        command
    }

    /// Runs a command on the daemon's host to its end.
    pub fn reply(&self, command: &mut Command) -> Result<Reply> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.host.spawn(command)?.wait_with_output()?;
        Ok(Reply {
            code: output.status.code().with_context(|| format!("{command:?} was killed: {}", output.status))?,
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `ringctl` for its JSON answer.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let reply = self.ctl(arguments.iter().chain(&["--json"]))?;
        serde_json::from_str(&reply.stdout).with_context(|| format!("{arguments:?} answered {reply:?}"))
    }

    /// Applies a policy by `ringctl apply`; an error if it is refused.
    pub fn apply(&self, policy: &str) -> Result<()> {
        let file = self.write("policy.yaml", policy)?;
        self.ctl([Path::new("apply"), &file])?.done()?;
        Ok(())
    }

    /// Waits until a line has counted this many packets more than in `before`.
    pub fn counted(&self, before: &Counters, chain: &str, name: &str, packets: u64) -> Result<()> {
        let expected = before.packets(chain, name)? + packets;
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.counters()?;
            let found = now.packets(chain, name)?;
            if found == expected {
                return Ok(());
            }
            ensure!(found < expected && Instant::now() < end, "{chain} {name} is {found}, not {expected}: {now:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The hook that judges what arrives.
    pub fn ingress(&self) -> Result<Hook> {
        let status: Status = self.json(&["status"])?;
        let hook = status.halves.network.hooks.into_iter().find(|hook| hook.hook == "ingress");
        hook.context("no ingress hook")
    }

    /// All counters, by `ringctl rules --json`.
    pub fn counters(&self) -> Result<Counters> {
        Ok(Counters::new(self.json(&["rules"])?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The child may have ended already; there is nothing else to do about an error here.
            let _ = child.kill().and_then(|()| child.wait());
        }
        if self.shows_log {
            // Captured by the test runner, shown for a test that fails.
            eprintln!("---- log of ringfenced\n{}", self.log());
        }
    }
}

impl Reply {
    /// The reply if the command ended with exit code 0.
    pub fn done(self) -> Result<Self> {
        self.exits(0)
    }

    /// The reply if the command ended with this exit code.
    pub fn exits(self, code: i32) -> Result<Self> {
        ensure!(self.code == code, "expected exit code {code}: {self:?}");
        Ok(self)
    }
}
