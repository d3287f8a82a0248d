//! `ringctl connections`: which are asked for, and how they are shown.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use ringfence_abi::connection::{
    Connection, FLAG_FROM_LOW, FLAG_OUTBOUND, FLAG_PICKED_UP, FLAG_REFUSED, FLAG_REPLIED, KILLED, Key, TIMEOUT_NAMES,
    half_in, half_out,
};
use ringfence_abi::dynamic::V4;
use ringfence_api::{
    CONNECTION_STATES, ConnectionDirection, ConnectionFilter, Connections, ConnectionsQuery, IcmpQuery,
    LISTED_CONNECTIONS, MAX_LISTED_CONNECTIONS, PoolSize, Prefix, Traffic,
};
use ringfence_policy::services::{PROTOCOLS, protocol, protocol_name};

use super::{TCP, clock};
use crate::daemon::{Control, Daemon};
use crate::dynamic::keys;
use crate::dynamic::session::Session;
use crate::error::{Error, Result};
use crate::interfaces::watch::{self, Network};
use crate::kernel::{Loaded, Pool};

const SECOND: u64 = 1_000_000_000;
const ICMP: [u8; 2] = [1, 58];
/// TCP, UDP, SCTP, UDP-Lite, DCCP: whose ports the programs read.
const WITH_PORTS: [u8; 5] = [6, 17, 132, 136, 33];

impl Daemon {
    /// The newest connections that fit, and how full the pools are.
    pub fn connections(&self, query: &ConnectionsQuery) -> Result<Connections> {
        let wanted = Wanted::new(&query.filter())?;
        let limit = query.limit.unwrap_or(LISTED_CONNECTIONS);
        if limit > MAX_LISTED_CONNECTIONS {
            return Err(Error::BadInput(format!("a limit of more than {MAX_LISTED_CONNECTIONS} connections")));
        }
        let control = self.control();
        let loaded = self.follower(&control)?;
        let now = clock();
        let mut newest = Newest { limit, found: Vec::new() };
        let mut sizes = [0; 3];
        let mut matched = 0;
        loaded.for_each_connection(|pool, key, connection| {
            if connection.expires <= now {
                return;
            }
            sizes[pool as usize] += 1;
            if wanted.fits(pool, key, connection) {
                matched += 1;
                newest.push(Found { pool, key: *key, connection: *connection });
            }
        })?;
        let capacity = loaded.connection_capacity();
        drop(control);
        let network = watch::lock(&self.network).clone();
        let connections: Vec<_> = newest.finish().iter().map(|one| one.shown(now, &network)).collect();
        let left_out = u64::saturating_sub(matched, connections.len() as u64);
        let capacities = [capacity, half_in(capacity), half_out(capacity)];
        let pools = ringfence_api::Pool::ALL.into_iter().zip(sizes).zip(capacities);
        let pools =
            pools.map(|((pool, connections), capacity)| PoolSize { pool, connections, capacity: capacity.into() });
        Ok(Connections { connections, matched, left_out, pools: pools.collect() })
    }

    /// The generation in force, if it follows connections.
    pub(super) fn follower<'a>(&self, control: &'a Control) -> Result<&'a Loaded> {
        if self.is_off() {
            return Err(Error::Off);
        }
        let nothing = || Error::No("no policy is in force: `ringctl apply` first".to_owned());
        let loaded = &control.running.as_ref().ok_or_else(nothing)?.loaded;
        if !loaded.tracks() {
            return Err(Error::No("the policy in force follows no connections: no rule reads `state`".to_owned()));
        }
        Ok(loaded)
    }
}

/// A connection that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Where.
    pub pool: Pool,
    /// Its key.
    pub key: Key,
    /// As it was then.
    pub connection: Connection,
}

impl Found {
    /// Address and port of whoever sent the first packet, and of where it went.
    pub fn ends(&self) -> [(IpAddr, u16); 2] {
        ends(&self.key, &self.connection)
    }

    /// Whether it carries this session.
    pub fn carries(&self, session: &Session) -> bool {
        let ends = self.ends().map(|(address, port)| SocketAddr::new(address, port));
        self.key.proto == TCP && (ends == [session.peer, session.local] || ends == [session.local, session.peer])
    }

