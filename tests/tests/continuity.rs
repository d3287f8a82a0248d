//! Enforcement goes on while generations change and while the daemon is dead.

use std::{
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use ringfence_api::{Generation, GenerationState, Status};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, SERVER, Site},
    traffic::{Echo, inbox, outbox, send_surely},
};

/// The port that is closed in every policy of these tests.
const CLOSED: u16 = 9;
/// The ports that two policies judge in opposite ways.
const PORTS: [u16; 2] = [1001, 1002];

const CLOSED_PORT: &str = "ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: accept
    rules:
      - drop: {proto: udp, port: 9}
        name: closed
  egress: {default: accept}
";

/// Sends numbered UDP packets from the client to the closed port until told to stop. Gives how many it sent.
fn knock(site: &Site, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let socket = outbox(&site.client, SocketAddrV4::new(CLIENT.0, 0))?;
    while !stop.load(Ordering::Relaxed) {
        send_surely(&socket, b"let me in", SocketAddr::new(SERVER.0.into(), CLOSED))?;
        if sent.fetch_add(1, Ordering::Relaxed) % 64 == 63 {
            // Bounded: a few ten thousand packets a second are enough to find a gap.
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Runs `disturb` under traffic to the closed port: nothing may get through, and all must be counted.
fn under_traffic(site: &Site, daemon: &mut Daemon, disturb: impl FnOnce(&mut Daemon) -> Result<()>) -> Result<()> {
    let listener = site.server.run(|| UdpSocket::bind((SERVER.0, CLOSED)))??;
    listener.set_nonblocking(true)?;
    let before = daemon.counters()?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(|| knock(site, &stop, &sent));
        thread::sleep(Duration::from_millis(100));
        let result = disturb(daemon);
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        result
    })?;
    let sent = sent.into_inner();
    ensure!(sent > 1000, "only {sent} packets were sent");
    ensure!(listener.recv(&mut [0; 16]).is_err(), "a packet got through");
    daemon.counted(&before, "ingress", "closed", sent)
}

#[test]
fn nothing_gets_through_while_the_daemon_is_killed_and_restarted() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = Daemon::start(&site.server, CLOSED_PORT)?;
    under_traffic(&site, &mut daemon, |daemon| {
        for _ in 0..3 {
            daemon.kill()?;
            thread::sleep(Duration::from_millis(200));
            daemon.restart()?;
        }
        Ok(())
    })
}

#[test]
fn nothing_gets_through_while_generations_change() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = Daemon::start(&site.server, CLOSED_PORT)?;
    under_traffic(&site, &mut daemon, |daemon| {
        for port in 2000..2010 {
            let further = format!("rules:\n      - drop: {{proto: tcp, port: {port}}}\n");
            daemon.apply(&CLOSED_PORT.replace("rules:\n", &further))?;
        }
        Ok(())
    })
}

#[test]
fn nothing_gets_through_when_the_daemon_ends_in_order() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = Daemon::start(&site.server, CLOSED_PORT)?;
    under_traffic(&site, &mut daemon, |daemon| {
        let status = daemon.stop()?;
        ensure!(status.success(), "ended with {status}");
        thread::sleep(Duration::from_millis(200));
        daemon.restart()
    })
}

#[test]
fn a_restarted_daemon_takes_over_what_runs() -> Result<()> {
    let site = Site::new()?;
    let mut daemon = Daemon::start(&site.server, CLOSED_PORT)?;
    let closed = Echo::start(&site.server, SERVER.0.into(), CLOSED)?;
    site.client.udp_answers(CLIENT.0.into(), closed.address(), Duration::from_millis(50))?;
    let (old, counters): (Status, _) = (daemon.json(&["status"])?, daemon.counters()?);
    ensure!(counters.packets("ingress", "closed")? == 1, "{counters:?}");
    daemon.kill()?;
    // Without a daemon `status` says so, and that the kernel still enforces.
    daemon.ctl(["status"])?.exits(1)?;
    site.client.udp_answers(CLIENT.0.into(), closed.address(), Duration::from_millis(50))?;
    daemon.restart()?;
    let new: Status = daemon.json(&["status"])?;
    ensure!(new.generation == old.generation, "generation {:?} became {:?}", old.generation, new.generation);
    daemon.counted(&counters, "ingress", "closed", 1)?;
    ensure!(new.exit_code() == 0, "{new:?}");
    Ok(())
}

/// One port is accepted and the other dropped. Both policies have the same four rules by name, so that counters carry
/// over; of the two for a port the second never matches.
fn opposite(accepted: u16, generation: &str) -> String {
    let rule =
        |verb: &str, port: u16| format!("      - {verb}: {{proto: udp, port: {port}}}\n        name: {verb}-{port}\n");
    let rules = PORTS.map(|port| {
        let (first, second) = if port == accepted { ("accept", "drop") } else { ("drop", "accept") };
        rule(first, port) + &rule(second, port)
    });
    format!(
        "ringfence: 1\n# {generation}\nnetwork:\n  interfaces: [eth0]\n  ingress:\n    default: drop\n    stateless: \
         true\n    rules:\n{}  egress: {{default: accept}}\n",
        rules.concat()
    )
}

