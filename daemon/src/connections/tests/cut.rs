use std::time::Instant;

use ringfence_abi::connection::DEFAULT_CAPACITY;
use ringfence_api::Prefix;
use ringfence_policy::model::DynamicSet;

use super::*;
use crate::connections::TCP;
use crate::connections::fate::tests::{connection, network, policy};
use crate::dynamic::entries::Entries;
use crate::dynamic::sets::Member;
use crate::kernel::tests::world::in_world;

const SESSION: (&str, &str) = ("192.0.2.1:22", "198.51.100.7:4000");

fn lines(compiled: &Compiled) -> Vec<KeptLine> {
    KeptLine::all(&compiled.lines, &["test.yaml".to_owned()])
}

fn refusal(line: u32) -> Fate {
    Fate::Cut(Refusal { line, entry: 0 })
}

#[test]
fn a_bounded_list_begins_with_the_callers_own_session() {
    let session = Session { local: SESSION.0.parse().unwrap(), peer: SESSION.1.parse().unwrap() };
    let mut cuts = Cuts::new(10, vec![session]);
    let own = connection(TCP, ("198.51.100.7", 4000), ("192.0.2.1", 22), false);
    cuts.look(Pool::In, &own.0, &own.1, || Fate::Waits(Refusal { line: 0, entry: 3 }, false));
    for number in 0..5_000_u16 {
        let (key, one) = connection(TCP, ("192.0.2.2", number), ("192.0.2.1", 80), false);
        let one = Connection { created: number.into(), ..one };
        let pool = if number % 2 == 0 { Pool::Established } else { Pool::In };
        cuts.look(pool, &key, &one, || if number == 77 { Fate::GoesOn } else { refusal(1) });
        assert!(cuts.first.len() < 1_024);
        // Over already.
        for gone in [Connection { expires: 10, ..one }, Connection { state: KILLED, ..one }] {
            cuts.look(pool, &key, &gone, || unreachable!("nobody asks what becomes of it"));
        }
    }
    let line = |name: &str, at: Option<u32>| KeptLine {
        name: name.to_owned(),
        named: true,
        chain: "ingress".to_owned(),
        verb: "drop".to_owned(),
        at: at.map(|line| ("p.yaml".to_owned(), line)),
        content: 0,
    };
    let shown = cuts.shown(&[line("dynamic", None), line("closed", Some(4))], &network());
    assert_eq!((shown.judged, shown.total, shown.left_out), (5_001, 5_000, 4_980));
    assert_eq!(shown.connections.len(), LISTED_CUT);
    let first = &shown.connections[0];
    assert_eq!((first.own, first.rule.as_str(), first.line), (true, "dynamic/3", None));
    assert_eq!(first.until, "192.0.2.1".parse().ok());
    let second = &shown.connections[1];
    assert_eq!((second.own, second.rule.as_str(), second.file.as_deref()), (false, "closed", Some("p.yaml")));
    assert_eq!((second.line, second.until, second.connection.from_port), (Some(4), None, Some(4_998)));
}

/// A thousand services, each open to a network of its own; and a set of those who are not let in anywhere.
fn services() -> Policy {
    let rule = |i: u32| format!("      - accept: {{proto: tcp, port: {}, from: 10.{}.0.0/16}}\n", 1_000 + i, i % 250);
    let rules = (0..1_000).map(rule).collect::<Vec<_>>().concat();
    policy(&format!(
        "
  ingress:
    default: drop
    rules:
      - drop: {{from: $jail}}
        name: jailed
      - accept: {{state: [established, related]}}
{rules}  egress: {{default: accept}}
"
    ))
}

#[test]
fn a_full_pool_is_judged_by_a_large_policy() {
    in_world(|world| {
        let (kernel, network) = (world.open(), network());
        let before = policy("\n  ingress: {default: accept, rules: [accept: {state: established}]}\n");
        let loaded = kernel.load(&compile(&before).unwrap(), 1, |_| 0).unwrap();
        // Half of them are to ports that the policy opens to their network.
        for number in 0..DEFAULT_CAPACITY {
            let from: String = format!("10.{}.{}.{}", number % 250, number >> 8 & 0xff, number >> 16);
            let port = 1_000 + (number % 1_000) as u16;
            let to = if number % 2 == 0 { port } else { port + 1 };
            let (key, one) = connection(TCP, (&from, 4_000), ("192.0.2.1", to), false);
            assert!(loaded.adopt_connection(&key, &one).unwrap());
        }
        let policy = services();
        let compiled = compile(&policy).unwrap();
        let demand = Demand::of(policy.interfaces.clone(), &compiled);
        let (mut sets, entries) = (Sets::default(), EntryTable::new(&Entries::default()));
        let names: Vec<&str> = policy.dynamic_sets.iter().map(|set: &DynamicSet| set.name.as_str()).collect();
        assert_eq!(names, ["jail"]);
        let jail: [Prefix; 2] = ["10.2.0.0/16", "10.4.0.0/24"].map(|text| text.parse().unwrap());
        sets.insert("jail", &jail, &Member::default());

        let begin = Instant::now();
        let side = Side::new(&policy, &compiled, &demand, &network, &sets);
        let mut cuts = Cuts::new(1, Vec::new());
        let pools = loaded.pools().unwrap();
        pools.for_each(|pool, key, one| cuts.look(pool, key, one, || side.fate(key, one, &entries, 1, &sets))).unwrap();
        let shown = cuts.shown(&lines(&compiled), &network);
        println!("{} connections judged in {:?}", shown.judged, begin.elapsed());

        assert_eq!(shown.judged, u64::from(DEFAULT_CAPACITY));
        // Those to another network's port, and of the others those in jail.
        let odd = u64::from(DEFAULT_CAPACITY) / 2;
        let all = |number: &u32| {
            let (network, host) = (number % 250, number >> 8 & 0xff);
            number.is_multiple_of(2) && (network == 2 || network == 4 && host == 0)
        };
        let jailed = (0..DEFAULT_CAPACITY).filter(all).count() as u64;
        assert_eq!(shown.total, odd + jailed);
        kernel.unload(loaded).unwrap();
    });
}
