//! A daemon in a network and a mount namespace of its own, so that it meets neither the machine's interfaces nor another
//! test's pins.

#![expect(clippy::unwrap_used, reason = "helpers of tests: to fail is to say so")]
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringfence_api::{ApplyRequest, ApplySource, Client, ClientError, ErrorCode, PolicyText};
use tempfile::TempDir;

/// The daemon compiles and loads within a second; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub struct Place {
    pub directory: TempDir,
}

pub struct Running {
    pub child: Child,
    pub client: Client,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Place {
    pub fn new() -> Self {
        Self { directory: TempDir::with_prefix("ringfenced-test-").unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A script to be run in namespaces of its own, with an interface `one` and a BPF filesystem.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("unshare");
        let setup = "mount -t bpf bpf /sys/fs/bpf && ip link set lo up && ip link add one type veth peer name two && ip link set one up && ip link set two up";
        command.args(["--net", "--mount", "sh", "-ec", &format!("{setup}; {script}")]);
        command.env("RINGFENCED", env!("CARGO_BIN_EXE_ringfenced")).env("PLACE", self.directory.path());
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    pub fn once(&self, arguments: &str) -> Output {
        self.shell(&daemon(arguments)).output().unwrap()
    }

    pub fn start(&self, arguments: &str) -> Running {
        self.start_after("", arguments)
    }

    /// Starts a daemon after commands in the same namespaces.
    pub fn start_after(&self, commands: &str, arguments: &str) -> Running {
        let script = format!("{commands} {}", daemon(arguments));
        let log = self.path("log");
        let file = fs::File::create(&log).unwrap();
        let child = self.shell(&script).stderr(file).spawn().unwrap();
        let mut running = Running { child, client: Client::new(self.path("socket")), log };
        let end = Instant::now() + PATIENCE;
        while ask(running.client.status()).is_err() {
            assert!(Instant::now() < end, "the daemon does not answer");
            assert!(
                running.child.try_wait().unwrap().is_none(),
                "the daemon ended: {:?}",
                fs::read_to_string(&running.log)
            );
            sleep(Duration::from_millis(20));
        }
        running
    }
}

/// Commands that leave behind what a daemon that was killed enforces: `p.yaml`.
pub const KILLED: &str = "$RINGFENCED --socket $PLACE/first --state-dir $PLACE/state --policy $PLACE/p.yaml & first=$!; \
    while ! curl -sf --unix-socket $PLACE/first http://x/v1/status | grep -q '\"generation\":1'; do sleep 0.05; done; \
    kill -9 $first; wait $first || true; test -e /sys/fs/bpf/ringfence/v*/links/*;";

/// The daemon's command line. Unless a test names a cgroup of its own, there is none: on a kernel without security hooks
/// `connect` and `bind` of the whole machine would be judged otherwise.
fn daemon(arguments: &str) -> String {
    let cgroup = if arguments.contains("--cgroup") { "" } else { "--cgroup $PLACE" };
    format!("exec $RINGFENCED --socket $PLACE/socket --state-dir $PLACE/state {cgroup} {arguments}")
}

pub fn ask<T>(request: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(request)
}

pub fn policy(rules: &str) -> String {
    format!(
        "ringfence: 1\nsets:\n  jail: {{dynamic: true, timeout: 1h, capacity: 3}}\nnetwork:\n  interfaces: [one]\n  ingress:\n    default: drop\n    stateless: true\n    rules:\n      - drop: {{from: $jail}}\n{rules}"
    )
}

pub fn texts(text: &str) -> ApplyRequest {
    let text = PolicyText { name: "p.yaml".into(), text: text.into(), base: "/".into() };
    ApplyRequest {
        source: ApplySource::Texts(vec![text]),
        confirm_seconds: None,
        dry_run: false,
        force: false,
        expect_digest: None,
    }
}

pub fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    match result.unwrap_err() {
        ClientError::Refused(body) => body.code,
        other => panic!("{other}"),
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub const WEB: &str = "      - accept: {proto: tcp, port: 80}\n        name: web\n";

pub fn address(text: &str) -> ringfence_api::Target {
    ringfence_api::Target { address: text.parse().unwrap(), port: None }
}
