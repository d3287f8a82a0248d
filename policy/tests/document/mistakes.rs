use ringfence_policy::{Report, Severity};

use super::{load, load_all, refuses, says};

const TEN: &str = "ringfence: 1
mod: enforce
sets:
  nets: [10.0.0.1/8]
network:
  interfaces: [eth0]
  ingress:
    default: drop
    rules:
      - drop: {from: !admins}
      - accept: {proto: tcp, port: sssh}
      - accept: {port: 22}
      - deny: any
      - drop: {interface: eth1}
      - drop: {from: $jial}
      - accept: {proto: tcp}
        name: default
";

#[test]
fn ten_mistakes_are_ten_errors() {
    let report = load(TEN).unwrap_err();
    let places: Vec<_> = report
        .diagnostics
        .iter()
        .map(|d| (d.file.as_str(), d.place.as_ref().unwrap().line, d.place.as_ref().unwrap().column))
        .collect();
    let lines = [(2, 1), (4, 10), (8, 5), (10, 22), (11, 36), (12, 18), (13, 9), (14, 27), (15, 22), (17, 15)];
    assert_eq!(places, lines.map(|(line, column)| ("p.yaml", line, column)), "{report}");
    assert!(report.diagnostics.iter().all(|d| d.severity == Severity::Error));
}

#[test]
fn a_report_shows_the_line_and_marks_the_place() {
    let report = load("ringfence: 1\nnetwork:\n  ingress: {default: dorp}\n").unwrap_err();
    let expected = "error: unknown verdict `dorp`\n --> p.yaml:3:22\n  |\n3 |   ingress: {default: dorp}\n  |                      ^^^^\n  |\n  = help: did you mean `drop`?\n";
    assert_eq!(report.render(false), expected);
    assert!(report.render(true).contains("\u{1b}["));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["diagnostics"][0]["line"], 3);
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

#[test]
fn what_yaml_has_and_policies_have_not() {
    for (text, fragment) in [
        ("ringfence: 1\nmode: !x audit\n", "reads `!x` as a tag"),
        ("ringfence: 1\nmode: !!str audit\n", "as a tag"),
        ("ringfence: &a 1\n", "an anchor"),
        ("ringfence: &a 1\nmode: *a\n", "an alias"),
        ("ringfence: 1\n<<: {mode: audit}\n", "a merge key"),
        ("ringfence: 1\nmode: null\n", "YAML's null"),
        ("ringfence: 1\nmode:\n", "`mode` has no value"),
        ("ringfence: 1\nmode: #audit\n", "` #` is a comment"),
        ("ringfence: 1\nsets: {}\n", "an empty mapping"),
        ("ringfence: 1\ntests: []\n", "an empty list"),
        ("ringfence: 1\nringfence: 1\n", "given twice, first in line 1"),
        ("ringfence: 1\n---\nringfence: 1\n", "a second YAML document"),
        ("ringfence: 1\n? [a]\n: b\n", "a list as a key"),
        ("ringfence: 1\n? {a: b}\n: b\n", "a mapping as a key"),
        ("ringfence: 1\n~: b\n", "a value without a key"),
        ("ringfence: 1\ntests:\n  -\n", "an item of the list has no value"),
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("ringfence: 1\0\n", "NUL byte"),
    ] {
        refuses(text, fragment);
    }
}

#[test]
fn a_missing_quote_is_named() {
    for (text, fragment) in [
        ("ringfence: 1\nx: *\n", "begins with `*` needs quotes"),
        ("ringfence: 1\nx: *.example\n", "needs quotes"),
        ("ringfence: 1\nx: @socket\n", "begins with `@` needs quotes"),
        ("ringfence: 1\nx: %a\n", "begins with `%` needs quotes"),
        ("ringfence: 1\nx: `a`\n", "begins with ``` needs quotes"),
        ("ringfence: 1\nmode: &audit\n", "begins with `&` needs quotes"),
        ("ringfence: 1\nmode: !audit\n", "begins with `!` needs quotes"),
        ("ringfence: 1\nmode: a: b\n", "has `: ` in it"),
        ("ringfence: 1\nsets: {a: [2001:db8::]}\n", "a value that ends in `:` needs quotes"),
        ("ringfence: 1\nsets: {a: [::, 10.0.0.1]}\n", "a value that ends in `:` needs quotes"),
        ("ringfence: 1\nsets: {a: [\"/a\", \"/b #c\"], d: [/a #b]}\n", "` #` is a comment"),
        (
            "ringfence: 1\nnetwork: {ingress: {default: accept, rules: [{drop: {proto: tcp, port: 80,443}}]}}\n",
            "several values are a list",
        ),
        ("ringfence: 1\nnetwork:\n\tingress: {default: accept}\n", "YAML takes no tabs"),
    ] {
        refuses(text, fragment);
    }
}

