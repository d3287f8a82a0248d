//! What a rule or a `when` asks for, both put together, and whether it means something.

use std::collections::BTreeSet;

use ringfence_abi::host::op;

use super::super::problems::{Complaint, Problems};
use super::super::source::Span;
use super::words::{ADDRESSED, ALL, FILES, SOCKETS};
use crate::model::HostMatch;
use crate::ranges::Ranges;
use crate::services::WITH_PORTS;

/// Which operations have a field; the others are asked of the caller and every call has one.
const PATHS: u32 = FILES | ADDRESSED | 1 << op::IOCTL | 1 << op::MODULE_LOAD | 1 << op::KEXEC;
pub(super) const HAVE: [(&str, u32); 12] = [
    ("path", PATHS),
    ("fstype", FILES | 1 << op::IOCTL),
    ("anonymous", 1 << op::EXEC | 1 << op::MAP_EXEC),
    ("owner", FILES | 1 << op::IOCTL),
    ("to", ADDRESSED),
    ("port", ADDRESSED),
    ("proto", SOCKETS),
    ("family", SOCKETS),
    ("type", SOCKETS),
    ("capability", 1 << op::CAPABILITY),
    ("signal", 1 << op::SIGNAL),
    ("target", 1 << op::PTRACE | 1 << op::SIGNAL),
];

/// A match and what checks between fields need.
#[derive(Clone, Debug, Default)]
pub(in crate::document) struct Fields {
    pub matches: HostMatch,
    /// `op`, or all of them by `any`.
    pub ops: Option<u32>,
    /// Fields that only some operations have, and where they stand.
    pub present: Vec<(&'static str, Span)>,
    /// Fields in which a `when` and a rule exclude each other.
    pub contradictions: BTreeSet<&'static str>,
}

impl Fields {
    /// Both conditions.
    pub fn and(&self, other: &Self) -> Self {
        let (a, b) = (&self.matches, &other.matches);
        let mut contradictions = BTreeSet::new();
        let ops = match (self.ops, other.ops) {
            (Some(a), Some(b)) => {
                if a & b == 0 {
                    contradictions.insert("op");
                }
                Some(a & b)
            }
            (a, b) => a.or(b),
        };
        let mut numbers = |name, a: &Option<Ranges>, b: &Option<Ranges>| match (a, b) {
            (Some(a), Some(b)) => {
                let both = a.intersection(b);
                if both.is_empty() {
                    contradictions.insert(name);
                }
                Some(both)
            }
            (a, b) => a.as_ref().or(b.as_ref()).cloned(),
        };
        let (uid, auid) = (numbers("uid", &a.uid, &b.uid), numbers("auid", &a.auid, &b.auid));
        let (port, proto) = (numbers("port", &a.port, &b.port), numbers("proto", &a.proto, &b.proto));
        let family = numbers("family", &a.family, &b.family);
        let capability = numbers("capability", &a.capability, &b.capability);
        let signal = numbers("signal", &a.signal, &b.signal);
        let mut truth = |name, a: Option<bool>, b: Option<bool>| {
            if a.is_some() && b.is_some() && a != b {
                contradictions.insert(name);
            }
            a.or(b)
        };
        let matches = HostMatch {
            ops: 0,
            path: joined(&a.path, &b.path),
            fstype: joined(&a.fstype, &b.fstype),
            anonymous: truth("anonymous", a.anonymous, b.anonymous),
            exe: joined(&a.exe, &b.exe),
            ancestor: joined(&a.ancestor, &b.ancestor),
            target: joined(&a.target, &b.target),
            uid,
            gid: joined(&a.gid, &b.gid),
            owner: truth("owner", a.owner, b.owner),
            auid,
            cgroup: joined(&a.cgroup, &b.cgroup),
            container: truth("container", a.container, b.container),
            to: joined(&a.to, &b.to),
            port,
            proto,
            family,
            kind: joined(&a.kind, &b.kind),
            capability,
            signal,
        };
        Self { matches, ops, present: joined(&self.present, &other.present), contradictions }
    }

    /// The match of a rule that stands at `at`; an error if no operation has some of its fields.
    pub fn finish(&self, at: Span, problems: &mut Problems) -> Option<HostMatch> {
        let mut matches = self.matches.clone();
        let Some(ops) = self.ops else {
            let help = "say which operations it is about, as in `op: exec`; `op: all` is every one";
            problems.error(at, Complaint::new("a rule without `op`").help(help));
            return None;
        };
        if !self.contradictions.is_empty() {
            // No caller is without a uid, and it is never unknown: the rule matches nothing at all.
            matches.uid = Some(Ranges::default());
            matches.ops = ALL;
            return Some(matches);
        }
        matches.ops = ops;
        let before = problems.errors();
        for (field, span) in &self.present {
            let have = HAVE.iter().find(|(name, _)| name == field).map_or(ALL, |(_, have)| *have);
            if ops & have == 0 {
                let having = (0..op::COUNT).filter(|op| have >> op & 1 == 1).map(|op| op::NAMES[op as usize]);
                let complaint = Complaint::new(format!("`{field}` means nothing for {}", named(ops)));
                let help = format!("operations that have it: {}", having.collect::<Vec<_>>().join(", "));
                problems.error(*span, complaint.help(help));
            }
        }
        if let (Some(proto), Some((_, span))) = (&matches.proto, self.present.iter().find(|(name, _)| *name == "port"))
        {
            let with = Ranges::new(WITH_PORTS.map(|proto| (proto.into(), proto.into())).to_vec());
            if proto.intersection(&with).is_empty() {
                problems.error(*span, "`port` needs a protocol with ports: tcp, udp or sctp");
            }
        }
        (problems.errors() == before).then_some(matches)
    }
}

fn joined<T: Clone>(a: &[T], b: &[T]) -> Vec<T> {
    [a, b].concat()
}

fn named(ops: u32) -> String {
    let names: Vec<String> =
        (0..op::COUNT).filter(|op| ops >> op & 1 == 1).map(|op| format!("`{}`", op::NAMES[op as usize])).collect();
    names.join(", ")
}
