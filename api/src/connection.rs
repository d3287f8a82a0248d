//! Connections that the policy in force follows.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Prefix;

/// The most connections in one answer.
pub const MAX_LISTED_CONNECTIONS: usize = 65_536;
/// Connections in an answer unless said otherwise.
pub const LISTED_CONNECTIONS: usize = 1_000;
/// The most that one request ends.
pub const MAX_KILLED_CONNECTIONS: usize = 65_536;
/// The state of a connection that was killed.
pub const KILLED: &str = "killed";
/// The states, [`KILLED`] the last of them.
pub const CONNECTION_STATES: [&str; 9] =
    ["tcp-syn", "tcp-established", "tcp-closing", "tcp-closed", "udp", "udp-replied", "icmp", "other", KILLED];

/// Which pool a connection is in. None of them pushes anything out of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// The other side is proven to be there.
    Established,
    /// Came in, not proven.
    HalfIn,
    /// This host began it, nobody has answered.
    HalfOut,
}

impl Pool {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Established, Self::HalfIn, Self::HalfOut];

    /// Its name.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::HalfIn => "half-in",
            Self::HalfOut => "half-out",
        }
    }
}

/// Which connections: those that fit everything that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionFilter {
    /// `tcp`, `udp` and the like, or a number.
    pub proto: Option<String>,
    /// Whoever sent the first packet.
    pub from: Option<Prefix>,
    /// Where it went.
    pub to: Option<Prefix>,
    /// The port it went to.
    pub port: Option<u16>,
    /// One of [`CONNECTION_STATES`].
    pub state: Option<String>,
    /// Its pool.
    pub pool: Option<Pool>,
}

/// Query of `GET /v1/connections`: a [`ConnectionFilter`] and a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConnectionsQuery {
    /// `tcp`, `udp` and the like, or a number.
    pub proto: Option<String>,
    /// Whoever sent the first packet.
    #[param(value_type = Option<String>)]
    pub from: Option<Prefix>,
    /// Where it went.
    #[param(value_type = Option<String>)]
    pub to: Option<Prefix>,
    /// The port it went to.
    pub port: Option<u16>,
    /// A state by its name.
    pub state: Option<String>,
    /// `established`, `half-in` or `half-out`.
    #[param(value_type = Option<String>)]
    pub pool: Option<Pool>,
    /// The most connections in the answer, up to 65,536; 1,000 unless said. 0: only the numbers.
    pub limit: Option<usize>,
}

impl ConnectionsQuery {
    /// A query for what fits.
    #[must_use]
    pub fn new(filter: ConnectionFilter, limit: Option<usize>) -> Self {
        let ConnectionFilter { proto, from, to, port, state, pool } = filter;
        Self { proto, from, to, port, state, pool, limit }
    }

    /// What is asked for.
    #[must_use]
    pub fn filter(&self) -> ConnectionFilter {
        let Self { proto, from, to, port, state, pool, limit: _ } = self.clone();
        ConnectionFilter { proto, from, to, port, state, pool }
    }

    /// Names and values as they stand in a URL, before they are escaped.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, String)> {
        let parts = [
            ("proto", self.proto.clone()),
            ("from", self.from.map(|from| from.to_string())),
            ("to", self.to.map(|to| to.to_string())),
            ("port", self.port.map(|port| port.to_string())),
            ("state", self.state.clone()),
            ("pool", self.pool.map(|pool| pool.word().to_owned())),
            ("limit", self.limit.map(|limit| limit.to_string())),
        ];
        parts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// What is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// The newest that fit, newest first.
    pub connections: Vec<Connection>,
    /// How many fit.
    pub matched: u64,
    /// How many of them are not in `connections`, which is bounded.
    pub left_out: u64,
    /// Every pool, whatever was asked for.
    pub pools: Vec<PoolSize>,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolSize {
    /// Which.
    pub pool: Pool,
    /// Connections in it.
    pub connections: u64,
    /// Connections that there is room for.
    pub capacity: u64,
}

/// Who began a connection, as this host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConnectionDirection {
    /// Its first packet arrived.
    Inbound,
    /// Its first packet left.
    Outbound,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Its name, such as `tcp`, or its number.
    pub proto: String,
    /// Whoever sent the first packet.
    #[schema(value_type = String)]
    pub from: IpAddr,
    /// `null` for a protocol without ports.
    pub from_port: Option<u16>,
    /// Where it went.
    #[schema(value_type = String)]
    pub to: IpAddr,
    /// `null` for a protocol without ports.
    pub to_port: Option<u16>,
    /// Of an ICMP query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpQuery>,
    /// One of [`CONNECTION_STATES`].
    pub state: String,
    /// Its pool.
    pub pool: Pool,
    /// Who began it.
    pub direction: ConnectionDirection,
    /// The other side has answered.
    pub replied: bool,
    /// It was found under way: who began it is a guess.
    pub picked_up: bool,
    /// From `from` to `to`.
    pub sent: Traffic,
    /// The other way.
    pub received: Traffic,
    /// Seconds since the first packet.
    pub age: u64,
    /// Seconds until it is forgotten if nothing more comes.
    pub expires: u64,
    /// The first packet's interface; `null` when it is gone.
    pub interface: Option<String>,
}

