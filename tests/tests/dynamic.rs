//! `ringctl deny`, `allow` and `undo`, and the elements of dynamic sets, on real traffic.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringfence_api::EntryList;
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, SERVER, STRANGER, Site},
    traffic::Echo,
};

/// Accepts everything but what is in the set, and port 81.
const OPEN: &str = "ringfence: 1
sets:
  jail: {dynamic: true, timeout: 1h, capacity: 1000, full: evict-oldest}
network:
  interfaces: [eth0]
  ingress:
    default: accept
    rules:
      - drop: {from: $jail}
        name: jailed
      - drop: {proto: [tcp, udp], port: 81}
        name: closed
  egress: {default: accept}
";

struct Scene {
    site: Site,
    daemon: Daemon,
    web: Echo,
    web6: Echo,
    closed: Echo,
}

impl Scene {
    fn new() -> Result<Self> {
        let site = Site::new()?;
        let daemon = Daemon::start(&site.server, OPEN)?;
        let echo = |address: IpAddr, port| Echo::start(&site.server, address, port);
        let (web, web6, closed) = (echo(SERVER.0.into(), 80)?, echo(SERVER.1.into(), 80)?, echo(SERVER.0.into(), 81)?);
        Ok(Self { site, daemon, web, web6, closed })
    }

    /// Runs `ringctl` and asks at once: what it did must be in force when it returns.
    fn after(&self, command: &str) -> Result<&Self> {
        self.daemon.ctl(command.split(' '))?.done().with_context(|| command.to_owned())?;
        Ok(self)
    }

    fn reaches(&self, from: impl Into<IpAddr>, to: &Echo, expected: bool) -> Result<&Self> {
        self.site.client.reaches(from.into(), to.address(), expected)?;
        Ok(self)
    }
}

#[test]
fn an_address_is_denied_and_the_denial_undone() -> Result<()> {
    let scene = Scene::new()?;
    scene.reaches(STRANGER.0, &scene.web, true)?;
    let before = scene.daemon.counters()?;
    scene.after("deny 192.0.2.66 --reason scanner")?;
    scene.reaches(STRANGER.0, &scene.web, false)?.reaches(CLIENT.0, &scene.web, true)?;
    scene.reaches(STRANGER.1, &scene.web6, true)?;
    let dropped = scene.daemon.counters()?.packets("ingress", "dynamic")? - before.packets("ingress", "dynamic")?;
    ensure!(dropped >= 2, "a SYN and a UDP packet were dropped, {dropped} counted");
    let list: EntryList = scene.daemon.json(&["list"])?;
    ensure!(list.entries.len() == 1 && list.entries[0].packets == dropped, "{list:?}");
    ensure!(list.entries[0].reason.as_deref() == Some("scanner"), "{list:?}");

    scene.after(&format!("undo {}", list.entries[0].id))?.reaches(STRANGER.0, &scene.web, true)?;
    scene.daemon.ctl(["undo", "192.0.2.66"])?.exits(1)?;
    Ok(())
}

#[test]
fn prefixes_of_both_families_are_denied() -> Result<()> {
    let scene = Scene::new()?;
    scene.after("deny 192.0.2.64/26")?.after("deny 2001:db8::40/122")?;
    scene.reaches(STRANGER.0, &scene.web, false)?.reaches(STRANGER.1, &scene.web6, false)?;
    scene.reaches(CLIENT.0, &scene.web, true)?.reaches(CLIENT.1, &scene.web6, true)?;
    scene.after("undo 2001:db8::40/122")?;
    scene.reaches(STRANGER.0, &scene.web, false)?.reaches(STRANGER.1, &scene.web6, true)?;
    Ok(())
}

#[test]
fn a_port_of_an_address_is_denied() -> Result<()> {
    let scene = Scene::new()?;
    let other = Echo::start(&scene.site.server, SERVER.0.into(), 82)?;
    scene.after("deny 192.0.2.66:80")?;
    scene.reaches(STRANGER.0, &scene.web, false)?.reaches(STRANGER.0, &other, true)?;
    scene.after("deny [2001:db8::66]:80")?.reaches(STRANGER.1, &scene.web6, false)?;
    scene.after("undo 192.0.2.66:80")?.reaches(STRANGER.0, &scene.web, true)?;
    Ok(())
}

