//! A device whose far end the test holds, a daemon that rejects what arrives there, and the answers there should be.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, SlicedPacket,
    TcpHeader, TransportHeader, TransportSlice,
};
use ringfence_tests::{
    daemon::Daemon,
    netns::{CLIENT, Frame, Host, SERVER, Transport, Tun},
};

pub const PATIENCE: Duration = Duration::from_secs(10);
/// The client's link-layer address; a router's, for all that the server knows.
pub const FAR: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub const fn syn() -> Transport {
    Transport::Tcp { source: 4000, destination: 80, flags: 2 }
}

pub const fn udp() -> Transport {
    Transport::Udp { source: 4000, destination: 53 }
}

/// Where packets are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Xdp,
    Tc,
    /// TC, without Ethernet headers.
    L3,
}

pub const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::Tc, Hook::L3];
pub const ETHERNET: [Hook; 2] = [Hook::Xdp, Hook::Tc];

pub struct Scene {
    pub hook: Hook,
    pub far: Tun,
    pub daemon: Daemon,
    pub mac: [u8; 6],
    ends: u32,
}

impl Scene {
    /// Rejects everything that arrives; what leaves is not rejected but dropped, and the answers are not judged.
    pub fn new(hook: Hook) -> Result<Self> {
        Self::with(hook, "")
    }

    pub fn with(hook: Hook, rules: &str) -> Result<Self> {
        let host = Arc::new(Host::new()?);
        let far = if hook == Hook::L3 { Tun::new(&host, "eth0")? } else { Tun::ethernet(&host, "eth0")? };
        host.up("eth0")?;
        host.address("eth0", SERVER.0, 24)?;
        host.address("eth0", SERVER.1, 64)?;
        // XDP has no marks, so a rule about them moves the chain to TC.
        let mark = if hook == Hook::Tc { "      - count: {mark: 7}\n" } else { "" };
        let policy = format!(
            "ringfence: 1\nnetwork:\n  interfaces: [eth0]\n  ingress:\n    default: reject\n    stateless: true\n    \
             rules:\n      - count: {{proto: 250}}\n{mark}{rules}  egress: {{default: drop, stateless: true}}\n"
        );
        let daemon = Daemon::start(&host, &policy)?;
        let of = daemon.ingress()?;
        ensure!((of.how.as_deref() == Some("xdp-native")) == (hook == Hook::Xdp), "{hook:?}: {of:?}");
        let mac = if hook == Hook::L3 { [0; 6] } else { host.mac("eth0")? };
        Ok(Self { hook, far, daemon, mac, ends: 0 })
    }

    /// The frame as it is sent on this kind of device.
    pub fn bytes(&self, frame: &Frame) -> Result<Vec<u8>> {
        if self.hook == Hook::L3 { frame.packet() } else { frame.bytes(FAR, self.mac) }
    }

    /// Sends a frame and returns what was answered until the answer to another frame.
    pub fn exchange(&mut self, sent: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.ends += 1;
        let mut end = Frame::new(CLIENT.0.into(), SERVER.0.into(), udp());
        end.payload = format!("end {}", self.ends).into_bytes();
        self.far.send(sent)?;
        self.far.send(&self.bytes(&end)?)?;
        let mut answers = Vec::new();
        let last = self.far.receive(PATIENCE, |frame| {
            let is_end = frame.ends_with(&end.payload);
            if !is_end && is_answer(self.hook, frame) {
                answers.push(frame.to_vec());
            }
            is_end
        })?;
        last.with_context(|| format!("the frame after it was not answered: {:?}", self.daemon.counters()))?;
        Ok(answers)
    }

    pub fn answered(&mut self, sent: &[u8], expected: &[u8]) -> Result<()> {
        let before = self.daemon.counters()?;
        let answers = self.exchange(sent)?;
        let mut expected = expected.to_vec();
        if self.hook == Hook::Xdp {
            // A frame that was long enough for an Ethernet stays so.
            expected.resize(expected.len().max(sent.len().min(60)), 0);
        }
        ensure!(answers == [expected.clone()], "sent {sent:02x?}\nexpected {expected:02x?}\ngot {answers:02x?}");
        self.daemon.counted(&before, "ingress", "reject/answered", 2)?;
        self.daemon.counted(&before, "ingress", "default", 2)?;
        self.daemon.counted(&before, "egress", "default", 0)
    }

