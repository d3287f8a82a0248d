//! Entries and elements looked up for a packet's fields, as the programs do it: one lookup for each prefix length in use.

use std::collections::HashMap;

use ringfence_abi::dynamic::{
    EGRESS, ENTRY_LENGTHS, Entry as KernelEntry, EntryKey, INGRESS, Lengths, PORT_ANY, PORT_EXACT,
    PORT_UNKNOWN as KIND_UNKNOWN, V4, V6,
};
use ringfence_abi::{
    chain::{PORT_ABSENT, PORT_UNKNOWN},
    verdict::DROP,
};
use ringfence_api::Prefix;
use ringfence_engine::fields::{FAMILY_V4, Fields};
use ringfence_engine::judge;
use ringfence_policy::compile::CompiledChain;
use ringfence_policy::model::{DynamicKind, DynamicSet, SetId};

use super::entries::Entries;
use super::keys;
use super::sets::{Sets, overlaps};

/// The dynamic entries about packets, as they were.
#[derive(Clone, Debug, Default)]
pub struct EntryTable {
    entries: HashMap<EntryKey, KernelEntry>,
    lengths: [Lengths; ENTRY_LENGTHS as usize],
}

impl EntryTable {
    /// Copies the entries.
    #[must_use]
    pub fn new(entries: &Entries) -> Self {
        let entries: HashMap<_, _> = entries.kernel().into_iter().collect();
        let mut lengths = [Lengths::default(); ENTRY_LENGTHS as usize];
        for key in entries.keys() {
            note(&mut lengths[place(key.direction, key.port_kind)], key.family == V4, key.length);
        }
        Self { entries, lengths }
    }

    /// The newest entry for a packet's remote address. `now`: nanoseconds of boot time.
    #[must_use]
    pub fn find(&self, fields: &Fields, egress: bool, now: u64) -> Option<judge::Entry> {
        if self.entries.is_empty() {
            return None;
        }
        let (direction, address) = if egress { (EGRESS, fields.dst) } else { (INGRESS, fields.src) };
        let (kind, port) = match fields.dport {
            PORT_ABSENT => (None, 0),
            PORT_UNKNOWN => (Some(KIND_UNKNOWN), 0),
            port => (Some(PORT_EXACT), port as u16),
        };
        let v4 = fields.family == FAMILY_V4;
        let family = if v4 { V4 } else { V6 };
        let asked = [(Some(PORT_ANY), 0), (kind, port)];
        let keys = asked.into_iter().filter_map(|(kind, port)| Some((kind?, port))).flat_map(|(port_kind, port)| {
            let lengths = in_use(&self.lengths[place(direction, port_kind)], v4);
            lengths.map(move |length| EntryKey {
                address: masked(address, length),
                port,
                direction,
                family,
                length,
                port_kind,
                zero: 0,
            })
        });
        let found = keys.filter_map(|key| self.entries.get(&key));
        let newest = found.filter(|entry| entry.expires == 0 || entry.expires > now).max_by_key(|entry| entry.id)?;
        // A verdict that is none refuses.
        let verdict = u32::try_from(newest.verdict).unwrap_or(u32::from(DROP));
        Some(judge::Entry { id: newest.id, verdict })
    }
}

/// The dynamic sets that a policy's chains read: their names, and the prefix lengths of their elements.
#[derive(Clone, Debug, Default)]
pub struct SetTable<'a> {
    sets: HashMap<SetId, (&'a DynamicSet, Lengths)>,
}

impl<'a> SetTable<'a> {
    /// Looks the sets through. An element of a length that comes later is not found.
    #[must_use]
    pub fn new(named: &'a [DynamicSet], chains: [Option<&CompiledChain>; 2], contents: &Sets) -> Self {
        let read = chains.into_iter().flatten().flat_map(|chain| {
            let consts = &chain.consts;
            let sources = consts.src_sets.iter().take(consts.src_set_count as usize);
            sources.chain(consts.dst_sets.iter().take(consts.dst_set_count as usize))
        });
        let mut sets = HashMap::new();
        for id in read.copied() {
            let Some(set) = named.get(usize::from(id)) else { continue };
            sets.entry(SetId(id)).or_insert_with(|| {
                let mut lengths = Lengths::default();
                for (element, _) in contents.elements(&set.name, None) {
                    note(&mut lengths, element.address().is_ipv4(), element.length());
                }
                (set, lengths)
            });
        }
        Self { sets }
    }

    /// Whether a set holds the address once the policy is in force, which takes out what it says `never` about.
    #[must_use]
    pub fn holds(&self, contents: &Sets, set: SetId, address: [u64; 2], v4: bool) -> bool {
        let Some((set, lengths)) = self.sets.get(&set) else { return false };
        let address = keys::address(address, v4);
        let elements = in_use(lengths, v4).filter_map(|length| Prefix::new(address, length));
        let forbidden = |element: Prefix| match &set.kind {
            DynamicKind::Declared { never, .. } => overlaps(never, element),
            DynamicKind::Local | DynamicKind::Gateways | DynamicKind::Resolvers => false,
        };
        let mut held = elements.filter(|element| contents.has(&set.name, element));
        held.any(|element| !forbidden(element))
    }
}

/// Index into [`EntryTable::lengths`].
fn place(direction: u8, kind: u8) -> usize {
    usize::from(direction) * 3 + usize::from(kind)
}

/// The first `length` bits of an address.
fn masked(address: [u64; 2], length: u8) -> [u64; 2] {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    [address[0] & (mask >> 64) as u64, address[1] & mask as u64]
}

fn note(lengths: &mut Lengths, v4: bool, length: u8) {
    let (word, bit) = Lengths::bit(length);
    if v4 {
        lengths.v4 |= bit;
    } else if let Some(word) = lengths.v6.get_mut(word) {
        *word |= bit;
    }
}

