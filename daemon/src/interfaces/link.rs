//! What the daemon needs to know of a network interface.

use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

/// An interface.
#[expect(clippy::struct_excessive_bools, reason = "independent facts that the kernel tells of a link")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number; unique among those that exist now, and given again later.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What its frames begin with.
    pub framing: Framing,
    /// The loopback device.
    pub loopback: bool,
    /// The bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// It stands for a piece of hardware (or of a virtual machine's hardware).
    pub hardware: bool,
    /// It is a bridge, veth, tun or tap: covered only when the policy names it.
    pub only_when_named: bool,
    /// It is one end of a veth pair.
    pub veth: bool,
    /// Its link-layer address, if that is an Ethernet's; zeros otherwise.
    pub address: [u8; 6],
}

/// What frames begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The IP header (`WireGuard`, tun, PPP, IP tunnels).
    Ip,
    /// Something the programs cannot read (`InfiniBand`, CAN ...); the number is the kernel's `ARPHRD_*`.
    Other(u16),
}

impl Framing {
    /// As `dev_is_mac_header_xmit()` of the kernel's `if_arp.h` tells devices with a link header from those without.
    fn of(layer: LinkLayerType) -> Self {
        match layer {
            LinkLayerType::Ether | LinkLayerType::Loopback => Self::Ethernet,
            LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Ip6gre
            | LinkLayerType::Void
            | LinkLayerType::None
            | LinkLayerType::Rawip
            | LinkLayerType::Ppp => Self::Ip,
            other => Self::Other(other.into()),
        }
    }
}

impl Link {
    /// Reads the kernel's message; `None` for one that names no interface.
    #[must_use]
    pub fn read(message: &LinkMessage) -> Option<Self> {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            framing: Framing::of(message.header.link_layer_type),
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            master: None,
            hardware: false,
            only_when_named: false,
            veth: false,
            address: [0; 6],
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Controller(master) if *master != 0 => link.master = Some(*master),
                LinkAttribute::Address(address) => {
                    link.address = address.as_slice().try_into().unwrap_or_default();
                }
                LinkAttribute::ParentDevName(_) => link.hardware = true,
                LinkAttribute::LinkInfo(infos) => {
                    let by_name = |info: &LinkInfo| {
                        matches!(info, LinkInfo::Kind(InfoKind::Bridge | InfoKind::Veth | InfoKind::Tun))
                    };
                    link.only_when_named = infos.iter().any(by_name);
                    link.veth = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
                }
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}
