//! Every field hit, missed, negated, absent and unknown; then the order of things.

use std::sync::Arc;

use super::{context, entry, only, policy, ports, rule, syn};
use crate::model::{
    AddressList, AddressMatch, Families, FlagSet, IcmpMatch, InterfaceMatch, Match, NameGlob, Policy, SetId, Verdict,
};
use crate::oracle::{Context, Decision, DynamicEntry, Family, Field, Fields, Icmp, LineRef, judge, no_members};
use crate::ranges::{AddressRanges, Ranges};

fn decide(policy: &Policy, fields: &Fields) -> Decision {
    judge(policy, &context(), &Ok(fields.clone()), &no_members, &[])
}

/// Whether a rule with these conditions matches, once as a refusal and once as a permission.
fn refusal_and_permission(matches: &Match, fields: &Fields) -> (bool, bool) {
    let matched = |verdict, default| {
        decide(&policy(default, vec![rule(verdict, matches.clone())]), fields).line == LineRef::Rule(0)
    };
    let (drop, reject) = (matched(Verdict::Drop, Verdict::Accept), matched(Verdict::Reject, Verdict::Accept));
    assert_eq!(drop, reject);
    (drop, matched(Verdict::Accept, Verdict::Drop))
}

fn fixed(prefixes: &[(&str, u8)]) -> Vec<Arc<AddressRanges>> {
    let mut ranges = AddressRanges::default();
    for (address, length) in prefixes {
        ranges.push_prefix(address.parse().unwrap(), *length);
    }
    ranges.normalise();
    vec![Arc::new(ranges)]
}

fn among(prefixes: &[(&str, u8)]) -> AddressMatch {
    AddressMatch {
        any_of: Some(AddressList { fixed: fixed(prefixes), dynamic: Vec::new() }),
        none_of: AddressList::default(),
    }
}

fn outside(prefixes: &[(&str, u8)]) -> AddressMatch {
    AddressMatch { any_of: None, none_of: AddressList { fixed: fixed(prefixes), dynamic: Vec::new() } }
}

/// A field's conditions against the packet of `syn()`: hit, miss, negated hit, negated miss; and how to take the
/// field away.
struct Case {
    name: &'static str,
    hit: Match,
    miss: Match,
    not_other: Match,
    not_it: Match,
    remove: fn(&mut Fields),
    /// Makes it unknown, where there is that state.
    hide: Option<fn(&mut Fields)>,
}

fn numbers(
    name: &'static str,
    value: u32,
    max: u32,
    put: fn(Option<Ranges>) -> Match,
    remove: fn(&mut Fields),
    hide: Option<fn(&mut Fields)>,
) -> Case {
    let one = Ranges::new(vec![(value, value)]);
    let other = Ranges::new(vec![(0, value - 1)]);
    Case {
        name,
        hit: put(Some(one.clone())),
        miss: put(Some(other.clone())),
        not_other: put(Some(other.complement(max))),
        not_it: put(Some(one.complement(max))),
        remove,
        hide,
    }
}

fn number_cases() -> Vec<Case> {
    vec![
        numbers(
            "proto",
            6,
            255,
            |proto| Match { proto, ..Match::default() },
            |f| f.proto = Field::Absent,
            Some(|f| f.proto = Field::Unknown),
        ),
        numbers(
            "port",
            22,
            65_535,
            |port| Match { port, ..Match::default() },
            |f| f.port = Field::Absent,
            Some(|f| f.port = Field::Unknown),
        ),
        numbers(
            "source_port",
            1000,
            65_535,
            |source_port| Match { source_port, ..Match::default() },
            |f| f.source_port = Field::Absent,
            Some(|f| f.source_port = Field::Unknown),
        ),
        numbers("vlan", 7, 4095, |vlan| Match { vlan, ..Match::default() }, |f| f.vlan = Field::Absent, None),
        numbers("mark", 9, u32::MAX, |mark| Match { mark, ..Match::default() }, |f| f.mark = Field::Absent, None),
        numbers("dscp", 10, 63, |dscp| Match { dscp, ..Match::default() }, |f| f.dscp = Field::Absent, None),
        numbers(
            "length",
            60,
            65_535,
            |length| Match { length, ..Match::default() },
            |f| f.length = Field::Absent,
            None,
        ),
    ]
}

