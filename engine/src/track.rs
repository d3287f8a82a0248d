//! Connections: their keys, what state a packet is in, and what it makes of its connection. Pure: whose memory a
//! connection is in, and when it is looked up, is the caller's business.

use ringfence_abi::{
    chain::{IP_FRAGMENT, STATE_ABSENT, STATE_ESTABLISHED, STATE_INVALID, STATE_NEW, STATE_UNKNOWN},
    connection::{
        Connection, FLAG_ACK, FLAG_END, FLAG_FIN, FLAG_FROM_LOW, FLAG_OUTBOUND, FLAG_PICKED_UP, FLAG_REPLIED, ICMP,
        Key, OTHER, TCP_CLOSED, TCP_CLOSING, TCP_ESTABLISHED, TCP_SYN, UDP, UDP_REPLIED,
    },
    dynamic::{V4, V6},
};

use crate::{
    deep::{Deep, Endpoints, MESSAGE_ERROR, MESSAGE_OTHER, MESSAGE_REPLY, MESSAGE_REQUEST, NO_PROTO, QUERY_REPLY},
    fields::{FAMILY_NONE, FAMILY_V4, FAMILY_V6, Fields},
    parse,
};

const FIN: u32 = 1;
const SYN: u32 = 2;
const RST: u32 = 4;
const ACK: u32 = 16;
/// A reset this far ahead of what was acknowledged may be one of data that is under way.
const RESET_WINDOW: u32 = 1 << 20;

/// Which pool a connection was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Proven.
    Established,
    /// Came in, not proven.
    In,
    /// This host began it, nobody has answered.
    Out,
}

/// What counts of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Protocol number.
    pub proto: u32,
    /// TCP: FIN, SYN, RST and ACK.
    pub flags: u32,
    /// TCP: see [`Deep`].
    pub seq: u32,
    /// TCP.
    pub ack: u32,
    /// TCP.
    pub end: u32,
    /// See [`Deep::message`].
    pub message: u32,
    /// It leaves.
    pub egress: u32,
    /// It comes from the endpoint that is [`Key::low`].
    pub from_low: u32,
}

impl Segment {
    /// Takes what counts of a packet whose key is known. Fields are set one by one ([`Fields::reset`] says why).
    #[inline(always)]
    pub fn take(&mut self, fields: &Fields, deep: &Deep, egress: bool, from_low: bool) {
        self.proto = deep.proto;
        self.flags = fields.proto & (FIN | SYN | RST | ACK);
        self.seq = deep.seq;
        self.ack = deep.ack;
        self.end = deep.end;
        self.message = deep.message;
        self.egress = u32::from(egress);
        self.from_low = u32::from(from_low);
    }

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        self.proto == parse::TCP
    }

    /// A first SYN.
    #[inline(always)]
    #[must_use]
    pub fn opens(&self) -> bool {
        self.is_tcp() && self.flags & (SYN | ACK) == SYN
    }

    /// 0 where the packet goes the way of the connection's first one, 1 the other way.
    #[inline(always)]
    #[must_use]
    pub fn direction(&self, connection: &Connection) -> usize {
        usize::from((connection.flags & FLAG_FROM_LOW != 0) != (self.from_low != 0))
    }
}

/// The state of a packet as far as its own headers tell: `said` where it has one.
#[inline(always)]
#[must_use]
pub fn described(fields: &Fields, deep: &Deep, said: u32) -> u32 {
    if fields.family == FAMILY_NONE {
        STATE_ABSENT
    } else if deep.proto == NO_PROTO || is_later_fragment(fields, deep) {
        STATE_UNKNOWN
    } else {
        said
    }
}

/// Whether the packet is a fragment without the beginning.
#[inline(always)]
#[must_use]
pub fn is_later_fragment(fields: &Fields, deep: &Deep) -> bool {
    fields.ip & IP_FRAGMENT != 0 && deep.offset != 0
}

/// The key of a packet's connection, and whether the packet comes from its low end; `None`: it has none (no IP, a protocol
/// that cannot be told, an ICMP message that is no query). The key of an error is that of the packet it is about.
#[inline(always)]
pub fn key(fields: &Fields, deep: &Deep, key: &mut Key) -> Option<bool> {
    if deep.message == MESSAGE_ERROR {
        // What is quoted went the other way: to where the error comes to.
        return (deep.inner.src == fields.dst).then(|| key_of(&deep.inner, key));
    }
    let mut ends = Endpoints { src: fields.src, dst: fields.dst, family: fields.family, ..Endpoints::default() };
    ends.proto = deep.proto;
    match deep.proto {
        proto if parse::has_ports(proto) => {
            ends.sport = fields.sport;
            ends.dport = fields.dport;
        }
        parse::ICMP | parse::ICMPV6 => {
            if deep.message != MESSAGE_REQUEST && deep.message != MESSAGE_REPLY {
                return None;
            }
            ends.sport = deep.query;
            ends.dport = deep.request | if deep.message == MESSAGE_REPLY { QUERY_REPLY } else { 0 };
        }
        NO_PROTO.. => return None,
        _ => {}
    }
    Some(key_of(&ends, key))
}

