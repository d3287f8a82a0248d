//! Lookups whose keys carry a prefix length: dynamic entries and the elements of dynamic sets.
//!
//! Each length in use is probed, in `bpf_loop`: its callback is verified once, however many lengths there may be.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use ringfence_abi::{
    chain::{ChainConsts, MAX_CHAIN_SETS, PORT_ABSENT, PORT_UNKNOWN},
    dynamic::{
        EGRESS, ElementKey, EntryKey, INGRESS, Lengths, PORT_ANY, PORT_EXACT, PORT_UNKNOWN as KIND_UNKNOWN, V4, V6,
    },
};
use ringfence_engine::{
    bits::lowest,
    fields::{FAMILY_V4, Fields},
    judge,
    ro::read,
};

use crate::{
    maps::{ELEMENTS, ENTRIES, ENTRY_LENGTHS, SET_LENGTHS, consts, scratch},
    repeat::repeat,
    report::Tally,
};

/// Lengths of one family, and the place in them.
#[repr(C)]
struct Walk {
    words: [u64; 3],
    /// Prefix length of bit 0 of `words[0]`.
    base: u64,
}

impl Walk {
    #[inline(always)]
    fn start(&mut self, lengths: &Lengths, family: u32) {
        self.words = if family == FAMILY_V4 { [lengths.v4, 0, 0] } else { lengths.v6 };
        self.base = 0;
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.words[0] = 0;
        self.words[1] = 0;
        self.words[2] = 0;
    }

    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.words[0] | self.words[1] | self.words[2] == 0
    }

    /// The next length in use. Words that are used up make room for the next one.
    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        if self.words[0] == 0 {
            self.words = [self.words[1], self.words[2], 0];
            self.base += 64;
            return None;
        }
        let length = self.base as u32 + lowest(self.words[0]);
        self.words[0] &= self.words[0] - 1;
        // 0..=128 by construction; the verifier wants to see it.
        Some(length & 0xff)
    }
}

/// Steps of a walk: 129 lengths and two changes of words.
const STEPS: u32 = 132;

/// The first `length` bits of an address.
#[inline(always)]
pub fn masked(address: [u64; 2], length: u32) -> [u64; 2] {
    if length >= 64 {
        // 64..=128 bits: the shift of a whole word is done in two parts.
        let rest = length - 64;
        let mask = if rest >= 64 { u64::MAX } else { u64::MAX << 1 << (63 - rest) };
        [address[0], address[1] & mask]
    } else {
        [address[0] & (u64::MAX << 1 << (63 - length)), 0]
    }
}

#[inline(always)]
fn family(fields: &Fields) -> u8 {
    if fields.family == FAMILY_V4 { V4 } else { V6 }
}

/// The search for a dynamic entry.
#[repr(C)]
pub struct EntryProbe {
    walk: Walk,
    address: [u64; 2],
    /// The key of the next probe but for its address and length.
    key: EntryKey,
    /// The newest entry found so far: its id (0: none) and its key.
    id: u64,
    verdict: u64,
    found: EntryKey,
}

/// The newest dynamic entry for the packet's remote address. What it decides is counted in it too, unless `count` is
/// `None`.
#[inline(always)]
pub fn entry(fields: &Fields, egress: bool, count: Option<Tally>) -> Option<judge::Entry> {
    let direction = if egress { EGRESS } else { INGRESS };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let probe = unsafe { &mut (*scratch()?).entry };
    probe.id = 0;
    probe.address = if egress { fields.dst } else { fields.src };
    probe.key = EntryKey { direction, family: family(fields), port_kind: PORT_ANY, ..EntryKey::default() };
    probe_kind(probe, PORT_ANY, direction, fields);
    if fields.dport != PORT_ABSENT {
        let kind = if fields.dport == PORT_UNKNOWN {
            KIND_UNKNOWN
        } else {
            probe.key.port = fields.dport as u16;
            PORT_EXACT
        };
        probe.key.port_kind = kind;
        probe_kind(probe, kind, direction, fields);
    }
    if probe.id == 0 {
        return None;
    }
    if let Some(Tally { packets, bytes }) = count
        && let Some(entry) = ENTRIES.get_ptr_mut(&probe.found)
    {
        // SAFETY: a map value; other CPUs count in it too, hence atomically. (`core` has no `fetch_add` on this target.)
        unsafe {
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) &raw mut (*entry).packets, in(reg) u64::from(packets));
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) &raw mut (*entry).bytes, in(reg) u64::from(bytes));
        }
    }
    Some(judge::Entry { id: probe.id, verdict: probe.verdict as u32 })
}

