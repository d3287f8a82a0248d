//! What dynamic entries, rules and the default say of one operation.

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use ringfence_abi::{
    chain::{ChainConsts, MAX_POSITIONS},
    counter::DYNAMIC,
    host::{
        ANY, HostState, LEAF_UNKNOWN, Leaf, MAX_PATH_ENTRIES,
        field::{OP, PATH},
        line,
    },
    verdict::ACCEPT,
};
use ringfence_engine::{
    bits::lowest,
    host::{access::Classifier, quick::quick},
    judge::{Walker, search},
    search::{Outcome, Search, Sink, Step, passes},
};

use crate::{
    arena::Arena,
    kernel::{Dentry, Task, rename_sequence},
    maps::{HOST, PATH_ENTRIES, explaining, state},
    repeat::repeat,
    report,
    scratch::{Frame, Place},
    subject, walk,
};

/// Every step enters a word or takes a position, or finds a block empty.
const STEPS: u32 = 2 * MAX_POSITIONS as u32;

/// What [`decide`] gives for a call that may go on; else it is the line that refuses.
const PASSES: u64 = u64::MAX;

/// Judges an operation at `places[number]` and counts it unless the memory says `quiet`. `Err`: refused, with its line.
#[inline(always)]
pub fn judge(frame: &Frame, op: u32, number: usize) -> Result<(), u32> {
    match decide(frame, op, number) {
        PASSES => Ok(()),
        line => Err(line as u32),
    }
}

#[inline(never)]
fn decide(frame: &Frame, op: u32, number: usize) -> u64 {
    let outcome = outcome(frame, op, number).unwrap_or(Outcome::TABLES);
    let counted = frame.scratch().quiet == 0;
    if !passes(outcome) && !explaining() && Task::current().is_init() {
        if counted {
            report::count(line::INIT);
        }
        return PASSES;
    }
    if counted {
        report::decided(frame.scratch().entry.id, outcome);
    }
    if passes(outcome) { PASSES } else { u64::from(outcome.line) }
}

/// Lets a call about a file go where the shortest look allows it: a warm directory in which no pattern matches any name, and
/// a quick word. It takes no working memory, and nearly every open ends here. `false`: look properly.
#[inline(always)]
pub fn glance(dentry: Dentry, op: u32) -> bool {
    allowed(dentry, op).is_some_and(|line| {
        report::count(line);
        true
    })
}

/// The line that allows.
#[inline(always)]
fn allowed(dentry: Dentry, op: u32) -> Option<u32> {
    let (state, arena) = (state()?, Arena::get()?);
    if any_entries(state) {
        return None;
    }
    let (leaf, sequence) = walk::glance(dentry, state)?;
    let classifier = Classifier { host: &HOST, tables: &arena };
    let path = if classifier.reads(PATH) { classifier.leaf_word(leaf, offset_of!(Leaf, path))? } else { 0 };
    let outcome = quick(&HOST, &arena, path, classifier.operation(op)?)?;
    (passes(outcome) && rename_sequence() == sequence).then_some(outcome.line)
}

/// `None`: the tables contradict themselves.
#[inline(always)]
fn outcome(frame: &Frame, op: u32, number: usize) -> Option<Outcome> {
    let scratch = frame.scratch();
    let place = scratch.places.get(number)?;
    if frame.entries() != 0 {
        if !caller_is_known(frame) {
            return None;
        }
        if let Some(outcome) = entry(frame, op, place) {
            return Some(outcome);
        }
    }
    let classifier = Classifier { host: &HOST, tables: frame.tables() };
    let access = &mut scratch.access;
    classifier.direct::<OP>(access, op)?;
    classifier.path(access, place.leaf)?;
    let (path, op) = (access.class_of::<PATH>(), access.class_of::<OP>());
    if let Some(outcome) = quick(&HOST, frame.tables(), path, op) {
        return Some(outcome);
    }
    if !caller_is_known(frame) {
        return None;
    }
    Some(search(&HOST.chain, frame.tables(), &mut Rules { frame: *frame }, &frame.scratch().access))
}

