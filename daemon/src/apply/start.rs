//! What is in force when the daemon starts: what an earlier one left in the kernel, what the command line says, what
//! was confirmed last.

use std::path::Path;

use ringfence_api::{ApplyRequest, ApplySource};

use super::active::{Active, Meaning};
use super::candidate::Origin;
use super::change::START;
use super::off::FORBIDDEN;
use super::switch::{Plan, note};
use crate::cli::DEFAULT_POLICY;
use crate::daemon::{Control, Daemon, EMPTY, Pending};
use crate::error::{Error, Result, with_sources};
use crate::interfaces::watch;
use crate::kernel::Loaded;
use crate::server::caller::Caller;
use crate::state::counts::Counts;
use crate::state::generations::Record;

impl Daemon {
    /// Puts the right policy in force. An error means that none is, and that the daemon must say so and end.
    pub fn start(&self) -> Result<()> {
        if self.forbidden {
            tracing::warn!("the kernel's command line says `{FORBIDDEN}`: nothing is enforced");
            return Ok(());
        }
        if self.is_off() {
            tracing::warn!("off: nothing is enforced until `ringctl on`");
            return Ok(());
        }
        self.require_host()?;
        // Before what the kernel has too much is taken out of it: this is not.
        self.follow_left()?;
        {
            let mut dynamic = self.dynamic();
            self.kernel(|kernel| dynamic.restore(kernel))?;
        }
        self.keep_own_sets()?;
        self.restore_mode()?;
        self.adopt()?;
        self.choose()?;
        self.retire_formers(&mut self.control());
        // What an earlier daemon had put into the sets that are kept, and is not so any more, goes.
        let mut dynamic = self.dynamic();
        self.kernel(|kernel| dynamic.restore_own(kernel))
    }

    fn choose(&self) -> Result<()> {
        match &self.arguments.policy {
            Some(path) => self.start_with(path),
            None if self.control().running.is_some() => {
                self.renew();
                Ok(())
            }
            None => self.start_with_last(),
        }
    }

    /// Loads the generation in force anew where this version compiles it to other tables.
    fn renew(&self) {
        let number = {
            let control = self.control();
            let foreign = control.running.as_ref().filter(|running| running.meaning.is_none());
            foreign.map(|running| running.number()).filter(|&number| number != EMPTY && control.pending.is_none())
        };
        let Some(number) = number else { return };
        let renewed = self.candidate(Origin::Kept(number), None).and_then(|candidate| {
            let record = Record { tables: candidate.tables_digest(), ..self.store.record(number)? };
            self.store.set_record(&record)?;
            self.switch(candidate, &Plan { record, new: false, confirm: None })
        });
        let problem = renewed.err().map(|error| {
            format!("this version cannot read generation {number}, which goes on enforcing: {}", with_sources(&error))
        });
        note(&mut self.control(), "policy", problem);
    }

    /// The policy that the command line names; if it has errors, the last confirmed one.
    fn start_with(&self, path: &Path) -> Result<()> {
        let request = ApplyRequest {
            source: ApplySource::Reload,
            confirm_seconds: None,
            dry_run: false,
            force: false,
            expect_digest: None,
        };
        if self.control().pending.is_some() {
            tracing::warn!("a generation waits for a confirmation: the configured policy is not applied");
            return Ok(());
        }
        let Err(error) = self.apply(request, &Caller::Daemon, START) else { return Ok(()) };
        let running = self.control().running.is_some();
        if !running && self.last_confirmed()?.is_none() {
            if matches!(error, Error::No(_)) {
                // Nothing was in force before it was tried, and that is what an unconfirmed one goes back to.
                let problem = format!("{}: {error}; nothing is enforced", path.display());
                note(&mut self.control(), "policy", Some(problem));
                return Ok(());
            }
            return Err(error);
        }
        tracing::error!(policy = %path.display(), error = with_sources(&error), "not applied");
        if !running {
            self.start_with_last()?;
        }
        let problem =
            format!("{}: {}; the last confirmed generation is in force", path.display(), error.body().message);
        note(&mut self.control(), "policy", Some(problem));
        Ok(())
    }

    /// The last confirmed generation, from disk; where there is none, the default file.
    fn start_with_last(&self) -> Result<()> {
        if let Some(number) = self.last_confirmed()? {
            let candidate = self.candidate(Origin::Kept(number), None)?;
            let kept = self.store.record(number)?;
            let record = Record { tables: candidate.tables_digest(), ..kept.clone() };
            if record != kept
                && let Err(error) = self.store.set_record(&record)
            {
                // Only a later daemon asks for it, and it will find that the tables are others.
                tracing::error!(error = with_sources(&error), "the record could not be written");
            }
            return self.switch(candidate, &Plan { record, new: false, confirm: None }).map(drop);
        }
        if self.arguments.policy.is_none() && Path::new(DEFAULT_POLICY).exists() {
            return self.start_with(Path::new(DEFAULT_POLICY));
        }
        tracing::warn!("there is no policy yet: nothing is enforced until `ringctl apply`");
        Ok(())
    }

