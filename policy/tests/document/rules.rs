use ringfence_policy::model::{Add, Connections, Limit, Per, Quantity, Rate, SetId, Verdict};

use super::{accepts, load_all, refuses, says, warns, with_rule};

#[test]
fn every_verb_and_the_keys_beside_it() {
    for rule in [
        "accept: any",
        "drop: any",
        "reject: any",
        "count: any",
        "drop: any\n        name: a.b-c_1\n        comment: why",
        "drop: any\n        mode: audit",
        "reject: any\n        mode: enforce",
    ] {
        accepts(&with_rule(rule));
    }
    for (rule, fragment) in [
        ("deny: any", "packets are dropped or rejected"),
        ("allow: any", "packets are accepted: `accept`"),
        ("dorp: any", "did you mean `drop`?"),
        ("name: x", "a rule without a verb"),
        ("drop: any\n        accept: any", "two verbs, `drop` and `accept`"),
        ("drop: all", "to match everything, write `any`"),
        ("drop: [tcp]", "expected fields such as"),
        ("drop", "expected a rule such as"),
        ("drop:", "`drop` has no value"),
        ("drop: any\n        port: 22", "fields stand inside the verb"),
        ("drop: any\n        name: default", "is reserved"),
        ("drop: any\n        name: a/b", "is not a name"),
        ("drop: any\n        name: 1a", "begins with a letter"),
        ("drop: any\n        name: [a]", "expected a name, found a list"),
        ("drop: any\n        comment: {a: b}", "expected a comment, found a mapping"),
        ("drop: any\n        mode: adit", "did you mean `audit`?"),
        ("accept: any\n        mode: audit", "which refuses nothing"),
        ("count: any\n        mode: audit", "which refuses nothing"),
        ("drop: any\n        when: {proto: tcp}", "stands beside `use` only"),
        ("drop: any\n        rules: [{drop: any}]", "make a group and `use` it"),
        ("drop: any\n        nmae: x", "did you mean `name`?"),
    ] {
        refuses(&with_rule(rule), fragment);
    }
}

#[test]
fn what_comes_later_is_checked_and_refused_once_a_kind() {
    let rules =
        "drop: {state: new}\n        log: {rate: 10/s, sample: 1/100}\n      - accept: {proto: tcp}\n        log: true";
    let said = says(&with_rule(rules));
    let count = |part: &str| said.iter().filter(|line| line.contains(part)).count();
    assert_eq!((count("`log` needs"), said.len()), (1, 1), "{said:#?}");
    assert!(said[0].starts_with("12:9 `log`") && said[0].ends_with("also at p.yaml:14"), "{said:#?}");
    for (rule, fragment) in [
        ("accept: {state: nw}", "unknown state `nw`"),
        ("drop: any\n        limit: {rate: 10/s}", "lets the flood through"),
        ("drop: any\n        limit: {over: 10}", "expected a rate"),
        ("drop: any\n        limit: {over: 0/s}", "expected a rate"),
        ("drop: any\n        limit: {burst: 3}", "one of `rate`, `over` and `connections`"),
        ("drop: any\n        limit: {over: 1/s, per: port}", "unknown value of `per`"),
        ("drop: any\n        limit: {over: 1/s, per: rule/8}", "no prefix length"),
        ("drop: any\n        limit: {over: 1/s, brust: 8}", "did you mean `burst`?"),
        ("drop: any\n        limit: 10/s", "found a single value"),
        ("drop: any\n        add: {source: $nets}", "`$nets` is not a dynamic set"),
        ("drop: any\n        add: {source: jail}", "is not a dynamic set"),
        ("drop: any\n        add: {src: $jail}", "unknown key of `add`"),
        ("drop: any\n        add: $jail", "expected `{source: $set}`"),
        ("drop: any\n        log: false", "means nothing"),
        ("drop: any\n        log: {sample: 100}", "expected a fraction"),
        ("drop: any\n        log: {often: 1}", "unknown key of `log`"),
        ("drop: any\n        protect: syn", "unknown protection"),
        ("drop: any\n        protect: syn-flood", "`protect` on `drop`"),
        ("accept: {proto: udp}\n        protect: syn-flood", "matches no TCP"),
    ] {
        refuses(&with_rule(rule), fragment);
    }
}

