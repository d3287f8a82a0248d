//! A frame's fields, read from the left, one rule a line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_abi::counter::MALFORMED_NAMES;

use super::{Context, Hook};

/// What a packet says of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field<T> {
    /// The packet has the field.
    Value(T),
    /// A packet of this kind has no such field.
    Absent,
    /// It has the field but where it stands cannot be read.
    Unknown,
}

impl<T> Field<T> {
    pub(super) fn or_absent(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Self::Value)
    }

    /// Whether the field is in the state *unknown*.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An ICMP message's kind. The protocol number says which table of types it is of, whatever the IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// Protocol 58 (`ICMPv6`), otherwise protocol 1.
    pub v6: bool,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// The fields of a packet that rules and the floor read; the interface is in [`Context`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The frame carries ARP.
    pub arp: bool,
    /// Outermost VLAN id, 0..=4095.
    pub vlan: Field<u16>,
    /// `skb->mark`.
    pub mark: Field<u32>,
    /// IP version.
    pub family: Field<Family>,
    /// Source address.
    pub from: Field<IpAddr>,
    /// Destination address.
    pub to: Field<IpAddr>,
    /// A fragment, first or later.
    pub fragment: Field<bool>,
    /// A fragment without the beginning.
    pub later_fragment: bool,
    /// DSCP, 0..=63.
    pub dscp: Field<u8>,
    /// Bytes from the network header on, at most 65,535.
    pub length: Field<u16>,
    /// TTL or hop limit.
    pub hop_limit: Field<u8>,
    /// Protocol number.
    pub proto: Field<u8>,
    /// Source port.
    pub source_port: Field<u16>,
    /// Destination port.
    pub port: Field<u16>,
    /// TCP flags, byte 13 of the header.
    pub flags: Field<u8>,
    /// ICMP type and code.
    pub icmp: Field<Icmp>,
}

impl Fields {
    /// Whether some field is in the state *unknown*.
    #[must_use]
    pub fn any_unknown(&self) -> bool {
        self.proto.is_unknown() || self.port.is_unknown() || self.flags.is_unknown() || self.icmp.is_unknown()
    }
}

/// Why a frame is dropped before any rule; the discriminant is the index into [`MALFORMED_NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The frame ends inside the Ethernet header or a VLAN tag.
    #[error("truncated-link")]
    TruncatedLink = 0,
    /// More than two VLAN tags in the frame.
    #[error("vlan-depth")]
    VlanDepth = 1,
    /// The frame ends inside the IP header or an extension header.
    #[error("truncated-network")]
    TruncatedNetwork = 2,
    /// Version, header length or total length contradicts itself or the frame.
    #[error("bad-network")]
    BadNetwork = 3,
    /// The packet ends inside its transport header.
    #[error("truncated-transport")]
    TruncatedTransport = 4,
}

impl Malformed {
    /// The name it is counted under.
    #[must_use]
    pub fn name(self) -> &'static str {
        MALFORMED_NAMES[self as usize]
    }
}

/// A frame's fields, or why it has none.
pub type Parsed = Result<Fields, Malformed>;

const MAX_TAGS: usize = 2;
const MAX_EXTENSIONS: usize = 8;
const FRAGMENT_HEADER: u8 = 44;

/// Reads a frame.
pub fn parse(frame: &[u8], context: &Context) -> Parsed {
    let at_tc = context.hook == Hook::Tc;
    let mut fields = Fields {
        arp: false,
        vlan: Field::Absent,
        mark: Field::or_absent(context.mark.filter(|_| at_tc)),
        family: Field::Absent,
        from: Field::Absent,
        to: Field::Absent,
        fragment: Field::Absent,
        later_fragment: false,
        dscp: Field::Absent,
        length: Field::Absent,
        hop_limit: Field::Absent,
        proto: Field::Absent,
        source_port: Field::Absent,
        port: Field::Absent,
        flags: Field::Absent,
        icmp: Field::Absent,
    };
    let mut rest = frame;
    let (ethertype, first_tag) = if context.l3 { (ethertype_of_version(frame)?, None) } else { read_link(&mut rest)? };
    fields.vlan = Field::or_absent(context.tag.filter(|_| at_tc).or(first_tag).map(|tci| tci & 0xfff));
    let segment = if at_tc { context.segment } else { 0 };
    match ethertype {
        0x0800 => read_ipv4(rest, segment, &mut fields)?,
        0x86dd => read_ipv6(rest, segment, &mut fields)?,
        other => fields.arp = other == 0x0806,
    }
    Ok(fields)
}

