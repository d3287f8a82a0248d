//! How exact a limit is when two CPUs ask it at once, very often.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use ringfence_tests::{
    daemon::Daemon,
    inject::{Injector, Pinned},
    netns::{CLIENT, Frame, SERVER, Site, Transport, families},
    places::closed,
};

/// How long packets are offered.
const TIME: Duration = Duration::from_secs(10);
/// Where a machine cannot offer so many in this time.
const LONGEST: Duration = Duration::from_mins(1);
/// What the rule lets pass: a second, and at once. So many at once that a pause of the machine loses nothing.
const RATE: u64 = 100_000;
const BURST: u64 = 100_000;
/// Packets a second that are offered, by both CPUs together.
const OFFERED: u64 = 1_000_000;
/// CPUs that offer.
const CPUS: usize = 2;
/// One test at a time: they would share the CPUs.
static OFFERING: Mutex<()> = Mutex::new(());

fn policy(per: &str) -> String {
    let rules = format!(
        "      - accept: {{proto: udp, port: 9}}
        name: limited
        limit: {{rate: {RATE}/s, burst: {BURST}, per: {per}}}
      - drop: {{proto: udp, port: 9}}
        name: rest
"
    );
    // Without a cable packets come from `lo`.
    closed(&rules).replace("  ingress:", "  floor: {loopback: false}\n  ingress:")
}

/// The first CPUs that this process may use; the same one twice where there is but one.
fn processors() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let found: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or_default()).collect();
    Ok((0..CPUS).map(|number| found[number % found.len()]).collect())
}

/// Packets that were offered, so many by each call.
struct Offered {
    at_once: u32,
    /// When each call began, in order.
    calls: Vec<Duration>,
    /// When the last one ended.
    end: Duration,
}

/// Has each CPU offer packets, `at_once` of them by a call of `offer`: as many as are due by the rate, or as many as
/// it can.
fn offer(site: &Site, paced: bool, at_once: u32, offer: impl Fn(u32) -> Result<()> + Sync) -> Result<Offered> {
    let _alone = OFFERING.lock().unwrap_or_else(PoisonError::into_inner);
    let host = if paced { &site.client } else { &site.server };
    let each = OFFERED / CPUS as u64;
    let (most, longest) = if paced { (each * TIME.as_secs(), LONGEST) } else { (u64::MAX, TIME) };
    let begin = Instant::now();
    let on = |cpu: usize| -> Result<(Vec<Duration>, Duration)> {
        let mut only = CpuSet::new();
        only.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &only)?;
        let (mut calls, mut offered) = (Vec::new(), 0);
        while offered < most && begin.elapsed() < longest {
            if paced && offered >= begin.elapsed().as_micros() as u64 * each / 1_000_000 {
                thread::sleep(Duration::from_micros(100));
                continue;
            }
            calls.push(begin.elapsed());
            offer(at_once)?;
            offered += u64::from(at_once);
        }
        Ok((calls, begin.elapsed()))
    };
    let shares: Vec<_> = thread::scope(|scope| -> Result<_> {
        let threads: Vec<_> = processors()?.into_iter().map(|cpu| scope.spawn(move || host.run(|| on(cpu))?)).collect();
        threads.into_iter().map(|thread| thread.join().ok().context("a thread ended")?).collect()
    })?;
    let end = shares.iter().map(|share| share.1).max().context("no CPU")?;
    let mut calls: Vec<_> = shares.into_iter().flat_map(|share| share.0).collect();
    calls.sort_unstable();
    Ok(Offered { at_once, calls, end })
}

impl Offered {
    fn packets(&self) -> u64 {
        u64::from(self.at_once) * self.calls.len() as u64
    }

    fn time(&self) -> Duration {
        self.end.saturating_sub(self.calls[0])
    }

