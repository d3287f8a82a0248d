//! Every field hit, missed, negated, absent and unknown.

use std::sync::Arc;

use super::{context, decide, policy, rule, syn};
use crate::model::{
    AddressList, AddressMatch, Families, FlagSet, IcmpMatch, InterfaceMatch, Match, NameGlob, SetId, Verdict,
};
use crate::oracle::{Field, Fields, Icmp, LineRef, judge, no_members};
use crate::ranges::{AddressRanges, Ranges};

/// Whether a rule with these conditions matches, once as a refusal and once as a permission.
fn refusal_and_permission(matches: &Match, fields: &Fields) -> (bool, bool) {
    let is_decisive = |verdict, default| {
        decide(&policy(default, vec![rule(verdict, matches.clone())]), fields).line == LineRef::Rule(0)
    };
    let (drop, reject) = (is_decisive(Verdict::Drop, Verdict::Accept), is_decisive(Verdict::Reject, Verdict::Accept));
    assert_eq!(drop, reject);
    (drop, is_decisive(Verdict::Accept, Verdict::Drop))
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
    let state = |low, high| Match { state: Some(Ranges::new(vec![(low, high)])), ..Match::default() };
    vec![
        Case {
            name: "state",
            hit: state(0, 0),
            miss: state(1, 2),
            not_other: state(0, 2),
            not_it: state(1, 3),
            remove: |f| f.family = Field::Absent,
            hide: Some(|f| f.later_fragment = true),
        },
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