fn ethertype_of_version(packet: &[u8]) -> Result<u16, Malformed> {
    match packet.first().ok_or(Malformed::TruncatedLink)? >> 4 {
        4 => Ok(0x0800),
        6 => Ok(0x86dd),
        _ => Err(Malformed::BadNetwork),
    }
}

/// The ethertype behind all tags, and the first tag. Leaves `rest` at the network header.
fn read_link(rest: &mut &[u8]) -> Result<(u16, Option<u16>), Malformed> {
    let header = take(rest, 14, Malformed::TruncatedLink)?;
    let mut ethertype = be16(&header[12..]);
    let mut tags = Vec::new();
    while matches!(ethertype, 0x8100 | 0x88a8 | 0x9100) {
        if tags.len() == MAX_TAGS {
            return Err(Malformed::VlanDepth);
        }
        let tag = take(rest, 4, Malformed::TruncatedLink)?;
        tags.push(be16(tag));
        ethertype = be16(&tag[2..]);
    }
    Ok((ethertype, tags.first().copied()))
}

fn read_ipv4(packet: &[u8], segment: u16, fields: &mut Fields) -> Result<(), Malformed> {
    let fixed = packet.get(..20).ok_or(Malformed::TruncatedNetwork)?;
    let header_length = usize::from(fixed[0] & 0xf) * 4;
    if fixed[0] >> 4 != 4 || header_length < 20 {
        return Err(Malformed::BadNetwork);
    }
    if packet.len() < header_length {
        return Err(Malformed::TruncatedNetwork);
    }
    let total_length = match usize::from(be16(&fixed[2..])) {
        0 if segment != 0 => packet.len(),
        said => said,
    };
    if total_length < header_length || total_length > packet.len() {
        return Err(Malformed::BadNetwork);
    }
    let flags_fragment = be16(&fixed[6..]);
    let (offset, more) = (flags_fragment & 0x1fff, flags_fragment & 0x2000);
    fields.family = Field::Value(Family::V4);
    fields.from = Field::Value(IpAddr::V4(Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15])));
    fields.to = Field::Value(IpAddr::V4(Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19])));
    fields.dscp = Field::Value(fixed[1] >> 2);
    fields.length = Field::Value(total_length.min(65_535) as u16);
    fields.hop_limit = Field::Value(fixed[8]);
    fields.fragment = Field::Value(offset != 0 || more != 0);
    fields.proto = Field::Value(fixed[9]);
    if offset != 0 {
        fields.later_fragment = true;
        details_unknown(fields);
        return Ok(());
    }
    let headers = header_length + read_transport(fixed[9], &packet[header_length..total_length], fields)?;
    segment_length(headers, segment, fields);
    Ok(())
}

