//! `ringctl explain` says what happens, before it happens, and changes nothing.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ringfence_api::Explanation;
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Direction, Frame, SERVER, STRANGER, Site, Transport},
    traffic::{PATIENCE, SILENCE},
};

const POLICY: &str = "ringfence: 1
sets:
  jail: {dynamic: true, timeout: 1h, capacity: 100, full: evict-oldest}
network:
  interfaces: [eth0]
  ingress:
    default: drop
    stateless: true
    rules:
      - drop: {from: $jail}
        name: jailed
      - count: {proto: udp}
        name: all-udp
      - accept: {proto: udp, port: 53}
        name: dns
      - accept: {proto: tcp, port: 80, flags: \"syn,!ack\"}
        name: web
      - accept: {icmp: echo-request}
        name: ping
  egress:
    default: accept
    rules:
      - drop: {proto: udp, port: 123}
        name: no-ntp
";

/// What is asked, the same as a packet, and what must come of it.
struct Question {
    words: String,
    frame: Frame,
    direction: Direction,
    verdict: &'static str,
    rule: &'static str,
}

fn question(from: impl Into<IpAddr>, to: impl Into<IpAddr>, transport: Transport) -> Question {
    let (from, to) = (from.into(), to.into());
    let fields = match transport {
        Transport::Udp { source, destination } => format!("proto=udp source_port={source} port={destination}"),
        Transport::Tcp { source, destination, .. } => {
            format!("proto=tcp source_port={source} port={destination} flags=syn")
        }
        Transport::Icmp { .. } => "icmp=echo-request".to_owned(),
        Transport::Other(number) => format!("proto={number}"),
    };
    let words = format!("interface=eth0 from={from} to={to} {fields}");
    Question { words, frame: Frame::new(from, to, transport), direction: Direction::ToServer, verdict: "", rule: "" }
}

impl Question {
    fn gives(self, verdict: &'static str, rule: &'static str) -> Self {
        Self { verdict, rule, ..self }
    }

    fn leaving(self) -> Self {
        Self { words: format!("direction=egress {}", self.words), direction: Direction::FromServer, ..self }
    }
}

fn questions() -> Vec<Question> {
    let udp = |destination| Transport::Udp { source: 4000, destination };
    let syn = |destination| Transport::Tcp { source: 4000, destination, flags: 2 };
    let echo = |kind| Transport::Icmp { kind, code: 0 };
    vec![
        question(CLIENT.0, SERVER.0, udp(53)).gives("accept", "dns"),
        question(CLIENT.1, SERVER.1, udp(53)).gives("accept", "dns"),
        question(CLIENT.0, SERVER.0, udp(54)).gives("drop", "default"),
        question(CLIENT.0, SERVER.0, syn(80)).gives("accept", "web"),
        question(CLIENT.1, SERVER.1, syn(81)).gives("drop", "default"),
        question(STRANGER.0, SERVER.0, udp(53)).gives("drop", "jailed"),
        question(STRANGER.1, SERVER.1, udp(53)).gives("drop", "dynamic"),
        question(CLIENT.0, SERVER.0, echo(8)).gives("accept", "ping"),
        question(CLIENT.0, SERVER.0, Transport::Other(253)).gives("drop", "default"),
        question(SERVER.0, CLIENT.0, udp(123)).leaving().gives("drop", "no-ntp"),
        question(SERVER.1, CLIENT.1, udp(124)).leaving().gives("accept", "default"),
    ]
}

#[test]
fn explain_equals_what_happens() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    daemon.ctl(["set", "add", "jail", "192.0.2.66"])?.done()?;
    daemon.ctl(["deny", "2001:db8::66"])?.done()?;
    for question in questions() {
        let before = daemon.counters()?;
        let told: Explanation = daemon.json(&["explain", "--packet", &question.words])?;
        // Dynamic entries are named with their id.
        let rule = told.rule.split('/').next().unwrap_or_default();
        ensure!((told.verdict.as_str(), rule) == (question.verdict, question.rule), "{}: {told:?}", question.words);
        ensure!(told.generation.is_some(), "the running policy was not asked: {told:?}");
        let chain = if question.direction == Direction::ToServer { "ingress" } else { "egress" };
        let unchanged = daemon.counters()?.packets(chain, question.rule)? == before.packets(chain, question.rule)?;
        ensure!(unchanged, "explain has counted: {}", question.words);
        site.wire(question.direction)?.send(&question.frame)?;
        daemon.counted(&before, chain, question.rule, 1)?;
    }
    Ok(())
}

#[test]
fn the_rules_on_the_way_are_named_with_their_reasons() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let packet = "interface=eth0 from=192.0.2.2 to=192.0.2.1 proto=udp port=53";
    let told: Explanation = daemon.json(&["explain", "--packet", packet])?;
    let considered: Vec<_> = told.considered.iter().map(|rule| (rule.rule.as_str(), rule.matched)).collect();
    ensure!(considered == [("jailed", false), ("all-udp", true), ("dns", true)], "{told:?}");
    ensure!(told.considered.iter().all(|rule| !rule.because.is_empty()), "{told:?}");
    ensure!(told.line == Some(14) && told.file.is_some_and(|file| file.ends_with("policy.yaml")), "line of dns");
    Ok(())
}

#[test]
fn offline_and_running_agree_and_expectations_decide_the_exit_code() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let file = daemon.path("policy.yaml");
    for (port, verdict) in [(53, "accept"), (54, "drop")] {
        let packet = format!("interface=eth0 from=192.0.2.2 to=192.0.2.1 proto=udp port={port}");
        let running: Explanation = daemon.json(&["explain", "--packet", &packet])?;
        let path = file.to_str().unwrap_or_default();
        let offline: Explanation = daemon.json(&["explain", "--packet", &packet, "--policy", path])?;
        ensure!((&running.verdict, &running.rule) == (&offline.verdict, &offline.rule), "{running:?} {offline:?}");
        ensure!(offline.generation.is_none(), "{offline:?}");
        daemon.ctl(["explain", "--packet", &packet, "--expect", verdict])?.done()?;
        let other = if verdict == "accept" { "drop" } else { "accept" };
        daemon.ctl(["explain", "--packet", &packet, "--expect", other])?.exits(1)?;
    }
    daemon.ctl(["explain", "--packet", "proto=tcp prot=80"])?.exits(2)?;
    Ok(())
}

#[test]
fn what_the_explanation_says_of_sockets_holds_for_them() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    ensure!(site.client.ping_answers(SERVER.0.into(), PATIENCE)?, "ping is accepted");
    let closed = SocketAddr::new(SERVER.0.into(), 54);
    ensure!(!site.client.udp_answers(CLIENT.0.into(), closed, SILENCE)?, "port 54 is closed");
    let counters = daemon.counters()?;
    ensure!(counters.packets("ingress", "all-udp")? == 1, "counted and went on: {counters:?}");
    Ok(())
}
