//! `add: {source: $jail}`.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use ringfence_api::SetElements;
use ringfence_tests::{
    netns::{CLIENT, Frame, SERVER, STRANGER, Transport, families},
    traffic::{PATIENCE, SILENCE},
};

use super::server::{Scene, spoof};

/// A policy with a set `jail` whose members are dropped first, and a rule that adds.
fn policy(set: &str, rule: &str) -> String {
    format!(
        "ringfence: 1
sets:
  jail: {{dynamic: true, {set}}}
network:
  interfaces: [eth0]
  connections: {{capacity: 4096}}
  ingress:
    default: drop
    rules:
      - drop: {{from: $jail}}
        name: jailed
      - accept: {{state: established}}
      - {rule}
      - accept: {{proto: tcp, port: 80, state: new}}
        name: web
"
    )
}

/// So slow that a test sees no second burst.
const OVER: &str = "drop: {proto: tcp, port: 80, state: new}
        name: too-many
        limit: {over: 4/hour, burst: 4, per: source}
        add: {source: $jail}";

/// What the daemon says of the set.
fn jailed(scene: &Scene) -> Result<Vec<String>> {
    let set: SetElements = scene.daemon.json(&["set", "list", "jail"])?;
    Ok(set.elements.iter().map(|element| element.address.to_string()).collect())
}

#[test]
fn a_source_that_completes_too_many_handshakes_is_jailed() -> Result<()> {
    for ((server, client), stranger) in families(SERVER).into_iter().zip(families(CLIENT)).zip(families(STRANGER)) {
        let scene = Scene::new(&policy("timeout: 1h", OVER))?;
        let port = scene.listen(server, 80)?;
        let mut first = port.reach(client)?;
        for _ in 0..3 {
            port.reach(client)?.close()?;
        }
        ensure!(first.crosses(PATIENCE)? && jailed(&scene)?.is_empty(), "jailed too early");
        port.refuses(client)?;
        // Also what was under way is refused now.
        ensure!(!first.crosses(SILENCE)?, "a connection of a jailed source goes on");
        ensure!(scene.packets("too-many")? == 1 && scene.packets("jailed")? > 0, "refused by another rule");
        ensure!(jailed(&scene)? == [client.to_string()], "{:?}", jailed(&scene)?);
        port.reach(stranger)?;
    }
    Ok(())
}

#[test]
fn whoever_sends_with_another_address_jails_nobody() -> Result<()> {
    let scene = Scene::new(&policy("timeout: 1h", OVER))?;
    let (server, [admin, _]) = (SERVER.0.into(), families(CLIENT));
    let port = scene.listen(server, 80)?;
    // The administrator is connected: his address is a proven one in every other sense.
    let mut session = port.reach(admin)?;
    spoof(&scene.wire()?, admin, server, 80, 500)?;
    scene.counts("too-many", 500 - 3)?;
    ensure!(session.crosses(PATIENCE)?, "the administrator was cut off");
    ensure!(jailed(&scene)?.is_empty() && scene.packets("jailed")? == 0, "somebody was jailed");
    Ok(())
}

#[test]
fn members_of_never_are_not_jailed() -> Result<()> {
    let [admin, _] = families(CLIENT);
    let scene = Scene::new(&policy(&format!("timeout: 1h, never: [{admin}, 2001:db8::/64]"), OVER))?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let port = scene.listen(server, 80)?;
        let mut first = port.reach(client)?;
        for _ in 0..3 {
            port.reach(client)?.close()?;
        }
        port.refuses(client)?;
        ensure!(first.crosses(PATIENCE)?, "a member of `never` was jailed");
    }
    ensure!(jailed(&scene)?.is_empty(), "{:?}", jailed(&scene)?);
    Ok(())
}

