//! Dynamic entries as the programs find them: by key in a hash map, one lookup for each prefix length in use.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringfence_abi::chain::{PORT_ABSENT, PORT_UNKNOWN};
use ringfence_abi::dynamic::{EGRESS, EntryKey, INGRESS, PORT_ANY, PORT_EXACT, PORT_UNKNOWN as KIND_UNKNOWN, V4, V6};
use ringfence_abi::verdict::{ACCEPT, DROP};
use ringfence_engine::fields::{FAMILY_V4, Fields};
use ringfence_engine::judge::Entry;
use ringfence_policy::oracle::DynamicEntry;

/// The content of the map `ENTRIES`. Of two entries with one key the newer stays, and beside the deny entries with a
/// port stands one for packets whose port is unknown.
#[must_use]
pub fn entry_map(entries: &[DynamicEntry]) -> BTreeMap<EntryKey, Entry> {
    let mut map: BTreeMap<EntryKey, Entry> = BTreeMap::new();
    let mut put = |key, entry: Entry| {
        let held = map.entry(key).or_insert(entry);
        if held.id < entry.id {
            *held = entry;
        }
    };
    for one in entries {
        let direction = if one.ingress { INGRESS } else { EGRESS };
        let (words, family) = match one.address {
            IpAddr::V4(address) => ([u64::from(address.to_bits()) << 32, 0], V4),
            IpAddr::V6(address) => ([(address.to_bits() >> 64) as u64, address.to_bits() as u64], V6),
        };
        let key = |port: u16, port_kind| EntryKey {
            address: masked(words, one.length),
            port,
            direction,
            family,
            length: one.length,
            port_kind,
            zero: 0,
        };
        let entry = Entry { id: one.id, verdict: u32::from(if one.accept { ACCEPT } else { DROP }) };
        match one.port {
            None => put(key(0, PORT_ANY), entry),
            Some(port) => put(key(port, PORT_EXACT), entry),
        }
        if one.port.is_some() && !one.accept {
            put(key(0, KIND_UNKNOWN), entry);
        }
    }
    map
}

/// The newest entry for a packet.
pub(super) fn find(map: &BTreeMap<EntryKey, Entry>, fields: &Fields, egress: bool) -> Option<Entry> {
    let (family, width) = if fields.family == FAMILY_V4 { (V4, 32) } else { (V6, 128) };
    let (words, direction) = if egress { (fields.dst, EGRESS) } else { (fields.src, INGRESS) };
    let kinds = match fields.dport {
        PORT_ABSENT => [Some((0, PORT_ANY)), None],
        PORT_UNKNOWN => [Some((0, PORT_ANY)), Some((0, KIND_UNKNOWN))],
        port => [Some((0, PORT_ANY)), Some((port as u16, PORT_EXACT))],
    };
    let keys = kinds.into_iter().flatten().flat_map(|(port, port_kind)| {
        (0..=width).map(move |length| EntryKey {
            address: masked(words, length),
            port,
            direction,
            family,
            length,
            port_kind,
            zero: 0,
        })
    });
    keys.filter_map(|key| map.get(&key)).max_by_key(|entry| entry.id).copied()
}

fn masked(words: [u64; 2], length: u8) -> [u64; 2] {
    let bits = u128::from(words[0]) << 64 | u128::from(words[1]);
    let kept = bits & !u128::MAX.checked_shr(length.into()).unwrap_or(0);
    [(kept >> 64) as u64, kept as u64]
}