    pub fn silent(&mut self, sent: &[u8]) -> Result<()> {
        let before = self.daemon.counters()?;
        let answers = self.exchange(sent)?;
        ensure!(answers.is_empty(), "{:?} answered {sent:02x?} by {answers:02x?}", self.hook);
        // Rejected all the same.
        self.daemon.counted(&before, "ingress", "default", 2)?;
        self.daemon.counted(&before, "ingress", "reject/answered", 1)
    }
}

/// The server's neighbour discovery and the like go on.
pub fn is_answer(hook: Hook, frame: &[u8]) -> bool {
    let packet = if hook == Hook::L3 { SlicedPacket::from_ip(frame) } else { SlicedPacket::from_ethernet(frame) };
    match packet.ok().and_then(|packet| packet.transport) {
        Some(TransportSlice::Icmpv6(icmp)) => !(130..=143).contains(&icmp.type_u8()),
        Some(_) => true,
        None => false,
    }
}

/// The answer to `sent`, which is `frame` on the wire.
pub fn told(scene: &Scene, frame: &Frame, sent: &[u8], mut transport: TransportHeader) -> Result<Vec<u8>> {
    let link = if scene.hook == Hook::L3 { 0 } else { 14 + 4 * frame.vlans.len() };
    let reset = matches!(transport, TransportHeader::Tcp(_));
    let most = if frame.from.is_ipv4() { 576 - 28 } else { 1280 - 48 };
    let quote = if reset { &[][..] } else { &sent[link..sent.len().min(link + most)] };
    let mut answer = Vec::new();
    if link > 0 {
        answer.extend_from_slice(&sent[6..12]);
        answer.extend_from_slice(&sent[..6]);
        answer.extend_from_slice(&sent[12..link]);
    }
    match (frame.from, frame.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let number = if reset { IpNumber::TCP } else { IpNumber::ICMP };
            let length = transport.header_len() + quote.len();
            let mut header = Ipv4Header::new(length.try_into()?, 64, number, to.octets(), from.octets())?;
            header.dscp = if reset { 0 } else { 48 }.try_into()?;
            transport.update_checksum_ipv4(&header, quote)?;
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut answer)?;
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: (transport.header_len() + quote.len()).try_into()?,
                next_header: if reset { IpNumber::TCP } else { IpNumber::IPV6_ICMP },
                hop_limit: 64,
                source: to.octets(),
                destination: from.octets(),
                ..Default::default()
            };
            transport.update_checksum_ipv6(&header, quote)?;
            header.write(&mut answer)?;
        }
        _ => bail!("two families"),
    }
    transport.write(&mut answer)?;
    answer.extend_from_slice(quote);
    Ok(answer)
}

pub fn reset(seq: u32, ack: Option<u32>) -> TransportHeader {
    let mut header = TcpHeader::new(80, 4000, seq, 0);
    header.rst = true;
    (header.ack, header.acknowledgment_number) = (ack.is_some(), ack.unwrap_or(0));
    TransportHeader::Tcp(header)
}

pub fn prohibited(v4: bool) -> TransportHeader {
    let bytes5to8 = [0; 4];
    if v4 {
        TransportHeader::Icmpv4(Icmpv4Header::new(Icmpv4Type::Unknown { type_u8: 3, code_u8: 13, bytes5to8 }))
    } else {
        TransportHeader::Icmpv6(Icmpv6Header::new(Icmpv6Type::Unknown { type_u8: 1, code_u8: 1, bytes5to8 }))
    }
}

pub fn pairs() -> [(IpAddr, IpAddr); 2] {
    [(CLIENT.0.into(), SERVER.0.into()), (CLIENT.1.into(), SERVER.1.into())]
}

/// Sets sequence and acknowledgement number of a TCP segment in a frame.
pub fn numbered(scene: &Scene, frame: &Frame, seq: u32, ack: u32) -> Result<Vec<u8>> {
    let mut bytes = scene.bytes(frame)?;
    let link = if scene.hook == Hook::L3 { 0 } else { 14 + 4 * frame.vlans.len() };
    let tcp = link + if frame.from.is_ipv4() { 20 } else { 40 };
    bytes[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
    bytes[tcp + 8..tcp + 12].copy_from_slice(&ack.to_be_bytes());
    Ok(bytes)
}
