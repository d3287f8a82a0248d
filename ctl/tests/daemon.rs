//! What `ringctl` asks of the daemon, and how it shows the answers.

mod support;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};
use support::{Daemon, ringctl};

fn status() -> Value {
    json!({
        "generation": 7,
        "policy": "/etc/ringfence/policy.yaml",
        "halves": {
            "network": {"state": "enforced", "hooks": [
                {"hook": "ingress", "interface": "eth0", "state": "enforced", "how": "xdp-native"},
                {"hook": "egress", "interface": "eth0", "state": "enforced", "how": "tcx"},
            ]},
            "host": {"state": "unused", "because": "the policy has no host part", "hooks": []},
        },
        "lost": {"dispatch-miss": 0},
        "mode": "enforce",
        "problems": [],
        "fail_directions": [{"chain": "ingress", "name": "malformed/bad-network", "gets": "drop", "packets": 3}],
        "version": "0.1.0",
    })
}

#[test]
fn status_says_where_and_how() {
    let daemon = Daemon::new([(200, status())]);
    let run = daemon.ringctl(["status"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(
        run.out,
        "generation 7 from /etc/ringfence/policy.yaml\n\
         mode enforce\n\
         \n\
         HALF     INTERFACE  HOOK     STATE     HOW         WHY\n\
         network                      enforced\n         \
                  eth0       ingress  enforced  xdp-native\n         \
                  eth0       egress   enforced  tcx\n\
         host                         unused                the policy has no host part\n\
         \n\
         lost: nothing\n\
         CHAIN    COULD NOT BE JUDGED AS WRITTEN  GETS  PACKETS\n\
         ingress  malformed/bad-network           drop        3\n"
    );
    assert_eq!(daemon.asked(), [("GET".into(), "/v1/status".into(), Value::Null)]);
}

#[test]
fn status_ends_with_what_is_wrong() {
    let change = |change: fn(&mut Value)| {
        let mut status = status();
        change(&mut status);
        Daemon::new([(200, status)]).ringctl(["status", "--brief"])
    };
    let run = change(|status| {
        status["halves"]["network"]["state"] = json!("degraded");
        status["problems"] = json!(["set file gone"]);
    });
    assert_eq!(
        (run.code, run.out.as_str()),
        (1, "generation=7 mode=enforce network=degraded host=unused problems=1 lost=0\n")
    );
    let run = change(|status| status["pending"] = json!({"generation": 7, "previous": 6, "seconds": 42}));
    assert_eq!((run.code, run.out.contains(" pending=42s ")), (1, true));
    assert_eq!(change(|status| status["lost"]["dispatch-miss"] = json!(1)).code, 1);
    assert_eq!(change(|status| status["halves"]["network"]["state"] = json!("off")).code, 3);
    assert_eq!(change(|status| status["generation"] = Value::Null).code, 3);
}

#[test]
fn status_json_is_what_the_daemon_says() {
    let run = Daemon::new([(200, status())]).ringctl(["status", "--json"]);
    let shown: Value = serde_json::from_str(&run.out).unwrap();
    for key in ["generation", "policy", "halves", "lost"] {
        assert_eq!(shown[key], status()[key]);
    }
}

#[test]
fn without_a_daemon_the_pins_say_whether_something_enforces() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("no-socket");
    let pins = directory.path().join("pins");
    let status = || {
        let arguments =
            ["status".as_ref(), "--socket".as_ref(), socket.as_os_str(), "--bpffs".as_ref(), pins.as_os_str()];
        ringctl(arguments)
    };
    let run = status();
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("cannot reach ringfenced") && run.out.is_empty(), "{}", run.err);
    std::fs::create_dir(&pins).unwrap();
    assert_eq!(status().code, 3);
    std::fs::write(pins.join("link"), "").unwrap();
    let run = status();
    assert_eq!(run.code, 1);
    assert!(run.err.contains("keeps enforcing"), "{}", run.err);
}

#[test]
fn every_other_command_needs_the_daemon() {
    for arguments in [&["rules"][..], &["deny", "192.0.2.1"], &["apply"], &["list"], &["set", "list", "jail"]] {
        let run = ringctl(arguments.iter().chain(&["--socket", "/nonexistent/socket"]));
        assert_eq!(run.code, 3, "{arguments:?}");
        assert!(run.err.contains("/nonexistent/socket") && run.err.contains("help: "), "{}", run.err);
    }
}

