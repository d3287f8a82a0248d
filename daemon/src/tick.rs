//! What happens by itself: expiries, deadlines, interfaces that come and go, and writing down the counters.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::apply::switch::note;
use crate::clock::boot_now;
use crate::daemon::{Control, Daemon};
use crate::dynamic::sets::KEPT;
use crate::error::{Error, Result, blocking, with_sources};
use crate::interfaces::watch::{self, Event};

/// Boot time goes on in suspend and the runtime's timers do not: look again at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);
/// Attaching that failed is tried again, and counters are written down.
const ROUNDS: Duration = Duration::from_secs(30);

/// Carries out what is due, for as long as the daemon runs.
pub async fn expiries(daemon: Arc<Daemon>) {
    loop {
        let worker = Arc::clone(&daemon);
        let next = blocking(move || worker.tick()).await.unwrap_or_else(|error| {
            tracing::error!(error = with_sources(&error), "what is due could not be done");
            None
        });
        let wait =
            next.map_or(LONGEST_SLEEP, |at| Duration::from_nanos(at.saturating_sub(boot_now())).min(LONGEST_SLEEP));
        tokio::select! {
            () = sleep(wait) => {}
            () = daemon.rearm.notified() => {}
        }
    }
}

/// Follows the interfaces.
pub async fn interfaces(daemon: Arc<Daemon>, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        let worker = Arc::clone(&daemon);
        if let Err(error) = blocking(move || worker.network_changed(event)).await {
            tracing::error!(error = with_sources(&error), ?event, "the interfaces could not be followed");
        }
    }
}

/// Looks after what changes without telling.
pub async fn rounds(daemon: Arc<Daemon>) {
    let mut rounds = interval(ROUNDS);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let worker = Arc::clone(&daemon);
        if let Err(error) = blocking(move || worker.look_around()).await {
            tracing::error!(error = with_sources(&error), "a round failed");
        }
    }
}

impl Daemon {
    /// Does what is due; when to come again, nanoseconds of boot time.
    fn tick(&self) -> Result<Option<u64>> {
        let now = boot_now();
        let mut next = Vec::new();
        {
            // An apply holds this for as long as it takes to load: its own end looks at the deadline.
            let mut control = self.control();
            self.reconcile_deadline(&mut control)?;
            self.expire_mode(&mut control, now)?;
            next.extend(control.pending.as_ref().map(|pending| u64::from(pending.deadline) * 1_000_000_000));
            next.extend(control.standing.get().audit.and_then(|audit| audit.until).map(|until| until.boot));
        }
        let mut dynamic = self.dynamic();
        self.with_kernel(|kernel| dynamic.expire(kernel))?;
        next.extend(dynamic.first_expiry());
        Ok(next.into_iter().min())
    }

    fn network_changed(&self, event: Event) -> Result<()> {
        let mut control = self.control();
        if self.is_off() {
            return Ok(());
        }
        let network = watch::lock(&self.network).clone();
        match event {
            Event::Gone(index) => {
                let attachments = &mut control.attachments;
                self.kernel(|kernel| {
                    attachments.detach(kernel, index, "the interface is gone");
                    Ok(())
                })?;
                let loaded = [control.running.as_deref(), control.pending.as_ref().map(|p| &*p.previous)];
                for active in loaded.into_iter().flatten() {
                    active.loaded.forget_interface(index)?;
                }
            }
            Event::Resynced => control.attachments.doubt(),
            Event::Changed => {}
        }
        let loaded = [control.running.as_deref(), control.pending.as_ref().map(|p| &*p.previous)];
        for active in loaded.into_iter().flatten() {
            for link in network.links.values() {
                active.classify(link)?;
            }
        }
        let problem = self.reconcile(&mut control);
        note(&mut control, "attach", problem);
        self.keep_own_sets()
    }

    /// Keeps `$local`, `$gateways` and `$resolvers`.
    pub fn keep_own_sets(&self) -> Result<()> {
        let (local, gateways) = {
            let network = watch::lock(&self.network);
            (network.local.keys().copied().collect::<BTreeSet<IpAddr>>(), network.gateways.clone())
        };
        let mut dynamic = self.dynamic();
        let resolvers = dynamic.resolvers().clone();
        self.with_kernel(|kernel| {
            let [own, hops, servers] = KEPT;
            dynamic.keep(kernel, own, &local)?;
            dynamic.keep(kernel, hops, &gateways)?;
            dynamic.keep(kernel, servers, &resolvers)
        })
    }

    fn look_around(&self) -> Result<()> {
        let mut control = self.control();
        if self.is_off() {
            return Ok(());
        }
        self.keep_own_sets()?;
        if control.attachments.all.values().any(|attachment| attachment.failure.is_some()) {
            let problem = self.reconcile(&mut control);
            note(&mut control, "attach", problem);
        }
        self.write_down(&control)
    }

    /// Writes down what the counters are, in case the machine goes down.
    pub fn write_down(&self, control: &Control) -> Result<()> {
        match &control.running {
            Some(running) if running.number() != crate::daemon::EMPTY => running.snapshot(&self.store),
            _ => Ok(()),
        }
    }

    /// The last thing the daemon does.
    pub fn finish(&self) {
        let control = self.control();
        match self.write_down(&control) {
            Ok(()) | Err(Error::Off) => {}
            Err(error) => tracing::warn!(error = with_sources(&error), "the counters could not be written down"),
        }
    }
}
