//! Generations on disk: everything that is needed to load one again, and what its counters stood for.
//!
//! ```text
//! generations/7/about.json     Record
//!               text-0         the policy files, in order
//!               set-0          the set files they name
//!               lines.json     what each counter counts
//!               counts.json    Counts
//! ```
//!
//! A generation is written to a directory of another name and renamed, so one that is there is whole.

mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

pub use self::record::{KeptLine, Record, SetRecord, SourceText, Sources, hexadecimal};
use super::StateError;
use super::files::{self, read_json, sync_directory, write_json};
use crate::faults::reach;

/// How many generations are kept.
pub const KEPT: usize = 32;

/// The directory of all generations.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens `generations` below the state directory and removes what a crash left half written.
    pub fn open(state: &Path) -> Result<Self, StateError> {
        let root = state.join("generations");
        fs::create_dir_all(&root).map_err(|error| StateError::write(&root, error))?;
        let store = Self { root };
        for name in store.names()? {
            if name.parse::<u64>().is_err() {
                let path = store.root.join(name);
                if let Err(error) = fs::remove_dir_all(&path) {
                    // It is in nobody's way.
                    tracing::warn!(%error, path = %path.display(), "cannot remove what a crash left");
                }
            }
        }
        Ok(store)
    }

    fn names(&self) -> Result<Vec<String>, StateError> {
        let read = |error| StateError::Read { path: self.root.clone(), error };
        let entries = fs::read_dir(&self.root).map_err(read)?;
        entries.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(read)).collect()
    }

    fn directory(&self, number: u64) -> PathBuf {
        self.root.join(number.to_string())
    }

    /// The numbers of all generations that are kept.
    pub fn numbers(&self) -> Result<BTreeSet<u64>, StateError> {
        Ok(self.names()?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Writes a new generation. Files that the generation `like` has too are shared with it.
    pub fn add(
        &self,
        record: &Record,
        sources: &Sources,
        lines: &[KeptLine],
        like: Option<u64>,
    ) -> Result<(), StateError> {
        let staging = tempfile::Builder::new().prefix(".new-").tempdir_in(&self.root);
        let staging = staging.map_err(|error| StateError::write(&self.root, error))?;
        let path = staging.path();
        let like = like.map(|number| self.directory(number));
        let texts = sources.texts.iter().map(|text| text.text.as_bytes()).enumerate();
        for (index, bytes) in texts {
            keep(path, &format!("text-{index}"), bytes, like.as_deref())?;
        }
        for (index, (_, bytes)) in sources.sets.iter().enumerate() {
            if let Some(bytes) = bytes {
                keep(path, &format!("set-{index}"), bytes, like.as_deref())?;
            }
        }
        reach("store/texts-written");
        write_json(&path.join("lines.json"), &lines)?;
        write_json(&path.join("about.json"), record)?;
        reach("store/record-written");
        let target = self.directory(record.generation);
        let path = staging.keep();
        fs::rename(&path, &target).map_err(|error| StateError::write(&target, error))?;
        reach("store/renamed");
        sync_directory(&self.root)
    }

    /// Removes a generation that never came into force.
    pub fn remove(&self, number: u64) -> Result<(), StateError> {
        let path = self.directory(number);
        // Renamed first: half a generation must not look like one.
        let gone = self.root.join(format!(".old-{number}"));
        fs::rename(&path, &gone).map_err(|error| StateError::write(&path, error))?;
        reach("store/put-away");
        fs::remove_dir_all(&gone).map_err(|error| StateError::write(&gone, error))
    }

    /// Removes the oldest generations over [`KEPT`], never those in `needed`.
    pub fn prune(&self, needed: &[u64]) -> Result<(), StateError> {
        let numbers = self.numbers()?;
        let excess = numbers.len().saturating_sub(KEPT);
        let old: Vec<u64> = numbers.into_iter().filter(|number| !needed.contains(number)).take(excess).collect();
        old.into_iter().try_for_each(|number| self.remove(number))
    }

    /// What is known of a generation.
    pub fn record(&self, number: u64) -> Result<Record, StateError> {
        read_json(&self.directory(number).join("about.json"))?.ok_or(StateError::NoGeneration(number))
    }

    /// Writes what is known of a generation anew.
    pub fn set_record(&self, record: &Record) -> Result<(), StateError> {
        write_json(&self.directory(record.generation).join("about.json"), record)
    }

    /// All records, newest first. A damaged one is left out with a warning: it must not hide the others.
    pub fn records(&self) -> Result<Vec<Record>, StateError> {
        let read = |number| {
            self.record(number).inspect_err(|error| tracing::warn!(%error, "a generation cannot be read")).ok()
        };
        Ok(self.numbers()?.into_iter().rev().filter_map(read).collect())
    }

    /// Its policy files.
    pub fn texts(&self, number: u64) -> Result<Vec<SourceText>, StateError> {
        let record = self.record(number)?;
        let mut texts = Vec::new();
        for (index, (name, base)) in record.texts.into_iter().enumerate() {
            let path = self.file(number, &format!("text-{index}"));
            match fs::read_to_string(&path) {
                Ok(text) => texts.push(SourceText { name, base, text }),
                Err(error) => return Err(StateError::Read { path, error }),
            }
        }
        Ok(texts)
    }

    /// Where the copies of its set files are, by the files' own paths. Of a file that was optional and missing there is no
    /// copy, and so it stays missing.
    pub fn set_copies(&self, number: u64) -> Result<BTreeMap<PathBuf, PathBuf>, StateError> {
        let record = self.record(number)?;
        let copy = |(index, set): (usize, SetRecord)| (set.path, self.file(number, &format!("set-{index}")));
        Ok(record.sets.into_iter().enumerate().map(copy).collect())
    }

    /// What its counters count.
    pub fn lines(&self, number: u64) -> Result<Vec<KeptLine>, StateError> {
        read_json(&self.directory(number).join("lines.json"))?.ok_or(StateError::NoGeneration(number))
    }

    /// A file of a generation's directory, for what other modules keep there.
    pub(crate) fn file(&self, number: u64, name: &str) -> PathBuf {
        self.directory(number).join(name)
    }
}

/// Writes a file of a new generation, or links the other generation's when the content is the same: a set of a million
/// prefixes would otherwise be kept 32 times.
fn keep(directory: &Path, name: &str, bytes: &[u8], like: Option<&Path>) -> Result<(), StateError> {
    let path = directory.join(name);
    if let Some(other) = like.map(|like| like.join(name))
        && fs::read(&other).is_ok_and(|content| content == bytes)
        && fs::hard_link(&other, &path).is_ok()
    {
        return Ok(());
    }
    files::write(&path, bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn sources(text: &str) -> Sources {
        Sources {
            texts: vec![SourceText { name: "policy.yaml".into(), base: "/etc/ringfence".into(), text: text.into() }],
            sets: vec![(PathBuf::from("/etc/ringfence/drop.txt"), Some(b"192.0.2.0/24\n".to_vec()))],
        }
    }

    fn record(generation: u64, sources: &Sources) -> Record {
        Record {
            generation,
            applied: 1,
            by: "root".into(),
            why: "apply".into(),
            policy: "/etc/ringfence/policy.yaml".into(),
            confirmed: true,
            rules: 0,
            digest: sources.digest(),
            texts: sources.texts.iter().map(|text| (text.name.clone(), text.base.clone())).collect(),
            tables: String::new(),
            sets: vec![SetRecord {
                set: "drop".into(),
                path: sources.sets[0].0.clone(),
                elements: 1,
                feed: ringfence_policy::Feed::default(),
                refused: 0,
                refusal: None,
            }],
        }
    }

    #[test]
    fn a_generation_comes_back_as_it_was_and_shares_what_has_not_changed() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let (first, second) = (sources("a"), sources("b"));
        assert_ne!(first.digest(), second.digest());
        store.add(&record(1, &first), &first, &[], None).unwrap();
        store.add(&record(2, &second), &second, &[], Some(1)).unwrap();
        assert_eq!(store.texts(1).unwrap(), first.texts);
        assert_eq!(store.texts(2).unwrap(), second.texts);
        assert_eq!(store.records().unwrap().iter().map(|r| r.generation).collect::<Vec<_>>(), [2, 1]);
        let links = |name: &str| fs::metadata(store.file(2, name)).unwrap().nlink();
        assert_eq!((links("set-0"), links("text-0")), (2, 1));
        // The shared file lives as long as one of them does.
        store.remove(1).unwrap();
        let copies = store.set_copies(2).unwrap();
        assert_eq!(fs::read(&copies[&second.sets[0].0]).ok(), second.sets[0].1);
        assert!(matches!(store.texts(1), Err(StateError::NoGeneration(1))));
    }

    #[test]
    fn only_the_last_ones_are_kept_and_those_that_are_needed() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let sources = sources("a");
        for number in 1..=KEPT as u64 + 3 {
            store.add(&record(number, &sources), &sources, &[], None).unwrap();
        }
        store.prune(&[1]).unwrap();
        let numbers = store.numbers().unwrap();
        assert_eq!(numbers.len(), KEPT);
        assert!(numbers.contains(&1) && !numbers.contains(&2) && !numbers.contains(&4) && numbers.contains(&5));
    }

    #[test]
    fn what_a_crash_left_is_cleared_away() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        fs::create_dir(state.path().join("generations/.new-abc")).unwrap();
        fs::create_dir(state.path().join("generations/.old-3")).unwrap();
        drop(store);
        let store = Store::open(state.path()).unwrap();
        assert_eq!(fs::read_dir(state.path().join("generations")).unwrap().count(), 0);
        assert!(store.numbers().unwrap().is_empty());
    }
}