const GROUP: &str =
    "ringfence: 1\ngroups:\n  ssh: [{accept: {proto: tcp, port: 22}, name: in}, {drop: {proto: tcp, port: 23}}]\n";

fn with_uses(uses: &str) -> String {
    format!("{GROUP}network:\n  ingress:\n    default: accept\n    rules:\n{uses}")
}

#[test]
fn groups_are_flattened_and_named() {
    let loaded = accepts(&with_uses(
        "      - use: ssh\n        when: {from: 10.0.0.0/8}\n      - use: ssh\n        name: rest\n",
    ));
    let rules = &loaded.policy.ingress.unwrap().rules;
    let names: Vec<_> = rules.iter().map(|rule| (rule.name.as_str(), rule.named, rule.matches.from.len())).collect();
    assert_eq!(names, [("ssh/in", true, 1), ("ssh[1]", false, 1), ("rest/in", true, 0), ("rest[1]", false, 0)]);
    assert_eq!(rules[0].at.line, 3);
}

#[test]
fn groups_and_their_uses_are_checked() {
    for (uses, fragment) in [
        ("      - use: shs\n", "did you mean `ssh`?"),
        ("      - use: ssh\n      - use: ssh\n", "used twice in `ingress`"),
        ("      - use: ssh\n        mode: audit\n", "belongs to the rules of the group"),
        ("      - use: ssh\n        when: {prt: 1}\n", "did you mean `port`?"),
        ("      - use: [ssh]\n", "expected a group's name, found a list"),
    ] {
        refuses(&with_uses(uses), fragment);
    }
    warns(
        &with_uses("      - use: ssh\n        when: {proto: udp}\n"),
        "its `proto` and that of `when` exclude each other",
    );
    warns(&with_uses("      - drop: any\n"), "the group `ssh` is not used");
    let group = |rules: &str| {
        format!("ringfence: 1\ngroups:\n  g: {rules}\nnetwork:\n  ingress: {{default: accept, rules: [{{use: g}}]}}\n")
    };
    refuses(&group("[{use: g}]"), "a group inside a group");
    refuses(&group("[{deny: {op: exec}}]"), "rules about the host, not about packets");
    refuses(&group("{drop: any}"), "expected a list of rules, found a mapping");
    refuses(&group("[{drop: {proto: tcp}, name: a}, {drop: any, name: a}]"), "`a` is given twice");
    refuses(&group("[{drop: {port: 22}}]"), "`port` without `proto`");
    refuses("ringfence: 1\ngroups: {default: [{drop: any}]}\n", "is reserved");
    refuses("ringfence: 1\ngroups: {\"a b\": [{drop: any}]}\n", "is not a name");
}

#[test]
fn a_when_may_bring_the_protocol() {
    accepts(
        "ringfence: 1\ngroups: {g: [{drop: {port: 22}}]}\nnetwork:\n  ingress: {default: accept, rules: [{use: g, when: {proto: tcp}}]}\n",
    );
}

#[test]
fn chains_have_a_default_and_say_that_they_are_stateless() {
    let chain = |keys: &str| format!("ringfence: 1\nnetwork:\n  ingress: {keys}\n");
    for keys in [
        "{default: drop, stateless: true}",
        "{default: reject, stateless: true}",
        "{default: accept}",
        "{default: accept, rules: [{drop: any}]}",
        "{default: accept, protect: syn-flood}",
    ] {
        accepts(&chain(keys));
    }
    refuses(&chain("{default: accept}\n  egress: {default: accept, protect: syn-flood}"), "it belongs into `ingress`");
    let in_egress = "{default: accept}\n  egress: {default: accept, rules: [{accept: any, protect: syn-flood}]}";
    refuses(&chain(in_egress), "it belongs into `ingress`");
    for (keys, fragment) in [
        ("{rules: [{drop: any}]}", "`ingress` has no `default`"),
        ("{default: drop}", "say `stateless: true`"),
        ("{default: reject, stateless: false}", "say `stateless: true`"),
        ("{default: deny, stateless: true}", "packets are dropped: `drop`"),
        ("{default: allow}", "packets are accepted: `accept`"),
        ("{default: count}", "unknown verdict `count`"),
        ("{defualt: accept}", "did you mean `default`?"),
        ("{default: accept, rules: {drop: any}}", "expected a list of rules"),
        ("{default: accept, stateless: maybe}", "expected `true` or `false`"),
        ("{default: accept, protect: syn-floods}", "unknown protection"),
        ("[drop]", "expected a mapping with `default` and `rules`"),
    ] {
        refuses(&chain(keys), fragment);
    }
}

