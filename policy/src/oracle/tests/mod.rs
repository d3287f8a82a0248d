mod explain;
mod fields;
mod judge;
mod parse;
mod run;

use super::{Context, Decision, DynamicEntry, Field, Fields, Hook, no_members};
use crate::model::{Chain, Connections, HostChain, Location, Match, Mode, Policy, Rule, Verdict};
use crate::ranges::Ranges;

const AT: Location = Location { file: 0, line: 1, column: 1 };

fn context() -> Context {
    Context {
        hook: Hook::Tc,
        ingress: true,
        interface: "eth0".to_owned(),
        loopback: false,
        l3: false,
        segment: 0,
        tag: None,
        mark: Some(0),
        state: 0,
    }
}

/// A TCP SYN from 203.0.113.5:1000 to 192.0.2.1:22 in VLAN 7 with mark 9.
fn syn() -> Fields {
    Fields {
        arp: false,
        vlan: Field::Value(7),
        mark: Field::Value(9),
        family: Field::Value(super::Family::V4),
        from: Field::Value("203.0.113.5".parse().unwrap()),
        to: Field::Value("192.0.2.1".parse().unwrap()),
        fragment: Field::Value(false),
        later_fragment: false,
        dscp: Field::Value(10),
        length: Field::Value(60),
        hop_limit: Field::Value(64),
        proto: Field::Value(6),
        source_port: Field::Value(1000),
        port: Field::Value(22),
        flags: Field::Value(2),
        icmp: Field::Absent,
    }
}

fn rule(verdict: Verdict, matches: Match) -> Rule {
    Rule {
        name: verdict.word().to_owned(),
        named: true,
        at: AT,
        verdict,
        audit: false,
        protect: false,
        limit: None,
        add: None,
        matches,
    }
}

fn policy(default: Verdict, rules: Vec<Rule>) -> Policy {
    Policy {
        mode: Mode::Enforce,
        files: vec!["test.yaml".to_owned()],
        dynamic_sets: Vec::new(),
        interfaces: None,
        floor: [true; 7],
        connections: Connections::default(),
        ingress: Some(Chain { default, default_at: AT, protect: false, rules }),
        egress: None,
        host: HostChain::implicit(),
        tests: Vec::new(),
        access_tests: Vec::new(),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a field of `Match` is an option")]
fn only(value: u32) -> Option<Ranges> {
    Some(Ranges::new(vec![(value, value)]))
}

#[expect(clippy::unnecessary_wraps, reason = "a field of `Match` is an option")]
fn ports(low: u32, high: u32) -> Option<Ranges> {
    Some(Ranges::new(vec![(low, high)]))
}

fn entry(id: u64, accept: bool) -> DynamicEntry {
    DynamicEntry { id, ingress: true, address: "203.0.113.0".parse().unwrap(), length: 24, port: None, accept }
}

fn decide(policy: &Policy, fields: &Fields) -> Decision {
    super::judge(policy, &context(), &Ok(fields.clone()), &no_members, &[])
}
