//! Random policies, valid by construction as the document makes them.

use std::sync::Arc;

use ringfence_policy::model::{
    Chain, Connections, DynamicKind, DynamicSet, Families, FlagSet, HostChain, IcmpMatch, InterfaceMatch, Limit,
    Location, Match, Mode, NameGlob, Per, Policy, Quantity, Rate, Rule, Verdict, WhenFull,
};
use ringfence_policy::ranges::{AddressRanges, Ranges};

use super::addresses::{self, Lists};
use super::pool::{GLOBS, INTERFACES, PROTOCOLS};
use super::{Pool, Rng, Shape, once_in, pick};

/// Rules that continue are kept to what a packet may meet, except in one policy of fifty, which may be refused.
const CONTINUING: usize = 32;

pub(super) fn policy(rng: &mut Rng, pool: &Pool, shape: Shape) -> Policy {
    let dynamic = match rng.u8(..10) {
        0..3 => 0,
        3..9 => rng.u16(1..10),
        _ => rng.u16(10..=61),
    };
    let direction = |rng: &mut Rng| (!once_in(rng, 12)).then(|| chain(rng, pool, shape, dynamic));
    let (ingress, egress) = (direction(rng), direction(rng));
    Policy {
        mode: if once_in(rng, 8) { Mode::Audit } else { Mode::Enforce },
        files: vec!["random.yaml".to_owned()],
        dynamic_sets: (0..dynamic).map(dynamic_set).collect(),
        interfaces: None,
        floor: std::array::from_fn(|_| !once_in(rng, 3)),
        connections: Connections { capacity: 1024, ..Connections::default() },
        ingress,
        egress,
        host: HostChain::implicit(),
        tests: Vec::new(),
        access_tests: Vec::new(),
    }
}

fn dynamic_set(index: u16) -> DynamicSet {
    DynamicSet {
        name: format!("set{index:02}"),
        at: Some(Location { file: 0, line: 1 + u32::from(index), column: 3 }),
        kind: DynamicKind::Declared {
            timeout: None,
            capacity: 65_536,
            full: WhenFull::Refuse,
            never: Arc::new(AddressRanges::default()),
        },
    }
}

fn chain(rng: &mut Rng, pool: &Pool, shape: Shape, dynamic: u16) -> Chain {
    let count = match shape {
        Shape::Narrow => rng.usize(0..=40),
        Shape::Wide => rng.usize(65..=300),
        Shape::Huge => rng.usize(4_200..=5_500),
    };
    let specific = shape != Shape::Narrow;
    let lists = Lists::new(rng, pool, dynamic, specific);
    let mut continuing_left = if once_in(rng, 50) { usize::MAX } else { CONTINUING };
    let rules = (0..count)
        .map(|index| {
            // Thousands of broad rules would leave nothing for the later ones.
            let exact = shape == Shape::Huge && index < count / 10 * 9;
            let may_continue = continuing_left > 0 && (!exact || once_in(rng, 200));
            let verdict = match rng.u8(..10) {
                0..4 => Verdict::Accept,
                4..7 => Verdict::Drop,
                7 => Verdict::Reject,
                _ if may_continue => Verdict::Count,
                _ => Verdict::Drop,
            };
            let audit = verdict.refuses() && may_continue && once_in(rng, 4);
            let limit = (may_continue && continuing_left != usize::MAX && once_in(rng, if exact { 60 } else { 12 }))
                .then(|| limit(rng, verdict));
            if audit || verdict == Verdict::Count || limit.is_some() {
                continuing_left -= 1;
            }
            let at = Location { file: 0, line: 100 + index as u32, column: 9 };
            Rule {
                name: format!("rule{index}"),
                named: true,
                at,
                verdict,
                audit,
                protect: false,
                limit,
                add: None,
                matches: conditions(rng, pool, &lists, exact),
            }
        })
        .collect();
    let default = pick(rng, &[Verdict::Accept, Verdict::Drop, Verdict::Drop, Verdict::Reject]);
    Chain { default, default_at: Location { file: 0, line: 99, column: 5 }, protect: false, rules }
}

fn limit(rng: &mut Rng, verdict: Verdict) -> Limit {
    let connections = once_in(rng, 4);
    let rate = Rate { amount: rng.u64(1..1000), seconds: pick(rng, &[1, 60]), bytes: rng.bool() };
    Limit {
        of: if connections {
            Quantity::Connections(rng.u32(1..100))
        } else {
            Quantity::Rate { rate, burst: rng.u64(1..100) }
        },
        // What refuses below a rate lets the flood through: the language has no such rule.
        over: verdict.refuses() || !connections && rng.bool(),
        per: pick(rng, &[Per::Rule, Per::Source(24, 64), Per::Destination(32, 128)]),
    }
}