/// An explanation brings its caller along, and its program may not ask for task storage (not before 6.18).
#[inline(always)]
fn caller_is_known(frame: &Frame) -> bool {
    explaining() || subject::settle(frame)
}

/// The walk over matching rules.
struct Rules {
    frame: Frame,
}

impl Sink for Rules {
    // Limits are about packets.
    #[inline(always)]
    fn admits(&mut self, _: u32) -> Option<bool> {
        Some(true)
    }

    #[inline(always)]
    fn continued(&mut self, line: u32) {
        if self.frame.scratch().quiet == 0 {
            report::continued(line);
        }
    }
}

impl Walker<Arena> for Rules {
    #[inline(always)]
    fn search(&mut self) -> Option<&mut Search> {
        Some(&mut self.frame.scratch().search)
    }

    #[inline(always)]
    fn walk(&mut self, _: &ChainConsts, _: &Arena) -> Outcome {
        let scratch = self.frame.scratch();
        // Overwritten by the walk; stays if that never ends, which the bound makes impossible.
        scratch.outcome = Outcome::TABLES;
        repeat!(STEPS, step, &raw const self.frame);
        scratch.outcome
    }
}

unsafe extern "C" fn step(_: u32, context: *mut c_void) -> i64 {
    let frame = Frame::of(context);
    let scratch = frame.scratch();
    match scratch.search.step(&HOST.chain, frame.tables(), &mut Rules { frame: *frame }) {
        Step::More => 0,
        Step::Done(outcome) => {
            scratch.outcome = outcome;
            1
        }
    }
}

/// Whether there are dynamic entries.
#[inline(always)]
pub fn any_entries(state: *mut HostState) -> bool {
    // SAFETY: the map's only value; an aligned load does not tear.
    unsafe { (&raw const (*state).entries).read_volatile() != 0 }
}

/// The newest dynamic entry that decides.
#[inline(always)]
fn entry(frame: &Frame, op: u32, place: &Place) -> Option<Outcome> {
    let scratch = frame.scratch();
    scratch.entry.id = 0;
    let unknown = place.leaf == LEAF_UNKNOWN;
    // What cannot be told matches every refusal.
    scratch.entry.bits = if unknown { u64::MAX } else { place.entries };
    if scratch.entry.bits == 0 {
        return None;
    }
    scratch.entry.unknown = u32::from(unknown);
    scratch.entry.op = op;
    repeat!(MAX_PATH_ENTRIES, probe, &raw const *frame);
    if scratch.entry.id == 0 {
        return None;
    }
    if scratch.quiet == 0
        && !explaining()
        && let Some(entry) = PATH_ENTRIES.get_ptr_mut(scratch.entry.index)
    {
        // SAFETY: a value of the map.
        report::add(unsafe { &raw mut (*entry).hits }, 1);
    }
    Some(Outcome { line: DYNAMIC, verdict: scratch.entry.verdict })
}

/// Looks at the next entry.
unsafe extern "C" fn probe(_: u32, context: *mut c_void) -> i64 {
    let scratch = Frame::of(context).scratch();
    let probe = &mut scratch.entry;
    if probe.bits == 0 {
        return 1;
    }
    let index = lowest(probe.bits);
    probe.bits &= probe.bits - 1;
    let Some(entry) = PATH_ENTRIES.get(index) else { return 1 };
    let refuses = entry.verdict != u32::from(ACCEPT);
    if entry.id <= probe.id
        || entry.ops >> (probe.op & 31) & 1 == 0
        || (entry.uid != ANY && entry.uid != scratch.uid)
        || (probe.unknown != 0 && !refuses)
    {
        return 0;
    }
    // An executable that cannot be told matches every refusal, too.
    if entry.exe != ANY && entry.exe != scratch.exe && !(refuses && scratch.exe == 0) {
        return 0;
    }
    // SAFETY: the helper has no preconditions.
    if entry.expires != 0 && unsafe { bpf_ktime_get_boot_ns() } >= entry.expires {
        return 0;
    }
    probe.id = entry.id;
    probe.index = index;
    probe.verdict = entry.verdict;
    0
}
