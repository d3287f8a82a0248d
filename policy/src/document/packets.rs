//! Packets described by their fields: `tests:`, and `ringctl explain --packet`.

use super::fields::Context;
use super::problems::{Complaint, Problems, quote};
use super::source::Span;
use super::values;
use crate::model::TestPacket;
use crate::services::{self, ICMP, ICMPV6, TCP, WITH_PORTS};

/// Keys of a packet.
pub const KEYS: [&str; 16] = [
    "interface",
    "direction",
    "from",
    "to",
    "proto",
    "port",
    "source_port",
    "flags",
    "icmp",
    "vlan",
    "dscp",
    "mark",
    "length",
    "fragment",
    "hop_limit",
    "state",
];

/// A packet while its keys are read.
#[derive(Default)]
pub(super) struct Packet {
    pub fields: TestPacket,
    pub egress: bool,
    icmp: Option<(values::Icmp, Span)>,
    // Where the fields stand that the checks between fields are about.
    ports: Vec<(&'static str, Span)>,
    flags: Option<Span>,
    to: Option<Span>,
    pub interface_at: Option<Span>,
}

impl Packet {
    /// Takes one field. The complaint is about the value, or, for an unknown key, about the key.
    pub fn set(&mut self, key: &str, text: &str, span: Span) -> Result<(), Complaint> {
        let packet = &mut self.fields;
        match key {
            "interface" => {
                let name = values::interface_glob(text)?;
                if !name.is_literal() {
                    return Err(format!("expected one interface, found the glob {}", quote(text)).into());
                }
                packet.interface = Some(name.0);
                self.interface_at = Some(span);
            }
            "direction" => {
                self.egress = match text {
                    "ingress" => false,
                    "egress" => true,
                    _ => return Err(Complaint::unknown("direction", text, ["ingress", "egress"])),
                }
            }
            "from" => packet.from = Some(values::address(text).map_err(one_address)?),
            "to" => {
                packet.to = Some(values::address(text).map_err(one_address)?);
                self.to = Some(span);
            }
            "proto" => packet.proto = Some(values::protocol(text)?),
            "port" => {
                packet.port = Some(one_port(text)?);
                self.ports.push(("port", span));
            }
            "source_port" => {
                packet.source_port = Some(one_port(text)?);
                self.ports.push(("source_port", span));
            }
            "flags" => {
                packet.flags = Some(values::flag_byte(text)?);
                self.flags = Some(span);
            }
            "icmp" => self.icmp = Some((values::icmp(text)?, span)),
            "vlan" => packet.vlan = Some(values::number(text, 4095)? as u16),
            "dscp" => packet.dscp = Some(values::number(text, 63)? as u8),
            "mark" => packet.mark = Some(values::number(text, u32::MAX)?),
            "length" => packet.length = Some(values::number(text, 65_535)? as u16),
            "fragment" => packet.fragment = values::boolean(text)?,
            "hop_limit" => packet.hop_limit = Some(values::number(text, 255)? as u8),
            "state" => {
                packet.state = values::state(text)?;
            }
            _ => return Err(Complaint::unknown("field of a packet", key, KEYS)),
        }
        Ok(())
    }

    /// Checks the fields against each other and completes the packet.
    pub fn finish(&mut self, problems: &mut Problems) {
        let family = self.fields.from.or(self.fields.to).map(|address| address.is_ipv4());
        if let (Some(from), Some(to), Some(span)) = (self.fields.from, self.fields.to, self.to)
            && from.is_ipv4() != to.is_ipv4()
        {
            problems.error(span, "`from` and `to` are of different families");
        }
        if let Some((icmp, span)) = self.icmp.take()
            && let Some((protocol, message)) = problems.check(span, resolve(&icmp, self.fields.proto, family))
        {
            self.fields.proto = Some(protocol);
            self.fields.icmp = Some((message.0, message.1.unwrap_or(0)));
        }
        if let Some(span) = self.flags
            && *self.fields.proto.get_or_insert(TCP) != TCP
        {
            problems.error(span, "`flags` needs `proto: tcp`");
        }
        for &(field, span) in &self.ports {
            let complaint = match self.fields.proto {
                None => Complaint::new(format!("`{field}` without `proto`")).help("add `proto: tcp` or `proto: udp`"),
                Some(protocol) if !WITH_PORTS.contains(&protocol) => {
                    Complaint::new(format!("`{field}` needs a protocol with ports"))
                        .help("ports are read for tcp, udp and sctp")
                }
                Some(_) => continue,
            };
            problems.error(span, complaint);
        }
    }
}

impl Context<'_, '_, '_> {
    /// What only a test in a policy needs: the interface is a covered one.
    pub fn check_packet(&mut self, packet: &Packet) {
        if let (Some(name), Some(span)) = (&packet.fields.interface, packet.interface_at) {
            self.inside_interfaces(&crate::model::NameGlob(name.clone()), span);
        }
    }
}

fn one_address(complaint: Complaint) -> Complaint {
    Complaint {
        message: complaint.message.replace("an address, a prefix or a range `a-b`", "one address"),
        ..complaint
    }
}

fn one_port(text: &str) -> Result<u16, Complaint> {
    match values::port(text)? {
        (low, high) if low == high => Ok(low as u16),
        _ => Err(format!("expected one port, found the range {}", quote(text)).into()),
    }
}

// Which protocol and message are meant, given what else is known of the packet.
fn resolve(icmp: &values::Icmp, proto: Option<u8>, family: Option<bool>) -> Result<(u8, services::Message), Complaint> {
    let (v4, v6) = match icmp {
        values::Icmp::Named { v4, v6 } => (*v4, *v6),
        values::Icmp::Number(message) => (Some(*message), Some(*message)),
    };
    let is_v4 = match (proto, family) {
        (Some(ICMP), _) => true,
        (Some(ICMPV6), _) => false,
        (Some(_), _) => return Err("`icmp` needs `proto: icmp` or `proto: icmpv6`".into()),
        (None, Some(is_v4)) => is_v4,
        (None, None) if v4.is_some() && v6.is_some() => {
            return Err(
                Complaint::new("ICMP for IPv4 or IPv6?").help("add `proto: icmp`, `proto: icmpv6` or an address")
            );
        }
        (None, None) => v4.is_some(),
    };
    match if is_v4 { v4 } else { v6 } {
        Some(message) => Ok((if is_v4 { ICMP } else { ICMPV6 }, message)),
        None => Err(format!("IPv{} has no such ICMP message", if is_v4 { 4 } else { 6 }).into()),
    }
}
