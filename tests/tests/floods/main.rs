//! A flood at full speed: those who have business with the server do it all the same, nothing leaks, and every packet is
//! counted once.
//!
//! Each figure has its own source. What was sent is known to the sender; what the cable lost, to the device the flood
//! leaves by (others' traffic takes another, on the same cable); what was accepted, dropped and limited, to `ringctl
//! rules`; what came through, to a packet socket in the server.

mod kinds;
mod transfers;

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use kinds::{Kind, PING, PINGERS, POLICY, SYN};
use ringfence_api::{Connections, Pool, Status};
use ringfence_tests::{
    daemon::{Counters, Daemon},
    netns::{CLIENT, Site, Volley, Witness, families},
};
use ringfenced::kernel::census;
use transfers::{Done, Transfers};

/// How long the flood lasts.
const FLOOD: Duration = Duration::from_secs(30);
/// Frames that are not exceeded, however quick the machine is.
const MOST: u64 = 100_000_000;
/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_mins(1);
/// The device the flood leaves by.
const DEVICE: &str = "flood0";

/// What became of the flood's frames of one kind, as its sender knows it.
#[derive(Clone, Copy, Default)]
struct Sent {
    all: u64,
    refused: u64,
}

/// Sends rounds of all kinds; what was sent of each, and how long it took.
fn flood(site: &Site, kinds: &mut [Kind]) -> Result<(Vec<Sent>, Duration)> {
    let volley = Volley::new(&site.client, DEVICE)?;
    let mut sent = vec![Sent::default(); kinds.len()];
    // To which kind the frame at a place of the round belongs.
    let places: Vec<usize> =
        kinds.iter().enumerate().flat_map(|(index, kind)| kind.frames.iter().map(move |_| index)).collect();
    let mut random = fastrand::Rng::with_seed(1);
    let (begin, mut all) = (Instant::now(), 0);
    while begin.elapsed() < FLOOD && all < MOST {
        let round = random.u32(..);
        kinds.iter_mut().flat_map(|kind| &mut kind.frames).for_each(|shape| shape.turn(round));
        let frames: Vec<&[u8]> = kinds.iter().flat_map(|kind| &kind.frames).map(|shape| &shape.bytes[..]).collect();
        volley.send(&frames, |place| sent[places[place]].refused += 1)?;
        all += frames.len() as u64;
        for &kind in &places {
            sent[kind].all += 1;
        }
    }
    Ok((sent, begin.elapsed()))
}

/// What lines of the policy have counted in the meantime.
fn counted(after: &Counters, before: &Counters, lines: &[&str]) -> Result<u64> {
    lines.iter().map(|name| Ok(after.packets("ingress", name)? - before.packets("ingress", name)?)).sum()
}

/// All that was judged, each packet once: lines that only remark on a packet do not decide it.
fn judged(counters: &Counters) -> u64 {
    let decides = |name: &str| !["unknown", "connection/full", "limit/full"].contains(&name);
    counters.lines().iter().filter(|line| line.chain == "ingress" && decides(&line.name)).map(|line| line.packets).sum()
}

