use std::fs;
use std::path::Path;

use jsonschema::Validator;
use serde_json::{Value, json};

fn validator() -> Validator {
    jsonschema::validator_for(&ringfence_policy::schema()).unwrap()
}

// The examples are YAML; this is enough of a converter for what stands in them, and uses another parser than ours.
fn yaml(text: &str) -> Value {
    use saphyr_parser::{Event, Parser, ScalarStyle};
    fn node(events: &mut impl Iterator<Item = Event<'static>>, first: Event<'static>) -> Value {
        match first {
            Event::Scalar(text, ScalarStyle::Plain, ..) => serde_json::from_str(&text).unwrap_or_else(|_| json!(text)),
            Event::Scalar(text, ..) => json!(text),
            Event::SequenceStart(..) => {
                let mut list = Vec::new();
                loop {
                    match events.next().unwrap() {
                        Event::SequenceEnd => return Value::Array(list),
                        event => list.push(node(events, event)),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut map = serde_json::Map::new();
                loop {
                    match events.next().unwrap() {
                        Event::MappingEnd => return Value::Object(map),
                        Event::Scalar(key, ..) => {
                            let value = events.next().unwrap();
                            map.insert(key.into_owned(), node(events, value));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    let mut events = Parser::new_from_str(text)
        .map(|event| event.unwrap().0)
        .filter(|event| !matches!(event, Event::StreamStart | Event::DocumentStart(_)));
    let first = events.next().unwrap();
    node(&mut events, first)
}

#[test]
fn every_example_satisfies_the_schema() {
    let validator = validator();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let errors: Vec<String> = validator
                .iter_errors(&yaml(&fs::read_to_string(&path).unwrap()))
                .map(|error| format!("{} at {}", error, error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
        }
    }
}

// A whole policy around a rule.
fn rule(rule: &str) -> String {
    super::with_rule(rule)
}

#[test]
fn the_schema_takes_what_the_loader_takes() {
    let validator = validator();
    for text in [
        rule("drop: any"),
        rule("drop: {from: [10.0.0.0/8, $nets], to: {not: \"::1\"}, proto: [tcp, 17], port: {in: [22, 1-9], not: 5}, source_port: https}"),
        rule("accept: {icmp: [echo-request], length: 0-1500}"),
        rule("accept: {proto: icmp, icmp: 3/1}"),
        rule("reject: {flags: \"syn,!ack\", interface: [eth0, \"wg*\"], vlan: 5, dscp: 1-3, mark: 0xff, fragment: false, family: ipv4}"),
        rule("count: {proto: tcp, port: \"22\"}\n        name: a\n        comment: b"),
        "ringfence: 1\nsets: {d: {dynamic: true, timeout: 1h, capacity: 10, full: refuse, never: [10.0.0.1]}}\nnetwork: {floor: {arp: true}, interfaces: eth0}\n".into(),
        "ringfence: 1\ngroups: {g: [{drop: any}]}\nnetwork: {egress: {default: drop, stateless: true, rules: [{use: g, when: {proto: tcp}}]}}\n".into(),
    ] {
        super::accepts(&text);
        let errors: Vec<String> = validator.iter_errors(&yaml(&text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{text}\n{errors:#?}");
    }
}

#[test]
fn what_the_schema_refuses_the_loader_refuses() {
    let validator = validator();
    for text in [
        rule("deny: any"),
        rule("drop: any\n        accept: any"),
        rule("drop: {prot: tcp}"),
        rule("drop: {from: example.com}"),
        rule("drop: {proto: tcpp}"),
        rule("drop: {proto: tcp, port: 65536}"),
        rule("drop: {flags: sin}"),
        rule("drop: {fragment: maybe}"),
        rule("drop: {family: 4}"),
        rule("drop: {from: [10.0.0.1, {not: 10.0.0.2}]}"),
        rule("drop: any\n        name: \"a b\""),
        rule("drop: any\n        nmae: a"),
        "ringfence: 2\n".into(),
        "mode: audit\n".into(),
        "ringfence: 1\nmode: off\n".into(),
        "ringfence: 1\nsets: {a: {dynamic: false}}\n".into(),
        "ringfence: 1\nnetwork: {ingress: {default: deny}}\n".into(),
        "ringfence: 1\nnetwork: {floor: {arpp: true}}\n".into(),
        "ringfence: 1\ntests: [{packet: {proto: tcp}}]\n".into(),
    ] {
        assert!(super::load(&text).is_err(), "{text}");
        assert!(!validator.is_valid(&yaml(&text)), "{text}");
    }
}
