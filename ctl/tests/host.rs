//! The host half on the command line: entries about paths, questions about calls, and `off` where nobody answers.

#![expect(clippy::unwrap_used, reason = "helpers of tests: to fail is to say so")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use support::{Daemon, Run, ringctl};

fn entry() -> Value {
    json!({"id": 13, "verb": "deny", "what": {"path": "/srv/data/**", "op": ["read", "exec"], "exe": "/usr/bin/tar"},
           "expires": null, "created": 1, "reason": null, "by": "root", "hits": 1234, "packets": 0, "bytes": 0})
}

#[test]
fn a_path_is_denied_with_its_operations() {
    let daemon = Daemon::new([(200, entry())]);
    let words = ["deny", "/srv/data/**", "--op", "read,exec", "--exe", "/usr/bin/tar", "--uid", "root", "--for", "1h"];
    let run = daemon.ringctl(words);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(
        daemon.asked().remove(0).2,
        json!({"verb": "deny", "direction": "in", "for_seconds": 3600, "reason": null, "force": false,
               "what": {"path": "/srv/data/**", "op": ["read", "exec"], "exe": "/usr/bin/tar", "uid": 0},
               "all_ports": false})
    );
    let rule = "host: deny: {op: [read, exec], path: \"/srv/data/**\", exe: \"/usr/bin/tar\"}";
    assert_eq!(run.out, format!("13  deny {rule}  until undone\n"));
}

