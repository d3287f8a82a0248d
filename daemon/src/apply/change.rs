//! `ringctl apply`, `confirm` and `rollback`, and what happens when no confirmation comes.

use ringfence_api::{
    ApplyAnswer, ApplyRequest, CutConnections, Diff, GenerationAnswer, GenerationRequest, Pending as PendingAnswer,
};

use super::candidate::{Candidate, Origin};
use super::diff;
use super::lockout::locks_out;
use super::switch::{Plan, note};
use crate::clock::boot_seconds;
use crate::daemon::{Control, Daemon, EMPTY};
use crate::error::{Error, Result, with_sources};
use crate::faults::reach;
use crate::server::caller::Caller;

/// Why a policy is applied when the daemon starts.
pub const START: &str = "start";
/// The longest time to wait for a confirmation: a day.
const MAX_CONFIRM: u64 = 86_400;

impl Daemon {
    /// Puts a policy in force, whole or not at all.
    pub fn apply(&self, request: ApplyRequest, caller: &Caller, why: &str) -> Result<ApplyAnswer> {
        let _one_at_a_time = self.applying();
        if self.is_off() && !request.dry_run {
            return Err(Error::Off);
        }
        let confirm = confirm_seconds(request.confirm_seconds)?;
        let running = {
            let control = self.control();
            if !request.dry_run
                && let Some(pending) = &control.pending
            {
                let running = control.running.as_ref().map_or(EMPTY, |running| running.number());
                let left = pending.deadline.saturating_sub(boot_seconds());
                return Err(Error::No(format!(
                    "generation {running} waits {left} more seconds for a confirmation: `ringctl confirm` or `ringctl rollback` first"
                )));
            }
            control.running.as_ref().map(|running| running.number())
        };
        let origin = Origin::of(request.source, &self.arguments.configured_policy());
        let candidate = self.candidate(origin, running)?;
        if let Some(expected) = &request.expect_digest
            && *expected != candidate.digest
        {
            return Err(Error::No("the policy is another one than the dry run saw; look again".to_owned()));
        }
        let mut answer = ApplyAnswer {
            generation: None,
            diff: self.diff_with(running, &candidate)?,
            warnings: candidate.warnings.iter().cloned().chain(self.host_warnings(&candidate)?).collect(),
            cut: None,
            pending: None,
            digest: candidate.digest.clone(),
        };
        let same = running.filter(|&number| self.is_same(number, &candidate));
        if request.dry_run {
            answer.cut = if same.is_some() { Some(CutConnections::default()) } else { self.cut_by(&candidate, caller) };
            return Ok(answer);
        }
        if let Some(number) = same {
            tracing::info!(generation = number, by = caller.name(), "the policy in force is this one already");
            self.took_set_files(candidate.missing);
            answer.generation = Some(number);
            answer.cut = Some(CutConnections::default());
            note(&mut self.control(), "policy", None);
            return Ok(answer);
        }
        if !request.force {
            self.object(&candidate, running, caller)?;
        }
        if why == START {
            self.refuse_unconfirmed(&candidate)?;
        }
        answer.cut = self.cut_by(&candidate, caller);
        let number = self.next_number()?;
        let record = candidate.record(number, &caller.name(), why, confirm.is_none());
        let missing = candidate.missing.clone();
        self.switch(candidate, &Plan { record, new: true, confirm })?;
        self.took_set_files(missing);
        if let Some(cut) = &answer.cut {
            report(number, cut);
        }
        answer.generation = Some(number);
        answer.diff.to = Some(number);
        let mut control = self.control();
        note(&mut control, "policy", None);
        answer.pending = pending_answer(&control);
        Ok(answer)
    }

    /// [`Daemon::would_cut`]; `None` where that cannot be found out, for which no policy has to wait.
    fn cut_by(&self, candidate: &Candidate, caller: &Caller) -> Option<CutConnections> {
        let found = self.would_cut(candidate, caller);
        found.inspect_err(|error| tracing::warn!(error = with_sources(error), "cannot judge the connections")).ok()
    }

    /// At a start nobody is there to confirm: a policy that was tried with `--confirm`, and given up, does not come back by
    /// itself because a machine was restarted.
    fn refuse_unconfirmed(&self, candidate: &Candidate) -> Result<()> {
        let texts = |texts: &[crate::state::generations::SourceText]| -> Vec<String> {
            texts.iter().map(|text| text.text.clone()).collect()
        };
        let wanted = texts(&candidate.sources.texts);
        let same = |record: &crate::state::generations::Record| {
            self.store.texts(record.generation).is_ok_and(|kept| texts(&kept) == wanted)
        };
        // The newest first: it may have been applied again, and confirmed.
        match self.store.records()?.into_iter().find(same) {
            Some(record) if !record.confirmed => {
                let number = record.generation;
                Err(Error::No(format!(
                    "generation {number}, which is this policy, was never confirmed; apply it again"
                )))
            }
            _ => Ok(()),
        }
    }