/// What went one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Packets; one that is forwarded counts where it comes in and where it leaves.
    pub packets: u64,
    /// Their bytes from the network header on.
    pub bytes: u64,
}

/// What tells ICMP queries apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IcmpQuery {
    /// Type of the requests.
    pub r#type: u16,
    /// Their identifier.
    pub id: u16,
}

impl fmt::Display for Connection {
    /// `tcp 203.0.113.5:4000 -> 192.0.2.1:22`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} -> {}", self.proto, end(self.from, self.from_port), end(self.to, self.to_port))
    }
}

/// An address with its port, if there is one.
#[must_use]
pub fn end(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// The most connections that an apply names.
pub const LISTED_CUT: usize = 20;

/// What a policy does to the connections that are there when it comes into force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutConnections {
    /// Of those that it cuts at most [`LISTED_CUT`]: the caller's own session first, then the proven and newest.
    pub connections: Vec<CutConnection>,
    /// How many it cuts.
    pub total: u64,
    /// How many of them are not in `connections`.
    pub left_out: u64,
    /// How many were judged.
    pub judged: u64,
}

/// A connection that goes on today and does not under a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutConnection {
    /// As it was.
    pub connection: Connection,
    /// The rule of the policy that refuses it, `default`, or `dynamic/ID`.
    pub rule: String,
    /// `ingress` or `egress`.
    pub chain: String,
    /// Where the rule is written; `null` where it is built in.
    pub file: Option<String>,
    /// Line there.
    pub line: Option<u32>,
    /// Packets are refused until this end sends one, which the rules take for the beginning of a connection; `null`: for
    /// good.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub until: Option<IpAddr>,
    /// It carries the caller's own session.
    #[serde(default)]
    pub own: bool,
}

/// `ringctl connections --kill`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KillRequest {
    /// Which; those killed already do not count.
    pub filter: ConnectionFilter,
    /// All that fit, not exactly one; at most 65,536.
    pub all: bool,
    /// Also the one that carries the caller's session.
    pub force: bool,
}

/// What was ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KillAnswer {
    /// The connections as they were.
    pub killed: Vec<Killed>,
    /// How long the programs drop their packets.
    pub seconds: u64,
}

/// A connection that was ended: the programs drop its packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Killed {
    /// As it was.
    pub connection: Connection,
    /// What became of this host's socket.
    pub socket: SocketEnd,
    /// Why it could not be closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// What became of the socket of a killed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SocketEnd {
    /// Closed: its program sees an error at once.
    Destroyed,
    /// It is no TCP connection of this host.
    None,
    /// The kernel did not close it; its program sees no more packets.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_only_what_was_asked_for() {
        assert!(ConnectionsQuery::default().parts().is_empty());
        let filter = ConnectionFilter {
            from: "192.0.2.0/24".parse().ok(),
            pool: Some(Pool::HalfIn),
            ..ConnectionFilter::default()
        };
        let query = ConnectionsQuery::new(filter.clone(), Some(5));
        let parts = [("from", "192.0.2.0/24"), ("pool", "half-in"), ("limit", "5")];
        assert_eq!(query.parts(), parts.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(query.filter(), filter);
    }

    #[test]
    fn words_are_those_of_the_json() {
        for pool in Pool::ALL {
            assert_eq!(serde_json::to_value(pool).unwrap(), pool.word());
        }
    }
}