#[inline(always)]
fn probe_kind(probe: &mut EntryProbe, kind: u8, direction: u8, fields: &Fields) {
    let Some(lengths) = ENTRY_LENGTHS.get(u32::from(direction) * 3 + u32::from(kind)) else { return };
    probe.walk.start(lengths, fields.family);
    if !probe.walk.is_empty() {
        repeat!(STEPS, probe_entry);
    }
}

unsafe extern "C" fn probe_entry(_: u32, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else { return 1 };
    // SAFETY: this CPU's own memory; `entry` waits for the loop.
    let probe = unsafe { &mut (*scratch).entry };
    let Some(length) = probe.walk.next() else { return i64::from(probe.walk.is_empty()) };
    let key = EntryKey { address: masked(probe.address, length), length: length as u8, ..probe.key };
    // SAFETY: the value is read at once; the daemon replaces values whole.
    if let Some(entry) = unsafe { ENTRIES.get(&key) }
        && entry.id > probe.id
        && !expired(entry.expires)
    {
        probe.id = entry.id;
        probe.verdict = entry.verdict;
        probe.found = key;
    }
    0
}

#[inline(always)]
pub fn expired(expires: u64) -> bool {
    // SAFETY: the helper has no preconditions.
    expires != 0 && unsafe { bpf_ktime_get_boot_ns() } >= expires
}

/// The search for memberships.
#[repr(C)]
pub struct MemberProbe {
    walk: Walk,
    address: [u64; 2],
    family: u32,
    /// The set after the one that is being searched, as an index into the chain's list.
    next: u32,
    /// Kernel id of the set that is being searched.
    set: u32,
    /// Bits of the sets that hold the address.
    mask: u64,
}

/// Which of the chain's dynamic sets hold the source or destination; bit `i` for set `i`.
#[inline(always)]
pub fn members(consts: &ChainConsts, fields: &Fields, egress: bool, source: bool) -> u64 {
    let count = read(if source { &consts.src_set_count } else { &consts.dst_set_count });
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let probe = unsafe { &mut (*scratch).member };
    probe.walk.clear();
    probe.address = if source { fields.src } else { fields.dst };
    probe.family = fields.family;
    probe.next = 0;
    probe.mask = 0;
    // A set is one step more than its lengths; one step finds out that there is none left.
    let steps = count * (STEPS + 1) + 1;
    match (egress, source) {
        (false, true) => repeat!(steps, probe_member::<false, true>),
        (false, false) => repeat!(steps, probe_member::<false, false>),
        (true, true) => repeat!(steps, probe_member::<true, true>),
        (true, false) => repeat!(steps, probe_member::<true, false>),
    }
    probe.mask
}

unsafe extern "C" fn probe_member<const EGRESS: bool, const SOURCE: bool>(_: u32, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else { return 1 };
    // SAFETY: this CPU's own memory; `members` waits for the loop.
    let probe = unsafe { &mut (*scratch).member };
    if probe.walk.is_empty() {
        return i64::from(!next_set::<EGRESS, SOURCE>(probe));
    }
    let Some(length) = probe.walk.next() else { return 0 };
    let key = ElementKey {
        address: masked(probe.address, length),
        set: probe.set as u16,
        family: if probe.family == FAMILY_V4 { V4 } else { V6 },
        length: length as u8,
        zero: 0,
    };
    // SAFETY: the value is read at once; the daemon replaces values whole.
    if unsafe { ELEMENTS.get(&key) }.is_some_and(|element| !expired(element.expires)) {
        probe.mask |= 1 << ((probe.next - 1) & 63);
        probe.walk.clear();
    }
    0
}

/// Goes on to the next set; `false`: there is none.
#[inline(always)]
fn next_set<const EGRESS: bool, const SOURCE: bool>(probe: &mut MemberProbe) -> bool {
    let consts = consts::<EGRESS>();
    let (sets, count) = if SOURCE {
        (&consts.src_sets, read(&consts.src_set_count))
    } else {
        (&consts.dst_sets, read(&consts.dst_set_count))
    };
    let index = probe.next;
    if index >= count {
        return false;
    }
    probe.next = index + 1;
    probe.set = u32::from(read(&sets[index as usize & (MAX_CHAIN_SETS - 1)]));
    if let Some(lengths) = SET_LENGTHS.get(probe.set) {
        probe.walk.start(lengths, probe.family);
    }
    true
}
