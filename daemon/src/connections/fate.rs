//! What the programs of a generation will do with a connection's next packets, foretold from its tables.
//!
//! `datapath-ebpf/src/network/track.rs` is what this follows. The connection's first packet is judged once more, as new, on
//! its own chain. Passes it, the packets of both directions are judged as established. If not, the connection is
//! forgotten, and the next packet is one of no connection: where the rules let that in all the same it begins a
//! connection of its own, whose other direction is established. So it can matter who speaks next.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ringfence_abi::chain::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, STATE_ESTABLISHED, STATE_NEW};
use ringfence_abi::connection::{Connection, FLAG_MARK, FLAG_OUTBOUND, FLAG_REPLIED, Key};
use ringfence_abi::dynamic::V4;
use ringfence_engine::deep::{MESSAGE_OTHER, MESSAGE_REPLY, MESSAGE_REQUEST, query};
use ringfence_engine::fields::{FAMILY_V4, Fields};
use ringfence_engine::search::{Outcome, passes};
use ringfence_engine::track::{self, Segment, state_without};
use ringfence_policy::compile::{Compiled, CompiledChain};
use ringfence_policy::evaluate::{Described, Dynamics, judge_fields};

use super::TCP;
use crate::dynamic::keys;
use crate::interfaces::link::Framing;
use crate::interfaces::select::Demand;
use crate::interfaces::watch::Network;

const ACK: u32 = 16;
/// Kinds of interfaces that are tried for a forwarded connection.
const MAX_FAR: usize = 16;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its packets pass.
    GoesOn,
    /// Its packets are refused until the end that sent the first one (`true`), or the other one, sends.
    Waits(Refusal, bool),
    /// Its packets are refused.
    Cut(Refusal),
}

/// Who refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Index of the line in `Compiled::lines`.
    pub line: u32,
    /// Id of the dynamic entry, if it is one.
    pub entry: u64,
}

impl Fate {
    /// Grows with what is lost.
    #[must_use]
    pub fn severity(self) -> u8 {
        match self {
            Self::GoesOn => 0,
            Self::Waits(..) => 1,
            Self::Cut(_) => 2,
        }
    }
}

/// A generation's tables, and where they judge.
#[derive(Debug)]
pub struct Judge<'a> {
    // Ingress, egress.
    chains: [Option<&'a CompiledChain>; 2],
    tracks: bool,
    places: HashMap<u32, Place>,
    // What else a forwarded connection's packets may meet; none: they may pass by.
    far: Vec<Place>,
    local: &'a BTreeMap<IpAddr, u32>,
}

/// An interface.
#[derive(Clone, Copy, Debug)]
struct Place {
    ifindex: u32,
    loopback: bool,
    /// Packets are judged there.
    covered: bool,
    /// Its classes in both chains.
    classes: [u32; 2],
}

/// Where packets of one direction are judged.
#[derive(Clone, Copy, Debug)]
struct Hook {
    egress: bool,
    /// `None`: on the other side of this host, on an interface that is not known.
    place: Option<Place>,
}

/// The hooks that packets of one direction meet, in their order.
type Way = [Option<Hook>; 2];

/// A packet that is foretold.
#[derive(Clone, Copy, Debug)]
struct Packet {
    fields: Fields,
    mark: Option<u32>,
    segment: Segment,
}

impl<'a> Judge<'a> {
    /// Of a policy's tables on this network.
    #[must_use]
    pub fn new(compiled: &'a Compiled, demand: &Demand, network: &'a Network) -> Self {
        let chains = [compiled.ingress.as_ref(), compiled.egress.as_ref()];
        let class = |chain: Option<&CompiledChain>, name: &str| chain.map_or(0, |chain| chain.interfaces.class(name));
        let places = network.links.values().map(|link| {
            let place = Place {
                ifindex: link.index,
                loopback: link.loopback,
                covered: demand.covers(link, &network.default_routes) && !matches!(link.framing, Framing::Other(_)),
                classes: chains.map(|chain| class(chain, &link.name)),
            };
            (link.index, place)
        });
        let places: HashMap<_, _> = places.collect();
        let (far, tracks) = (far(&places), compiled.track.on != 0);
        Self { chains, tracks, places, far, local: &network.local }
    }

    /// What becomes of a connection. What nobody can know is taken to be as with its first packet (length, DSCP), or for the
    /// better: that it is below a rate, and of a forwarded one that it leaves by an interface where it passes.
    pub fn fate<D: Dynamics>(&self, key: &Key, connection: &Connection, dynamics: &D) -> Fate {
        // Interfaces that are gone are judged as those that no rule names.
        let gone = Place { ifindex: connection.ifindex, loopback: false, covered: true, classes: [0; 2] };
        let place = self.places.get(&connection.ifindex).copied().unwrap_or(gone);
        if !place.covered {
            return Fate::GoesOn;
        }
        let outbound = connection.flags & FLAG_OUTBOUND != 0;
        let replied = connection.flags & FLAG_REPLIED != 0;
        // Of a datagram that nobody has answered nobody need wait for an answer.
        let answered = replied || key.proto == TCP;
        let first = first(key, connection);
        let later = [later(key, &first, false), later(key, &first, true)];
        let ways = self.ways(&first.fields, outbound, place);
        if !self.tracks {
            let next = if replied { &later[0] } else { &first };
            let new = |packet: &Packet, way| self.refused(packet, way, |_| STATE_NEW, dynamics);
            let back = || if answered { new(&later[1], &ways[1]) } else { None };
            return new(next, &ways[0]).or_else(back).map_or(Fate::GoesOn, Fate::Cut);
        }
        let own = [Some(Hook { egress: outbound, place: Some(place) }), None];
        let first_refused = self.refused(&first, &own, |_| STATE_NEW, dynamics);
        if first_refused.is_none() && !answered {
            return Fate::GoesOn;
        }
        let established = |way: usize| self.refused(&later[way], &ways[way], |_| STATE_ESTABLISHED, dynamics);
        let later_refused = established(0).or_else(|| established(1));
        let Some(refusal) = first_refused else { return later_refused.map_or(Fate::GoesOn, Fate::Cut) };
        if later_refused.is_some() {
            return Fate::Cut(refusal);
        }
        let begins = |way: usize| {
            let segment = &later[way].segment;
            let state = |egress: bool| state_without(&Segment { egress: egress.into(), ..*segment });
            self.refused(&later[way], &ways[way], state, dynamics).is_none()
        };
        match (replied && begins(0), begins(1)) {
            (true, true) => Fate::GoesOn,
            (true, false) => Fate::Waits(refusal, true),
            (false, true) => Fate::Waits(refusal, false),
            (false, false) => Fate::Cut(refusal),
        }
    }

