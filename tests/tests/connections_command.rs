//! `ringctl connections`: what it lists of real connections, and that it ends the one that is meant.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ringfence_api::{Connection, ConnectionDirection, Connections, KillAnswer, Pool, SocketEnd};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Direction, Frame, SERVER, Site, Transport, families},
    traffic::{Echo, PATIENCE, SILENCE, connection, crosses},
};

const POLICY: &str = "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: drop
    rules:
      - accept: {state: [established, related]}
      - accept: {proto: tcp, port: 80}
        name: web
  egress:
    default: accept
";

/// What `ringctl connections` lists with these further arguments.
fn list(daemon: &Daemon, filter: &[&str]) -> Result<Connections> {
    daemon.json(&[&["connections"], filter].concat())
}

/// The one that it lists.
fn only(daemon: &Daemon, filter: &[&str]) -> Result<Connection> {
    let mut answer = list(daemon, filter)?;
    ensure!(answer.matched == 1 && answer.left_out == 0 && answer.connections.len() == 1, "{filter:?}: {answer:?}");
    answer.connections.pop().context("nothing")
}

#[test]
fn connections_are_listed_as_they_are() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    ensure!(list(&daemon, &["--limit", "0"])?.pools.iter().all(|pool| pool.connections == 0), "connections of nobody");
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let family = if server.is_ipv4() { "ipv4" } else { "ipv6" };
        let (mut near, mut far) = connection(&site.client, &site.server, SocketAddr::new(server, 80))?;
        ensure!(crosses(&mut near, &mut far, PATIENCE)? && crosses(&mut far, &mut near, PATIENCE)?, "no connection");
        let to = server.to_string();
        let one = only(&daemon, &["--proto", "tcp", "--to", &to])?;
        ensure!(one.family == family && one.proto == "tcp" && one.icmp.is_none() && !one.picked_up, "{one:?}");
        let from = near.local_addr()?;
        ensure!((one.from, one.from_port) == (from.ip(), Some(from.port())), "{one:?}");
        ensure!((one.to, one.to_port) == (server, Some(80)), "{one:?}");
        ensure!(one.state == "tcp-established" && one.pool == Pool::Established && one.replied, "{one:?}");
        ensure!(one.direction == ConnectionDirection::Inbound && one.interface.as_deref() == Some("eth0"), "{one:?}");
        // SYN, its acknowledgement and the word; bytes from the network header on.
        ensure!(one.sent.packets >= 3 && one.sent.bytes >= 3 * 40 + 4 && one.received.packets >= 2, "{one:?}");
        ensure!(one.received.bytes >= 2 * 40 + 4, "{one:?}");
        ensure!(one.expires > 0 && one.expires <= 432_000, "{one:?}");

        // One that this host began, with its answer.
        let outside = Echo::start(&site.client, client, 7)?;
        ensure!(site.server.udp_answers(server, outside.address(), PATIENCE)?, "no answer over UDP");
        let one = only(&daemon, &["--proto", "udp", "--from", &to, "--port", "7"])?;
        ensure!(
            one.family == family && one.proto == "udp" && one.direction == ConnectionDirection::Outbound,
            "{one:?}"
        );
        ensure!((one.from, one.to, one.to_port) == (server, client, Some(7)), "{one:?}");
        ensure!(one.state == "udp-replied" && one.pool == Pool::Established && one.replied, "{one:?}");
        ensure!((one.sent.packets, one.received.packets) == (1, 1) && one.sent.bytes == one.received.bytes, "{one:?}");
        let query = site.server.ping_answers(client, PATIENCE)?;
        let proto = if server.is_ipv4() { "icmp" } else { "icmpv6" };
        let one = only(&daemon, &["--state", "icmp", "--proto", proto])?;
        ensure!(query && one.from_port.is_none() && one.to_port.is_none(), "{one:?}");
        let kind = one.icmp.context("a query without a type")?.r#type;
        ensure!(kind == if server.is_ipv4() { 8 } else { 128 }, "{one:?}");
        drop((near, far));
    }
    Ok(())
}

