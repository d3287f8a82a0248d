//! Whole frames of all kinds, whose fields are drawn from the pool or from what some rule accepts.

use std::net::IpAddr;

use ringfence_policy::model::{AddressMatch, Chain, InterfaceMatch, Match, Policy};
use ringfence_policy::oracle::{Context, Hook};
use ringfence_policy::ranges::Ranges;

use super::policy::{ICMP_TYPES, ICMPV6_TYPES};
use super::pool::{INTERFACES, PROTOCOLS};
use super::{Packet, Pool, Rng, World, addresses, once_in, pick};

/// What a frame is to carry.
struct Wish {
    v4: bool,
    from: IpAddr,
    to: IpAddr,
    proto: u8,
    ports: (u16, u16),
    flags: u8,
    icmp: (u8, u8),
    dscp: u8,
    hops: u8,
    length: Option<u16>,
    fragment: Fragment,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fragment {
    Whole,
    /// An IPv6 fragment header that says it is all there is.
    Atomic,
    First,
    Later,
}

/// A packet; every other one is aimed at a rule of its direction.
pub(super) fn packet(rng: &mut Rng, pool: &Pool, policy: &Policy, world: &World) -> Packet {
    let ingress = rng.bool();
    let hook = if ingress && rng.bool() { Hook::Xdp } else { Hook::Tc };
    let chain = if ingress { &policy.ingress } else { &policy.egress };
    let aim = chain.as_ref().filter(|_| rng.bool()).and_then(|chain| target(rng, chain));
    let mut wish = any_wish(rng, pool);
    let mut vlan = once_in(rng, 3).then(|| pick(rng, &pool.vlans));
    let mut mark = pick(rng, &pool.marks);
    let mut state = None;
    let mut interface = pick(rng, &INTERFACES[..6]);
    if once_in(rng, 40) {
        interface = "lo";
    }
    match aim {
        Some(matches) => {
            aim_at(rng, &mut wish, matches, world);
            vlan = within(rng, matches.vlan.as_ref()).map(|vlan| vlan as u16).or(vlan);
            mark = within(rng, matches.mark.as_ref()).unwrap_or(mark);
            interface = named(rng, &matches.interface).unwrap_or(interface);
            state = within(rng, matches.state.as_ref()).map(|state| state as u8);
        }
        None if once_in(rng, 5) => floor_wish(rng, &mut wish),
        None if !world.entries.is_empty() && once_in(rng, 2) => aim_at_entry(rng, &mut wish, world, ingress),
        None => {}
    }
    let at_tc = hook == Hook::Tc;
    let l3 = at_tc && once_in(rng, 6);
    let held = vlan.filter(|_| at_tc && (l3 || rng.bool()));
    let context = Context {
        hook,
        ingress,
        interface: interface.to_owned(),
        loopback: interface == "lo",
        l3,
        segment: if at_tc && once_in(rng, 6) { rng.u16(1..400) } else { 0 },
        tag: held.map(|vlan| vlan | rng.u16(..) & 0xf000),
        mark: at_tc.then_some(mark),
        state: state.unwrap_or_else(|| rng.u8(..4)),
    };
    let mut frame = if l3 { Vec::new() } else { link(rng, &wish, vlan.filter(|_| held.is_none())) };
    if !l3 && once_in(rng, 16) {
        let ethertype = pick(rng, &[0x0806_u16, 0x0806, 0x88cc, 0x0004, 0x86dc]);
        frame.truncate(frame.len() - 2);
        frame.extend(ethertype.to_be_bytes());
        frame.extend((0..rng.usize(0..60)).map(|_| rng.u8(..)));
        return Packet { context, frame };
    }
    frame.extend(network(rng, &wish, context.segment != 0));
    if frame.len() < 60 && once_in(rng, 2) && context.segment == 0 {
        frame.resize(60, rng.u8(..));
    }
    Packet { context, frame }
}

/// Ethernet header with tags; ends with the ethertype.
fn link(rng: &mut Rng, wish: &Wish, vlan: Option<u16>) -> Vec<u8> {
    const TPIDS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
    let mut frame: Vec<u8> = (0..12).map(|_| rng.u8(..)).collect();
    let inner = if vlan.is_some() { once_in(rng, 3) } else { once_in(rng, 20) };
    let third = inner && once_in(rng, 20);
    let count = usize::from(inner) + 2 * usize::from(third);
    let mut tags: Vec<u16> = vlan.map(|vlan| vlan | rng.u16(..) & 0xf000).into_iter().collect();
    tags.extend((0..count).map(|_| rng.u16(..)));
    for tag in tags {
        frame.extend(pick(rng, &TPIDS).to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(if wish.v4 { [8, 0] } else { [0x86, 0xdd] });
    frame
}

fn any_wish(rng: &mut Rng, pool: &Pool) -> Wish {
    let v4 = rng.bool();
    let common = if rng.bool() { 4 } else { PROTOCOLS.len() };
    let proto = if once_in(rng, 20) { rng.u8(..) } else { pick(rng, &PROTOCOLS[..common]) };
    let port = |rng: &mut Rng| if once_in(rng, 6) { rng.u16(..) } else { pick(rng, &pool.ports) };
    let fragment = match rng.u8(..16) {
        0 => Fragment::First,
        1 | 2 => Fragment::Later,
        3 => Fragment::Atomic,
        _ => Fragment::Whole,
    };
    let kinds = if proto == 1 { &ICMP_TYPES[..] } else { &ICMPV6_TYPES };
    Wish {
        v4,
        from: pool.address(rng, v4),
        to: pool.address(rng, v4),
        proto,
        ports: (port(rng), port(rng)),
        flags: if rng.bool() { pick(rng, &[2, 16, 18, 17, 4]) } else { rng.u8(..) },
        icmp: (pick(rng, kinds), if rng.bool() { 0 } else { rng.u8(..6) }),
        dscp: if rng.bool() { pick(rng, &[0, 10, 46, 63]) } else { rng.u8(..64) },
        hops: pick(rng, &[1, 64, 255, 255]),
        length: None,
        fragment,
    }
}

/// What the floor lets pass, or nearly.
fn floor_wish(rng: &mut Rng, wish: &mut Wish) {
    match rng.u8(..4) {
        0 => {
            let (client, server) = if wish.v4 { (68, 67) } else { (546, 547) };
            wish.proto = 17;
            wish.ports = if rng.bool() { (client, server) } else { (server, client) };
        }
        1 if wish.v4 => (wish.proto, wish.icmp) = (1, (3, 4)),
        _ => {
            wish.proto = 58;
            wish.icmp = (pick(rng, &[2, 130, 131, 132, 133, 134, 135, 136, 143]), u8::from(once_in(rng, 8)));
            wish.hops = pick(rng, &[1, 255]);
        }
    }
}

fn aim_at_entry(rng: &mut Rng, wish: &mut Wish, world: &World, ingress: bool) {
    let entry = pick(rng, &world.entries);
    if entry.address.is_ipv4() == wish.v4 {
        *(if ingress { &mut wish.from } else { &mut wish.to }) = entry.address;
    }
    if let Some(port) = entry.port {
        wish.ports.1 = port;
        wish.proto = pick(rng, &[6, 17]);
    }
}

fn target<'a>(rng: &mut Rng, chain: &'a Chain) -> Option<&'a Match> {
    (!chain.rules.is_empty()).then(|| &chain.rules[rng.usize(..chain.rules.len())].matches)
}

/// Overwrites with values that the conditions accept, as far as they are simple to find.
fn aim_at(rng: &mut Rng, wish: &mut Wish, matches: &Match, world: &World) {
    if let Some(families) = matches.family {
        wish.v4 = families.v4;
    }
    let inside = |rng: &mut Rng, conditions: &[AddressMatch], v4| {
        conditions.first().and_then(|condition| addresses::inside(rng, condition, world, v4))
    };
    let lists = || matches.from.iter().chain(&matches.to);
    // The family that the lists have.
    if lists().any(|list| inside(rng, std::slice::from_ref(list), wish.v4).is_none() && list.any_of.is_some()) {
        wish.v4 = !wish.v4;
    }
    for (address, conditions) in [(&mut wish.from, &matches.from), (&mut wish.to, &matches.to)] {
        if let Some(found) = inside(rng, conditions, wish.v4) {
            *address = found;
        }
    }
    // Whatever is still of the other family.
    let v4 = wish.v4;
    for address in [&mut wish.from, &mut wish.to] {
        if address.is_ipv4() != v4 {
            *address = if v4 { IpAddr::V4(rng.u32(..).into()) } else { IpAddr::V6(rng.u128(..).into()) };
        }
    }
    let ported = matches.port.is_some() || matches.source_port.is_some();
    wish.proto = match within(rng, matches.proto.as_ref()) {
        Some(proto) => proto as u8,
        None if matches.flags.is_some() => 6,
        None if matches.icmp.is_some() => pick(rng, &[1, 58]),
        None if ported => pick(rng, &[6, 17, 132, 136, 33]),
        None => wish.proto,
    };
    if let Some(port) = within(rng, matches.source_port.as_ref()) {
        wish.ports.0 = port as u16;
    }
    if let Some(port) = within(rng, matches.port.as_ref()) {
        wish.ports.1 = port as u16;
    }
    if let Some(dscp) = within(rng, matches.dscp.as_ref()) {
        wish.dscp = dscp as u8;
    }
    if let Some(accepted) = matches.flags {
        wish.flags =
            (0..=255).cycle().skip(rng.usize(..256)).take(256).find(|&flags| accepted.contains(flags)).unwrap_or(0);
    }
    let icmp = matches.icmp.as_ref().map(|icmp| if wish.proto == 1 { &icmp.v4 } else { &icmp.v6 });
    if let Some(icmp) = within(rng, icmp) {
        wish.icmp = ((icmp >> 8) as u8, icmp as u8);
    }
    wish.length = within(rng, matches.length.as_ref())
        .filter(|length| *length <= 2000 || once_in(rng, 8))
        .map(|length| length as u16);
    match matches.fragment {
        Some(true) if matches!(wish.fragment, Fragment::Whole | Fragment::Atomic) => wish.fragment = Fragment::Later,
        Some(false) if matches!(wish.fragment, Fragment::First | Fragment::Later) => wish.fragment = Fragment::Whole,
        _ => {}
    }
}

fn within(rng: &mut Rng, ranges: Option<&Ranges>) -> Option<u32> {
    let list = ranges?.as_slice();
    if list.is_empty() {
        return None;
    }
    let (low, high) = pick(rng, list);
    let between = rng.u32(low..=high);
    Some(pick(rng, &[low, high, between]))
}

/// An interface that all the conditions accept.
fn named(rng: &mut Rng, conditions: &[InterfaceMatch]) -> Option<&'static str> {
    let accepted: Vec<&str> =
        INTERFACES.into_iter().filter(|name| conditions.iter().all(|one| one.matches(name))).collect();
    (!conditions.is_empty() && !accepted.is_empty()).then(|| pick(rng, &accepted))
}

