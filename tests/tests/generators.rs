//! What random cases consist of: a generator that never hits anything proves nothing, so its shares are asserted.

use std::collections::BTreeMap;

use proptest::strategy::ValueTree;
use ringfence_abi::counter::{FLOOR_NAMES, MALFORMED_NAMES};
use ringfence_policy::model::{Match, Verdict};
use ringfence_policy::oracle::{Decision, Field, Fields, LineRef, Parsed, judge, parse};
use ringfence_tests::generate::{Case, Cases, Packet, Shape, case, truncations};

/// How often things happened, by name.
#[derive(Default)]
struct Tally {
    packets: u32,
    of: BTreeMap<String, u32>,
}

impl Tally {
    fn add(&mut self, name: impl Into<String>) {
        *self.of.entry(name.into()).or_default() += 1;
    }

    fn percent(&self, name: &str) -> f64 {
        f64::from(self.of.get(name).copied().unwrap_or(0)) * 100.0 / f64::from(self.packets)
    }

    #[track_caller]
    fn at_least(&self, percent: f64, names: impl IntoIterator<Item = impl AsRef<str>>) {
        for name in names {
            let is = self.percent(name.as_ref());
            assert!(is >= percent, "{}: {is:.2} % of {} packets, wanted {percent} %", name.as_ref(), self.packets);
        }
    }
}

/// Names of the fields that a rule reads.
fn fields_read(matches: &Match) -> impl Iterator<Item = &'static str> {
    let dynamic = |list: &[ringfence_policy::model::AddressMatch]| {
        list.iter().any(|one| {
            one.any_of.as_ref().is_some_and(|list| !list.dynamic.is_empty()) || !one.none_of.dynamic.is_empty()
        })
    };
    [
        ("from", !matches.from.is_empty()),
        ("to", !matches.to.is_empty()),
        ("from-dynamic", dynamic(&matches.from)),
        ("to-dynamic", dynamic(&matches.to)),
        ("proto", matches.proto.is_some()),
        ("port", matches.port.is_some()),
        ("source_port", matches.source_port.is_some()),
        ("interface", !matches.interface.is_empty()),
        ("family", matches.family.is_some()),
        ("flags", matches.flags.is_some()),
        ("icmp", matches.icmp.is_some()),
        ("vlan", matches.vlan.is_some()),
        ("dscp", matches.dscp.is_some()),
        ("mark", matches.mark.is_some()),
        ("length", matches.length.is_some()),
        ("fragment", matches.fragment.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, read)| read.then_some(name))
}

const FIELDS: [&str; 16] = [
    "from",
    "to",
    "from-dynamic",
    "to-dynamic",
    "proto",
    "port",
    "source_port",
    "interface",
    "family",
    "flags",
    "icmp",
    "vlan",
    "dscp",
    "mark",
    "length",
    "fragment",
];

fn tally_states(tally: &mut Tally, fields: &Fields) {
    fn state<T>(field: &Field<T>) -> &'static str {
        match field {
            Field::Value(_) => "value",
            Field::Absent => "absent",
            Field::Unknown => "unknown",
        }
    }
    for (name, state) in [
        ("family", state(&fields.family)),
        ("proto", state(&fields.proto)),
        ("port", state(&fields.port)),
        ("flags", state(&fields.flags)),
        ("icmp", state(&fields.icmp)),
        ("vlan", state(&fields.vlan)),
        ("mark", state(&fields.mark)),
    ] {
        tally.add(format!("{name} {state}"));
    }
    if fields.fragment == Field::Value(true) {
        tally.add("fragment yes");
    }
}

fn tally_decision(tally: &mut Tally, case: &Case, packet: &Packet, parsed: &Parsed, decision: &Decision) {
    tally.add(decision.verdict.word());
    let chain = if packet.context.ingress { &case.policy.ingress } else { &case.policy.egress };
    match decision.line {
        LineRef::Rule(index) => {
            tally.add("rule");
            let rules = chain.as_ref().map_or(&[][..], |chain| &chain.rules);
            fields_read(&rules[index].matches).for_each(|field| tally.add(format!("decided by {field}")));
            if index >= rules.len() / 2 {
                tally.add("rule in the second half");
            }
            if parsed.as_ref().is_ok_and(Fields::any_unknown) {
                tally.add("rule on unknown");
            }
        }
        LineRef::Default => tally.add("default"),
        LineRef::Floor(line) => tally.add(FLOOR_NAMES[line]),
        LineRef::Malformed(reason) => {
            tally.add("malformed");
            tally.add(MALFORMED_NAMES[reason]);
        }
        LineRef::Dynamic(_) => tally.add("dynamic"),
        LineRef::Continuations => tally.add("continuations"),
        LineRef::Unattached => tally.add("unattached"),
    }
    if !decision.continued.is_empty() {
        tally.add("continued");
    }
}

