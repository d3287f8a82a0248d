//! `ringctl explain --packet`: asked of the kernel's own program; why each rule did or did not match is the naive
//! evaluator's to say.

use ringfence_abi::counter::{BUILTINS, DYNAMIC};
use ringfence_abi::explain::Question;
use ringfence_abi::verdict;
use ringfence_api::{Considered, ExplainRequest, Explanation, Mode, PacketDirection};
use ringfence_policy::model::{SetId, TestPacket, Verdict};
use ringfence_policy::oracle::{self, Context, Hook as OracleHook};

use super::session::{entries, is_member};
use crate::daemon::{Daemon, EMPTY};
use crate::error::{Error, Result};
use crate::interfaces::link::Framing;
use crate::interfaces::watch;
use crate::kernel::{Attached, Direction, Hook};

impl Daemon {
    /// Which rule decides about a packet.
    pub fn explain(&self, request: &ExplainRequest) -> Result<Explanation> {
        let control = self.control();
        let none = || Error::No("no policy is in force".to_owned());
        let running = control.running.as_ref().filter(|running| running.number() != EMPTY).ok_or_else(none)?;
        let unreadable = || Error::No("the policy in force was loaded by another version of the daemon".to_owned());
        let meaning = running.meaning.as_ref().ok_or_else(unreadable)?;
        let policy = &meaning.policy;
        let ingress = request.packet.direction == PacketDirection::Ingress;
        let mut packet = described(request);
        let network = watch::lock(&self.network).clone();

        let asked = packet.interface.clone();
        let attachment = match &asked {
            Some(name) => control.attachments.all.iter().find(|(_, attachment)| attachment.wanted.name == *name),
            None => control.attachments.all.iter().next(),
        };
        let Some((&index, attachment)) = attachment else {
            return Err(Error::BadInput(match asked {
                Some(name) => format!("the policy in force does not cover interface `{name}`"),
                None => "the policy in force covers no interface that is there now".to_owned(),
            }));
        };
        packet.interface = Some(attachment.wanted.name.clone());
        let device = network.links.get(&index);
        let l3 = device.is_some_and(|link| link.framing == Framing::Ip);
        let frame = oracle::frame(&packet, l3).map_err(|error| Error::BadInput(error.to_string()))?;

        let at_xdp =
            attachment.reports.iter().any(|r| r.direction == Direction::Ingress && r.how == Attached::NativeXdp);
        let hook = match (ingress, l3) {
            (true, false) if at_xdp => Hook::XdpIngress,
            (true, false) => Hook::TcIngress,
            (true, true) => Hook::TcIngressL3,
            (false, false) => Hook::TcEgress,
            (false, true) => Hook::TcEgressL3,
        };
        if hook == Hook::XdpIngress && packet.mark.is_some() {
            return Err(Error::BadInput("`mark`: packets have none at XDP, where this interface is judged".to_owned()));
        }
        let question = Question { ifindex: index, mark: packet.mark.unwrap_or(0), vlan: 0, state: packet.state.into() };
        let answer = self.kernel(|kernel| Ok(kernel.explain(&running.loaded, hook, &frame, &question)?))?;
        let code = answer.verdict as u8;
        if ![verdict::ACCEPT, verdict::DROP, verdict::REJECT].contains(&code) {
            return Err(Error::Internal("the program gave no verdict".to_owned()));
        }

        let context = Context {
            hook: if hook == Hook::XdpIngress { OracleHook::Xdp } else { OracleHook::Tc },
            ingress,
            interface: attachment.wanted.name.clone(),
            loopback: device.is_some_and(|link| link.loopback),
            l3,
            segment: 0,
            tag: None,
            mark: (hook != Hook::XdpIngress).then_some(question.mark),
            state: packet.state,
        };
        let dynamic = self.known();
        let members = |set: SetId, address| is_member(policy, &dynamic, set, address);
        let parsed = oracle::parse(&frame, &context);
        let considered = oracle::explain(policy, &context, &parsed, &members, &entries(&dynamic));
        drop(dynamic);

        let chain = if ingress { "ingress" } else { "egress" };
        let line = running.lines.iter().filter(|line| line.chain == chain).nth(answer.line as usize);
        let rule = match line {
            _ if answer.line == DYNAMIC => format!("dynamic/{}", answer.entry),
            Some(line) => line.name.clone(),
            None => return Err(Error::Internal(format!("the program named line {}, which is none", answer.line))),
        };
        let (file, number) = line.and_then(|line| line.at.clone()).map_or((None, None), |(f, n)| (Some(f), Some(n)));
        if answer.line >= BUILTINS && considered.last().is_none_or(|last| last.name != rule) {
            tracing::error!(rule, "the program and the evaluator disagree about a packet");
        }
        let audited = control.standing.get().audit.is_some() || running.audits();
        Ok(Explanation {
            verdict: word(code).to_owned(),
            rule,
            file,
            line: number,
            generation: Some(running.number()),
            mode: if audited { Mode::Audit } else { Mode::Enforce },
            considered: considered
                .into_iter()
                .map(|c| Considered { rule: c.name, matched: c.matched, because: c.because })
                .collect(),
        })
    }
}

fn described(request: &ExplainRequest) -> TestPacket {
    let packet = request.packet.clone();
    TestPacket {
        interface: packet.interface,
        from: packet.from,
        to: packet.to,
        proto: packet.proto,
        port: packet.port,
        source_port: packet.source_port,
        flags: packet.flags,
        icmp: packet.icmp,
        vlan: packet.vlan,
        dscp: packet.dscp,
        mark: packet.mark,
        length: packet.length,
        fragment: packet.fragment,
        hop_limit: packet.hop_limit,
        state: packet.state as u8,
    }
}

fn word(code: u8) -> &'static str {
    match code {
        verdict::ACCEPT => Verdict::Accept.word(),
        verdict::REJECT => Verdict::Reject.word(),
        _ => Verdict::Drop.word(),
    }
}
