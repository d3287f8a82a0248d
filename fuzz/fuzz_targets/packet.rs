//! Any bytes are judged alike by the compiled tables (the code of the kernel programs) and by the oracle, which parses
//! them with code of its own: `cargo +nightly fuzz run packet`.
//!
//! The first byte says where the packet is seen, the rest is the frame.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringfence_policy::{
    SourceText,
    compile::{Compiled, compile},
    evaluate::{Input, evaluate},
    load_texts,
    model::Policy,
    oracle::{Context, Hook, LineRef, judge, no_members, parse},
};

/// Reads every field of the headers, so that each of them can make a difference.
const POLICY: &str = r#"
ringfence: 1
network:
  interfaces: [eth0]
  ingress:
    default: drop
    stateless: true
    rules:
      - count: {fragment: true}
      - drop: {vlan: 1-100, proto: udp}
      - accept: {vlan: 4095}
      - drop: {from: 10.0.0.0/8, port: 0-1023, proto: tcp}
      - accept: {flags: "syn,!ack"}
      - accept: {icmp: echo-request}
      - drop: {icmp: [redirect, packet-too-big]}
      - accept: {dscp: 46}
      - drop: {length: 0-60}
      - accept: {proto: [udp, sctp], source_port: 53}
      - reject: {to: "2001:db8::/32", proto: [tcp, udp, icmpv6, gre, 0, 43, 44]}
      - accept: {family: ipv6, fragment: false}
"#;

static LOADED: LazyLock<(Policy, Compiled)> = LazyLock::new(|| {
    let source = SourceText { name: "fuzz.yaml".into(), text: POLICY.into(), base: "/".into() };
    let policy = load_texts(vec![source]).unwrap_or_else(|report| panic!("{}", report.render(false))).policy;
    let compiled = compile(&policy).expect("a small policy compiles");
    (policy, compiled)
});

fuzz_target!(|data: &[u8]| {
    let Some((&place, frame)) = data.split_first() else { return };
    let (policy, compiled) = &*LOADED;
    let at_tc = place & 1 != 0;
    let context = Context {
        hook: if at_tc { Hook::Tc } else { Hook::Xdp },
        ingress: true,
        interface: "eth0".into(),
        loopback: place & 2 != 0,
        l3: at_tc && place & 4 != 0,
        segment: if at_tc && place & 8 != 0 { 1400 } else { 0 },
        tag: (at_tc && place & 16 != 0).then_some(u16::from(place)),
        mark: None,
        state: place >> 6,
    };
    let judged = judge(policy, &context, &parse(frame, &context), &no_members, &[]);
    let chain = compiled.ingress.as_ref().expect("the policy has the chain");
    let found = evaluate(
        chain,
        &Input {
            frame,
            segment: context.segment.into(),
            egress: false,
            l3: context.l3,
            tag: context.tag,
            mark: None,
            state: context.state,
            interface: "eth0",
            loopback: context.loopback,
            members: &no_members,
            entry: &|_| None,
        },
    );
    let continued: Vec<u32> = judged.continued.iter().filter_map(|rule| LineRef::Rule(*rule).counter()).collect();
    assert_eq!(
        (found.verdict, Some(found.line), found.unknown, found.continued),
        (judged.verdict.code().into(), judged.line.counter(), judged.unknown, continued)
    );
});
