//! Policies and packets that are measured. Deterministic: the same run anywhere measures the same bytes.

use std::{fmt::Write as _, net::Ipv4Addr};

/// A policy of `rules` different rules over source prefix, destination port and protocol, as YAML.
///
/// One rule in ten is wide (a /8 to a /15), so that classes own more than one rule and the search meets words that only
/// seem to match.
pub fn rules(rules: u32) -> String {
    let mut text = String::from(
        "ringfence: 1\nnetwork:\n  interfaces: [lo]\n  ingress:\n    default: drop\n    stateless: true\n    rules:\n",
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

/// A policy of one rule over a file of prefixes.
pub fn big_set(file: &std::path::Path) -> String {
    format!(
        "ringfence: 1\nsets:\n  feed: {{file: {}}}\nnetwork:\n  interfaces: [lo]\n  ingress:\n    default: accept\n    \
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
    frame[34..36].copy_from_slice(&40_000_u16.to_be_bytes());
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