#[test]
fn the_newest_entry_decides_and_comes_before_the_rules() -> Result<()> {
    let scene = Scene::new()?;
    scene.reaches(STRANGER.0, &scene.closed, false)?;
    scene.after("allow 192.0.2.66:81")?.reaches(STRANGER.0, &scene.closed, true)?;
    scene.reaches(CLIENT.0, &scene.closed, false)?;
    scene.after("deny 192.0.2.0/24 --force")?.reaches(STRANGER.0, &scene.closed, false)?;
    scene.after("allow 192.0.2.66 --all-ports")?.reaches(STRANGER.0, &scene.closed, true)?;
    scene.reaches(CLIENT.0, &scene.web, false)?;
    // Without a port only when said explicitly.
    scene.daemon.ctl(["allow", "192.0.2.70"])?.exits(2)?;
    Ok(())
}

#[test]
fn leaving_packets_are_denied() -> Result<()> {
    let scene = Scene::new()?;
    let remote = Echo::start(&scene.site.client, STRANGER.0.into(), 443)?;
    let ask = |expected| scene.site.server.reaches(SERVER.0.into(), remote.address(), expected);
    ask(true)?;
    scene.after("deny 192.0.2.66 --out")?;
    ask(false)?;
    let counters = scene.daemon.counters()?;
    ensure!(counters.packets("egress", "dynamic")? >= 2, "{counters:?}");
    scene.after("undo 192.0.2.66")?;
    ask(true)?;
    scene.after("deny 192.0.2.66 --both")?;
    ask(false)?;
    Ok(())
}

#[test]
fn a_denial_ends_by_itself() -> Result<()> {
    let scene = Scene::new()?;
    let begin = Instant::now();
    scene.after("deny 192.0.2.66 --for 3s")?.reaches(STRANGER.0, &scene.web, false)?;
    while !scene.site.client.udp_answers(STRANGER.0.into(), scene.web.address(), Duration::from_millis(100))? {
        ensure!(begin.elapsed() < Duration::from_secs(20), "still denied after {:?}", begin.elapsed());
    }
    ensure!(begin.elapsed() >= Duration::from_secs(3), "ended after {:?}", begin.elapsed());
    Ok(())
}

#[test]
fn entries_survive_a_restart_and_end_also_with_the_daemon_dead() -> Result<()> {
    let mut scene = Scene::new()?;
    scene.after("deny 192.0.2.66")?.after("deny 192.0.2.2 --for 4s --force")?;
    scene.daemon.kill()?;
    scene.reaches(STRANGER.0, &scene.web, false)?.reaches(CLIENT.0, &scene.web, false)?;
    thread::sleep(Duration::from_secs(4));
    scene.reaches(CLIENT.0, &scene.web, true)?.reaches(STRANGER.0, &scene.web, false)?;
    scene.daemon.restart()?;
    scene.reaches(STRANGER.0, &scene.web, false)?;
    let list: EntryList = scene.daemon.json(&["list"])?;
    ensure!(list.entries.len() == 1, "{list:?}");
    scene.after("undo 192.0.2.66")?.reaches(STRANGER.0, &scene.web, true)?;
    Ok(())
}

#[test]
fn elements_of_dynamic_sets_come_and_go() -> Result<()> {
    let scene = Scene::new()?;
    scene.after("set add jail 192.0.2.66 2001:db8::40/122")?;
    scene.reaches(STRANGER.0, &scene.web, false)?.reaches(STRANGER.1, &scene.web6, false)?;
    scene.reaches(CLIENT.0, &scene.web, true)?.reaches(CLIENT.1, &scene.web6, true)?;
    ensure!(scene.daemon.counters()?.packets("ingress", "jailed")? >= 4, "{:?}", scene.daemon.counters()?);
    // A new generation with another text has the same elements.
    scene.daemon.apply(&OPEN.replace("port: 81", "port: 83"))?;
    scene.reaches(STRANGER.0, &scene.web, false)?.reaches(CLIENT.0, &scene.closed, true)?;
    scene.after("set del jail 192.0.2.66")?.reaches(STRANGER.0, &scene.web, true)?;
    scene.reaches(STRANGER.1, &scene.web6, false)?;
    scene.after("set flush jail")?.reaches(STRANGER.1, &scene.web6, true)?;
    scene.daemon.ctl(["set", "add", "no-such-set", "192.0.2.66"])?.exits(2)?;
    Ok(())
}
