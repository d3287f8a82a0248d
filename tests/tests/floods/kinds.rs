//! What the flood is made of, and which lines of the policy may count each kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ringfence_tests::netns::{Frame, SERVER, Transport};

/// Frames of one kind. No other kind, and nobody else, is counted by its lines.
pub struct Kind {
    pub name: &'static str,
    /// Lines that let it pass.
    pub accepts: &'static [&'static str],
    /// Lines that refuse it for what it is.
    pub drops: &'static [&'static str],
    /// Lines that refuse it for being too many.
    pub limits: &'static [&'static str],
    /// Its frames of one round, which come one after the other.
    pub frames: Vec<Shape>,
}

/// A frame that is another one in each round.
pub struct Shape {
    pub bytes: Vec<u8>,
    changes: Vec<Change>,
}

/// A word that takes a new value, and the checksums that cover it.
struct Change {
    at: usize,
    value: fn(u32) -> u16,
    sums: Vec<usize>,
}

/// The policy. `visitors` are those whom the flood must not disturb.
pub const POLICY: &str = "ringfence: 1
network:
  interfaces: [eth0]
  connections: {capacity: 16384}
  ingress:
    default: drop
    rules:
      - accept: {state: [established, related]}
        name: established
      - accept: {proto: udp, port: 53, fragment: true}
        name: fragments
      - drop: {fragment: true}
        name: fragment-rest
      - drop: {state: invalid}
        name: invalid
      - accept: {proto: tcp, port: 80, from: [192.0.2.0/24, 2001:db8::/64]}
        name: visitors
      - accept: {proto: tcp, port: 80, flags: syn}
        name: syn
        limit: {rate: 2000/s, burst: 200}
      - drop: {proto: tcp, port: 80}
        name: syn-over
      - drop: {icmp: echo-request}
        name: ping-over
        limit: {over: 100/s, burst: 20, per: source/64}
      - accept: {icmp: echo-request}
        name: ping
      - accept: {proto: udp, port: 53}
        name: dns
      - drop: {proto: udp}
        name: closed
  egress:
    default: accept
";
/// What `ping-over` lets pass of each sender: a second, and at once.
pub const PING: (u64, u64) = (100, 20);
/// Senders of echo requests in each family.
pub const PINGERS: u8 = 4;
/// What `syn` lets pass: a second, and at once.
pub const SYN: (u64, u64) = (2000, 200);

/// The last two bytes of the link-layer source of the kind with this index.
pub fn tag(kind: usize) -> [u8; 2] {
    [0xf1, kind as u8]
}

const LINK: usize = 14;
const V4: usize = LINK + 20;
const V6: usize = LINK + 40;

/// All kinds, addressed to the server's link-layer address.
pub fn all(to: [u8; 6]) -> Result<Vec<Kind>> {
    let kind = |name, accepts, drops, limits| Kind { name, accepts, drops, limits, frames: Vec::new() };
    let mut kinds = vec![
        kind("random sources, open port", &["dns"], &[], &[]),
        kind("random sources, closed ports", &[], &["closed"], &[]),
        kind("SYN", &["syn"], &[], &["syn-over"]),
        kind("fragments", &["fragments"], &["fragment-rest", "fragment/overlap"], &[]),
        kind(
            "malformed",
            &[],
            &[
                "malformed/truncated-link",
                "malformed/vlan-depth",
                "malformed/truncated-network",
                "malformed/bad-network",
                "malformed/truncated-transport",
            ],
            &[],
        ),
        kind("ICMP", &["ping"], &[], &["ping-over"]),
    ];
    for v6 in [false, true] {
        let shapes = [open(v6)?, closed(v6)?, syn(v6)?, fragments(v6)?, malformed(v6)?, icmp(v6)?];
        for (index, (kind, shapes)) in kinds.iter_mut().zip(shapes).enumerate() {
            for mut shape in shapes {
                shape.bytes[..6].copy_from_slice(&to);
                shape.bytes[6..10].copy_from_slice(&[2, 0, 0, 0]);
                shape.bytes[10..12].copy_from_slice(&tag(index));
                kind.frames.push(shape);
            }
        }
    }
    Ok(kinds)
}

fn server(v6: bool) -> IpAddr {
    if v6 { SERVER.1.into() } else { SERVER.0.into() }
}

/// An address of a network that is nobody's here: answers to it go nowhere.
fn nobody(v6: bool, last: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0xf, last.into(), 0, 0, 0, 1).into()
    } else {
        Ipv4Addr::new(10, 0, 0, last).into()
    }
}

fn frame(v6: bool, transport: Transport) -> Frame {
    Frame::new(nobody(v6, 1), server(v6), transport)
}