fn flag_set(of: impl Fn(u8) -> bool) -> FlagSet {
    let mut set = FlagSet::default();
    (0..=255).filter(|&flags| of(flags)).for_each(|flags| set.insert(flags));
    set
}

fn other_cases() -> Vec<Case> {
    let from = |one| Match { from: vec![one], ..Match::default() };
    let to = |one| Match { to: vec![one], ..Match::default() };
    let family = |v4, v6| Match { family: Some(Families { v4, v6 }), ..Match::default() };
    let flags = |of: fn(u8) -> bool| Match { flags: Some(flag_set(of)), ..Match::default() };
    let fragment = |wanted| Match { fragment: Some(wanted), ..Match::default() };
    vec![
        Case {
            name: "from",
            hit: from(among(&[("203.0.113.0", 24)])),
            miss: from(among(&[("198.51.100.0", 24), ("2001:db8::", 0)])),
            not_other: from(outside(&[("198.51.100.0", 24), ("2001:db8::", 0)])),
            not_it: from(outside(&[("203.0.113.5", 32)])),
            remove: |f| f.from = Field::Absent,
            hide: None,
        },
        Case {
            name: "to",
            hit: to(among(&[("192.0.2.1", 32)])),
            miss: to(among(&[("192.0.2.2", 32)])),
            not_other: to(outside(&[("192.0.2.2", 32)])),
            not_it: to(outside(&[("0.0.0.0", 0)])),
            remove: |f| f.to = Field::Absent,
            hide: None,
        },
        Case {
            name: "family",
            hit: family(true, false),
            miss: family(false, true),
            not_other: family(true, false),
            not_it: family(false, true),
            remove: |f| f.family = Field::Absent,
            hide: None,
        },
        Case {
            name: "flags",
            hit: flags(|flags| flags & 0x12 == 2),
            miss: flags(|flags| flags & 0x10 != 0),
            not_other: flags(|flags| flags & 0x10 == 0),
            not_it: flags(|flags| flags & 0x12 != 2),
            remove: |f| f.flags = Field::Absent,
            hide: Some(|f| f.flags = Field::Unknown),
        },
        Case {
            name: "fragment",
            hit: fragment(false),
            miss: fragment(true),
            not_other: fragment(false),
            not_it: fragment(true),
            remove: |f| f.fragment = Field::Absent,
            hide: None,
        },
    ]
}

#[test]
fn every_field_hit_missed_negated_absent_and_unknown() {
    for case in number_cases().into_iter().chain(other_cases()) {
        let name = case.name;
        let [mut absent, mut unknown] = [syn(), syn()];
        (case.remove)(&mut absent);
        assert_eq!(refusal_and_permission(&case.hit, &syn()), (true, true), "{name} hit");
        assert_eq!(refusal_and_permission(&case.miss, &syn()), (false, false), "{name} missed");
        assert_eq!(refusal_and_permission(&case.not_other, &syn()), (true, true), "{name} not another");
        assert_eq!(refusal_and_permission(&case.not_it, &syn()), (false, false), "{name} not it");
        for matches in [&case.hit, &case.miss, &case.not_other, &case.not_it] {
            assert_eq!(refusal_and_permission(matches, &absent), (false, false), "{name} absent");
            if let Some(hide) = case.hide {
                hide(&mut unknown);
                assert_eq!(refusal_and_permission(matches, &unknown), (true, false), "{name} unknown");
            }
        }
    }
}

