//! The policy as the compiler, the oracle and the reports see it: valid by construction, names resolved, groups and
//! `when` blocks flattened, every rule with the place it was written at.
//!
//! [`crate::document`] makes it from YAML; nothing here knows YAML.

mod connections;
mod host;
mod limit;
mod matches;

use std::sync::Arc;

pub use self::connections::{Connections, STATES};
pub use self::host::*;
pub use self::limit::{Add, Limit, Per, Quantity, Rate};
pub use self::matches::*;
use crate::ranges::AddressRanges;

/// A whole policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `mode:` of the file.
    pub mode: Mode,
    /// The files it was read from; [`Location::file`] is an index here.
    pub files: Vec<String>,
    /// Dynamic sets in name order, then the built-in ones that some rule reads; [`SetId`] is an index here.
    pub dynamic_sets: Vec<DynamicSet>,
    /// `network: interfaces:`; `None` means the default selection.
    pub interfaces: Option<Vec<NameGlob>>,
    /// Lines of the floor that are in force, in the order of [`ringfence_abi::counter::FLOOR_NAMES`].
    pub floor: [bool; 7],
    /// How connections are remembered, where some rule asks for their state.
    pub connections: Connections,
    /// Packets that arrive. A policy without `network` has `None` in both.
    pub ingress: Option<Chain>,
    /// Packets that leave.
    pub egress: Option<Chain>,
    /// What processes may do.
    pub host: HostChain,
    /// `tests:` about packets.
    pub tests: Vec<PacketTest>,
    /// `tests:` about accesses.
    pub access_tests: Vec<AccessTest>,
}

impl Policy {
    /// The policy that says nothing and lets everything pass.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            mode: Mode::Enforce,
            files: Vec::new(),
            dynamic_sets: Vec::new(),
            interfaces: None,
            floor: [true; 7],
            connections: Connections::default(),
            ingress: None,
            egress: None,
            host: HostChain::implicit(),
            tests: Vec::new(),
            access_tests: Vec::new(),
        }
    }
}

impl Policy {
    /// Whether some rule needs to know of connections, so that both directions must be followed.
    #[must_use]
    pub fn tracks(&self) -> bool {
        let chains = [&self.ingress, &self.egress];
        chains.into_iter().flatten().any(|chain| chain.rules.iter().any(Rule::needs_connections))
    }
}

/// Whether refusals are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    Enforce,
    /// They are counted and let go.
    Audit,
}

/// A place in a policy file; line and column count from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Index into [`Policy::files`].
    pub file: u32,
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// Index into [`Policy::dynamic_sets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u16);

/// A set whose elements change while the policy is in force.
#[derive(Clone, Debug)]
pub struct DynamicSet {
    /// Name without the `$`.
    pub name: String,
    /// Where it was declared; `None` for a built-in one.
    pub at: Option<Location>,
    /// What fills it.
    pub kind: DynamicKind,
}

/// What fills a dynamic set.
#[derive(Clone, Debug)]
pub enum DynamicKind {
    /// `ringctl set add`, and rules with `add:`.
    Declared {
        /// Seconds an element stays unless said otherwise.
        timeout: Option<u64>,
        /// Elements at most.
        capacity: u32,
        /// What a new element meets when the set is full.
        full: WhenFull,
        /// Addresses that are never added.
        never: Arc<AddressRanges>,
    },
    /// `$local`: the addresses of this host, kept by the daemon.
    Local,
    /// `$gateways`: next hops of its routes.
    Gateways,
    /// `$resolvers`: the name servers of resolv.conf.
    Resolvers,
}

/// `full:` of a dynamic set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The addition fails, counted.
    Refuse,
    /// The element that expires first goes.
    EvictOldest,
}

/// One direction.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Verdict where no rule decides; never [`Verdict::Count`].
    pub default: Verdict,
    /// Where `default` was written.
    pub default_at: Location,
    /// `protect: syn-flood` for the whole chain: all that accept, the default too.
    pub protect: bool,
    /// Rules in order, flattened.
    pub rules: Vec<Rule>,
}

/// What a rule does to a packet it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Let it through.
    Accept,
    /// Drop it.
    Drop,
    /// Drop it and tell the sender.
    Reject,
    /// Count it and go on.
    Count,
}

