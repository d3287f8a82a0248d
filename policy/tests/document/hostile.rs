use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{accepts, load, load_all, refuses};

#[test]
fn depth_nodes_and_size_are_bounded() {
    refuses(&format!("ringfence: 1\nx: {}", "[".repeat(100)), "32 levels deep");
    refuses(&format!("ringfence: 1\nx: {}", "[".repeat(100_000)), "32 levels deep");
    refuses(&format!("ringfence: 1\nx:\n  {}", "- ".repeat(10_000)), "32 levels deep");
    refuses(&format!("ringfence: 1\nx: [{}a]", "a,".repeat(2_000_000)), "more than 2000000 values");
    refuses(&"#".repeat((16 << 20) + 1), "larger than 16 MiB");
    assert!(load_all(&[]).unwrap_err().to_string().contains("no policy text"));
    let many: Vec<(&str, &str)> = vec![("a", "ringfence: 1\n"); 1025];
    assert!(load_all(&many).unwrap_err().to_string().contains("the limit is 1024"));
}

#[test]
fn an_alias_bomb_is_a_few_errors() {
    let mut text = "ringfence: 1\na: &a [x, x]\n".to_owned();
    for level in 0..9_u8 {
        let (this, last) = ((b'b' + level) as char, (b'a' + level) as char);
        let _ =
            writeln!(text, "{this}: &{this} [*{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}, *{last}]");
    }
    let start = Instant::now();
    refuses(&text, "an alias");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn thousands_of_errors_are_counted_and_a_thousand_kept() {
    let report = load(&format!("ringfence: 1\nsets:\n  a: [{}]\n", vec!["htttp"; 20_000].join(", "))).unwrap_err();
    assert_eq!((report.diagnostics.len(), report.omitted), (1000, 19_000));
    assert!(report.render(false).contains("and 19000 more errors"));
}

fn rules(count: usize, rule: impl Fn(usize) -> String) -> String {
    let mut text = "ringfence: 1\nnetwork:\n  ingress:\n    default: accept\n    rules:\n".to_owned();
    for i in 0..count {
        let _ = writeln!(text, "      - {}", rule(i));
    }
    text
}

#[test]
fn as_many_rules_as_a_chain_takes() {
    let rule = |i: usize| {
        format!("drop: {{proto: tcp, from: 10.{}.{}.0/24, port: {}}}", i >> 8 & 255, i & 255, 1 + i % 60_000)
    };
    let loaded = accepts(&rules(65_536, rule));
    assert_eq!(loaded.policy.ingress.unwrap().rules.len(), 65_536);
    refuses(&rules(65_537, rule), "`ingress` has more than 65536 rules");
}

#[test]
fn rules_alike_do_not_take_for_ever() {
    let start = Instant::now();
    let loaded = accepts(&rules(20_000, |i| format!("drop: {{proto: tcp, mark: {i}, length: {}}}", i % 60_000)));
    assert!(loaded.warnings.iter().any(|warning| warning.message.contains("not searched")), "{:?}", loaded.warnings);
    assert!(start.elapsed() < Duration::from_mins(1));
}

#[test]
fn long_lists_in_many_rules_are_refused() {
    let ports: Vec<String> = (0..30_000).map(|i| (2 * i).to_string()).collect();
    let mut text = format!("ringfence: 1\nsets: {{odd: [{}]}}\n", ports.join(", "));
    text.push_str(&rules(1000, |_| "drop: {proto: tcp, port: $odd}".into()).replace("ringfence: 1\n", ""));
    refuses(&text, "list too many values together");
}

const WORDS: [&str; 40] = [
    "ringfence: 1\n",
    "sets:",
    "network:",
    "ingress:",
    "egress:",
    "rules:",
    "default: drop",
    "stateless: true",
    "- ",
    "drop: ",
    "accept: ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ": ",
    "\n",
    "\n  ",
    "\n    ",
    "\n      ",
    "from",
    "to",
    "port",
    "proto",
    "tcp",
    "22",
    "10.0.0.0/8",
    "$a",
    "any",
    "not",
    "in",
    "use: g",
    "when: ",
    "groups:",
    "!x",
    "&a",
    "*a",
    "\"",
    "# c",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_words_panic(picks in proptest::collection::vec(0..WORDS.len(), 0..60)) {
        let text: String = picks.iter().map(|&pick| WORDS[pick]).collect();
        let first = load(&text).map(|loaded| loaded.warnings);
        let again = load(&text).map(|loaded| loaded.warnings);
        prop_assert_eq!(&first, &again);
        if let Err(report) = first {
            prop_assert!(!report.diagnostics.is_empty());
            prop_assert!(!report.render(true).is_empty());
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = load(&text).map_err(|report| report.render(false));
    }

    #[test]
    fn no_value_panics(key in "(from|port|proto|flags|icmp|interface|vlan|length)", value in "[-0-9a-f:./,!$x* ]{0,24}") {
        let text = super::with_rule(&format!("drop: {{proto: tcp, {key}: \"{value}\"}}"));
        let _ = load(&text).map_err(|report| report.render(false));
    }

    #[test]
    fn no_packet_panics(spec in "(( |proto|port|=|from|tcp|icmp|[0-9:./,]){0,12})") {
        let _ = ringfence_policy::parse_packet_spec(&spec);
    }
}