#[test]
fn icmp_types_are_of_their_protocol() {
    let message = |v6, kind, code| Fields {
        proto: Field::Value(if v6 { 58 } else { 1 }),
        icmp: Field::Value(Icmp { v6, kind, code }),
        ..syn()
    };
    let echo =
        |v4, v6| Match { icmp: Some(IcmpMatch { v4: Ranges::new(v4), v6: Ranges::new(v6) }), ..Match::default() };
    let both = echo(vec![(8 * 256, 8 * 256 + 255)], vec![(128 * 256, 128 * 256 + 255)]);
    assert_eq!(refusal_and_permission(&both, &message(false, 8, 3)), (true, true));
    assert_eq!(refusal_and_permission(&both, &message(true, 128, 0)), (true, true));
    assert_eq!(refusal_and_permission(&both, &message(false, 128, 0)), (false, false));
    assert_eq!(refusal_and_permission(&both, &message(false, 9, 0)), (false, false));
    assert_eq!(refusal_and_permission(&echo(vec![(0, 65_535)], vec![]), &message(true, 8, 0)), (false, false));
    assert_eq!(refusal_and_permission(&both, &syn()), (false, false), "TCP has no type");
    let later = |proto| Fields { proto, icmp: Field::Unknown, ..syn() };
    assert_eq!(refusal_and_permission(&both, &later(Field::Value(1))), (true, false));
    let only4 = echo(vec![(8 * 256, 8 * 256)], vec![]);
    assert_eq!(refusal_and_permission(&only4, &later(Field::Value(1))), (true, false));
    assert_eq!(refusal_and_permission(&only4, &later(Field::Value(58))), (false, false), "it cannot be ICMPv4");
    assert_eq!(refusal_and_permission(&only4, &later(Field::Unknown)), (true, false));
}

#[test]
fn interfaces_match_by_name_and_wildcard() {
    let globs = |list: &[&str]| list.iter().map(|glob| NameGlob((*glob).to_owned())).collect::<Vec<_>>();
    let matched = |any_of: Option<&[&str]>, none_of: &[&str]| {
        let interface = vec![InterfaceMatch { any_of: any_of.map(globs), none_of: globs(none_of) }];
        refusal_and_permission(&Match { interface, ..Match::default() }, &syn())
    };
    let cases = [
        (Some(&["eth0"][..]), &[][..], true),
        (Some(&["wg0", "eth*"]), &[], true),
        (Some(&["e*0", "x"]), &[], true),
        (Some(&["eth?"]), &[], true),
        (Some(&["*"]), &["eth1"], true),
        (Some(&["eth", "eth0?", "?th", "eth00", ""]), &[], false),
        (None, &["eth*"], false),
        (None, &["wg*"], true),
        (Some(&["eth*"]), &["eth0"], false),
    ];
    for (any_of, none_of, expected) in cases {
        assert_eq!(matched(any_of, none_of), (expected, expected), "{any_of:?} without {none_of:?}");
    }
    let both = |second: &str| Match {
        interface: vec![
            InterfaceMatch { any_of: Some(globs(&["eth*"])), none_of: vec![] },
            InterfaceMatch { any_of: Some(globs(&[second])), none_of: vec![] },
        ],
        ..Match::default()
    };
    assert_eq!(refusal_and_permission(&both("*0"), &syn()), (true, true), "all conditions of a list hold");
    assert_eq!(refusal_and_permission(&both("*1"), &syn()), (false, false));
}

#[test]
fn address_conditions_are_anded_and_their_lists_ored() {
    let jail = |_: SetId, address: std::net::IpAddr| address == "203.0.113.5".parse::<std::net::IpAddr>().unwrap();
    let line = |from: Vec<AddressMatch>, full: bool| {
        let policy = policy(Verdict::Accept, vec![rule(Verdict::Drop, Match { from, ..Match::default() })]);
        let members: &crate::oracle::Members<'_> = if full { &jail } else { &no_members };
        judge(&policy, &context(), &Ok(syn()), members, &[]).line == LineRef::Rule(0)
    };
    let list = |prefixes: &[(&str, u8)]| AddressList { fixed: fixed(prefixes), dynamic: vec![SetId(0)] };
    let any = |list| AddressMatch { any_of: Some(list), none_of: AddressList::default() };
    let none = |list| AddressMatch { any_of: None, none_of: list };
    assert!(line(vec![any(list(&[]))], true) && !line(vec![any(list(&[]))], false));
    assert!(line(vec![any(list(&[("203.0.113.0", 24)]))], false), "a static member of a list with a dynamic set");
    assert!(!line(vec![none(list(&[]))], true) && line(vec![none(list(&[]))], false));
    assert!(!line(vec![none(list(&[("203.0.113.0", 24)]))], false));
    let network = among(&[("203.0.113.0", 24)]);
    assert!(line(vec![network.clone(), any(list(&[]))], true) && !line(vec![network, any(list(&[]))], false));
    assert!(!line(vec![any(AddressList::default())], true), "an empty list has no member");
}

