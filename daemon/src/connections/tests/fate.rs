use ringfence_abi::chain::IP_FAMILY_SHIFT;
use ringfence_abi::connection::{FLAG_FROM_LOW, TCP_ESTABLISHED};
use ringfence_engine::deep::{Endpoints, QUERY_REPLY};
use ringfence_engine::fields::FAMILY_V6;
use ringfence_engine::judge::Entry;
use ringfence_engine::track::key_of;
use ringfence_policy::compile::compile;
use ringfence_policy::model::{Policy, SetId};
use ringfence_policy::{SourceText, load_texts};

use super::*;
use crate::connections::UDP;
use crate::interfaces::link::Link;

const ICMP: u8 = 1;
const SERVER: &str = "192.0.2.1";
const CLIENT: &str = "192.0.2.2";

/// What many hosts have: answers, one service, everything out.
const USUAL: &str = "
  ingress:
    default: drop
    rules:
      - accept: {state: [established, related]}
        name: answers
      - drop: {state: invalid}
        name: invalid
      - accept: {proto: [tcp, udp], port: 80}
        name: web
  egress: {default: accept}
";

/// A policy of these chains, on `eth0` and `eth1`.
pub fn policy(chains: &str) -> Policy {
    let text = format!("ringfence: 1\nsets: {{jail: {{dynamic: true}}}}\nnetwork:\n  interfaces: [\"eth*\"]{chains}");
    let source = SourceText { name: "test.yaml".to_owned(), text, base: "/".into() };
    load_texts(vec![source]).unwrap().policy
}

/// A host with `eth0` (2), `eth1` (3), and `docker0` (4).
pub fn network() -> Network {
    let link = |index: u32, name: &str| Link {
        index,
        name: name.to_owned(),
        framing: Framing::Ethernet,
        loopback: index == 1,
        master: None,
        hardware: index > 1,
        only_when_named: false,
        veth: false,
        address: [0; 6],
    };
    let links = [link(1, "lo"), link(2, "eth0"), link(3, "eth1")];
    Network {
        links: links.into_iter().map(|link| (link.index, link)).collect(),
        local: [("127.0.0.1", 1), (SERVER, 2), ("2001:db8::1", 2)].map(|(a, i)| (a.parse().unwrap(), i)).into(),
        ..Network::default()
    }
}

/// Entries and sets: those of a policy without.
#[derive(Default)]
pub struct Nothing {
    denied: Option<[u64; 2]>,
    jailed: Option<[u64; 2]>,
}

impl Dynamics for Nothing {
    fn entry(&self, fields: &Fields, egress: bool) -> Option<Entry> {
        let denied = !egress && self.denied == Some(fields.src);
        denied.then_some(Entry { id: 7, verdict: ringfence_abi::verdict::DROP.into() })
    }

    fn holds(&self, set: SetId, address: [u64; 2], _: u32) -> bool {
        set == SetId(0) && self.jailed == Some(address)
    }
}

/// A connection whose first packet went from `from` to `to`, and that was answered.
pub fn connection(proto: u8, from: (&str, u16), to: (&str, u16), outbound: bool) -> (Key, Connection) {
    let (src, dst): (IpAddr, IpAddr) = (from.0.parse().unwrap(), to.0.parse().unwrap());
    let family = if src.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
    // Of a query: the identifier, and the type of requests; this is the request.
    let (sport, dport) = (u32::from(from.1), u32::from(to.1));
    let ends = Endpoints { src: keys::words(src), dst: keys::words(dst), sport, dport, proto: proto.into(), family };
    let mut key = Key::default();
    let from_low = key_of(&ends, &mut key);
    let flags = FLAG_REPLIED | if from_low { FLAG_FROM_LOW } else { 0 } | if outbound { FLAG_OUTBOUND } else { 0 };
    let first = match proto {
        TCP => PROTO_TCP + 2,
        ICMP => PROTO_ICMP + (dport << 8),
        other => other.into(),
    };
    let connection = Connection {
        expires: u64::MAX,
        proto: first,
        length: 60,
        ip: (family << IP_FAMILY_SHIFT) as u16,
        vlan: 4096,
        flags,
        ifindex: 2,
        state: TCP_ESTABLISHED,
        ..Connection::default()
    };
    (key, connection)
}

/// [`USUAL`] with a rule before all others.
fn before_answers(rule: &str) -> String {
    USUAL.replacen("    rules:", &format!("    rules:\n      - {rule}"), 1)
}

fn incoming(port: u16) -> (Key, Connection) {
    connection(TCP, (CLIENT, 4000), (SERVER, port), false)
}