#[test]
fn what_fits_is_listed_and_what_is_left_out_is_said() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let server: IpAddr = SERVER.0.into();
    // Handshakes that nobody goes on with, from addresses that nobody has.
    let wire = site.wire(Direction::ToServer)?;
    let before = daemon.counters()?;
    for last in 1..=20 {
        let from = IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
        wire.send(&Frame::new(from, server, Transport::Tcp { source: 5000, destination: 80, flags: 2 }))?;
    }
    daemon.counted(&before, "ingress", "web", 20)?;
    let (_near, _far) = connection(&site.client, &site.server, SocketAddr::new(server, 80))?;
    for (filter, matched) in [
        (&["--pool", "half-in"][..], 20),
        (&["--pool", "half-out"], 0),
        (&["--pool", "established"], 1),
        (&["--state", "tcp-syn"], 20),
        (&["--from", "10.0.0.0/28"], 15),
        (&["--from", "10.0.0.7"], 1),
        (&["--to", "10.0.0.7"], 0),
        (&["--port", "80"], 21),
        (&["--port", "5000"], 0),
        (&["--proto", "6"], 21),
        (&["--from", "192.0.2.0/24", "--state", "tcp-syn"], 0),
    ] {
        let answer = list(&daemon, filter)?;
        ensure!(answer.matched == matched && answer.connections.len() as u64 == matched, "{filter:?}: {answer:?}");
    }
    let answer = list(&daemon, &["--limit", "5"])?;
    ensure!((answer.matched, answer.left_out, answer.connections.len()) == (21, 16, 5), "{answer:?}");
    ensure!(answer.connections[0].pool == Pool::Established, "not the newest first: {answer:?}");
    let pools: Vec<_> = answer.pools.iter().map(|size| (size.pool, size.connections, size.capacity)).collect();
    let sizes = [(Pool::Established, 1, 262_144), (Pool::HalfIn, 20, 65_536), (Pool::HalfOut, 0, 32_768)];
    ensure!(pools == sizes, "{pools:?}");
    let table = daemon.ctl(["connections", "--from", "10.0.0.7"])?.done()?.stdout;
    ensure!(table.contains("10.0.0.7:5000") && table.contains("1 connection; established 1 of 262144"), "{table}");
    let wrong = daemon.ctl(["connections", "--proto", "tpc"])?.exits(2)?;
    ensure!(wrong.stderr.contains("unknown protocol `tpc`"), "{wrong:?}");
    Ok(())
}