#[test]
fn the_first_match_decides_and_others_continue() {
    let audit = |verdict| crate::model::Rule { audit: true, ..rule(verdict, Match::default()) };
    let rules = vec![
        rule(Verdict::Drop, Match { port: only(80), ..Match::default() }),
        rule(Verdict::Count, Match::default()),
        audit(Verdict::Drop),
        audit(Verdict::Reject),
        rule(Verdict::Count, Match { port: only(80), ..Match::default() }),
        rule(Verdict::Reject, Match { port: ports(20, 30), ..Match::default() }),
        rule(Verdict::Accept, Match::default()),
    ];
    let decision = decide(&policy(Verdict::Drop, rules), &syn());
    let expected =
        Decision { verdict: Verdict::Reject, line: LineRef::Rule(5), continued: vec![1, 2, 3], unknown: false };
    assert_eq!(decision, expected);
    let none = decide(&policy(Verdict::Reject, Vec::new()), &syn());
    assert_eq!((none.verdict, none.line), (Verdict::Reject, LineRef::Default));
}

#[test]
fn unknown_matches_refusals_also_audited_ones_and_nothing_else() {
    let later = Fields { port: Field::Unknown, ..syn() };
    let on_port = || Match { port: only(80), ..Match::default() };
    let rules = vec![
        rule(Verdict::Count, on_port()),
        rule(Verdict::Accept, on_port()),
        crate::model::Rule { audit: true, ..rule(Verdict::Drop, on_port()) },
        rule(Verdict::Drop, Match { proto: only(17), ..on_port() }),
        rule(Verdict::Drop, Match { proto: only(6), ..on_port() }),
    ];
    let decision = decide(&policy(Verdict::Accept, rules), &later);
    let expected = Decision { verdict: Verdict::Drop, line: LineRef::Rule(4), continued: vec![2], unknown: true };
    assert_eq!(decision, expected);
}

#[test]
fn the_thirty_third_continuation_drops() {
    let counts = |count| {
        let mut rules = vec![rule(Verdict::Count, Match::default()); count];
        rules.push(rule(Verdict::Accept, Match::default()));
        decide(&policy(Verdict::Accept, rules), &syn())
    };
    let all = (0..32).collect::<Vec<_>>();
    let enough = counts(32);
    assert_eq!((enough.verdict, enough.line, enough.continued), (Verdict::Accept, LineRef::Rule(32), all.clone()));
    let too_many = counts(33);
    assert_eq!((too_many.verdict, too_many.line, too_many.continued), (Verdict::Drop, LineRef::Continuations, all));
}

fn floor_line(context: &Context, fields: &Fields) -> Option<usize> {
    let chain = policy(Verdict::Drop, Vec::new()).ingress;
    let policy = Policy { egress: chain.clone(), ingress: chain, ..policy(Verdict::Drop, Vec::new()) };
    match judge(&policy, context, &Ok(fields.clone()), &no_members, &[]).line {
        LineRef::Floor(line) => Some(line),
        LineRef::Default => None,
        other => panic!("{other:?}"),
    }
}

fn icmp(v6: bool, kind: u8, code: u8, hops: u8) -> Fields {
    Fields {
        family: Field::Value(if v6 { Family::V6 } else { Family::V4 }),
        proto: Field::Value(if v6 { 58 } else { 1 }),
        icmp: Field::Value(Icmp { v6, kind, code }),
        hop_limit: Field::Value(hops),
        ..syn()
    }
}