impl Verdict {
    /// Drop or reject: what *unknown* matches.
    #[must_use]
    pub fn refuses(self) -> bool {
        matches!(self, Self::Drop | Self::Reject)
    }

    /// The word in the language and in every listing.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Count => "count",
        }
    }

    /// The byte in the tables ([`ringfence_abi::verdict`]).
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Accept => ringfence_abi::verdict::ACCEPT,
            Self::Drop => ringfence_abi::verdict::DROP,
            Self::Reject => ringfence_abi::verdict::REJECT,
            Self::Count => ringfence_abi::verdict::COUNT,
        }
    }
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Given, or `FILE:CHAIN[N]`; for a rule of a group `GROUP/NAME`.
    pub name: String,
    /// Whether the name was given: only then do counters carry over by name.
    pub named: bool,
    /// Where the rule was written (for a rule of a group: in the group).
    pub at: Location,
    /// What it does.
    pub verdict: Verdict,
    /// `mode: audit` on a drop or reject: reports, never decides.
    pub audit: bool,
    /// `protect: syn-flood` on an accept: TCP handshakes by SYN cookies.
    pub protect: bool,
    /// `limit:` beside it.
    pub limit: Option<Limit>,
    /// `add:` beside it.
    pub add: Option<Add>,
    /// What it matches.
    pub matches: Match,
}

impl Rule {
    /// Whether evaluation goes on after a match.
    #[must_use]
    pub fn continues(&self) -> bool {
        self.audit || self.verdict == Verdict::Count
    }

    /// Whether it may.
    #[must_use]
    pub fn may_continue(&self) -> bool {
        self.continues() || self.limit.is_some()
    }

    /// Whether it counts connections.
    #[must_use]
    pub fn counts_connections(&self) -> bool {
        self.limit.is_some_and(|limit| matches!(limit.of, Quantity::Connections(_)))
    }

    /// What it adds in fact: nothing in audit mode; without `unproven` it takes handshakes that it let through, or a limit of
    /// a rate that tells their sender.
    #[must_use]
    pub fn adds(&self) -> Option<Add> {
        let proves = match self.limit {
            Some(Limit { of: Quantity::Rate { rate, .. }, over: true, .. }) => !rate.bytes,
            Some(Limit { of: Quantity::Connections(_), .. }) => false,
            _ => !self.verdict.refuses(),
        };
        self.add.filter(|add| !self.audit && (add.unproven || proves))
    }

    fn needs_connections(&self) -> bool {
        self.matches.state.is_some() || self.counts_connections() || self.adds().is_some_and(|add| !add.unproven)
    }
}

/// One of `tests:`.
#[derive(Clone, Debug)]
pub struct PacketTest {
    /// Where it stands.
    pub at: Location,
    /// Whether the packet arrives or leaves.
    pub ingress: bool,
    /// The packet.
    pub packet: TestPacket,
    /// The verdict that must come.
    pub expect: Verdict,
    /// The rule that must decide, `default` included.
    pub rule: Option<String>,
}

/// A packet described by its fields, as `tests:` and `ringctl explain --packet` do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestPacket {
    /// Interface name; must be one the policy covers.
    pub interface: Option<String>,
    /// `from`.
    pub from: Option<std::net::IpAddr>,
    /// `to`.
    pub to: Option<std::net::IpAddr>,
    /// `proto`.
    pub proto: Option<u8>,
    /// `port`.
    pub port: Option<u16>,
    /// `source_port`.
    pub source_port: Option<u16>,
    /// `flags`, the whole byte.
    pub flags: Option<u8>,
    /// `icmp`: type and code.
    pub icmp: Option<(u8, u8)>,
    /// `vlan`.
    pub vlan: Option<u16>,
    /// `dscp`.
    pub dscp: Option<u8>,
    /// `mark`.
    pub mark: Option<u32>,
    /// `length`.
    pub length: Option<u16>,
    /// `fragment: true`: a later fragment.
    pub fragment: bool,
    /// `hop_limit`; 64 unless said.
    pub hop_limit: Option<u8>,
    /// `state`, index into [`STATES`].
    pub state: u8,
}
