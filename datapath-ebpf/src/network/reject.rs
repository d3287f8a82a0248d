//! Telling the sender of a rejected packet: the packet becomes the answer, and goes back the way it came.
//!
//! At XDP the frame is sent out again. At TC it is redirected: what arrived leaves by its interface, what would have left
//! arrives there. The programs at TC meet it once more then, and let it go ([`is_own`]).
//!
//! The answer is put together in memory of this CPU and copied over the packet. Both ways the kernel's helpers copy, which
//! see also what lies in fragments of an skb, and lengths that only the packet knows cost the verifier one comparison.

use core::{arch::asm, ptr::null_mut};

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, TC_ACT_REDIRECT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::{
        bpf_csum_diff, bpf_ktime_get_ns, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use ringfence_abi::counter::{ANSWERED, FAILED, LIMITED};
use ringfence_engine::{
    Frame,
    answer::{self, ICMP_HEADER, Kind, QUOTE_V4, QUOTE_V6, Segment, TCP_HEADER, Way, kind},
    fields::{FAMILY_V4, Fields},
    ro::read,
};

use crate::{
    maps::{INTERFACES, consts, explaining},
    packet::{Packet, Skb, Xdp},
};

/// How long the way from one program at TC to the other may take, nanoseconds: the packet waits in a queue of its CPU.
const ON_ITS_WAY: u64 = 1_000_000_000;
/// The shortest frame on an Ethernet, without its checksum.
const SHORTEST: u32 = 60;
/// The most bytes that `bpf_csum_diff` sums at once.
const SUMMED: u32 = 512;

/// Longest link header, and two bytes to align what follows.
const LINK: usize = 24;

/// Where an answer is put together.
#[repr(C)]
pub struct Work {
    /// See [`answer::take`].
    spent_until: u64,
    key: Key,
    /// The answer's link header: the rejected frame's source and destination, its tags, its type.
    link: [u8; LINK],
    /// The first bytes of its TCP header.
    tcp: [u8; 16],
    /// The answer from its IP header on, and room for what the verifier takes for possible.
    packet: [u8; 1312],
}

#[map]
static ANSWER: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// An answer as the programs at TC parse it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    way: Way,
    /// As [`answer::looks`].
    looks: [u32; 3],
    zero: u32,
}

/// Answers on their way through TC, and until when they are let go.
#[map]
static ON_THE_WAY: LruHashMap<Key, u64> = LruHashMap::with_max_entries(1024, 0);

/// What a hook does for an answer.
pub trait Reply: Packet {
    /// It meets answers that were made at another hook.
    const MEETS: bool;
    /// Copies bytes out of the packet.
    fn load(&self, offset: u32, to: *mut u8, length: u32) -> bool;
    /// Whether an arriving frame was sent to this interface alone.
    fn is_to_us(&self, link: &[u8; LINK]) -> bool;
    /// Makes the packet as long as the answer, `packet` from the network header on, and lets it go back.
    fn send<const EGRESS: bool>(&mut self, fields: &Fields, l3: bool, work: &Work, packet: u32) -> bool;
}

