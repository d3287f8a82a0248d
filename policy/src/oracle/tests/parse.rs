//! A hand-written table of frames: one line for each rule of the packet parser.

use super::context;
use crate::oracle::{Context, Family, Field, Fields, Hook, Icmp, Malformed, parse};

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
const UDP: [u8; 8] = [0x03, 0xe8, 0, 53, 0, 8, 0, 0];
const TCP: [u8; 20] = [0, 80, 0xc0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x12, 1, 0, 0, 0, 0, 0];

fn ethernet(rest: &[&[u8]]) -> Vec<u8> {
    [&MACS[..], &rest.concat()].concat()
}

/// An IPv4 packet with a right total length; `fragment` is the field of flags and offset.
fn v4(proto: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = (20 + options.len() + payload.len()) as u16;
    let mut packet = vec![0x45 + (options.len() / 4) as u8, 0xb8];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, proto, 0, 0, 203, 0, 113, 5, 192, 0, 2, 1]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An IPv6 packet with a right payload length.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x6b, 0x80, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

fn raw(packet: &[u8]) -> Result<Fields, Malformed> {
    parse(packet, &Context { l3: true, ..context() })
}

fn linked(frame: &[u8]) -> Result<Fields, Malformed> {
    parse(frame, &context())
}

/// Protocol, ports, flags, ICMP.
type Transport = (Field<u8>, Field<u16>, Field<u16>, Field<u8>, Field<Icmp>);

fn transport(fields: &Fields) -> Transport {
    (fields.proto, fields.source_port, fields.port, fields.flags, fields.icmp)
}

fn without_details(proto: u8) -> Transport {
    (Field::Value(proto), Field::Absent, Field::Absent, Field::Absent, Field::Absent)
}

const UDP_READ: Transport = (Field::Value(17), Field::Value(1000), Field::Value(53), Field::Absent, Field::Absent);
const ALL_UNKNOWN: Transport = (Field::Unknown, Field::Unknown, Field::Unknown, Field::Unknown, Field::Unknown);

#[test]
fn ethernet_header_and_tags() {
    let ip = v4(17, 0, &[], &UDP);
    let plain = ethernet(&[&[8, 0], &ip]);
    assert_eq!(linked(&plain).unwrap().vlan, Field::Absent);
    for short in 0..14 {
        assert_eq!(linked(&plain[..short]), Err(Malformed::TruncatedLink), "{short} bytes");
    }
    for outer in [[0x81, 0], [0x88, 0xa8], [0x91, 0]] {
        let tagged = ethernet(&[&outer, &[0xe0, 7], &[8, 0], &ip]);
        let fields = linked(&tagged).unwrap();
        assert_eq!(fields.vlan, Field::Value(7), "priority bits are not part of the id");
        assert_eq!(transport(&fields), UDP_READ);
        let twice = ethernet(&[&outer, &[0, 7], &[0x81, 0], &[0, 8], &[8, 0], &ip]);
        assert_eq!(linked(&twice).unwrap().vlan, Field::Value(7), "the outermost counts");
        for short in 14..18 {
            assert_eq!(linked(&tagged[..short]), Err(Malformed::TruncatedLink), "{short} bytes");
        }
        for short in 18..22 {
            assert_eq!(linked(&twice[..short]), Err(Malformed::TruncatedLink), "{short} bytes");
        }
        let thrice = ethernet(&[&outer, &[0, 7], &[0x81, 0], &[0, 8], &[0x88, 0xa8], &[0, 9], &[8, 0], &ip]);
        assert_eq!(linked(&thrice), Err(Malformed::VlanDepth));
        assert_eq!(linked(&thrice[..22]), Err(Malformed::VlanDepth), "the third tag need not be there");
    }
}

#[test]
fn a_tag_held_in_the_skb_is_the_outermost_and_exists_at_tc_only() {
    let ip = v4(17, 0, &[], &UDP);
    let tagged = ethernet(&[&[0x81, 0], &[0, 7], &[8, 0], &ip]);
    let held = Context { tag: Some(0xf005), ..context() };
    assert_eq!(parse(&tagged, &held).unwrap().vlan, Field::Value(5));
    assert_eq!(parse(&ethernet(&[&[8, 0], &ip]), &held).unwrap().vlan, Field::Value(5));
    assert_eq!(parse(&ip, &Context { l3: true, ..held.clone() }).unwrap().vlan, Field::Value(5));
    let two_more = ethernet(&[&[0x81, 0], &[0, 7], &[0x81, 0], &[0, 8], &[8, 0], &ip]);
    assert_eq!(parse(&two_more, &held).unwrap().vlan, Field::Value(5), "two in the frame beside it are allowed");
    assert_eq!(parse(&tagged, &Context { hook: Hook::Xdp, ..held }).unwrap().vlan, Field::Value(7));
}