#[test]
fn the_floor_and_the_interfaces() {
    let network = |keys: &str| format!("ringfence: 1\nnetwork:\n  {keys}\n  egress: {{default: accept}}\n");
    let loaded = accepts(&network("floor: {router-advertisement: false, arp: true}"));
    assert_eq!(loaded.policy.floor, [true, true, false, true, true, true, true]);
    accepts(&network("interfaces: eth0"));
    for (keys, fragment) in [
        ("floor: {router-advertisment: false}", "did you mean `router-advertisement`?"),
        ("floor: {arp: off}", "expected `true` or `false`"),
        ("floor: none", "expected floor lines"),
        ("interfaces: {eth0: true}", "expected a list of interface names"),
        ("interfaces: [eth/0]", "is not an interface name"),
        ("ingres: {default: accept}", "did you mean `ingress`?"),
    ] {
        refuses(&network(keys), fragment);
    }
}

#[test]
fn the_top_level() {
    for (text, fragment) in [
        ("network: {ingress: {default: accept}}\n", "the language version is missing"),
        ("ringfence: 2\n", "version 1 of the language only"),
        ("ringfence: one\n", "expected a number"),
        ("ringfence: 1\nmode: monitor\n", "unknown mode `monitor`"),
        ("ringfence: 1\nnetwrok: {}\n", "did you mean `network`?"),
        ("ringfence: 1\ningress: {default: accept}\n", "stands inside `network:`"),
        ("ringfence: 1\nsets: [a]\n", "expected set names"),
        ("ringfence: 1\ngroups: [a]\n", "expected group names"),
        ("ringfence: 1\ntests: {a: b}\n", "expected a list of tests"),
        ("- a\n", "expected a policy with the keys"),
        (
            "ringfence: 1\nmode: audit\nnetwork:\n  ingress: {default: accept, rules: [{drop: any, mode: enforce}]}\n",
            "cannot enforce in a policy",
        ),
    ] {
        refuses(text, fragment);
    }
}

#[test]
fn a_directory_adds_up_and_contradicts_itself_nowhere() {
    let first = "ringfence: 1\nsets: {a: [10.0.0.1]}\nnetwork:\n  ingress: {default: accept, rules: [{drop: {from: $a}, name: one}]}\n";
    let second = "ringfence: 1\nnetwork:\n  ingress: {rules: [{drop: {to: $a}}]}\n";
    let loaded = load_all(&[("d/10.yaml", first), ("d/20.yaml", second)]).unwrap();
    let names: Vec<_> = loaded.policy.ingress.unwrap().rules.iter().map(|rule| rule.name.clone()).collect();
    assert_eq!(names, ["one", "20.yaml:ingress[0]"]);
    let report = load_all(&[("d/10.yaml", first), ("d/20.yaml", first)]).unwrap_err();
    let said: Vec<_> =
        report.diagnostics.iter().map(|diagnostic| (diagnostic.file.as_str(), diagnostic.message.as_str())).collect();
    assert_eq!(
        said,
        [
            ("d/20.yaml", "the set `a` is declared twice, first in d/10.yaml:2"),
            ("d/20.yaml", "the default of `ingress` is set a second time, first in d/10.yaml:4"),
            ("d/20.yaml", "the rule name `one` is given twice, first in d/10.yaml:4"),
        ]
    );
    let all =
        "ringfence: 1\nmode: enforce\ngroups: {g: [{drop: any}]}\nnetwork: {interfaces: [eth0], floor: {arp: true}}\n";
    let report = load_all(&[("a", all), ("b", all)]).unwrap_err().to_string();
    for what in [
        "mode is set a second time",
        "interfaces is set a second time",
        "floor: arp is set a second time",
        "the group `g` is declared twice, first in a:3",
    ] {
        assert!(report.contains(what), "{what}:\n{report}");
    }
}

