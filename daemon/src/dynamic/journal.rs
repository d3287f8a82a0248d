//! Dynamic entries and set elements on disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ringfence_api::Prefix;
use serde::{Deserialize, Serialize};

use super::calls::{CallEntries, CallEntry};
use super::entries::{Entries, Entry};
use super::sets::{Member, Sets};
use crate::clock::{Expiry, boot_id, boot_now, wall_now};
use crate::error::with_sources;
use crate::state::StateError;
use crate::state::files::Journal;

/// A journal of fewer records than this is not worth shortening.
const SHORT: usize = 1024;
/// Nor one of fewer bytes: a record may have tens of thousands of elements.
const SMALL: u64 = 16 << 20;
/// Elements that rules added in one record.
const RECORD: usize = 16_384;

/// An element, and until when.
pub type Timed = (Prefix, Option<Expiry>);

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// What follows was written in this boot, and no entry below `next` may be numbered again.
    Boot {
        /// The kernel's name for the boot.
        id: String,
        /// The next entry's id.
        next: u64,
    },
    /// A new entry.
    Entry(Entry),
    /// A new entry about system calls.
    Call(CallEntry),
    /// An entry taken back.
    Undo {
        /// Its id.
        id: u64,
    },
    /// Elements added to a set.
    Add {
        /// The set.
        set: String,
        /// The elements.
        elements: Vec<Prefix>,
        /// Until when.
        expiry: Option<Expiry>,
        /// Why.
        reason: Option<String>,
        /// Who.
        by: Option<String>,
    },
    /// Elements that rules added to a set, each with its own expiry.
    Learned {
        /// The set.
        set: String,
        /// The elements, and until when.
        elements: Vec<Timed>,
        /// Which rule.
        reason: Option<String>,
    },
    /// Elements taken out of a set.
    Del {
        /// The set.
        set: String,
        /// The elements.
        elements: Vec<Prefix>,
    },
    /// All elements taken out of a set.
    Flush {
        /// The set.
        set: String,
    },
}

impl Event {
    /// Elements added.
    #[must_use]
    pub fn add(set: &str, elements: &[Prefix], member: &Member) -> Self {
        let own = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        Self::Add {
            set: set.to_owned(),
            elements: elements.to_vec(),
            expiry: member.expiry,
            reason: own(&member.reason),
            by: own(&member.by),
        }
    }

    /// Elements taken out.
    #[must_use]
    pub fn del(set: &str, elements: &[Prefix]) -> Self {
        Self::Del { set: set.to_owned(), elements: elements.to_vec() }
    }

    /// Elements that a rule added, in records that are not too long.
    #[must_use]
    pub fn learned(set: &str, reason: Option<&Arc<str>>, elements: &[Timed]) -> Vec<Self> {
        let record = |elements: &[Timed]| Self::Learned {
            set: set.to_owned(),
            elements: elements.to_vec(),
            reason: reason.map(ToString::to_string),
        };
        elements.chunks(RECORD).map(record).collect()
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Add { elements, .. } | Self::Del { elements, .. } => elements.is_empty(),
            Self::Learned { elements, .. } => elements.is_empty(),
            _ => false,
        }
    }
}

/// The journal.
#[derive(Debug)]
pub struct Log {
    journal: Journal,
    short: usize,
    // Set until the disk says that this boot has begun: the next entry's id at its beginning.
    unsaid: Option<u64>,
    // Something that is so could not be written.
    owes: bool,
    small: u64,
}

impl Log {
    /// Opens the journal and does again what it says; what has expired meanwhile is left out.
    pub fn open(
        path: &Path,
        entries: &mut Entries,
        calls: &mut CallEntries,
        sets: &mut Sets,
    ) -> Result<Self, StateError> {
        let (journal, events) = Journal::open(path)?;
        let (now, wall, this_boot) = (boot_now(), wall_now(), boot_id());
        let mut same_boot = true;
        for event in events {
            let expiry = |expiry: Option<Expiry>| expiry.map(|e| if same_boot { e } else { e.rebooted(now, wall) });
            match event {
                Event::Boot { id, next } => {
                    same_boot = id == this_boot;
                    entries.reserve(next);
                }
                Event::Entry(entry) => drop(entries.insert(Entry { expiry: expiry(entry.expiry), ..entry })),
                Event::Call(entry) => {
                    entries.reserve(entry.id + 1);
                    calls.insert(CallEntry { expiry: expiry(entry.expiry), ..entry });
                }
                Event::Undo { id } => {
                    entries.remove(id);
                    calls.remove(id);
                }
                Event::Add { set, elements, expiry: until, reason, by } => {
                    let member = Member { expiry: expiry(until), reason: reason.map(Arc::from), by: by.map(Arc::from) };
                    sets.insert(&set, &elements, &member);
                }
                Event::Learned { set, elements, reason } => {
                    let reason: Option<Arc<str>> = reason.map(Arc::from);
                    for (element, until) in elements {
                        sets.insert(
                            &set,
                            &[element],
                            &Member { expiry: expiry(until), reason: reason.clone(), by: None },
                        );
                    }
                }
                Event::Del { set, elements } => drop(sets.remove(&set, &elements)),
                Event::Flush { set } => drop(sets.flush(&set)),
            }
        }
        entries.expire(now);
        for id in calls.expired(now) {
            calls.remove(id);
        }
        sets.expire(now);
        let mut log = Self { journal, short: SHORT, small: SMALL, unsaid: Some(entries.next_id()), owes: false };
        // Written anew, it begins with this boot. What was kept holds also where nothing can be written.
        if let Err(error) = log.rewrite(entries, calls, sets) {
            tracing::error!(%error, "the journal could not be written anew");
        }
        Ok(log)
    }