#[test]
fn the_mark_exists_at_tc_only() {
    let ip = v4(17, 0, &[], &UDP);
    let marked = Context { l3: true, mark: Some(3), ..context() };
    assert_eq!(parse(&ip, &marked).unwrap().mark, Field::Value(3));
    assert_eq!(parse(&ip, &Context { hook: Hook::Xdp, ..marked.clone() }).unwrap().mark, Field::Absent);
    assert_eq!(parse(&ip, &Context { mark: None, ..marked }).unwrap().mark, Field::Absent);
}

#[test]
fn a_device_without_ethernet_begins_at_the_ip_header() {
    assert_eq!(raw(&[]), Err(Malformed::TruncatedLink));
    assert_eq!(raw(&[0x55; 60]), Err(Malformed::BadNetwork));
    assert_eq!(raw(&[0x45]), Err(Malformed::TruncatedNetwork));
    assert_eq!(raw(&[0x60]), Err(Malformed::TruncatedNetwork));
    assert_eq!(raw(&v6(17, &UDP)).unwrap().family, Field::Value(Family::V6));
}

#[test]
fn what_is_not_ip_has_no_ip_fields() {
    for (ethertype, arp) in [([0x08, 0x06], true), ([0x88, 0xcc], false), ([0, 4], false)] {
        let fields = linked(&ethernet(&[&[0x81, 0], &[0, 7], &ethertype, &[0x45; 60]])).unwrap();
        assert_eq!(fields.arp, arp);
        assert_eq!((fields.vlan, fields.mark), (Field::Value(7), Field::Value(0)));
        assert_eq!((fields.family, fields.fragment), (Field::Absent, Field::Absent));
        assert_eq!((fields.from, fields.to), (Field::Absent, Field::Absent));
        assert_eq!((fields.dscp, fields.length, fields.hop_limit), (Field::Absent, Field::Absent, Field::Absent));
        assert_eq!(transport(&fields), (Field::Absent, Field::Absent, Field::Absent, Field::Absent, Field::Absent));
        assert!(!fields.any_unknown());
    }
}

#[test]
fn ipv4_fields() {
    let fields = raw(&v4(17, 0x4000, &[1; 8], &UDP)).unwrap();
    assert_eq!(fields.family, Field::Value(Family::V4));
    assert_eq!(fields.from, Field::Value("203.0.113.5".parse().unwrap()));
    assert_eq!(fields.to, Field::Value("192.0.2.1".parse().unwrap()));
    assert_eq!((fields.dscp, fields.length, fields.hop_limit), (Field::Value(46), Field::Value(36), Field::Value(64)));
    assert_eq!(fields.fragment, Field::Value(false), "the don't-fragment bit is no fragment");
    assert_eq!(transport(&fields), UDP_READ);
}

#[test]
fn ipv4_headers_that_are_short_or_lie() {
    let whole = v4(17, 0, &[1; 8], &UDP);
    for short in 1..28 {
        assert_eq!(raw(&whole[..short]), Err(Malformed::TruncatedNetwork), "{short} bytes");
    }
    for short in 28..36 {
        assert_eq!(raw(&whole[..short]), Err(Malformed::BadNetwork), "total length beyond {short} bytes");
    }
    let changed = |at: usize, to: u8| {
        let mut packet = whole.clone();
        packet[at] = to;
        packet
    };
    assert_eq!(raw(&changed(0, 0x44)), Err(Malformed::BadNetwork), "header of 16 bytes");
    assert_eq!(linked(&ethernet(&[&[8, 0], &changed(0, 0x65)])), Err(Malformed::BadNetwork), "version 6 as IPv4");
    assert_eq!(raw(&changed(3, 27)), Err(Malformed::BadNetwork), "total length inside the header");
    assert_eq!(raw(&changed(3, 0)), Err(Malformed::BadNetwork), "total length 0");
    assert_eq!(raw(&changed(3, 28)), Err(Malformed::TruncatedTransport), "no payload");
    assert_eq!(raw(&changed(0, 0x4f)), Err(Malformed::TruncatedNetwork), "60 bytes of header in 36");
}

