//! Bad input, from files and from callers: a clear answer, in bounded time and memory, and the policy in force stays.

use std::{
    fs::{self, File, Permissions},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use ringfence_api::{Generation, Status};
use ringfence_tests::{
    daemon::{Daemon, Reply, binary},
    netns::{CLIENT, SERVER, Site},
    traffic::Echo,
};

/// No refusal may take longer, whatever the input is.
const BOUND: Duration = Duration::from_secs(30);

const POLICY: &str = "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: accept
    rules:
      - drop: {proto: [tcp, udp], port: 81}
        name: closed
  egress: {default: accept}
";

struct Scene {
    site: Site,
    daemon: Daemon,
    closed: Echo,
    status: Status,
}

impl Scene {
    fn new() -> Result<Self> {
        let site = Site::new()?;
        let daemon = Daemon::start(&site.server, POLICY)?;
        let closed = Echo::start(&site.server, SERVER.0.into(), 81)?;
        let status = daemon.json(&["status"])?;
        Ok(Self { site, daemon, closed, status })
    }

    /// Applies what is bad: refused with exit code 2, an explanation that names each of `words`, and nothing changed.
    fn refuses(&self, file: &Path, words: &[&str]) -> Result<()> {
        let begin = Instant::now();
        let reply = self.daemon.ctl(["apply".as_ref(), file.as_os_str()])?.exits(2)?;
        ensure!(begin.elapsed() < BOUND, "refused after {:?}", begin.elapsed());
        for word in words {
            ensure!(reply.stderr.contains(word), "no `{word}` in: {}", reply.stderr);
        }
        self.is_as_before()
    }

    fn is_as_before(&self) -> Result<()> {
        let status: Status = self.daemon.json(&["status"])?;
        ensure!(status.generation == self.status.generation, "{status:?}");
        self.site.client.reaches(CLIENT.0.into(), self.closed.address(), false)
    }
}

#[test]
fn a_file_that_is_not_there() -> Result<()> {
    let scene = Scene::new()?;
    scene.refuses(&scene.daemon.path("nothing.yaml"), &["nothing.yaml"])
}

#[test]
fn a_directory_without_policies_and_one_where_a_set_file_is_named() -> Result<()> {
    let scene = Scene::new()?;
    let empty = scene.daemon.path("empty");
    fs::create_dir(&empty)?;
    scene.refuses(&empty, &["empty"])?;
    let text = POLICY.replace("network:\n", "sets:\n  list: {file: empty}\nnetwork:\n");
    scene.refuses(&scene.daemon.write("set.yaml", text)?, &["empty"])
}

#[test]
fn a_hundred_megabytes() -> Result<()> {
    let scene = Scene::new()?;
    // Sparse: the size alone must be enough to refuse it.
    let huge = scene.daemon.path("huge.yaml");
    File::create(&huge)?.set_len(100 << 20)?;
    scene.refuses(&huge, &["huge.yaml"])?;
    let rule = "      - drop: {from: 192.0.2.7}\n";
    let long = POLICY.replace("    rules:\n", &format!("    rules:\n{}", rule.repeat((100 << 20) / rule.len())));
    scene.refuses(&scene.daemon.write("long.yaml", long)?, &["long.yaml"])
}

#[test]
fn what_is_not_text_and_not_yaml() -> Result<()> {
    let scene = Scene::new()?;
    let program = fs::read(binary("ringctl"))?;
    scene.refuses(&scene.daemon.write("binary.yaml", &program[..100_000])?, &["binary.yaml"])?;
    scene.refuses(&scene.daemon.write("zero.yaml", "ringfence: 1\0\n")?, &["zero.yaml"])?;
    scene.refuses(&scene.daemon.write("braces.yaml", "{".repeat(100_000))?, &["braces.yaml"])?;
    scene.refuses(&scene.daemon.write("nothing.yaml", "")?, &["nothing.yaml"])
}

#[test]
fn an_alias_bomb() -> Result<()> {
    let scene = Scene::new()?;
    let level = |level: usize| format!("  a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 4].join(", "));
    let bomb = "ringfence: 1\nsets:\n  a0: &a0 [192.0.2.1, 192.0.2.2]\n".to_owned();
    let bomb = bomb + &(1..30).map(level).collect::<Vec<_>>().concat();
    scene.refuses(&scene.daemon.write("bomb.yaml", bomb)?, &["bomb.yaml"])
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() -> Result<()> {
    let scene = Scene::new()?;
    let text = "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: dorp
    rules:
      - accept: {proto: tcp, port: 70000}
      - accept: {proto: icmp, port: 80}
      - drop: {from: 192.0.2.300}
      - drop: {form: 192.0.2.3}
      - drop: {from: $nobody}
      - {}
  egress:
    default: accept
    rules:
      - accept: {vlan: 5000}
      - accept: {dscp: 64}
      - accept: {interface: eth9}
      - accept: {flags: sin}
";
    let file = scene.daemon.write("ten.yaml", text)?;
    let places: Vec<String> =
        [5, 7, 8, 9, 10, 11, 12, 16, 17, 18, 19].iter().map(|line| format!("ten.yaml:{line}:")).collect();
    scene.refuses(&file, &places.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_policy_whose_own_tests_fail_is_not_applied() -> Result<()> {
    let scene = Scene::new()?;
    let tests = "tests:
  - packet: {interface: eth0, proto: tcp, from: 192.0.2.2, to: 192.0.2.1, port: 81}
    expect: accept
";
    let file = scene.daemon.write("untrue.yaml", POLICY.to_owned() + tests)?;
    scene.daemon.ctl(["apply".as_ref(), file.as_os_str()])?.exits(1)?;
    scene.is_as_before()
}

#[test]
fn a_dry_run_changes_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let file = scene.daemon.write("open.yaml", POLICY.replace("port: 81", "port: 82"))?;
    scene.daemon.ctl(["apply".as_ref(), file.as_os_str(), "--dry-run".as_ref()])?.done()?;
    scene.is_as_before()
}

#[test]
fn sighup_applies_the_configured_file_and_keeps_the_old_one_when_it_is_bad() -> Result<()> {
    let scene = Scene::new()?;
    let problems = || Ok::<_, anyhow::Error>(scene.daemon.json::<Status>(&["status"])?.problems);
    for bad in [Some("ringfence: 2\n"), None] {
        match bad {
            Some(text) => drop(scene.daemon.write("policy.yaml", text)?),
            None => fs::remove_file(scene.daemon.path("policy.yaml"))?,
        }
        scene.daemon.signal(Signal::SIGHUP)?;
        eventually(|| Ok(!problems()?.is_empty()))?;
        scene.is_as_before()?;
    }
    scene.daemon.write("policy.yaml", POLICY.replace("port: 81", "port: 82"))?;
    scene.daemon.signal(Signal::SIGHUP)?;
    eventually(|| scene.site.client.udp_answers(CLIENT.0.into(), scene.closed.address(), Duration::from_millis(100)))?;
    // In force is not yet done: what was wrong is taken back after that.
    eventually(|| Ok(problems()?.is_empty()))?;
    let history: Vec<Generation> = scene.daemon.json(&["history"])?;
    ensure!(history.len() == 2, "{history:?}");
    Ok(())
}

fn eventually(mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + BOUND;
    while !holds()? {
        ensure!(Instant::now() < end, "not within {} s", BOUND.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn a_daemon_with_a_bad_policy_starts_with_the_last_confirmed_one() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.daemon.kill()?;
    scene.daemon.write("policy.yaml", "ringfence: 1\nnetwork: {ingress: {default: maybe}}\n")?;
    scene.daemon.restart()?;
    let status: Status = scene.daemon.json(&["status"])?;
    ensure!(status.generation == scene.status.generation && !status.problems.is_empty(), "{status:?}");
    scene.daemon.ctl(["status"])?.exits(1)?;
    scene.site.client.reaches(CLIENT.0.into(), scene.closed.address(), false)
}

#[test]
fn a_second_daemon_is_refused() -> Result<()> {
    let scene = Scene::new()?;
    // On the same directories, and on the same pins with other directories.
    let mut same = scene.daemon.command();
    let other = Daemon::new(&scene.site.server)?;
    for command in [&mut same, &mut other.command()] {
        command.arg("--policy").arg(scene.daemon.path("policy.yaml"));
        let reply = scene.daemon.reply(command)?.exits(3)?;
        ensure!(reply.stderr.to_lowercase().contains("another"), "{}", reply.stderr);
    }
    scene.is_as_before()
}

#[test]
fn others_than_root_are_refused_by_the_socket() -> Result<()> {
    let scene = Scene::new()?;
    // Everybody can get as far as the socket: it is the daemon that must refuse, whatever the directories allow.
    fs::set_permissions(scene.daemon.path(""), Permissions::from_mode(0o755))?;
    let copy = copy_for_everybody(&scene.daemon)?;
    let as_nobody = |arguments: &[&str]| -> Result<Reply> {
        let mut command = Command::new(&copy);
        command.arg("--socket").arg(scene.daemon.path("socket")).args(arguments).uid(65534).gid(65534);
        scene.daemon.reply(&mut command)
    };
    for arguments in [&["status"][..], &["rules"], &["deny", "192.0.2.66"], &["off"], &["apply"]] {
        as_nobody(arguments)?.exits(3).with_context(|| format!("{arguments:?}"))?;
    }
    scene.is_as_before()
}

/// The build directory may lie where only root can read.
fn copy_for_everybody(daemon: &Daemon) -> Result<PathBuf> {
    let copy = daemon.path("ringctl");
    fs::copy(binary("ringctl"), &copy)?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
    Ok(copy)
}

#[test]
fn a_daemon_without_privileges_says_what_is_missing() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::new(&site.server)?;
    fs::set_permissions(daemon.path(""), Permissions::from_mode(0o777))?;
    let copy = daemon.path("ringfenced");
    fs::copy(binary("ringfenced"), &copy)?;
    let policy = daemon.write("policy.yaml", POLICY)?;
    let mut command = Command::new(copy);
    command.arg("--socket").arg(daemon.path("socket")).arg("--state-dir").arg(daemon.path("state"));
    command.arg("--policy").arg(policy).uid(65534).gid(65534);
    let reply = daemon.reply(&mut command)?.exits(3)?;
    ensure!(reply.stderr.contains("CAP_") || reply.stderr.contains("root"), "{}", reply.stderr);
    Ok(())
}

#[test]
fn the_administrators_own_session_is_not_cut_without_force() -> Result<()> {
    let scene = Scene::new()?;
    // What sshd does: a shell that is below a process with the connection. `sudo` would have removed SSH_CONNECTION.
    let listener = scene.site.server.run(|| TcpListener::bind((SERVER.0, 22)))??;
    let session = scene.site.client.run(|| TcpStream::connect((SERVER.0, 22)))??;
    let (connection, peer) = listener.accept()?;
    ensure!(peer == session.local_addr()?, "somebody else connected");
    let in_session = |arguments: &[&str]| -> Result<i32> {
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$@\" </dev/null; exit $?", "sh"]).arg(binary("ringctl"));
        shell.arg("--socket").arg(scene.daemon.path("socket")).args(arguments);
        shell.stdin(OwnedFd::from(connection.try_clone()?)).stdout(Stdio::null());
        scene.site.server.spawn(&mut shell)?.wait()?.code().context("the shell was killed")
    };
    let client = CLIENT.0.to_string();
    ensure!(in_session(&["deny", &client])? == 1, "the session was cut");
    ensure!(in_session(&["deny", "192.0.2.0/24"])? == 1, "the session was cut by a prefix");
    ensure!(in_session(&["deny", "192.0.2.66"])? == 0, "another address is not the session's");
    let shut = scene.daemon.write("shut.yaml", POLICY.replace("port: 81", "port: 22"))?;
    ensure!(in_session(&["apply", &shut.display().to_string()])? == 1, "the session was cut by a policy");
    ensure!(in_session(&["deny", &client, "--force"])? == 0, "force was not enough");
    Ok(())
}
