//! Telling the sender of a rejected packet.

use core::{arch::asm, ptr::null_mut};

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_ktime_get_ns};
use ringfence_abi::counter::{ANSWERED, FAILED, LIMITED};
use ringfence_engine::{
    answer::{self, ICMP_HEADER, Kind, QUOTE_V4, QUOTE_V6, Segment, TCP_HEADER, Way, kind},
    fields::{FAMILY_V4, Fields},
};

use crate::reply::{Reply, Work, at, bounded, link_header, work};

/// The most bytes that `bpf_csum_diff` sums at once.
const SUMMED: u32 = 512;

/// Tells the sender of a rejected packet, and says what came of it: with [`ANSWERED`] the packet is the answer now, else
/// it is to be dropped. `None`: such a packet is not answered.
#[inline(always)]
pub fn answer<P: Reply, const EGRESS: bool>(packet: &mut P, fields: &Fields, l3: bool) -> Option<u32> {
    let kind = kind(fields)?;
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let work = unsafe { &mut *work()? };
    if !l3 && !link_header::<P, EGRESS>(packet, fields, work) {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if !work.take(now) {
        return Some(LIMITED);
    }
    let made = match kind {
        Kind::Reset => reset(packet, fields, work),
        Kind::Prohibited => prohibited(packet, fields, work),
        Kind::Cookie => None,
    };
    let Some(length) = made else { return Some(FAILED) };
    Some(if work.expect::<P>(now) && packet.send::<EGRESS>(fields, l3, work, length) { ANSWERED } else { FAILED })
}

/// A TCP reset; its length from the network header on.
#[inline(always)]
fn reset<P: Reply>(packet: &P, fields: &Fields, work: &mut Work) -> Option<u32> {
    if !packet.load(fields.transport, work.tcp.as_mut_ptr(), 16) {
        return None;
    }
    let tcp = &work.tcp;
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let header = u32::from(tcp[12] >> 4) * 4;
    let payload = fields.end.wrapping_sub(fields.transport).wrapping_sub(header);
    let reset = Segment { seq: word(4), ack: word(8), flags: tcp[13], payload }.reset();
    let way = Way::back(fields);
    work.mark(fields, Kind::Reset, reset.flags);
    if fields.family == FAMILY_V4 {
        way.ipv4(Kind::Reset, 20 + TCP_HEADER, at::<0, 20>(work));
        way.tcp(fields.dport, fields.sport, reset, at::<20, 20>(work));
        // Up to the length of the shortest frame.
        *at::<40, 8>(work) = [0; 8];
        Some(20 + TCP_HEADER)
    } else {
        way.ipv6(Kind::Reset, 40 + TCP_HEADER, at::<0, 40>(work));
        way.tcp(fields.dport, fields.sport, reset, at::<40, 20>(work));
        Some(40 + TCP_HEADER)
    }
}

/// An ICMP error that quotes as much of the packet as it may; its length.
#[inline(always)]
fn prohibited<P: Reply>(packet: &P, fields: &Fields, work: &mut Work) -> Option<u32> {
    let way = Way::back(fields);
    work.mark(fields, Kind::Prohibited, 0);
    if fields.family == FAMILY_V4 {
        let (quote, sum) = quote::<P, 28, QUOTE_V4>(packet, fields, work)?;
        Way::icmp(sum, at::<20, 8>(work));
        let length = 20 + ICMP_HEADER + quote;
        way.ipv4(Kind::Prohibited, length, at::<0, 20>(work));
        Some(length)
    } else {
        let (quote, sum) = quote::<P, 48, QUOTE_V6>(packet, fields, work)?;
        way.icmpv6(sum, quote, at::<40, 8>(work));
        let length = 40 + ICMP_HEADER + quote;
        way.ipv6(Kind::Prohibited, length, at::<0, 40>(work));
        Some(length)
    }
}

/// Copies the packet's beginning to `AT` of the answer: how many bytes, and the sum of their 16-bit words.
#[inline(always)]
fn quote<P: Reply, const AT: usize, const MAX: u32>(
    packet: &P,
    fields: &Fields,
    work: &mut Work,
) -> Option<(u32, u64)> {
    let length = bounded::<MAX>(fields.end.wrapping_sub(fields.network).min(MAX))?;
    let to = work.packet[AT..].as_mut_ptr();
    if !packet.load(fields.network, to, length) {
        return None;
    }
    // SAFETY: within the array: `AT + MAX + 4` is at most 1,284.
    let rest = unsafe { to.add(length as usize) };
    for i in 0..3 {
        // SAFETY: as above.
        unsafe { rest.add(i).write(0) };
    }
    let whole = (length + 3) & !3;
    let first = whole.min(SUMMED);
    let second = (whole - first).min(SUMMED);
    let third = (whole - first - second).min(SUMMED);
    let sum = summed::<SUMMED>(to, first, 0)?;
    let sum = summed::<SUMMED>(work.packet[AT + 512..].as_mut_ptr(), second, sum)?;
    let sum = if MAX > 1024 { summed::<208>(work.packet[AT + 1024..].as_mut_ptr(), third, sum)? } else { sum };
    // The helper sums words as this machine stores them.
    Some((length, u64::from(answer::fold(u64::from(sum)).swap_bytes())))
}

/// Adds the words of up to `MAX` bytes, a multiple of four.
#[inline(always)]
fn summed<const MAX: u32>(bytes: *mut u8, length: u32, sum: u32) -> Option<u32> {
    let mut length = u64::from(length);
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) length) };
    if length > u64::from(MAX) {
        return None;
    }
    // SAFETY: memory of the map's value, as long as the verifier has just seen.
    let sum = unsafe { bpf_csum_diff(null_mut(), 0, bytes.cast(), length as u32, sum) };
    (sum >= 0).then_some(sum as u32)
}
