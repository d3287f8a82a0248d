//! Dynamic entries about system calls: `ringctl deny PATH --op ...`.
//!
//! Each is one entry of the kernel's, found by its id: the newest that matches decides, so entries do not hide one
//! another and nothing has to be put back when one goes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use ringfence_abi::host::{ANY, PathEntry, op};
use ringfence_abi::verdict;
use ringfence_api::{Calls, EntryVerb};
use serde::{Deserialize, Serialize};

use crate::clock::Expiry;
use crate::kernel::PathRule;

/// A dynamic entry about system calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEntry {
    /// Counted together with the entries about packets.
    pub id: u64,
    /// What it does.
    pub verb: EntryVerb,
    /// About which calls; links are resolved.
    pub what: Calls,
    /// Until when; `None`: until undone.
    pub expiry: Option<Expiry>,
    /// Why, in the words of who made it.
    pub reason: Option<String>,
    /// Who made it.
    pub by: String,
    /// When it was made, milliseconds since 1970.
    pub created: u64,
}

impl CallEntry {
    /// The path without `/**`, and whether all below it is meant, too.
    #[must_use]
    pub fn path(&self) -> (&str, bool) {
        split(&self.what.path)
    }

    /// As the kernel takes it.
    #[must_use]
    pub fn rule(&self) -> PathRule {
        let (path, tree) = self.path();
        let entry = PathEntry {
            id: self.id,
            expires: self.expiry.map_or(0, |expiry| expiry.boot),
            hits: 0,
            ops: self.what.op.iter().filter_map(|word| operations(word)).fold(0, |bits, one| bits | one),
            verdict: u32::from(match self.verb {
                EntryVerb::Deny => verdict::DROP,
                EntryVerb::Allow => verdict::ACCEPT,
            }),
            uid: self.what.uid.unwrap_or(ANY),
            exe: ANY,
        };
        PathRule { path: PathBuf::from(path), tree, entry, exe: self.what.exe.as_ref().map(PathBuf::from) }
    }
}

/// `DIR/**` without its end, and whether it had it. The root is written `/` and `/**`.
#[must_use]
pub fn split(path: &str) -> (&str, bool) {
    match path.strip_suffix("/**") {
        Some("") => ("/", true),
        Some(directory) => (directory, true),
        None => (path, false),
    }
}

/// The operations that a word of the language stands for; `None`: it is none.
#[must_use]
pub fn operations(word: &str) -> Option<u32> {
    let range = |first: u32, last: u32| (first..=last).fold(0, |bits, one| bits | 1 << one);
    match word {
        "all" => Some(range(0, op::COUNT - 1)),
        "write" => Some(range(op::WRITE, op::ATTR)),
        "exec" => Some(range(op::EXEC, op::MAP_EXEC)),
        word => op::NAMES.iter().position(|name| *name == word).map(|number| 1 << number),
    }
}

/// All of them, by id, with their places in the kernel.
#[derive(Clone, Debug, Default)]
pub struct CallEntries {
    by_id: BTreeMap<u64, CallEntry>,
    numbers: HashMap<u64, u32>,
}

impl CallEntries {
    /// Adds an entry, whose id must be new.
    pub fn insert(&mut self, entry: CallEntry) {
        self.by_id.insert(entry.id, entry);
    }

    /// Takes an entry out; with its place in the kernel, if it has one.
    pub fn remove(&mut self, id: u64) -> Option<(CallEntry, Option<u32>)> {
        let entry = self.by_id.remove(&id)?;
        Some((entry, self.numbers.remove(&id)))
    }

    /// Ids of what has expired.
    #[must_use]
    pub fn expired(&self, boot_now: u64) -> Vec<u64> {
        let passed = |entry: &&CallEntry| entry.expiry.is_some_and(|expiry| expiry.passed(boot_now));
        self.by_id.values().filter(passed).map(|entry| entry.id).collect()
    }

    /// When the first entry expires, nanoseconds of boot time.
    #[must_use]
    pub fn first_expiry(&self) -> Option<u64> {
        self.by_id.values().filter_map(|entry| entry.expiry.map(|expiry| expiry.boot)).min()
    }

    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = &CallEntry> {
        self.by_id.values().rev()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// By id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&CallEntry> {
        self.by_id.get(&id)
    }

    /// Its place in the kernel; `None`: it is not in force.
    #[must_use]
    pub fn number(&self, id: u64) -> Option<u32> {
        self.numbers.get(&id).copied()
    }

    /// Remembers its place in the kernel.
    pub fn set_number(&mut self, id: u64, number: u32) {
        self.numbers.insert(id, number);
    }

    /// None is in the kernel any more.
    pub fn forget_numbers(&mut self) {
        self.numbers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, path: &str, op: &[&str]) -> CallEntry {
        let op = op.iter().map(|&word| word.to_owned()).collect();
        CallEntry {
            id,
            verb: EntryVerb::Deny,
            what: Calls { path: path.into(), op, exe: None, uid: Some(7) },
            expiry: None,
            reason: None,
            by: "root".into(),
            created: 0,
        }
    }

    #[test]
    fn the_kernel_gets_what_the_words_mean() {
        let rule = entry(5, "/srv/**", &["read", "exec"]).rule();
        assert_eq!((rule.path.to_str(), rule.tree), (Some("/srv"), true));
        assert_eq!(rule.entry.ops, 1 << op::READ | 1 << op::EXEC | 1 << op::MAP_EXEC);
        assert_eq!((rule.entry.id, rule.entry.uid, rule.entry.exe), (5, 7, ANY));
        assert_eq!(rule.entry.verdict, u32::from(verdict::DROP));
        let write = operations("write").unwrap();
        assert!([op::WRITE, op::APPEND, op::CREATE, op::RENAME, op::ATTR].iter().all(|one| write >> one & 1 == 1));
        assert_eq!(write >> op::READ & 1, 0);
        assert_eq!(operations("all").unwrap().count_ones(), op::COUNT);
        assert_eq!(operations("reed"), None);
    }

    #[test]
    fn the_root_has_a_tree_too() {
        assert_eq!(split("/**"), ("/", true));
        assert_eq!(split("/"), ("/", false));
        assert_eq!(split("/etc/shadow"), ("/etc/shadow", false));
    }

    #[test]
    fn a_place_in_the_kernel_goes_with_its_entry() {
        let mut entries = CallEntries::default();
        entries.insert(entry(1, "/a", &["read"]));
        entries.insert(CallEntry { expiry: Some(Expiry { boot: 50, wall: 0, span: 0 }), ..entry(2, "/b", &["read"]) });
        entries.set_number(2, 63);
        assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [2, 1]);
        assert_eq!((entries.expired(49), entries.expired(50), entries.first_expiry()), (vec![], vec![2], Some(50)));
        assert_eq!(entries.remove(2).unwrap().1, Some(63));
        assert_eq!((entries.number(2), entries.remove(2), entries.len()), (None, None, 1));
    }
}
