//! How entries and elements of sets are asked for, and how they are shown.

mod support;

use serde_json::{Value, json};
use support::Daemon;

fn entry() -> Value {
    json!({
        "id": 12,
        "verb": "deny",
        "what": {"address": "203.0.113.5", "port": null},
        "direction": "in",
        "expires": null,
        "created": 1_700_000_000,
        "reason": "scans\u{1b}[2J us",
        "by": "alice",
        "packets": 1234,
        "bytes": 99,
    })
}

#[test]
fn deny_sends_what_was_meant_and_prints_id_and_rule() {
    let daemon = Daemon::new([(200, entry())]);
    let run = daemon.ringctl(["deny", "[2001:db8::5]:443", "--for", "1h30m", "--reason", "scans", "--both"]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let (method, path, body) = daemon.asked().remove(0);
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/v1/entries"));
    assert_eq!(
        body,
        json!({"verb": "deny", "what": {"address": "2001:db8::5", "port": 443}, "direction": "both",
               "for_seconds": 5400, "reason": "scans", "force": false, "all_ports": false})
    );
    assert_eq!(run.out, "12  deny ingress: drop: {from: 203.0.113.5}  until undone (scans\u{fffd}[2J us)\n");
}

#[test]
fn allowing_every_port_must_be_said() {
    let daemon = Daemon::new([(200, entry()), (200, entry())]);
    let run = daemon.ringctl(["allow", "192.0.2.1"]);
    assert_eq!(run.code, 2);
    assert!(run.err.contains("--all-ports"), "{}", run.err);
    assert!(daemon.asked().is_empty());
    assert_eq!(daemon.ringctl(["allow", "192.0.2.1:22"]).code, 0);
    assert_eq!(daemon.ringctl(["allow", "192.0.2.1", "--all-ports"]).code, 0);
    let bodies: Vec<Value> = daemon.asked().into_iter().map(|(_, _, body)| body).collect();
    assert_eq!((&bodies[0]["verb"], &bodies[0]["all_ports"]), (&json!("allow"), &json!(false)));
    assert_eq!(bodies[1]["all_ports"], json!(true));
}

#[test]
fn undo_takes_what_deny_took() {
    let element = json!({"set": "jail", "address": "203.0.113.5", "expires": null});
    let daemon = Daemon::new([(200, json!({"entries": [entry()], "elements": [element]}))]);
    let run = daemon.ringctl(["undo", "203.0.113.5"]);
    assert_eq!(daemon.asked()[0].2, json!({"what": {"address": "203.0.113.5", "port": null}}));
    assert!(run.out.starts_with("undone: 12  deny ingress"), "{}", run.out);
    assert!(run.out.ends_with("undone: 203.0.113.5 in set jail\n"), "{}", run.out);
}

#[test]
fn list_shows_entries_and_elements() {
    let element = json!({"set": "jail", "address": "2001:db8::/48", "expires": null, "by": "bob"});
    let list = json!({"entries": [entry()], "elements": [element], "elements_left_out": 5});
    let run = Daemon::new([(200, list)]).ringctl(["list"]);
    let lines: Vec<&str> = run.out.lines().collect();
    assert_eq!(lines[1], "12  deny  203.0.113.5  in         -        1.2k     99  alice  scans\u{fffd}[2J us");
    assert_eq!(lines[3], "jail  2001:db8::/48  -        bob");
    assert!(lines[4].contains("5 more"), "{}", run.out);
}

#[test]
fn sets_change_in_one_request_for_many_elements() {
    let daemon = Daemon::new([(200, json!({"done": 2, "missing": 0}))]);
    let run = daemon.ringctl_reading("192.0.2.1 # one\n2001:db8::/48\n", ["set", "add", "$jail", "-", "--for", "1h"]);
    assert_eq!((run.code, run.out.as_str()), (0, "added 2\n"), "{}", run.err);
    let (_, path, body) = daemon.asked().remove(0);
    assert_eq!(path, "/v1/sets/jail");
    let add = json!({"elements": ["192.0.2.1", "2001:db8::/48"], "for_seconds": 3600, "reason": null});
    assert_eq!(body, json!({"add": add}));
}

#[test]
fn what_was_not_added_or_not_there_is_a_no() {
    let refused = json!([{"address": "192.0.2.1", "because": "it is a `never` member"}]);
    let daemon = Daemon::new([
        (200, json!({"done": 1, "missing": 0, "refused": refused})),
        (200, json!({"done": 0, "missing": 1})),
        (200, json!({"done": 3, "missing": 0})),
    ]);
    let run = daemon.ringctl(["set", "add", "jail", "192.0.2.1", "192.0.2.2"]);
    assert_eq!((run.code, run.out.as_str()), (1, "added 1\n"));
    assert!(run.err.contains("192.0.2.1 was not added: it is a `never` member"), "{}", run.err);
    assert_eq!(daemon.ringctl(["set", "del", "jail", "192.0.2.9"]).code, 1);
    let run = daemon.ringctl(["set", "flush", "jail"]);
    assert_eq!((run.code, run.out.as_str()), (0, "deleted 3\n"));
    assert_eq!(daemon.asked()[2].2, json!("flush"));
}

#[test]
fn long_sets_are_listed_page_by_page() {
    let page = |address: &str, next: Value| {
        let element = json!({"set": "jail", "address": address, "expires": null});
        (
            200,
            json!({"name": "jail", "capacity": 10, "size": 2, "timeout_seconds": 60, "elements": [element], "next": next}),
        )
    };
    let daemon = Daemon::new([page("10.0.0.0/8", json!("10.0.0.0/8")), page("192.0.2.1", Value::Null)]);
    let run = daemon.ringctl(["set", "list", "jail"]);
    assert!(run.out.starts_with("2 of 10 elements, timeout 1m\n"), "{}", run.out);
    assert!(run.out.contains("10.0.0.0/8") && run.out.contains("192.0.2.1"), "{}", run.out);
    assert_eq!(daemon.asked()[1].1, "/v1/sets/jail?after=10.0.0.0%2F8");
}
