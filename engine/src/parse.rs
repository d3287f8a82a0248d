//! Headers to [`Fields`].
//!
//! Every length is checked before it is believed, and what cannot be parsed is an error that the caller drops: never
//! "no match". Later fragments and over-long extension chains parse, with their upper fields unknown.

use ringfence_abi::chain::{
    IP_FAMILY_SHIFT, IP_FRAGMENT, PORT_UNKNOWN, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UNKNOWN, VLAN_ABSENT,
};

use crate::{
    Frame,
    deep::{self, Deep},
    fields::{FAMILY_V4, FAMILY_V6, Fields, Malformed},
};

/// Extension headers that are followed; RFC 8200 asks for no more than seven different ones.
pub const MAX_EXTENSIONS: u32 = 8;
/// VLAN tags in the frame that are followed (QinQ).
pub const MAX_TAGS: u32 = 2;

const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;

pub(crate) const ICMP: u32 = 1;
pub(crate) const TCP: u32 = 6;
pub(crate) const UDP: u32 = 17;
const DCCP: u32 = 33;
pub(crate) const ICMPV6: u32 = 58;
const SCTP: u32 = 132;
const UDPLITE: u32 = 136;
const FRAGMENT: u32 = 44;

/// Where a packet's frame begins, and what the hook knows that the frame does not say.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The frame begins at the IP header.
    pub l3: bool,
    /// The id of a VLAN tag held outside the frame, or [`VLAN_ABSENT`].
    pub tag: u32,
    /// Read what tracking needs, too.
    pub deep: bool,
}

/// Parses the headers into `fields` and `deep`, whatever stood there before.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F, link: Link, fields: &mut Fields, deep: &mut Deep) -> Result<(), Malformed> {
    fields.reset(link.tag);
    deep.reset();
    if link.l3 {
        let first = read::<F, 1>(frame, 0, Malformed::TruncatedLink)?;
        fields.ethertype = match first[0] >> 4 {
            4 => IPV4,
            6 => IPV6,
            _ => return Err(Malformed::BadNetwork),
        };
    } else {
        ethernet(frame, fields)?;
    }
    match fields.ethertype {
        IPV4 => ipv4(frame, link.deep, fields, deep),
        IPV6 => ipv6(frame, link.deep, fields, deep),
        _ => Ok(()),
    }
}

#[inline(always)]
fn ethernet<F: Frame>(frame: &F, fields: &mut Fields) -> Result<(), Malformed> {
    let header = read::<F, 14>(frame, 0, Malformed::TruncatedLink)?;
    let mut ethertype = be16(header[12], header[13]);
    let mut offset = 14;
    let mut tags = 0;
    while is_tag(ethertype) {
        if tags == MAX_TAGS {
            return Err(Malformed::VlanDepth);
        }
        tags += 1;
        let tag = read::<F, 4>(frame, offset, Malformed::TruncatedLink)?;
        if fields.vlan == VLAN_ABSENT {
            fields.vlan = be16(tag[0], tag[1]) & 0xfff;
        }
        ethertype = be16(tag[2], tag[3]);
        offset += 4;
    }
    fields.ethertype = ethertype;
    fields.network = offset;
    Ok(())
}