fn tally(shape: Shape, cases: u64, packets: usize) -> Tally {
    let mut tally = Tally::default();
    for seed in 0..cases {
        let case = case(seed, shape, packets);
        for packet in &case.packets {
            let parsed = parse(&packet.frame, &packet.context);
            let members = |set, address| case.world.contains(set, address);
            let decision = judge(&case.policy, &packet.context, &parsed, &members, &case.world.entries);
            tally.packets += 1;
            if let Ok(fields) = &parsed {
                tally_states(&mut tally, fields);
            }
            tally_decision(&mut tally, &case, packet, &parsed, &decision);
        }
    }
    println!("{shape:?}, {} packets, per cent:", tally.packets);
    for name in tally.of.keys() {
        println!("  {:6.2}  {name}", tally.percent(name));
    }
    tally
}

#[test]
fn narrow_cases_meet_everything() {
    let tally = tally(Shape::Narrow, 600, 100);
    tally.at_least(20.0, [Verdict::Accept.word(), Verdict::Drop.word(), "rule"]);
    tally.at_least(5.0, ["reject", "malformed", "continued", "default", "unattached", "rule in the second half"]);
    tally.at_least(0.3, &MALFORMED_NAMES[..5]);
    tally.at_least(0.05, FLOOR_NAMES);
    tally.at_least(2.0, ["dynamic"]);
    tally.at_least(0.6, FIELDS.map(|field| format!("decided by {field}")));
    tally
        .at_least(3.0, ["port unknown", "flags unknown", "fragment yes", "family absent", "vlan value", "mark absent"]);
    tally.at_least(2.0, ["icmp unknown", "proto unknown", "rule on unknown"]);
}

#[test]
fn larger_policies_are_reached_in_their_depth() {
    for (shape, cases, packets) in [(Shape::Wide, 30, 300), (Shape::Huge, 2, 2000)] {
        let tally = tally(shape, cases, packets);
        tally.at_least(4.0, ["default"]);
        tally.at_least(20.0, ["rule"]);
        tally.at_least(3.0, ["rule in the second half"]);
        tally.at_least(1.0, ["continued"]);
    }
}

#[test]
fn a_case_is_a_function_of_its_seed() {
    let text = |seed| format!("{:?}", case(seed, Shape::Narrow, 20));
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}

#[test]
fn truncations_are_every_shorter_frame() {
    let packet = &case(1, Shape::Narrow, 1).packets[0];
    let lengths: Vec<usize> = truncations(packet).map(|cut| cut.frame.len()).collect();
    assert_eq!(lengths, (0..packet.frame.len()).collect::<Vec<_>>());
}

/// A made-up fault, "rules that read the VLAN and a packet of 60 bytes or more", must shrink to one such rule and one
/// such packet.
#[test]
fn failing_cases_shrink_to_what_fails() {
    use proptest::strategy::Strategy as _;
    let fails = |case: &Case| {
        case.packets.iter().any(|packet| packet.frame.len() >= 60)
            && case.policy.ingress.iter().flat_map(|chain| &chain.rules).any(|rule| rule.matches.vlan.is_some())
    };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut tree = Cases { shape: Shape::Wide, packets: 50 }.new_tree(&mut runner).unwrap();
    while !fails(&tree.current()) {
        tree = Cases { shape: Shape::Wide, packets: 50 }.new_tree(&mut runner).unwrap();
    }
    while tree.simplify() {
        if !fails(&tree.current()) {
            assert!(tree.complicate());
        }
    }
    let small = tree.current();
    assert!(fails(&small));
    assert_eq!((small.packets.len(), small.packets[0].frame.len()), (1, 60));
    assert_eq!(small.policy.egress.map_or(0, |chain| chain.rules.len()), 0);
    let rules = small.policy.ingress.unwrap().rules;
    assert_eq!(fields_read(&rules[0].matches).collect::<Vec<_>>(), ["vlan"]);
    assert_eq!((rules.len(), small.world.entries.len(), small.world.members.len()), (1, 0, 0));
}