/// From the IP header on.
fn network(rng: &mut Rng, wish: &Wish, gso: bool) -> Vec<u8> {
    match (wish.from, wish.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4(rng, wish, gso, from.octets(), to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => ipv6(rng, wish, gso, from.octets(), to.octets()),
        (from, to) => unreachable!("{from} and {to} are of one family"),
    }
}

/// Offset of a fragment, in units of eight bytes; the extremes are drawn too.
fn offset(rng: &mut Rng) -> u16 {
    let any = rng.u16(1..0x1fff);
    pick(rng, &[1, 0x1fff, any])
}

fn ipv4(rng: &mut Rng, wish: &Wish, gso: bool, from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let options = if once_in(rng, 4) { rng.usize(1..=10) } else { 0 };
    let header = 20 + options * 4;
    let payload = payload(rng, wish, header);
    let total = (header + payload.len()).min(65_535) as u16;
    let total = if gso && rng.bool() { 0 } else { total };
    let more = u16::from(rng.bool()) << 13;
    let flags_offset = match wish.fragment {
        Fragment::Whole | Fragment::Atomic => rng.u16(..) & 0xc000,
        Fragment::First => 0x2000,
        Fragment::Later => more | offset(rng),
    };
    let mut packet = vec![0x40 | (header / 4) as u8, wish.dscp << 2 | rng.u8(..4)];
    packet.extend(total.to_be_bytes());
    packet.extend([rng.u8(..), rng.u8(..)]);
    packet.extend(flags_offset.to_be_bytes());
    packet.extend([wish.hops, wish.proto, rng.u8(..), rng.u8(..)]);
    packet.extend(from);
    packet.extend(to);
    packet.extend((0..options * 4).map(|_| rng.u8(..)));
    packet.extend(payload);
    packet
}

fn ipv6(rng: &mut Rng, wish: &Wish, gso: bool, from: [u8; 16], to: [u8; 16]) -> Vec<u8> {
    let (first, extensions) = extensions(rng, wish);
    let payload = payload(rng, wish, 40 + extensions.len());
    let length = (extensions.len() + payload.len()).min(65_535) as u16;
    let length = if gso && rng.bool() { 0 } else { length };
    let mut packet = (6 << 28 | u32::from(wish.dscp) << 22 | rng.u32(..) & 0x003f_ffff).to_be_bytes().to_vec();
    packet.extend(length.to_be_bytes());
    packet.extend([first, wish.hops]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(extensions);
    packet.extend(payload);
    packet
}

/// A chain of extension headers: the number of the first header, and their bytes. Behind a later fragment's header
/// there is none.
fn extensions(rng: &mut Rng, wish: &Wish) -> (u8, Vec<u8>) {
    let count = match rng.u8(..20) {
        0..11 => 0,
        11..17 => rng.usize(1..4),
        _ => rng.usize(4..11),
    };
    let mut numbers: Vec<u8> = (0..count).map(|_| pick(rng, &[0, 43, 60, 60, 135, 139, 140])).collect();
    match wish.fragment {
        Fragment::Whole => {}
        Fragment::Later => numbers.push(44),
        Fragment::First | Fragment::Atomic => numbers.insert(rng.usize(..=numbers.len()), 44),
    }
    let mut bytes = Vec::new();
    for (at, &number) in numbers.iter().enumerate() {
        let next = numbers.get(at + 1).copied().unwrap_or(wish.proto);
        if number == 44 {
            let more = rng.u16(..2);
            let field = match wish.fragment {
                Fragment::First => 1,
                Fragment::Later => offset(rng) << 3 | more,
                Fragment::Whole | Fragment::Atomic => 0,
            };
            bytes.extend([next, rng.u8(..)]);
            bytes.extend((field | rng.u16(..4) << 1).to_be_bytes());
            bytes.extend([0, 0, 0, 1]);
        } else {
            let units = if once_in(rng, 4) { rng.u8(1..4) } else { 0 };
            bytes.extend([next, units]);
            bytes.extend((0..6 + usize::from(units) * 8).map(|_| rng.u8(..)));
        }
    }
    (numbers.first().copied().unwrap_or(wish.proto), bytes)
}

/// The transport header and some data, made as long as wished where that is possible.
fn payload(rng: &mut Rng, wish: &Wish, headers: usize) -> Vec<u8> {
    let mut bytes = if wish.fragment == Fragment::Later { Vec::new() } else { transport(rng, wish) };
    let free = if once_in(rng, 3) { 0 } else { rng.usize(0..80) };
    let wished = wish.length.and_then(|length| usize::from(length).checked_sub(headers));
    let length = wished.filter(|&length| length >= bytes.len()).unwrap_or(bytes.len() + free);
    bytes.resize(length, rng.u8(..));
    if once_in(rng, 40) {
        // The lengths above are right for it, but the transport header is not all there.
        bytes.truncate(rng.usize(..24));
    }
    bytes
}

fn transport(rng: &mut Rng, wish: &Wish) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(wish.ports.0.to_be_bytes());
    bytes.extend(wish.ports.1.to_be_bytes());
    match wish.proto {
        6 => {
            let options = if once_in(rng, 3) { rng.u8(1..=10) } else { 0 };
            bytes.extend((0..8).map(|_| rng.u8(..)));
            bytes.extend([(5 + options) << 4, wish.flags]);
            bytes.extend((0..6 + usize::from(options) * 4).map(|_| rng.u8(..)));
        }
        17 | 136 => bytes.extend([0, 8, 0, 0]),
        132 | 33 => bytes.extend((0..8).map(|_| rng.u8(..))),
        1 | 58 => bytes = vec![wish.icmp.0, wish.icmp.1, rng.u8(..), rng.u8(..)],
        _ => bytes.clear(),
    }
    bytes
}
