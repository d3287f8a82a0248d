//! The words for why a rule did not match.

use super::{context, entry, only, policy, rule, syn};
use crate::model::{AddressList, AddressMatch, Families, FlagSet, InterfaceMatch, Match, NameGlob, Rule, Verdict};
use crate::oracle::{Field, Fields, explain, no_members};
use crate::ranges::Ranges;

fn because(verdict: Verdict, matches: Match, fields: &Fields) -> String {
    let policy = policy(Verdict::Accept, vec![rule(verdict, matches)]);
    let mut all = explain(&policy, &context(), &Ok(fields.clone()), &no_members, &[]);
    all.remove(0).because
}

#[test]
fn every_field_says_what_the_packet_has() {
    let list = |list: &[(u32, u32)]| Some(Ranges::new(list.to_vec()));
    let nobody = || vec![AddressMatch { any_of: Some(AddressList::default()), none_of: AddressList::default() }];
    let cases = [
        (Match { from: nobody(), ..Match::default() }, "from: 203.0.113.5 is outside"),
        (Match { to: nobody(), ..Match::default() }, "to: 192.0.2.1 is outside"),
        (Match { proto: only(17), ..Match::default() }, "proto: 6 is not 17"),
        (Match { port: list(&[(80, 80), (443, 450)]), ..Match::default() }, "port: 22 is not 80, 443-450"),
        (Match { source_port: only(1), ..Match::default() }, "source_port: 1000 is not 1"),
        (
            Match { vlan: list(&[(1, 1), (3, 3), (5, 5), (9, 9), (11, 11), (13, 13)]), ..Match::default() },
            "vlan: 7 is not 1, 3, 5, 9 or 2 more",
        ),
        (Match { mark: Some(Ranges::default()), ..Match::default() }, "mark: 9 is not in the empty list"),
        (Match { dscp: only(1), ..Match::default() }, "dscp: 10 is not 1"),
        (Match { length: only(1), ..Match::default() }, "length: 60 is not 1"),
        (Match { family: Some(Families { v4: false, v6: true }), ..Match::default() }, "family: the packet is ipv4"),
        (Match { fragment: Some(true), ..Match::default() }, "fragment: the packet is no fragment"),
        (Match { flags: Some(FlagSet::default()), ..Match::default() }, "flags: syn are not wanted"),
        (Match { icmp: Some(crate::model::IcmpMatch::default()), ..Match::default() }, "icmp: the packet has none"),
        (
            Match {
                interface: vec![InterfaceMatch { any_of: Some(vec![NameGlob("wg*".into())]), none_of: vec![] }],
                ..Match::default()
            },
            "interface: eth0 is outside",
        ),
    ];
    for (matches, words) in cases {
        assert_eq!(because(Verdict::Accept, matches, &syn()), words);
    }
    let later = Fields { port: Field::Unknown, ..syn() };
    let on_port = || Match { port: only(80), ..Match::default() };
    assert_eq!(because(Verdict::Accept, on_port(), &later), "port: cannot be told, which only a refusal matches");
    assert_eq!(because(Verdict::Drop, on_port(), &later), "matches; port cannot be told, which a refusal matches");
}

#[test]
fn rules_are_listed_up_to_the_deciding_one() {
    let rules = vec![
        rule(Verdict::Drop, Match { port: only(80), ..Match::default() }),
        rule(Verdict::Count, Match::default()),
        Rule { audit: true, ..rule(Verdict::Reject, Match::default()) },
        rule(Verdict::Accept, Match::default()),
        rule(Verdict::Drop, Match::default()),
    ];
    let policy = policy(Verdict::Drop, rules);
    let all = explain(&policy, &context(), &Ok(syn()), &no_members, &[]);
    let seen: Vec<_> = all.iter().map(|one| (one.rule, one.name.as_str(), one.matched, one.because.as_str())).collect();
    let expected = [
        (0, "drop", false, "port: 22 is not 80"),
        (1, "count", true, "matches; counts, evaluation goes on"),
        (2, "reject", true, "matches; only audits, evaluation goes on"),
        (3, "accept", true, "matches"),
    ];
    assert_eq!(seen, expected);
    assert!(explain(&policy, &context(), &Ok(syn()), &no_members, &[entry(1, true)]).is_empty());
}

#[test]
fn the_list_ends_with_the_continuation_that_was_one_too_many() {
    let mut rules = vec![rule(Verdict::Count, Match::default()); 40];
    rules.insert(5, rule(Verdict::Count, Match { port: only(80), ..Match::default() }));
    let all = explain(&policy(Verdict::Accept, rules), &context(), &Ok(syn()), &no_members, &[]);
    assert_eq!((all.len(), all.iter().filter(|one| one.matched).count()), (34, 33));
}
