//! The values that the rules and the packets of one case are drawn from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringfence_policy::model::SetId;
use ringfence_policy::oracle::DynamicEntry;

use super::{Rng, Shape, World, once_in, pick};

/// Names of interfaces that packets are on; rules name some of them and globs over them.
pub const INTERFACES: [&str; 7] = ["eth0", "eth1", "wg0", "wg1", "br-lan", "tap7", "lo"];
/// The globs; few, because each takes a bit of the interface's class.
pub const GLOBS: [&str; 4] = ["eth*", "wg?", "*0", "*"];
/// Every protocol with details, some without, and numbers of IPv6 extension headers.
pub const PROTOCOLS: [u8; 15] = [6, 17, 1, 58, 132, 136, 33, 47, 50, 51, 2, 59, 0, 44, 253];

/// Values of one case.
#[derive(Clone, Debug)]
pub struct Pool {
    /// IPv4 addresses.
    pub v4: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    pub v6: Vec<Ipv6Addr>,
    /// Ports, the edges among them.
    pub ports: Vec<u16>,
    /// VLAN ids.
    pub vlans: Vec<u16>,
    /// Marks.
    pub marks: Vec<u32>,
    /// Packet lengths.
    pub lengths: Vec<u16>,
}

impl Pool {
    /// Draws the values; the more rules, the more of them.
    #[must_use]
    pub fn new(rng: &mut Rng, shape: Shape) -> Self {
        let count = match shape {
            Shape::Narrow => 6,
            Shape::Wide => 40,
            Shape::Huge => 1500,
        };
        let mut v4 = vec![Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST];
        let mut v6 = vec![Ipv6Addr::UNSPECIFIED, Ipv6Addr::from_bits(u128::MAX)];
        for _ in 0..count {
            // Half of them are near one that is there, so that prefixes nest.
            let near =
                if once_in(rng, 2) { u32::from(pick(rng, &v4)) ^ rng.u32(..) >> rng.u32(8..32) } else { rng.u32(..) };
            v4.push(near.into());
            let low = rng.u128(..) >> rng.u32(8..128);
            let near = if once_in(rng, 2) { u128::from(pick(rng, &v6)) ^ low } else { 0x2001_0db8 << 96 | low };
            v6.push(near.into());
        }
        // The same bits in both families: left-aligned, and as a mapped address.
        let twin = pick(rng, &v4);
        v6.push((u128::from(twin.to_bits()) << 96).into());
        v6.push(twin.to_ipv6_mapped());
        let numbers = |rng: &mut Rng, max: u16, edges: &[u16]| {
            let drawn = (0..4 + count / 4).map(|_| rng.u16(0..=max));
            edges.iter().copied().chain(drawn).collect::<Vec<_>>()
        };
        Self {
            v4,
            v6,
            ports: numbers(rng, 65_535, &[0, 22, 53, 67, 68, 80, 443, 546, 547, 65_535]),
            vlans: numbers(rng, 4095, &[0, 1, 4095]),
            marks: vec![0, 1, u32::MAX, rng.u32(..), rng.u32(..), rng.u32(..1 << 16)],
            lengths: numbers(rng, 1500, &[0, 20, 28, 40, 48, 60, 64, 65_535]),
        }
    }

    /// An address of a packet: usually in the pool, else beside one in it, else anything.
    pub fn address(&self, rng: &mut Rng, v4: bool) -> IpAddr {
        let near = match rng.u8(..10) {
            0..6 => Some(u32::MAX),
            6..9 => Some(rng.u32(1..128)),
            _ => None,
        };
        if v4 {
            let base = pick(rng, &self.v4).to_bits();
            let bits = near.map_or(rng.u32(..), |shift| base ^ rng.u32(..).checked_shr(shift).unwrap_or(0));
            return IpAddr::V4(bits.into());
        }
        let base = pick(rng, &self.v6).to_bits();
        let bits = near.map_or(rng.u128(..), |shift| base ^ rng.u128(..).checked_shr(shift).unwrap_or(0));
        IpAddr::V6(bits.into())
    }

    /// A prefix around an address of the pool; host bits may be set.
    pub fn prefix(&self, rng: &mut Rng, long: bool) -> (IpAddr, u8) {
        let v4 = once_in(rng, 2);
        let width = if v4 { 32 } else { 128 };
        let lengths = if long { &[20, 24, 28, 31, 32][..] } else { &[0, 1, 8, 12, 16, 22, 24, 28, 31, 32] };
        let length = match rng.u8(..4) {
            0 if !long => rng.u8(0..=width),
            1 => width,
            _ if v4 => pick(rng, lengths),
            _ => pick(rng, lengths) * 4,
        };
        let address = if v4 { IpAddr::V4(pick(rng, &self.v4)) } else { IpAddr::V6(pick(rng, &self.v6)) };
        (address, length)
    }

    /// Members of `sets` dynamic sets, and dynamic entries (in half the cases none).
    pub fn world(&self, rng: &mut Rng, sets: usize) -> World {
        let mut members = Vec::new();
        for set in 0..sets {
            for _ in 0..rng.usize(0..6) {
                let long = rng.bool();
                let (address, length) = self.prefix(rng, long);
                members.push((SetId(set as u16), address, length));
            }
        }
        let count = if once_in(rng, 2) { 0 } else { rng.usize(1..8) };
        let entries = (1..=count as u64)
            .map(|id| {
                let (address, length) = self.prefix(rng, true);
                let port = once_in(rng, 2).then(|| pick(rng, &self.ports));
                DynamicEntry { id, ingress: rng.bool(), address, length, port, accept: rng.bool() }
            })
            .collect();
        World { members, entries }
    }
}
