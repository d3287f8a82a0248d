//! Connections followed by the programs: real sockets, and hand-made segments that belong to none.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringfence_api::Connections;
use ringfence_tests::{
    daemon::{Counters, Daemon},
    netns::{CLIENT, Direction, Frame, SERVER, STRANGER, Site, Transport, families},
    traffic::{Echo, PATIENCE, SILENCE, connection, crosses},
};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Only port 80 may be connected to; everything may leave.
const POLICY: &str = "ringfence: 1
network:
  interfaces: [eth0]
  connections: {capacity: 4096}
  ingress:
    default: drop
    rules:
      - accept: {state: established}
        name: established
      - accept: {state: related}
        name: related
      - drop: {state: invalid}
        name: invalid
      - accept: {proto: [tcp, udp], port: 80}
        name: web
  egress:
    default: accept
";

/// Waits until a line has counted `more` packets since `before`; how many it has.
fn counted(daemon: &Daemon, before: &Counters, chain: &str, name: &str, more: u64) -> Result<u64> {
    let end = Instant::now() + PATIENCE;
    loop {
        let since = daemon.counters()?.packets(chain, name)? - before.packets(chain, name)?;
        if since >= more || Instant::now() > end {
            return Ok(since);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn tcp(flags: u8, source: u16, destination: u16) -> Transport {
    Transport::Tcp { source, destination, flags }
}

#[test]
fn answers_to_this_host_come_in_and_nothing_else() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let outside = Echo::start(&site.client, client, 7)?;
        let before = daemon.counters()?;
        site.server.reaches(server, outside.address(), true)?;
        ensure!(site.server.ping_answers(client, PATIENCE)?, "no answer to ping from {client}");
        let since = daemon.counters()?.since(&before);
        let packets = |name: &str| since.iter().filter(|line| line.1 == name).map(|line| line.2).sum::<u64>();
        ensure!(packets("established") >= 5 && packets("web") == 0 && packets("invalid") == 0, "{since:?}");
        // The other way round only what a rule says.
        let (open, closed) = (Echo::start(&site.server, server, 80)?, Echo::start(&site.server, server, 81)?);
        site.client.reaches(client, open.address(), true)?;
        site.client.reaches(client, closed.address(), false)?;
        ensure!(!site.client.ping_answers(server, SILENCE)?, "ping {server} was answered");
    }
    Ok(())
}

#[test]
fn what_belongs_to_no_connection_is_invalid() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let wire = site.wire(Direction::ToServer)?;
    let flags = [RST, RST | ACK, SYN | ACK, 1 | ACK, 0, 1, SYN | 1, SYN | RST, 63];
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let before = daemon.counters()?;
        for flags in flags {
            wire.send(&Frame::new(client, server, tcp(flags, 4000, 80)))?;
        }
        // An answer to no query, and an error about nothing.
        let kinds = if server.is_ipv4() { [0, 3] } else { [129, 1] };
        for kind in kinds {
            wire.send(&Frame::new(client, server, Transport::Icmp { kind, code: 0 }))?;
        }
        let expected = flags.len() as u64 + 2;
        let invalid = counted(&daemon, &before, "ingress", "invalid", expected)?;
        ensure!(invalid == expected, "{invalid} of {expected}: {:?}", daemon.counters()?.since(&before));
    }
    Ok(())
}

#[test]
fn an_error_about_a_connection_is_related() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let before = daemon.counters()?;
        // Nobody listens there: the client's kernel answers with port unreachable, which the socket hears of.
        let refused = site.server.run(|| -> Result<bool> {
            let socket = UdpSocket::bind(SocketAddr::new(server, 0))?;
            socket.connect(SocketAddr::new(client, 9))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send(b"?")?;
            Ok(socket.recv(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
        })??;
        ensure!(refused, "the error did not come through");
        ensure!(counted(&daemon, &before, "ingress", "related", 1)? == 1, "{:?}", daemon.counters()?.since(&before));
    }
    Ok(())
}

#[test]
fn connections_that_were_there_go_on() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = Daemon::new(&site.server)?;
    daemon.write("policy.yaml", POLICY)?;
    let client: IpAddr = CLIENT.0.into();
    // One that this host began, and whose other end speaks first; one to a port that a rule names, one to one that none does.
    let (mut near, mut far) = connection(&site.server, &site.client, SocketAddr::new(client, 7000))?;
    let (mut caller, mut web) = connection(&site.client, &site.server, SocketAddr::new(SERVER.0.into(), 80))?;
    let (mut stranger, mut other) = connection(&site.client, &site.server, SocketAddr::new(SERVER.1.into(), 81))?;
    daemon.restart()?;
    ensure!(crosses(&mut far, &mut near, PATIENCE)?, "this host's own connection is cut");
    ensure!(crosses(&mut caller, &mut web, PATIENCE)?, "the connection to port 80 is cut");
    ensure!(crosses(&mut near, &mut far, PATIENCE)? && crosses(&mut web, &mut caller, PATIENCE)?, "one way only");
    // Its first packet would not be let through today.
    ensure!(!crosses(&mut stranger, &mut other, SILENCE)?, "a connection to a closed port goes on");
    Ok(())
}

