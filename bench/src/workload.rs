//! Policies and packets that are measured. Deterministic: the same run anywhere measures the same bytes.

use std::{fmt::Write as _, net::Ipv4Addr};

use ringfence_abi::{
    chain::{IP_FAMILY_SHIFT, VLAN_ABSENT},
    connection::{Connection, FLAG_FROM_LOW, FLAG_OUTBOUND, FLAG_REPLIED, Key, UDP_REPLIED},
};
use ringfence_engine::{deep::Endpoints, fields::FAMILY_V4, track::key_of};

const UDP: u32 = 17;
/// The port that packets come from.
const PEER: u16 = 40_000;

/// A policy of `rules` different rules over source prefix, destination port and protocol, as YAML.
///
/// One rule in ten is wide (a /8 to a /15), so that classes own more than one rule and the search meets words that only
/// seem to match.
pub fn rules(rules: u32) -> String {
    let mut text = String::from(
        "ringfence: 1\nnetwork:\n  interfaces: [lo]\n  floor: {loopback: false}\n  ingress:\n    default: drop\n    stateless: true\n    rules:\n",
    );
    let mut random = Random(1);
    for rule in 0..rules {
        let length = if rule % 10 == 0 { 8 + random.below(8) } else { 20 + random.below(13) };
        let network = random.next() as u32 & (u32::MAX << (32 - length));
        let port = random.below(60_000);
        let proto = if random.below(2) == 0 { "tcp" } else { "udp" };
        let (low, high) = (port, port + random.below(200));
        let verb = if random.below(2) == 0 { "accept" } else { "drop" };
        let _ = writeln!(
            text,
            "      - {verb}: {{proto: {proto}, from: {}/{length}, port: {low}-{high}}}",
            Ipv4Addr::from(network)
        );
    }
    text
}

/// The same below a rule that accepts what belongs to a connection.
pub fn stateful(rules: u32) -> String {
    let first = "    rules:\n      - accept: {state: [established, related]}\n";
    self::rules(rules).replace("    stateless: true\n", "").replacen("    rules:\n", first, 1)
}

/// A connection that this host began from `port`, to which packets as [`udp`] makes them are answers.
pub fn connection(peer: Ipv4Addr, port: u16) -> (Key, Connection) {
    let words = |address: Ipv4Addr| [u64::from(address.to_bits()) << 32, 0];
    let (src, dst) = (words(Ipv4Addr::new(192, 0, 2, 1)), words(peer));
    let ends = Endpoints { src, dst, sport: port.into(), dport: PEER.into(), proto: UDP, family: FAMILY_V4 };
    let mut key = Key::default();
    let from_low = key_of(&ends, &mut key);
    let connection = Connection {
        expires: u64::MAX / 2,
        proto: UDP,
        length: 46,
        ip: (FAMILY_V4 << IP_FAMILY_SHIFT) as u16,
        vlan: VLAN_ABSENT as u16,
        flags: FLAG_OUTBOUND | FLAG_REPLIED | if from_low { FLAG_FROM_LOW } else { 0 },
        state: UDP_REPLIED,
        ..Connection::default()
    };
    (key, connection)
}

/// A policy of one rule over a file of prefixes.
pub fn big_set(file: &std::path::Path) -> String {
    format!(
        "ringfence: 1\nsets:\n  feed: {{file: {}}}\nnetwork:\n  interfaces: [lo]\n  floor: {{loopback: false}}\n  ingress:\n    default: accept\n    \
         rules:\n      - drop: {{from: $feed}}\n",
        file.display()
    )
}

/// `count` different prefixes, one a line: mostly /24 to /32, as feeds have.
pub fn prefixes(count: u32) -> String {
    let mut text = String::new();
    let mut random = Random(2);
    for _ in 0..count {
        let length = 24 + random.below(9);
        let network = random.next() as u32 & (u32::MAX << (32 - length));
        let _ = writeln!(text, "{}/{length}", Ipv4Addr::from(network));
    }
    text
}

/// Sources of packets, spread over the address space.
pub fn sources(count: u32) -> Vec<Ipv4Addr> {
    let mut random = Random(3);
    (0..count).map(|_| Ipv4Addr::from(random.next() as u32)).collect()
}

/// A UDP packet to port `port` in an Ethernet frame of 60 bytes.
pub fn udp(source: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12] = 8;
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]);
    frame[26..30].copy_from_slice(&source.octets());
    frame[34..36].copy_from_slice(&PEER.to_be_bytes());
    frame[36..38].copy_from_slice(&port.to_be_bytes());
    frame[38..40].copy_from_slice(&26_u16.to_be_bytes());
    frame
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() >> 32) as u32 % bound
    }
}
