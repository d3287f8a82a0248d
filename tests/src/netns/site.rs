//! The network that most tests use: a server to protect and a client that talks to it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use anyhow::Result;

use super::{Cable, Frame, Host, Tap, Tun};

/// The server's addresses.
pub const SERVER: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// The client's addresses.
pub const CLIENT: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(192, 0, 2, 2), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
/// Further addresses of the client.
pub const STRANGER: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 2, 66), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66));

/// A server and a client, each with an `eth0`, joined by a veth pair or a cable.
#[derive(Debug)]
pub struct Site {
    /// What Ringfence protects.
    pub server: Arc<Host>,
    /// Where the traffic comes from.
    pub client: Arc<Host>,
    // In place of the veth pair.
    _cable: Option<Cable>,
}

impl Site {
    /// Both hosts, connected and with addresses of both families.
    pub fn new() -> Result<Self> {
        Self::with_queues(1)
    }

    /// The same with a veth pair of this many queues: for that many CPUs that send at once.
    pub fn with_queues(queues: u32) -> Result<Self> {
        Self::joined(|server, client| server.veth_of(queues, "eth0", client, "eth0").map(|()| None))
    }

    /// The same with tap devices instead of a veth pair.
    pub fn cabled() -> Result<Self> {
        Self::joined(|server, client| {
            Ok(Some(Cable::new(Tun::ethernet(server, "eth0")?, Tun::ethernet(client, "eth0")?)))
        })
    }

    fn joined(join: impl FnOnce(&Host, &Host) -> Result<Option<Cable>>) -> Result<Self> {
        let (server, client) = (Arc::new(Host::new()?), Arc::new(Host::new()?));
        let cable = join(&server, &client)?;
        for (host, addresses) in [(&server, &[SERVER][..]), (&client, &[CLIENT, STRANGER])] {
            host.up("eth0")?;
            for &(v4, v6) in addresses {
                host.address("eth0", v4, 24)?;
                host.address("eth0", v6, 64)?;
            }
        }
        Ok(Self { server, client, _cable: cable })
    }

    /// A way to send hand-made frames from the client to the server, or back.
    pub fn wire(&self, direction: Direction) -> Result<Wire> {
        let (from, to) = match direction {
            Direction::ToServer => (&self.client, &self.server),
            Direction::FromServer => (&self.server, &self.client),
        };
        Ok(Wire { sender: Tap::new(from, "eth0")?, source: from.mac("eth0")?, destination: to.mac("eth0")? })
    }
}

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ingress of the server.
    ToServer,
    /// Egress of the server.
    FromServer,
}

/// Sends hand-made frames to the other host.
#[derive(Debug)]
pub struct Wire {
    sender: Tap,
    source: [u8; 6],
    destination: [u8; 6],
}

impl Wire {
    /// Sends a packet in a frame addressed to the other host.
    pub fn send(&self, frame: &Frame) -> Result<()> {
        self.sender.send(&frame.bytes(self.source, self.destination)?)
    }

    /// Marks the frames sent from now on.
    pub fn mark(&self, mark: u32) -> Result<()> {
        self.sender.mark(mark)
    }

    /// Sends bytes that begin at the Ethernet header.
    pub fn send_bytes(&self, frame: &[u8]) -> Result<()> {
        self.sender.send(frame)
    }
}

/// Both addresses of a pair, for tests that do the same over both families.
#[must_use]
pub fn families(addresses: (Ipv4Addr, Ipv6Addr)) -> [IpAddr; 2] {
    [addresses.0.into(), addresses.1.into()]
}
