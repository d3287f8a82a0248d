//! SYN cookies: `protect: syn-flood` answers for the listener, and connections are made all the same.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context, Result, ensure};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Direction, Frame, Host, SERVER, Site, Transport, families},
    places::{At, PLACES, closed},
    traffic::{Echo, PATIENCE},
};

/// What leaves needs a rule, the cookies need none.
fn scene(at: At, cookies: u8) -> Result<(Site, Daemon)> {
    let site = at.site()?;
    set_cookies(&site.server, cookies)?;
    let web = "      - accept: {proto: tcp, port: 80}
        protect: syn-flood
        name: web
";
    let egress = "  egress:
    default: drop
    stateless: true
    rules:
      - accept: {proto: tcp, source_port: 80, flags: \"!syn\"}
        name: replies
      - accept: {proto: tcp, source_port: 80}
        name: handshakes
";
    let daemon = Daemon::start(&site.server, &(closed(&format!("{}{web}", at.rule())) + egress))?;
    at.is_where(&daemon)?;
    Ok((site, daemon))
}

/// `net.ipv4.tcp_syncookies` of a host, which is for both families.
fn set_cookies(host: &Host, value: u8) -> Result<()> {
    let write = || fs::write("/proc/sys/net/ipv4/tcp_syncookies", value.to_string());
    host.run(write)?.context("cannot set tcp_syncookies")
}

/// Connections that a host made of a cookie.
fn made_of_cookies(host: &Host) -> Result<u64> {
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/netstat"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let place = names.split_whitespace().position(|name| name == "SyncookiesRecv").context("no SyncookiesRecv")?;
    Ok(values.split_whitespace().nth(place).context("no value")?.parse()?)
}

#[test]
fn a_connection_is_made_of_a_cookie() -> Result<()> {
    for at in PLACES {
        let (site, daemon) = scene(at, 2)?;
        for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
            let echo = Echo::start(&site.server, server, 80)?;
            let (before, made) = (daemon.counters()?, made_of_cookies(&site.server)?);
            ensure!(site.client.tcp_answers(client, echo.address(), PATIENCE)?, "{at:?} {server}");
            daemon.counted(&before, "ingress", "syn-flood/cookie", 1)?;
            daemon.counted(&before, "ingress", "syn-flood/invalid", 0)?;
            // The kernel itself answered no SYN.
            let answered = daemon.counted(&before, "egress", "handshakes", 0);
            answered.with_context(|| format!("{at:?} {server}"))?;
            ensure!(made_of_cookies(&site.server)? == made + 1, "{at:?} {server}: not made of a cookie");
        }
    }
    Ok(())
}

fn segment(from: IpAddr, to: IpAddr, source: u16, flags: u8) -> Frame {
    let mut frame = Frame::new(from, to, Transport::Tcp { source, destination: 80, flags });
    frame.payload.clear();
    frame
}

#[test]
fn an_acknowledgement_without_a_cookie_is_dropped() -> Result<()> {
    for at in PLACES {
        let (site, daemon) = scene(at, 2)?;
        let wire = site.wire(Direction::ToServer)?;
        for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
            let echo = Echo::start(&site.server, server, 80)?;
            ensure!(site.client.tcp_answers(client, echo.address(), PATIENCE)?, "{at:?} {server}");
            let before = daemon.counters()?;
            for port in 5000..5010 {
                wire.send(&segment(client, server, port, 16))?;
            }
            daemon.counted(&before, "ingress", "syn-flood/invalid", 10)?;
            // As many connections as before, and none of these.
            daemon.counted(&before, "ingress", "syn-flood/cookie", 0)?;
        }
    }
    Ok(())
}

#[test]
fn where_the_kernel_gives_no_cookies_it_answers_itself() -> Result<()> {
    for at in PLACES {
        let (site, daemon) = scene(at, 0)?;
        for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
            let echo = Echo::start(&site.server, server, 80)?;
            let before = daemon.counters()?;
            ensure!(site.client.tcp_answers(client, echo.address(), PATIENCE)?, "{at:?} {server}");
            daemon.counted(&before, "ingress", "syn-flood/cookie", 0)?;
            daemon.counted(&before, "egress", "handshakes", 1)?;
        }
    }
    Ok(())
}

/// Once the listener's queue is full, SYNs reach it no more, and who is there gets a connection.
#[test]
fn a_flood_fills_the_queue_once_and_visitors_get_through() -> Result<()> {
    const FLOOD: u64 = 300;
    const QUEUE: i32 = 8;
    for at in PLACES {
        let (site, daemon) = scene(at, 1)?;
        let to = SocketAddr::new(SERVER.0.into(), 80);
        let listener = site.server.run(|| -> Result<_> {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&to.into())?;
            socket.listen(QUEUE)?;
            // `accept` waits no longer.
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })??;
        let wire = site.wire(Direction::ToServer)?;
        let (before, made) = (daemon.counters()?, made_of_cookies(&site.server)?);
        for number in 0..FLOOD {
            // Nobody has these addresses.
            let from = Ipv4Addr::new(192, 0, 2, 100 + (number % 150) as u8);
            wire.send(&segment(from.into(), SERVER.0.into(), 10_000 + number as u16, 2))?;
            if number % 50 == 49 {
                daemon.counted(&before, "ingress", "web", number + 1)?;
            }
        }
        let cookies = daemon.counters()?.packets("ingress", "syn-flood/cookie")?;
        let taken = FLOOD - cookies;
        ensure!((1..=FLOOD / 2).contains(&taken), "{at:?}: the listener saw {taken} SYNs of {FLOOD}");
        let client = site.client.run(|| std::net::TcpStream::connect_timeout(&to, PATIENCE))??;
        let (_, peer) = listener.accept()?;
        ensure!(peer.as_socket() == Some(client.local_addr()?), "{at:?}: {peer:?}");
        ensure!(made_of_cookies(&site.server)? == made + 1, "{at:?}: the visitor's connection is not made of a cookie");
    }
    Ok(())
}