#[test]
fn ethernet_padding_is_not_payload() {
    let padded = [v4(6, 0, &[], &TCP[..12]), vec![0x50; 40]].concat();
    assert_eq!(raw(&padded), Err(Malformed::TruncatedTransport));
    let padded = [v6(17, &UDP[..7]), vec![0; 40]].concat();
    assert_eq!(raw(&padded), Err(Malformed::TruncatedTransport));
    let padded = [v4(17, 0, &[], &UDP), vec![0; 40]].concat();
    assert_eq!(raw(&padded).unwrap().length, Field::Value(28));
}

#[test]
fn ipv4_fragments() {
    for (field, fragment) in [(0x8000, false), (0x4000, false), (0x2000, true), (0x0001, true), (0x3fff, true)] {
        assert_eq!(raw(&v4(17, field, &[], &UDP)).unwrap().fragment, Field::Value(fragment), "{field:04x}");
    }
    assert_eq!(transport(&raw(&v4(17, 0x2000, &[], &UDP)).unwrap()), UDP_READ, "the first has the ports");
    assert_eq!(raw(&v4(17, 0x2000, &[], &UDP[..7])), Err(Malformed::TruncatedTransport), "a tiny first fragment");
    let later = |proto| transport(&raw(&v4(proto, 1, &[], &[])).unwrap());
    let unknown_ports = |proto| (Field::Value(proto), Field::Unknown, Field::Unknown, Field::Absent, Field::Absent);
    for proto in [17, 33, 132, 136] {
        assert_eq!(later(proto), unknown_ports(proto));
    }
    assert_eq!(later(6), (Field::Value(6), Field::Unknown, Field::Unknown, Field::Unknown, Field::Absent));
    for proto in [1, 58] {
        assert_eq!(later(proto), (Field::Value(proto), Field::Absent, Field::Absent, Field::Absent, Field::Unknown));
    }
    assert_eq!(later(47), without_details(47));
    assert!(!raw(&v4(47, 1, &[], &[])).unwrap().any_unknown() && raw(&v4(1, 1, &[], &[])).unwrap().any_unknown());
    // Numbers of IPv6 extension headers mean nothing special in IPv4.
    assert_eq!(later(44), without_details(44));
}

#[test]
fn ipv6_fields() {
    let fields = raw(&v6(17, &UDP)).unwrap();
    assert_eq!(fields.family, Field::Value(Family::V6));
    assert_eq!(fields.from, Field::Value("2001:db8::1".parse().unwrap()));
    assert_eq!(fields.to, Field::Value("2001:db8::2".parse().unwrap()));
    assert_eq!((fields.dscp, fields.length, fields.hop_limit), (Field::Value(46), Field::Value(48), Field::Value(255)));
    assert_eq!(fields.fragment, Field::Value(false));
    assert_eq!(transport(&fields), UDP_READ);
}

#[test]
fn ipv6_headers_that_are_short_or_lie() {
    let whole = v6(17, &UDP);
    for short in 1..40 {
        assert_eq!(raw(&whole[..short]), Err(Malformed::TruncatedNetwork), "{short} bytes");
    }
    for short in 40..48 {
        assert_eq!(raw(&whole[..short]), Err(Malformed::BadNetwork), "payload beyond {short} bytes");
    }
    assert_eq!(linked(&ethernet(&[&[0x86, 0xdd], &[0x45; 60]])), Err(Malformed::BadNetwork), "version 4 as IPv6");
    // A payload length of 0 is an empty payload, whatever the next header promises.
    assert_eq!(raw(&v6(17, &[])), Err(Malformed::TruncatedTransport));
    assert_eq!(raw(&v6(0, &[])), Err(Malformed::TruncatedNetwork));
    assert_eq!(transport(&raw(&v6(59, &[])).unwrap()), without_details(59));
    assert_eq!(transport(&raw(&v6(47, &[])).unwrap()), without_details(47));
}

#[test]
fn ipv6_extension_headers_are_walked() {
    for extension in [0, 43, 60, 135, 139, 140] {
        let one = [&[17, 0, 0, 0, 0, 0, 0, 0], &UDP[..]].concat();
        assert_eq!(transport(&raw(&v6(extension, &one)).unwrap()), UDP_READ, "extension {extension}");
        let long = [&[17, 2][..], &[0; 22], &UDP].concat();
        assert_eq!(transport(&raw(&v6(extension, &long)).unwrap()), UDP_READ);
        assert_eq!(raw(&v6(extension, &long[..7])), Err(Malformed::TruncatedNetwork), "eight bytes are needed");
        assert_eq!(raw(&v6(extension, &long[..23])), Err(Malformed::TruncatedNetwork), "and all that it says");
        assert_eq!(raw(&v6(extension, &long[..24])), Err(Malformed::TruncatedTransport));
        // Bytes behind the payload do not help.
        assert_eq!(raw(&[v6(extension, &long[..23]), vec![0; 40]].concat()), Err(Malformed::TruncatedNetwork));
    }
    for protocol in [50, 51] {
        assert_eq!(transport(&raw(&v6(protocol, &[17, 0, 0, 0, 0, 0, 0, 0])).unwrap()), without_details(protocol));
    }
}

