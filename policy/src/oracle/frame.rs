//! Real bytes from a packet that is described by its fields, so that `tests:` and `explain` go the way of packets.
//!
//! What a description leaves open: the other address is the unspecified one of the same family, the protocol 253 (RFC
//! 3692, for experiments) unless flags or an ICMP type imply one, the source port 49152 and the port 0, TCP flags SYN,
//! ICMP an echo request, the hop limit 64. No address at all and nothing that needs IP: a frame that is not IP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{fill, internet};
use crate::model::TestPacket;

/// Why a description is no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// One address is IPv4, the other IPv6.
    #[error("`from` is {from} and `to` is {to}: not the same family")]
    Families {
        /// The source.
        from: IpAddr,
        /// The destination.
        to: IpAddr,
    },
    /// A field of IP packets, and no address that says which version.
    #[error("`{field}` needs `from` or `to`, which say whether the packet is IPv4 or IPv6")]
    NoAddress {
        /// The field.
        field: &'static str,
    },
    /// A field that packets of this protocol do not have.
    #[error("`{field}`: protocol {proto} has none")]
    NotOfProtocol {
        /// The field.
        field: &'static str,
        /// The protocol number.
        proto: u8,
    },
    /// A field that a later fragment does not carry.
    #[error("`{field}`: a later fragment does not carry it")]
    NotInFragment {
        /// The field.
        field: &'static str,
    },
    /// A value too large for its field.
    #[error("`{field}`: {value} is more than {max}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// What was given.
        value: u16,
        /// What fits.
        max: u16,
    },
    /// The headers alone are longer.
    #[error("`length`: {length} is less than the {headers} bytes of the headers")]
    TooShort {
        /// What was asked for.
        length: u16,
        /// What it takes.
        headers: usize,
    },
    /// A VLAN tag on a device without Ethernet headers.
    #[error("`vlan`: the device has no Ethernet header")]
    NoLink,
}

const EXPERIMENT: u8 = 253;
const LOCAL_ETHERTYPE: u16 = 0x88b5;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The bytes of a packet, from the Ethernet header on, or from the IP header on when `l3` says that the device has
/// none. The mark is not in them, it belongs into [`super::Context`].
pub fn frame(packet: &TestPacket, l3: bool) -> Result<Vec<u8>, FrameError> {
    limit("dscp", packet.dscp.map(u16::from), 63)?;
    limit("vlan", packet.vlan, 4095)?;
    let (ethertype, network) = match addresses(packet)? {
        Some((from, to)) => ip_packet(packet, from, to)?,
        None => (LOCAL_ETHERTYPE, vec![0; 46]),
    };
    if l3 {
        // Without a link header there is nothing but IP.
        return match (packet.vlan, ethertype) {
            (Some(_), _) => Err(FrameError::NoLink),
            (None, LOCAL_ETHERTYPE) => Err(FrameError::NoAddress { field: "interface" }),
            (None, _) => Ok(network),
        };
    }
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    if let Some(vlan) = packet.vlan {
        bytes.extend([0x81, 0x00]);
        bytes.extend(vlan.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(network);
    Ok(bytes)
}

fn limit(field: &'static str, value: Option<u16>, max: u16) -> Result<(), FrameError> {
    match value {
        Some(value) if value > max => Err(FrameError::TooLarge { field, value, max }),
        _ => Ok(()),
    }
}

/// Both addresses, or `None` for a frame that is not IP.
fn addresses(packet: &TestPacket) -> Result<Option<(IpAddr, IpAddr)>, FrameError> {
    let unspecified = |like: IpAddr| match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    match (packet.from, packet.to) {
        (Some(from), Some(to)) if from.is_ipv4() != to.is_ipv4() => Err(FrameError::Families { from, to }),
        (Some(from), to) => Ok(Some((from, to.unwrap_or(unspecified(from))))),
        (None, Some(to)) => Ok(Some((unspecified(to), to))),
        (None, None) => {
            let given = [
                ("proto", packet.proto.is_some()),
                ("port", packet.port.is_some()),
                ("source_port", packet.source_port.is_some()),
                ("flags", packet.flags.is_some()),
                ("icmp", packet.icmp.is_some()),
                ("dscp", packet.dscp.is_some()),
                ("length", packet.length.is_some()),
                ("fragment", packet.fragment),
                ("hop_limit", packet.hop_limit.is_some()),
            ];
            match given.iter().find(|(_, given)| *given) {
                Some(&(field, _)) => Err(FrameError::NoAddress { field }),
                None => Ok(None),
            }
        }
    }
}

/// The ethertype and the bytes from the IP header on.
fn ip_packet(packet: &TestPacket, from: IpAddr, to: IpAddr) -> Result<(u16, Vec<u8>), FrameError> {
    let implied = match (packet.flags, packet.icmp) {
        (Some(_), _) => 6,
        (None, Some(_)) => {
            if from.is_ipv4() {
                1
            } else {
                ICMPV6
            }
        }
        (None, None) => EXPERIMENT,
    };
    let proto = packet.proto.unwrap_or(implied);
    let mut payload = if packet.fragment { later_fragment(packet)? } else { transport(packet, proto)? };
    let fragment_header = if packet.fragment && from.is_ipv6() { 8 } else { 0 };
    let headers = if from.is_ipv4() { 20 } else { 40 } + fragment_header;
    if let Some(length) = packet.length {
        let wanted = usize::from(length).checked_sub(headers).filter(|&wanted| wanted >= payload.len());
        let short = FrameError::TooShort { length, headers: headers + payload.len() };
        payload.resize(wanted.ok_or(short)?, 0);
    }
    if !packet.fragment {
        fill(&mut payload, proto, from, to);
    }
    let (dscp, hop_limit) = (packet.dscp.unwrap_or(0), packet.hop_limit.unwrap_or(64));
    Ok(match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            (0x0800, ipv4(packet.fragment, dscp, hop_limit, proto, from, to, &payload))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            (0x86dd, ipv6(packet.fragment, dscp, hop_limit, proto, from, to, &payload))
        }
        _ => return Err(FrameError::Families { from, to }),
    })
}

