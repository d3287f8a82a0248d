//! What tracking needs of a packet beyond the fields that rules read.

use crate::{
    Frame,
    fields::{FAMILY_V4, FAMILY_V6, Malformed},
    parse::{ICMP, ICMPV6, be16, be32, be64, has_ports, read},
};

/// [`Deep::message`]: nothing that belongs to a query or is an error.
pub const MESSAGE_OTHER: u32 = 0;
/// A query; its identifier and type are known.
pub const MESSAGE_REQUEST: u32 = 1;
/// The answer to one.
pub const MESSAGE_REPLY: u32 = 2;
/// An error about a packet, whose own endpoints are in [`Deep::inner`].
pub const MESSAGE_ERROR: u32 = 3;
/// An error whose packet cannot be read.
pub const MESSAGE_BAD_ERROR: u32 = 4;

/// [`Deep::proto`] where it could not be reached.
pub const NO_PROTO: u32 = 256;

/// Bit of [`Endpoints::dport`], above the type.
pub const QUERY_REPLY: u32 = 256;

/// Both ends of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Source address, left-aligned.
    pub src: [u64; 2],
    /// Destination address.
    pub dst: [u64; 2],
    /// Source port; of a query its identifier.
    pub sport: u32,
    /// Destination port; of a query the type of its request, and [`QUERY_REPLY`] if this is the answer.
    pub dport: u32,
    /// Protocol number.
    pub proto: u32,
    /// Of `fields::FAMILY_`.
    pub family: u32,
}

/// See the module; what is said of TCP, ICMP and fragments is set only for a packet that is one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deep {
    /// Protocol number; [`NO_PROTO`].
    pub proto: u32,
    /// TCP: sequence number.
    pub seq: u32,
    /// TCP: acknowledgement number.
    pub ack: u32,
    /// TCP: the sequence number after this segment (or all of them, where it will be cut into several).
    pub end: u32,
    /// ICMP: one of `MESSAGE_`.
    pub message: u32,
    /// ICMP query: identifier.
    pub query: u32,
    /// ICMP query: type of its requests.
    pub request: u32,
    /// Fragment: identification.
    pub id: u32,
    /// Fragment: protocol, or IPv6 header after the fragment header.
    pub next: u32,
    /// Fragment: bytes before it.
    pub offset: u32,
    /// Fragment: its bytes.
    pub size: u32,
    /// Zero.
    pub zero: u32,
    /// ICMP error: the packet that it is about.
    pub inner: Endpoints,
}

impl Deep {
    /// Before a packet is parsed.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.proto = NO_PROTO;
        self.message = MESSAGE_OTHER;
        self.offset = 0;
    }
}

/// The type of a query's requests, and whether `kind` is one (or an answer); `None`: no query. Echo, timestamp, address
/// mask and information of ICMP, echo of `ICMPv6`.
#[inline(always)]
#[must_use]
pub fn query(v6: bool, kind: u32) -> Option<(u32, u32)> {
    if v6 {
        return match kind {
            128 => Some((128, MESSAGE_REQUEST)),
            129 => Some((128, MESSAGE_REPLY)),
            _ => None,
        };
    }
    match kind {
        8 | 13 | 15 | 17 => Some((kind, MESSAGE_REQUEST)),
        0 => Some((8, MESSAGE_REPLY)),
        14 | 16 | 18 => Some((kind - 1, MESSAGE_REPLY)),
        _ => None,
    }
}

/// Whether an ICMP type is an error about a packet: destination unreachable, source quench, redirect, time exceeded,
/// parameter problem; of `ICMPv6` the types below 5.
#[inline(always)]
#[must_use]
pub fn is_error(v6: bool, kind: u32) -> bool {
    if v6 { matches!(kind, 1..=4) } else { matches!(kind, 3 | 4 | 5 | 11 | 12) }
}

/// The family's constant.
#[inline(always)]
#[must_use]
fn family(v6: bool) -> u32 {
    if v6 { FAMILY_V6 } else { FAMILY_V4 }
}

/// What an ICMP message between `at.0` and `at.1` is about.
#[inline(always)]
pub(crate) fn icmp<F: Frame>(frame: &F, v6: bool, kind: u32, at: (u32, u32), deep: &mut Deep) -> Result<(), Malformed> {
    let (offset, end) = at;
    if let Some((request, message)) = query(v6, kind) {
        if offset + 8 <= end {
            let head = read::<F, 2>(frame, offset + 4, Malformed::TruncatedTransport)?;
            deep.query = be16(head[0], head[1]);
            deep.request = request;
            deep.message = message;
        }
    } else if is_error(v6, kind) {
        deep.message = MESSAGE_BAD_ERROR;
        if inner(frame, v6, (offset + 8, end), &mut deep.inner)? {
            deep.message = MESSAGE_ERROR;
        }
    }
    Ok(())
}

/// The endpoints of the packet that an error quotes; `false`: they cannot be told. The quoted packet may be cut short, so
/// its lengths say nothing.
#[inline(always)]
fn inner<F: Frame>(frame: &F, v6: bool, at: (u32, u32), inner: &mut Endpoints) -> Result<bool, Malformed> {
    let (start, end) = at;
    let header_len = if v6 { 40 } else { 20 };
    if start + header_len + 8 > end {
        return Ok(false);
    }
    let upper;
    if v6 {
        let header = read::<F, 40>(frame, start, Malformed::TruncatedTransport)?;
        if header[0] >> 4 != 6 {
            return Ok(false);
        }
        inner.proto = u32::from(header[6]);
        inner.src = [be64(header, 8), be64(header, 16)];
        inner.dst = [be64(header, 24), be64(header, 32)];
        upper = start + 40;
    } else {
        let header = read::<F, 20>(frame, start, Malformed::TruncatedTransport)?;
        let len = u32::from(header[0] & 15) * 4;
        // A later fragment quotes no ports.
        if header[0] >> 4 != 4 || len < 20 || be16(header[6], header[7]) & 0x1fff != 0 || start + len + 8 > end {
            return Ok(false);
        }
        inner.proto = u32::from(header[9]);
        inner.src = [u64::from(be32(header, 12)) << 32, 0];
        inner.dst = [u64::from(be32(header, 16)) << 32, 0];
        upper = start + len;
    }
    inner.family = family(v6);
    let head = read::<F, 8>(frame, upper, Malformed::TruncatedTransport)?;
    match inner.proto {
        proto if has_ports(proto) => {
            inner.sport = be16(head[0], head[1]);
            inner.dport = be16(head[2], head[3]);
        }
        ICMP | ICMPV6 => {
            let Some((request, message)) = query(inner.proto == ICMPV6, u32::from(head[0])) else {
                return Ok(false);
            };
            inner.sport = be16(head[4], head[5]);
            inner.dport = request | if message == MESSAGE_REPLY { QUERY_REPLY } else { 0 };
        }
        _ => {
            inner.sport = 0;
            inner.dport = 0;
        }
    }
    Ok(true)
}