/// `count` destination options, the last of which is followed by `last`.
fn chain(count: usize, last: u8) -> Vec<u8> {
    (1..=count).flat_map(|i| [if i == count { last } else { 60 }, 0, 0, 0, 0, 0, 0, 0]).collect()
}

#[test]
fn the_ninth_extension_header_is_not_walked() {
    assert_eq!(transport(&raw(&v6(60, &[chain(8, 17), UDP.to_vec()].concat())).unwrap()), UDP_READ);
    let nine = raw(&v6(60, &[chain(9, 17), UDP.to_vec()].concat())).unwrap();
    assert_eq!(transport(&nine), ALL_UNKNOWN);
    assert_eq!((nine.fragment, nine.any_unknown()), (Field::Value(false), true));
    // The ninth need not even be there, and may be a fragment header.
    assert_eq!(transport(&raw(&v6(60, &chain(8, 60))).unwrap()), ALL_UNKNOWN);
    let ninth_fragment = raw(&v6(60, &[chain(8, 44), vec![17, 0, 0, 8, 0, 0, 0, 1]].concat())).unwrap();
    assert_eq!((transport(&ninth_fragment), ninth_fragment.fragment), (ALL_UNKNOWN, Field::Value(false)));
    // Fragment headers are among the eight.
    let atomic = [vec![60, 0, 0, 0, 0, 0, 0, 1], chain(8, 17), UDP.to_vec()].concat();
    assert_eq!(transport(&raw(&v6(44, &atomic)).unwrap()), ALL_UNKNOWN);
}

#[test]
fn ipv6_fragments() {
    let header = |next: u8, offset_more: u16| {
        let [high, low] = offset_more.to_be_bytes();
        [next, 0, high, low, 0, 0, 0, 1]
    };
    let fragment = |next, offset_more, payload: &[u8]| raw(&v6(44, &[&header(next, offset_more), payload].concat()));
    let atomic = fragment(17, 0x0006, &UDP).unwrap();
    assert_eq!((transport(&atomic), atomic.fragment), (UDP_READ, Field::Value(false)), "reserved bits do not count");
    let first = fragment(17, 0x0001, &UDP).unwrap();
    assert_eq!((transport(&first), first.fragment), (UDP_READ, Field::Value(true)));
    assert_eq!(fragment(17, 0x0001, &UDP[..7]), Err(Malformed::TruncatedTransport), "a tiny first fragment");
    let later = fragment(6, 0x0008, &[]).unwrap();
    assert_eq!(later.fragment, Field::Value(true));
    assert_eq!(transport(&later), (Field::Value(6), Field::Unknown, Field::Unknown, Field::Unknown, Field::Absent));
    assert_eq!(transport(&fragment(58, 0xfff9, &[]).unwrap()).4, Field::Unknown);
    assert_eq!(transport(&fragment(59, 0x0008, &[]).unwrap()), without_details(59));
    for extension in [0, 43, 44, 60, 135, 139, 140] {
        assert_eq!(transport(&fragment(extension, 0x0008, &[]).unwrap()), ALL_UNKNOWN, "{extension} in the middle");
    }
    assert_eq!(raw(&v6(44, &header(17, 0)[..7])), Err(Malformed::TruncatedNetwork));
    // A first fragment goes on behind its header, also with another extension.
    let options = fragment(60, 0x0001, &[&chain(1, 17)[..], &UDP].concat()).unwrap();
    assert_eq!((transport(&options), options.fragment), (UDP_READ, Field::Value(true)));
}

