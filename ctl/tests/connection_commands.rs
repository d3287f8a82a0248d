//! How `ringctl connections` asks, and how it shows what it is answered.

mod support;

use serde_json::{Value, json};
use support::{Daemon, ringctl};

fn connection() -> Value {
    json!({
        "family": "ipv4", "proto": "tcp", "from": "203.0.113.5", "from_port": 4000, "to": "192.0.2.1", "to_port": 22,
        "state": "tcp-established", "pool": "established", "direction": "inbound", "replied": true, "picked_up": false,
        "sent": {"packets": 12, "bytes": 3400}, "received": {"packets": 9, "bytes": 999}, "age": 65, "expires": 432_000,
        "interface": "eth0",
    })
}

#[test]
fn connections_are_asked_for_by_what_they_are_and_listed() {
    let mut ping = connection();
    for (key, value) in [
        ("family", json!("ipv6")),
        ("proto", json!("icmpv6")),
        ("from", json!("2001:db8::1")),
        ("to", json!("2001:db8::2")),
        ("from_port", Value::Null),
        ("to_port", Value::Null),
        ("icmp", json!({"type": 128, "id": 7})),
        ("state", json!("icmp")),
        ("pool", json!("half-out")),
        ("direction", json!("outbound")),
        ("interface", Value::Null),
        ("expires", json!(30)),
    ] {
        ping[key] = value;
    }
    let pools = json!([{"pool": "established", "connections": 1, "capacity": 262_144},
                       {"pool": "half-in", "connections": 0, "capacity": 65_536},
                       {"pool": "half-out", "connections": 41, "capacity": 32_768}]);
    let answer = json!({"connections": [connection(), ping], "matched": 42, "left_out": 40, "pools": pools});
    let daemon = Daemon::new([(200, answer.clone()), (200, answer.clone())]);
    let run = daemon.ringctl([
        "connections",
        "--proto",
        "tcp",
        "--from",
        "2001:db8::/32",
        "--port",
        "22",
        "--state",
        "udp-replied",
        "--pool",
        "half-out",
        "--limit",
        "2",
    ]);
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert_eq!(
        run.out,
        "PROTO   FROM              TO                         STATE            POOL         WAY  INTERFACE     SENT  RECEIVED  AGE  EXPIRES\n\
         tcp     203.0.113.5:4000  192.0.2.1:22               tcp-established  established  in   eth0       12/3.4k     9/999  65s       5d\n\
         icmpv6  2001:db8::1       2001:db8::2 type 128 id 7  icmp             half-out     out  -          12/3.4k     9/999  65s      30s\n\
         40 more fit: --limit, or say more about those that are meant\n\
         42 connections; established 1 of 262144, half-in 0 of 65536, half-out 41 of 32768\n"
    );
    let run = daemon.ringctl(["connections", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&run.out).unwrap(), answer);
    let paths: Vec<String> = daemon.asked().into_iter().map(|(_, path, _)| path).collect();
    let filter = "proto=tcp&from=2001%3Adb8%3A%3A%2F32&port=22&state=udp-replied&pool=half-out&limit=2";
    assert_eq!(paths, [format!("/v1/connections?{filter}"), "/v1/connections?".to_owned()]);
}

#[test]
fn a_kill_says_what_became_of_the_socket() {
    let killed = |socket: &str, because: Value| {
        let one = json!({"connection": connection(), "socket": socket, "because": because});
        (200, json!({"killed": [one], "seconds": 120}))
    };
    let daemon = Daemon::new([
        killed("destroyed", Value::Null),
        killed("refused", json!("this kernel cannot")),
        (409, json!({"code": "no", "message": "7 connections fit"})),
    ]);
    let run = daemon.ringctl(["connections", "--kill", "--to", "192.0.2.1"]);
    let line = "killed tcp 203.0.113.5:4000 -> 192.0.2.1:22: its packets are dropped for 2m";
    assert_eq!((run.code, run.out), (0, format!("{line}, its socket is closed\n")), "{}", run.err);
    let run = daemon.ringctl(["connections", "--kill", "--all", "--force"]);
    assert_eq!(run.out, format!("{line}, its socket could not be closed: this kernel cannot\n"));
    let run = daemon.ringctl(["connections", "--kill", "--json"]);
    assert_eq!((run.code, run.out.as_str(), run.err.as_str()), (1, "", "error: 7 connections fit\n"));
    let asked = daemon.asked();
    assert!(asked.iter().all(|(method, path, _)| (method.as_str(), path.as_str()) == ("POST", "/v1/connections/kill")));
    let filter = |to: Value| json!({"proto": null, "from": null, "to": to, "port": null, "state": null, "pool": null});
    assert_eq!(asked[0].2, json!({"filter": filter(json!("192.0.2.1")), "all": false, "force": false}));
    assert_eq!(asked[1].2, json!({"filter": filter(Value::Null), "all": true, "force": true}));
}

#[test]
fn a_filter_of_connections_that_cannot_be_meant_is_refused_here() {
    for (arguments, named) in [
        (&["--state", "open"][..], "tcp-closing"),
        (&["--pool", "half"], "half-in"),
        (&["--from", "example.org"], "--from"),
        (&["--port", "70000"], "--port"),
        (&["--all"], "--kill"),
        (&["--force"], "--kill"),
        (&["--kill", "--limit", "1"], "--limit"),
    ] {
        let run = ringctl(["connections"].iter().chain(arguments));
        assert_eq!(run.code, 2, "{arguments:?}");
        assert!(run.err.contains(named), "{arguments:?}: {}", run.err);
    }
}
