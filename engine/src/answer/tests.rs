use std::vec::Vec;

use ringfence_abi::chain::VLAN_ABSENT;

use super::*;
use crate::{
    deep::Deep,
    parse::{Link, parse},
    slice::SliceFrame,
};

const V4: ([u8; 4], [u8; 4]) = ([192, 0, 2, 2], [192, 0, 2, 1]);

fn v4_packet(source: [u8; 4], destination: [u8; 4], fragment: u16, protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x45, 0, 0, 20 + body.len() as u8, 0, 7];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(body);
    packet
}

fn v6_packet(source: [u8; 16], destination: [u8; 16], protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x60, 0, 0, 0, 0, body.len() as u8, protocol, 64];
    packet.extend(source);
    packet.extend(destination);
    packet.extend(body);
    packet
}

fn v6(last: u8) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[1], address[15]) = (0x20, 0x01, last);
    address
}

fn fields(packet: &[u8]) -> Fields {
    let mut fields = Fields::default();
    let frame = SliceFrame { bytes: packet, segment: 0 };
    parse(&frame, Link { l3: true, tag: VLAN_ABSENT, deep: false }, &mut fields, &mut Deep::default()).unwrap();
    fields
}

fn tcp(flags: u8) -> [u8; 20] {
    let mut header = [0; 20];
    (header[1], header[3], header[12], header[13]) = (40, 80, 0x50, flags);
    header
}

fn icmp(kind: u8) -> [u8; 8] {
    [kind, 0, 0, 0, 0, 0, 0, 0]
}

const UDP: [u8; 8] = [0, 1, 0, 2, 0, 8, 0, 0];

fn kind_v4(fragment: u16, protocol: u8, body: &[u8]) -> Option<Kind> {
    kind(&fields(&v4_packet(V4.0, V4.1, fragment, protocol, body)))
}

fn kind_v6(protocol: u8, body: &[u8]) -> Option<Kind> {
    kind(&fields(&v6_packet(v6(2), v6(1), protocol, body)))
}

#[test]
fn tcp_is_reset_and_the_rest_is_told_by_icmp() {
    for flags in [0, SYN, ACK, SYN | ACK, FIN | ACK, 0xfb] {
        let expected = (flags & RST == 0).then_some(Kind::Reset);
        assert_eq!((kind_v4(0, 6, &tcp(flags)), kind_v6(6, &tcp(flags))), (expected, expected), "{flags}");
    }
    for protocol in [17, 47, 253] {
        assert_eq!(kind_v4(0, protocol, &UDP), Some(Kind::Prohibited), "{protocol}");
        assert_eq!(kind_v6(protocol, &UDP), Some(Kind::Prohibited), "{protocol}");
    }
}

#[test]
fn a_reset_is_never_answered() {
    assert_eq!(kind_v4(0, 6, &tcp(RST)), None);
    assert_eq!(kind_v4(0, 6, &tcp(RST | ACK)), None);
    assert_eq!(kind_v6(6, &tcp(RST | SYN)), None);
}

#[test]
fn only_icmp_that_is_known_to_be_no_error_is_answered() {
    let answered = |kind: u8| (kind_v4(0, 1, &icmp(kind)).is_some(), kind_v6(58, &icmp(kind)).is_some());
    assert!(answered(8).0);
    for error in [3, 4, 5, 11, 12, 40, 255] {
        assert!(!answered(error).0, "{error}");
    }
    for error in 0..128 {
        assert!(!answered(error).1, "{error}");
    }
    assert!(answered(128).1 && answered(129).1 && !answered(137).1);
}