    /// What speaks against a policy without `force`.
    fn object(&self, candidate: &Candidate, running: Option<u64>, caller: &Caller) -> Result<()> {
        if let Some(cut) = self.cuts(candidate, &caller.sessions()) {
            return Err(Error::NeedsForce(cut));
        }
        if let Some(reason) = locks_out(&candidate.policy) {
            return Err(Error::NeedsForce(reason));
        }
        if let Some(running) = running.filter(|&number| number != EMPTY) {
            let shrunk = candidate.shrunk(&self.store.record(running)?);
            if !shrunk.is_empty() {
                let names = shrunk.join("`, `");
                return Err(Error::NeedsForce(format!(
                    "set file of `{names}` lost more than half of its elements (`shrink: true` at the set allows that)"
                )));
            }
        }
        Ok(())
    }

    /// Whether the generation in force was made from exactly this policy.
    pub fn is_same(&self, number: u64, candidate: &Candidate) -> bool {
        let control = self.control();
        let running = control.running.as_ref().filter(|running| running.number() == number);
        running.is_some_and(|running| {
            running.meaning.is_some()
                && running.record.digest == candidate.digest
                && running.record.tables == candidate.tables_digest()
        })
    }

    /// What is different from the generation in force.
    fn diff_with(&self, running: Option<u64>, candidate: &Candidate) -> Result<Diff> {
        let running = running.filter(|&number| number != EMPTY);
        let (lines, texts) = match running {
            Some(number) => (self.store.lines(number)?, self.store.texts(number)?),
            None => (Vec::new(), Vec::new()),
        };
        Ok(Diff {
            from: running,
            to: None,
            rules: diff::rules(&lines, &candidate.lines),
            files: diff::files(&texts, &candidate.sources.texts),
        })
    }

    /// A number that no generation had.
    pub fn next_number(&self) -> Result<u64> {
        let on_disk = self.store.numbers()?.last().copied().unwrap_or_default();
        Ok(self.control().standing.get().last_number.max(on_disk) + 1)
    }

    /// Keeps the pending generation.
    pub fn confirm(&self, request: GenerationRequest, caller: &Caller) -> Result<GenerationAnswer> {
        let _one_at_a_time = self.applying();
        let mut control = self.control();
        self.reconcile_deadline(&mut control)?;
        let none = || Error::No("no generation waits for a confirmation".to_owned());
        let pending = control.pending.take().ok_or_else(none)?;
        let Some(running) = control.running.as_mut() else { return Err(none()) };
        let number = running.number();
        if request.generation.is_some_and(|asked| asked != number) {
            control.pending = Some(pending);
            return Err(Error::No(format!("it is generation {number} that waits for a confirmation")));
        }
        running.record.confirmed = true;
        let slot = running.loaded.slot;
        // On disk before the deadline goes: a crash between leaves a confirmed generation that rolls back, not an
        // unconfirmed one that stays.
        if let Err(error) = self.store.set_record(&running.record) {
            running.record.confirmed = false;
            control.pending = Some(pending);
            return Err(error.into());
        }
        reach("confirm/written");
        self.kernel(|kernel| {
            kernel.flip(slot, slot, 0);
            Ok(())
        })?;
        reach("confirm/flipped");
        tracing::info!(generation = number, by = caller.name(), "confirmed");
        self.retire(&mut control, *pending.previous);
        Ok(GenerationAnswer { generation: number })
    }

