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

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use ringfence_policy::compile::Line;
use ringfence_policy::{Feed, SetFile};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StateError;
use super::files::{self, read_json, sync_directory, write_json};
use crate::faults::reach;

/// How many generations are kept.
pub const KEPT: usize = 32;

/// What is known of a generation beside its texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number.
    pub generation: u64,
    /// When it was applied first, milliseconds since 1970.
    pub applied: u64,
    /// Who applied it.
    pub by: String,
    /// Why it came to be: `apply`, `start`, `reload`.
    pub why: String,
    /// The file or directory, or the names of the texts that came by the socket.
    pub policy: String,
    /// Whether it may be loaded at a start: applied without a deadline, or confirmed.
    pub confirmed: bool,
    /// How many rules it has.
    pub rules: u64,
    /// [`Sources::digest`].
    pub digest: String,
    /// Its policy files: name and base directory.
    pub texts: Vec<(String, String)>,
    /// Names its tables, which another version of the compiler may make otherwise from the same texts.
    pub tables: String,
    /// Its set files.
    pub sets: Vec<SetRecord>,
}

/// A set file of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRecord {
    /// The set.
    pub set: String,
    /// The file.
    pub path: PathBuf,
    /// How many elements it had.
    pub elements: usize,
    /// How it was read.
    #[serde(default)]
    pub feed: Feed,
    /// Lines of it that could not be used.
    #[serde(default)]
    pub refused: usize,
    /// The first of them, and why.
    #[serde(default)]
    pub refusal: Option<String>,
}

impl From<SetFile> for SetRecord {
    fn from(file: SetFile) -> Self {
        let SetFile { set, path, feed, elements, refused, refusal, .. } = file;
        Self { set, path, elements, feed, refused, refusal }
    }
}

/// The whole input of a compilation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Policy files in order.
    pub texts: Vec<SourceText>,
    /// Contents of the set files that the texts name, by path; `None`: there is none, and it was optional.
    pub sets: Vec<(PathBuf, Option<Vec<u8>>)>,
}

/// A policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Its name in diagnostics.
    pub name: String,
    /// Where relative paths in it start.
    pub base: String,
    /// Its content.
    pub text: String,
}

impl Sources {
    /// SHA-256 over names and contents, each with its length before it, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for text in &self.texts {
            add(text.name.as_bytes());
            add(text.base.as_bytes());
            add(text.text.as_bytes());
        }
        add(b"sets");
        for (path, content) in &self.sets {
            add(path.as_os_str().as_encoded_bytes());
            add(content.as_deref().unwrap_or_default());
        }
        hexadecimal(&hash.finalize())
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A [`Line`] as it is kept, its place by file name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptLine {
    /// [`Line::name`].
    pub name: String,
    /// [`Line::named`].
    pub named: bool,
    /// [`Line::chain`].
    pub chain: String,
    /// [`Line::verb`].
    pub verb: String,
    /// File and line; `None` for built-in lines.
    pub at: Option<(String, u32)>,
    /// [`Line::content`].
    pub content: u64,
}

impl KeptLine {
    /// Of a compiled policy's lines.
    #[must_use]
    pub fn all(lines: &[Line], files: &[String]) -> Vec<Self> {
        let place = |line: &Line| {
            let at = line.at?;
            Some((files.get(at.file as usize).cloned().unwrap_or_default(), at.line))
        };
        let keep = |line: &Line| Self {
            name: line.name.clone(),
            named: line.named,
            chain: line.chain.to_owned(),
            verb: line.verb.to_owned(),
            at: place(line),
            content: line.content,
        };
        lines.iter().map(keep).collect()
    }

    /// Whether it stands for a rule of the policy, not for a built-in line.
    #[must_use]
    pub fn is_rule(&self) -> bool {
        self.at.is_some() && self.name != "default"
    }
}

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
                feed: Feed::default(),
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
