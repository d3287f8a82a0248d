//! What `ringctl` does without a daemon.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::path::PathBuf;

use serde_json::Value;
use support::{ringctl, ringctl_reading};

const POLICY: &str = r#"ringfence: 1
sets:
  admins: [198.51.100.0/24, "2001:db8:ad::/48"]
  jail: {dynamic: true, timeout: 1h, capacity: 1024}
network:
  interfaces: [eth7, "wg*"]
  ingress:
    default: drop
    stateless: true
    rules:
      - drop: {from: $jail}
      - accept: {proto: tcp, port: ssh, from: $admins}
        name: ssh
      - count: {proto: udp}
        name: all-udp
      - accept: {proto: [tcp, udp], port: [80, 443]}
        name: web
tests:
  - packet: {interface: eth7, direction: ingress, proto: tcp, from: 203.0.113.5, to: 192.0.2.1, port: 22}
    expect: drop
    rule: default
"#;

struct File {
    directory: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.yaml");
    std::fs::write(&path, text).unwrap();
    File { directory, path }
}

fn check(text: &str, more: &[&str]) -> support::Run {
    let file = file(text);
    ringctl([&["check", file.path.to_str().unwrap()], more].concat())
}

#[test]
fn a_good_policy_is_summed_up() {
    let run = check(POLICY, &[]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    for line in [
        "mode        enforce\n",
        "interfaces  eth7, wg*; on this machine: ",
        "ingress     4 rules, default drop; classes: from 2, ",
        "set         $jail, up to 1024 elements, 1h\n",
        "memory      ",
        "tests       1 passed, 0 failed\n",
        "warnings    0\n",
    ] {
        assert!(run.out.contains(line), "{line} is not in:\n{}", run.out);
    }
}

#[test]
fn the_summary_is_json_too() {
    let run = check(POLICY, &["--json"]);
    let summary: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(summary["interfaces"], serde_json::json!(["eth7", "wg*"]));
    assert_eq!(summary["chains"][0]["chain"], "ingress");
    assert_eq!(summary["chains"][0]["rules"], 4);
    // `198.51.100.0/24, 2001:db8:ad::/48` and everything else.
    assert_eq!(summary["chains"][0]["classes"]["from"], 2);
    assert_eq!(summary["tests"], serde_json::json!({"run": 1, "failed": 0}));
    assert!(summary["table_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_failed_test_is_a_no_with_its_place() {
    let run = check(&POLICY.replace("    rule: default", "    rule: ssh"), &[]);
    assert_eq!(run.code, 1);
    assert!(run.out.contains("0 passed, 1 failed"), "{}", run.out);
    assert!(run.err.contains("test failed: expected `ssh` to decide, but `default` does"), "{}", run.err);
    assert!(run.err.contains("policy.yaml:19:"), "{}", run.err);
}

#[test]
fn every_mistake_is_reported_and_nothing_on_standard_output() {
    let run = check(&POLICY.replace("count:", "cuont:").replace("from: $admins", "from: $admin"), &[]);
    assert_eq!((run.code, run.out.as_str()), (2, ""));
    assert!(run.err.contains("policy.yaml:14:") && run.err.contains("policy.yaml:12:"), "{}", run.err);
    assert!(!run.err.contains('\u{1b}'), "colour without a terminal: {}", run.err);
}

#[test]
fn strict_takes_warnings_for_mistakes() {
    let unused = POLICY.replace("  jail:", "  unused: [192.0.2.1]\n  jail:");
    let run = check(&unused, &[]);
    assert_eq!(run.code, 0);
    assert!(run.err.contains("warning: ") && run.err.contains("unused"), "{}", run.err);
    assert!(run.out.contains("warnings    1\n"), "{}", run.out);
    assert_eq!(check(&unused, &["--strict"]).code, 2);
    assert_eq!(check(POLICY, &["--strict"]).code, 0);
}

#[test]
fn policies_come_from_standard_input_and_directories_too() {
    let run = ringctl_reading(POLICY, ["check", "-"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let run = ringctl_reading("ringfence: 2\n", ["check", "-"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("stdin:1:"), "{}", run.err);
    let file = file(POLICY);
    let run = ringctl(["check".as_ref(), file.directory.path().as_os_str()]);
    assert_eq!(run.code, 0, "{}", run.err);
}

#[test]
fn what_is_no_policy_is_bad_input() {
    let run = ringctl(["check", "/nonexistent/policy.yaml"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("/nonexistent/policy.yaml"), "{}", run.err);
    let binary = file("");
    std::fs::write(&binary.path, [0xff, 0xfe, 0, 1]).unwrap();
    assert_eq!(ringctl(["check".as_ref(), binary.path.as_os_str()]).code, 2);
    assert_eq!(ringctl_reading(&"#\n".repeat(9 << 20), ["check", "-"]).code, 2);
    // The mistakes of a policy are found before the daemon is asked for anything.
    let wrong = file("ringfence: 1\nnetwork: {}\n");
    let run = ringctl(["apply".as_ref(), wrong.path.as_os_str(), "--socket".as_ref(), "/nonexistent/socket".as_ref()]);
    assert_eq!(run.code, 2, "{}", run.err);
}

fn explain(packet: &str, more: &[&str]) -> support::Run {
    let file = file(POLICY);
    ringctl([&["explain", "--policy", file.path.to_str().unwrap(), "--packet", packet], more].concat())
}

#[test]
fn explain_names_the_rule_and_why_not_the_others() {
    let run = explain("interface=wg0 proto=udp from=203.0.113.5 to=192.0.2.1 port=443", &[]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let lines: Vec<&str> = run.out.lines().collect();
    assert!(lines[0].starts_with("accept by web (") && lines[0].ends_with("policy.yaml:16)"), "{}", run.out);
    assert_eq!(lines.len(), 5);
    assert!(lines[2].starts_with("  no   ssh ") && lines[2].contains("203.0.113.5"), "{}", run.out);
    assert!(lines[3].starts_with("  yes  all-udp ") && lines[3].contains("goes on"), "{}", run.out);
    assert!(lines[4].starts_with("  yes  web "), "{}", run.out);
}

#[test]
fn explain_in_json_has_the_documented_fields() {
    let run = explain("proto=tcp from=198.51.100.9 to=192.0.2.1 port=22", &["--json"]);
    let answer: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(answer["verdict"], "accept");
    assert_eq!(answer["rule"], "ssh");
    assert_eq!(answer["line"], 12);
    assert_eq!(answer["generation"], Value::Null);
    assert_eq!(answer["mode"], "enforce");
    assert_eq!(answer["considered"][0]["matched"], false);
    assert!(answer["file"].as_str().unwrap().ends_with("/policy.yaml"));
}

#[test]
fn expectations_decide_the_exit_code() {
    let packet = "proto=tcp from=203.0.113.5 to=192.0.2.1 port=22";
    assert_eq!(explain(packet, &["--expect", "drop"]).code, 0);
    let run = explain(packet, &["--expect", "accept"]);
    assert_eq!((run.code, run.err.as_str()), (1, "error: expected accept, the verdict is drop\n"));
    assert!(run.out.starts_with("drop by default ("), "{}", run.out);
    assert_eq!(explain(packet, &["--expect", "perhaps"]).code, 2);
}

#[test]
fn the_floor_and_a_missing_chain_decide_too() {
    let run = explain("interface=eth7 proto=icmpv6 icmp=136 from=fe80::1 to=fe80::2 hop_limit=255", &[]);
    assert!(run.out.starts_with("accept by floor/neighbor-discovery\n"), "{}", run.out);
    let run = explain("direction=egress proto=tcp from=192.0.2.1 to=203.0.113.5 port=22", &[]);
    assert!(run.out.starts_with("accept by unattached\n"), "{}", run.out);
}

#[test]
fn packets_that_make_no_sense_are_bad_input() {
    for (packet, says) in [
        ("prot=tcp", "unknown field"),
        ("port=22 from=192.0.2.1 to=192.0.2.2", "`port` without `proto`"),
        ("interface=eth0 proto=tcp from=192.0.2.1 to=192.0.2.2 port=22", "does not cover the interface eth0"),
        ("tcp", "expected `field=value`"),
    ] {
        let run = explain(packet, &[]);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{packet}");
        assert!(run.err.contains(says), "{says} is not in:\n{}", run.err);
    }
}

#[test]
fn mistakes_on_the_command_line_are_bad_usage() {
    for arguments in [
        &["frobnicate"][..],
        &["deny"],
        &["deny", "192.0.2.1/33"],
        &["deny", "192.0.2.1", "--for", "10"],
        &["deny", "192.0.2.1", "--out", "--both"],
        &["mode", "off"],
        &["undo", "host.example"],
        &["set", "add", "jail"],
        &["set", "add", "jail", "nonsense"],
        &["explain"],
        &["confirm", "seven"],
        &[],
    ] {
        let run = ringctl(arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}");
        assert!(!run.err.is_empty());
    }
}

#[test]
fn help_explains_exit_codes_and_gives_examples() {
    let run = ringctl(["--help"]);
    assert_eq!(run.code, 0);
    assert!(run.out.contains("Exit codes:") && run.out.contains("Examples:"));
    assert!(run.out.lines().all(|line| line.chars().count() <= 100), "{}", run.out);
    let run = ringctl(["deny", "--help"]);
    assert!(run.out.contains("survives restarts") && run.out.contains("Examples:"), "{}", run.out);
}

#[test]
fn the_schema_names_every_key_of_a_policy() {
    let run = ringctl(["schema"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let schema: Value = serde_json::from_str(&run.out).unwrap();
    assert!(schema["$schema"].as_str().unwrap().starts_with("https://json-schema.org/"));
    for key in ["ringfence", "mode", "sets", "network", "groups", "tests"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let run = ringctl(["completions", shell]);
        assert_eq!(run.code, 0);
        assert!(run.out.contains("rollback"), "{shell}");
    }
    let script = file(&ringctl(["completions", "bash"]).out);
    let parsed = std::process::Command::new("bash").arg("-n").arg(&script.path).status().unwrap();
    assert!(parsed.success());
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let directory = tempfile::tempdir().unwrap();
    let run = ringctl(["man".as_ref(), directory.path().as_os_str()]);
    assert_eq!(run.code, 0, "{}", run.err);
    let page = std::fs::read_to_string(directory.path().join("ringctl.1")).unwrap();
    assert!(page.contains("Exit codes"));
    for name in ["check", "deny", "set-add", "explain"] {
        let page = directory.path().join(format!("ringctl-{name}.1"));
        assert!(page.exists(), "{}", page.display());
    }
    assert_eq!(ringctl(["man", "/nonexistent"]).code, 2);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringctl"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