#[test]
fn fragments_are_answered_only_where_they_begin_and_never_by_a_reset() {
    const MORE: u16 = 0x2000;
    for (fragment, protocol, body, expected) in [
        (MORE, 17, &UDP[..], Some(Kind::Prohibited)),
        (MORE | 1, 17, &UDP, None),
        (1, 17, &UDP, None),
        (MORE, 1, &icmp(8), Some(Kind::Prohibited)),
        (MORE | 1, 1, &icmp(8), None),
        (MORE, 6, &tcp(ACK), None),
        (MORE | 1, 6, &tcp(ACK), None),
        // Nothing tells the first fragment from the others here.
        (MORE, 47, &UDP, None),
        (MORE | 1, 47, &UDP, None),
    ] {
        assert_eq!(kind_v4(fragment, protocol, body), expected, "{fragment:x} {protocol}");
    }
    let fragment = |offset: u16| {
        let mut body = std::vec![17, 0];
        body.extend((offset << 3 | 1).to_be_bytes());
        body.extend([0, 0, 0, 9]);
        body.extend(UDP);
        kind_v6(44, &body)
    };
    assert_eq!((fragment(0), fragment(1)), (Some(Kind::Prohibited), None));
}

#[test]
fn headers_that_cannot_be_followed_are_not_answered() {
    let mut body = Vec::new();
    for _ in 0..9 {
        body.extend([60, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(kind_v6(60, &body), None);
}

#[test]
fn only_hosts_are_answered_and_for_hosts_only() {
    for address in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4], V4.1] {
        assert_eq!(kind(&fields(&v4_packet(address, V4.1, 0, 17, &UDP))), None, "from {address:?}");
    }
    for address in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 251], [239, 255, 255, 250], [255; 4]] {
        assert_eq!(kind(&fields(&v4_packet(V4.0, address, 0, 17, &UDP))), None, "to {address:?}");
    }
    let mut loopback = [0; 16];
    loopback[15] = 1;
    let mut multicast = v6(1);
    (multicast[0], multicast[1]) = (0xff, 2);
    for address in [[0; 16], loopback, multicast] {
        assert_eq!(kind(&fields(&v6_packet(address, v6(1), 17, &UDP))), None, "from {address:?}");
        assert_eq!(kind(&fields(&v6_packet(v6(2), address, 17, &UDP))), None, "to {address:?}");
    }
}

#[test]
fn a_reset_acknowledges_what_it_answers() {
    let segment = |flags, payload| Segment { seq: u32::MAX, ack: 77, flags, payload };
    for (answered, seq, ack, flags) in [
        (segment(SYN, 0), 0, 0, RST | ACK),
        (segment(SYN, 4), 0, 4, RST | ACK),
        (segment(SYN | FIN, 4), 0, 5, RST | ACK),
        (segment(0, 10), 0, 9, RST | ACK),
        (segment(FIN, 0), 0, 0, RST | ACK),
        (segment(ACK, 10), 77, 0, RST),
        (segment(SYN | ACK, 0), 77, 0, RST),
        (segment(FIN | ACK, 1), 77, 0, RST),
    ] {
        assert_eq!(answered.reset(), Reset { seq, ack, flags }, "{answered:?}");
    }
}

/// The sum of a message's words, as any implementation of RFC 1071 has it.
fn sum(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(word).sum()
}

#[test]
fn checksums_are_right_in_both_families() {
    let mut noise = 1_u32;
    let mut byte = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    for round in 0..1000_usize {
        let body: Vec<u8> = (0..8 + round % 40).map(|_| byte()).collect();
        let (a, b) = ([10, byte(), byte(), byte()], [11, byte(), byte(), byte()]);
        let packet = v4_packet(a, b, 0, 253, &body);
        let way = Way::back(&fields(&packet));
        let (mut ip, mut head) = ([0xee; 20], [0xee; 8]);
        way.ipv4(Kind::Prohibited, 28 + packet.len() as u32, &mut ip);
        assert_eq!(fold(sum(&ip)), 0xffff, "round {round}");
        assert_eq!((&ip[12..16], &ip[16..20]), (&b[..], &a[..]));
        Way::icmp(sum(&packet), &mut head);
        assert_eq!(fold(sum(&head) + sum(&packet)), 0xffff, "round {round}");
        assert_eq!(head[..2], [3, 13]);

        let (mut a, mut b) = (v6(2), v6(1));
        (a[7], a[9], b[8]) = (byte(), byte(), byte());
        let packet = v6_packet(a, b, 253, &body);
        let way = Way::back(&fields(&packet));
        let mut ip = [0xee; 40];
        way.ipv6(Kind::Prohibited, 48 + packet.len() as u32, &mut ip);
        assert_eq!((&ip[8..24], &ip[24..40]), (&b[..], &a[..]));
        assert_eq!(ip[4..8], [0, 8 + packet.len() as u8, 58, 64]);
        way.icmpv6(sum(&packet), packet.len() as u32, &mut head);
        let pseudo = sum(&a) + sum(&b) + 58 + 8 + packet.len() as u64;
        assert_eq!(fold(pseudo + sum(&head) + sum(&packet)), 0xffff, "round {round}");

        let seq = u32::from_be_bytes([byte(), byte(), byte(), byte()]);
        let reset = Segment { seq, ack: !seq, flags: round as u8, payload: 3 }.reset();
        let mut header = [0xee; 20];
        way.tcp(65_535, round as u32, reset, &mut header);
        assert_eq!(fold(sum(&a) + sum(&b) + 6 + 20 + sum(&header)), 0xffff, "round {round}");
    }
}

