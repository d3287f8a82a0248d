//! What the sender of a rejected packet is told, and in which bytes: a TCP reset, or an ICMP error that quotes the packet.
//!
//! Nothing is said where RFC 1122 (3.2.2), RFC 4443 (2.4) or RFC 9293 forbid an answer. Checksums are sums of known
//! words; only a quotation is summed elsewhere, because the kernel has a helper for it.

use ringfence_abi::chain::{IP_FRAGMENT, PORT_ABSENT, PROTO_ABSENT, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP};

use crate::fields::{FAMILY_V4, FAMILY_V6, Fields};

/// TCP flag.
pub const FIN: u8 = 1;
/// TCP flag.
pub const SYN: u8 = 2;
/// TCP flag.
pub const RST: u8 = 4;
/// TCP flag.
pub const ACK: u8 = 16;

/// Bytes of an IPv4 packet that an error quotes: the error has 576 bytes then (RFC 1812, 4.3.2.3).
pub const QUOTE_V4: u32 = 576 - 20 - 8;
/// Bytes of an IPv6 packet that an error quotes: the error has the smallest MTU then (RFC 4443, 2.4 (c)).
pub const QUOTE_V6: u32 = 1280 - 40 - 8;
/// Length of the header of a reset, and of the header before a quotation.
pub const TCP_HEADER: u32 = 20;
/// See [`TCP_HEADER`].
pub const ICMP_HEADER: u32 = 8;

/// Answers a CPU gives in a second.
pub const PER_SECOND: u64 = 1000;
/// Answers it gives at once, after a time without.
pub const BURST: u64 = 50;

/// Length of the header of a SYN+ACK, with its option.
pub const SYN_ACK_HEADER: u32 = 24;
/// What a client may send before the kernel, which makes the connection of its acknowledgement, names a window.
const WINDOW: u16 = 16_384;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
const TTL: u8 = 64;

/// How a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By a TCP reset.
    Reset,
    /// By "administratively prohibited".
    Prohibited,
    /// By the second segment of a handshake, with a SYN cookie: the packet is not rejected, its sender must prove itself.
    Cookie,
}

/// How the sender of such a packet is told; `None`: not at all.
#[inline(always)]
#[must_use]
pub fn kind(fields: &Fields) -> Option<Kind> {
    if fields.unknown != 0 || !pair(fields) {
        return None;
    }
    let fragment = fields.ip & IP_FRAGMENT != 0;
    if fields.proto < PROTO_TCP {
        // The first fragment tells itself from later ones by its ports.
        return (!fragment || fields.sport < PORT_ABSENT).then_some(Kind::Prohibited);
    }
    if fields.proto < PROTO_ICMP {
        // The length of a segment in fragments is not known.
        let reset = (fields.proto - PROTO_TCP) as u8 & RST != 0;
        return (!reset && !fragment).then_some(Kind::Reset);
    }
    if fields.proto < PROTO_ICMPV6 {
        return asks_v4((fields.proto - PROTO_ICMP) >> 8).then_some(Kind::Prohibited);
    }
    (fields.proto < PROTO_ABSENT && asks_v6((fields.proto - PROTO_ICMPV6) >> 8)).then_some(Kind::Prohibited)
}

/// Whether both addresses belong to one host each, and not to the same.
#[inline(always)]
fn pair(fields: &Fields) -> bool {
    if fields.src[0] == fields.dst[0] && fields.src[1] == fields.dst[1] {
        return false;
    }
    match fields.family {
        FAMILY_V4 => single_v4(fields.src[0]) && single_v4(fields.dst[0]),
        FAMILY_V6 => single_v6(fields.src) && single_v6(fields.dst),
        _ => false,
    }
}

/// Neither "this network", nor loopback, nor multicast, nor reserved, the broadcast address included.
#[inline(always)]
fn single_v4(address: u64) -> bool {
    let first = address >> 56;
    first != 0 && first != 127 && first < 224
}

/// Neither unspecified, nor loopback, nor multicast.
#[inline(always)]
fn single_v6(address: [u64; 2]) -> bool {
    address[0] >> 56 != 0xff && (address[0] != 0 || address[1] > 1)
}

/// Types that are no errors; one that is not known may be one.
#[inline(always)]
fn asks_v4(kind: u32) -> bool {
    matches!(kind, 0 | 8..=10 | 13..=18)
}