#[test]
fn transports() {
    let both = |proto, payload: &[u8]| {
        let v4 = raw(&v4(proto, 0, &[], payload)).map(|fields| transport(&fields));
        let v6 = raw(&v6(proto, payload)).map(|fields| transport(&fields));
        assert_eq!(v4, v6);
        v4
    };
    let tcp = (Field::Value(6), Field::Value(80), Field::Value(0xc000), Field::Value(0x12), Field::Absent);
    assert_eq!(both(6, &TCP), Ok(tcp));
    for (proto, needed) in [(17, 8), (136, 8), (132, 12), (33, 12)] {
        let read = (Field::Value(proto), Field::Value(80), Field::Value(0xc000), Field::Absent, Field::Absent);
        assert_eq!(both(proto, &TCP[..needed]), Ok(read));
        assert_eq!(both(proto, &TCP[..needed - 1]), Err(Malformed::TruncatedTransport));
    }
    for (proto, v6) in [(1, false), (58, true)] {
        let icmp = Icmp { v6, kind: 3, code: 4 };
        let read = (Field::Value(proto), Field::Absent, Field::Absent, Field::Absent, Field::Value(icmp));
        assert_eq!(both(proto, &[3, 4, 0, 0]), Ok(read));
        assert_eq!(both(proto, &[3, 4, 0]), Err(Malformed::TruncatedTransport));
    }
    assert_eq!(both(6, &TCP[..19]), Err(Malformed::TruncatedTransport));
    let with_offset = |words: u8| [&TCP[..12], &[words << 4], &TCP[13..]].concat();
    assert_eq!(both(6, &with_offset(4)), Err(Malformed::TruncatedTransport));
    assert_eq!(both(6, &with_offset(6)), Err(Malformed::TruncatedTransport));
    assert_eq!(both(6, &[with_offset(6), vec![1; 4]].concat()), Ok(tcp));
    assert_eq!(both(47, &[]), Ok(without_details(47)));
}

#[test]
fn lengths_of_zero_in_packets_to_be_segmented() {
    let mut big4 = v4(6, 0, &[], &TCP);
    big4[2..4].fill(0);
    let mut big6 = v6(6, &TCP);
    big6[4..6].fill(0);
    let gso = Context { l3: true, segment: 60_000, ..context() };
    assert_eq!(parse(&big4, &gso).unwrap().length, Field::Value(40));
    assert_eq!(parse(&big6, &gso).unwrap().length, Field::Value(60));
    assert_eq!(raw(&big4), Err(Malformed::BadNetwork));
    assert_eq!(raw(&big6), Err(Malformed::TruncatedTransport));
    let at_xdp = Context { hook: Hook::Xdp, ..gso.clone() };
    assert_eq!(parse(&big4, &at_xdp), Err(Malformed::BadNetwork));
    big4.resize(70_000, 0);
    assert_eq!(parse(&big4, &gso).unwrap().length, Field::Value(60_040));
    let longest = Context { segment: 65_535, ..gso.clone() };
    assert_eq!(parse(&big4, &longest).unwrap().length, Field::Value(65_535), "longer ones count as 65,535");
    big6.truncate(50);
    assert_eq!(parse(&big6, &gso), Err(Malformed::TruncatedTransport));
}

#[test]
fn packets_to_be_segmented_have_the_length_of_a_segment() {
    let length = |packet: &[u8], segment| parse(packet, &Context { l3: true, segment, ..context() }).unwrap().length;
    let data = [7; 100];
    let tcp = [&TCP[..12], &[0x60], &TCP[13..], &data].concat();
    assert_eq!(length(&v4(6, 0, &[1; 8], &tcp), 30), Field::Value(20 + 8 + 24 + 30));
    assert_eq!(length(&v4(6, 0, &[1; 8], &tcp), 1000), Field::Value(20 + 8 + 120), "no more than there is");
    let options = [&[17, 0, 0, 0, 0, 0, 0, 0], &UDP[..], &data].concat();
    assert_eq!(length(&v6(60, &options), 30), Field::Value(40 + 8 + 8 + 30));
    assert_eq!(length(&v4(132, 0, &[], &tcp), 30), Field::Value(140), "SCTP is not cut this way");
    let at_xdp = Context { hook: Hook::Xdp, segment: 30, ..context() };
    let framed = ethernet(&[&[8, 0], &v4(6, 0, &[], &tcp)]);
    assert_eq!(parse(&framed, &at_xdp).unwrap().length, Field::Value(140));
}

#[test]
fn names_are_those_of_the_counters() {
    use Malformed::{BadNetwork, TruncatedLink, TruncatedNetwork, TruncatedTransport, VlanDepth};
    for reason in [TruncatedLink, VlanDepth, TruncatedNetwork, BadNetwork, TruncatedTransport] {
        assert_eq!(reason.name(), reason.to_string());
    }
}
