//! What changes without an apply, from the command line to the kernel: `ringctl deny`, and a million elements of a set.
//!
//! The programs are the ones beside this one, with a state directory and a network namespace of their own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use ringfence_api::{Client, Direction, EntryRequest, EntryVerb, Target, What};

const DENIALS: u32 = 1_000;
const ELEMENTS: u32 = 1_000_000;
const PATIENCE: Duration = Duration::from_mins(1);

const POLICY: &str = "ringfence: 1
sets:
  big: {dynamic: true, capacity: 2000000}
network:
  interfaces: [lo]
  ingress: {default: accept, rules: [{drop: {from: $big}}]}
";

/// A daemon that ends with this value, and removes what it made.
struct Daemon<'a> {
    child: Child,
    directory: &'a Path,
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // The machine is left as it was as far as that is possible; the measurement's own error matters more.
        let _ = ctl(self.directory, &["off"]).output();
        let _ = self.child.kill().and_then(|()| self.child.wait());
        let _ = nix::mount::umount(&self.directory.join("bpf"));
    }
}

fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not built: `cargo xtask bench` builds it", path.display());
    Ok(path)
}

fn ctl(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("ringctl").unwrap_or_else(|_| "ringctl".into()));
    command.arg("--socket").arg(directory.join("socket")).args(arguments).stdout(Stdio::null());
    command
}

/// Denials and sets.
pub fn report() -> Result<()> {
    // The daemon inherits it; nothing is attached to the machine's own interfaces.
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    let directory = tempfile::tempdir()?;
    let daemon = start(directory.path())?;
    println!("\nChanges without an apply (median and worst of {DENIALS}, milliseconds)");
    line("a write and fdatasync", &mut written(directory.path())?);
    line("deny, by the API", &mut by_api(directory.path())?);
    line("deny, by `ringctl deny`", &mut by_command(directory.path())?);
    println!("\n{ELEMENTS} elements from standard input (seconds)");
    let addresses = addresses();
    for (verb, name) in [("add", "set add"), ("add", "set add, all of them there"), ("del", "set del")] {
        println!("  {name:<34}{:>8.2}", change(directory.path(), verb, &addresses)?.as_secs_f64());
    }
    drop(daemon);
    Ok(())
}

fn start(directory: &Path) -> Result<Daemon<'_>> {
    fs::write(directory.join("policy.yaml"), POLICY)?;
    fs::create_dir(directory.join("bpf"))?;
    let mut command = Command::new(program("ringfenced")?);
    for (option, name) in [
        ("--policy", "policy.yaml"),
        ("--socket", "socket"),
        ("--state-dir", "state"),
        ("--bpffs", "bpf"),
        ("--cgroup", ""),
    ] {
        command.arg(option).arg(directory.join(name));
    }
    let log = File::create(directory.join("log"))?;
    let child = command.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null()).spawn()?;
    let daemon = Daemon { child, directory };
    let end = Instant::now() + PATIENCE;
    // The policy is in force before the socket is served.
    while ctl(directory, &["list"]).stderr(Stdio::null()).status()?.code() != Some(0) {
        if Instant::now() > end {
            bail!("ringfenced does not answer: {}", fs::read_to_string(directory.join("log")).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(daemon)
}

fn line(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let milliseconds = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!("  {name:<34}{:>8.2}{:>10.2}", milliseconds(times.get(times.len() / 2)), milliseconds(times.last()));
}

fn timed(mut each: impl FnMut(u32) -> Result<()>) -> Result<Vec<Duration>> {
    let time = |number| {
        let begin = Instant::now();
        each(number)?;
        Ok(begin.elapsed())
    };
    (0..DENIALS).map(time).collect()
}

/// What the disk alone takes for one entry.
fn written(directory: &Path) -> Result<Vec<Duration>> {
    let mut file = File::options().create(true).append(true).open(directory.join("written"))?;
    timed(|_| {
        file.write_all(&[b'x'; 200])?;
        Ok(file.sync_data()?)
    })
}

fn by_api(directory: &Path) -> Result<Vec<Duration>> {
    let client = Client::new(directory.join("socket"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    timed(|number| {
        let address = std::net::IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
        let request = EntryRequest {
            verb: EntryVerb::Deny,
            what: What::Packets(Target { address: address.into(), port: None }),
            direction: Direction::In,
            for_seconds: None,
            reason: None,
            force: false,
            all_ports: false,
        };
        runtime.block_on(client.add_entry(&request))?;
        Ok(())
    })
}

fn by_command(directory: &Path) -> Result<Vec<Duration>> {
    timed(|number| {
        let address = Ipv4Addr::from(0x0b00_0000 + number).to_string();
        ensure!(ctl(directory, &["deny", &address]).status()?.success(), "`ringctl deny` failed");
        Ok(())
    })
}

fn addresses() -> String {
    (0..ELEMENTS).fold(String::new(), |mut text, number| {
        // Spread over the address space, each once: an odd factor is a permutation. Writing to a `String` cannot fail.
        let _ = writeln!(text, "{}", Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1)));
        text
    })
}

fn change(directory: &Path, verb: &str, addresses: &str) -> Result<Duration> {
    let begin = Instant::now();
    let mut child = ctl(directory, &["set", verb, "big", "-"]).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(addresses.as_bytes())?;
    ensure!(child.wait()?.success(), "`ringctl set {verb}` failed");
    Ok(begin.elapsed())
}