/// The frame with the source of the round. `sum`: where the checksum over its addresses is.
fn shape(frame: &Frame, sum: Option<usize>) -> Result<Shape> {
    let v6 = frame.from.is_ipv6();
    let sums: Vec<usize> = (!v6).then_some(LINK + 10).into_iter().chain(sum).collect();
    let high: fn(u32) -> u16 =
        if v6 { |round| (round >> 16) as u16 } else { |round| 0x0a00 | (round >> 16) as u16 & 0xff };
    let source = if v6 { LINK + 20 } else { LINK + 12 };
    let changes = vec![
        Change { at: source, value: high, sums: sums.clone() },
        Change { at: source + 2, value: |round| round as u16, sums },
    ];
    Ok(Shape { bytes: frame.bytes([0; 6], [0; 6])?, changes })
}

fn upper(v6: bool) -> usize {
    if v6 { V6 } else { V4 }
}

fn udp(v6: bool, port: u16) -> Frame {
    frame(v6, Transport::Udp { source: 5000, destination: port })
}

fn open(v6: bool) -> Result<Vec<Shape>> {
    Ok(vec![shape(&udp(v6, 53), Some(upper(v6) + 6))?])
}

fn closed(v6: bool) -> Result<Vec<Shape>> {
    let mut shape = shape(&udp(v6, 54), Some(upper(v6) + 6))?;
    shape.changes.push(Change {
        at: upper(v6) + 2,
        value: |round| 54 + round as u16 % 60_000,
        sums: vec![upper(v6) + 6],
    });
    Ok(vec![shape])
}

fn syn(v6: bool) -> Result<Vec<Shape>> {
    let mut segment = frame(v6, Transport::Tcp { source: 5000, destination: 80, flags: 2 });
    segment.payload.clear();
    let mut shape = shape(&segment, Some(upper(v6) + 16))?;
    shape.changes.push(Change { at: upper(v6), value: |round| round as u16 | 1024, sums: vec![upper(v6) + 16] });
    Ok(vec![shape])
}

/// A packet whose later fragment follows its first one, another fragment that begins inside it, one whose first one never came,
/// and one to a closed port.
fn fragments(v6: bool) -> Result<Vec<Shape>> {
    // 8 bytes of header and 24 of payload: the next one begins at 32, in units of eight bytes 4.
    let part = |port, offset| Frame { fragment: Some(offset), payload: vec![0x52; 24], ..udp(v6, port) };
    let parts = [(part(53, 0), 0), (part(53, 4), 0), (part(53, 1), 0), (part(53, 9), 1), (part(54, 0), 2)];
    let made = parts.iter().map(|(part, packet)| {
        // A first fragment alone is never complete: nobody looks at its checksum.
        let mut shape = shape(part, None)?;
        // The packet's number, different ones for the different packets of a round.
        let (at, sums) = if v6 { (V6 + 6, vec![]) } else { (LINK + 4, vec![LINK + 10]) };
        let value: fn(u32) -> u16 =
            [|round| (round as u16) << 2, |round| (round as u16) << 2 | 1, |round| (round as u16) << 2 | 2][*packet];
        shape.changes.push(Change { at, value, sums });
        Ok(shape)
    });
    made.collect()
}

fn malformed(v6: bool) -> Result<Vec<Shape>> {
    let whole = |frame: &Frame| frame.bytes([0; 6], [0; 6]);
    let good = whole(&udp(v6, 53))?;
    let mut tag = good[..16].to_vec();
    tag[12..14].copy_from_slice(&[0x81, 0]);
    let deep = whole(&Frame { vlans: vec![1, 2, 3], ..udp(v6, 53) })?;
    let cut = good[..upper(v6) - 10].to_vec();
    let mut version = good.clone();
    version[LINK] ^= 0x70;
    let mut long = good.clone();
    // The total length, or that of the payload.
    long[if v6 { LINK + 4 } else { LINK + 2 }] = 0x20;
    // Four bytes of a TCP header.
    let mut short = frame(v6, Transport::Other(6));
    short.payload.truncate(4);
    let all = [tag, deep, cut, version, long, whole(&short)?];
    Ok(all.into_iter().map(|bytes| Shape { bytes, changes: Vec::new() }).collect())
}

fn icmp(v6: bool) -> Result<Vec<Shape>> {
    let kind = if v6 { 128 } else { 8 };
    let ping = |last| Frame::new(nobody(v6, last), server(v6), Transport::Icmp { kind, code: 0 });
    let shapes = (1..=PINGERS).map(|last| Ok(Shape { bytes: ping(last).bytes([0; 6], [0; 6])?, changes: Vec::new() }));
    shapes.collect()
}

impl Shape {
    /// Becomes the frame of a round.
    pub fn turn(&mut self, round: u32) {
        for change in &self.changes {
            let new = (change.value)(round);
            let old = word(&self.bytes, change.at);
            put(&mut self.bytes, change.at, new);
            for &sum in &change.sums {
                let all = u32::from(!word(&self.bytes, sum)) + u32::from(!old) + u32::from(new);
                let folded = (all & 0xffff) + (all >> 16);
                put(&mut self.bytes, sum, !((folded & 0xffff) + (folded >> 16)) as u16);
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}