#[test]
fn a_cpu_answers_a_burst_and_then_at_its_rate() {
    let mut spent_until = 0;
    let burst = |spent_until: &mut u64, now| (0..1000).filter(|_| take(spent_until, now)).count() as u64;
    assert_eq!(burst(&mut spent_until, 5_000_000_000), BURST);
    assert_eq!(burst(&mut spent_until, 5_000_000_000), 0);
    // Half a second later half of a second's answers would be there, were the burst not the most.
    assert_eq!(burst(&mut spent_until, 5_500_000_000), BURST);
    let mut slowly = 0;
    for millisecond in 0..1000 {
        slowly += burst(&mut spent_until, 6_000_000_000 + millisecond * 1_000_000);
    }
    assert_eq!(slowly, BURST + PER_SECOND - 1);
}

#[test]
fn an_answer_is_known_again() {
    let packet = v4_packet(V4.0, V4.1, 0, 17, &UDP);
    let rejected = fields(&packet);
    let mut answer = v4_packet(V4.1, V4.0, 0, 1, &[3, 13, 0, 0, 0, 0, 0, 0]);
    answer[3] += packet.len() as u8;
    answer.extend(&packet);
    let met = fields(&answer);
    assert!(may_be(&met) && !may_be(&rejected));
    assert_eq!([met.proto, met.sport, met.dport], looks(&rejected, Kind::Prohibited, 0));
    let rejected = fields(&v6_packet(v6(2), v6(1), 6, &tcp(SYN)));
    let mut header = tcp(RST | ACK);
    (header[1], header[3]) = (80, 40);
    let met = fields(&v6_packet(v6(1), v6(2), 6, &header));
    assert!(may_be(&met));
    assert_eq!([met.proto, met.sport, met.dport], looks(&rejected, Kind::Reset, RST | ACK));
    assert_eq!(Way::back(&rejected), Way { from: met.src, to: met.dst });
    for (kind, flags) in [(Kind::Reset, RST), (Kind::Reset, RST | ACK), (Kind::Cookie, SYN | ACK)] {
        let [proto, sport, dport] = looks(&rejected, kind, flags);
        assert!(may_be(&Fields { proto, sport, dport, ..met }), "{kind:?} {flags}");
    }
}

#[test]
fn a_handshake_is_answered_with_the_cookie_and_one_option() {
    for round in 0..500_u32 {
        let rejected = fields(&v6_packet(v6(2), v6(round as u8), 6, &tcp(SYN)));
        let mut header = [0xee; 24];
        let (cookie, ack) = (round.wrapping_mul(0x9e37_79b9), !round.wrapping_mul(0x85eb_ca6b));
        Way::back(&rejected).syn_ack([80, 65_535 - round], cookie, ack, 1460 - round, &mut header);
        let pseudo = sum(&v6(2)) + sum(&v6(round as u8)) + 6 + 24;
        assert_eq!(fold(pseudo + sum(&header)), 0xffff, "round {round}");
        assert_eq!((&header[4..8], &header[8..12]), (&cookie.to_be_bytes()[..], &ack.to_be_bytes()[..]));
        assert_eq!(header[12..14], [0x60, SYN | ACK]);
        assert_eq!((&header[20..22], &header[22..]), (&[2, 4][..], &(1460 - round as u16).to_be_bytes()[..]));
    }
}
