//! What happens by itself: expiries, deadlines, interfaces that come and go, and writing down the counters.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::apply::host::note_mounts;
use crate::apply::switch::note;
use crate::clock::boot_now;
use crate::daemon::{Control, Daemon};
use crate::dynamic::sets::KEPT;
use crate::error::{Error, Result, blocking, with_sources};
use crate::interfaces::watch::{self, Event};
use crate::kernel::Kernel;

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

/// Follows the mount table in a thread of its own, for as long as the process lives. Between a mount and its entry into
/// the kernel's table, the programs step by themselves over what was mounted.
pub fn follow_mounts(daemon: Arc<Daemon>) -> Result<()> {
    let watch = Kernel::watch_mounts()?;
    let follow = move || {
        let mut patience = PollTimeout::NONE;
        loop {
            let mut polled = [PollFd::new(watch.as_fd(), PollFlags::POLLPRI | PollFlags::POLLERR)];
            match poll(&mut polled, patience) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "the mount table cannot be followed");
                    return;
                }
            }
            patience = PollTimeout::NONE;
            if let Err(error) = daemon.mounts_changed() {
                tracing::error!(error = with_sources(&error), "the mount table could not be followed");
                // Whether it changes again or not.
                patience = PollTimeout::from(1_000_u16);
            }
        }
    };
    let spawned = thread::Builder::new().name("mounts".to_owned()).spawn(follow);
    spawned.map(drop).map_err(Error::system("cannot start a thread"))
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
        let mut dynamic = self.known();
        self.with_kernel(|kernel| dynamic.expire(kernel))?;
        next.extend(dynamic.first_expiry());
        next.extend(dynamic.next_look());
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
        // One that cannot be told to the programs, for the table is full, must not keep the others from being judged.
        let mut unknown = None;
        for active in loaded.into_iter().flatten() {
            for link in network.links.values() {
                let failed = |error| format!("rules do not know the interface {}: {}", link.name, with_sources(&error));
                unknown = unknown.or(active.classify(link).err().map(failed));
            }
        }
        note(&mut control, "interfaces", unknown);
        let problem = self.reconcile(&mut control);
        note(&mut control, "attach", problem);
        self.keep_own_sets()
    }

    /// Tells the programs of the mounts there are now.
    pub fn mounts_changed(&self) -> Result<()> {
        // The kernel first: an apply may hold what is noted below for a while.
        self.keep_pins()?;
        let report = self.with_kernel(|kernel| Ok(kernel.map(Kernel::refresh_mounts).transpose()?))?;
        let Some(report) = report else { return Ok(()) };
        if report.changed {
            tracing::debug!(known = report.known, "mounts");
        }
        let mut control = self.control();
        note_mounts(&mut control, report);
        Ok(())
    }

    /// Looks whether the pins are still where they were; if not, they are made again as soon as they can be.
    fn keep_pins(&self) -> Result<()> {
        let kept = self.with_kernel(|kernel| Ok(kernel.map(Kernel::keep_pins).transpose()));
        let problem = kept?.err().map(|error| with_sources(&error));
        note(&mut self.control(), "pins", problem);
        Ok(())
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
        self.keep_pins()?;
        let mut control = self.control();
        if self.is_off() {
            return Ok(());
        }
        self.keep_own_sets()?;
        self.expire_connections(&control)?;
        if control.attachments.all.values().any(|attachment| attachment.failure.is_some()) {
            let problem = self.reconcile(&mut control);
            note(&mut control, "attach", problem);
        }
        if let Some(pending) = &control.pending {
            self.with_kernel(|kernel| match kernel {
                Some(kernel) => Ok(kernel.refresh_executables(&pending.previous.loaded)?),
                None => Ok(()),
            })?;
        }
        // Entries that went may have been the last to need a hook; one that failed is tried again.
        let problem = self.host_after_flip(&mut control);
        note(&mut control, "host", problem);
        self.retire_formers(&mut control);
        let written = control.standing.retry();
        note(&mut control, "state", written.err().map(|error| with_sources(&error)));
        let written = self.dynamic().settle();
        note(&mut control, "journal", written.err().map(|error| with_sources(&error)));
        let written = self.write_down(&control);
        note(&mut control, "counters", written.err().map(|error| with_sources(&error)));
        self.retire_again(&mut control);
        Ok(())
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
        drop(self.known());
        match self.write_down(&control) {
            Ok(()) | Err(Error::Off) => {}
            Err(error) => tracing::warn!(error = with_sources(&error), "the counters could not be written down"),
        }
    }
}
