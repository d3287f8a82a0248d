//! The list behind `ringctl deny` and `allow`: newest first, and what of it the kernel must hold.
//!
//! Several entries can have one kernel key (`deny X` for an hour on top of an older, permanent `deny X`), but the map
//! has one value a key. It gets the newest entry; when that goes, the next older one comes back. The value's expiry is
//! that of the longest-lived entry of the newest run of equal verdicts, so that nothing opens between the moment the
//! kernel stops matching the newest entry and the moment the daemon puts the next one there.

use std::collections::{BTreeMap, HashMap};

use ringfence_abi::dynamic::{EGRESS, Entry as KernelEntry, EntryKey, INGRESS, PORT_ANY, PORT_EXACT, PORT_UNKNOWN};
use ringfence_abi::verdict;
use ringfence_api::{Direction, EntryVerb, Target};
use serde::{Deserialize, Serialize};

use super::keys;
use crate::clock::Expiry;

/// A dynamic entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Grows with every entry; the highest that matches decides.
    pub id: u64,
    /// What it does.
    pub verb: EntryVerb,
    /// To whom.
    pub target: Target,
    /// In which direction.
    pub direction: Direction,
    /// Until when; `None`: until undone.
    pub expiry: Option<Expiry>,
    /// Why, in the words of who made it.
    pub reason: Option<String>,
    /// Who made it.
    pub by: String,
    /// When it was made, milliseconds since 1970.
    pub created: u64,
}

impl Entry {
    /// The keys under which the kernel finds it: one a direction, and for a denied port the one that packets with an
    /// unknown port (later fragments) meet.
    fn keys(&self) -> Vec<EntryKey> {
        let directions: &[u8] = match self.direction {
            Direction::In => &[INGRESS],
            Direction::Out => &[EGRESS],
            Direction::Both => &[INGRESS, EGRESS],
        };
        let mut keys = Vec::with_capacity(4);
        for &direction in directions {
            let key = EntryKey {
                address: keys::words(self.target.address.address()),
                port: self.target.port.unwrap_or(0),
                direction,
                family: keys::family(self.target.address),
                length: self.target.address.length(),
                port_kind: if self.target.port.is_some() { PORT_EXACT } else { PORT_ANY },
                zero: 0,
            };
            keys.push(key);
            if self.target.port.is_some() && self.verb == EntryVerb::Deny {
                keys.push(EntryKey { port: 0, port_kind: PORT_UNKNOWN, ..key });
            }
        }
        keys
    }

    fn verdict(&self) -> u64 {
        u64::from(match self.verb {
            EntryVerb::Deny => verdict::DROP,
            EntryVerb::Allow => verdict::ACCEPT,
        })
    }
}

/// What the kernel must hold under a key now; `None`: nothing.
pub type Change = (EntryKey, Option<KernelEntry>);

/// All entries, by id, and which of them share a key.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    by_id: BTreeMap<u64, Entry>,
    by_key: HashMap<EntryKey, Vec<u64>>,
    next: u64,
}

impl Entries {
    /// The id the next entry gets. Ids start at 1.
    #[must_use]
    pub fn next_id(&self) -> u64 {
        self.next.max(1)
    }

    /// Never gives out an id below `id` again, also when the entries that had them are gone.
    pub fn reserve(&mut self, id: u64) {
        self.next = self.next.max(id);
    }