#[test]
fn a_handshake_with_a_trap_is_proof_enough_until_the_time_ends_or_somebody_ends_it() -> Result<()> {
    let trap = "accept: {proto: tcp, port: 23}\n        name: trap\n        add: {source: $jail}";
    let (server, [client, _]) = (SERVER.0.into(), families(CLIENT));
    for (timeout, by_hand) in [("timeout: 2s", false), ("timeout: 1h", true)] {
        let scene = Scene::new(&policy(timeout, trap))?;
        let (web, telnet) = (scene.listen(server, 80)?, scene.listen(server, 23)?);
        web.reach(client)?;
        // A segment that begins a connection proves nothing.
        spoof(&scene.wire()?, client, server, 23, 20)?;
        scene.counts("trap", 20)?;
        web.reach(client)?;
        telnet.connect(client)?;
        web.refuses(client)?;
        if by_hand {
            scene.daemon.ctl(["set", "del", "jail", &client.to_string()])?.done()?;
            ensure!(jailed(&scene)?.is_empty(), "{:?}", jailed(&scene)?);
        }
        web.reach_soon(client)?;
    }
    Ok(())
}

#[test]
fn what_needs_no_proof_is_added_at_once() -> Result<()> {
    let rule = "drop: {proto: udp, port: 9}\n        name: noise\n        add: {source: $jail, unproven: true}";
    let scene = Scene::new(&policy("timeout: 1h", rule))?;
    for ((server, client), stranger) in families(SERVER).into_iter().zip(families(CLIENT)).zip(families(STRANGER)) {
        let port = scene.listen(server, 80)?;
        port.reach(client)?;
        let discard = Transport::Udp { source: 4000, destination: 9 };
        scene.wire()?.send(&Frame::new(client, server, discard))?;
        port.refuses(client)?;
        port.reach(stranger)?;
    }
    ensure!(jailed(&scene)?.len() == 2, "{:?}", jailed(&scene)?);
    Ok(())
}

/// Sources that nobody has, all added without proof.
fn fill(scene: &Scene, count: u8) -> Result<()> {
    let (wire, discard) = (scene.wire()?, Transport::Udp { source: 4000, destination: 9 });
    for host in 0..count {
        wire.send(&Frame::new(IpAddr::from([198, 51, 100, host]), SERVER.0.into(), discard))?;
    }
    Ok(())
}

#[test]
fn a_full_set_lets_the_oldest_go_or_takes_no_more() -> Result<()> {
    let rule = "drop: {proto: udp, port: 9}\n        name: noise\n        add: {source: $jail, unproven: true}";
    let evicting = Scene::new(&policy("timeout: 1h, capacity: 8, full: evict-oldest", rule))?;
    fill(&evicting, 20)?;
    evicting.counts("noise", 20)?;
    let last: Vec<String> = (12..20).map(|host| format!("198.51.100.{host}")).collect();
    ensure!(jailed(&evicting)? == last, "{:?}", jailed(&evicting)?);
    ensure!(evicting.packets("set/full")? == 0, "refused");

    let refusing = Scene::new(&policy("timeout: 1h, capacity: 8", rule))?;
    refusing.daemon.ctl(["set", "add", "jail", "203.0.113.0/24", "203.0.112.0/24"])?.done()?;
    fill(&refusing, 20)?;
    refusing.counts("noise", 20)?;
    let mut first: Vec<String> = (0..6).map(|host| format!("198.51.100.{host}")).collect();
    first.extend(["203.0.112.0/24".to_owned(), "203.0.113.0/24".to_owned()]);
    ensure!(jailed(&refusing)? == first, "{:?}", jailed(&refusing)?);
    refusing.counts("set/full", 14)
}

#[test]
fn what_was_added_without_the_daemon_is_kept_by_the_next_one() -> Result<()> {
    let mut scene = Scene::new(&policy("timeout: 1h", OVER))?;
    let (server, [client, _]) = (SERVER.0.into(), families(CLIENT));
    scene.daemon.kill()?;
    {
        let port = scene.listen(server, 80)?;
        for _ in 0..4 {
            port.reach(client)?.close()?;
        }
        port.refuses(client)?;
    }
    scene.daemon.restart()?;
    ensure!(jailed(&scene)? == [client.to_string()], "{:?}", jailed(&scene)?);
    // Over an apply, and over another restart.
    scene.daemon.apply(&policy("timeout: 2h", OVER))?;
    scene.listen(server, 80)?.refuses(client)?;
    scene.daemon.kill()?;
    scene.daemon.restart()?;
    scene.listen(server, 80)?.refuses(client)?;
    ensure!(jailed(&scene)? == [client.to_string()], "{:?}", jailed(&scene)?);
    Ok(())
}
