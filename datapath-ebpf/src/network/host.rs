//! What the engine asks of the kernel: maps, helpers, counters.

use core::ffi::c_void;

use ringfence_abi::{
    chain::{ChainConsts, MAX_POSITIONS, STATE_NEW, VLAN_ABSENT},
    counter::UNKNOWN,
    explain::Question,
};
use ringfence_engine::{
    fields::Fields,
    judge::{Entry, Host, Judgement, Walker},
    ro::read,
    search::{Outcome, Search, Sink, Step, passes},
};

use crate::{
    arena::Arena,
    keep::{self, Kept},
    limit::{self, Asking},
    lookup,
    maps::{CELL, EXPLAIN_IN, INTERFACES, consts, explaining, scratch},
    packet::Packet,
    repeat::repeat,
    report::{self, Tally},
    track::{self, Look, Looked},
};

/// One invocation of a program.
#[derive(Clone, Copy)]
pub struct Kernel {
    consts: &'static ChainConsts,
    egress: bool,
    ifindex: u32,
    // Not an option: LLVM leaves the value of `None` undefined, and the verifier refuses to copy that.
    mark: u32,
    has_mark: bool,
    tally: Tally,
    /// Direct index of the connection's state.
    state: u32,
    /// The connection's first packet is judged once more: nothing is counted.
    quiet: bool,
}

impl Kernel {
    #[inline(always)]
    pub fn new<const EGRESS: bool>(packet: &impl Packet, consts: &'static ChainConsts) -> Self {
        let mut kernel = Self {
            consts,
            egress: EGRESS,
            ifindex: packet.ifindex(),
            mark: packet.mark().unwrap_or(0),
            has_mark: packet.mark().is_some(),
            tally: Tally { packets: packet.segments(), bytes: packet.bytes() },
            state: STATE_NEW,
            quiet: false,
        };
        if let Some(question) = question() {
            kernel.ifindex = question.ifindex;
            kernel.mark = question.mark;
        }
        kernel
    }

    /// For a connection's first packet, judged once more.
    #[inline(always)]
    pub fn again<const EGRESS: bool>() -> Self {
        let tally = Tally { packets: 0, bytes: 0 };
        let consts = consts::<EGRESS>();
        // What is known of that packet is read where it is asked for: held here it would cost stack, of which 6.1 has too
        // little for a search in a search.
        Self { consts, egress: EGRESS, ifindex: 0, mark: 0, has_mark: false, tally, state: STATE_NEW, quiet: true }
    }

    /// The VLAN id held outside the packet, or `VLAN_ABSENT`.
    #[inline(always)]
    pub fn tag(&self, packet: &impl Packet) -> u32 {
        let tag = question().map_or_else(|| packet.tag(), |question| question.vlan);
        if tag == 0 { VLAN_ABSENT } else { tag & 0xfff }
    }

    /// Leaves the link header out of the byte counts.
    #[inline(always)]
    pub fn without_link(&mut self, network: u32) {
        self.tally.bytes = self.tally.bytes.wrapping_sub(network);
    }

    /// Counts a packet with an unknown field.
    #[inline(always)]
    pub fn unknown(&self) {
        if explaining() { report::explain_unknown() } else { self.count(UNKNOWN) }
    }

    /// Counts the judgement; whether the packet goes on.
    #[inline(always)]
    pub fn decided(&self, judgement: Judgement) -> bool {
        if explaining() {
            report::explain_decided(judgement);
            return true;
        }
        self.count(judgement.outcome.line);
        passes(judgement.outcome) || self.audits()
    }

    /// Whether everything is let go.
    #[inline(always)]
    pub fn audits(&self) -> bool {
        audits(self.consts)
    }

    /// Remembers what was let through; whether it may go on.
    #[inline(always)]
    pub fn keep(&self, fields: &Fields, judgement: &Judgement) -> bool {
        if !explaining() {
            let kept = Kept {
                egress: self.egress,
                tally: self.tally,
                state: self.state,
                ifindex: self.ifindex,
                mark: self.mark,
                has_mark: self.has_mark,
                line: judgement.outcome.line,
                plain: judgement.plain,
            };
            let (goes_on, line) = keep::keep(kept, fields);
            if line != 0 {
                self.count(line);
            }
            return goes_on || self.audits();
        }
        true
    }

    /// Adds the packet to a counter of the chain.
    #[inline(always)]
    pub fn count(&self, line: u32) {
        report::count(self.consts, line, self.tally);
    }
}

#[inline(always)]
fn audits(consts: &ChainConsts) -> bool {
    read(&consts.audit) != 0 || audit_cell()
}

/// Whether `ringctl mode audit` is in force.
#[inline(always)]
fn audit_cell() -> bool {
    // SAFETY: the map's only value; the byte is stored together with its word.
    CELL.get_ptr(0).is_some_and(|cell| unsafe { (&raw const (*cell).word).read_volatile() } >> 16 & 0xff != 0)
}

/// What an explanation asks; `None` in programs that enforce.
#[inline(always)]
fn question() -> Option<&'static Question> {
    if explaining() { EXPLAIN_IN.get(0) } else { None }
}

