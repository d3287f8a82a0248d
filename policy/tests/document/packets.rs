use ringfence_policy::model::Verdict;
use ringfence_policy::parse_packet_spec;

use super::{accepts, refuses};

fn with_test(packet: &str, rest: &str) -> String {
    format!(
        "ringfence: 1\nnetwork:\n  interfaces: [eth0]\n  ingress: {{default: accept, rules: [{{drop: any, name: all}}]}}\ntests:\n  - packet: {{{packet}}}\n    {rest}\n"
    )
}

#[test]
fn tests_are_read() {
    let loaded = accepts(&with_test(
        "interface: eth0, proto: tcp, from: 10.0.0.1, to: 10.0.0.2, port: ssh, flags: \"syn,ack\", hop_limit: 1",
        "expect: drop\n    rule: all",
    ));
    let test = &loaded.policy.tests[0];
    assert_eq!((test.ingress, test.expect, test.rule.as_deref(), test.at.line), (true, Verdict::Drop, Some("all"), 6));
    assert_eq!((test.packet.port, test.packet.flags, test.packet.hop_limit), (Some(22), Some(18), Some(1)));
    let loaded = accepts(&with_test("from: \"::1\", icmp: echo-request", "expect: drop"));
    assert_eq!((loaded.policy.tests[0].packet.proto, loaded.policy.tests[0].packet.icmp), (Some(58), Some((128, 0))));
}

#[test]
fn mistakes_in_tests() {
    for (packet, rest, fragment) in [
        ("proto: tcp", "comment: x", "a test without `expect`"),
        ("proto: tcp", "expect: deny", "packets are dropped: `drop`"),
        ("proto: tcp", "expect: drop\n    rule: al", "did you mean `all`?"),
        ("proto: tcp", "expect: drop\n    ruel: all", "did you mean `rule`?"),
        ("proto: tcp, direction: egress", "expect: drop", "a test about `egress`, which the policy does not have"),
        ("proto: tcp, direction: in", "expect: drop", "unknown direction"),
        ("interface: eth1", "expect: drop", "is not among `interfaces`"),
        ("interface: \"eth*\"", "expect: drop", "found the glob"),
        ("from: 10.0.0.0/8", "expect: drop", "expected one address"),
        ("from: 10.0.0.1, to: \"::1\"", "expect: drop", "different families"),
        ("port: 22", "expect: drop", "`port` without `proto`"),
        ("proto: icmp, port: 22", "expect: drop", "needs a protocol with ports"),
        ("proto: tcp, port: 1-2", "expect: drop", "expected one port"),
        ("proto: udp, flags: syn", "expect: drop", "`flags` needs `proto: tcp`"),
        ("icmp: echo-request", "expect: drop", "IPv4 or IPv6?"),
        ("proto: icmp, icmp: packet-too-big", "expect: drop", "IPv4 has no such ICMP message"),
        ("proto: tcp, icmp: 8", "expect: drop", "`icmp` needs"),
        ("proto: tcp, state: nwe", "expect: drop", "unknown state `nwe`"),
        ("prot: tcp", "expect: drop", "did you mean `proto`?"),
        ("from: [10.0.0.1]", "expect: drop", "expected a single value"),
    ] {
        refuses(&with_test(packet, rest), fragment);
    }
    refuses("ringfence: 1\ntests: [{expect: drop}]\n", "a test without `packet`");
    refuses("ringfence: 1\ntests: [drop]\n", "expected a test with");
}

#[test]
fn reserved_lines_may_be_expected() {
    for rule in ["default", "floor/arp", "malformed/bad-network", "continuations"] {
        accepts(&with_test("proto: tcp", &format!("expect: drop\n    rule: {rule}")));
    }
}

#[test]
fn a_packet_on_the_command_line() {
    let (packet, ingress) =
        parse_packet_spec("interface=eth0  proto=tcp from=203.0.113.5 to=192.0.2.1 port=22 direction=egress").unwrap();
    assert_eq!(
        (packet.interface.as_deref(), packet.proto, packet.port, ingress),
        (Some("eth0"), Some(6), Some(22), false)
    );
    assert!(parse_packet_spec("").unwrap().1);
    for (spec, column, fragment) in [
        ("proto=tcp prot=22", 11, "unknown field of a packet `prot`"),
        ("tcp", 1, "expected `field=value`"),
        ("proto=tcp port=x", 11, "expected a port"),
        ("port=22", 1, "`port` without `proto`"),
        ("state=newer", 1, "unknown state"),
    ] {
        let report = parse_packet_spec(spec).unwrap_err();
        let found = &report.diagnostics[0];
        assert_eq!(found.place.as_ref().unwrap().column, column, "{report}");
        assert!(found.message.contains(fragment), "{report}");
    }
}