#[test]
fn a_killed_connection_is_over_and_another_goes_on() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let (mut caller, mut web) = connection(&site.client, &site.server, SocketAddr::new(SERVER.0.into(), 80))?;
    let (mut near, mut far) = connection(&site.client, &site.server, SocketAddr::new(SERVER.1.into(), 80))?;
    for (one, other) in [(&mut caller, &mut web), (&mut near, &mut far)] {
        ensure!(crosses(one, other, PATIENCE)? && crosses(other, one, PATIENCE)?, "no connection");
    }
    let several = daemon.ctl(["connections", "--kill", "--port", "80"])?.exits(1)?;
    ensure!(several.stderr.contains("2 connections fit, and none was killed"), "{several:?}");
    ensure!(crosses(&mut caller, &mut web, PATIENCE)?, "killed all the same");
    let none = daemon.ctl(["connections", "--kill", "--port", "81"])?.exits(1)?;
    ensure!(none.stderr.contains("no connection fits"), "{none:?}");

    let before = daemon.counters()?;
    let to = SERVER.0.to_string();
    let answer: KillAnswer = daemon.json(&["connections", "--kill", "--to", &to])?;
    let [killed] = &answer.killed[..] else { bail!("{answer:?}") };
    ensure!(killed.connection.from_port == Some(caller.local_addr()?.port()), "{answer:?}");
    match killed.socket {
        SocketEnd::Destroyed => {
            let error = web.read(&mut [0; 4]).err().context("the socket is not closed")?;
            ensure!(error.kind() == ErrorKind::ConnectionAborted, "{error}");
        }
        // A kernel without CONFIG_INET_DIAG_DESTROY.
        SocketEnd::Refused => ensure!(!crosses(&mut caller, &mut web, SILENCE)?, "a killed connection goes on"),
        SocketEnd::None => bail!("this host's own socket was not found: {answer:?}"),
    }
    // Its peer is told nothing: packets of both directions are dropped.
    caller.write_all(b"word")?;
    caller.set_read_timeout(Some(SILENCE))?;
    let answer = caller.read(&mut [0; 4]).err().context("the killed connection was answered")?;
    ensure!(matches!(answer.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{answer}");
    let end = Instant::now() + PATIENCE;
    let dropped = |now: &ringfence_tests::daemon::Counters| -> Result<u64> {
        Ok(now.packets("ingress", "connection/killed")? - before.packets("ingress", "connection/killed")?)
    };
    while dropped(&daemon.counters()?)? == 0 {
        ensure!(Instant::now() < end, "nothing was dropped: {:?}", daemon.counters()?.since(&before));
        thread::sleep(Duration::from_millis(20));
    }

    ensure!(crosses(&mut near, &mut far, PATIENCE)? && crosses(&mut far, &mut near, PATIENCE)?, "the other one is cut");
    let one = only(&daemon, &["--state", "killed"])?;
    ensure!(one.to == IpAddr::from(SERVER.0) && one.expires <= 120, "{one:?}");
    daemon.ctl(["connections", "--kill", "--to", &to])?.exits(1)?;
    let all = daemon.ctl(["connections", "--kill", "--all"])?.done()?;
    ensure!(all.stdout.lines().count() == 1 && all.stdout.contains("its packets are dropped for 2m"), "{all:?}");
    near.write_all(b"word")?;
    near.set_read_timeout(Some(SILENCE))?;
    ensure!(near.read(&mut [0; 4]).is_err(), "the killed connection was answered");
    // New ones are judged by the rules.
    let (mut caller, mut web) = connection(&site.client, &site.server, SocketAddr::new(SERVER.0.into(), 80))?;
    ensure!(crosses(&mut caller, &mut web, PATIENCE)?, "a new connection is cut");
    Ok(())
}

#[test]
fn what_this_host_began_is_killed_on_its_way_out() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let outside = Echo::start(&site.client, client, 7)?;
        let socket = site.server.run(|| UdpSocket::bind(SocketAddr::new(server, 0)))??;
        socket.connect(outside.address())?;
        let answers = |patience: Duration| -> Result<bool> {
            socket.set_read_timeout(Some(patience))?;
            // A packet that is dropped on its way out is an error of the socket.
            Ok(socket.send(b"word").is_ok() && socket.recv(&mut [0; 4]).is_ok())
        };
        ensure!(answers(PATIENCE)?, "no answer over UDP from {client}");
        let before = daemon.counters()?;
        let to = client.to_string();
        let answer: KillAnswer = daemon.json(&["connections", "--kill", "--proto", "udp", "--to", &to])?;
        ensure!(answer.killed.len() == 1 && answer.killed[0].socket == SocketEnd::None, "{answer:?}");
        ensure!(!answers(SILENCE)?, "a killed exchange goes on");
        daemon.counted(&before, "egress", "connection/killed", 1)?;
        ensure!(site.server.udp_answers(server, outside.address(), PATIENCE)?, "another socket is cut");
    }
    Ok(())
}

#[test]
fn the_callers_own_session_is_not_killed_by_mistake() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let (mut caller, mut web) = connection(&site.client, &site.server, SocketAddr::new(SERVER.0.into(), 80))?;
    ensure!(crosses(&mut caller, &mut web, PATIENCE)?, "no connection");
    // As `sshd` holds it: the command has the connection itself.
    let kill = |force: bool| -> Result<(Option<i32>, String)> {
        let mut command = daemon.ctl_command();
        command.args(["connections", "--kill", "--all"]).args(force.then_some("--force"));
        command.stdin(OwnedFd::from(web.try_clone()?)).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = site.server.spawn(&mut command)?.wait_with_output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (code, text) = kill(false)?;
    ensure!(code == Some(1) && text.contains("your own session") && text.contains("--force"), "{code:?}: {text}");
    ensure!(crosses(&mut caller, &mut web.try_clone()?, PATIENCE)?, "killed all the same");
    let (code, text) = kill(true)?;
    ensure!(code == Some(0), "{code:?}: {text}");
    only(&daemon, &["--state", "killed"])?;
    Ok(())
}

#[test]
fn a_policy_without_states_has_no_connections_to_list() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(
        &site.server,
        "ringfence: 1
network:
  interfaces: [eth0]
  ingress: {default: drop, stateless: true, rules: [{accept: {proto: tcp, port: 80}}]}
",
    )?;
    for arguments in [&["connections"][..], &["connections", "--kill", "--all"]] {
        let reply = daemon.ctl(arguments)?.exits(1)?;
        ensure!(reply.stderr.contains("follows no connections: no rule reads `state`"), "{reply:?}");
    }
    Ok(())
}
