//! The constants of connection tracking.

use ringfence_abi::{chain::STATE_ESTABLISHED, connection::TrackConsts};

use crate::model::{Chain, Match, Policy, Rule};

/// The constants, and how many connections are remembered.
pub(super) fn compile(policy: &Policy) -> (TrackConsts, u32) {
    if !policy.tracks() {
        return (TrackConsts::default(), 0);
    }
    let [ingress, egress] =
        [&policy.ingress, &policy.egress].map(|chain| u32::from(chain.as_ref().is_some_and(cacheable)));
    let counts = [&policy.ingress, &policy.egress]
        .into_iter()
        .flatten()
        .any(|chain| chain.rules.iter().any(Rule::counts_connections));
    let timeouts = policy.connections.timeouts.map(|seconds| seconds * 1_000_000_000);
    (
        TrackConsts {
            timeouts,
            on: 1,
            cacheable: ingress | egress << 1,
            counts: counts.into(),
            ..TrackConsts::default()
        },
        policy.connections.capacity,
    )
}

/// Whether one look at a packet of an established connection stands for all in its direction: no rule that could match one
/// reads what differs from packet to packet, or lets evaluation go on and counts. What comes after a rule that takes all of
/// them does not matter.
fn cacheable(chain: &Chain) -> bool {
    for rule in &chain.rules {
        if rule.matches.state.as_ref().is_some_and(|states| !states.contains(STATE_ESTABLISHED)) {
            continue;
        }
        // A limit of connections says the same of all their packets: nothing to a rule that refuses.
        if rule.counts_connections() && rule.verdict.refuses() {
            continue;
        }
        let limited = rule.limit.is_some() && !rule.counts_connections();
        if rule.continues() || limited || reads_packets(&rule.matches) {
            return false;
        }
        if takes_all(rule) {
            return true;
        }
    }
    true
}

/// Fields that packets of one connection and direction need not share. (What they share: addresses, ports, protocol.)
fn reads_packets(m: &Match) -> bool {
    let Match { flags, icmp, vlan, dscp, mark, length, fragment, interface, .. } = m;
    let numbers = [vlan, dscp, mark, length].into_iter().any(Option::is_some);
    numbers || flags.is_some() || icmp.is_some() || fragment.is_some() || !interface.is_empty()
}

/// A rule that asks for nothing but the state.
fn takes_all(rule: &Rule) -> bool {
    let Match { from, to, proto, port, source_port, family, .. } = &rule.matches;
    let numbers = [proto, port, source_port].into_iter().all(Option::is_none);
    from.is_empty() && to.is_empty() && numbers && family.is_none() && !reads_packets(&rule.matches)
}