#[test]
fn business_goes_on_nothing_leaks_and_the_sums_are_exact() -> Result<()> {
    // What an allocator may come to hold on to, for the answers to `ringctl` too.
    const SLACK: u64 = 8 * 1024;
    let site = Site::new()?;
    site.client.beside("eth0", DEVICE)?;
    let daemon = Daemon::start(&site.server, POLICY)?;
    let hook = daemon.ingress()?;
    ensure!(hook.how.as_deref() == Some("xdp-native"), "a packet socket would see what is refused: {hook:?}");
    let mut kinds = kinds::all(site.server.mac("eth0")?)?;
    let witnesses: Vec<Witness> =
        (0..kinds.len()).map(|kind| Witness::new(&site.server, "eth0", kinds::tag(kind))).collect::<Result<_>>()?;
    let have = || -> Result<_> {
        let pins = format!("/sys/fs/bpf/ringfence/v{}", ringfence_abi::ABI_VERSION);
        let programs = site.server.run(|| census(pins.as_ref()))??;
        Ok((programs, fs::read_dir(format!("/proc/{}/fd", daemon.pid()?))?.count()))
    };
    let (quiet, came) = (daemon.counters()?, site.server.statistic("eth0", "rx_packets")?);
    let transfers = Transfers::start(&site)?;
    let (before, held, memory) = (daemon.counters()?, have()?, daemon.resident()?);
    let device = |figure: &str| site.client.statistic(DEVICE, figure);
    let (left, lost) = (device("tx_packets")?, device("tx_dropped")?);

    let (sent, took) = flood(&site, &mut kinds)?;
    let (lasting, new) = transfers.end()?;

    let (left, lost) = (device("tx_packets")? - left, device("tx_dropped")? - lost);
    let all: u64 = sent.iter().map(|sent| sent.all).sum();
    let lines: Vec<&str> = kinds.iter().flat_map(|kind| [kind.accepts, kind.drops, kind.limits].concat()).collect();
    let end = Instant::now() + PATIENCE;
    let after = loop {
        let after = daemon.counters()?;
        if counted(&after, &before, &lines)? >= left || Instant::now() > end {
            break after;
        }
        thread::sleep(Duration::from_millis(50));
    };
    println!("{all} frames in {took:?}: {lost} lost by the cable; {} new connections, {lasting:?}", new.len());
    let mut sums = [0; 3];
    for ((kind, sent), witness) in kinds.iter().zip(&sent).zip(&witnesses) {
        let count = |lines| counted(&after, &before, lines);
        let found = [count(kind.accepts)?, count(kind.drops)?, count(kind.limits)?];
        let ([accepted, dropped, limited], seen) = (found, witness.seen()?);
        println!(
            "{:30} {:>9} sent = {} lost + {accepted} accepted + {dropped} dropped + {limited} limited; {seen} came through",
            kind.name, sent.all, sent.refused
        );
        ensure!(sent.all == sent.refused + accepted + dropped + limited, "{}: {:?}", kind.name, after.since(&before));
        ensure!(seen == accepted, "{}: {accepted} were accepted, {seen} came through", kind.name);
        sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += found);
        for line in kind.drops.iter().chain(kind.accepts).chain(kind.limits) {
            ensure!(counted(&after, &before, &[line])? > 0, "nothing was counted by {line}");
        }
    }
    all_is_judged(&site, &daemon, came, judged(&quiet))?;
    let [accepted, dropped, limited] = sums;
    ensure!(all == lost + accepted + dropped + limited, "{all} sent, {lost} lost, {sums:?}");
    ensure!(all == lost + left, "{all} sent, {lost} lost, {left} left");
    limits_held(&after, &before, took)?;

    business_was_done(&lasting, &new)?;
    nothing_is_left(&daemon, &lasting, &new)?;
    ensure!(counted(&after, &before, &["connection/full", "limit/full", "tables", "continuations", "default"])? == 0);
    let (held_after, grown) = (have()?, daemon.resident()?.saturating_sub(memory));
    ensure!(held == held_after, "{held:?} became {held_after:?}");
    ensure!(grown <= SLACK, "{memory} kB became {grown} kB more");
    Ok(())
}

/// What came in, of whomever, was judged: no packet twice, and none went by. `came` and `decided` were there before.
fn all_is_judged(site: &Site, daemon: &Daemon, came: u64, decided: u64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let arrived = site.server.statistic("eth0", "rx_packets")? - came;
        let judged = judged(&daemon.counters()?) - decided;
        // A packet of the hosts' own may come between the two.
        if arrived == judged {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{arrived} packets came in, {judged} were judged");
        thread::sleep(Duration::from_millis(50));
    }
}

/// No more passed than the limits say. (How exact they are is shown elsewhere.)
fn limits_held(after: &Counters, before: &Counters, took: Duration) -> Result<()> {
    let most = |(rate, burst): (u64, u64)| burst + rate * (took.as_secs() + 1);
    let (syn, ping) = (counted(after, before, &["syn"])?, counted(after, before, &["ping"])?);
    ensure!(syn <= most(SYN), "{syn} SYNs in {took:?}");
    ensure!(ping <= most(PING) * 2 * u64::from(PINGERS), "{ping} echo requests in {took:?}");
    Ok(())
}

fn business_was_done(lasting: &[Done], new: &[Done]) -> Result<()> {
    ensure!(lasting.len() == 2 && new.len() >= 2, "{lasting:?}, {new:?}");
    // More than what was there before the flood began.
    let more = lasting[0].bytes.min(lasting[1].bytes) > new[0].bytes;
    ensure!(more, "connections that lasted carried nothing: {lasting:?}");
    Ok(())
}

/// The proven connections are those of who had business, and what the flood began is within its bounds.
fn nothing_is_left(daemon: &Daemon, lasting: &[Done], new: &[Done]) -> Result<()> {
    let known: BTreeSet<_> = lasting.iter().chain(new).map(|done| (done.from.ip(), Some(done.from.port()))).collect();
    let proven: Connections = daemon.json(&["connections", "--pool", "established", "--limit", "65536"])?;
    ensure!(proven.left_out == 0 && !proven.connections.is_empty(), "{proven:?}");
    for one in &proven.connections {
        ensure!(known.contains(&(one.from, one.from_port)) && one.to_port == Some(80), "of the flood: {one:?}");
        ensure!(families(CLIENT).contains(&one.from), "{one:?}");
    }
    for size in &proven.pools {
        ensure!(size.connections <= size.capacity, "{size:?}");
        ensure!(size.pool != Pool::HalfOut || size.connections == 0, "this host began nothing: {size:?}");
    }
    let status: Status = daemon.json(&["status"])?;
    ensure!(status.exit_code() == 0 && status.lost.values().all(|&lost| lost == 0), "{status:?}");
    Ok(())
}
