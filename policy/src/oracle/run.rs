//! The `tests:` of a policy.

use super::{Context, Hook, frame, judge, line_name, no_members, parse};
use crate::model::{Location, PacketTest, Policy, TestPacket};

/// A test that did not come out as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The test's index in [`Policy::tests`] or [`Policy::access_tests`].
    pub test: usize,
    /// Where it stands.
    pub at: Location,
    /// What was expected and what came.
    pub message: String,
}

/// Runs every test of packets. Dynamic sets are empty and there are no dynamic entries.
#[must_use]
pub fn run_tests(policy: &Policy) -> Vec<Failure> {
    let failure = |(index, test): (usize, &PacketTest)| {
        run(policy, test).err().map(|message| Failure { test: index, at: test.at, message })
    };
    policy.tests.iter().enumerate().filter_map(failure).collect()
}

fn run(policy: &Policy, test: &PacketTest) -> Result<(), String> {
    let chain = if test.ingress { &policy.ingress } else { &policy.egress };
    let direction = if test.ingress { "ingress" } else { "egress" };
    let chain = chain.as_ref().ok_or_else(|| format!("the policy has no `{direction}` chain to test"))?;
    let context = context(policy, &test.packet, test.ingress);
    let bytes = frame(&test.packet, context.l3).map_err(|error| error.to_string())?;
    let decision = judge(policy, &context, &parse(&bytes, &context), &no_members, &[]);
    let by = line_name(chain, decision.line);
    if decision.verdict != test.expect {
        return Err(format!("expected {}, but `{by}` decides {}", test.expect.word(), decision.verdict.word()));
    }
    match &test.rule {
        Some(rule) if *rule != by => Err(format!("expected `{rule}` to decide, but `{by}` does")),
        _ => Ok(()),
    }
}

/// What surrounds a packet that is only described: the hook is XDP for arriving packets, unless the chain reads the
/// mark, which only exists at TC (the daemon attaches there then); a mark that is not given is 0. The interface is,
/// unless given, the first that the policy names without a wildcard, or `eth0`.
#[must_use]
pub fn context(policy: &Policy, packet: &TestPacket, ingress: bool) -> Context {
    let reads_mark =
        policy.ingress.as_ref().is_some_and(|chain| chain.rules.iter().any(|rule| rule.matches.mark.is_some()));
    let hook = if ingress && !reads_mark { Hook::Xdp } else { Hook::Tc };
    let named = || policy.interfaces.iter().flatten().find(|glob| glob.is_literal()).map(|glob| glob.0.clone());
    let interface = packet.interface.clone().or_else(named).unwrap_or_else(|| "eth0".to_owned());
    Context {
        hook,
        ingress,
        loopback: interface == "lo",
        interface,
        l3: false,
        segment: 0,
        tag: None,
        mark: (hook == Hook::Tc).then(|| packet.mark.unwrap_or(0)),
        state: packet.state,
    }
}