    /// Writes the journal anew where that could not be done yet.
    pub fn settle(&mut self, entries: &Entries, calls: &CallEntries, sets: &Sets) -> Result<(), StateError> {
        if self.unsaid.is_some() || self.owes { self.rewrite(entries, calls, sets) } else { Ok(()) }
    }

    /// Writes down what is so already. Where it cannot be written now, [`Self::settle`] does it later.
    pub fn follow(&mut self, events: &[Event]) {
        if let Err(error) = self.append(events) {
            self.owes = true;
            tracing::error!(error = with_sources(&error), "what rules added could not be written down");
        }
    }

    /// Writes changes.
    pub fn append(&mut self, events: &[Event]) -> Result<(), StateError> {
        let mut events: Vec<&Event> = events.iter().filter(|event| !event.is_empty()).collect();
        // What stands before it was written in another boot, perhaps.
        let boot = self.unsaid.map(|next| Event::Boot { id: boot_id(), next });
        if let Some(boot) = boot.as_ref().filter(|_| !events.is_empty()) {
            events.insert(0, boot);
        }
        self.journal.append(&events)?;
        if !events.is_empty() {
            self.unsaid = None;
        }
        Ok(())
    }

    /// Shortens the journal when most of it no longer matters.
    pub fn tidy(&mut self, entries: &Entries, calls: &CallEntries, sets: &Sets) -> Result<(), StateError> {
        let long = self.journal.records() > self.short || self.journal.bytes() > self.small;
        if long { self.rewrite(entries, calls, sets) } else { Ok(()) }
    }

    /// Writes the journal anew: it says what there is, and nothing else.
    pub fn rewrite(&mut self, entries: &Entries, calls: &CallEntries, sets: &Sets) -> Result<(), StateError> {
        let mut events = vec![Event::Boot { id: boot_id(), next: entries.next_id() }];
        let mut oldest_first: Vec<&Entry> = entries.iter().collect();
        oldest_first.reverse();
        events.extend(oldest_first.into_iter().cloned().map(Event::Entry));
        let mut oldest_first: Vec<&CallEntry> = calls.iter().collect();
        oldest_first.reverse();
        events.extend(oldest_first.into_iter().cloned().map(Event::Call));
        for name in sets.filled() {
            if sets.is_kept_by_daemon(name) {
                continue;
            }
            events.extend(learned(sets, name));
            // Elements that were added together are written together.
            let mut groups: BTreeMap<_, (Member, Vec<Prefix>)> = BTreeMap::new();
            for (element, member) in sets.elements(name, None).filter(|(_, member)| !member.is_by_rule()) {
                let key = (member.expiry.map(|e| (e.boot, e.wall)), member.reason.clone(), member.by.clone());
                groups.entry(key).or_insert_with(|| (member.clone(), Vec::new())).1.push(element);
            }
            events.extend(groups.into_values().map(|(member, elements)| Event::add(name, &elements, &member)));
        }
        self.journal.rewrite(&events)?;
        (self.unsaid, self.owes) = (None, false);
        self.short = SHORT.max(2 * self.journal.records());
        self.small = SMALL.max(2 * self.journal.bytes());
        Ok(())
    }
}