#[test]
fn every_packet_is_judged_by_exactly_one_generation() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, &opposite(PORTS[0], "first"))?;
    let inboxes = PORTS.map(|port| inbox(&site.server, SocketAddr::new(SERVER.0.into(), port)));
    let inboxes = inboxes.into_iter().collect::<Result<Vec<_>>>()?;
    // Who receives ends after who sends, however long that takes.
    let (stop, all_sent) = (AtomicBool::new(false), AtomicBool::new(false));
    let sent = PORTS.map(|_| AtomicU64::new(0));
    let received = thread::scope(|scope| -> Result<Vec<u64>> {
        let receivers: Vec<_> = inboxes.iter().map(|inbox| scope.spawn(|| receive(inbox, &all_sent))).collect();
        let sender = scope.spawn(|| send_to_both(&site, &stop, &sent));
        let result = (0..20).try_for_each(|round| {
            thread::sleep(Duration::from_millis(30));
            daemon.apply(&opposite(PORTS[round % 2], &format!("round {round}")))
        });
        stop.store(true, Ordering::Relaxed);
        let ended = sender.join();
        all_sent.store(true, Ordering::Relaxed);
        ended.map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        result?;
        receivers.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a receiver panicked"))?).collect()
    })?;
    let counters = daemon.counters()?;
    for (index, port) in PORTS.into_iter().enumerate() {
        let sent = sent[index].load(Ordering::Relaxed);
        let count = |verb: &str| counters.packets("ingress", &format!("{verb}-{port}"));
        let (accepted, dropped) = (count("accept")?, count("drop")?);
        ensure!(sent > 500 && accepted > 0 && dropped > 0, "port {port}: {sent} sent, {counters:?}");
        ensure!(accepted + dropped == sent, "port {port}: {sent} sent, {accepted} accepted, {dropped} dropped");
        ensure!(received[index] == accepted, "port {port}: {accepted} accepted, {} received", received[index]);
    }
    let status: Status = daemon.json(&["status"])?;
    ensure!(status.lost.values().all(|&lost| lost == 0), "{status:?}");
    Ok(())
}

fn send_to_both(site: &Site, stop: &AtomicBool, sent: &[AtomicU64; 2]) -> Result<()> {
    let socket = outbox(&site.client, SocketAddrV4::new(CLIENT.0, 0))?;
    while !stop.load(Ordering::Relaxed) {
        for (port, sent) in PORTS.into_iter().zip(sent) {
            send_surely(&socket, b"which", SocketAddr::new(SERVER.0.into(), port))?;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn receive(socket: &UdpSocket, all_sent: &AtomicBool) -> Result<u64> {
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut received = 0;
    loop {
        match socket.recv(&mut [0; 16]) {
            Ok(_) => received += 1,
            Err(_) if all_sent.load(Ordering::Relaxed) => return Ok(received),
            Err(_) => {}
        }
    }
}

#[test]
fn history_is_kept_and_rolled_back() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, &opposite(PORTS[0], "first"))?;
    let echoes = PORTS.map(|port| Echo::start(&site.server, SERVER.0.into(), port));
    let [first, second] = echoes;
    let (first, second) = (first?, second?);
    let open = |echo: &Echo| site.client.udp_answers(CLIENT.0.into(), echo.address(), Duration::from_millis(200));
    ensure!((open(&first)?, open(&second)?) == (true, false), "the first policy is not in force");
    daemon.apply(&opposite(PORTS[1], "second"))?;
    ensure!((open(&first)?, open(&second)?) == (false, true), "the second policy is not in force");
    let history: Vec<Generation> = daemon.json(&["history"])?;
    ensure!(history.len() == 2 && history[0].state == GenerationState::Running, "{history:?}");
    ensure!(history[1].state == GenerationState::Previous, "{history:?}");
    daemon.ctl(["rollback"])?.done()?;
    ensure!((open(&first)?, open(&second)?) == (true, false), "the rollback is not in force");
    Ok(())
}

#[test]
fn an_unconfirmed_policy_goes_by_itself_also_with_the_daemon_dead() -> Result<()> {
    for dead in [false, true] {
        let site = Site::new()?;
        let mut daemon = Daemon::start(&site.server, &opposite(PORTS[0], "first"))?;
        let second = Echo::start(&site.server, SERVER.0.into(), PORTS[1])?;
        let open = || site.client.udp_answers(CLIENT.0.into(), second.address(), Duration::from_millis(100));
        let file = daemon.write("second.yaml", opposite(PORTS[1], "second"))?;
        daemon.ctl(["apply".as_ref(), file.as_os_str(), "--confirm".as_ref(), "3s".as_ref()])?.done()?;
        ensure!(open()?, "the unconfirmed policy is not in force");
        if dead {
            daemon.kill()?;
        }
        thread::sleep(Duration::from_secs(4));
        ensure!(!open()?, "the unconfirmed policy stayed (daemon dead: {dead})");
    }
    Ok(())
}

#[test]
fn a_confirmed_policy_stays() -> Result<()> {
    let site = Site::new()?;
    let daemon = Daemon::start(&site.server, &opposite(PORTS[0], "first"))?;
    let second = Echo::start(&site.server, SERVER.0.into(), PORTS[1])?;
    let file = daemon.write("second.yaml", opposite(PORTS[1], "second"))?;
    daemon.ctl(["apply".as_ref(), file.as_os_str(), "--confirm".as_ref(), "3s".as_ref()])?.done()?;
    daemon.ctl(["status"])?.exits(1)?;
    daemon.ctl(["confirm"])?.done()?;
    thread::sleep(Duration::from_secs(4));
    ensure!(
        site.client.udp_answers(CLIENT.0.into(), second.address(), Duration::from_secs(5))?,
        "the confirmed policy went"
    );
    Ok(())
}