#[test]
fn a_file_that_is_not_yaml_does_not_hide_the_others() {
    let report = load_all(&[
        ("a.yaml", "ringfence: [1\n"),
        ("b.yaml", "ringfence: 1\nmod: x\nnetwork: {ingress: {rules: [{drop: {from: $in_a}}]}}\n"),
    ])
    .unwrap_err();
    let files: Vec<_> = report.diagnostics.iter().map(|d| d.file.as_str()).collect();
    // What is missing (a set, a default) may stand in the file that cannot be read.
    assert_eq!(files, ["a.yaml", "b.yaml"], "{report}");
}

#[test]
fn a_rule_that_can_never_match_is_named_with_what_covers_it() {
    let policy = |rules: &str| {
        format!(
            "ringfence: 1\nsets: {{s: [10.0.0.0/8, 192.168.0.0/16], d: {{dynamic: true}}}}\nnetwork:\n  ingress:\n    default: accept\n    rules:\n      - count: {{from: [$s, $d]}}\n{rules}"
        )
    };
    let never = |first: &str, second: &str| {
        let said = says(&policy(&format!("      - {first}\n        name: first\n      - {second}\n")));
        said.iter().any(|line| line.contains("can never match: `first` (p.yaml:8)"))
    };
    for (first, second) in [
        ("drop: any", "accept: {proto: tcp}"),
        ("drop: {from: 10.0.0.0/8}", "accept: {from: 10.1.0.0/16, to: 10.0.0.1}"),
        ("drop: {from: $s}", "drop: {from: 192.168.1.1, proto: tcp, port: 22}"),
        ("drop: {from: [$s, $d]}", "drop: {from: $d}"),
        ("drop: {from: {not: 10.0.0.0/8}}", "drop: {from: {not: [10.0.0.0/8, 11.0.0.0/8]}}"),
        ("drop: {proto: tcp, port: 1-100}", "accept: {proto: tcp, port: [22, 80]}"),
        ("accept: {proto: tcp}", "accept: {flags: syn}"),
        ("accept: {interface: \"eth*\"}", "drop: {interface: eth0}"),
        ("accept: {family: ipv4}", "drop: {family: ipv4, vlan: 3}"),
        ("drop: {icmp: echo-request}", "drop: {proto: icmp, icmp: 8/0}"),
        ("drop: {to: \"2001:db8::/32\"}", "drop: {to: \"2001:db8::1\"}"),
    ] {
        assert!(never(first, second), "{first} / {second}");
    }
    for (first, second) in [
        ("count: any", "accept: any"),
        ("drop: any\n        mode: audit", "drop: any"),
        ("drop: {from: 10.0.0.0/8}", "drop: {to: 10.0.0.1}"),
        ("drop: {from: 10.0.0.0/8}", "drop: {from: [10.0.0.1, 11.0.0.1]}"),
        ("drop: {from: $s}", "drop: {from: $d}"),
        ("drop: {proto: tcp, port: 22}", "drop: {proto: tcp}"),
        ("drop: {from: {not: [10.0.0.0/8, 11.0.0.0/8]}}", "drop: {from: {not: 10.0.0.0/8}}"),
        ("accept: {interface: eth0}", "drop: {interface: \"eth*\"}"),
        ("accept: {family: ipv4}", "drop: any"),
        ("drop: {vlan: 0-4095}", "drop: any"),
        ("accept: {proto: tcp}", "drop: {proto: tcp, port: 22}"),
    ] {
        assert!(!never(first, second), "{first} / {second}");
    }
    let said = says(&policy("      - accept: {proto: tcp}\n      - drop: {proto: tcp, port: 22}\n"));
    assert!(
        said.iter().any(|line| line.contains("matches only packets with unreadable ports or protocol")),
        "{said:?}"
    );
}
