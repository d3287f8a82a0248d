//! Packets that become answers, and go back the way they came.
//!
//! At XDP the frame is sent out again. At TC it is redirected: what arrived leaves by its interface, what would have left
//! arrives there. The programs at TC meet it once more then, and let it go ([`is_own`]).
//!
//! The answer is put together in memory of this CPU and copied over the packet. Both ways the kernel's helpers copy, which
//! see also what lies in fragments of an skb, and lengths that only the packet knows cost the verifier one comparison.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, TC_ACT_REDIRECT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::{
        bpf_ktime_get_ns, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use ringfence_engine::{
    Frame,
    answer::{self, Kind, Way},
    fields::Fields,
    ro::read,
};

use crate::{
    cookie::Read,
    maps::{INTERFACES, consts, explaining},
    packet::{Packet, Skb, Xdp},
};

/// How long the way from one program at TC to the other may take, nanoseconds: the packet waits in a queue of its CPU.
const ON_ITS_WAY: u64 = 1_000_000_000;
/// The shortest frame on an Ethernet, without its checksum.
const SHORTEST: u32 = 60;

/// Longest link header, and two bytes to align what follows.
pub const LINK: usize = 24;

/// Where an answer is put together.
#[repr(C)]
pub struct Work {
    /// See [`answer::take`].
    spent_until: u64,
    key: Key,
    /// What SYN cookies are made of.
    pub read: Read,
    /// The answer's link header: the rejected frame's source and destination, its tags, its type.
    link: [u8; LINK],
    /// The first bytes of its TCP header.
    pub tcp: [u8; 16],
    /// The answer from its IP header on, and room for what the verifier takes for possible.
    pub packet: [u8; 1312],
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

/// This CPU's working memory for answers.
#[inline(always)]
pub fn work() -> Option<*mut Work> {
    ANSWER.get_ptr_mut(0)
}

impl Work {
    /// Notes what the answer will look like to the programs at TC.
    #[inline(always)]
    pub fn mark(&mut self, fields: &Fields, kind: Kind, flags: u8) {
        self.key.way = Way::back(fields);
        self.key.looks = answer::looks(fields, kind, flags);
    }

    /// Lets the programs at TC know of the answer, if it will meet them.
    #[inline(always)]
    pub fn expect<P: Reply>(&self, now: u64) -> bool {
        !P::MEETS || ON_THE_WAY.insert(&self.key, now + ON_ITS_WAY, 0).is_ok()
    }

    /// Whether this CPU may give one more answer.
    #[inline(always)]
    pub fn take(&mut self, now: u64) -> bool {
        answer::take(&mut self.spent_until, now)
    }
}

/// What a hook does for an answer.
pub trait Reply: Packet {
    /// It meets answers that were made at another hook.
    const MEETS: bool;
    /// The program's context.
    fn context(&self) -> *mut c_void;
    /// Copies bytes out of the packet.
    fn load(&self, offset: u32, to: *mut u8, length: u32) -> bool;
    /// Whether an arriving frame was sent to this interface alone.
    fn is_to_us(&self, link: &[u8; LINK]) -> bool;
    /// Makes the packet as long as the answer, `packet` from the network header on, and lets it go back.
    fn send<const EGRESS: bool>(&mut self, fields: &Fields, l3: bool, work: &Work, packet: u32) -> bool;
}

/// Whether the packet is an answer from one of these programs: it was judged before it became one.
#[inline(always)]
pub fn is_own<P: Reply>(fields: &Fields) -> bool {
    let (arriving, leaving) = (consts::<false>(), consts::<true>());
    // Those that a program of the same direction made come here too, as where a host forwards them.
    let answers = read(&arriving.answers) | read(&arriving.cookies) | read(&leaving.answers) != 0;
    if !P::MEETS || explaining() || !answers || !answer::may_be(fields) {
        return false;
    }
    let Some(work) = work() else { return false };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let key = unsafe { &mut (*work).key };
    key.way.from = fields.src;
    key.way.to = fields.dst;
    key.looks = [fields.proto, fields.sport, fields.dport];
    // SAFETY: the value is read at once.
    let until = unsafe { ON_THE_WAY.get(key) }.copied();
    // SAFETY: the helper has no preconditions.
    until.is_some_and(|until| until > unsafe { bpf_ktime_get_ns() })
}

/// Copies the link header, turned round. Whether the frame goes from one station to one station; what arrives, to this one.
#[inline(always)]
pub fn link_header<P: Reply, const EGRESS: bool>(packet: &P, fields: &Fields, work: &mut Work) -> bool {
    let Some(rest) = bounded::<12>(fields.network.wrapping_sub(12)) else { return false };
    let [source, destination, behind] = [0, 6, 12].map(|at| work.link[at..].as_mut_ptr());
    if !packet.load(6, source, 6) || !packet.load(0, destination, 6) || !packet.load(12, behind, rest) {
        return false;
    }
    let group = (work.link[0] | work.link[6]) & 1 != 0;
    !group && (EGRESS || packet.is_to_us(&work.link))
}

/// `N` bytes of the answer.
#[inline(always)]
pub fn at<const AT: usize, const N: usize>(work: &mut Work) -> &mut [u8; N] {
    const { assert!(AT + N <= 1312) };
    // SAFETY: within the array, as just asserted; bytes need no alignment.
    unsafe { &mut *work.packet.as_mut_ptr().add(AT).cast() }
}

/// A number of bytes that the verifier knows to be at least 1 and at most `MAX`: that of 6.1 learns nothing from a
/// comparison with 0.
#[inline(always)]
pub fn bounded<const MAX: u32>(length: u32) -> Option<u32> {
    let mut before = u64::from(length).wrapping_sub(1);
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) before) };
    (before < u64::from(MAX)).then_some(before as u32 + 1)
}

impl Reply for Xdp {
    const MEETS: bool = false;

    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.0.cast()
    }

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
    fn context(&self) -> *mut c_void {
        self.0.cast()
    }

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