/// The conditions of a rule; in a large chain they are narrow ones, so that packets get past the first rules.
fn conditions(rng: &mut Rng, pool: &Pool, lists: &Lists, exact: bool) -> Match {
    if exact {
        let from = once_in(rng, 2).then(|| addresses::exactly(rng, pool)).into_iter().collect();
        let proto = maybe(rng, 2, |rng| values(rng, &PROTOCOLS, 255));
        let port = maybe(rng, 3, |rng| values(rng, &pool.ports, 65_535));
        return Match { from, to: vec![addresses::exactly(rng, pool)], proto, port, ..Match::default() };
    }
    let addresses = if lists.specific { 2 } else { 4 };
    let mut matches = Match::default();
    if once_in(rng, addresses) {
        matches.from = lists.conditions(rng, pool);
    }
    if once_in(rng, addresses) || (lists.specific && matches.from.is_empty()) {
        matches.to = lists.conditions(rng, pool);
    }
    let rest = if lists.specific { 16 } else { 9 };
    matches.proto = maybe(rng, 4, |rng| values(rng, &PROTOCOLS, 255));
    matches.port = maybe(rng, 5, |rng| values(rng, &pool.ports, 65_535));
    matches.source_port = maybe(rng, rest, |rng| values(rng, &pool.ports, 65_535));
    matches.state = maybe(rng, rest, |rng| values(rng, &[0_u8, 1, 2, 3], 3));
    matches.vlan = maybe(rng, rest, |rng| values(rng, &pool.vlans, 4095));
    matches.mark = maybe(rng, rest, |rng| values(rng, &pool.marks, u32::MAX));
    matches.length = maybe(rng, rest, |rng| values(rng, &pool.lengths, 65_535));
    matches.dscp = maybe(rng, rest, |rng| values(rng, &[0_u8, 10, 46, 63], 63));
    matches.fragment = maybe(rng, rest, Rng::bool);
    matches.family = maybe(rng, rest, |rng| {
        pick(
            rng,
            &[Families { v4: true, v6: false }, Families { v4: false, v6: true }, Families { v4: true, v6: true }],
        )
    });
    matches.flags = maybe(rng, rest, flags);
    matches.icmp = maybe(rng, rest, icmp);
    if once_in(rng, rest) {
        matches.interface = (0..=usize::from(once_in(rng, 6))).map(|_| interface(rng)).collect();
    }
    // As the document does: what has a type or flags has their protocol.
    if matches.icmp.is_some() && rng.bool() {
        matches.proto = Some(Ranges::new(vec![(1, 1), (58, 58)]));
    }
    if matches.flags.is_some() && rng.bool() {
        matches.proto = Some(Ranges::new(vec![(6, 6)]));
    }
    matches
}

fn maybe<T>(rng: &mut Rng, n: u32, draw: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    once_in(rng, n).then(|| draw(rng))
}

/// Some values and ranges between values of a pool, sometimes negated; empty once in a while, as `{in: 1, not: 1}` is.
fn values<T: Copy + Into<u32>>(rng: &mut Rng, pool: &[T], max: u32) -> Ranges {
    let mut list = Vec::new();
    for _ in 0..rng.usize(1..4) {
        let (a, b): (u32, u32) = (pick(rng, pool).into(), pick(rng, pool).into());
        list.push(if once_in(rng, 4) { (a.min(b), a.max(b)) } else { (a, a) });
    }
    let ranges = Ranges::new(list);
    match rng.u8(..60) {
        0 => Ranges::default(),
        1..10 => ranges.complement(max),
        _ => ranges,
    }
}

/// `syn`, `"syn,!ack"`, or the opposite of such.
fn flags(rng: &mut Rng) -> FlagSet {
    let bits = |rng: &mut Rng| (0..rng.u8(1..3)).fold(0_u8, |bits, _| bits | 1 << rng.u8(..8));
    let any = bits(rng);
    let set = pick(rng, &[2, 16, 18, any]);
    let clear = if rng.bool() { 0 } else { bits(rng) };
    let negated = once_in(rng, 5);
    let mut accepted = FlagSet::default();
    (0..=255)
        .filter(|flags| (flags & set == set && flags & clear & !set == 0) != negated)
        .for_each(|flags| accepted.insert(flags));
    accepted
}

fn icmp(rng: &mut Rng) -> IcmpMatch {
    let table = |rng: &mut Rng, kinds: &[u8]| {
        if once_in(rng, 4) {
            return Ranges::default();
        }
        let one = |rng: &mut Rng| {
            let kind = u32::from(pick(rng, kinds)) * 256;
            if rng.bool() { (kind, kind + 255) } else { (kind + rng.u32(..5), kind + 5) }
        };
        let ranges = Ranges::new((0..rng.usize(1..3)).map(|_| one(rng)).collect());
        if once_in(rng, 6) { ranges.complement(65_535) } else { ranges }
    };
    IcmpMatch { v4: table(rng, &ICMP_TYPES), v6: table(rng, &ICMPV6_TYPES) }
}

/// Types that packets have and rules name.
pub(super) const ICMP_TYPES: [u8; 6] = [0, 3, 8, 11, 13, 255];
/// The same for `ICMPv6`, those of the floor among them.
pub(super) const ICMPV6_TYPES: [u8; 13] = [1, 2, 3, 128, 129, 130, 132, 133, 134, 135, 136, 143, 8];

fn interface(rng: &mut Rng) -> InterfaceMatch {
    let globs = |rng: &mut Rng, most: usize| {
        let one = |rng: &mut Rng| {
            NameGlob((if once_in(rng, 3) { pick(rng, &GLOBS) } else { pick(rng, &INTERFACES) }).to_owned())
        };
        (0..rng.usize(1..=most)).map(|_| one(rng)).collect::<Vec<_>>()
    };
    match rng.u8(..4) {
        0 => InterfaceMatch { any_of: None, none_of: globs(rng, 2) },
        1 => InterfaceMatch { any_of: Some(globs(rng, 3)), none_of: globs(rng, 1) },
        _ => InterfaceMatch { any_of: Some(globs(rng, 3)), none_of: Vec::new() },
    }
}
