//! Rate limits on real packets.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Direction, Frame, SERVER, STRANGER, Site, Transport, Wire, families},
    places::closed,
};

/// A chain with one rule that has a limit.
fn policy(rule: &str, limit: &str) -> String {
    closed(&format!(
        "      - {rule}
        name: limited
        limit: {limit}
      - drop: {{proto: udp, port: 9}}
        name: rest
"
    ))
}

fn discard(from: IpAddr, to: IpAddr) -> Frame {
    Frame::new(from, to, Transport::Udp { source: 4000, destination: 9 })
}

/// Sends packets as fast as it can for a time; how many, and how long it took.
fn send(wire: &Wire, frames: &[Frame], time: Duration) -> Result<(u64, Duration)> {
    let (begin, mut sent) = (Instant::now(), 0);
    while begin.elapsed() < time {
        for _ in 0..64 {
            for frame in frames {
                wire.send(frame)?;
                sent += 1;
            }
        }
    }
    Ok((sent, begin.elapsed()))
}

fn packets(daemon: &Daemon, name: &str) -> Result<u64> {
    daemon.counters()?.packets("ingress", name)
}

/// Waits until all packets that were sent have been judged.
fn judged(daemon: &Daemon, sent: u64) -> Result<(u64, u64)> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let (limited, rest) = (packets(daemon, "limited")?, packets(daemon, "rest")?);
        if limited + rest == sent {
            return Ok((limited, rest));
        }
        ensure!(Instant::now() < end, "{limited} + {rest} of {sent} packets were judged");
        thread::sleep(Duration::from_millis(20));
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

/// Within 2 %.
fn is_exact(found: u64, expected: u64) -> Result<()> {
    ensure!(found.abs_diff(expected) * 50 <= expected, "{found} packets, expected {expected}");
    Ok(())
}

/// Waits until no more packets come: of very many at once the cable may lose some.
fn settled(daemon: &Daemon) -> Result<(u64, u64)> {
    let mut last = None;
    for _ in 0..100 {
        let now = (packets(daemon, "limited")?, packets(daemon, "rest")?);
        if last == Some(now) {
            return Ok(now);
        }
        last = Some(now);
        thread::sleep(Duration::from_millis(300));
    }
    bail!("packets go on coming")
}

#[test]
fn what_is_below_the_rate_matches_and_the_rest_goes_on() -> Result<()> {
    // 2,000 a second and 6,000 at once, whatever is sent: so many at once that a pause of the sender loses nothing.
    let text = policy("accept: {proto: udp, port: 9}", "{rate: 2000/s, burst: 6000}");
    for (server, client) in families(SERVER).into_iter().zip(families(CLIENT)) {
        let site = Site::new()?;
        let daemon = Daemon::start(&site.server, &text)?;
        let wire = site.wire(Direction::ToServer)?;
        let (sent, time) = send(&wire, &[discard(client, server)], Duration::from_secs(3))?;
        let (limited, rest) = settled(&daemon)?;
        ensure!(rest > 0, "only {sent} packets in {time:?}: not above the rate");
        is_exact(limited, 6000 + 2 * millis(time))?;
    }
    Ok(())
}

#[test]
fn two_processors_spend_from_one_schedule() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, &policy("accept: {proto: udp, port: 9}", "{rate: 2000/s, burst: 6000}"))?;
    let wires = [site.wire(Direction::ToServer)?, site.wire(Direction::ToServer)?];
    let begin = Instant::now();
    let sent: u64 = thread::scope(|scope| {
        let sources: [IpAddr; 2] = [CLIENT.0.into(), STRANGER.0.into()];
        let frames = sources.map(|source| discard(source, SERVER.0.into()));
        let threads: Vec<_> = wires
            .iter()
            .zip(&frames)
            .map(|(wire, frame)| {
                let frame = frame.clone();
                scope.spawn(move || send(wire, &[frame], Duration::from_secs(4)))
            })
            .collect();
        threads.into_iter().map(|thread| Ok(thread.join().ok().context("a thread ended")??.0)).sum::<Result<u64>>()
    })?;
    let time = begin.elapsed();
    let (limited, rest) = settled(&daemon)?;
    ensure!(rest > 0, "only {sent} packets in {time:?}: not above the rate");
    is_exact(limited, 6000 + 2 * millis(time))
}

#[test]
fn each_source_or_its_network_has_a_limit_of_its_own() -> Result<()> {
    let sources: Vec<IpAddr> = (0..6).map(|number| Ipv4Addr::new(10, 0, number / 2, 1 + number % 2).into()).collect();
    for (per, schedules) in [("source", 6), ("source/24", 3), ("source/8", 1), ("rule", 1), ("destination", 1)] {
        let site = Site::new()?;
        let limit = format!("{{rate: 1/hour, burst: 4, per: {per}}}");
        let daemon = Daemon::start(&site.server, &policy("accept: {proto: udp, port: 9}", &limit))?;
        let wire = site.wire(Direction::ToServer)?;
        for _ in 0..10 {
            for source in &sources {
                wire.send(&discard(*source, SERVER.0.into()))?;
            }
        }
        let (limited, _) = judged(&daemon, 60)?;
        ensure!(limited == 4 * schedules, "per {per}: {limited} packets");
    }
    Ok(())
}

#[test]
fn over_matches_what_is_above_and_bytes_are_counted_as_bytes() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, &policy("drop: {proto: udp, port: 9}", "{over: 1/hour, burst: 5}"))?;
    let wire = site.wire(Direction::ToServer)?;
    for _ in 0..20 {
        wire.send(&discard(CLIENT.1.into(), SERVER.1.into()))?;
    }
    ensure!(judged(&daemon, 20)? == (15, 5), "{:?}", judged(&daemon, 20)?);

    let site = Site::new()?;
    // 36 bytes each from the network header on: ten of them.
    let limit = "{rate: 1KiB/day, burst: 360}";
    let daemon = Daemon::start(&site.server, &policy("accept: {proto: udp, port: 9}", limit))?;
    let wire = site.wire(Direction::ToServer)?;
    for _ in 0..20 {
        wire.send(&discard(CLIENT.0.into(), SERVER.0.into()))?;
    }
    ensure!(judged(&daemon, 20)? == (10, 10), "{:?}", judged(&daemon, 20)?);
    Ok(())
}

#[test]
fn an_explanation_spends_nothing_and_what_has_no_room_is_over() -> Result<()> {
    const SOURCES: u32 = 70_000;
    let site = Site::new()?;
    let limit = "{rate: 1/hour, burst: 1, per: source}";
    let daemon = Daemon::start(&site.server, &policy("accept: {proto: udp, port: 9}", limit))?;
    let packet = "interface=eth0 proto=udp from=192.0.2.2 to=192.0.2.1 port=9";
    for _ in 0..3 {
        daemon.ctl(["explain", "--packet", packet, "--expect", "accept"])?.done()?;
    }
    let wire = site.wire(Direction::ToServer)?;
    wire.send(&discard(CLIENT.0.into(), SERVER.0.into()))?;
    ensure!(judged(&daemon, 1)? == (1, 0), "an explanation spent it");

    // More sources than there is room for: those without are over the limit, and counted.
    for number in 0..SOURCES {
        let source: IpAddr = Ipv4Addr::from(0x0a00_0000 | number).into();
        wire.send(&discard(source, SERVER.0.into()))?;
        // A queue of the cable holds some thousand.
        if number % 500 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let (limited, rest) = settled(&daemon)?;
    let full = packets(&daemon, "limit/full")?;
    ensure!(limited == 65_536 && rest == full, "{limited} below, {rest} above, {full} without room");
    Ok(())
}