    /// Adds an entry, whose id must be new.
    pub fn insert(&mut self, entry: Entry) -> Vec<Change> {
        self.reserve(entry.id + 1);
        let keys = entry.keys();
        for key in &keys {
            let ids = self.by_key.entry(*key).or_default();
            ids.push(entry.id);
            ids.sort_unstable();
        }
        self.by_id.insert(entry.id, entry);
        self.changes(&keys)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, id: u64) -> Option<(Entry, Vec<Change>)> {
        let entry = self.by_id.remove(&id)?;
        let keys = entry.keys();
        for key in &keys {
            if let Some(ids) = self.by_key.get_mut(key) {
                ids.retain(|&other| other != id);
                if ids.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        let changes = self.changes(&keys);
        Some((entry, changes))
    }

    /// Takes out what has expired.
    pub fn expire(&mut self, boot_now: u64) -> Vec<(Entry, Vec<Change>)> {
        let ids: Vec<u64> =
            self.by_id.values().filter(|e| e.expiry.is_some_and(|x| x.passed(boot_now))).map(|e| e.id).collect();
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// When the first entry expires, nanoseconds of boot time.
    #[must_use]
    pub fn first_expiry(&self) -> Option<u64> {
        self.by_id.values().filter_map(|entry| entry.expiry.map(|expiry| expiry.boot)).min()
    }

    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.values().rev()
    }

    /// By id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Entry> {
        self.by_id.get(&id)
    }

    /// The whole of what the kernel must hold.
    #[must_use]
    pub fn kernel(&self) -> BTreeMap<EntryKey, KernelEntry> {
        self.by_key.keys().filter_map(|key| Some((*key, self.value(key)?))).collect()
    }

    /// The keys of one entry that are this entry's own in the kernel: it is the newest there, so their hits are its hits.
    #[must_use]
    pub fn owned_keys(&self, id: u64) -> Vec<EntryKey> {
        let keys = self.by_id.get(&id).map(Entry::keys).unwrap_or_default();
        keys.into_iter().filter(|key| self.by_key.get(key).and_then(|ids| ids.last()) == Some(&id)).collect()
    }

    fn changes(&self, keys: &[EntryKey]) -> Vec<Change> {
        keys.iter().map(|key| (*key, self.value(key))).collect()
    }

    fn value(&self, key: &EntryKey) -> Option<KernelEntry> {
        let mut newest_first = self.by_key.get(key)?.iter().rev().filter_map(|id| self.by_id.get(id)).peekable();
        let newest = *newest_first.peek()?;
        let mut expires = 0;
        for entry in newest_first.take_while(|entry| entry.verb == newest.verb) {
            match entry.expiry {
                None => {
                    expires = 0;
                    break;
                }
                Some(expiry) => expires = expires.max(expiry.boot),
            }
        }
        Some(KernelEntry { expires, id: newest.id, packets: 0, bytes: 0, verdict: newest.verdict() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, verb: EntryVerb, target: &str, boot: Option<u64>) -> Entry {
        let (address, port) = target.split_once(" port ").map_or((target, None), |(a, p)| (a, p.parse().ok()));
        let target = Target { address: address.parse().unwrap(), port };
        Entry {
            id,
            verb,
            target,
            direction: Direction::In,
            expiry: boot.map(|boot| Expiry { boot, wall: 0, span: 0 }),
            reason: None,
            by: "root".into(),
            created: 0,
        }
    }

    #[test]
    fn the_newest_entry_of_a_key_is_in_the_kernel_and_the_older_one_comes_back() {
        let mut entries = Entries::default();
        entries.insert(entry(1, EntryVerb::Deny, "192.0.2.1", None));
        let changes = entries.insert(entry(2, EntryVerb::Allow, "192.0.2.1", Some(50)));
        assert_eq!(changes.len(), 1);
        let value = changes[0].1.unwrap();
        assert_eq!((value.id, value.verdict, value.expires), (2, u64::from(verdict::ACCEPT), 50));

        let expired = entries.expire(50);
        assert_eq!(expired.len(), 1);
        let back = expired[0].1[0].1.unwrap();
        assert_eq!((back.id, back.verdict, back.expires), (1, u64::from(verdict::DROP), 0));

        let (_, gone) = entries.remove(1).unwrap();
        assert_eq!(gone[0].1, None);
        assert!(entries.kernel().is_empty() && entries.remove(1).is_none());
    }

    #[test]
    fn a_short_deny_on_a_long_one_leaves_no_gap_when_it_expires() {
        let mut entries = Entries::default();
        entries.insert(entry(1, EntryVerb::Deny, "192.0.2.1", None));
        let changes = entries.insert(entry(2, EntryVerb::Deny, "192.0.2.1", Some(50)));
        let value = changes[0].1.unwrap();
        assert_eq!((value.id, value.expires), (2, 0), "the kernel goes on denying past 50");
        // An allow between them ends the run.
        entries.insert(entry(3, EntryVerb::Allow, "192.0.2.1", Some(70)));
        let changes = entries.insert(entry(4, EntryVerb::Deny, "192.0.2.1", Some(60)));
        assert_eq!(changes[0].1.unwrap().expires, 60);
    }

    #[test]
    fn a_denied_port_has_a_shadow_for_unknown_ports_until_the_last_one_is_gone() {
        let mut entries = Entries::default();
        let unknown = |changes: &[Change]| *changes.iter().find(|(key, _)| key.port_kind == PORT_UNKNOWN).unwrap();
        entries.insert(entry(1, EntryVerb::Deny, "192.0.2.1 port 22", None));
        let changes = entries.insert(entry(2, EntryVerb::Deny, "192.0.2.1 port 80", None));
        assert_eq!(unknown(&changes).1.unwrap().id, 2);
        assert_eq!(unknown(&changes).0.port, 0);
        let (_, changes) = entries.remove(2).unwrap();
        assert_eq!(unknown(&changes).1.unwrap().id, 1);
        let (_, changes) = entries.remove(1).unwrap();
        assert_eq!(unknown(&changes).1, None);
        // An allowed port has none: unknown matches no permission.
        let changes = entries.insert(entry(3, EntryVerb::Allow, "192.0.2.1 port 22", None));
        assert!(changes.iter().all(|(key, _)| key.port_kind == PORT_EXACT));
    }

    #[test]
    fn both_directions_are_two_keys_and_ids_never_come_again() {
        let mut entries = Entries::default();
        let both = Entry { direction: Direction::Both, ..entry(7, EntryVerb::Deny, "2001:db8::/32", None) };
        let changes = entries.insert(both);
        assert_eq!(changes.iter().map(|(key, _)| key.direction).collect::<Vec<_>>(), [INGRESS, EGRESS]);
        entries.remove(7);
        assert_eq!(entries.next_id(), 8);
    }
}
