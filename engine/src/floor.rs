//! The floor: what a default drop never breaks. Judged before the rules; lines as in
//! [`ringfence_abi::counter::FLOOR_NAMES`].

use ringfence_abi::chain::{IP_FRAGMENT, PROTO_ICMP, PROTO_ICMPV6};

use crate::fields::{FAMILY_V4, FAMILY_V6, Fields};

const ARP: u32 = 0;
const NEIGHBOR_DISCOVERY: u32 = 1;
const ROUTER_ADVERTISEMENT: u32 = 2;
const MULTICAST_LISTENER: u32 = 3;
const DHCP_CLIENT: u32 = 4;
const PATH_MTU: u32 = 5;
const LOOPBACK: u32 = 6;

/// The line of the floor that accepts the packet, of those in force (bits of `lines`).
#[inline(always)]
#[must_use]
pub fn line(fields: &Fields, lines: u32, egress: bool, loopback: bool) -> Option<u32> {
    let line = candidate(fields, egress).filter(|line| lines >> line & 1 == 1);
    if line.is_none() && loopback && lines >> LOOPBACK & 1 == 1 {
        return Some(LOOPBACK);
    }
    line
}

#[inline(always)]
fn candidate(fields: &Fields, egress: bool) -> Option<u32> {
    if fields.ethertype == 0x0806 {
        return Some(ARP);
    }
    // A fragment is never on the floor; for ND that is RFC 6980.
    if fields.ip & IP_FRAGMENT != 0 {
        return None;
    }
    match fields.family {
        FAMILY_V4 => {
            if fields.proto == PROTO_ICMP + 0x0304 {
                return Some(PATH_MTU);
            }
            dhcp(fields, egress, 68, 67)
        }
        FAMILY_V6 => icmpv6(fields).or_else(|| dhcp(fields, egress, 546, 547)),
        _ => None,
    }
}

#[inline(always)]
fn icmpv6(fields: &Fields) -> Option<u32> {
    let message = fields.proto.checked_sub(PROTO_ICMPV6).filter(|message| *message < 0x1_0000)?;
    match (message >> 8, message & 0xff, fields.hop_limit) {
        (2, _, _) => Some(PATH_MTU),
        (133 | 135 | 136, 0, 255) => Some(NEIGHBOR_DISCOVERY),
        (134, 0, 255) => Some(ROUTER_ADVERTISEMENT),
        (130..=132 | 143, _, 1) => Some(MULTICAST_LISTENER),
        _ => None,
    }
}

#[inline(always)]
fn dhcp(fields: &Fields, egress: bool, client: u32, server: u32) -> Option<u32> {
    let (sport, dport) = if egress { (client, server) } else { (server, client) };
    (fields.proto == 17 && fields.sport == sport && fields.dport == dport).then_some(DHCP_CLIENT)
}