#[inline(always)]
fn is_tag(ethertype: u32) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, wanted: bool, fields: &mut Fields, deep: &mut Deep) -> Result<(), Malformed> {
    let start = fields.network;
    let header = read::<F, 20>(frame, start, Malformed::TruncatedNetwork)?;
    let header_len = u32::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || header_len < 20 {
        return Err(Malformed::BadNetwork);
    }
    let mut total = be16(header[2], header[3]);
    let tos = header[1];
    let fragment = be16(header[6], header[7]);
    let id = be16(header[4], header[5]);
    let proto = u32::from(header[9]);
    fields.family = FAMILY_V4;
    fields.hop_limit = u32::from(header[8]);
    fields.src = [u64::from(be32(header, 12)) << 32, 0];
    fields.dst = [u64::from(be32(header, 16)) << 32, 0];
    // Options are not read, but they must be there.
    if lacks(frame, start + header_len) {
        return Err(Malformed::TruncatedNetwork);
    }
    if total == 0 && frame.segment() != 0 {
        // BIG TCP (6.3, b1a78b9b9886): a local packet over 64 KiB carries no length.
        total = frame.total() - start;
    } else if total < header_len || lacks(frame, start + total) {
        return Err(Malformed::BadNetwork);
    }
    fields.length = total.min(0xffff);
    fields.ip = ip_index(FAMILY_V4, tos, fragment & 0x3fff != 0);
    if fragment & 0x3fff != 0 {
        deep.id = id;
        deep.next = proto;
        deep.offset = (fragment & 0x1fff) * 8;
        deep.size = total - header_len;
    }
    let upper = Upper { proto, offset: start + header_len, end: start + total, later: fragment & 0x1fff != 0 };
    transport(frame, wanted, fields, deep, upper)
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, wanted: bool, fields: &mut Fields, deep: &mut Deep) -> Result<(), Malformed> {
    let start = fields.network;
    let header = read::<F, 40>(frame, start, Malformed::TruncatedNetwork)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::BadNetwork);
    }
    let payload = be16(header[4], header[5]);
    let class = header[0] << 4 | header[1] >> 4;
    let proto = u32::from(header[6]);
    fields.family = FAMILY_V6;
    fields.hop_limit = u32::from(header[7]);
    fields.src = [be64(header, 8), be64(header, 16)];
    fields.dst = [be64(header, 24), be64(header, 32)];
    let mut end = start + 40 + payload;
    if payload == 0 && frame.segment() != 0 {
        // BIG TCP (5.19, 0fe79f28bfaf), as in IPv4.
        end = frame.total();
    } else if lacks(frame, end) {
        return Err(Malformed::BadNetwork);
    }
    fields.length = (end - start).min(0xffff);

    let mut chain = Extensions { proto, offset: start + 40, end, fragment: false, later: false };
    let _: bool = chain.follow(frame, deep)?
        && chain.follow(frame, deep)?
        && chain.follow(frame, deep)?
        && chain.follow(frame, deep)?
        && chain.follow(frame, deep)?
        && chain.follow(frame, deep)?
        && chain.follow(frame, deep)?
        && chain.follow(frame, deep)?;
    let Extensions { proto, offset, fragment, later, .. } = chain;
    fields.ip = ip_index(FAMILY_V6, class, fragment);
    if is_extension(proto) {
        unknown_protocol(fields);
        return Ok(());
    }
    transport(frame, wanted, fields, deep, Upper { proto, offset, end, later })
}

/// Where the chain of extension headers has been followed to.
///
/// [`MAX_EXTENSIONS`] steps are written out instead of looped over: before Linux 6.3 the verifier takes a way back only
/// where it is a jump (`check_cfg` refuses a "back-edge" by falling through), and the compiler lays loops out as it likes.
struct Extensions {
    proto: u32,
    offset: u32,
    end: u32,
    fragment: bool,
    later: bool,
}

impl Extensions {
    /// Follows one header; `false`: there is none, or it cannot be known because this is a later fragment.
    #[inline(always)]
    fn follow<F: Frame>(&mut self, frame: &F, deep: &mut Deep) -> Result<bool, Malformed> {
        if self.later || !is_extension(self.proto) {
            return Ok(false);
        }
        if self.offset + 8 > self.end {
            return Err(Malformed::TruncatedNetwork);
        }
        let head = read::<F, 8>(frame, self.offset, Malformed::TruncatedNetwork)?;
        let mut len = 8;
        if self.proto == FRAGMENT {
            let word = be16(head[2], head[3]);
            // Offset 0 without "more" is an atomic fragment (RFC 6946): a whole packet.
            self.fragment |= word & 0xfff9 != 0;
            self.later = word & 0xfff8 != 0;
            deep.id = be32(head, 4);
            deep.next = u32::from(head[0]);
            deep.offset = word & 0xfff8;
            deep.size = self.end - self.offset - 8;
        } else {
            len += u32::from(head[1]) * 8;
            if self.offset + len > self.end {
                return Err(Malformed::TruncatedNetwork);
            }
        }
        self.proto = u32::from(head[0]);
        self.offset += len;
        Ok(true)
    }
}

/// Hop-by-hop, routing, fragment, destination options, mobility, HIP, shim6. AH and ESP are protocols: what is behind
/// them is not looked at.
#[inline(always)]
fn is_extension(proto: u32) -> bool {
    matches!(proto, 0 | 43 | FRAGMENT | 60 | 135 | 139 | 140)
}

#[derive(Clone, Copy)]
struct Upper {
    proto: u32,
    offset: u32,
    end: u32,
    later: bool,
}