#[test]
fn what_does_not_go_together_is_bad_input() {
    for (arguments, says) in [
        (&["deny", "/etc/shadow"][..], "--op"),
        (&["deny", "192.0.2.1", "--op", "read"], "go with a path"),
        (&["deny", "192.0.2.1", "--uid", "0"], "go with a path"),
        (&["deny", "/etc/shadow", "--op", "read", "--both"], "go with an address"),
        (&["allow", "/etc/shadow", "--op", "read", "--all-ports"], "go with an address"),
        (&["deny", "/etc/shadow", "--op", "read", "--uid", "no such user"], "no user"),
        (&["deny", "./shadow", "--op", "read"], "begins with `/`"),
    ] {
        let run = ringctl(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.err);
        assert!(run.err.contains(says), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn entries_about_paths_are_listed_and_undone() {
    let daemon = Daemon::new([
        (200, json!({"entries": [entry()], "elements": [], "elements_left_out": 0})),
        (200, json!({"entries": [entry()], "elements": []})),
    ]);
    let run = daemon.ringctl(["list"]);
    let line = run.out.lines().nth(1).unwrap();
    assert!(line.starts_with("13  deny  /srv/data/** op=read,exec exe=/usr/bin/tar  -"), "{line}");
    assert!(line.contains("1.2k"), "{line}");
    let run = daemon.ringctl(["undo", "/srv/data/**"]);
    assert_eq!(daemon.asked()[1].2, json!({"path": "/srv/data/**"}));
    assert!(run.out.starts_with("undone: 13  deny host: deny:"), "{}", run.out);
}

fn off(directory: &Path) -> Run {
    let path = |name: &str| directory.join(name).display().to_string();
    let (socket, pins, state) = (path("socket"), path("pins"), path("state"));
    ringctl(["off", "--socket", &socket, "--bpffs", &pins, "--state-dir", &state, "--ringfenced", "/nonexistent"])
}

#[test]
fn off_without_a_daemon_detaches_and_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    assert_eq!(off(directory.path()).code, 3, "there is neither a daemon nor anything of it");
    for pin in ["pins/v1/links/7-xdp", "pins/v1/hooks/file_open", "pins/v1/maps/CELL"] {
        fs::create_dir_all(at(pin).parent().unwrap()).unwrap();
        fs::write(at(pin), "").unwrap();
    }
    fs::create_dir(at("state")).unwrap();
    fs::write(at("state/standing.json"), r#"{"running": 7}"#).unwrap();
    let run = off(directory.path());
    // Before Linux 6.6 there may be TC filters that only ringfenced can find: the rest is left for them, and it says so.
    let whole = run.code == 0;
    assert!(whole || run.code == 3 && run.err.contains("tc qdisc del"), "{}", run.err);
    assert_eq!(at("pins").exists(), !whole);
    assert!(!at("pins/v1/hooks/file_open").exists() && !at("pins/v1/links/7-xdp").exists());
    let standing: Value = serde_json::from_str(&fs::read_to_string(at("state/standing.json")).unwrap()).unwrap();
    assert_eq!(standing, json!({"running": 7, "off": true}));
    if whole {
        assert!(
            run.out.contains("removed link file_open") && run.out.contains("off: nothing is enforced"),
            "{}",
            run.out
        );
        assert_eq!(off(directory.path()).code, 0, "and again");
    }
}

const POLICY: &str = "\
ringfence: 1
host:
  default: allow
  rules:
    - allow: {op: read, path: /etc/shadow, exe: [/usr/sbin/sshd, /usr/bin/passwd]}
    - deny: {op: [read, write], path: /etc/shadow, uid: {not: 0}}
      name: shadow
    - deny: {op: exec, path: /nowhere/at/all}
tests:
  - access: {op: read, path: /etc/shadow, exe: /usr/bin/cat, uid: 1000}
    expect: deny
    rule: shadow
";

fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn explain_judges_a_call_by_a_policy_that_is_not_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let policy = file(directory.path(), "p.yaml", POLICY);
    let audited = file(directory.path(), "audit.yaml", &POLICY.replace("ringfence: 1", "ringfence: 1\nmode: audit"));
    let explain = |policy: &str, words: &str, more: &[&str]| {
        ringctl([&["explain", "--json", "--policy", policy, "--access", words], more].concat())
    };
    let cat = "op=read path=/etc/shadow exe=/usr/bin/cat uid=1000";
    let run = explain(&policy, cat, &["--expect", "deny"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let answer: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&answer["verdict"], &answer["rule"], &answer["line"]), (&json!("deny"), &json!("shadow"), &json!(6)));
    let because = answer["considered"][0]["because"].as_str().unwrap();
    assert!(because.starts_with("exe:"), "{because}");
    assert_eq!(explain(&policy, cat, &["--expect", "allow"]).code, 1);
    assert_eq!(explain(&audited, cat, &["--expect", "would-deny"]).code, 0);
    assert_eq!(
        explain(&policy, "op=read path=/etc/shadow exe=/usr/bin/passwd uid=1000", &["--expect", "allow"]).code,
        0
    );
    assert_eq!(explain(&policy, "op=read path=/etc/shadow uid=0", &["--expect", "allow"]).code, 0);
    for (words, says) in [("path=/x", "without `op`"), ("op=reed path=/x", "reed"), ("op=read nonsense", "field=value")]
    {
        let run = explain(&policy, words, &[]);
        assert_eq!(run.code, 2, "{words}");
        assert!(run.err.contains(says), "{words}: {}", run.err);
    }
    assert_eq!(ringctl(["explain"]).code, 2, "neither a packet nor a call");
}

#[test]
fn explain_leaves_to_a_process_what_was_not_said_of_it() {
    let answer = || {
        json!({"verdict": "deny", "rule": "shadow", "file": "p.yaml", "line": 6, "generation": 7, "mode": "enforce",
               "considered": []})
    };
    let daemon = Daemon::new([(200, answer()), (200, answer())]);
    assert_eq!(daemon.ringctl(["explain", "--access", "op=read path=/etc/shadow", "--pid", "4711"]).code, 0);
    assert_eq!(daemon.ringctl(["explain", "--access", "op=read path=/etc/shadow uid=7", "--expect", "allow"]).code, 1);
    let asked = daemon.asked();
    assert_eq!((asked[0].1.as_str(), &asked[0].2["pid"]), ("/v1/explain/access", &json!(4711)));
    let access = asked[0].2["access"].as_object().unwrap();
    assert!(
        ["exe", "uid", "auid", "cgroup", "container"].iter().all(|field| !access.contains_key(*field)),
        "{access:?}"
    );
    assert_eq!((&asked[1].2["access"]["uid"], &asked[1].2["access"]["op"]), (&json!(7), &json!("read")));
}

#[test]
fn check_shows_the_host_half_and_refuses_what_locks_out() {
    let directory = tempfile::tempdir().unwrap();
    let policy = file(directory.path(), "p.yaml", POLICY);
    let run = ringctl(["check", &policy]);
    assert_eq!(run.code, 0, "{}", run.err);
    let line = run.out.lines().find(|line| line.starts_with("host")).unwrap();
    assert!(line.contains("3 rules, default allow") && line.contains("path "), "{line}");
    assert!(run.out.contains("1 passed, 0 failed"), "{}", run.out);
    assert!(run.err.contains("`/nowhere/at/all` does not exist"), "{}", run.err);
    assert_eq!(ringctl(["check", "--strict", &policy]).code, 2);

    let shut = "ringfence: 1\nhost:\n  default: allow\n  rules:\n    - deny: {op: exec, path: \"/usr/**\"}\n      name: shut\n";
    let shut = file(directory.path(), "shut.yaml", shut);
    let run = ringctl(["check", &shut]);
    assert_eq!(run.code, 1, "{}", run.out);
    assert!(run.err.contains("root could not log in: `shut` refuses exec"), "{}", run.err);
    assert_eq!(ringctl(["check", "--force", &shut]).code, 0);
}

#[test]
fn status_names_rules_that_are_not_enforced_and_hooks_alike_in_one_line() {
    let hook =
        |name: &str| json!({"hook": name, "state": "unavailable", "because": "no LSM", "remedy": "boot with lsm=bpf"});
    let status = json!({
        "generation": 1,
        "policy": "p.yaml",
        "halves": {
            "network": {"state": "unused", "hooks": []},
            "host": {
                "state": "degraded",
                "because": "not enforced: read",
                "hooks": [
                    hook("file_open"), hook("file_receive"), hook("path_truncate"), hook("inode_create"),
                    {"hook": "cg_connect4", "state": "degraded", "how": "cgroup", "because": "refused with EPERM"},
                ],
                "left_out": [{"rule": "mail", "file": "p.yaml", "line": 5, "because": "`connect` by `exe`", "remedy": "boot with lsm=bpf"}],
                "figures": {"mounts": 3, "processes-unknown": 0},
            },
        },
        "lost": {}, "mode": "enforce", "problems": [], "fail_directions": [], "version": "0.1.0",
    });
    let run = Daemon::new([(200, status)]).ringctl(["status"]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    let lines: Vec<String> =
        run.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "- file_open and 3 more unavailable - no LSM",
        "- cg_connect4 degraded cgroup refused with EPERM",
        "unavailable: rule `mail` (p.yaml:5): `connect` by `exe`",
        "host: 3 mounts, 0 processes-unknown",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {}", run.out);
    }
    assert_eq!(run.out.matches("help: boot with lsm=bpf").count(), 1, "{}", run.out);
}