    /// How many the rule must match at least. Where the machine paused for longer than the burst lasts, so many cannot come
    /// any more: a bucket that is filled by the rate and emptied by the calls knows.
    fn least(&self) -> u64 {
        let (mut tokens, mut before, mut matched) = (BURST * 1_000_000, self.calls[0], 0);
        for &call in &self.calls {
            tokens += call.saturating_sub(before).as_micros() as u64 * RATE;
            tokens = tokens.min(BURST * 1_000_000);
            let taken = tokens.min(u64::from(self.at_once) * 1_000_000);
            tokens -= taken;
            (before, matched) = (call, matched + taken);
        }
        matched / 1_000_000
    }

    fn most(&self) -> u64 {
        BURST + self.time().as_micros() as u64 * RATE / 1_000_000
    }
}

/// The rule has matched as many as it may, within 2 %, and every other packet went on.
fn is_exact(daemon: &Daemon, what: &str, offered: &Offered, lost: u64) -> Result<()> {
    let end = Instant::now() + Duration::from_mins(1);
    let (limited, rest) = loop {
        let counters = daemon.counters()?;
        let (limited, rest) = (counters.packets("ingress", "limited")?, counters.packets("ingress", "rest")?);
        let sent = offered.packets();
        if limited + rest + lost == sent {
            break (limited, rest);
        }
        ensure!(Instant::now() < end, "{what}: {limited} + {rest} judged + {lost} lost of {sent}: {counters:?}");
        thread::sleep(Duration::from_millis(50));
    };
    let (least, most, time) = (offered.least(), offered.most(), offered.time());
    println!(
        "{what}: {} a second for {time:?}, {lost} lost on the way, {limited} matched, {least} to {most} expected",
        (limited + rest) * 1_000_000 / time.as_micros() as u64
    );
    ensure!(rest > limited, "{what}: {limited} matched and only {rest} did not: not above the rate");
    let exact = limited * 100 >= least * 98 && limited * 100 <= most * 102;
    ensure!(exact, "{what}: {limited} matched, {least} to {most} expected");
    Ok(())
}

fn frame(site: &Site, family: usize) -> Result<Vec<u8>> {
    let (from, to) = (families(CLIENT)[family], families(SERVER)[family]);
    let transport = Transport::Udp { source: 4000, destination: 9 };
    Frame::new(from, to, transport).bytes(site.client.mac("eth0")?, site.server.mac("eth0")?)
}

/// Real frames on a device, a million a second if the machine can.
#[test]
fn a_million_packets_a_second_on_two_processors() -> Result<()> {
    let site = Site::with_queues(CPUS as u32)?;
    let daemon = Daemon::start(&site.server, &policy("rule"))?;
    let hook = daemon.ingress()?;
    ensure!(hook.how.as_deref() == Some("xdp-native"), "{hook:?}");
    let injector = Injector::new(&site.client, "eth0")?;
    let frame = frame(&site, 0)?;
    let lost = || site.client.statistic("eth0", "tx_dropped");
    let before = lost()?;
    let offered = offer(&site, true, 1_000, |times| injector.send(&frame, times))?;
    is_exact(&daemon, "on the cable", &offered, lost()? - before)
}

/// The attached program itself, as often as it can run: nothing but it is between two packets, so both CPUs are at the
/// limit's word all the time.
#[test]
fn two_processors_that_do_nothing_else() -> Result<()> {
    for (per, family) in [("rule", 0), ("source", 1)] {
        let site = Site::new()?;
        let daemon = Daemon::start(&site.server, &policy(per))?;
        let path: PathBuf = format!(
            "/sys/fs/bpf/ringfence/v{}/programs/{}",
            ringfence_abi::ABI_VERSION,
            ringfence_abi::names::DISPATCH_XDP
        )
        .into();
        let program = Pinned::open(&site.server, &path)?;
        let frame = frame(&site, family)?;
        let offered = offer(&site, false, 20_000, |times| Ok(program.run(&frame, times)?))?;
        is_exact(&daemon, &format!("per {per}, without a cable"), &offered, 0)?;
    }
    Ok(())
}
