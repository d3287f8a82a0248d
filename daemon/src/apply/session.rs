//! Whether a policy would cut the caller's own session: both directions of it are judged by the naive evaluator, with
//! the dynamic entries and sets as they are.

use std::net::{IpAddr, SocketAddr};

use ringfence_abi::chain::{STATE_ESTABLISHED, STATE_NEW};
use ringfence_api::{Direction, EntryVerb, Prefix};
use ringfence_policy::model::{Policy, SetId, TestPacket};
use ringfence_policy::oracle::{self, Context, DynamicEntry, Hook};

use super::candidate::Candidate;
use crate::daemon::Daemon;
use crate::dynamic::Dynamic;
use crate::dynamic::session::Session;
use crate::interfaces::link::Framing;
use crate::interfaces::watch::{self, Network};

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

impl Daemon {
    /// What would cut the session, in words.
    #[must_use]
    pub fn cuts(&self, candidate: &Candidate, sessions: &[Session]) -> Option<String> {
        let network = watch::lock(&self.network).clone();
        let dynamic = self.known();
        sessions.iter().find_map(|session| {
            let (rule, direction) = cut(candidate, session, &network, &dynamic)?;
            let verdict = format!("`{rule}` would refuse its {direction} packets");
            Some(format!("the policy would cut your own session from {}: {verdict}", session.peer))
        })
    }
}

fn cut(
    candidate: &Candidate,
    session: &Session,
    network: &Network,
    dynamic: &Dynamic,
) -> Option<(String, &'static str)> {
    let index = network.local.get(&session.local.ip())?;
    let link = network.links.get(index)?;
    if !candidate.demand.covers(link, &network.default_routes) {
        return None;
    }
    let entries = entries(dynamic);
    let judged = |from: SocketAddr, to: SocketAddr, ingress: bool, (flags, state): (u8, u32)| {
        let chain = if ingress { &candidate.policy.ingress } else { &candidate.policy.egress }.as_ref()?;
        let packet = TestPacket {
            interface: Some(link.name.clone()),
            from: Some(from.ip()),
            to: Some(to.ip()),
            proto: Some(TCP),
            port: Some(to.port()),
            source_port: Some(from.port()),
            flags: Some(flags),
            ..TestPacket::default()
        };
        let l3 = link.framing == Framing::Ip;
        let context = Context {
            hook: if ingress && !l3 && !candidate.demand.reads_mark { Hook::Xdp } else { Hook::Tc },
            ingress,
            interface: link.name.clone(),
            loopback: link.loopback,
            l3,
            segment: 0,
            tag: None,
            mark: Some(0),
            state: state as u8,
        };
        let frame = oracle::frame(&packet, l3).ok()?;
        let members = |set: SetId, address: IpAddr| is_member(&candidate.policy, dynamic, set, address);
        let decision = oracle::judge(&candidate.policy, &context, &oracle::parse(&frame, &context), &members, &entries);
        decision.verdict.refuses().then(|| oracle::line_name(chain, decision.line))
    };
    let under_way = (ACK, STATE_ESTABLISHED);
    // Connections are judged anew, each by its first packet.
    if candidate.policy.tracks()
        && let Some(rule) = judged(session.peer, session.local, true, (SYN, STATE_NEW))
    {
        return Some((rule, "first"));
    }
    if let Some(rule) = judged(session.peer, session.local, true, under_way) {
        return Some((rule, "arriving"));
    }
    judged(session.local, session.peer, false, under_way).map(|rule| (rule, "leaving"))
}

/// Whether an address is in a dynamic set of the policy.
#[must_use]
pub fn is_member(policy: &Policy, dynamic: &Dynamic, set: SetId, address: IpAddr) -> bool {
    let Some(set) = policy.dynamic_sets.get(usize::from(set.0)) else { return false };
    dynamic.sets().contains(&set.name, address)
}

/// The dynamic entries as the evaluator takes them.
#[must_use]
pub fn entries(dynamic: &Dynamic) -> Vec<DynamicEntry> {
    let each = |entry: &crate::dynamic::entries::Entry| {
        let ways: &[bool] = match entry.direction {
            Direction::In => &[true],
            Direction::Out => &[false],
            Direction::Both => &[true, false],
        };
        let prefix: Prefix = entry.target.address;
        let made = |&ingress: &bool| DynamicEntry {
            id: entry.id,
            ingress,
            address: prefix.address(),
            length: prefix.length(),
            port: entry.target.port,
            accept: entry.verb == EntryVerb::Allow,
        };
        ways.iter().map(made).collect::<Vec<_>>()
    };
    dynamic.entries().iter().flat_map(each).collect()
}
