//! A packet from the policy crate's form to the daemon's.

use ringfence_api::{Packet, PacketDirection, PacketState};
use ringfence_policy::model::TestPacket;

/// The packet as the daemon takes it.
#[must_use]
pub fn to_api(packet: TestPacket, ingress: bool) -> Packet {
    // Named one by one, so that a new field cannot be forgotten here.
    let TestPacket {
        interface,
        from,
        to,
        proto,
        port,
        source_port,
        flags,
        icmp,
        vlan,
        dscp,
        mark,
        length,
        fragment,
        hop_limit,
        state,
    } = packet;
    Packet {
        direction: if ingress { PacketDirection::Ingress } else { PacketDirection::Egress },
        interface,
        from,
        to,
        proto,
        port,
        source_port,
        flags,
        icmp,
        vlan,
        dscp,
        mark,
        length,
        fragment,
        hop_limit,
        state: match state {
            0 => PacketState::New,
            1 => PacketState::Established,
            2 => PacketState::Related,
            _ => PacketState::Invalid,
        },
    }
}