#[inline(always)]
fn transport<F: Frame>(
    frame: &F,
    wanted: bool,
    fields: &mut Fields,
    deep: &mut Deep,
    upper: Upper,
) -> Result<(), Malformed> {
    let Upper { proto, offset, end, later } = upper;
    let ports = has_ports(proto);
    fields.proto = proto;
    deep.proto = proto;
    fields.transport = offset;
    fields.end = end;
    if later {
        if ports {
            fields.sport = PORT_UNKNOWN;
            fields.dport = PORT_UNKNOWN;
        }
        fields.unknown = u32::from(ports || proto == ICMP || proto == ICMPV6);
        return Ok(());
    }
    if !ports && proto != ICMP && proto != ICMPV6 {
        return Ok(());
    }
    let needed = match proto {
        TCP => 20,
        UDP | UDPLITE => 8,
        SCTP | DCCP => 12,
        _ => 4,
    };
    if offset + needed > end {
        return Err(Malformed::TruncatedTransport);
    }
    let head = read::<F, 4>(frame, offset, Malformed::TruncatedTransport)?;
    if ports {
        fields.sport = be16(head[0], head[1]);
        fields.dport = be16(head[2], head[3]);
    } else {
        let message = be16(head[0], head[1]);
        fields.proto = if proto == ICMP { PROTO_ICMP } else { PROTO_ICMPV6 } + message;
        if wanted {
            deep::icmp(frame, proto == ICMPV6, u32::from(head[0]), (offset, end), deep)?;
        }
    }
    if proto == TCP {
        let head = read::<F, 2>(frame, offset + 12, Malformed::TruncatedTransport)?;
        let header_len = u32::from(head[0] >> 4) * 4;
        if header_len < 20 || offset + header_len > end {
            return Err(Malformed::TruncatedTransport);
        }
        fields.proto = PROTO_TCP + u32::from(head[1]);
        if wanted {
            let numbers = read::<F, 8>(frame, offset + 4, Malformed::TruncatedTransport)?;
            deep.seq = be32(numbers, 0);
            deep.ack = be32(numbers, 4);
            // SYN and FIN take a number each.
            let flags = u32::from(head[1] >> 1 & 1) + u32::from(head[1] & 1);
            deep.end = deep.seq.wrapping_add(end - offset - header_len + flags);
        }
        segment_length(frame, fields, offset + header_len);
    } else if proto == UDP {
        segment_length(frame, fields, offset + 8);
    }
    Ok(())
}

/// Whether a protocol's header begins with a source and a destination port.
#[inline(always)]
pub(crate) fn has_ports(proto: u32) -> bool {
    matches!(proto, TCP | UDP | SCTP | UDPLITE | DCCP)
}

/// The length that matters is that of the packets on the wire.
#[inline(always)]
fn segment_length<F: Frame>(frame: &F, fields: &mut Fields, payload: u32) {
    let segment = frame.segment();
    if segment != 0 {
        fields.length = fields.length.min((payload - fields.network).saturating_add(segment));
    }
}

#[inline(always)]
fn unknown_protocol(fields: &mut Fields) {
    fields.proto = PROTO_UNKNOWN;
    fields.sport = PORT_UNKNOWN;
    fields.dport = PORT_UNKNOWN;
    fields.unknown = 1;
}

#[inline(always)]
fn ip_index(family: u32, traffic_class: u8, fragment: bool) -> u32 {
    family << IP_FAMILY_SHIFT | if fragment { IP_FRAGMENT } else { 0 } | u32::from(traffic_class >> 2)
}

/// Whether the packet ends before `end`.
#[inline(always)]
fn lacks<F: Frame>(frame: &F, end: u32) -> bool {
    end > frame.linear() && end > frame.total()
}

/// Bytes in place, or why not: `truncated` when the packet ends before them.
#[inline(always)]
pub(crate) fn read<F: Frame, const N: usize>(
    frame: &F,
    offset: u32,
    truncated: Malformed,
) -> Result<&[u8; N], Malformed> {
    match frame.at::<N>(offset) {
        Some(bytes) => Ok(bytes),
        None if offset + N as u32 > frame.total() => Err(truncated),
        None => Err(Malformed::Unreadable),
    }
}

#[inline(always)]
pub(crate) fn be16(high: u8, low: u8) -> u32 {
    u32::from(high) << 8 | u32::from(low)
}

#[inline(always)]
pub(crate) fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline(always)]
pub(crate) fn be64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}