impl Sink for Kernel {
    #[inline(always)]
    fn admits(&mut self, limit: u32) -> Option<bool> {
        Continued { consts: self.consts, tally: self.tally, egress: self.egress, quiet: self.quiet }.admits(limit)
    }

    #[inline(always)]
    fn continued(&mut self, line: u32) {
        Continued { consts: self.consts, tally: self.tally, egress: self.egress, quiet: self.quiet }.continued(line);
    }
}

impl Walker<Arena> for Kernel {
    #[inline(always)]
    fn search(&mut self) -> Option<&mut Search> {
        // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
        scratch().map(|scratch| unsafe { &mut (*scratch).search })
    }

    #[inline(always)]
    fn walk(&mut self, _: &ChainConsts, _: &Arena) -> Outcome {
        let Some(scratch) = scratch() else { return Outcome::TABLES };
        // SAFETY: as above.
        unsafe {
            (*scratch).tally = self.tally;
            // Overwritten by the walk; stays if that never ends, which the bound below makes impossible.
            (*scratch).outcome = Outcome::TABLES;
        }
        match (self.egress, self.quiet) {
            (true, true) => repeat!(STEPS, step::<true, true>),
            (true, false) => repeat!(STEPS, step::<true, false>),
            (false, true) => repeat!(STEPS, step::<false, true>),
            (false, false) => repeat!(STEPS, step::<false, false>),
        }
        // SAFETY: as above; the callbacks found the same memory.
        unsafe { (*scratch).outcome }
    }
}

impl Host<Arena> for Kernel {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
        if self.quiet { scratch().map_or(0, |scratch| unsafe { (*scratch).track.again_ifindex }) } else { self.ifindex }
    }

    #[inline(always)]
    fn interface_class(&self) -> u32 {
        // SAFETY: the value is read at once and the daemon replaces it whole.
        let Some(interface) = (unsafe { INTERFACES.get(&self.ifindex()) }) else { return 0 };
        if self.egress { interface.egress } else { interface.ingress }
    }

    #[inline(always)]
    fn mark(&self) -> Option<u32> {
        if self.quiet {
            // SAFETY: as above.
            let (marked, mark) = scratch()
                .map_or((0, 0), |scratch| unsafe { ((*scratch).track.again_marked, (*scratch).track.again_mark) });
            return (marked != 0).then_some(mark);
        }
        self.has_mark.then_some(self.mark)
    }

    #[inline(always)]
    fn track(&mut self, fields: &Fields) -> Option<Outcome> {
        if self.quiet {
            return None;
        }
        let look = Look { egress: self.egress, tally: self.tally, said: question().map(|question| question.state) };
        match track::look(look, fields) {
            Looked::Settled(outcome) => Some(outcome),
            Looked::State(state) => {
                self.state = state;
                if limit::notes()
                    && let Some(scratch) = scratch()
                {
                    // SAFETY: as above.
                    unsafe { (*scratch).track.state = state };
                }
                None
            }
        }
    }

    #[inline(always)]
    fn state(&self) -> u32 {
        self.state
    }

    #[inline(always)]
    fn entry(&self, fields: &Fields) -> Option<Entry> {
        lookup::entry(fields, self.egress, (!explaining() && !self.quiet).then_some(self.tally))
    }

    #[inline(always)]
    fn members(&self, fields: &Fields, source: bool) -> u64 {
        lookup::members(self.consts, fields, self.egress, source)
    }
}

/// Every step enters a word or takes a position, or finds a block empty.
const STEPS: u32 = 2 * MAX_POSITIONS as u32;

unsafe extern "C" fn step<const EGRESS: bool, const QUIET: bool>(_: u32, _: *mut c_void) -> i64 {
    let consts = consts::<EGRESS>();
    let (Some(arena), Some(scratch)) = (Arena::of::<EGRESS>(consts), scratch()) else { return 1 };
    // SAFETY: this CPU's own memory; `walk` waits for the loop.
    let scratch = unsafe { &mut *scratch };
    match scratch.search.step(
        consts,
        &arena,
        &mut Continued { consts, tally: scratch.tally, egress: EGRESS, quiet: QUIET },
    ) {
        Step::More => 0,
        Step::Done(outcome) => {
            scratch.outcome = outcome;
            1
        }
    }
}

/// Counts the rules that let evaluation go on.
struct Continued {
    consts: &'static ChainConsts,
    tally: Tally,
    egress: bool,
    quiet: bool,
}

impl Sink for Continued {
    #[inline(always)]
    fn admits(&mut self, limit: u32) -> Option<bool> {
        let asking = Asking {
            egress: self.egress,
            tally: self.tally,
            quiet: self.quiet,
            explaining: explaining(),
            audits: limit::adding() && audits(self.consts),
        };
        let said = limit::admits(asking, limit);
        if let Some(line) = said.count {
            report::count(self.consts, line, self.tally);
        }
        said.matches
    }

    #[inline(always)]
    fn continued(&mut self, line: u32) {
        if self.quiet {
            return;
        }
        if explaining() { report::explain_continued(line) } else { report::count(self.consts, line, self.tally) }
    }
}