#[test]
fn connections_are_followed_where_a_rule_asks_for_their_state() {
    let with = |network: &str| format!("ringfence: 1\nnetwork:\n  interfaces: [eth0]\n{network}");
    let stateful = "  ingress:\n    default: drop\n    rules:\n      - accept: {state: [established, related]}\n";
    let policy = accepts(&with(stateful)).policy;
    assert!(policy.tracks());
    let egress = policy.egress.expect("the other direction is followed, too");
    assert_eq!((egress.default, egress.rules.len()), (Verdict::Accept, 0));
    assert_eq!(policy.connections, Connections::default());
    let sized = "  connections: {capacity: 2048, timeouts: {udp: 10s, tcp-established: 2h}}\n";
    let connections = accepts(&with(&format!("{sized}{stateful}"))).policy.connections;
    assert_eq!((connections.capacity, connections.timeouts[4], connections.timeouts[1]), (2048, 10, 7200));
    assert!(connections.bytes() < Connections::default().bytes() / 64);

    for refused in ["accept: {state: new}", "drop: {state: established}", "accept: {proto: tcp}"] {
        let text = stateful.replace("accept: {state: [established, related]}", refused);
        refuses(&with(&text), "accepts no established connections");
        accepts(&with(&text.replace("default: drop", "default: drop\n    stateless: true")));
    }
    for (connections, fragment) in [
        ("{capacity: 10}", "expected 1024 to 4194304"),
        ("{capacity: many}", "expected a number"),
        ("{size: 4096}", "unknown key of `connections`"),
        ("{timeouts: {tcp: 1h}}", "unknown state of a connection"),
        ("{timeouts: {udp: 31d}}", "a timeout is 30 days at most"),
        ("{timeouts: 1h}", "expected a mapping with states"),
    ] {
        refuses(&with(&format!("  connections: {connections}\n{stateful}")), fragment);
    }
}

#[test]
fn limits_are_rates_of_packets_or_bytes() {
    let limit = |text: &str| {
        let policy = accepts(&with_rule(&format!("drop: {{proto: udp}}\n        limit: {text}"))).policy;
        policy.ingress.unwrap().rules[0].limit.unwrap()
    };
    let over = |amount, seconds, bytes, burst, per| Limit {
        of: Quantity::Rate { rate: Rate { amount, seconds, bytes }, burst },
        over: true,
        per,
    };
    for (text, expected) in [
        ("{over: 10/minute}", over(10, 60, false, 5, Per::Rule)),
        ("{over: 1000/s}", over(1000, 1, false, 100, Per::Rule)),
        ("{over: 2MiB/s, per: source}", over(2 << 20, 1, true, 209_715, Per::Source(32, 128))),
        ("{over: 7B/day, burst: 9, per: destination/24}", over(7, 86_400, true, 9, Per::Destination(24, 64))),
        ("{over: 3kB/h, per: source/56}", over(3000, 3600, true, 65_535, Per::Source(32, 56))),
    ] {
        assert_eq!(limit(text), expected, "{text}");
    }
    let rate = accepts(&with_rule("accept: any\n        limit: {rate: 5/s}")).policy.ingress.unwrap();
    assert!(!rate.rules[0].limit.unwrap().over);
    for (text, fragment) in [
        ("{over: 1/s, burst: 0}", "a burst of nothing"),
        ("{over: 1/s, per: source/0}", "one limit for all"),
        ("{over: 1/s, per: source/129}", "129"),
        ("{over: 1/week}", "expected a rate"),
        ("{over: 1TiB/s}", "expected a rate"),
        ("{over: 1/s, rate: 1/s}", "one of `rate`, `over` and `connections`"),
        ("{connections: 0}", "a limit of no connections"),
        ("{connections: 5, over: 1/s}", "one of `rate`, `over` and `connections`"),
        ("{connections: 5, burst: 9}", "`burst` beside `connections`"),
        ("{connections: 5}", "is not of TCP alone"),
    ] {
        refuses(&with_rule(&format!("drop: any\n        limit: {text}")), fragment);
    }
}