fn outgoing(port: u16) -> (Key, Connection) {
    connection(TCP, (SERVER, 4000), (CLIENT, port), true)
}

/// What becomes of a connection: `goes on`, or who refuses it and until when.
fn fate_with(chains: &str, (key, connection): (Key, Connection), dynamics: &Nothing) -> String {
    let policy = policy(chains);
    let compiled = compile(&policy).unwrap();
    let network = network();
    let judge = Judge::new(&compiled, &Demand::of(policy.interfaces.clone(), &compiled), &network);
    let by = |refusal: Refusal| {
        let line = &compiled.lines[refusal.line as usize];
        let entry = if refusal.entry == 0 { String::new() } else { format!("/{}", refusal.entry) };
        format!("{} {}{entry}", line.chain, line.name)
    };
    match judge.fate(&key, &connection, dynamics) {
        Fate::GoesOn => "goes on".to_owned(),
        Fate::Waits(refusal, true) => format!("{} until from", by(refusal)),
        Fate::Waits(refusal, false) => format!("{} until to", by(refusal)),
        Fate::Cut(refusal) => by(refusal),
    }
}

fn fate(chains: &str, connection: (Key, Connection)) -> String {
    fate_with(chains, connection, &Nothing::default())
}

#[test]
fn the_first_packet_is_judged_once_more() {
    assert_eq!(fate(USUAL, incoming(80)), "goes on");
    // Everything may leave: what this host sends is taken for the beginning of a connection, whose answers come in.
    assert_eq!(fate(USUAL, incoming(81)), "ingress default until to");
    assert_eq!(fate(USUAL, outgoing(81)), "goes on");
    let v6 = |port| connection(UDP, ("2001:db8::2", 4000), ("2001:db8::1", port), false);
    assert_eq!(fate(USUAL, v6(80)), "goes on");
    assert_eq!(fate(USUAL, v6(81)), "ingress default until to");
}

#[test]
fn where_only_answers_leave_it_is_cut_for_good() {
    let strict =
        USUAL.replace("egress: {default: accept}", "egress: {default: drop, rules: [accept: {state: established}]}");
    assert_eq!(fate(&strict, incoming(80)), "goes on");
    assert_eq!(fate(&strict, incoming(81)), "ingress default");
    assert_eq!(fate(&strict, outgoing(81)), "egress default");
}

#[test]
fn what_comes_later_is_judged_too() {
    // The first packet would pass, its answers do not.
    let deaf = before_answers("drop: {state: established, proto: tcp, source_port: 81}\n        name: deaf");
    assert_eq!(fate(&deaf, outgoing(81)), "ingress deaf");
    assert_eq!(fate(&deaf, incoming(80)), "goes on");
    // The first packet would not pass, all others do.
    let closing = USUAL.replace(
        "      - accept: {proto: [tcp, udp]",
        "      - reject: {proto: tcp, port: 80, flags: \"syn,!ack\"}\n        name: no-more\n      - accept: {proto: [tcp, udp]",
    );
    assert_eq!(fate(&closing, incoming(80)), "goes on");
    let quiet =
        closing.replace("egress: {default: accept}", "egress: {default: drop, rules: [accept: {state: established}]}");
    assert_eq!(fate(&quiet, incoming(80)), "ingress no-more until from");
}

#[test]
fn of_a_datagram_nobody_need_wait_for_an_answer() {
    let lonely = |(key, connection): (Key, Connection)| {
        (key, Connection { flags: connection.flags & !FLAG_REPLIED, ..connection })
    };
    let deaf = before_answers("drop: {state: established, proto: [tcp, udp], source_port: 81}\n        name: deaf");
    let sent = connection(UDP, (SERVER, 4000), (CLIENT, 81), true);
    assert_eq!((fate(&deaf, sent), fate(&deaf, lonely(sent))), ("ingress deaf".to_owned(), "goes on".to_owned()));
    // A handshake is nothing without one.
    assert_eq!(fate(&deaf, lonely(outgoing(81))), "ingress deaf");
    assert_eq!(fate(USUAL, lonely(incoming(80))), "goes on");
    let mute = USUAL.replace("egress: {default: accept}", "egress: {default: drop, stateless: true}");
    assert_eq!(fate(&mute, lonely(connection(UDP, (CLIENT, 4000), (SERVER, 80), false))), "goes on");
    assert_eq!(fate(&mute, lonely(connection(UDP, (CLIENT, 4000), (SERVER, 81), false))), "ingress default");
}

