//! Real sockets against a real daemon: what a policy accepts gets through, what it does not is dropped and counted.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ringfence_api::{RuleLine, State, Status};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Direction, Frame, SERVER, STRANGER, Site, Transport, families},
    traffic::{Echo, PATIENCE, SILENCE},
};

const CLOSED_BY_DEFAULT: &str = "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: drop
    stateless: true
    rules:
      - accept: {proto: tcp, port: http}
        name: web
      - accept: {proto: udp, port: http}
        name: web-udp
      - accept: {icmp: echo-request}
        name: ping
  egress:
    default: accept
    rules:
      - drop: {proto: [tcp, udp], source_port: 81}
        name: nothing-from-81
";

fn stranger(of: IpAddr) -> IpAddr {
    if of.is_ipv4() { STRANGER.0.into() } else { STRANGER.1.into() }
}

#[test]
fn sockets_of_both_families_and_protocols_are_judged() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, CLOSED_BY_DEFAULT)?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let (open, closed) = (Echo::start(&site.server, server, 80)?, Echo::start(&site.server, server, 8080)?);
        let before = daemon.counters()?;
        site.client.reaches(client, open.address(), true)?;
        site.client.reaches(client, closed.address(), false)?;
        ensure!(site.client.ping_answers(server, PATIENCE)?, "ping {server}");
        let counted = daemon.counters()?.since(&before);
        let packets = |name: &str| counted.iter().filter(|line| line.1 == name).map(|line| line.2).sum::<u64>();
        // SYN, ACK, data and at least one of the closing segments.
        ensure!(packets("web") >= 4, "{counted:?}");
        ensure!(packets("web-udp") == 1 && packets("ping") == 1, "{counted:?}");
        ensure!(packets("default") >= 2, "SYN and UDP to the closed port: {counted:?}");
    }
    Ok(())
}

#[test]
fn leaving_packets_are_judged() -> Result<()> {
    let site = Site::new()?;
    let open = CLOSED_BY_DEFAULT.replace("default: drop\n    stateless: true", "default: accept");
    let daemon = Daemon::start(&site.server, &open)?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let (silent, loud) = (Echo::start(&site.server, server, 81)?, Echo::start(&site.server, server, 82)?);
        let before = daemon.counters()?.packets("egress", "nothing-from-81")?;
        site.client.reaches(client, silent.address(), false)?;
        site.client.reaches(stranger(client), loud.address(), true)?;
        let dropped = daemon.counters()?.packets("egress", "nothing-from-81")? - before;
        ensure!(dropped >= 2, "SYN+ACK and the UDP answer are dropped, {dropped} were");
    }
    Ok(())
}

#[test]
fn a_default_drop_breaks_no_floor() -> Result<()> {
    // Neither ARP nor neighbour discovery is named by the policy, and no neighbour is known beforehand.
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, &CLOSED_BY_DEFAULT.replace("accept\n", "drop\n    stateless: true\n"))?;
    let counters = daemon.counters()?;
    site.client.tcp_answers(CLIENT.0.into(), SocketAddr::new(SERVER.0.into(), 80), SILENCE)?;
    site.client.tcp_answers(CLIENT.1.into(), SocketAddr::new(SERVER.1.into(), 80), SILENCE)?;
    let counted = daemon.counters()?.since(&counters);
    for (chain, name) in [
        ("ingress", "floor/arp"),
        ("egress", "floor/arp"),
        ("ingress", "floor/neighbor-discovery"),
        ("egress", "floor/neighbor-discovery"),
        // The SYNs arrived, so the client has found the server's link-layer address.
        ("ingress", "web"),
        // The server's answers are not on the floor.
        ("egress", "default"),
    ] {
        ensure!(counted.iter().any(|line| line.0 == chain && line.1 == name), "no {chain} {name} in {counted:?}");
    }
    Ok(())
}

#[test]
fn a_line_taken_off_the_floor_is_judged_by_the_rules() -> Result<()> {
    let site = Site::new()?;
    let policy = CLOSED_BY_DEFAULT.replace("network:\n", "network:\n  floor: {arp: false}\n");
    let daemon = Daemon::start(&site.server, &policy)?;
    let echo = Echo::start(&site.server, SERVER.0.into(), 80)?;
    site.client.reaches(CLIENT.0.into(), echo.address(), false)?;
    let counters = daemon.counters()?;
    ensure!(counters.line("ingress", "floor/arp").map_or(0, |line| line.packets) == 0, "{counters:?}");
    ensure!(counters.packets("ingress", "default")? > 0, "{counters:?}");
    Ok(())
}

