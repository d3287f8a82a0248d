//! The wall clock jumps, on a machine of its own: deadlines and expiries go by the time since boot.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use nix::{
    sys::time::{TimeSpec, TimeValLike as _},
    time::{ClockId, clock_gettime, clock_settime},
};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, SERVER, Site},
    traffic::Echo,
};

/// What marks a machine that tests may change.
const MARK: &str = "/etc/ringfence-test-machine";
const PATIENCE: Duration = Duration::from_mins(3);
const DAY: i64 = 86_400;
static CLOCK: Mutex<()> = Mutex::new(());

const POLICY: &str = "ringfence: 1
network:
  interfaces: [eth0]
  ingress: {default: accept}
";

/// Sets the machine's clock forward, or back.
fn jump(seconds: i64) -> Result<()> {
    ensure!(Path::new(MARK).exists(), "the clock of this machine is not a test's to set");
    let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
    Ok(clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::seconds(seconds))?)
}

struct Scene {
    // There is one clock: the tests set it one after the other.
    _clock: MutexGuard<'static, ()>,
    site: Site,
    daemon: Daemon,
    echo: Echo,
}

impl Scene {
    fn new() -> Result<Self> {
        let clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let site = Site::new()?;
        let daemon = Daemon::start(&site.server, POLICY)?;
        let echo = Echo::start(&site.server, SERVER.0.into(), 1000)?;
        Ok(Self { _clock: clock, site, daemon, echo })
    }

    fn answers(&self) -> Result<bool> {
        self.site.client.udp_answers(CLIENT.0.into(), self.echo.address(), Duration::from_secs(1))
    }

    fn eventually_answers(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.answers()? {
            ensure!(Instant::now() < end, "not after {} s: {}", PATIENCE.as_secs(), self.daemon.log());
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

#[test]
fn an_entry_lasts_as_long_as_was_asked_for_whatever_the_clock_says() -> Result<()> {
    let scene = Scene::new()?;
    let client = CLIENT.0.to_string();
    // Ahead: an hour is not over.
    scene.daemon.ctl(["deny", &client, "--for", "1h"])?.done()?;
    jump(DAY)?;
    let lasts = scene.answers();
    jump(-DAY)?;
    ensure!(!lasts?, "the entry ended with the jump");
    scene.daemon.ctl(["undo", &client])?.done()?;
    ensure!(scene.answers()?, "the entry stayed");
    // Back: ten seconds do not become a day, whether the daemon or the programs look at them.
    scene.daemon.ctl(["deny", &client, "--for", "10s"])?.done()?;
    jump(-DAY)?;
    let ends = scene.eventually_answers();
    jump(DAY)?;
    ends
}

#[test]
fn a_confirmation_is_awaited_as_long_as_was_asked_for_whatever_the_clock_says() -> Result<()> {
    let mut scene = Scene::new()?;
    let shut = scene.daemon.write("shut.yaml", POLICY.replace("accept}", "drop, stateless: true}"))?;
    let apply = |scene: &Scene, time: &str| {
        let reply = scene.daemon.ctl(["apply".as_ref(), shut.as_os_str(), "--confirm".as_ref(), time.as_ref()]);
        reply?.done().map(drop)
    };
    apply(&scene, "1h")?;
    jump(DAY)?;
    let lasts = scene.answers();
    jump(-DAY)?;
    ensure!(!lasts?, "it was rolled back by the jump");
    scene.daemon.ctl(["rollback"])?.done()?;
    ensure!(scene.answers()?, "it was not rolled back");
    apply(&scene, "20s")?;
    scene.daemon.kill()?;
    jump(-DAY)?;
    let ends = scene.eventually_answers();
    jump(DAY)?;
    ends
}