    /// Goes back: from a pending generation to the one before it, otherwise to any that is kept.
    pub fn rollback(&self, request: GenerationRequest, caller: &Caller) -> Result<GenerationAnswer> {
        let _one_at_a_time = self.applying();
        if self.is_off() {
            return Err(Error::Off);
        }
        let (target, running) = {
            let mut control = self.control();
            self.reconcile_deadline(&mut control)?;
            let previous = control.pending.as_ref().map(|pending| pending.previous.number());
            if let Some(previous) = previous {
                if request.generation.is_none_or(|asked| asked == previous) {
                    tracing::info!(generation = previous, by = caller.name(), "rolled back");
                    self.go_back(&mut control)?;
                    return Ok(GenerationAnswer { generation: previous });
                }
                return Err(Error::No(format!(
                    "a generation waits for a confirmation: only {previous} can come back now"
                )));
            }
            let target = request.generation.or(control.standing.get().previous);
            let target = target.ok_or_else(|| Error::No("there is no previous generation".to_owned()))?;
            (target, control.running.as_ref().map(|running| running.number()))
        };
        if running == Some(target) {
            return Ok(GenerationAnswer { generation: target });
        }
        self.feeds.keep();
        let candidate = self.candidate(Origin::Kept(target), None)?;
        if !request.force {
            self.object(&candidate, None, caller)?;
        }
        let kept = self.store.record(target)?;
        let tables = candidate.tables_digest();
        let record = crate::state::generations::Record { confirmed: true, tables, ..kept.clone() };
        // Nothing to write, nothing that can fail: also a full disk goes back.
        if record != kept {
            self.store.set_record(&record)?;
        }
        self.switch(candidate, &Plan { record, new: false, confirm: None })?;
        tracing::info!(generation = target, by = caller.name(), "rolled back");
        Ok(GenerationAnswer { generation: target })
    }

    /// If the deadline has passed, the programs have gone back by themselves: the daemon follows.
    pub fn reconcile_deadline(&self, control: &mut Control) -> Result<()> {
        match &control.pending {
            Some(pending) if pending.deadline <= boot_seconds() => {
                tracing::warn!("no confirmation came: rolled back");
                self.go_back(control)
            }
            _ => Ok(()),
        }
    }

    /// Makes the previous generation of a pending one the one in force.
    fn go_back(&self, control: &mut Control) -> Result<()> {
        let Some(pending) = control.pending.take() else { return Ok(()) };
        self.feeds.keep();
        let slot = pending.previous.loaded.slot;
        self.kernel(|kernel| {
            kernel.flip(slot, slot, 0);
            Ok(())
        })?;
        reach("back/flipped");
        let failed = control.running.replace(pending.previous);
        let back = control.running.as_ref().map_or(EMPTY, |running| running.number());
        let written = control.standing.follow(|standing| {
            standing.running = (back != EMPTY).then_some(back);
            standing.previous = standing.previous.filter(|&previous| previous != back);
        });
        note(control, "state", written.err().map(|error| with_sources(&error)));
        reach("back/standing-written");
        if back == EMPTY {
            let empty = control.running.take();
            self.nothing_in_force(control)?;
            for old in [empty, failed].into_iter().flatten() {
                self.unload(old.loaded)?;
            }
            return Ok(());
        }
        let sets = control.running.as_ref().and_then(|r| r.meaning.as_ref()).map(|m| m.policy.dynamic_sets.clone());
        if let Some(sets) = sets {
            let mut dynamic = self.dynamic();
            self.kernel(|kernel| dynamic.declare(Some(kernel), &sets))?;
        }
        let problem = self.reconcile(control);
        note(control, "attach", problem);
        let problem = self.host_after_flip(control);
        note(control, "host", problem);
        if let Some(failed) = failed {
            self.retire(control, *failed);
        }
        self.feeds.changed.notify_one();
        Ok(())
    }
}

/// Logs what a generation does to connections.
fn report(generation: u64, cut: &CutConnections) {
    if cut.total == 0 {
        return;
    }
    tracing::info!(generation, cut = cut.total, of = cut.judged, "connections are cut");
    for one in &cut.connections {
        let at = one.file.as_ref().zip(one.line).map(|(file, line)| format!("{file}:{line}"));
        tracing::info!(connection = %one.connection, rule = one.rule, at, until = ?one.until, "cut");
    }
    if cut.left_out > 0 {
        tracing::info!(more = cut.left_out, "cut");
    }
}

/// What waits for a confirmation.
#[must_use]
pub fn pending_answer(control: &Control) -> Option<PendingAnswer> {
    let pending = control.pending.as_ref()?;
    Some(PendingAnswer {
        generation: control.running.as_ref()?.number(),
        previous: Some(pending.previous.number()).filter(|&number| number != EMPTY),
        seconds: pending.deadline.saturating_sub(boot_seconds()).into(),
    })
}

fn confirm_seconds(seconds: Option<u64>) -> Result<Option<u32>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if (1..=MAX_CONFIRM).contains(&seconds) => Ok(Some(seconds as u32)),
        Some(_) => Err(Error::BadInput(format!("a confirmation is awaited for 1 to {MAX_CONFIRM} seconds"))),
    }
}
