//! Whether a policy, or an entry about a path, would stop root's login, the daemon, or `ringctl off`.

use ringfence_api::EntryVerb;
use ringfence_policy::lockout;
use ringfence_policy::model::{HostMatch, HostRule, Location, PathGlob, PathMatch, Policy, Verdict};
use ringfence_policy::ranges::Ranges;

use super::own::{file, tree};
use crate::daemon::Daemon;
use crate::dynamic::calls::{CallEntry, operations};

/// What would be locked out, in words.
#[must_use]
pub fn locks_out(policy: &Policy) -> Option<String> {
    let found = lockout::check(policy);
    if found.is_empty() {
        return None;
    }
    let each =
        found.iter().map(|lockout| match lockout.at.and_then(|at| Some((policy.files.get(at.file as usize)?, at))) {
            Some((file, at)) => format!("{lockout} ({file}:{})", at.line),
            None => lockout.to_string(),
        });
    Some(each.collect::<Vec<_>>().join("; "))
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
