//! Packets at XDP and at TC.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::generated::{bpf_skb_pull_data, bpf_xdp_get_buff_len},
};
use ringfence_engine::Frame;

/// What the hooks have in common.
pub trait Packet {
    /// The bytes that can be read in place; invalid after [`Packet::pull`].
    type View: Frame;
    /// A view of the packet as it is now.
    fn frame(&self) -> Self::View;
    /// Makes more of the headers readable; `false` when the hook cannot.
    fn pull(&mut self) -> bool;
    /// The interface.
    fn ifindex(&self) -> u32;
    /// The mark, where the hook has one.
    fn mark(&self) -> Option<u32>;
    /// A VLAN tag held outside the packet, as `explain::Question::vlan`.
    fn tag(&self) -> u32;
    /// Packets this will be on the wire.
    fn segments(&self) -> u32;
    /// All its bytes.
    fn bytes(&self) -> u32;
}

/// An XDP frame.
pub struct Xdp(pub *mut xdp_md);

/// Bytes between two packet pointers.
pub struct Bytes {
    data: usize,
    end: usize,
}

impl Bytes {
    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        let mut offset = offset as usize;
        // As in the arena: the comparison must see the final value.
        // SAFETY: copies a register to itself.
        unsafe { asm!("{0} = {0}", inout(reg) offset) };
        // Headers never reach this far; the verifier wants variable offsets below 65,536 (MAX_PACKET_OFF).
        if offset > 0x7fff {
            return None;
        }
        let mut start = self.data + offset;
        // Nor may LLVM turn `start + 1 > end` into `start == end`, which tells the verifier nothing.
        // SAFETY: copies a register to itself.
        unsafe { asm!("{0} = {0}", inout(reg) start) };
        if start + N > self.end {
            return None;
        }
        // SAFETY: `N` bytes from here lie within the packet, as just compared; bytes need no alignment.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        (self.end - self.data) as u32
    }
}

/// View of an XDP frame.
pub struct XdpView {
    bytes: Bytes,
    ctx: *mut xdp_md,
}

impl Frame for XdpView {
    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        self.bytes.at(offset)
    }

    #[inline(always)]
    fn linear(&self) -> u32 {
        self.bytes.len()
    }

    #[inline(always)]
    fn total(&self) -> u32 {
        // SAFETY: `ctx` is the program's own context.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as u32 }
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        0
    }
}

impl Packet for Xdp {
    type View = XdpView;

    #[inline(always)]
    fn frame(&self) -> XdpView {
        // SAFETY: the context's own fields.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        XdpView { bytes: Bytes { data, end }, ctx: self.0 }
    }

    #[inline(always)]
    fn pull(&mut self) -> bool {
        false
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context's own field.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn mark(&self) -> Option<u32> {
        None
    }

    #[inline(always)]
    fn tag(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn bytes(&self) -> u32 {
        self.frame().total()
    }
}

/// A socket buffer at TC.
pub struct Skb(pub *mut __sk_buff);

/// View of a socket buffer.
pub struct SkbView {
    bytes: Bytes,
    skb: *mut __sk_buff,
}

impl Frame for SkbView {
    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<&[u8; N]> {
        self.bytes.at(offset)
    }

    #[inline(always)]
    fn linear(&self) -> u32 {
        self.bytes.len()
    }

    #[inline(always)]
    fn total(&self) -> u32 {
        // SAFETY: the context's own field.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: the context's own field.
        unsafe { (*self.skb).gso_size }
    }
}

/// Bytes of headers to make readable in one piece.
const HEADERS: u32 = 1024;

impl Packet for Skb {
    type View = SkbView;

    #[inline(always)]
    fn frame(&self) -> SkbView {
        // SAFETY: the context's own fields.
        let (data, end) = unsafe { ((*self.0).data as usize, (*self.0).data_end as usize) };
        SkbView { bytes: Bytes { data, end }, skb: self.0 }
    }

    /// Costs a copy of the headers, so it is for packets that could not be read without.
    #[inline(always)]
    fn pull(&mut self) -> bool {
        // SAFETY: the program's own context; packet pointers are taken anew afterwards.
        unsafe { bpf_skb_pull_data(self.0, (*self.0).len.min(HEADERS)) == 0 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context's own field.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    fn mark(&self) -> Option<u32> {
        // SAFETY: the context's own field.
        Some(unsafe { (*self.0).mark })
    }

    #[inline(always)]
    fn tag(&self) -> u32 {
        // SAFETY: the context's own fields.
        unsafe { if (*self.0).vlan_present == 0 { 0 } else { 0x1_0000 | (*self.0).vlan_tci } }
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        // SAFETY: the context's own field; it is 0 for what is not cut.
        unsafe { (*self.0).gso_segs }.max(1)
    }

    #[inline(always)]
    fn bytes(&self) -> u32 {
        // SAFETY: the context's own field.
        unsafe { (*self.0).len }
    }
}