    /// Takes over what an earlier daemon left in the kernel.
    fn adopt(&self) -> Result<()> {
        let found = self.kernel(|kernel| Ok(kernel.adopt()?))?;
        let cell = self.kernel(|kernel| Ok(kernel.cell()))?;
        let mut control = self.control();
        let network = watch::lock(&self.network).clone();
        {
            let attachments = &mut control.attachments;
            self.kernel(|kernel| attachments.adopt(kernel, &network))?;
        }
        let (mut current, mut previous, mut leftover) = (None, None, Vec::new());
        for loaded in found {
            if loaded.slot == cell.current {
                current = Some(self.understand(loaded)?);
            } else if cell.deadline != 0 && loaded.slot == cell.previous {
                previous = Some(self.understand(loaded)?);
            } else {
                leftover.push(loaded);
            }
        }
        let Some(current) = current else {
            // Nothing was in force yet, or never came to be.
            return leftover.into_iter().try_for_each(|old| self.unload(old));
        };
        tracing::info!(generation = current.number(), "adopted what is in force");
        classify_all(&current, &network);
        control.running = Some(Box::new(current));
        if let Some(previous) = previous {
            classify_all(&previous, &network);
            control.pending = Some(Pending { previous: Box::new(previous), deadline: cell.deadline });
        }
        self.reconcile_deadline(&mut control)?;
        for loaded in leftover {
            let old = self.understand(loaded)?;
            self.retire(&mut control, old);
        }
        self.catch_up(&mut control)?;
        let sets = control.running.as_ref().and_then(|r| r.meaning.as_ref()).map(|m| m.policy.dynamic_sets.clone());
        if let Some(sets) = sets {
            let mut dynamic = self.dynamic();
            self.kernel(|kernel| {
                dynamic.assign_ids(Some(kernel), &sets)?;
                dynamic.declare(Some(kernel), &sets)
            })?;
        }
        let problem = self.reconcile(&mut control);
        note(&mut control, "attach", problem);
        let problem = self.host_after_flip(&mut control);
        note(&mut control, "host", problem);
        Ok(())
    }

    /// Writes down what an earlier daemon that was killed did not come to, and removes what it left of an apply that did
    /// not come into force.
    fn catch_up(&self, control: &mut Control) -> Result<()> {
        let running = control.running.as_ref().map(|running| running.number()).filter(|&number| number != EMPTY);
        let before = control.standing.get().clone();
        if let Some(running) = running {
            for number in self.store.numbers()? {
                if number > running.max(before.last_number) {
                    tracing::warn!(generation = number, "removed: its apply was interrupted before it came into force");
                    if let Err(error) = self.store.remove(number) {
                        tracing::error!(error = with_sources(&error), "it could not be removed");
                    }
                }
            }
        }
        // Killed between the flip and the disk: what the disk calls running is what was replaced. (If it was not
        // confirmed, it was the programs that went back from it.)
        let confirmed = |&number: &u64| self.store.record(number).is_ok_and(|record| record.confirmed);
        let replaced = before.running.filter(|_| before.running != running).filter(confirmed);
        let written = control.standing.follow(|standing| {
            standing.running = running;
            standing.previous = replaced.or(standing.previous).filter(|previous| Some(*previous) != running);
            standing.last_number = standing.last_number.max(running.unwrap_or_default());
        });
        note(control, "state", written.err().map(|error| with_sources(&error)));
        Ok(())
    }

    /// Finds out what a generation in the kernel means. Where that cannot be told any more (the policy does not compile
    /// with this version, or to other tables), it enforces all the same, and the status says so.
    fn understand(&self, loaded: Loaded) -> Result<Active> {
        let number = loaded.number;
        if number == EMPTY {
            return Ok(Active::empty(loaded));
        }
        let Ok(record) = self.store.record(number) else {
            tracing::error!(generation = number, "in the kernel, but not in the state directory");
            let mut active = Active::empty(loaded);
            active.record.generation = number;
            "unknown".clone_into(&mut active.record.policy);
            return Ok(active);
        };
        let lines = self.store.lines(number)?;
        let counts = Counts::read(&self.store, number)?;
        let meaning = match self.candidate(Origin::Kept(number), None) {
            Ok(candidate) if candidate.tables_digest() == record.tables => Some(Meaning::of(candidate)),
            Ok(_) => {
                tracing::warn!(generation = number, "this version compiles the policy to other tables");
                None
            }
            Err(error) => {
                tracing::error!(
                    generation = number,
                    error = with_sources(&error),
                    "the policy in force cannot be read"
                );
                None
            }
        };
        Ok(Active::new(loaded, record, lines, meaning, counts))
    }

    /// What `ringctl mode` said holds over a restart.
    pub fn restore_mode(&self) -> Result<()> {
        let control = self.control();
        let audit = control.standing.get().audit;
        if let Some(audit) = audit {
            tracing::warn!(until = ?audit.until, "mode audit: nothing is refused");
        }
        self.kernel(|kernel| {
            kernel.set_audit(audit.is_some());
            Ok(())
        })
    }
}

fn classify_all(active: &Active, network: &watch::Network) {
    for link in network.links.values() {
        if let Err(error) = active.classify(link) {
            tracing::error!(interface = link.name, error = with_sources(&error), "cannot be told to the programs");
        }
    }
}