    /// In the words of the API.
    pub fn shown(&self, now: u64, network: &Network) -> ringfence_api::Connection {
        let Self { pool, key, connection } = self;
        let [(from, from_port), (to, to_port)] = self.ends();
        let is = |flag: u16| connection.flags & flag != 0;
        let port = |port: u16| WITH_PORTS.contains(&key.proto).then_some(port);
        let traffic = |way: usize| Traffic { packets: connection.packets[way], bytes: connection.bytes[way] };
        ringfence_api::Connection {
            family: if key.family == V4 { "ipv4" } else { "ipv6" }.to_owned(),
            proto: protocol_name(key.proto).map_or_else(|| key.proto.to_string(), str::to_owned),
            from,
            from_port: port(from_port),
            to,
            to_port: port(to_port),
            icmp: ICMP.contains(&key.proto).then_some(IcmpQuery { r#type: key.high_port & 0xff, id: key.low_port }),
            state: word(state(connection)),
            pool: named(*pool),
            direction: if is(FLAG_OUTBOUND) { ConnectionDirection::Outbound } else { ConnectionDirection::Inbound },
            replied: is(FLAG_REPLIED),
            picked_up: is(FLAG_PICKED_UP),
            sent: traffic(0),
            received: traffic(1),
            age: now.saturating_sub(connection.created) / SECOND,
            expires: connection.expires.saturating_sub(now).div_ceil(SECOND),
            interface: network.links.get(&connection.ifindex).map(|link| link.name.clone()),
        }
    }
}

/// Address and port of whoever sent the first packet, and of where it went.
fn ends(key: &Key, connection: &Connection) -> [(IpAddr, u16); 2] {
    let address = |words| keys::address(words, key.family == V4);
    let (low, high) = ((address(key.low), key.low_port), (address(key.high), key.high_port));
    if connection.flags & FLAG_FROM_LOW != 0 { [low, high] } else { [high, low] }
}

fn named(pool: Pool) -> ringfence_api::Pool {
    match pool {
        Pool::Established => ringfence_api::Pool::Established,
        Pool::In => ringfence_api::Pool::HalfIn,
        Pool::Out => ringfence_api::Pool::HalfOut,
    }
}

/// Stands for [`FLAG_REFUSED`] among the states.
const REFUSED: u8 = KILLED - 1;

/// The state that is shown and asked for.
fn state(connection: &Connection) -> u8 {
    let refused = connection.flags & FLAG_REFUSED != 0 && connection.state != KILLED;
    if refused { REFUSED } else { connection.state }
}

/// A state's name; a number if there is none.
fn word(state: u8) -> String {
    match state {
        KILLED => return ringfence_api::KILLED.to_owned(),
        REFUSED => return ringfence_api::REFUSED.to_owned(),
        _ => {}
    }
    TIMEOUT_NAMES.get(usize::from(state)).map_or_else(|| state.to_string(), |&name| name.to_owned())
}

/// A filter, understood.
#[derive(Debug)]
pub struct Wanted {
    proto: Option<u8>,
    from: Option<Prefix>,
    to: Option<Prefix>,
    port: Option<u16>,
    state: Option<u8>,
    pool: Option<ringfence_api::Pool>,
}

impl Wanted {
    /// Fails with everything that is wrong about it.
    pub fn new(filter: &ConnectionFilter) -> Result<Self> {
        let mut wrong = Vec::new();
        let mut understood = |text: &Option<String>, read: fn(&str) -> std::result::Result<u8, String>| {
            text.as_deref().and_then(|text| read(text).map_err(|complaint| wrong.push(complaint)).ok())
        };
        let proto = understood(&filter.proto, proto_number);
        let state = understood(&filter.state, state_number);
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from.address().is_ipv4() != to.address().is_ipv4()
        {
            wrong.push(format!("{from} and {to} are not of one family: no connection is between them"));
        }
        if filter.port.is_some() && proto.is_some_and(|proto| !WITH_PORTS.contains(&proto)) {
            let proto = filter.proto.as_deref().unwrap_or_default().escape_debug();
            wrong.push(format!("protocol {proto} has no ports"));
        }
        if !wrong.is_empty() {
            return Err(Error::BadInput(wrong.join("; ")));
        }
        let ConnectionFilter { from, to, port, pool, .. } = *filter;
        Ok(Self { proto, from, to, port, state, pool })
    }

    /// Whether a connection fits.
    pub fn fits(&self, pool: Pool, key: &Key, connection: &Connection) -> bool {
        let [(from, _), (to, to_port)] = ends(key, connection);
        let port = WITH_PORTS.contains(&key.proto).then_some(to_port);
        self.proto.is_none_or(|proto| proto == key.proto)
            && self.from.is_none_or(|prefix| prefix.contains(from))
            && self.to.is_none_or(|prefix| prefix.contains(to))
            && self.port.is_none_or(|wanted| port == Some(wanted))
            && self.state.is_none_or(|wanted| wanted == state(connection))
            && self.pool.is_none_or(|wanted| wanted == named(pool))
    }
}

fn proto_number(text: &str) -> std::result::Result<u8, String> {
    text.parse().ok().or_else(|| protocol(text)).ok_or_else(|| {
        let known: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        format!("unknown protocol `{}`: a number up to 255, or {}", text.escape_debug(), known.join(", "))
    })
}

fn state_number(text: &str) -> std::result::Result<u8, String> {
    match CONNECTION_STATES.iter().position(|name| *name == text) {
        Some(_) if text == ringfence_api::KILLED => Ok(KILLED),
        Some(_) if text == ringfence_api::REFUSED => Ok(REFUSED),
        Some(index) => Ok(index as u8),
        None => Err(format!("unknown state `{}`: {}", text.escape_debug(), CONNECTION_STATES.join(", "))),
    }
}

/// The newest of what is found, in bounded memory.
#[derive(Debug)]
struct Newest {
    limit: usize,
    found: Vec<Found>,
}

impl Newest {
    fn push(&mut self, one: Found) {
        self.found.push(one);
        if self.found.len() >= 2 * self.limit + 1024 {
            self.cut();
        }
    }

    /// Newest first, each once: one that is promoted meanwhile is in two pools, or seen in both.
    fn cut(&mut self) {
        self.found.sort_unstable_by_key(|one| (Reverse(one.connection.created), one.key, one.pool as u8));
        self.found.dedup_by_key(|one| one.key);
        self.found.truncate(self.limit);
    }

    fn finish(mut self) -> Vec<Found> {
        self.cut();
        self.found
    }
}

#[cfg(test)]
mod tests {
    use ringfence_abi::connection::{TCP_SYN, UDP_REPLIED};
    use ringfence_engine::deep::Endpoints;
    use ringfence_engine::fields::{FAMILY_V4, FAMILY_V6};
    use ringfence_engine::track::key_of;

    use super::*;

    /// A connection of these ends.
    fn found(from: &str, to: &str, proto: u8, created: u64) -> Found {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let ends = Endpoints {
            src: keys::words(from.ip()),
            dst: keys::words(to.ip()),
            sport: from.port().into(),
            dport: to.port().into(),
            proto: proto.into(),
            family: if from.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 },
        };
        let mut key = Key::default();
        let flags = if key_of(&ends, &mut key) { FLAG_FROM_LOW } else { 0 };
        let connection = Connection { created, flags, state: TCP_SYN, ..Connection::default() };
        Found { pool: Pool::In, key, connection }
    }

    fn filter(change: impl FnOnce(&mut ConnectionFilter)) -> Wanted {
        let mut filter = ConnectionFilter::default();
        change(&mut filter);
        Wanted::new(&filter).unwrap()
    }

    #[test]
    fn the_api_has_a_word_for_every_state() {
        assert_eq!(CONNECTION_STATES[..8], TIMEOUT_NAMES);
        for (index, name) in CONNECTION_STATES.iter().enumerate() {
            let number = state_number(name).unwrap();
            assert!(usize::from(number) == index || number >= REFUSED, "{name}");
            assert_eq!(word(number), *name);
        }
        assert_eq!((word(8), word(9)), ("8".to_owned(), "9".to_owned()));
    }

    #[test]
    fn whoever_began_it_is_from_whatever_the_order_in_the_key() {
        for (from, to) in [
            ("192.0.2.2:4000", "192.0.2.1:80"),
            ("192.0.2.1:4000", "192.0.2.2:80"),
            ("[2001:db8::2]:4000", "[2001:db8::1]:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:4000"),
        ] {
            let one = found(from, to, 6, 0).shown(0, &Network::default());
            assert_eq!(one.to_string(), format!("tcp {from} -> {to}"));
            assert_eq!((one.family == "ipv4", one.interface), (from.starts_with('1'), None));
        }
    }

    #[test]
    fn protocols_without_ports_show_none() {
        let one = found("192.0.2.2:7", "192.0.2.1:8", 1, 0);
        let shown = one.shown(0, &Network::default());
        assert_eq!((shown.from_port, shown.to_port), (None, None));
        assert_eq!(shown.icmp, Some(IcmpQuery { r#type: 8, id: 7 }));
        assert!(!filter(|f| f.port = Some(8)).fits(one.pool, &one.key, &one.connection));
        let other = found("192.0.2.2:0", "192.0.2.1:0", 200, 0).shown(0, &Network::default());
        assert_eq!((other.proto.as_str(), other.icmp, other.from_port), ("200", None, None));
    }

    #[test]
    fn everything_that_is_said_must_fit() {
        let mut one = found("192.0.2.2:4000", "192.0.2.1:80", 6, 0);
        let fits =
            |one: &Found, change: fn(&mut ConnectionFilter)| filter(change).fits(one.pool, &one.key, &one.connection);
        assert!(fits(&one, |_| ()));
        assert!(fits(&one, |f| f.from = "192.0.2.2".parse().ok()));
        assert!(!fits(&one, |f| f.to = "192.0.2.2".parse().ok()), "the other end");
        assert!(fits(&one, |f| f.to = "192.0.2.0/24".parse().ok()));
        assert!(fits(&one, |f| f.port = Some(80)) && !fits(&one, |f| f.port = Some(4000)));
        assert!(fits(&one, |f| f.proto = Some("tcp".into())) && !fits(&one, |f| f.proto = Some("17".into())));
        assert!(fits(&one, |f| f.pool = Some(ringfence_api::Pool::HalfIn)));
        assert!(!fits(&one, |f| f.pool = Some(ringfence_api::Pool::Established)));
        assert!(fits(&one, |f| f.state = Some("tcp-syn".into())));
        one.connection.state = UDP_REPLIED;
        assert!(!fits(&one, |f| f.state = Some("tcp-syn".into())));
    }

    #[test]
    fn every_mistake_in_a_filter_is_named() {
        let wrong = ConnectionFilter {
            proto: Some("tpc".into()),
            state: Some("open".into()),
            from: "192.0.2.1".parse().ok(),
            to: "2001:db8::1".parse().ok(),
            ..ConnectionFilter::default()
        };
        let text = Wanted::new(&wrong).unwrap_err().to_string();
        for part in ["unknown protocol `tpc`", "sctp", "unknown state `open`", "tcp-closing", "not of one family"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let ports = ConnectionFilter { proto: Some("icmp".into()), port: Some(8), ..ConnectionFilter::default() };
        assert!(Wanted::new(&ports).unwrap_err().to_string().contains("has no ports"));
    }

    #[test]
    fn the_newest_are_kept_and_each_once() {
        let mut newest = Newest { limit: 2, found: Vec::new() };
        for created in 0..5_000 {
            let one = found(&format!("192.0.2.2:{}", created + 1), "192.0.2.1:80", 6, created);
            newest.push(one);
            // In the other pool, too.
            newest.push(Found { pool: Pool::Established, ..one });
            assert!(newest.found.len() < 2_000);
        }
        let kept = newest.finish();
        let kept: Vec<_> = kept.iter().map(|one| (one.connection.created, one.pool)).collect();
        assert_eq!(kept, [(4_999, Pool::Established), (4_998, Pool::Established)]);
    }
}