/// Writes the key of two endpoints; whether the source is its low end.
#[inline(always)]
pub fn key_of(ends: &Endpoints, key: &mut Key) -> bool {
    // Identifier and type of a query belong to no end. Who asks does: a query the other way is another connection.
    let query = ends.proto == parse::ICMP || ends.proto == parse::ICMPV6;
    let ports = if query { 0 } else { compare(ends.sport.into(), ends.dport.into()) };
    let order = match (compare(ends.src[0], ends.dst[0]), compare(ends.src[1], ends.dst[1])) {
        (0, 0) => ports,
        (0, low) => low,
        (high, _) => high,
    };
    let from_low = order <= 0;
    let swap = !from_low && !query;
    let mut dport = ends.dport;
    if query {
        let asks_low = (dport & QUERY_REPLY == 0) == from_low;
        dport = dport & 0xff | if asks_low { QUERY_REPLY } else { 0 };
    }
    (key.low, key.high) = if from_low { (ends.src, ends.dst) } else { (ends.dst, ends.src) };
    (key.low_port, key.high_port) =
        if swap { (dport as u16, ends.sport as u16) } else { (ends.sport as u16, dport as u16) };
    key.proto = ends.proto as u8;
    key.family = if ends.family == FAMILY_V4 { V4 } else { V6 };
    key.zero = 0;
    from_low
}

#[inline(always)]
fn compare(a: u64, b: u64) -> i32 {
    i32::from(a > b) - i32::from(a < b)
}

/// Whether the flags of a TCP segment go together.
#[inline(always)]
fn sane(flags: u32) -> bool {
    matches!(flags, SYN | ACK | RST) || flags == SYN | ACK || flags == RST | ACK || flags == FIN | ACK
}

/// The state of a packet that belongs to no known connection.
///
/// What leaves is given the benefit of the doubt: its connection may have been pushed out of the pool of the unproven.
#[inline(always)]
#[must_use]
pub fn state_without(segment: &Segment) -> u32 {
    let begins = if segment.is_tcp() {
        if !sane(segment.flags) {
            return STATE_INVALID;
        }
        // A bare ACK may be of a connection that began before anybody looked.
        matches!(segment.flags, SYN | ACK)
    } else {
        matches!(segment.message, MESSAGE_OTHER | MESSAGE_REQUEST)
    };
    if begins || segment.egress != 0 && segment.message <= MESSAGE_REPLY { STATE_NEW } else { STATE_INVALID }
}

/// The state of a packet of a known connection.
#[inline(always)]
#[must_use]
pub fn state(connection: &Connection, pool: Pool, segment: &Segment) -> u32 {
    if segment.is_tcp() && !sane(segment.flags) {
        return STATE_INVALID;
    }
    if pool == Pool::Established {
        // A SYN is one of a new connection, or of nobody: its receiver answers, if it is let through.
        return if segment.opens() { STATE_NEW } else { STATE_ESTABLISHED };
    }
    if segment.direction(connection) == 1 {
        return STATE_ESTABLISHED;
    }
    let replied = connection.flags & FLAG_REPLIED != 0;
    // In a handshake what completes it is established, and nothing else; it is promoted.
    let completes = !segment.is_tcp() || connection.flags & FLAG_PICKED_UP != 0 || promotes(connection, pool, segment);
    if replied && completes && !segment.opens() { STATE_ESTABLISHED } else { STATE_NEW }
}

/// Whether a packet proves the connection: the far side knows what only a segment of the near side could tell it.
#[inline(always)]
#[must_use]
pub fn promotes(connection: &Connection, pool: Pool, segment: &Segment) -> bool {
    if pool == Pool::Established || segment.egress != 0 {
        return false;
    }
    let direction = segment.direction(connection);
    if !segment.is_tcp() {
        return pool == Pool::Out && direction == 1;
    }
    let other = 1 - direction;
    let known = connection.flags & (FLAG_END << other) != 0;
    known
        && segment.flags & ACK != 0
        && segment.flags & RST == 0
        && segment.ack == if other == 0 { connection.ends[0] } else { connection.ends[1] }
}