#[test]
fn a_change_of_the_rules_reaches_connections_that_are_under_way() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let (mut near, mut far) = connection(&site.server, &site.client, SocketAddr::new(CLIENT.1.into(), 7000))?;
    let (mut caller, mut web) = connection(&site.client, &site.server, SocketAddr::new(SERVER.0.into(), 80))?;
    ensure!(crosses(&mut caller, &mut web, PATIENCE)? && crosses(&mut far, &mut near, PATIENCE)?, "before the change");
    // The same by another text: all goes on, with pools of another size too.
    daemon.write("policy.yaml", POLICY.replace("4096", "8192"))?;
    daemon.ctl(["apply", &daemon.path("policy.yaml").display().to_string()])?.done()?;
    ensure!(crosses(&mut caller, &mut web, PATIENCE)? && crosses(&mut far, &mut near, PATIENCE)?, "after an apply");
    daemon.write("policy.yaml", POLICY.replace("port: 80", "port: 82"))?;
    daemon.ctl(["apply", &daemon.path("policy.yaml").display().to_string()])?.done()?;
    ensure!(!crosses(&mut caller, &mut web, SILENCE)?, "the rule is gone, the connection goes on");
    ensure!(crosses(&mut far, &mut near, PATIENCE)?, "a connection that nothing is said of is cut");
    Ok(())
}

#[test]
fn an_entry_reaches_connections_that_are_under_way_also_after_the_daemon_died() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = Daemon::start(&site.server, POLICY)?;
    let (mut near, mut far) = connection(&site.server, &site.client, SocketAddr::new(CLIENT.0.into(), 7000))?;
    ensure!(crosses(&mut far, &mut near, PATIENCE)?, "before");
    daemon.kill()?;
    // What was remembered is the kernel's: it goes on without the daemon, and new connections are followed.
    ensure!(crosses(&mut far, &mut near, PATIENCE)? && crosses(&mut near, &mut far, PATIENCE)?, "daemon dead");
    let (mut later, mut end) = connection(&site.server, &site.client, SocketAddr::new(CLIENT.0.into(), 7001))?;
    ensure!(crosses(&mut end, &mut later, PATIENCE)?, "a connection that began while the daemon was dead");
    daemon.restart()?;
    ensure!(crosses(&mut end, &mut later, PATIENCE)? && crosses(&mut far, &mut near, PATIENCE)?, "daemon back");
    daemon.ctl(["deny", &CLIENT.0.to_string(), "--force"])?.done()?;
    ensure!(!crosses(&mut far, &mut near, SILENCE)?, "denied, and still heard");
    Ok(())
}

#[test]
fn a_flood_of_syns_evicts_no_connection_and_keeps_nobody_out() -> Result<()> {
    const SOURCES: u32 = 20_000;
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let server: IpAddr = SERVER.0.into();
    let (mut caller, mut web) = connection(&site.client, &site.server, SocketAddr::new(server, 80))?;
    let (mut near, mut far) = connection(&site.server, &site.client, SocketAddr::new(CLIENT.0.into(), 7000))?;
    let wire = site.wire(Direction::ToServer)?;
    let before = daemon.counters()?;
    let echo = Echo::start(&site.server, SERVER.1.into(), 80)?;
    for number in 0..SOURCES {
        // 10.0.0.0/8 is nobody's here: answers to it go nowhere.
        let source: IpAddr = std::net::Ipv4Addr::from(0x0a00_0000 | number.wrapping_mul(2_654_435_761) >> 8).into();
        wire.send(&Frame::new(source, server, tcp(SYN, (number % 60_000 + 1024) as u16, 80)))?;
        if number % 4_000 == 0 {
            ensure!(crosses(&mut caller, &mut web, PATIENCE)? && crosses(&mut far, &mut near, PATIENCE)?, "evicted");
        }
    }
    ensure!(crosses(&mut caller, &mut web, PATIENCE)? && crosses(&mut far, &mut near, PATIENCE)?, "evicted");
    ensure!(crosses(&mut web, &mut caller, PATIENCE)? && crosses(&mut near, &mut far, PATIENCE)?, "evicted");
    site.client.reaches(CLIENT.1.into(), echo.address(), true)?;
    let outside = Echo::start(&site.client, CLIENT.1.into(), 7)?;
    site.server.reaches(SERVER.1.into(), outside.address(), true)?;
    let since = daemon.counters()?.packets("ingress", "web")? - before.packets("ingress", "web")?;
    // The cable may lose some of so many at once.
    ensure!(since * 10 > u64::from(SOURCES) * 9, "only {since} of {SOURCES} SYNs were judged");
    Ok(())
}

