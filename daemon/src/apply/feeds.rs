//! Set files that change while the policy that names them is in force.
//!
//! Addresses of set files are compiled into the tables, so new contents are a new generation of the same policy texts: the
//! change is the same one store as that of an apply, and no packet sees an empty set. Files that did not change are taken
//! from the copies of the generation in force, so one that is being written just now is not read by accident.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringfence_api::ErrorBody;
use ringfence_policy::check_set_file;
use tokio::sync::Notify;

use super::candidate::Origin;
use super::switch::{Plan, note};
use crate::daemon::{Daemon, EMPTY};
use crate::error::{Error, Result, with_sources};
use crate::server::caller::Caller;
use crate::state::generations::{Record, SetRecord};

/// Why a generation came to be that differs from the one before in its set files alone.
pub const WHY: &str = "set files";

/// What is known of the set files beside what is in force.
#[derive(Debug, Default)]
pub struct Feeds {
    /// Another generation is in force: it may have other files.
    pub changed: Notify,
    // Files whose last good copies are in force instead of them, and why.
    stale: Mutex<BTreeMap<PathBuf, String>>,
    // The generation in force came back with its set files as they were.
    kept: AtomicBool,
}

impl Feeds {
    /// An earlier generation comes back with the set files it had: they stay until they change again.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::SeqCst);
    }

    /// Whether the files are to be left as the generation in force has them, though they may be others now.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        self.kept.load(Ordering::SeqCst)
    }

    fn stale(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a file's last good copy is in force.
    #[must_use]
    pub fn why_stale(&self, path: &std::path::Path) -> Option<String> {
        self.stale().get(path).cloned()
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// It is in force, or was refused, or changed nothing.
    Done,
    /// A generation waits for its confirmation, which nothing may disturb.
    Later,
}

impl Daemon {
    /// The set files of the generation in force, with their copies.
    pub fn set_files(&self) -> Result<BTreeMap<PathBuf, PathBuf>> {
        let number = self.control().running.as_ref().map(|running| running.number()).filter(|&number| number != EMPTY);
        match number {
            Some(number) if !self.is_off() => Ok(self.store.set_copies(number)?),
            _ => Ok(BTreeMap::new()),
        }
    }

    /// An apply has read the set files; of the `missing` ones the last good copies are in force.
    pub fn took_set_files(&self, missing: Vec<PathBuf>) {
        self.feeds.kept.store(false, Ordering::SeqCst);
        let why = |path| (path, "missing or empty".to_owned());
        *self.feeds.stale() = missing.into_iter().map(why).collect();
        self.note_stale();
    }

    /// Puts the new contents of these set files in force.
    pub fn refresh_sets(&self, changed: &BTreeSet<PathBuf>) -> Result<Refreshed> {
        let _one_at_a_time = self.applying();
        let record = {
            let control = self.control();
            if control.pending.is_some() {
                return Ok(Refreshed::Later);
            }
            match &control.running {
                Some(running) if !self.is_off() && running.number() != EMPTY => running.record.clone(),
                _ => return Ok(Refreshed::Done),
            }
        };
        let mut good = BTreeSet::new();
        for set in record.sets.iter().filter(|set| changed.contains(&set.path)) {
            self.feeds.stale().remove(&set.path);
            good.insert(set.path.clone());
        }
        // Two sets may be of one file: it is taken for both or for none.
        for set in record.sets.iter().filter(|set| changed.contains(&set.path)) {
            if let Err(reason) = judge(set) {
                good.remove(&set.path);
                self.feeds.stale().entry(set.path.clone()).or_insert(reason);
            }
        }
        if let Err(error) = self.put_in_force(&record, &good) {
            let body = error.body();
            let reason = body.diagnostics.first().map_or(body.message, |first| first.message.clone());
            self.feeds.stale().extend(good.into_iter().map(|path| (path, reason.clone())));
        }
        self.note_stale();
        Ok(Refreshed::Done)
    }

    fn put_in_force(&self, record: &Record, files: &BTreeSet<PathBuf>) -> Result<()> {
        let before = record.generation;
        if files.is_empty() {
            return Ok(());
        }
        let candidate = self.candidate(Origin::Refreshed(before, files.clone()), None)?;
        if self.is_same(before, &candidate) {
            return Ok(());
        }
        // Judged already, but not these very bytes.
        if let Some(set) = candidate.shrunk(record).first() {
            return Err(Error::BadInput(format!("the set `{set}` lost over half of its elements while it was read")));
        }
        let number = self.next_number()?;
        let new = candidate.record(number, &Caller::Daemon.name(), WHY, true);
        self.feeds.kept.store(false, Ordering::SeqCst);
        self.switch(candidate, &Plan { record: new, new: true, confirm: None })?;
        tracing::info!(generation = number, files = ?files, "set files have changed");
        self.forget_superseded(record);
        Ok(())
    }

    /// A feed that changes every hour would push all policies out of the history.
    fn forget_superseded(&self, old: &Record) {
        let control = self.control();
        let needed = control.standing.get().previous == Some(old.generation) || control.problems.contains_key("retire");
        drop(control);
        if old.why == WHY
            && !needed
            && let Err(error) = self.store.remove(old.generation)
        {
            tracing::warn!(error = with_sources(&error), "cannot remove a generation whose set files have changed");
        }
    }

    fn note_stale(&self) {
        let stale = self.feeds.stale().clone();
        let text: Vec<String> = stale.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
        let problem = (!text.is_empty())
            .then(|| format!("set files that are not taken, the last good copies are in force: {}", text.join("; ")));
        note(&mut self.control(), "set-files", problem);
    }
}

/// Whether a file may take the place of what the generation in force has of it.
fn judge(set: &SetRecord) -> std::result::Result<(), String> {
    let file = check_set_file(&set.set, &set.path, &set.feed).map_err(|report| {
        let body: ErrorBody = Error::Policy(Box::new(report)).body();
        // What concerns the whole file comes last, after lines.
        body.diagnostics.last().map_or(body.message, |last| match last.line {
            Some(line) => format!("line {line}: {}", last.message),
            None => last.message.clone(),
        })
    })?;
    if !set.feed.shrink && file.elements * 2 < set.elements {
        return Err(format!(
            "{} elements instead of {}: over half is gone (`shrink: true` at the set allows that, `ringctl apply --force` \
             takes it once)",
            file.elements, set.elements
        ));
    }
    Ok(())
}
