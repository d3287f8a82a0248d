//! Interfaces that come, go and change their names, and programs that are not Ringfence's.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ringfence_api::{Hook, OffAnswer, Status};
use ringfence_tests::{
    daemon::Daemon,
    foreign::Foreign,
    netns::{CLIENT, Host, SERVER, Site},
    traffic::Echo,
};

const PATIENCE: Duration = Duration::from_secs(20);

const CLOSED: &str = "ringfence: 1
network:
  interfaces: [eth0, \"wan*\"]
  ingress:
    default: accept
    rules:
      - drop: {proto: [tcp, udp], port: 81, interface: eth0}
        name: by-eth0
      - drop: {proto: [tcp, udp], port: 81, interface: \"wan*\"}
        name: by-wan
  egress: {default: accept}
";

/// The hook of an interface as `ringctl status` shows it.
fn hook(daemon: &Daemon, hook: &str, interface: &str) -> Result<Option<Hook>> {
    let status: Status = daemon.json(&["status"])?;
    let mut hooks = status.halves.network.hooks.into_iter();
    Ok(hooks.find(|of| of.hook == hook && of.interface.as_deref() == Some(interface)))
}

/// How the ingress of `eth0` is judged.
fn how(daemon: &Daemon) -> Result<String> {
    let hook = hook(daemon, "ingress", "eth0")?.context("no ingress hook on eth0")?;
    hook.how.context("the hook does not say how")
}

fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > end {
            bail!("not after {} s: {what}", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn interfaces_are_followed_as_they_come_and_go() -> Result<()> {
    let server = std::sync::Arc::new(Host::new()?);
    let daemon = Daemon::start(&server, CLOSED)?;
    ensure!(hook(&daemon, "ingress", "wan0")?.is_none(), "a hook on an interface that is not there");
    for _ in 0..2 {
        let client = Host::new()?;
        server.veth("wan0", &client, "eth0")?;
        for (host, name, address) in [(&*server, "wan0", SERVER.0), (&client, "eth0", CLIENT.0)] {
            host.up(name)?;
            host.address(name, address, 24)?;
        }
        eventually("a hook on wan0", || Ok(hook(&daemon, "ingress", "wan0")?.is_some()))?;
        let echo = Echo::start(&server, SERVER.0.into(), 81)?;
        let before = daemon.counters()?.packets("ingress", "by-wan")?;
        client.reaches(CLIENT.0.into(), echo.address(), false)?;
        ensure!(daemon.counters()?.packets("ingress", "by-wan")? >= before + 2, "not counted by its rule");
        server.delete("wan0")?;
        eventually("no hook on wan0", || Ok(hook(&daemon, "ingress", "wan0")?.is_none()))?;
    }
    Ok(())
}

#[test]
fn a_renamed_interface_is_judged_under_its_new_name() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, CLOSED)?;
    let echo = Echo::start(&site.server, SERVER.0.into(), 81)?;
    site.client.reaches(CLIENT.0.into(), echo.address(), false)?;
    let before = daemon.counters()?;
    ensure!(before.packets("ingress", "by-eth0")? >= 2 && before.packets("ingress", "by-wan")? == 0, "{before:?}");
    site.server.rename("eth0", "wan7")?;
    eventually("a hook on wan7", || Ok(hook(&daemon, "ingress", "wan7")?.is_some()))?;
    ensure!(hook(&daemon, "ingress", "eth0")?.is_none(), "the old name still has a hook");
    site.client.reaches(CLIENT.0.into(), echo.address(), false)?;
    let after = daemon.counters()?;
    ensure!(after.packets("ingress", "by-wan")? >= 2, "{after:?}");
    ensure!(after.packets("ingress", "by-eth0")? == before.packets("ingress", "by-eth0")?, "{after:?}");
    // A name outside the policy: nothing is judged there any more.
    site.server.rename("wan7", "lan0")?;
    eventually("no hook on lan0", || Ok(hook(&daemon, "ingress", "lan0")?.is_none()))?;
    eventually("the port is open", || {
        site.client.udp_answers(CLIENT.0.into(), echo.address(), Duration::from_millis(100))
    })
}

#[test]
fn off_removes_everything_of_ours_and_nothing_else() -> Result<()> {
    let site = Site::new()?;
    let pins = || site.server.run(|| count_files("/sys/fs/bpf".as_ref()))?.context("cannot read the bpffs");
    // The kernel may put files of its own there (CONFIG_BPF_PRELOAD).
    let before = pins()?;
    let mut daemon = Daemon::start(&site.server, CLOSED)?;
    ensure!(pins()? > before, "nothing is pinned");
    let echo = Echo::start(&site.server, SERVER.0.into(), 81)?;
    site.client.reaches(CLIENT.0.into(), echo.address(), false)?;
    ensure!(site.server.xdp_program("eth0")?.is_some(), "nothing at XDP");
    let answer: OffAnswer = daemon.json(&["off"])?;
    ensure!(!answer.removed.is_empty(), "off names nothing that it removed");
    site.client.reaches(CLIENT.0.into(), echo.address(), true)?;
    ensure!(site.server.xdp_program("eth0")?.is_none(), "a program stayed at XDP");
    ensure!(pins()? == before, "pins stayed");
    daemon.ctl(["status"])?.exits(3)?;
    // Off survives a restart, until on.
    daemon.kill()?;
    daemon.restart()?;
    site.client.reaches(CLIENT.0.into(), echo.address(), true)?;
    daemon.ctl(["on"])?.done()?;
    site.client.reaches(CLIENT.0.into(), echo.address(), false)
}

fn count_files(directory: &std::path::Path) -> std::io::Result<usize> {
    std::fs::read_dir(directory)?.try_fold(0, |count, entry| {
        let path = entry?.path();
        Ok(count + if path.is_dir() { count_files(&path)? } else { 1 })
    })
}

#[test]
fn a_foreign_xdp_program_stays_and_ringfence_judges_at_tc() -> Result<()> {
    let site = Site::new()?;
    let foreign = Foreign::xdp(&site.server, "eth0")?;
    let daemon = Daemon::start(&site.server, CLOSED)?;
    ensure!(["tcx", "clsact"].contains(&how(&daemon)?.as_str()), "judged by {}", how(&daemon)?);
    let reason = hook(&daemon, "ingress", "eth0")?.and_then(|hook| hook.because);
    ensure!(reason.is_some(), "status does not say why not at XDP");
    let echo = Echo::start(&site.server, SERVER.0.into(), 81)?;
    site.client.reaches(CLIENT.0.into(), echo.address(), false)?;
    ensure!(site.server.xdp_program("eth0")? == Some(foreign.id()?), "the foreign program is gone");
    daemon.ctl(["off"])?.done()?;
    ensure!(site.server.xdp_program("eth0")? == Some(foreign.id()?), "off removed the foreign program");
    site.client.reaches(CLIENT.0.into(), echo.address(), true)
}