/// What the floor lets through is not followed: neither itself nor, in its place, the refused packet before it.
#[test]
fn a_packet_of_the_floor_begins_no_connection_for_one_that_was_refused() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(
        &site.server,
        "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: drop
    rules:
      - accept: {state: established}
  egress:
    default: drop
    rules:
      - accept: {state: established}
        name: established
",
    )?;
    let wire = site.wire(Direction::ToServer)?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let before = daemon.counters()?;
        let (kind, code) = if server.is_ipv4() { (3, 4) } else { (2, 0) };
        for _ in 0..20 {
            wire.send(&Frame::new(client, server, Transport::Udp { source: 4000, destination: 81 }))?;
            wire.send(&Frame::new(client, server, Transport::Icmp { kind, code }))?;
        }
        daemon.counted(&before, "ingress", "default", 20)?;
        daemon.counted(&before, "ingress", "floor/path-mtu", 20)?;
        let known: Connections = daemon.json(&["connections"])?;
        // Nor may this host answer by that way what it was never asked.
        let left = site
            .server
            .run(|| UdpSocket::bind(SocketAddr::new(server, 81))?.send_to(b"out", SocketAddr::new(client, 4000)))?;
        let since = daemon.counters()?.since(&before);
        ensure!(known.matched == 0, "{known:?}; {left:?} left: {since:?}");
        ensure!(left.is_err(), "{left:?} left: {since:?}");
    }
    Ok(())
}

#[test]
fn later_fragments_go_where_the_first_one_went() -> Result<()> {
    later_fragments(POLICY)?;
    // Also where no rule asks for states.
    let states = "      - accept: {state: established}
        name: established
      - accept: {state: related}
        name: related
      - drop: {state: invalid}
        name: invalid
";
    later_fragments(&POLICY.replace(states, "").replace("default: drop", "default: drop\n    stateless: true"))
}

fn later_fragments(policy: &str) -> Result<()> {
    let site = Site::new()?;
    let _daemon = Daemon::start(&site.server, policy)?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        for (port, through) in [(80, true), (81, false)] {
            let inbox = site.server.run(|| UdpSocket::bind(SocketAddr::new(server, port)))??;
            inbox.set_read_timeout(Some(if through { PATIENCE } else { SILENCE }))?;
            // Three fragments on a cable of 1,500 bytes.
            let sent = vec![0x52; 4000];
            site.client.run(|| UdpSocket::bind(SocketAddr::new(client, 0))?.send_to(&sent, (server, port)))??;
            let mut bytes = vec![0; 8000];
            let came = inbox.recv(&mut bytes).is_ok_and(|length| bytes[..length] == sent[..]);
            ensure!(came == through, "{server} port {port}: came {came}");
        }
    }
    Ok(())
}

#[test]
fn a_fragment_inside_the_first_one_is_dropped_with_its_packet() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let wire = site.wire(Direction::ToServer)?;
    for (server, client) in families(SERVER).into_iter().zip(families(STRANGER)) {
        let before = daemon.counters()?;
        let udp = Transport::Udp { source: 5000, destination: 80 };
        let first = Frame { fragment: Some(0), payload: vec![1; 24], ..Frame::new(client, server, udp) };
        wire.send(&first)?;
        ensure!(counted(&daemon, &before, "ingress", "web", 1)? == 1, "the first fragment");
        // The first has 8 bytes of header and 24 of payload: the next one begins at 32, in units of eight bytes 4.
        wire.send(&Frame { fragment: Some(4), ..first.clone() })?;
        ensure!(counted(&daemon, &before, "ingress", "web", 2)? == 2, "the next one follows it");
        wire.send(&Frame { fragment: Some(1), ..first.clone() })?;
        ensure!(counted(&daemon, &before, "ingress", "fragment/overlap", 1)? == 1, "one inside the first");
        // The packet cannot be put together any more: what else comes of it is of no known packet, its state is unknown, and
        // that matches the first rule that drops by state.
        wire.send(&Frame { fragment: Some(7), ..first.clone() })?;
        let after = daemon.counters()?;
        ensure!(counted(&daemon, &before, "ingress", "invalid", 1)? == 1, "{:?}", after.since(&before));
    }
    Ok(())
}

#[test]
fn without_a_rule_about_states_nothing_is_followed() -> Result<()> {
    let site = Site::new()?;
    let stateless = "ringfence: 1
network:
  interfaces: [eth0]
  ingress: {default: drop, stateless: true, rules: [{accept: {proto: tcp, port: 80}}]}
";
    let daemon = Daemon::start(&site.server, stateless)?;
    let outside = Echo::start(&site.client, CLIENT.0.into(), 7)?;
    site.server.reaches(SERVER.0.into(), outside.address(), false)?;
    let status = daemon.counters()?;
    ensure!(status.line("egress", "default").is_err(), "an egress chain that nobody asked for");
    let follows = daemon.path("policy.yaml");
    daemon.write("policy.yaml", POLICY)?;
    daemon.ctl(["apply", &follows.display().to_string()])?.done()?;
    site.server.reaches(SERVER.0.into(), outside.address(), true).context("after a policy that follows connections")
}