/// Begins a connection with its first packet, but for what the caller knows better: times, stamps, interface, mark.
#[inline(always)]
pub fn begin(connection: &mut Connection, fields: &Fields, segment: &Segment) {
    connection.packets[0] = 0;
    connection.packets[1] = 0;
    connection.bytes[0] = 0;
    connection.bytes[1] = 0;
    connection.cached[0] = 0;
    connection.cached[1] = 0;
    connection.cached[2] = 0;
    connection.cached[3] = 0;
    connection.ends[0] = 0;
    connection.ends[1] = 0;
    connection.acks[0] = 0;
    connection.acks[1] = 0;
    connection.proto = fields.proto;
    connection.length = fields.length;
    connection.ip = fields.ip as u16;
    connection.vlan = fields.vlan as u16;
    let picked_up = segment.is_tcp() && !segment.opens();
    connection.flags = if segment.from_low != 0 { FLAG_FROM_LOW } else { 0 }
        | if segment.egress != 0 { FLAG_OUTBOUND } else { 0 }
        | if picked_up { FLAG_PICKED_UP } else { 0 };
    connection.state = match segment.proto {
        parse::TCP => TCP_SYN,
        parse::UDP => UDP,
        parse::ICMP | parse::ICMPV6 => ICMP,
        _ => OTHER,
    };
    connection.zero = 0;
}

/// The fields of a connection's first packet, as far as they are kept.
#[inline(always)]
pub fn first(key: &Key, connection: &Connection, fields: &mut Fields) {
    let from_low = connection.flags & FLAG_FROM_LOW != 0;
    let v4 = key.family == V4;
    fields.reset(connection.vlan.into());
    (fields.src, fields.dst) = if from_low { (key.low, key.high) } else { (key.high, key.low) };
    fields.family = if v4 { FAMILY_V4 } else { FAMILY_V6 };
    fields.ethertype = if v4 { 0x0800 } else { 0x86dd };
    fields.ip = connection.ip.into();
    fields.proto = connection.proto;
    fields.length = connection.length;
    if parse::has_ports(key.proto.into()) {
        let (low, high) = (u32::from(key.low_port), u32::from(key.high_port));
        (fields.sport, fields.dport) = if from_low { (low, high) } else { (high, low) };
    }
}

/// Takes a packet that was let through into account.
#[inline(always)]
pub fn update(connection: &mut Connection, promoted: bool, segment: &Segment) {
    let direction = segment.direction(connection);
    let mut flags = connection.flags;
    if direction == 1 {
        flags |= FLAG_REPLIED;
    }
    if segment.is_tcp() {
        let reset = segment.flags & RST != 0;
        if segment.egress != 0 && !reset {
            if direction == 0 {
                connection.ends[0] = segment.end;
            } else {
                connection.ends[1] = segment.end;
            }
            flags |= FLAG_END << direction;
        }
        if promoted && connection.state == TCP_SYN {
            connection.state = TCP_ESTABLISHED;
        }
        if reset {
            connection.state = connection.state.max(after_reset(connection, segment, direction));
        } else {
            if segment.flags & ACK != 0 {
                if direction == 0 {
                    connection.acks[0] = segment.ack;
                } else {
                    connection.acks[1] = segment.ack;
                }
                flags |= FLAG_ACK << direction;
            }
            if segment.flags & FIN != 0 {
                flags |= FLAG_FIN << direction;
                let both = flags & (FLAG_FIN | FLAG_FIN << 1) == FLAG_FIN | FLAG_FIN << 1;
                connection.state = connection.state.max(if both { TCP_CLOSED } else { TCP_CLOSING });
            }
        }
    } else if segment.proto == parse::UDP && direction == 1 {
        connection.state = UDP_REPLIED;
    }
    connection.flags = flags;
}

/// What a reset makes of a connection. One with the very number that the other side waits for ends it; one that may be of
/// data under way lets it go soon if nothing more comes; any other is noise, which its receiver ignores too (RFC 5961).
#[inline(always)]
fn after_reset(connection: &Connection, segment: &Segment, direction: usize) -> u8 {
    let other = 1 - direction;
    if connection.flags & (FLAG_ACK << other) == 0 {
        return TCP_CLOSING;
    }
    let ahead = segment.seq.wrapping_sub(if other == 0 { connection.acks[0] } else { connection.acks[1] });
    if ahead == 0 {
        TCP_CLOSED
    } else if ahead <= RESET_WINDOW {
        TCP_CLOSING
    } else {
        0
    }
}

#[cfg(test)]
mod tests;
