//! Counting, or answering an explanation.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use ringfence_abi::{
    chain::{ChainConsts, MAX_CONTINUATIONS},
    explain::Answer,
    verdict::ACCEPT,
};
use ringfence_engine::{judge::Judgement, ro, search::passes};

use crate::maps::{COUNTERS, EXPLAIN_OUT};

/// What a packet adds to the counters.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tally {
    /// Packets on the wire.
    pub packets: u32,
    /// Their bytes from the network header on.
    pub bytes: u32,
}

/// Adds to a counter of the chain.
#[inline(always)]
pub fn count(consts: &ChainConsts, line: u32, Tally { packets, bytes }: Tally) {
    let Some(counter) = COUNTERS.get_ptr_mut(ro::read(&consts.counter_base) + line) else { return };
    // SAFETY: this CPU's own value. XDP and TC run with softirqs off, so nothing of ours interleaves on the CPU.
    unsafe {
        (*counter).packets += u64::from(packets);
        (*counter).bytes += u64::from(bytes);
        (*counter).last_hit = bpf_ktime_get_coarse_ns();
    }
}

#[inline(always)]
fn answer() -> Option<*mut Answer> {
    EXPLAIN_OUT.get_ptr_mut(0)
}

/// Notes a rule that matched and let evaluation go on.
#[inline(always)]
pub fn explain_continued(line: u32) {
    let Some(answer) = answer() else { return };
    // SAFETY: a value of a map that only one explanation at a time uses.
    unsafe {
        let len = (*answer).continued_len;
        if len < MAX_CONTINUATIONS {
            (*answer).continued[(len & (MAX_CONTINUATIONS - 1)) as usize] = line;
            (*answer).continued_len = len + 1;
        }
    }
}

/// Notes that a field was unknown.
#[inline(always)]
pub fn explain_unknown() {
    if let Some(answer) = answer() {
        // SAFETY: as above.
        unsafe { (*answer).unknown = 1 };
    }
}

/// Notes what decided.
#[inline(always)]
pub fn explain_decided(judgement: Judgement) {
    if let Some(answer) = answer() {
        // SAFETY: as above.
        unsafe {
            (*answer).line = judgement.outcome.line;
            (*answer).entry = judgement.entry;
            let accepts = passes(judgement.outcome);
            (*answer).verdict = if accepts { u32::from(ACCEPT) } else { judgement.outcome.verdict };
        }
    }
}
