//! Frames made by hand, by a library that shares no code with Ringfence's parser.

use std::net::IpAddr;

use anyhow::{Result, bail};
use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpHeaders, IpNumber, Ipv4Header,
    Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, SingleVlanHeader, TcpHeader, TransportHeader, UdpHeader,
};

/// An Ethernet frame with an IP packet.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Source address.
    pub from: IpAddr,
    /// Destination address; of the same family.
    pub to: IpAddr,
    /// What the packet carries.
    pub transport: Transport,
    /// VLAN ids, outermost first.
    pub vlans: Vec<u16>,
    /// Differentiated services code point, 0..64.
    pub dscp: u8,
    /// Makes the packet a fragment at this offset (in units of 8 bytes), with more to come.
    pub fragment: Option<u16>,
    /// Bytes after the transport header.
    pub payload: Vec<u8>,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The flags byte: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
        flags: u8,
    },
    /// ICMP or, under IPv6, `ICMPv6`.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Another protocol by its number, without a header of its own.
    Other(u8),
}

impl Frame {
    /// An untagged packet with eight bytes of payload.
    #[must_use]
    pub fn new(from: IpAddr, to: IpAddr, transport: Transport) -> Self {
        Self { from, to, transport, vlans: Vec::new(), dscp: 0, fragment: None, payload: vec![0x52; 8] }
    }

    /// The bytes on the wire, with all lengths and checksums right.
    pub fn bytes(&self, source: [u8; 6], destination: [u8; 6]) -> Result<Vec<u8>> {
        let packet = self.packet()?;
        let ip = if self.from.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let tag = EtherType::VLAN_TAGGED_FRAME;
        let outer = if self.vlans.is_empty() { ip } else { tag };
        let mut bytes = Ethernet2Header { source, destination, ether_type: outer }.to_bytes().to_vec();
        for (depth, &id) in self.vlans.iter().enumerate() {
            let ether_type = if depth + 1 == self.vlans.len() { ip } else { tag };
            bytes.extend(SingleVlanHeader { vlan_id: id.try_into()?, ether_type, ..Default::default() }.to_bytes());
        }
        bytes.extend(packet);
        Ok(bytes)
    }

    /// The bytes from the network header on.
    pub fn packet(&self) -> Result<Vec<u8>> {
        let mut ip = self.network()?;
        let mut body = Vec::new();
        // A later fragment holds a middle part of the packet: no transport header.
        if self.fragment.is_none_or(|offset| offset == 0) {
            self.transport_header(&ip)?.into_iter().try_for_each(|header| header.write(&mut body))?;
        }
        body.extend(&self.payload);
        let mut bytes = Vec::new();
        ip.set_payload_len(body.len())?;
        if let IpHeaders::Ipv4(header, _) = &mut ip {
            header.header_checksum = header.calc_header_checksum();
        }
        ip.write(&mut bytes)?;
        bytes.extend(body);
        Ok(bytes)
    }

    fn network(&self) -> Result<IpHeaders> {
        let offset = self.fragment.unwrap_or(0).try_into()?;
        let more_fragments = self.fragment.is_some();
        let mut ip = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, from.octets(), to.octets())?;
                header.dscp = self.dscp.try_into()?;
                header.dont_fragment = false;
                header.fragment_offset = offset;
                header.more_fragments = more_fragments;
                IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header =
                    Ipv6Header { hop_limit: 64, source: from.octets(), destination: to.octets(), ..Default::default() };
                header.set_dscp(self.dscp.try_into()?);
                let fragment = more_fragments.then(|| Ipv6FragmentHeader::new(IpNumber::UDP, offset, true, 1));
                IpHeaders::Ipv6(header, Ipv6Extensions { fragment, ..Default::default() })
            }
            _ => bail!("{} and {} are of different families", self.from, self.to),
        };
        ip.set_next_headers(self.protocol());
        Ok(ip)
    }

    fn protocol(&self) -> IpNumber {
        match self.transport {
            Transport::Udp { .. } => IpNumber::UDP,
            Transport::Tcp { .. } => IpNumber::TCP,
            Transport::Icmp { .. } if self.from.is_ipv4() => IpNumber::ICMP,
            Transport::Icmp { .. } => IpNumber::IPV6_ICMP,
            Transport::Other(number) => IpNumber(number),
        }
    }

    fn transport_header(&self, ip: &IpHeaders) -> Result<Option<TransportHeader>> {
        let mut header = match self.transport {
            Transport::Udp { source, destination } => {
                let length = u16::try_from(UdpHeader::LEN + self.payload.len())?;
                TransportHeader::Udp(UdpHeader {
                    source_port: source,
                    destination_port: destination,
                    length,
                    checksum: 0,
                })
            }
            Transport::Tcp { source, destination, flags } => TransportHeader::Tcp(tcp(source, destination, flags)),
            Transport::Icmp { kind, code } => icmp(kind, code, self.from.is_ipv4()),
            Transport::Other(_) => return Ok(None),
        };
        match ip {
            IpHeaders::Ipv4(ip, _) => header.update_checksum_ipv4(ip, &self.payload)?,
            IpHeaders::Ipv6(ip, _) => header.update_checksum_ipv6(ip, &self.payload)?,
        }
        Ok(Some(header))
    }
}

fn tcp(source: u16, destination: u16, flags: u8) -> TcpHeader {
    let has = |bit: u8| flags & bit != 0;
    let mut header = TcpHeader::new(source, destination, 1, 65_535);
    (header.fin, header.syn, header.rst) = (has(1), has(2), has(4));
    (header.psh, header.ack, header.urg) = (has(8), has(16), has(32));
    header
}

fn icmp(kind: u8, code: u8, v4: bool) -> TransportHeader {
    let (type_u8, code_u8, bytes5to8) = (kind, code, [0; 4]);
    if v4 {
        TransportHeader::Icmpv4(Icmpv4Header::new(Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 }))
    } else {
        TransportHeader::Icmpv6(Icmpv6Header::new(Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 }))
    }
}
