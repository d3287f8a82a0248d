//! Connections that were there before anybody followed them, and those that are over; listing and ending them.

mod cut;
mod diag;
mod fate;
mod kill;
mod list;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use nix::time::{ClockId, clock_gettime};
use ringfence_abi::chain::{IP_FAMILY_SHIFT, PROTO_TCP, VLAN_ABSENT};
use ringfence_abi::connection::{
    Connection, FLAG_FROM_LOW, FLAG_OUTBOUND, FLAG_REPLIED, Key, TCP_ESTABLISHED, TIMEOUT_NAMES, UDP_REPLIED,
};
use ringfence_engine::deep::Endpoints;
use ringfence_engine::fields::{FAMILY_V4, FAMILY_V6};
use ringfence_engine::track::key_of;

use crate::apply::active::Active;
use crate::daemon::{Control, Daemon};
use crate::dynamic::keys;
use crate::dynamic::session::{Session, State, sockets};
use crate::error::Result;
use crate::interfaces::watch::Network;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u32 = 2;
/// Length of the first packet of a connection that nobody saw: a SYN with its usual options, from the network header on.
const LENGTH: u32 = 60;

/// Nanoseconds of the clock that connections expire by.
#[must_use]
pub fn clock() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}

impl Daemon {
    /// Gives a generation that follows connections those that this host's sockets have, unless the one before it followed
    /// them already. Each is judged by what its first packet must have been when its next one comes. Flows that are only
    /// forwarded are not known to any socket: the programs pick them up under way.
    pub fn adopt_connections(&self, control: &Control, active: &Active, network: &Network) -> Result<()> {
        let followed = control.running.as_ref().is_some_and(|running| running.loaded.tracks());
        let Some(meaning) = active.meaning.as_ref().filter(|_| active.loaded.tracks() && !followed) else {
            return Ok(());
        };
        let now = clock();
        let mut adopted = 0_usize;
        for (key, connection) in of_sockets(&network.local, &meaning.policy.connections.timeouts, now) {
            if !active.loaded.adopt_connection(&key, &connection)? {
                tracing::warn!(adopted, "not all connections fit into `connections: capacity`");
                return Ok(());
            }
            adopted += 1;
        }
        tracing::info!(adopted, "connections that were there are followed from now on");
        Ok(())
    }

    /// Takes out what has expired. The programs do so too, when there is no room left.
    pub fn expire_connections(&self, control: &Control) -> Result<()> {
        let Some(running) = control.running.as_ref().filter(|running| running.loaded.tracks()) else { return Ok(()) };
        let expired = running.loaded.expire_connections(clock())?;
        if expired > 0 {
            tracing::debug!(expired, "connections");
        }
        Ok(())
    }
}

/// The connections that this host's sockets have, each as if its first packet had been seen: TCP, and UDP that is connected.
/// `local` are the host's addresses with their interfaces, `timeouts` seconds of each state, `now` nanoseconds of [`clock`].
fn of_sockets(
    local: &BTreeMap<IpAddr, u32>,
    timeouts: &[u64; TIMEOUT_NAMES.len()],
    now: u64,
) -> impl Iterator<Item = (Key, Connection)> {
    let asking = asking_ports();
    let kinds = [(TCP, ["tcp", "tcp6"], TCP_ESTABLISHED), (UDP, ["udp", "udp6"], UDP_REPLIED)];
    kinds.into_iter().flat_map(move |(proto, tables, state)| {
        let tables = tables.map(|name| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default());
        let all: Vec<(Session, State)> = tables.iter().flat_map(|table| sockets(table)).collect();
        let listening: HashSet<u16> =
            all.iter().filter(|(_, state)| *state == State::Listening).map(|(one, _)| one.local.port()).collect();
        let expires = now + timeouts[usize::from(state)] * 1_000_000_000;
        let asking = asking.clone();
        all.into_iter().filter(|(_, state)| *state == State::Established).filter_map(move |(session, _)| {
            let ifindex = *local.get(&session.local.ip())?;
            let port = session.local.port();
            let began = asking.contains(&port) && !listening.contains(&port);
            let (key, connection) = first(&session, proto, began);
            Some((key, Connection { expires, created: now, ifindex, state, ..connection }))
        })
    })
}

/// The ports from which this host's own connections come, unless a program chooses another. Who began one from any other
/// port is taken to be the other side: rules about what arrives are the stricter ones.
fn asking_ports() -> RangeInclusive<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().filter_map(|end| end.parse().ok());
    match (ends.next(), ends.next()) {
        (Some(low), Some(high)) => low..=high,
        // The kernel's own default.
        _ => 32_768..=60_999,
    }
}

/// A socket's connection, as if its first packet had been seen; `began`: this host sent it.
fn first(session: &Session, proto: u8, began: bool) -> (Key, Connection) {
    let (from, to) = if began { (session.local, session.peer) } else { (session.peer, session.local) };
    let family = if from.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
    let ends = Endpoints {
        src: keys::words(from.ip()),
        dst: keys::words(to.ip()),
        sport: from.port().into(),
        dport: to.port().into(),
        proto: proto.into(),
        family,
    };
    let mut key = Key::default();
    let from_low = key_of(&ends, &mut key);
    let flags = FLAG_REPLIED | if from_low { FLAG_FROM_LOW } else { 0 } | if began { FLAG_OUTBOUND } else { 0 };
    let connection = Connection {
        proto: if proto == TCP { PROTO_TCP + SYN } else { proto.into() },
        length: LENGTH,
        ip: (family << IP_FAMILY_SHIFT) as u16,
        vlan: VLAN_ABSENT as u16,
        flags,
        ..Connection::default()
    };
    (key, connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_came_in_begins_with_its_peer() {
        let session = Session { local: "192.0.2.1:22".parse().unwrap(), peer: "203.0.113.5:4000".parse().unwrap() };
        let (key, connection) = first(&session, TCP, false);
        assert_eq!((key.low_port, key.high_port, key.proto), (22, 4000, TCP));
        assert_eq!(connection.flags, FLAG_REPLIED, "neither from the low end nor outbound");
        let (same, began) = first(&session, TCP, true);
        assert_eq!((same, began.flags), (key, FLAG_REPLIED | FLAG_FROM_LOW | FLAG_OUTBOUND));
        let v6 = Session { local: "[2001:db8::1]:22".parse().unwrap(), peer: "[2001:db8::5]:4000".parse().unwrap() };
        let (key, connection) = first(&v6, UDP, false);
        assert_eq!(key.low, [0x2001_0db8_0000_0000, 1]);
        assert_eq!((connection.proto, u32::from(connection.ip)), (17, FAMILY_V6 << IP_FAMILY_SHIFT));
    }
}