/// What rules added to a set, each rule's together.
fn learned(sets: &Sets, name: &str) -> Vec<Event> {
    let mut rules: BTreeMap<Option<&Arc<str>>, Vec<Timed>> = BTreeMap::new();
    for (element, member) in sets.elements(name, None).filter(|(_, member)| member.is_by_rule()) {
        rules.entry(member.reason.as_ref()).or_default().push((element, member.expiry));
    }
    let events = |(reason, elements): (Option<&Arc<str>>, Vec<_>)| Event::learned(name, reason, &elements);
    rules.into_iter().flat_map(events).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringfence_api::{Direction, EntryVerb, Target};

    use super::*;

    fn entry(id: u64, expiry: Option<Expiry>) -> Entry {
        Entry {
            id,
            verb: EntryVerb::Deny,
            target: Target { address: "203.0.113.5".parse().unwrap(), port: None },
            direction: Direction::In,
            expiry,
            reason: Some("scanning".into()),
            by: "root".into(),
            created: 7,
        }
    }

    fn open(path: &Path) -> (Log, Entries, Sets) {
        let (log, entries, _, sets) = open_all(path);
        (log, entries, sets)
    }

    fn open_all(path: &Path) -> (Log, Entries, CallEntries, Sets) {
        let (mut entries, mut calls, mut sets) = (Entries::default(), CallEntries::default(), Sets::default());
        let log = Log::open(path, &mut entries, &mut calls, &mut sets).unwrap();
        (log, entries, calls, sets)
    }

    #[test]
    fn entries_about_calls_come_back_and_share_the_ids() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dynamic.jsonl");
        let call = |id, expiry| CallEntry {
            id,
            verb: EntryVerb::Deny,
            what: ringfence_api::Calls {
                path: "/srv/**".into(),
                op: vec!["read".into()],
                exe: Some("/usr/bin/tar".into()),
                uid: None,
            },
            expiry,
            reason: None,
            by: "root".into(),
            created: 7,
        };
        let soon = Expiry { boot: 1, wall: 1, span: 0 };
        let (mut log, _, _) = open(&path);
        let events = [
            Event::Call(call(1, None)),
            Event::Entry(entry(2, None)),
            Event::Call(call(3, None)),
            Event::Undo { id: 3 },
            Event::Call(call(4, Some(soon))),
        ];
        log.append(&events).unwrap();
        drop(log);
        for _ in 0..2 {
            let (_, entries, calls, _) = open_all(&path);
            assert_eq!(calls.iter().cloned().collect::<Vec<_>>(), [call(1, None)]);
            assert_eq!(entries.next_id(), 5);
        }
    }

    #[test]
    fn everything_comes_back_but_what_expired_and_ids_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dynamic.jsonl");
        let (mut log, _, _) = open(&path);
        let soon = Expiry { boot: 1, wall: 1, span: 0 };
        let later = Expiry::after(Duration::from_hours(1));
        let member = Member { expiry: Some(later), reason: Some("why".into()), by: Some("root".into()) };
        let elements = ["10.0.0.1".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        log.append(&[
            Event::Entry(entry(1, Some(later))),
            Event::Entry(entry(2, Some(soon))),
            Event::Entry(entry(3, None)),
            Event::Undo { id: 3 },
            Event::add("jail", &elements, &member),
            Event::del("jail", &elements[..1]),
            Event::add("other", &elements, &Member::default()),
            Event::Flush { set: "other".into() },
        ])
        .unwrap();
        drop(log);
        for _ in 0..2 {
            let (log, entries, sets) = open(&path);
            assert_eq!(entries.iter().cloned().collect::<Vec<_>>(), [entry(1, Some(later))]);
            assert_eq!(entries.next_id(), 4);
            assert_eq!(sets.elements("jail", None).collect::<Vec<_>>(), [(elements[1], &member)]);
            assert_eq!(sets.len("other"), 0);
            assert_eq!(log.journal.records(), 3);
        }
    }

    #[test]
    fn what_rules_added_comes_back_with_the_time_that_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dynamic.jsonl");
        let elements: [Prefix; 3] = ["10.0.0.1", "10.0.0.2", "2001:db8::1"].map(|text| text.parse().unwrap());
        // Written in another boot, whose clock says other things.
        let foreign = |left: u64| Some(Expiry { boot: 7, wall: wall_now() + left, span: 3_600_000 });
        let reason: Arc<str> = "rule ssh, policy.yaml:9".into();
        let all = [(elements[0], foreign(1_800_000)), (elements[1], foreign(0)), (elements[2], None)];
        let mut lines = vec![Event::Boot { id: "another boot".into(), next: 1 }];
        lines.extend(Event::learned("jail", Some(&reason), &all));
        let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        std::fs::write(&path, text).unwrap();
        for _ in 0..2 {
            let (log, _, sets) = open(&path);
            assert_eq!(log.journal.records(), 2, "a rule's elements are one record");
            let found: Vec<_> = sets.elements("jail", None).collect();
            assert_eq!(found.iter().map(|(element, _)| *element).collect::<Vec<_>>(), [elements[0], elements[2]]);
            assert!(found.iter().all(|(_, member)| member.is_by_rule() && member.reason.as_ref() == Some(&reason)));
            let left = found[0].1.expires() - boot_now();
            assert!((1_700_000_000_000..=1_800_000_000_000).contains(&left), "{left}");
            assert_eq!(found[1].1.expiry, None);
        }
    }

    #[test]
    fn after_a_reboot_wall_time_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dynamic.jsonl");
        // Boot time far in the future as this boot sees it, wall time an hour from now.
        let foreign = Expiry { boot: u64::MAX / 2, wall: wall_now() + 3_600_000, span: 0 };
        let past = Expiry { boot: u64::MAX / 2, wall: wall_now() - 1000, span: 0 };
        let lines = [
            Event::Boot { id: "another boot".into(), next: 9 },
            Event::Entry(entry(1, Some(foreign))),
            Event::Entry(entry(2, Some(past))),
        ];
        let text: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        std::fs::write(&path, text).unwrap();
        let (_, entries, _) = open(&path);
        let left: Vec<&Entry> = entries.iter().collect();
        assert_eq!(left.len(), 1);
        let expiry = left[0].expiry.unwrap();
        let hour = expiry.boot - boot_now();
        assert!((3_590_000_000_000..3_600_000_000_001).contains(&hour), "{hour}");
        assert_eq!(entries.next_id(), 9);
    }
}