#[test]
fn without_states_each_packet_is_judged_by_itself() {
    let stateless = "
  ingress:
    default: drop
    stateless: true
    rules:
      - accept: {proto: tcp, port: 80}
";
    assert_eq!(fate(stateless, incoming(80)), "goes on");
    assert_eq!(fate(stateless, incoming(81)), "ingress default");
    assert_eq!(fate(stateless, outgoing(81)), "ingress default");
}

#[test]
fn entries_and_sets_decide_as_well() {
    let client: IpAddr = CLIENT.parse().unwrap();
    let denied = Nothing { denied: Some(keys::words(client)), ..Nothing::default() };
    assert_eq!(fate_with(USUAL, incoming(80), &denied), "ingress dynamic/7");
    let jail = before_answers("drop: {from: $jail}\n        name: jailed");
    let jailed = Nothing { jailed: Some(keys::words(client)), ..Nothing::default() };
    assert_eq!(fate_with(&jail, incoming(80), &jailed), "ingress jailed");
    assert_eq!(fate_with(&jail, incoming(80), &Nothing::default()), "goes on");
}

#[test]
fn queries_are_answered_by_answers() {
    let ping = connection(ICMP, (SERVER, 9), (CLIENT, 8), true);
    assert_eq!(ping.0.high_port & 0xff, 8);
    assert_eq!(ping.0.high_port & QUERY_REPLY as u16, QUERY_REPLY as u16);
    assert_eq!(fate(USUAL, ping), "goes on");
    let only_answers = "
  ingress: {default: drop, stateless: true, rules: [accept: {icmp: echo-reply}]}
  egress: {default: drop, stateless: true, rules: [accept: {icmp: echo-request}]}
";
    assert_eq!(fate(only_answers, ping), "goes on");
    assert_eq!(fate(only_answers, connection(ICMP, (CLIENT, 9), (SERVER, 8), false)), "ingress default");
    // An answer that comes in begins nothing.
    let no_ping =
        USUAL.replace("egress: {default: accept}", "egress: {default: accept, rules: [drop: {icmp: echo-request}]}");
    assert!(fate(&no_ping, ping).starts_with("egress "), "{}", fate(&no_ping, ping));
}

#[test]
fn nothing_is_cut_where_nothing_is_enforced() {
    let text = format!("ringfence: 1\nmode: audit\nnetwork:\n  interfaces: [eth0]{USUAL}");
    let source = SourceText { name: "test.yaml".to_owned(), text, base: "/".into() };
    let policy = load_texts(vec![source]).unwrap().policy;
    let compiled = compile(&policy).unwrap();
    let network = network();
    let judge = Judge::new(&compiled, &Demand::of(policy.interfaces.clone(), &compiled), &network);
    let (key, one) = incoming(81);
    assert_eq!(judge.fate(&key, &one, &Nothing::default()), Fate::GoesOn);
    // An interface that the policy does not cover, and one that is gone.
    let at = |ifindex: u32| fate(USUAL, (key, Connection { ifindex, ..one }));
    assert_eq!((at(1), at(9)), ("goes on".to_owned(), "ingress default until to".to_owned()));
}

#[test]
fn what_is_forwarded_meets_both_chains() {
    let through = |port| connection(TCP, (CLIENT, 4000), ("203.0.113.5", port), false);
    let router = "
  ingress: {default: drop, rules: [accept: {state: established}, accept: {proto: tcp, interface: eth0}]}
  egress: {default: drop, rules: [accept: {state: established}, accept: {proto: tcp, port: 80, interface: eth1}]}
";
    assert_eq!(fate(router, through(80)), "goes on");
    // Its first packet is judged once more on its own chain only, and what comes later is established.
    assert_eq!(fate(router, through(81)), "goes on");
    let closed = router.replace("accept: {proto: tcp, interface: eth0}", "accept: {proto: udp}");
    assert_eq!(fate(&closed, through(80)), "ingress default");
    // Its answers come in by an interface that nobody knows: all must refuse them.
    let refusing = |what: &str| {
        let rule = format!(
            "rules: [drop: {{state: established, source_port: 80, proto: tcp{what}}}, accept: {{state: established}}, accept: {{proto: tcp,"
        );
        router.replace(
            "rules: [accept: {state: established}, accept: {proto: tcp, interface",
            &format!("{rule} interface"),
        )
    };
    assert_eq!(fate(&refusing(", interface: eth0"), through(80)), "goes on");
    assert_eq!(fate(&refusing(""), through(80)), "ingress test.yaml:ingress[0]");
}