/// Types that are no errors; a redirect is answered as little as they are.
#[inline(always)]
fn asks_v6(kind: u32) -> bool {
    kind >= 128 && kind != 137
}

/// What a reset must know of the segment it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Its flags.
    pub flags: u8,
    /// Its bytes after the header.
    pub payload: u32,
}

/// The reset of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Its sequence number.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Its flags.
    pub flags: u8,
}

impl Segment {
    /// The reset that a closed port answers (RFC 9293, 3.10.7.1).
    #[inline(always)]
    #[must_use]
    pub fn reset(self) -> Reset {
        if self.flags & ACK != 0 {
            return Reset { seq: self.ack, ack: 0, flags: RST };
        }
        let length = self.payload + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        Reset { seq: 0, ack: self.seq.wrapping_add(length), flags: RST | ACK }
    }
}

/// Whence and whither an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Its source, as [`Fields::src`].
    pub from: [u64; 2],
    /// Its destination.
    pub to: [u64; 2],
}

impl Way {
    /// The way back of a packet.
    #[inline(always)]
    #[must_use]
    pub fn back(fields: &Fields) -> Self {
        Self { from: [fields.dst[0], fields.dst[1]], to: [fields.src[0], fields.src[1]] }
    }

    /// The header of an IPv4 answer of `length` bytes. An error has the precedence "internetwork control".
    #[inline(always)]
    pub fn ipv4(self, kind: Kind, length: u32, header: &mut [u8; 20]) {
        let (tos, protocol) = match kind {
            Kind::Reset | Kind::Cookie => (0_u8, PROTOCOL_TCP),
            Kind::Prohibited => (0xc0, PROTOCOL_ICMP),
        };
        let fixed = 0x4500 + u64::from(tos) + 0x4000 + (u64::from(TTL) << 8) + u64::from(protocol);
        let sum = !fold(fixed + u64::from(length) + words(self.from[0]) + words(self.to[0]));
        header[0] = 0x45;
        header[1] = tos;
        set16(header, 2, length as u16);
        set16(header, 4, 0);
        set16(header, 6, 0x4000);
        header[8] = TTL;
        header[9] = protocol;
        set16(header, 10, sum);
        set32(header, 12, (self.from[0] >> 32) as u32);
        set32(header, 16, (self.to[0] >> 32) as u32);
    }

    /// The header of an IPv6 answer of `length` bytes, the header included.
    #[inline(always)]
    pub fn ipv6(self, kind: Kind, length: u32, header: &mut [u8; 40]) {
        set32(header, 0, 0x6000_0000);
        set16(header, 4, (length - 40) as u16);
        header[6] = if matches!(kind, Kind::Prohibited) { PROTOCOL_ICMPV6 } else { PROTOCOL_TCP };
        header[7] = TTL;
        set64(header, 8, self.from[0]);
        set64(header, 16, self.from[1]);
        set64(header, 24, self.to[0]);
        set64(header, 32, self.to[1]);
    }

    /// A whole TCP reset.
    #[inline(always)]
    pub fn tcp(self, source: u32, destination: u32, reset: Reset, header: &mut [u8; 20]) {
        let Reset { seq, ack, flags } = reset;
        let fixed = u64::from(source) + u64::from(destination) + 0x5000 + u64::from(flags);
        let sum = fixed + words(u64::from(seq)) + words(u64::from(ack)) + self.pseudo(PROTOCOL_TCP, TCP_HEADER);
        set16(header, 0, source as u16);
        set16(header, 2, destination as u16);
        set32(header, 4, seq);
        set32(header, 8, ack);
        header[12] = 0x50;
        header[13] = flags;
        set16(header, 14, 0);
        set16(header, 16, !fold(sum));
        set16(header, 18, 0);
    }

    /// A whole SYN+ACK: the sequence number is the cookie, `ack` acknowledges the SYN, the one option is `mss`.
    #[inline(always)]
    pub fn syn_ack(self, ports: [u32; 2], cookie: u32, ack: u32, mss: u32, header: &mut [u8; 24]) {
        let fixed = u64::from(ports[0]) + u64::from(ports[1]) + 0x6000 + u64::from(SYN | ACK) + u64::from(WINDOW);
        let numbers = words(u64::from(cookie)) + words(u64::from(ack)) + 0x0204 + u64::from(mss & 0xffff);
        let sum = fixed + numbers + self.pseudo(PROTOCOL_TCP, SYN_ACK_HEADER);
        set16(header, 0, ports[0] as u16);
        set16(header, 2, ports[1] as u16);
        set32(header, 4, cookie);
        set32(header, 8, ack);
        header[12] = 0x60;
        header[13] = SYN | ACK;
        set16(header, 14, WINDOW);
        set16(header, 16, !fold(sum));
        set16(header, 18, 0);
        set16(header, 20, 0x0204);
        set16(header, 22, mss as u16);
    }

