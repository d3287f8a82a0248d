//! The examples, in force: what each of them promises is refused by the rule that promises it, and what it is there to
//! let through goes on.

use std::os::unix::net::UnixListener;

use anyhow::{Result, ensure};
use ringfence_tests::host::{Attempt, Machine, Shared, make_directory, name_actor, put};

static MACHINE: Shared = Shared::new(policy);

/// Executables that the examples name, and others: copies of the actor.
const PROGRAMS: [&str; 7] = [
    "/usr/sbin/unix_chkpwd",
    "/usr/sbin/nginx",
    "/usr/sbin/sshd",
    "/usr/bin/ssh",
    "/usr/bin/chromium",
    "/usr/bin/xterm",
    "/home/alice/tool",
];
const FILES: [&str; 4] = ["/srv/ci/token", "/home/alice/.ssh/id_ed25519", "/media/stick/page.html", "/usr/share/page"];
const DIRECTORIES: [&str; 7] =
    ["/srv/ci/work/1", "/var/log/nginx", "/var/www/html", "/usr/local/bin", "/home/kiosk", "/run/user/1500", "/media"];

/// The state before there are rules: also a policy that every example replaces.
fn policy() -> Result<String> {
    DIRECTORIES.iter().chain(&["/usr/sbin", "/home/alice/.ssh"]).try_for_each(make_directory)?;
    PROGRAMS.iter().try_for_each(|program| name_actor(program))?;
    FILES.iter().try_for_each(|file| put(file, "x"))?;
    std::os::unix::fs::chown("/home/alice/.ssh/id_ed25519", Some(1000), Some(1000))?;
    put("/etc/resolv.conf", "nameserver 192.0.2.53\n")?;
    Ok("ringfence: 1\nhost: {default: allow}\n".to_owned())
}

