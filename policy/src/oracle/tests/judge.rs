//! Who decides: malformed, floor, dynamic entries, rules in order, default.

use super::{context, decide, entry, only, policy, ports, rule, syn};
use crate::model::{Match, Policy, Verdict};
use crate::oracle::{Context, Decision, DynamicEntry, Family, Field, Fields, Icmp, LineRef, judge, no_members};

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
    assert_eq!(lines.map(|line| line.counter().unwrap()), [0, 7, 13, 14, 15, ringfence_abi::counter::BUILTINS + 2]);
    assert_eq!(LineRef::Unattached.counter(), None);
}