#[test]
fn frames_that_cannot_be_parsed_are_dropped_under_their_own_names() -> Result<()> {
    let site = Site::new()?;
    let open = "ringfence: 1\nnetwork: {interfaces: [eth0], ingress: {default: accept}, egress: {default: accept}}\n";
    let daemon = Daemon::start(&site.server, open)?;
    let wire = site.wire(Direction::ToServer)?;
    let whole = Frame::new(CLIENT.0.into(), SERVER.0.into(), Transport::Udp { source: 1, destination: 2 });
    let whole = whole.bytes(site.client.mac("eth0")?, site.server.mac("eth0")?)?;
    let mut deep = whole[..12].to_vec();
    deep.extend([0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3]);
    deep.extend(&whole[12..]);
    let mut lying = whole.clone();
    lying[14] = 0x44;
    // Seven of the eight bytes of a UDP header, and a total length that says so.
    let mut short = whole[..14 + 20 + 7].to_vec();
    short[16..18].copy_from_slice(&27_u16.to_be_bytes());
    for (name, frame) in [
        ("malformed/truncated-network", &whole[..14 + 19]),
        ("malformed/truncated-transport", &short),
        ("malformed/bad-network", &lying),
        ("malformed/bad-network", &whole[..whole.len() - 1]),
        ("malformed/vlan-depth", &deep),
    ] {
        let before = daemon.counters()?;
        wire.send_bytes(frame)?;
        daemon.counted(&before, "ingress", name, 1).with_context(|| format!("{} bytes", frame.len()))?;
        ensure!(
            !daemon.counters()?.since(&before).iter().any(|line| line.1 == "default"),
            "{name} was judged by rules"
        );
    }
    Ok(())
}

#[test]
fn status_names_each_hook_and_rules_have_the_documented_fields() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, CLOSED_BY_DEFAULT)?;
    let status: Status = daemon.json(&["status"])?;
    ensure!(status.halves.network.state == State::Enforced, "{status:?}");
    let hooks = &status.halves.network.hooks;
    let how = |hook: &str| {
        hooks.iter().find(|of| of.hook == hook && of.interface.as_deref() == Some("eth0")).and_then(|of| of.how.clone())
    };
    ensure!(how("ingress").as_deref() == Some("xdp-native"), "{status:?}");
    ensure!(how("egress").is_some_and(|how| ["tcx", "clsact"].contains(&how.as_str())), "{status:?}");
    daemon.ctl(["status"])?.done()?;
    daemon.ctl(["rules"])?.done()?;

    let counters = daemon.counters()?;
    let web: &RuleLine = counters.line("ingress", "web")?;
    ensure!((web.half.as_str(), web.verb.as_str(), web.line) == ("network", "accept", Some(8)), "{web:?}");
    ensure!(web.file.as_deref().is_some_and(|file| file.ends_with("policy.yaml")), "{web:?}");
    let lines: Vec<serde_json::Value> = daemon.json(&["rules"])?;
    for field in ["name", "half", "chain", "verb", "file", "line", "hits", "packets", "bytes", "last_hit"] {
        ensure!(lines.iter().all(|line| line.get(field).is_some()), "no {field} in {lines:?}");
    }
    Ok(())
}

#[test]
fn audit_counts_what_it_would_refuse_and_lets_it_go() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, CLOSED_BY_DEFAULT)?;
    let closed = Echo::start(&site.server, SERVER.0.into(), 8080)?;
    let before = daemon.counters()?.packets("ingress", "default")?;
    daemon.ctl(["mode", "audit"])?.done()?;
    site.client.reaches(CLIENT.0.into(), closed.address(), true)?;
    ensure!(daemon.counters()?.packets("ingress", "default")? > before, "not counted");
    daemon.ctl(["status"])?.exits(1)?;
    daemon.ctl(["mode", "enforce"])?.done()?;
    site.client.reaches(CLIENT.0.into(), closed.address(), false)
}
