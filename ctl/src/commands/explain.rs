use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, ValueEnum};
use ringfence_api::{Considered, ExplainRequest, Explanation, Mode};
use ringfence_policy::model::{self, Location, Policy, TestPacket};
use ringfence_policy::oracle::{self, LineRef};

use super::Listing;
use crate::context::Context;
use crate::table::{Table, clean, styled, word_style};
use crate::{Exit, Failure, access, packet, policy_source};

/// Say which rule decides about a packet or a system call, and why
///
/// Every rule up to the one that decides is listed, with the condition that failed.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("question").required(true).args(["packet", "access"]), after_help = "\
Fields of a packet: interface, direction (ingress unless said, or egress), from, to, proto, port, source_port, flags,
icmp, vlan, dscp, mark, length, fragment, hop_limit, family.
Fields of a call: op, path, fstype, anonymous, exe, ancestor, uid, gid, owner, auid, unit, cgroup, container, to, port,
proto, family, type, capability, signal, target.

Examples:
  ringctl explain --packet 'interface=eth0 proto=tcp from=203.0.113.5 to=192.0.2.1 port=22'
  ringctl explain --policy new.yaml --expect drop --packet 'proto=udp from=2001:db8::1 to=2001:db8::2 port=53'
  ringctl explain --access 'op=read path=/etc/shadow exe=/usr/bin/cat uid=1000'
  ringctl explain --access 'op=write path=/var/lib/nginx/x' --pid 4711    as process 4711

Without --policy the kernel's own program is asked, with the sets and entries in force; nothing is sent or counted.
With --policy nothing is asked of the daemon or the kernel; dynamic sets and entries are taken as empty.")]
pub struct Explain {
    /// The packet, as FIELD=VALUE words
    #[arg(long, value_name = "FIELDS")]
    packet: Option<String>,
    /// The system call, as FIELD=VALUE words
    #[arg(long, value_name = "FIELDS")]
    access: Option<String>,
    /// Take the caller of the system call from this process where it is not said
    #[arg(long, value_name = "PID", requires = "access", conflicts_with = "policy")]
    pid: Option<u32>,
    /// Judge by this policy (a file, a directory of *.yaml, or `-`) instead of the one in force
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Exit with 1 unless this is the verdict
    #[arg(long, value_name = "VERDICT")]
    expect: Option<Verdict>,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Verdict {
    Accept,
    Drop,
    Reject,
    Allow,
    Deny,
    WouldDeny,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::WouldDeny => "would-deny",
        }
    }
}

impl Explain {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let explanation = match (&self.access, &self.policy) {
            (Some(words), Some(path)) => access::offline(path, words)?,
            (Some(words), None) => {
                let request = access::request(words, self.pid)?;
                context.ask(context.client.explain_access(&request))?
            }
            (None, _) => self.about_packet(context)?,
        };
        if self.listing.json {
            context.json(&explanation)?;
        } else {
            write_explanation(&explanation, context)?;
        }
        match self.expect {
            Some(expected) if expected.word() != explanation.verdict => {
                context.flush()?;
                Err(Failure::No(format!("expected {}, the verdict is {}", expected.word(), explanation.verdict)))
            }
            _ => Ok(Exit::Done),
        }
    }
}

impl Explain {
    fn about_packet(&self, context: &Context) -> Result<Explanation, Failure> {
        let words = self.packet.as_deref().unwrap_or_default();
        let (packet, ingress) = ringfence_policy::parse_packet_spec(words).map_err(Failure::Policy)?;
        if let Some(path) = &self.policy {
            return offline(path, &packet, ingress);
        }
        let request = ExplainRequest { packet: packet::to_api(packet, ingress) };
        Ok(context.ask(context.client.explain(&request))?)
    }
}

/// Judges by a policy that is not loaded.
fn offline(path: &Path, packet: &TestPacket, ingress: bool) -> Result<Explanation, Failure> {
    let loaded = policy_source::load(path)?;
    let policy = &loaded.policy;
    if let (Some(name), Some(globs)) = (&packet.interface, &policy.interfaces)
        && !globs.iter().any(|glob| glob.matches(name))
    {
        let globs: Vec<&str> = globs.iter().map(|glob| glob.0.as_str()).collect();
        let message = format!("the policy does not cover the interface {name}, only {}", globs.join(", "));
        return Err(Failure::BadInput(message));
    }
    let surroundings = oracle::context(policy, packet, ingress);
    let bytes = oracle::frame(packet, surroundings.l3).map_err(|error| Failure::BadInput(error.to_string()))?;
    let parsed = oracle::parse(&bytes, &surroundings);
    let decision = oracle::judge(policy, &surroundings, &parsed, &oracle::no_members, &[]);
    let considered = oracle::explain(policy, &surroundings, &parsed, &oracle::no_members, &[]);
    let (rule, at) = decided_by(policy, ingress, decision.line);
    Ok(Explanation {
        verdict: decision.verdict.word().to_owned(),
        rule,
        file: at.and_then(|at| policy.files.get(at.file as usize).cloned()),
        line: at.map(|at| at.line),
        generation: None,
        mode: match policy.mode {
            model::Mode::Enforce => Mode::Enforce,
            model::Mode::Audit => Mode::Audit,
        },
        considered: considered
            .into_iter()
            .map(|one| Considered { rule: one.name, matched: one.matched, because: one.because })
            .collect(),
    })
}

fn decided_by(policy: &Policy, ingress: bool, line: LineRef) -> (String, Option<Location>) {
    let Some(chain) = (if ingress { &policy.ingress } else { &policy.egress }) else {
        // Nothing is attached for a direction that the policy does not mention.
        return ("unattached".to_owned(), None);
    };
    let at = match line {
        LineRef::Default => Some(chain.default_at),
        LineRef::Rule(index) => chain.rules.get(index).map(|rule| rule.at),
        _ => None,
    };
    (oracle::line_name(chain, line), at)
}

fn write_explanation(explanation: &Explanation, out: &mut dyn Write) -> std::io::Result<()> {
    let style = word_style(&explanation.verdict).bold();
    write!(out, "{style}{}{style:#} by {}", clean(&explanation.verdict), clean(&explanation.rule))?;
    if let (Some(file), Some(line)) = (&explanation.file, explanation.line) {
        write!(out, " ({}:{line})", clean(file))?;
    }
    if let Some(generation) = explanation.generation {
        write!(out, ", generation {generation}")?;
    }
    if explanation.mode == Mode::Audit {
        write!(out, ", mode audit: a refusal is counted and let go")?;
    }
    writeln!(out)?;
    let mut table = Table::plain();
    for one in &explanation.considered {
        let answer = if one.matched { styled("yes", anstyle::Style::new().bold()) } else { "no".into() };
        table.row(["".into(), answer, one.rule.as_str().into(), one.because.as_str().into()]);
    }
    table.write(out)
}