/// Where later fragments begin in their packet: eight bytes a unit.
const FRAGMENT_OFFSET: u16 = 185;

fn ipv4(fragment: bool, dscp: u8, ttl: u8, proto: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, dscp << 2];
    header.extend(((20 + payload.len()) as u16).to_be_bytes());
    header.extend([0, 1]);
    header.extend(if fragment { FRAGMENT_OFFSET } else { 0 }.to_be_bytes());
    header.extend([ttl, proto, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = internet(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

fn ipv6(fragment: bool, dscp: u8, hops: u8, proto: u8, from: Ipv6Addr, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let extension = if fragment {
        vec![proto, 0, (FRAGMENT_OFFSET >> 5) as u8, (FRAGMENT_OFFSET << 3) as u8, 0, 0, 0, 1]
    } else {
        Vec::new()
    };
    let mut packet = (6 << 28 | u32::from(dscp) << 22).to_be_bytes().to_vec();
    packet.extend(((extension.len() + payload.len()) as u16).to_be_bytes());
    packet.extend([if fragment { 44 } else { proto }, hops]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(extension);
    packet.extend(payload);
    packet
}

fn later_fragment(packet: &TestPacket) -> Result<Vec<u8>, FrameError> {
    let given = [
        ("port", packet.port.is_some()),
        ("source_port", packet.source_port.is_some()),
        ("flags", packet.flags.is_some()),
        ("icmp", packet.icmp.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some(&(field, _)) => Err(FrameError::NotInFragment { field }),
        None => Ok(Vec::new()),
    }
}

/// The transport header, its checksum still zero.
fn transport(packet: &TestPacket, proto: u8) -> Result<Vec<u8>, FrameError> {
    let ports = matches!(proto, 6 | UDP | 33 | 132 | 136);
    let given = [
        ("port", packet.port.is_some() && !ports),
        ("source_port", packet.source_port.is_some() && !ports),
        ("flags", packet.flags.is_some() && proto != 6),
        ("icmp", packet.icmp.is_some() && !matches!(proto, 1 | ICMPV6)),
    ];
    if let Some(&(field, _)) = given.iter().find(|(_, wrong)| *wrong) {
        return Err(FrameError::NotOfProtocol { field, proto });
    }
    let mut header = Vec::new();
    if ports {
        header.extend(packet.source_port.unwrap_or(49_152).to_be_bytes());
        header.extend(packet.port.unwrap_or(0).to_be_bytes());
    }
    match proto {
        6 => header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, packet.flags.unwrap_or(0x02), 0xff, 0xff, 0, 0, 0, 0]),
        UDP | 136 => header.extend([0; 4]),
        // The verification tag of SCTP; its checksum.
        132 => header.extend([0, 0, 0, 1, 0, 0, 0, 0]),
        // DCCP: data offset 3 words, then checksum; type Data with a short sequence number.
        33 => header.extend([3, 0, 0, 0, 4, 0, 0, 1]),
        1 | ICMPV6 => {
            let (kind, code) = packet.icmp.unwrap_or(if proto == 1 { (8, 0) } else { (128, 0) });
            header.extend([kind, code, 0, 0, 0, 0, 0, 1]);
        }
        _ => {}
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Context, Family, Field, Hook, Icmp, parse};

    fn described(proto: u8, v6: bool) -> TestPacket {
        let (from, to) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("203.0.113.5", "192.0.2.1") };
        TestPacket {
            from: Some(from.parse().unwrap()),
            to: Some(to.parse().unwrap()),
            proto: Some(proto),
            ..TestPacket::default()
        }
    }

    fn read(packet: &TestPacket) -> crate::oracle::Fields {
        let context = Context {
            hook: Hook::Xdp,
            ingress: true,
            interface: "eth0".into(),
            loopback: false,
            l3: false,
            segment: 0,
            tag: None,
            mark: None,
            state: 0,
        };
        parse(&frame(packet, false).unwrap(), &context).unwrap()
    }

    #[test]
    fn every_field_of_the_description_is_in_the_frame() {
        for v6 in [false, true] {
            for proto in [6, 17, 33, 132, 136] {
                let packet = TestPacket {
                    port: Some(22),
                    source_port: Some(1000),
                    flags: (proto == 6).then_some(0x12),
                    vlan: Some(100),
                    dscp: Some(46),
                    length: Some(200),
                    hop_limit: Some(7),
                    ..described(proto, v6)
                };
                let fields = read(&packet);
                assert_eq!(fields.proto, Field::Value(proto));
                assert_eq!(fields.from, Field::Value(packet.from.unwrap()));
                assert_eq!(fields.to, Field::Value(packet.to.unwrap()));
                assert_eq!(fields.family, Field::Value(if v6 { Family::V6 } else { Family::V4 }));
                assert_eq!((fields.port, fields.source_port), (Field::Value(22), Field::Value(1000)));
                assert_eq!(fields.flags, if proto == 6 { Field::Value(0x12) } else { Field::Absent });
                assert_eq!((fields.vlan, fields.dscp), (Field::Value(100), Field::Value(46)));
                assert_eq!((fields.length, fields.hop_limit), (Field::Value(200), Field::Value(7)));
            }
        }
    }

    #[test]
    fn what_is_left_open_has_the_written_defaults() {
        let tcp = read(&described(6, false));
        assert_eq!((tcp.flags, tcp.port, tcp.source_port), (Field::Value(2), Field::Value(0), Field::Value(49_152)));
        assert_eq!(read(&described(58, true)).icmp, Field::Value(Icmp { v6: true, kind: 128, code: 0 }));
        let implied = TestPacket { proto: None, icmp: Some((3, 1)), ..described(0, false) };
        assert_eq!(read(&implied).icmp, Field::Value(Icmp { v6: false, kind: 3, code: 1 }));
        assert_eq!(read(&TestPacket { proto: None, ..described(0, true) }).proto, Field::Value(253));
        let only_to = TestPacket { from: None, ..described(6, true) };
        assert_eq!(read(&only_to).from, Field::Value("::".parse().unwrap()));
        assert_eq!(read(&TestPacket { vlan: Some(3), ..TestPacket::default() }).family, Field::Absent);
    }

    #[test]
    fn a_fragment_is_a_later_one() {
        for v6 in [false, true] {
            let fields = read(&TestPacket { fragment: true, length: Some(100), ..described(6, v6) });
            assert_eq!((fields.proto, fields.fragment), (Field::Value(6), Field::Value(true)));
            assert_eq!((fields.port, fields.flags, fields.length), (Field::Unknown, Field::Unknown, Field::Value(100)));
        }
    }

    #[test]
    fn impossible_descriptions_are_refused() {
        let tcp = described(6, false);
        let refused = [
            (TestPacket { to: Some("::1".parse().unwrap()), ..tcp.clone() }, "not the same family"),
            (TestPacket { port: Some(1), ..TestPacket::default() }, "`port` needs `from` or `to`"),
            (TestPacket { port: Some(1), ..described(47, false) }, "`port`: protocol 47 has none"),
            (TestPacket { flags: Some(1), ..described(17, false) }, "`flags`: protocol 17 has none"),
            (TestPacket { icmp: Some((8, 0)), ..tcp.clone() }, "`icmp`: protocol 6 has none"),
            (TestPacket { port: Some(1), fragment: true, ..tcp.clone() }, "a later fragment does not carry it"),
            (TestPacket { dscp: Some(64), ..tcp.clone() }, "64 is more than 63"),
            (TestPacket { vlan: Some(4096), ..tcp.clone() }, "4096 is more than 4095"),
            (TestPacket { length: Some(39), ..tcp.clone() }, "39 is less than the 40 bytes"),
        ];
        for (packet, words) in refused {
            let error = frame(&packet, false).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(frame(&TestPacket { vlan: Some(1), ..tcp }, true), Err(FrameError::NoLink));
    }
}
