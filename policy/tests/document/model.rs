use ringfence_policy::model::{Families, Match, Mode, Verdict};

use super::{accepts, with_rule};

fn matches(fields: &str) -> Match {
    let loaded = accepts(&with_rule(&format!("drop: {{{fields}}}")));
    loaded.policy.ingress.unwrap().rules.remove(0).matches
}

#[test]
fn values_become_ranges_and_negations_are_folded_in() {
    assert_eq!(
        matches("proto: tcp, port: [22, 80-81, $ports]").port.unwrap().as_slice(),
        [(22, 22), (80, 81), (443, 443)]
    );
    assert_eq!(matches("proto: tcp, port: {not: 22}").port.unwrap().as_slice(), [(0, 21), (23, 65_535)]);
    assert_eq!(matches("vlan: {in: 1-9, not: [3, 5-6]}").vlan.unwrap().as_slice(), [(1, 2), (4, 4), (7, 9)]);
    assert_eq!(matches("mark: 0xff").mark.unwrap().as_slice(), [(255, 255)]);
    assert_eq!(matches("family: ipv6").family, Some(Families { v4: false, v6: true }));
    assert_eq!(matches("fragment: false").fragment, Some(false));
    let any = accepts(&with_rule("drop: any")).policy.ingress.unwrap().rules.remove(0).matches;
    assert_eq!(format!("{any:?}"), format!("{:?}", Match::default()));
}

#[test]
fn flags_and_icmp_messages() {
    let flags = matches("flags: \"syn,!ack\"").flags.unwrap();
    assert!(flags.contains(2) && flags.contains(3) && !flags.contains(18) && !flags.contains(16));
    let either = matches("flags: [syn, fin]").flags.unwrap();
    assert!(either.contains(1) && either.contains(2) && !either.contains(4));
    let rule = matches("icmp: echo-request");
    let icmp = rule.icmp.unwrap();
    assert!(icmp.v4.contains(8 * 256 + 7) && icmp.v6.contains(128 * 256) && !icmp.v4.contains(9 * 256));
    assert_eq!(rule.proto.unwrap().as_slice(), [(1, 1), (58, 58)]);
    assert_eq!(matches("proto: icmp, icmp: 3/1").icmp.unwrap().v4.as_slice(), [(769, 769)]);
    let tcp_only = matches("flags: syn").proto.unwrap();
    assert_eq!(tcp_only.as_slice(), [(6, 6)]);
}

#[test]
fn a_chain_protects_all_that_it_accepts() {
    let rules = "rules: [{accept: {proto: tcp}}, {drop: {proto: udp}}, {count: any}]";
    let protected = |keys: &str| {
        let text = format!("ringfence: 1\nnetwork:\n  ingress: {{default: accept, {keys}{rules}}}\n");
        let chain = accepts(&text).policy.ingress.unwrap();
        (chain.protect, chain.rules.iter().map(|rule| rule.protect).collect::<Vec<_>>())
    };
    assert_eq!(protected("protect: syn-flood, "), (true, vec![true, false, false]));
    assert_eq!(protected(""), (false, vec![false, false, false]));
    let text = "ringfence: 1\nnetwork:\n  ingress:\n    default: accept\n    rules:\n      - accept: {port: 80, proto: tcp}\n        protect: syn-flood\n      - accept: any\n";
    let compiled = ringfence_policy::compile::compile(&accepts(text).policy).unwrap();
    let names: Vec<&str> = compiled.lines.iter().map(|line| line.name.as_str()).collect();
    let consts = compiled.ingress.unwrap().consts;
    assert_eq!((consts.answers, consts.default_verdict), (0, 1));
    let of_cookies = consts.cookies as usize;
    assert_eq!(
        names[of_cookies..consts.counters as usize],
        ["syn-flood/cookie", "syn-flood/invalid", "syn-flood/failed"]
    );
}

#[test]
fn a_policy_keeps_names_places_and_modes() {
    let text = "ringfence: 1\nmode: audit\nnetwork:\n  interfaces: [eth0, \"wg*\"]\n  ingress:\n    default: drop\n    stateless: true\n    rules:\n      - reject: any\n        name: all\n        mode: audit\n      - count: any\n  egress: {default: accept}\n";
    let policy = accepts(text).policy;
    assert_eq!((policy.mode, policy.files.as_slice()), (Mode::Audit, &["p.yaml".to_owned()][..]));
    assert_eq!(policy.interfaces.unwrap().len(), 2);
    let chain = policy.ingress.unwrap();
    assert_eq!((chain.default, chain.default_at.line), (Verdict::Drop, 6));
    let rules: Vec<_> = chain
        .rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule.named, rule.verdict, rule.audit, rule.at.line))
        .collect();
    assert_eq!(
        rules,
        [("all", true, Verdict::Reject, true, 9), ("p.yaml:ingress[1]", false, Verdict::Count, false, 12)]
    );
    assert!(policy.egress.unwrap().rules.is_empty());
}