    /// The header before the quotation of an `ICMP` error; `quoted` is the sum of the quotation's 16-bit words.
    #[inline(always)]
    pub fn icmp(quoted: u64, header: &mut [u8; 8]) {
        prohibited(3, 13, quoted, header);
    }

    /// The same for `ICMPv6`, whose checksum covers addresses and length.
    #[inline(always)]
    pub fn icmpv6(self, quoted: u64, quote: u32, header: &mut [u8; 8]) {
        prohibited(1, 1, quoted + self.pseudo(PROTOCOL_ICMPV6, ICMP_HEADER + quote), header);
    }

    #[inline(always)]
    fn pseudo(self, protocol: u8, length: u32) -> u64 {
        let addresses = words(self.from[0]) + words(self.from[1]) + words(self.to[0]) + words(self.to[1]);
        addresses + u64::from(protocol) + u64::from(length)
    }
}

#[inline(always)]
fn prohibited(kind: u8, code: u8, sum: u64, header: &mut [u8; 8]) {
    let sum = (u64::from(kind) << 8) + u64::from(code) + sum;
    header[0] = kind;
    header[1] = code;
    set16(header, 2, !fold(sum));
    set32(header, 4, 0);
}

/// The answer's fields [`Fields::proto`], `sport` and `dport`, as a program that meets it parses them.
#[inline(always)]
#[must_use]
pub fn looks(fields: &Fields, kind: Kind, flags: u8) -> [u32; 3] {
    match (kind, fields.family) {
        (Kind::Reset | Kind::Cookie, _) => [PROTO_TCP + u32::from(flags), fields.dport, fields.sport],
        (Kind::Prohibited, FAMILY_V4) => [PROTO_ICMP + 0x030d, PORT_ABSENT, PORT_ABSENT],
        (Kind::Prohibited, _) => [PROTO_ICMPV6 + 0x0101, PORT_ABSENT, PORT_ABSENT],
    }
}

/// Whether a packet looks like an answer at all.
#[inline(always)]
#[must_use]
pub fn may_be(fields: &Fields) -> bool {
    [
        PROTO_TCP + u32::from(SYN | ACK),
        PROTO_TCP + u32::from(RST),
        PROTO_TCP + u32::from(RST | ACK),
        PROTO_ICMP + 0x030d,
        PROTO_ICMPV6 + 0x0101,
    ]
    .contains(&fields.proto)
}

/// Takes one answer of [`PER_SECOND`], where there is one left. `spent_until` is when (nanoseconds) all will be there
/// again.
#[inline(always)]
#[must_use]
pub fn take(spent_until: &mut u64, now: u64) -> bool {
    const EACH: u64 = 1_000_000_000 / PER_SECOND;
    let from = if *spent_until > now { *spent_until } else { now };
    if from - now > (BURST - 1) * EACH {
        return false;
    }
    *spent_until = from + EACH;
    true
}

/// The sum of a value's 16-bit words.
#[inline(always)]
fn words(value: u64) -> u64 {
    (value >> 48) + (value >> 32 & 0xffff) + (value >> 16 & 0xffff) + (value & 0xffff)
}

/// Ones' complement: carries come back in.
#[inline(always)]
#[must_use]
pub fn fold(sum: u64) -> u16 {
    let sum = words(sum);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[inline(always)]
fn set16<const N: usize>(bytes: &mut [u8; N], at: usize, value: u16) {
    bytes[at] = (value >> 8) as u8;
    bytes[at + 1] = value as u8;
}

#[inline(always)]
fn set32<const N: usize>(bytes: &mut [u8; N], at: usize, value: u32) {
    set16(bytes, at, (value >> 16) as u16);
    set16(bytes, at + 2, value as u16);
}

#[inline(always)]
fn set64<const N: usize>(bytes: &mut [u8; N], at: usize, value: u64) {
    set32(bytes, at, (value >> 32) as u32);
    set32(bytes, at + 4, value as u32);
}

#[cfg(test)]
mod tests;