#[test]
fn the_floor_lets_icmp_of_the_link_and_of_path_mtu_pass() {
    let line = |fields: &Fields| floor_line(&context(), fields);
    for kind in [133, 135, 136] {
        assert_eq!(line(&icmp(true, kind, 0, 255)), Some(1));
        assert_eq!(line(&icmp(true, kind, 0, 254)), None, "from beyond the link");
        assert_eq!(line(&icmp(true, kind, 1, 255)), None, "another code");
    }
    assert_eq!(line(&icmp(true, 134, 0, 255)), Some(2));
    assert_eq!((line(&icmp(true, 134, 0, 64)), line(&icmp(true, 134, 1, 255))), (None, None));
    assert_eq!(line(&icmp(true, 137, 0, 255)), None, "a redirect");
    for kind in [130, 131, 132, 143] {
        assert_eq!((line(&icmp(true, kind, 0, 1)), line(&icmp(true, kind, 0, 2))), (Some(3), None));
    }
    assert_eq!((line(&icmp(false, 3, 4, 9)), line(&icmp(false, 3, 3, 9))), (Some(5), None));
    assert_eq!((line(&icmp(true, 2, 0, 9)), line(&icmp(true, 3, 0, 9))), (Some(5), None));
    let crossed = |v6: bool, family| Fields {
        family: Field::Value(family),
        ..icmp(v6, if v6 { 135 } else { 3 }, if v6 { 0 } else { 4 }, 255)
    };
    assert_eq!((line(&crossed(true, Family::V4)), line(&crossed(false, Family::V6))), (None, None));
    let fragment = Fields { fragment: Field::Value(true), ..icmp(true, 135, 0, 255) };
    assert_eq!(line(&fragment), None, "only whole packets");
    let lo = Context { loopback: true, ..context() };
    assert_eq!(floor_line(&lo, &fragment), Some(6), "on the loopback device fragments pass too");
}

#[test]
fn the_floor_lets_arp_dhcp_and_loopback_pass() {
    let arp = Fields { arp: true, fragment: Field::Absent, family: Field::Absent, ..syn() };
    assert_eq!(floor_line(&context(), &arp), Some(0));
    assert_eq!(floor_line(&context(), &syn()), None);
    assert_eq!(floor_line(&Context { loopback: true, ..context() }, &syn()), Some(6));
    let dhcp = |family, source, destination| Fields {
        family: Field::Value(family),
        proto: Field::Value(17),
        source_port: Field::Value(source),
        port: Field::Value(destination),
        ..syn()
    };
    let leaving = Context { ingress: false, ..context() };
    for (family, server, client) in [(Family::V4, 67, 68), (Family::V6, 547, 546)] {
        assert_eq!(floor_line(&context(), &dhcp(family, server, client)), Some(4));
        assert_eq!(floor_line(&leaving, &dhcp(family, client, server)), Some(4));
        assert_eq!(floor_line(&context(), &dhcp(family, client, server)), None, "a client's request arriving");
        assert_eq!(floor_line(&leaving, &dhcp(family, server, client)), None);
        let tcp = Fields { proto: Field::Value(6), ..dhcp(family, server, client) };
        assert_eq!(floor_line(&context(), &tcp), None);
    }
    assert_eq!(floor_line(&context(), &dhcp(Family::V6, 67, 68)), None, "the other family's ports");
}

#[test]
fn a_line_of_the_floor_can_be_handed_to_the_rules() {
    let mut policy = policy(Verdict::Drop, Vec::new());
    policy.floor[2] = false;
    assert_eq!(decide(&policy, &icmp(true, 134, 0, 255)).line, LineRef::Default);
    assert_eq!(decide(&policy, &icmp(true, 135, 0, 255)).line, LineRef::Floor(1));
}

