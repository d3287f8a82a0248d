//! The `tests:` of a policy.

use super::{AT, only, policy, rule};
use crate::model::{Chain, Match, NameGlob, PacketTest, Policy, TestPacket, Verdict};
use crate::oracle::{Hook, context, run_tests};

fn ssh() -> TestPacket {
    TestPacket {
        from: Some("203.0.113.5".parse().unwrap()),
        to: Some("192.0.2.1".parse().unwrap()),
        proto: Some(6),
        port: Some(22),
        ..TestPacket::default()
    }
}

fn test(ingress: bool, packet: TestPacket, expect: Verdict, rule: Option<&str>) -> PacketTest {
    PacketTest { at: AT, ingress, packet, expect, rule: rule.map(str::to_owned) }
}

fn with(tests: Vec<PacketTest>) -> Policy {
    let rules = vec![
        rule(Verdict::Accept, Match { port: only(22), ..Match::default() }),
        rule(Verdict::Reject, Match { port: only(113), ..Match::default() }),
    ];
    Policy { tests, ..policy(Verdict::Drop, rules) }
}

#[test]
fn tests_that_hold_are_silent() {
    let tests = vec![
        test(true, ssh(), Verdict::Accept, None),
        test(true, ssh(), Verdict::Accept, Some("accept")),
        test(true, TestPacket { port: Some(113), ..ssh() }, Verdict::Reject, Some("reject")),
        test(true, TestPacket { port: Some(23), ..ssh() }, Verdict::Drop, Some("default")),
        test(true, TestPacket { fragment: true, port: None, ..ssh() }, Verdict::Reject, Some("reject")),
        test(
            true,
            TestPacket { interface: Some("lo".into()), port: Some(1), ..ssh() },
            Verdict::Accept,
            Some("floor/loopback"),
        ),
    ];
    assert_eq!(run_tests(&with(tests)), []);
}

#[test]
fn failures_say_what_came_instead() {
    let tests = vec![
        test(true, ssh(), Verdict::Accept, None),
        test(true, ssh(), Verdict::Drop, None),
        test(true, TestPacket { port: Some(23), ..ssh() }, Verdict::Drop, Some("reject")),
        test(true, TestPacket { port: Some(113), ..ssh() }, Verdict::Drop, None),
        test(false, ssh(), Verdict::Accept, None),
        test(true, TestPacket { proto: Some(47), ..ssh() }, Verdict::Accept, None),
    ];
    let failures: Vec<_> = run_tests(&with(tests)).into_iter().map(|one| (one.test, one.message)).collect();
    let expected = [
        (1, "expected drop, but `accept` decides accept"),
        (2, "expected `reject` to decide, but `default` does"),
        (3, "expected drop, but `reject` decides reject"),
        (4, "the policy has no `egress` chain to test"),
        (5, "`port`: protocol 47 has none"),
    ];
    assert_eq!(failures, expected.map(|(test, message)| (test, message.to_owned())));
}

#[test]
fn the_hook_and_the_interface_are_those_the_daemon_would_use() {
    let plain = with(Vec::new());
    let marked = Policy {
        ingress: Some(Chain {
            rules: vec![rule(Verdict::Drop, Match { mark: only(1), ..Match::default() })],
            ..plain.ingress.clone().unwrap()
        }),
        interfaces: Some(vec![NameGlob("wg*".into()), NameGlob("ens3".into())]),
        ..plain.clone()
    };
    let at_xdp = context(&plain, &ssh(), true);
    assert_eq!((at_xdp.hook, at_xdp.mark, at_xdp.interface.as_str()), (Hook::Xdp, None, "eth0"));
    let at_tc = context(&marked, &ssh(), true);
    assert_eq!((at_tc.hook, at_tc.mark, at_tc.interface.as_str()), (Hook::Tc, Some(0), "ens3"));
    let leaving = context(&plain, &TestPacket { mark: Some(5), interface: Some("lo".into()), ..ssh() }, false);
    assert_eq!((leaving.hook, leaving.mark, leaving.loopback), (Hook::Tc, Some(5), true));
    let tests = vec![test(true, TestPacket { mark: Some(1), ..ssh() }, Verdict::Drop, Some("drop"))];
    assert_eq!(run_tests(&Policy { tests, ..marked }), []);
}