fn in_use(lengths: &Lengths, v4: bool) -> impl Iterator<Item = u8> + use<> {
    let mut words = if v4 { [lengths.v4, 0, 0] } else { lengths.v6 };
    (0_u8..).zip(0..3_usize).flat_map(move |(base, index)| {
        let mut word = std::mem::take(&mut words[index]);
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros() as u8)?;
            word &= word - 1;
            Some(base * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ringfence_abi::verdict::ACCEPT;
    use ringfence_api::{Direction, EntryVerb, Target};
    use ringfence_policy::ranges::AddressRanges;

    use super::*;
    use crate::dynamic::entries::Entry;
    use crate::dynamic::sets::Member;

    fn entry(id: u64, verb: EntryVerb, address: &str, port: Option<u16>) -> Entry {
        let target = Target { address: address.parse().unwrap(), port };
        let direction = Direction::Both;
        Entry { id, verb, target, direction, expiry: None, reason: None, by: "root".into(), created: 0 }
    }

    fn packet(from: &str, dport: u32) -> Fields {
        let from: IpAddr = from.parse().unwrap();
        let family = if from.is_ipv4() { FAMILY_V4 } else { FAMILY_V4 + 1 };
        Fields { src: keys::words(from), family, dport, ..Fields::default() }
    }

    #[test]
    fn the_newest_entry_of_all_lengths_and_kinds_decides() {
        let mut entries = Entries::default();
        entries.insert(entry(1, EntryVerb::Deny, "192.0.2.0/24", None));
        entries.insert(entry(2, EntryVerb::Allow, "192.0.2.7", Some(22)));
        entries.insert(entry(3, EntryVerb::Deny, "2001:db8::/32", None));
        entries.insert(entry(4, EntryVerb::Allow, "0.0.0.0/0", Some(25)));
        let table = EntryTable::new(&entries);
        let found = |from: &str, port: u32| table.find(&packet(from, port), false, 1).map(|entry| entry.id);
        assert_eq!(found("192.0.2.7", 22), Some(2));
        assert_eq!(found("192.0.2.7", 80), Some(1));
        assert_eq!(found("192.0.2.8", 22), Some(1));
        assert_eq!(found("192.0.2.8", 25), Some(4));
        assert_eq!(found("192.0.2.7", PORT_ABSENT), Some(1));
        // Unknown matches refusals of a port and no permission.
        assert_eq!(found("192.0.2.7", PORT_UNKNOWN), Some(1));
        assert_eq!(found("2001:db8:ffff::1", 80), Some(3));
        assert_eq!((found("198.51.100.1", 80), found("2001:db9::", 80)), (None, None));
        let allowed = table.find(&packet("192.0.2.7", 22), false, 1).unwrap();
        assert_eq!(allowed.verdict, u32::from(ACCEPT));
        let leaving = Fields { dst: keys::words("192.0.2.9".parse().unwrap()), ..packet("10.0.0.1", 80) };
        assert_eq!(table.find(&leaving, true, 1).map(|entry| entry.id), Some(1));
    }

    #[test]
    fn an_entry_that_has_expired_is_none() {
        let mut entries = Entries::default();
        let expiry = crate::clock::Expiry { boot: 50, wall: 0, span: 0 };
        entries.insert(Entry { expiry: Some(expiry), ..entry(1, EntryVerb::Deny, "192.0.2.1", None) });
        let table = EntryTable::new(&entries);
        assert!(table.find(&packet("192.0.2.1", 80), false, 49).is_some());
        assert!(table.find(&packet("192.0.2.1", 80), false, 50).is_none());
    }

    #[test]
    fn what_a_policy_never_wants_is_in_no_set_of_it() {
        let mut contents = Sets::default();
        let elements: Vec<Prefix> = ["192.0.2.0/24", "198.51.100.1"].map(|text| text.parse().unwrap()).into();
        contents.insert("jail", &elements, &Member::default());
        let mut never = AddressRanges::default();
        never.push_prefix("198.51.100.0".parse().unwrap(), 24);
        never.normalise();
        let kind = DynamicKind::Declared {
            capacity: 10,
            timeout: None,
            full: ringfence_policy::model::WhenFull::Refuse,
            never: std::sync::Arc::new(never),
        };
        let set = DynamicSet { name: "jail".to_owned(), at: None, kind };
        let mut lengths = Lengths::default();
        note(&mut lengths, true, 24);
        note(&mut lengths, true, 32);
        let table = SetTable { sets: HashMap::from([(SetId(0), (&set, lengths))]) };
        let holds = |id: u16, text: &str| {
            let address: IpAddr = text.parse().unwrap();
            table.holds(&contents, SetId(id), keys::words(address), address.is_ipv4())
        };
        assert!(holds(0, "192.0.2.77") && !holds(0, "192.0.3.1") && !holds(1, "192.0.2.77"));
        assert!(!holds(0, "198.51.100.1") && !holds(0, "2001:db8::1"));
    }

    #[test]
    fn lengths_in_use_are_all_found() {
        let mut lengths = Lengths::default();
        for length in [0, 1, 63, 64, 127, 128] {
            note(&mut lengths, false, length);
        }
        assert_eq!(in_use(&lengths, false).collect::<Vec<_>>(), [0, 1, 63, 64, 127, 128]);
        assert_eq!(in_use(&lengths, true).count(), 0);
        assert_eq!(masked([u64::MAX; 2], 0), [0, 0]);
        assert_eq!(masked([u64::MAX; 2], 65), [u64::MAX, 1 << 63]);
        assert_eq!(masked([u64::MAX; 2], 128), [u64::MAX; 2]);
    }
}