#[test]
fn malformed_comes_first_then_floor_then_entries_then_rules() {
    let policy = policy(Verdict::Drop, vec![rule(Verdict::Accept, Match::default())]);
    let lo = Context { loopback: true, ..context() };
    let line = |context: &Context, parsed, entries: &[DynamicEntry]| {
        judge(&policy, context, &parsed, &no_members, entries).line
    };
    let broken = Err(crate::oracle::Malformed::BadNetwork);
    assert_eq!(line(&lo, broken.clone(), &[entry(1, true)]), LineRef::Malformed(3));
    assert_eq!(judge(&policy, &lo, &broken, &no_members, &[]).verdict, Verdict::Drop);
    assert_eq!(line(&lo, Ok(syn()), &[entry(1, false)]), LineRef::Floor(6));
    assert_eq!(line(&context(), Ok(syn()), &[entry(1, false)]), LineRef::Dynamic(1));
    assert_eq!(line(&context(), Ok(syn()), &[]), LineRef::Rule(0));
    let leaving = Context { ingress: false, ..context() };
    assert_eq!(line(&leaving, broken, &[]), LineRef::Unattached);
}

#[test]
fn dynamic_entries() {
    let mut policy = policy(Verdict::Drop, Vec::new());
    policy.egress.clone_from(&policy.ingress);
    let line = |entries: &[DynamicEntry], fields: &Fields| {
        judge(&policy, &context(), &Ok(fields.clone()), &no_members, entries)
    };
    let newest = line(&[entry(3, true), entry(9, false), entry(4, true)], &syn());
    assert_eq!((newest.verdict, newest.line), (Verdict::Drop, LineRef::Dynamic(9)));
    assert_eq!(line(&[entry(3, true)], &syn()).verdict, Verdict::Accept);
    let prefix = |address: &str, length| DynamicEntry { address: address.parse().unwrap(), length, ..entry(1, false) };
    for (address, length, matches) in [
        ("203.0.113.5", 32, true),
        ("203.0.113.4", 31, true),
        ("203.0.113.4", 32, false),
        ("203.0.112.255", 24, false),
        ("8.8.8.8", 0, true),
        ("::", 0, false),
    ] {
        assert_eq!(line(&[prefix(address, length)], &syn()).line == LineRef::Dynamic(1), matches, "{address}/{length}");
    }
    let ported = |accept, port| DynamicEntry { port: Some(port), ..entry(1, accept) };
    let hit = |entry, fields: &Fields| line(&[entry], fields).line == LineRef::Dynamic(1);
    assert!(hit(ported(true, 22), &syn()) && !hit(ported(true, 23), &syn()));
    let unknown = Fields { port: Field::Unknown, ..syn() };
    assert!(hit(ported(false, 23), &unknown) && !hit(ported(true, 22), &unknown), "unknown matches refusals only");
    let portless = Fields { port: Field::Absent, ..syn() };
    assert!(!hit(ported(false, 22), &portless) && hit(entry(1, false), &portless));
    assert!(!hit(entry(1, false), &Fields { from: Field::Absent, ..syn() }));
    // Leaving packets are judged by their destination, by entries for leaving packets.
    let leaving = Context { ingress: false, ..context() };
    let out = |address: &str| DynamicEntry { ingress: false, ..prefix(address, 32) };
    let leaves = |entry| judge(&policy, &leaving, &Ok(syn()), &no_members, &[entry]).line == LineRef::Dynamic(1);
    assert!(leaves(out("192.0.2.1")) && !leaves(out("203.0.113.5")) && !leaves(prefix("192.0.2.1", 32)));
}

#[test]
fn lines_are_counted_where_the_abi_says() {
    let lines = [
        LineRef::Default,
        LineRef::Floor(6),
        LineRef::Malformed(5),
        LineRef::Dynamic(7),
        LineRef::Continuations,
        LineRef::Rule(2),
    ];
    assert_eq!(lines.map(|line| line.counter().unwrap()), [0, 7, 13, 14, 15, 20]);
    assert_eq!(LineRef::Unattached.counter(), None);
}