#[test]
fn rules_are_aligned_and_silent_built_in_lines_left_out() {
    let line = |name: &str, at: Option<u32>, hits: u64| {
        json!({"name": name, "half": "network", "chain": "ingress", "verb": "drop", "file": at.map(|_| "p.yaml"),
               "line": at, "hits": hits, "packets": hits, "bytes": hits * 1500, "last_hit": null})
    };
    let rules = json!([
        line("floor/arp", None, 0),
        line("tables", None, 0),
        line("web", Some(9), 1_234_567),
        line("default", None, 2)
    ]);
    let daemon = Daemon::new([(200, rules.clone()), (200, rules.clone())]);
    let run = daemon.ringctl(["rules", "--reset"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.out,
        "CHAIN    VERB  RULE       WHERE     HITS  PACKETS  BYTES  LAST HIT\n\
         ingress  drop  floor/arp  built in     0        0      0  never\n\
         ingress  drop  web        p.yaml:9  1.2M     1.2M   1.8G  never\n\
         ingress  drop  default    built in     2        2   3.0k  never\n"
    );
    let run = daemon.ringctl(["rules", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap(), rules);
    let paths: Vec<String> = daemon.asked().into_iter().map(|(_, path, _)| path).collect();
    assert_eq!(paths, ["/v1/rules?reset=true", "/v1/rules?reset=false"]);
}

#[test]
fn the_error_of_the_daemon_decides_the_exit_code() {
    for (http, code, exit) in [
        (409, "no", 1),
        (409, "needs-force", 1),
        (422, "bad-input", 2),
        (403, "forbidden", 3),
        (503, "kernel", 3),
        (500, "internal", 3),
    ] {
        let daemon = Daemon::new([(http, json!({"code": code, "message": "no such thing"}))]);
        let run = daemon.ringctl(["undo", "7"]);
        assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (exit, "", "error: no such thing\n"));
        assert_eq!(daemon.asked()[0].2, json!({"id": 7}));
    }
    // Something else than the daemon answers.
    let run = Daemon::new([(404, json!("not here"))]).ringctl(["rules"]);
    assert_eq!(run.code, 3);
    assert!(run.err.contains("another way") && run.err.contains("404"), "{}", run.err);
}

#[test]
fn apply_shows_what_changes_before_it_asks_for_it() {
    let diff = json!({"from": 6, "to": null,
        "rules": [{"change": "added", "name": "web", "chain": "ingress", "verb": "accept", "file": "p.yaml", "line": 4}],
        "files": [{"name": "p.yaml", "unified": "--- p.yaml\n+++ p.yaml\n@@ -1 +1 @@\n-a\n+b\n"}]});
    let warning = json!({"severity": "warning", "file": "p.yaml", "line": 4, "column": 3, "end_column": 6,
                         "source": "  web: x", "message": "shadowed", "help": "remove it"});
    let planned = json!({"generation": null, "diff": diff, "warnings": [warning], "digest": "abc"});
    let mut applied = planned.clone();
    applied["generation"] = json!(7);
    applied["pending"] = json!({"generation": 7, "previous": 6, "seconds": 60});
    let daemon = Daemon::new([(200, planned), (200, applied)]);
    let run = daemon.ringctl(["apply", "--confirm", "60s"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.out,
        "+  ingress  accept  web  p.yaml:4\n--- p.yaml\n+++ p.yaml\n@@ -1 +1 @@\n-a\n+b\n\
         generation 7 is in force for 1m: `ringctl confirm` keeps it, otherwise generation 6 comes back\n"
    );
    assert!(run.err.contains("warning: shadowed") && run.err.contains("p.yaml:4:3"), "{}", run.err);
    let bodies: Vec<Value> = daemon.asked().into_iter().map(|(_, _, body)| body).collect();
    let first = json!({"source": "reload", "confirm_seconds": 60, "dry_run": true, "force": false});
    let second =
        json!({"source": "reload", "confirm_seconds": 60, "dry_run": false, "force": false, "expect_digest": "abc"});
    assert_eq!(bodies, [first, second]);
}

/// A connection that is cut, of this number.
fn cut(number: u16, until: Option<&str>) -> Value {
    let connection = json!({"family": "ipv4", "proto": "tcp", "from": "203.0.113.5", "from_port": number,
        "to": "192.0.2.1", "to_port": 80, "state": "tcp-established", "pool": "established", "direction": "inbound",
        "replied": true, "picked_up": false, "sent": {"packets": 9, "bytes": 900}, "received": {"packets": 8, "bytes": 800},
        "age": 7, "expires": 60, "interface": "eth0"});
    json!({"connection": connection, "rule": "web\u{1b}[2J", "chain": "ingress", "file": "p.yaml", "line": 4, "until": until,
        "own": number == 1})
}

#[test]
fn an_apply_says_whom_it_cuts() {
    let mut entry = cut(3, None);
    entry["rule"] = json!("dynamic/12");
    entry["file"] = Value::Null;
    entry["line"] = Value::Null;
    let cut = json!({"connections": [cut(1, Some("192.0.2.1")), cut(2, None), entry], "total": 5000, "left_out": 4997, "judged": 9000});
    let planned = json!({"generation": null, "diff": {"from": 6, "to": null, "rules": [], "files": []}, "warnings": [],
        "cut": cut, "digest": "abc"});
    let mut applied = planned.clone();
    applied["generation"] = json!(7);
    let daemon =
        Daemon::new([(200, planned.clone()), (200, planned.clone()), (200, planned.clone()), (200, applied.clone())]);
    let run = daemon.ringctl(["apply", "--dry-run"]);
    assert_eq!(
        (run.code, run.out.as_str(), run.err.as_str()),
        (
            0,
            "no changes\n\
             cuts 5000 connections of 9000:\n\
             PROTO  FROM           TO            CHAIN    RULE        WHERE     UNTIL\n\
             tcp    203.0.113.5:1  192.0.2.1:80  ingress  web\u{fffd}[2J     p.yaml:4  192.0.2.1  your own session\n\
             tcp    203.0.113.5:2  192.0.2.1:80  ingress  web\u{fffd}[2J     p.yaml:4  -\n\
             tcp    203.0.113.5:3  192.0.2.1:80  ingress  dynamic/12  built in  -\n\
             and 4997 more\n",
            ""
        )
    );
    // As JSON what the daemon said last, and nothing else.
    let json = |arguments: &[&str]| {
        let run = daemon.ringctl(arguments);
        assert_eq!((run.code, run.err.as_str()), (0, ""));
        serde_json::from_str::<Value>(&run.out).unwrap()
    };
    assert_eq!(json(&["apply", "--dry-run", "--json"]), planned);
    assert_eq!(json(&["apply", "--json"]), applied);
    assert_eq!(daemon.asked().len(), 4);
}

#[test]
fn a_dry_run_asks_once() {
    let planned =
        json!({"generation": null, "diff": {"from": 6, "to": null, "rules": [], "files": []}, "digest": "abc"});
    let daemon = Daemon::new([(200, planned)]);
    let run = daemon.ringctl(["apply", "--dry-run"]);
    assert_eq!((run.code, run.out.as_str()), (0, "no changes\n"), "{}", run.err);
    assert!(run.err.contains("which connections it cuts could not be found out"), "{}", run.err);
}

#[test]
fn mistakes_the_daemon_finds_look_like_those_found_here() {
    let diagnostic = json!({"severity": "error", "file": "/etc/ringfence/policy.yaml", "line": 5, "column": 9, "end_column": 13,
        "source": "  - drp: any", "message": "unknown verb `drp`", "help": "did you mean `drop`?"});
    let body = json!({"code": "bad-input", "message": "the policy has 1 error", "diagnostics": [diagnostic]});
    let run = Daemon::new([(422, body)]).ringctl(["apply"]);
    assert_eq!((run.code, run.out.as_str()), (2, ""));
    for part in
        ["error: unknown verb `drp`", "policy.yaml:5:9", "- drp: any", "^^^^", "did you mean `drop`?", "has 1 error"]
    {
        assert!(run.err.contains(part), "{part} is not in:\n{}", run.err);
    }
}

#[test]
fn generations_are_listed_shown_and_switched() {
    let about = json!({"generation": 7, "state": "running", "applied": 1_700_000_000, "by": "root",
                       "policy": "p.yaml", "rules": 2, "digest": "abc"});
    let mut shown = about.clone();
    shown["texts"] = json!([{"name": "p.yaml", "text": "ringfence: 1", "base": "/"}]);
    let daemon = Daemon::new([
        (200, json!([about])),
        (200, shown),
        (200, json!({"generation": 6})),
        (200, json!({"generation": 7})),
        (200, json!({"from": 6, "to": 7, "rules": [], "files": []})),
    ]);
    let out = |arguments: &[&str]| daemon.ringctl(arguments).out;
    assert!(out(&["history"]).contains("7  running  2023-11-14T22:13:20Z  root      2  p.yaml"));
    let heading = "# generation 7, running, applied 2023-11-14T22:13:20Z by root\n# p.yaml\n";
    assert_eq!(out(&["show"]), format!("{heading}ringfence: 1\n"));
    assert_eq!(out(&["rollback", "6", "--force"]), "generation 6 is in force\n");
    assert_eq!(out(&["confirm"]), "generation 7 is confirmed\n");
    assert_eq!(out(&["diff", "6", "7"]), "no changes\n");
    let asked = daemon.asked();
    let paths: Vec<&str> = asked.iter().map(|(_, path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        ["/v1/history", "/v1/generations/running", "/v1/rollback", "/v1/confirm", "/v1/diff?from=6&to=7"]
    );
    assert_eq!(asked[2].2, json!({"generation": 6, "force": true}));
    assert_eq!(asked[3].2, json!({"generation": null, "force": false}));
}

#[test]
fn mode_off_and_on() {
    let daemon = Daemon::new([
        (200, json!({"mode": "audit", "until": 1_700_000_000})),
        (200, json!({"removed": ["tcx egress on eth0"]})),
        (200, json!({"removed": []})),
        (200, json!({"generation": 7})),
    ]);
    let run = daemon.ringctl(["mode", "audit", "--for", "10m"]);
    assert_eq!(run.out, "mode audit until 2023-11-14T22:13:20Z\n");
    let run = daemon.ringctl(["off"]);
    assert!(run.out.starts_with("removed tcx egress on eth0\n"), "{}", run.out);
    assert_eq!(daemon.ringctl(["off", "--json"]).out, "{\n  \"removed\": []\n}\n");
    assert_eq!(daemon.ringctl(["on"]).out, "generation 7 is in force\n");
    assert_eq!(daemon.asked()[0].2, json!({"mode": "audit", "for_seconds": 600}));
}

#[test]
fn explain_asks_with_numbers_and_answers_expectations() {
    let answer = json!({"verdict": "drop", "rule": "default", "file": "p.yaml", "line": 3, "generation": 7, "mode": "audit",
        "considered": [{"rule": "web", "matched": false, "because": "port: 22 is not 80"}]});
    let daemon = Daemon::new([(200, answer.clone()), (200, answer.clone()), (200, answer.clone())]);
    let packet = "interface=eth0 proto=tcp from=203.0.113.5 to=192.0.2.1 port=ssh";
    let run = daemon.ringctl(["explain", "--packet", packet]);
    assert_eq!(
        run.out,
        "drop by default (p.yaml:3), generation 7, mode audit: a refusal is counted and let go\n  \
         no  web  port: 22 is not 80\n"
    );
    let asked = &daemon.asked()[0].2["packet"];
    assert_eq!(asked["proto"], 6);
    assert_eq!(asked["port"], 22);
    assert_eq!(asked["direction"], "ingress");
    assert_eq!(daemon.ringctl(["explain", "--packet", packet, "--expect", "drop"]).code, 0);
    let run = daemon.ringctl(["explain", "--packet", packet, "--expect", "accept", "--json"]);
    assert_eq!((run.code, run.err.as_str()), (1, "error: expected accept, the verdict is drop\n"));
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap(), answer);
}

#[test]
fn another_host_is_asked_over_ssh() {
    let directory = tempfile::tempdir().unwrap();
    let program = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    // As sshd does: one word, for the shell.
    program("ssh", "#!/bin/sh\necho \"to $2\"\n[ \"$1\" = -- ] && exec sh -c \"$3\"\n");
    program("ringctl", "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 42\n");
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringctl"));
    command.env("PATH", path).args(["-H", "root@web1", "deny", "192.0.2.1", "--reason", "it's $HOME"]);
    let run = support::run(&mut command, "");
    assert_eq!(run.code, 42, "{}", run.err);
    assert_eq!(run.out, "to root@web1\n<deny><192.0.2.1><--reason><it's $HOME>");
    program("ssh", "#!/bin/sh\nexit 255\n");
    assert_eq!(support::run(&mut command, "").code, 3);
    assert_eq!(ringctl(["-H", "-oProxyCommand=x", "status"]).code, 2);
}

#[test]
fn a_socket_that_is_no_daemon_is_an_error_soon() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
    });
    let run = ringctl(["status".as_ref(), "--socket".as_ref(), socket.as_os_str()]);
    server.join().unwrap();
    assert_eq!(run.code, 3);
    assert!(run.err.contains("no answer from ringfenced"), "{}", run.err);
}