fn read_ipv6(packet: &[u8], segment: u16, fields: &mut Fields) -> Result<(), Malformed> {
    let fixed = packet.get(..40).ok_or(Malformed::TruncatedNetwork)?;
    if fixed[0] >> 4 != 6 {
        return Err(Malformed::BadNetwork);
    }
    let total_length = match usize::from(be16(&fixed[4..])) {
        0 if segment != 0 => packet.len(),
        said => 40 + said,
    };
    if total_length > packet.len() {
        return Err(Malformed::BadNetwork);
    }
    fields.family = Field::Value(Family::V6);
    fields.from = Field::Value(ipv6_address(&fixed[8..]));
    fields.to = Field::Value(ipv6_address(&fixed[24..]));
    fields.dscp = Field::Value((be16(fixed) >> 6 & 0x3f) as u8);
    fields.length = Field::Value(total_length.min(65_535) as u16);
    fields.hop_limit = Field::Value(fixed[7]);
    fields.fragment = Field::Value(false);

    let mut rest = &packet[40..total_length];
    let mut next = fixed[6];
    for _ in 0..MAX_EXTENSIONS {
        if next == FRAGMENT_HEADER {
            let header = take(&mut rest, 8, Malformed::TruncatedNetwork)?;
            let (offset, more) = (be16(&header[2..]) >> 3, be16(&header[2..]) & 1);
            next = header[0];
            if offset != 0 || more != 0 {
                fields.fragment = Field::Value(true);
            }
            if offset != 0 {
                // What follows is the middle of something; only the number of it is known, and not even that when
                // the number is one more extension header's.
                fields.proto = if is_extension(next) { Field::Unknown } else { Field::Value(next) };
                fields.later_fragment = true;
                details_unknown(fields);
                return Ok(());
            }
        } else if is_extension(next) {
            let fixed = rest.get(..8).ok_or(Malformed::TruncatedNetwork)?;
            let length = (usize::from(fixed[1]) + 1) * 8;
            next = fixed[0];
            take(&mut rest, length, Malformed::TruncatedNetwork)?;
        } else {
            break;
        }
    }
    if is_extension(next) {
        fields.proto = Field::Unknown;
        details_unknown(fields);
        return Ok(());
    }
    fields.proto = Field::Value(next);
    let headers = total_length - rest.len() + read_transport(next, rest, fields)?;
    segment_length(headers, segment, fields);
    Ok(())
}

/// Hop-by-hop, routing, destination options, mobility, HIP, shim6, and the fragment header. AH and ESP are protocols.
fn is_extension(number: u8) -> bool {
    matches!(number, 0 | 43 | 60 | 135 | 139 | 140 | FRAGMENT_HEADER)
}

/// What the protocol has beyond its number, in the state *unknown*; all of it when the number is unknown itself.
fn details_unknown(fields: &mut Fields) {
    let (ports, flags, icmp) = match fields.proto {
        Field::Value(number) => (has_ports(number), number == 6, matches!(number, 1 | 58)),
        _ => (true, true, true),
    };
    if ports {
        fields.source_port = Field::Unknown;
        fields.port = Field::Unknown;
    }
    if flags {
        fields.flags = Field::Unknown;
    }
    if icmp {
        fields.icmp = Field::Unknown;
    }
}

/// TCP, UDP, DCCP, SCTP, UDP-Lite.
fn has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 33 | 132 | 136)
}

/// Returns the length of the transport header, 0 where it has none that is read.
fn read_transport(proto: u8, payload: &[u8], fields: &mut Fields) -> Result<usize, Malformed> {
    let needed = match proto {
        6 => 20,
        17 | 136 => 8,
        33 | 132 => 12,
        1 | 58 => 4,
        _ => return Ok(0),
    };
    if payload.len() < needed {
        return Err(Malformed::TruncatedTransport);
    }
    if has_ports(proto) {
        fields.source_port = Field::Value(be16(payload));
        fields.port = Field::Value(be16(&payload[2..]));
    } else {
        fields.icmp = Field::Value(Icmp { v6: proto == 58, kind: payload[0], code: payload[1] });
    }
    if proto != 6 {
        return Ok(needed);
    }
    let header_length = usize::from(payload[12] >> 4) * 4;
    if header_length < 20 || header_length > payload.len() {
        return Err(Malformed::TruncatedTransport);
    }
    fields.flags = Field::Value(payload[13]);
    Ok(header_length)
}

/// The length that rules read is that of the packets on the wire: TCP and UDP packets that are still to be cut into
/// segments have that of a full segment.
fn segment_length(headers: usize, segment: u16, fields: &mut Fields) {
    if segment == 0 || !matches!(fields.proto, Field::Value(6 | 17)) {
        return;
    }
    if let Field::Value(length) = &mut fields.length {
        *length = usize::from(*length).min(headers + usize::from(segment)) as u16;
    }
}

/// Cuts `count` bytes off the front, or says that the frame is too short for them.
fn take<'a>(rest: &mut &'a [u8], count: usize, short: Malformed) -> Result<&'a [u8], Malformed> {
    let (front, back) = rest.split_at_checked(count).ok_or(short)?;
    *rest = back;
    Ok(front)
}

/// The first two bytes as a number; the caller has checked that they are there.
fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// The first sixteen bytes as an address; the caller has checked that they are there.
fn ipv6_address(bytes: &[u8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| bytes[i])))
}