/// Tells the sender of a rejected packet, and says what came of it: with [`ANSWERED`] the packet is the answer now, else
/// it is to be dropped. `None`: such a packet is not answered.
#[inline(always)]
pub fn answer<P: Reply, const EGRESS: bool>(packet: &mut P, fields: &Fields, l3: bool) -> Option<u32> {
    let kind = kind(fields)?;
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let work = unsafe { &mut *ANSWER.get_ptr_mut(0)? };
    if !l3 && !addressed::<P, EGRESS>(packet, fields, work) {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if !answer::take(&mut work.spent_until, now) {
        return Some(LIMITED);
    }
    work.key.way = Way::back(fields);
    let made = match kind {
        Kind::Reset => reset(packet, fields, work),
        Kind::Prohibited => prohibited(packet, fields, work),
    };
    let Some(length) = made else { return Some(FAILED) };
    if P::MEETS && ON_THE_WAY.insert(&work.key, now + ON_ITS_WAY, 0).is_err() {
        return Some(FAILED);
    }
    Some(if packet.send::<EGRESS>(fields, l3, work, length) { ANSWERED } else { FAILED })
}

/// Whether the packet is an answer from one of these programs: it was judged before it became one.
#[inline(always)]
pub fn is_own<P: Reply>(fields: &Fields) -> bool {
    // Those that a program of the same direction made come here too, as where a host forwards them.
    let rejects = read(&consts::<false>().answers) | read(&consts::<true>().answers) != 0;
    if !P::MEETS || explaining() || !rejects || !answer::may_be(fields) {
        return false;
    }
    let Some(work) = ANSWER.get_ptr_mut(0) else { return false };
    // SAFETY: as in `answer`.
    let key = unsafe { &mut (*work).key };
    key.way.from = fields.src;
    key.way.to = fields.dst;
    key.looks = [fields.proto, fields.sport, fields.dport];
    // SAFETY: the value is read at once.
    let until = unsafe { ON_THE_WAY.get(key) }.copied();
    // SAFETY: the helper has no preconditions.
    until.is_some_and(|until| until > unsafe { bpf_ktime_get_ns() })
}

/// Whether the frame goes from one station to one station; what arrives, to this one.
#[inline(always)]
fn addressed<P: Reply, const EGRESS: bool>(packet: &P, fields: &Fields, work: &mut Work) -> bool {
    let Some(rest) = bounded::<12>(fields.network.wrapping_sub(12)) else { return false };
    let [source, destination, behind] = [0, 6, 12].map(|at| work.link[at..].as_mut_ptr());
    if !packet.load(6, source, 6) || !packet.load(0, destination, 6) || !packet.load(12, behind, rest) {
        return false;
    }
    let group = (work.link[0] | work.link[6]) & 1 != 0;
    !group && (EGRESS || packet.is_to_us(&work.link))
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
    let way = work.key.way;
    work.key.looks = answer::looks(fields, Kind::Reset, reset.flags);
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
    let way = work.key.way;
    work.key.looks = answer::looks(fields, Kind::Prohibited, 0);
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

/// `N` bytes of the answer.
#[inline(always)]
fn at<const AT: usize, const N: usize>(work: &mut Work) -> &mut [u8; N] {
    const { assert!(AT + N <= 1312) };
    // SAFETY: within the array, as just asserted; bytes need no alignment.
    unsafe { &mut *work.packet.as_mut_ptr().add(AT).cast() }
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

/// A number of bytes that the verifier knows to be at least 1 and at most `MAX`.
#[inline(always)]
fn bounded<const MAX: u32>(length: u32) -> Option<u32> {
    let mut length = u64::from(length);
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) length) };
    (length != 0 && length <= u64::from(MAX)).then_some(length as u32)
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

impl Reply for Xdp {
    const MEETS: bool = false;

    #[inline(always)]
    fn load(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the program's own context; the callers give memory of `length` bytes.
        unsafe { bpf_xdp_load_bytes(self.0, offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn is_to_us(&self, link: &[u8; LINK]) -> bool {
        // SAFETY: the value is read at once and the daemon replaces it whole.
        let Some(interface) = (unsafe { INTERFACES.get(&self.ifindex()) }) else { return false };
        let ours = &interface.address;
        // One by one: a comparison of arrays is a call.
        (link[6] ^ ours[0]) | (link[7] ^ ours[1]) | (link[8] ^ ours[2]) == 0
            && (link[9] ^ ours[3]) | (link[10] ^ ours[4]) | (link[11] ^ ours[5]) == 0
    }

    #[inline(always)]
    fn send<const EGRESS: bool>(&mut self, fields: &Fields, _: bool, work: &Work, packet: u32) -> bool {
        let old = self.frame().total();
        // What was padded stays so; there are zeros behind the shortest answers.
        let length = (fields.network + packet).max(old.min(SHORTEST));
        let Some(stored) = bounded::<1312>(length.wrapping_sub(fields.network)) else { return false };
        let Some(link) = bounded::<{ LINK as u32 }>(fields.network) else { return false };
        // Every driver leaves room before a frame, not every one behind it.
        // SAFETY: the program's own context; `bounded` says how much of the memory is read.
        unsafe {
            let resized = if length > old {
                bpf_xdp_adjust_head(self.0, old.wrapping_sub(length).cast_signed())
            } else {
                bpf_xdp_adjust_tail(self.0, length.wrapping_sub(old).cast_signed())
            };
            resized == 0
                && bpf_xdp_store_bytes(self.0, 0, work.link.as_ptr().cast_mut().cast(), link) == 0
                && bpf_xdp_store_bytes(self.0, fields.network, work.packet.as_ptr().cast_mut().cast(), stored) == 0
        }
    }
}

impl Reply for Skb {
    const MEETS: bool = true;

    #[inline(always)]
    fn load(&self, offset: u32, to: *mut u8, length: u32) -> bool {
        // SAFETY: the program's own context; the callers give memory of `length` bytes.
        unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn is_to_us(&self, _: &[u8; LINK]) -> bool {
        // `PACKET_HOST`, as the kernel found by the interface's own address.
        // SAFETY: the context's own field.
        unsafe { (*self.0).pkt_type == 0 }
    }

    /// A checksum that is still to be filled in ("partial"), at a place of the rejected packet, would spoil the answer.
    /// The kernel forgets it when the bytes before and at that place are taken out.
    #[inline(always)]
    fn send<const EGRESS: bool>(&mut self, fields: &Fields, l3: bool, work: &Work, packet: u32) -> bool {
        let taken = fields.transport + 4;
        let Some(stored) = bounded::<1312>(packet) else { return false };
        let flags = if EGRESS { u64::from(BPF_F_INGRESS) } else { 0 };
        // SAFETY: the program's own context; `bounded` says how much of the memory is read.
        unsafe {
            bpf_skb_change_tail(self.0, fields.network + packet + taken, 0) == 0
                && bpf_skb_adjust_room(self.0, 0_u32.wrapping_sub(taken).cast_signed(), BPF_ADJ_ROOM_MAC, 0) == 0
                && (l3 || bpf_skb_store_bytes(self.0, 0, work.link.as_ptr().cast(), 12, 0) == 0)
                && bpf_skb_store_bytes(
                    self.0,
                    fields.network,
                    work.packet.as_ptr().cast(),
                    stored,
                    u64::from(BPF_F_INVALIDATE_HASH),
                ) == 0
                && bpf_redirect(self.ifindex(), flags) == TC_ACT_REDIRECT.into()
        }
    }
}