#[test]
fn limits_of_connections_match_while_there_is_room_or_once_there_is_none() {
    let limit = |verb: &str, text: &str| {
        let rule = format!("{verb}: {{proto: tcp, port: 22, state: new}}\n        limit: {text}");
        accepts(&with_rule(&rule)).policy
    };
    for (verb, over) in [("accept", false), ("count", false), ("drop", true), ("reject", true)] {
        let policy = limit(verb, "{connections: 20, per: source}");
        let expected = Limit { of: Quantity::Connections(20), over, per: Per::Source(32, 128) };
        assert_eq!(policy.ingress.as_ref().unwrap().rules[0].limit, Some(expected));
        assert!(policy.tracks());
    }
}

/// A policy with a dynamic set `jail` and one rule.
fn with_jail(set: &str, chain: &str, rule: &str) -> String {
    format!(
        "ringfence: 1\nsets:\n  jail: {set}\n  fixed: [192.0.2.1]\nnetwork:\n  interfaces: [eth0]\n  {chain}:\n    default: \
         accept\n    rules:\n      - drop: {{from: $jail}}\n      - {rule}\n"
    )
}

#[test]
fn rules_add_the_far_end_to_a_set() {
    const SET: &str = "{dynamic: true, timeout: 1h}";
    let over = "drop: {proto: tcp, port: 22, state: new}\n        limit: {over: 10/minute, per: source}";
    let rule = format!("{over}\n        add: {{source: $jail}}");
    let policy = accepts(&with_jail(SET, "ingress", &rule)).policy;
    let rules = &policy.ingress.as_ref().unwrap().rules;
    assert_eq!(rules[1].adds(), Some(Add { set: SetId(0), unproven: false }));
    assert!(policy.tracks());

    let says = |chain: &str, rule: &str, fragment: &str| refuses(&with_jail(SET, chain, rule), fragment);
    says("ingress", &format!("{over}\n        add: {{destination: $jail}}"), "takes the far end");
    says("egress", &format!("{over}\n        add: {{source: $jail}}"), "takes the far end");
    says("ingress", &format!("{over}\n        add: {{source: $fixed}}"), "is not a dynamic set");
    says("ingress", &format!("{over}\n        add: {{source: $local}}"), "is not a dynamic set");
    says("ingress", &format!("{over}\n        add: {{unproven: true}}"), "has one of `source` and `destination`");
    says("ingress", "drop: {proto: udp}\n        add: {source: $jail}", "only a handshake proves a source");
    refuses(&with_jail("{dynamic: true, capacity: 2000000}", "ingress", &rule), "has at most 1048576 elements");

    let warned = |rule: &str, fragment: &str| warns(&with_jail(SET, "ingress", rule), fragment);
    warned("drop: {proto: tcp, port: 23}\n        add: {source: $jail}", "never adds");
    warned("drop: {proto: tcp}\n        limit: {connections: 5}\n        add: {source: $jail}", "never adds");
    warned(&format!("{over}\n        mode: audit\n        add: {{source: $jail}}"), "never adds");
    warned("drop: {proto: udp}\n        add: {source: $jail, unproven: true}", "`unproven: true`");
    // What accepts a handshake proves its source.
    let honey = "accept: {proto: tcp, port: 2222}\n        add: {source: $jail}";
    assert!(accepts(&with_jail(SET, "ingress", honey)).policy.ingress.unwrap().rules[1].adds().is_some());
}