/// Steps, and the rule that counts them: refused by it where the word of the refused step and its error are given, else
/// let through.
type Line<'a> = (&'a [&'a str], Option<&'a str>, &'a str);

/// Puts an example in force and makes these attempts.
fn check(example: &str, lines: &[Line<'_>]) -> Result<()> {
    MACHINE.run(|machine| {
        machine.daemon.apply(example)?;
        lines.iter().try_for_each(|line| attempt(machine, line))
    })
}

fn attempt(machine: &Machine, &(steps, refused, rule): &Line<'_>) -> Result<()> {
    let before = machine.hits()?;
    let outcome = Attempt::new(steps).run()?;
    ensure!(outcome == refused.unwrap_or("ok"), "`{outcome}` instead of `{refused:?}`: {steps:?}");
    ensure!(machine.hits()?.since(&before, rule)? > 0, "{rule} counted nothing: {steps:?}");
    Ok(())
}

/// A step into the cgroup of a unit.
fn unit(name: &str) -> Result<String> {
    let directory = format!("/sys/fs/cgroup/system.slice/{name}.service");
    make_directory(&directory)?;
    Ok(format!("cgroup {directory}"))
}

#[test]
fn host_hardening() -> Result<()> {
    check(
        include_str!("../../examples/host-hardening.yaml"),
        &[
            (&["copy /bin/actor /tmp/dropper", "exec /tmp/dropper"], Some("exec: EACCES"), "no-exec-from-temporary"),
            (&["open /tmp/dropper", "map-exec"], Some("map-exec: EACCES"), "no-exec-from-temporary"),
            (&["memfd /bin/actor", "exec-fd"], Some("exec-fd: EACCES"), "no-memfd"),
            (&["become 1000", "open /etc/shadow"], Some("open: EACCES"), "secrets"),
            (&["exec /usr/sbin/unix_chkpwd", "become 1000", "open /etc/shadow"], None, "readers-of-secrets"),
            (&["become 1000", "rename /etc/shadow /etc/gone"], Some("rename: EACCES"), "secrets"),
            (&["become 1001", "open /home/alice/.ssh/id_ed25519"], Some("open: EACCES"), "keys-of-others"),
            (&["drop 1000 1000", "open /home/alice/.ssh/id_ed25519"], None, "default"),
            (&["login 1000", "become 1000", "load-module"], Some("load-module: EACCES"), "no-modules-from-sessions"),
            (&["load-kernel"], Some("load-kernel: EACCES"), "no-kexec"),
            (&["become 1000", "bpf"], Some("bpf: EACCES"), "no-debugging"),
            (&["bpf"], None, "default"),
            (&["drop 1000 1000", "unshare user"], Some("unshare: EACCES"), "no-user-namespaces"),
            (&["become 1000", "socket 17 3 768"], Some("socket: EACCES"), "no-raw-sockets"),
            (&["drop 1000 1000", "socket 2 1 0"], None, "default"),
            // In audit mode.
            (&["open /usr/bin/new wc"], None, "programs-change"),
        ],
    )
}

#[test]
fn web_server() -> Result<()> {
    let unit = unit("nginx")?;
    check(
        include_str!("../../examples/web-server.yaml"),
        &[
            (&["become 33", "open /etc/shadow"], Some("open: EACCES"), "shadow"),
            (&["open /etc/shadow"], None, "root-reads-shadow"),
            (&[&unit, "exec /bin/actor"], Some("exec: EACCES"), "nginx/no-other-program"),
            (&[&unit, "exec /usr/sbin/nginx"], None, "nginx/itself"),
            (&["exec /bin/actor"], None, "default"),
            (&[&unit, "open /var/www/html/shell.php wc"], Some("open: EACCES"), "nginx/nothing-else"),
            (&[&unit, "open /var/log/nginx/access.log wc"], None, "nginx/its-files"),
            (&[&unit, "unshare user"], Some("unshare: EACCES"), "nginx/no-kernel"),
        ],
    )
}

#[test]
fn ci_runner() -> Result<()> {
    let unit = unit("ci-job@1")?;
    let _engine = UnixListener::bind("/run/docker.sock")?;
    let service = Attempt::new(["wait"]).by("/usr/sbin/sshd").start()?;
    let process = Attempt::new(["wait"]).start()?;
    check(
        include_str!("../../examples/ci-runner.yaml"),
        &[
            (&[&unit, "open /srv/ci/work/1/out.o wc"], None, "jobs/work"),
            (&[&unit, "open /usr/local/bin/gcc wc"], Some("open: EACCES"), "jobs/elsewhere"),
            (&["open /usr/local/bin/gcc wc"], None, "default"),
            (&[&unit, "open /srv/ci/token"], Some("open: EACCES"), "jobs/private"),
            (&[&unit, "unshare user"], Some("unshare: EACCES"), "jobs/kernel"),
            (&[&unit, "socket 2 3 1"], Some("socket: EACCES"), "jobs/raw-sockets"),
            (&[&unit, "connect tcp 169.254.169.254:80"], Some("connect: EACCES"), "jobs/metadata"),
            (&[&unit, "connect tcp 127.0.0.1:80"], None, "default"),
            (&[&unit, "connect stream unix:/run/docker.sock"], Some("connect: EACCES"), "jobs/container-engines"),
            (&[&unit, &format!("kill {}", service.id())], Some("kill: EACCES"), "jobs/services"),
            (&[&unit, &format!("kill {}", process.id())], None, "default"),
        ],
    )
}

#[test]
fn bastion() -> Result<()> {
    let session = "/sys/fs/cgroup/user.slice/user-1000.slice";
    make_directory(session)?;
    let session = format!("cgroup {session}");
    check(
        include_str!("../../examples/bastion.yaml"),
        &[
            (&["drop 1000 1000", "exec /home/alice/tool"], Some("exec: EACCES"), "no-own-programs"),
            (&["drop 1000 1000", "exec /usr/bin/ssh"], None, "default"),
            (&["memfd /bin/actor", "exec-fd"], Some("exec-fd: EACCES"), "no-memfd"),
            (&["drop 1000 1000", "unshare user"], Some("unshare: EACCES"), "no-kernel-doors"),
            (&["drop 1000 1000", "open /home/alice/.ssh/id_ed25519"], None, "own-keys"),
            (&["become 1001", "open /home/alice/.ssh/id_ed25519"], Some("open: EACCES"), "keys-of-others"),
            // In audit mode.
            (&[&session, "drop 1000 1000", "listen tcp 127.0.0.1:0"], None, "listeners"),
        ],
    )
}

#[test]
fn kiosk() -> Result<()> {
    check(
        include_str!("../../examples/kiosk.yaml"),
        &[
            (&["become 1500", "exec /usr/bin/chromium"], None, "visitor/programs"),
            (&["become 1500", "exec /usr/bin/xterm"], Some("exec: EACCES"), "visitor/other-programs"),
            (&["exec /usr/bin/xterm"], None, "default"),
            (&["become 1500", "memfd /bin/actor", "exec-fd"], Some("exec-fd: EACCES"), "visitor/no-memfd"),
            (&["become 1500", "open /media/stick/page.html"], Some("open: EACCES"), "visitor/sticks"),
            (&["become 1500", "open /usr/share/page"], None, "default"),
            (&["become 1500", "open /usr/share/page w"], Some("open: EACCES"), "visitor/other-files"),
            (&["become 1500", "open /home/kiosk/page wc"], None, "visitor/its-files"),
            (&["become 1500", "setuid 0"], Some("setuid: EACCES"), "visitor/kernel"),
            (&["become 1500", "bind-socket tcp 127.0.0.1:0"], Some("bind-socket: EACCES"), "visitor/no-servers"),
            (&["become 1500", "connect tcp 127.0.0.1:80"], None, "default"),
        ],
    )
}