    /// The ways of both directions.
    fn ways(&self, first: &Fields, outbound: bool, place: Place) -> [Way; 2] {
        let near = |egress| Some(Hook { egress, place: Some(place) });
        if place.loopback {
            return [[near(true), near(false)]; 2];
        }
        let far = |egress| if self.is_forwarded(first) { Some(Hook { egress, place: None }) } else { None };
        [[near(outbound), far(!outbound)], [near(!outbound), far(outbound)]]
    }

    fn is_forwarded(&self, first: &Fields) -> bool {
        let here = |words| {
            let address = keys::address(words, first.family == FAMILY_V4);
            let everybodys = address.is_multicast() || address == std::net::Ipv4Addr::BROADCAST;
            everybodys || self.local.contains_key(&address)
        };
        !here(first.dst) && !here(first.src)
    }

    /// Who refuses a packet on its way.
    fn refused<D: Dynamics>(
        &self,
        packet: &Packet,
        way: &Way,
        state: impl Fn(bool) -> u32,
        dynamics: &D,
    ) -> Option<Refusal> {
        way.iter().flatten().find_map(|hook| {
            let refused_at = |place: &Place| self.refused_at(packet, hook.egress, place, state(hook.egress), dynamics);
            match &hook.place {
                Some(place) => refused_at(place),
                None => self.far.iter().try_fold(None, |_, place| refused_at(place).map(Some)).flatten(),
            }
        })
    }

    fn refused_at<D: Dynamics>(
        &self,
        packet: &Packet,
        egress: bool,
        place: &Place,
        state: u32,
        dynamics: &D,
    ) -> Option<Refusal> {
        let chain = self.chains[usize::from(egress)].filter(|_| place.covered)?;
        if chain.consts.audit != 0 {
            return None;
        }
        let described = Described {
            fields: &packet.fields,
            egress,
            ifindex: place.ifindex,
            interface: place.classes[usize::from(egress)],
            mark: packet.mark,
            state,
        };
        let judgement = judge_fields(chain, &described, dynamics);
        let Outcome { line, .. } = judgement.outcome;
        let refusal = Refusal { line: chain.consts.counter_base + line, entry: judgement.entry };
        (!passes(judgement.outcome)).then_some(refusal)
    }
}

/// An interface of each kind that the rules tell apart; none where some are not judged, or there are too many kinds to try.
fn far(places: &HashMap<u32, Place>) -> Vec<Place> {
    let outside = places.values().filter(|place| !place.loopback);
    let kinds: BTreeMap<_, _> = outside.map(|place| ((place.covered, place.classes), *place)).collect();
    let sure = kinds.len() <= MAX_FAR && kinds.values().all(|place| place.covered);
    if sure { kinds.into_values().collect() } else { Vec::new() }
}

/// The first packet, as the programs judge it once more.
fn first(key: &Key, connection: &Connection) -> Packet {
    let mut fields = Fields::default();
    track::first(key, connection, &mut fields);
    let mark = (connection.flags & FLAG_MARK != 0).then_some(connection.mark);
    Packet { fields, mark, segment: Segment::default() }
}

/// A packet that comes later, of the first one's direction or (`back`) the other.
fn later(key: &Key, first: &Packet, back: bool) -> Packet {
    let mut fields = first.fields;
    if back {
        (fields.src, fields.dst) = (fields.dst, fields.src);
        (fields.sport, fields.dport) = (fields.dport, fields.sport);
    }
    let mut segment = Segment { proto: key.proto.into(), message: MESSAGE_OTHER, ..Segment::default() };
    if key.proto == TCP {
        fields.proto = PROTO_TCP + ACK;
        segment.flags = ACK;
    }
    if let Some((proto, message)) = message(key, fields.proto, back) {
        (fields.proto, segment.message) = (proto, message);
    }
    // Where packets have marks, these have none that anybody could know.
    let mark = if back { 0 } else { first.mark.unwrap_or(0) };
    Packet { fields, mark: Some(mark), segment }
}

/// Of an ICMP query: the index of a later message, and what it is.
fn message(key: &Key, first: u32, back: bool) -> Option<(u32, u32)> {
    let v6 = key.family != V4;
    let base = if v6 { PROTO_ICMPV6 } else { PROTO_ICMP };
    let kind = first.checked_sub(base).filter(|kind| *kind < 0x1_0000)? >> 8;
    let (request, mut message) = query(v6, kind)?;
    if back {
        message = MESSAGE_REPLY + MESSAGE_REQUEST - message;
    }
    let kind = match (message == MESSAGE_REQUEST, request) {
        (true, request) => request,
        (false, 8) if !v6 => 0,
        (false, request) => request + 1,
    };
    Some((base + (kind << 8), message))
}

#[cfg(test)]
#[path = "tests/fate.rs"]
pub(super) mod tests;
