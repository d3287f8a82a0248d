//! A system call described by its fields: for the daemon, or judged here by a policy that is not loaded.

use std::collections::BTreeSet;
use std::path::Path;

use ringfence_abi::host::op;
use ringfence_api::{Access, AccessRequest, Considered, Explanation, Mode};
use ringfence_policy::model::{self, ObjectPath, Verdict};
use ringfence_policy::oracle::{self, LineRef};

use crate::{Failure, policy_source};

/// The question for the daemon. What was not said is left to the process `pid`, or to what a usual call has.
pub fn request(words: &str, pid: Option<u32>) -> Result<AccessRequest, Failure> {
    let access = ringfence_policy::parse_access_spec(words).map_err(Failure::Policy)?;
    let said: BTreeSet<&str> = words.split(' ').filter_map(|word| Some(word.split_once('=')?.0)).collect();
    let kept = |field: &str| pid.is_none() || said.contains(field);
    Ok(AccessRequest { access: to_api(access, &kept), pid })
}

/// `kept` says of the caller's fields which count; what the call itself has always does.
fn to_api(access: model::Access, kept: &dyn Fn(&str) -> bool) -> Access {
    // Named one by one, so that a new field cannot be forgotten here.
    let model::Access {
        op,
        path,
        fstype,
        anonymous,
        exe,
        tainted,
        ancestors,
        uid,
        gids,
        owner,
        auid,
        cgroup,
        container,
        to,
        port,
        proto,
        family,
        kind,
        capability,
        signal,
        target,
    } = access;
    let path = path.and_then(|path| match path {
        ObjectPath::Host(path) | ObjectPath::Foreign(path) => Some(path),
        ObjectPath::Abstract(name) => Some(format!("@{name}")),
        ObjectPath::Unknown => None,
    });
    Access {
        op: op::NAMES.get(op as usize).copied().unwrap_or_default().to_owned(),
        path,
        fstype,
        anonymous,
        exe: exe.filter(|_| kept("exe")),
        tainted,
        ancestor: ancestors,
        uid: kept("uid").then_some(uid),
        gid: gids,
        owner: owner.filter(|_| kept("owner")),
        auid: kept("auid").then_some(auid),
        cgroup: cgroup.filter(|_| kept("cgroup") || kept("unit")),
        container: kept("container").then_some(container),
        to,
        port,
        proto,
        family,
        kind,
        capability,
        signal,
        target,
    }
}

/// Judges by a policy that is not loaded. Neither the daemon nor the kernel is asked; there are no dynamic entries.
pub fn offline(path: &Path, words: &str) -> Result<Explanation, Failure> {
    let access = ringfence_policy::parse_access_spec(words).map_err(Failure::Policy)?;
    let loaded = policy_source::load(path)?;
    let policy = &loaded.policy;
    let decision = oracle::judge_access(policy, &access);
    let considered = oracle::explain_access(policy, &access);
    let at = match decision.line {
        LineRef::Rule(index) => policy.host.rules.get(index).map(|rule| rule.at),
        LineRef::Default => policy.host.default_at,
        _ => None,
    };
    let (mode, refusal) = match policy.mode {
        model::Mode::Enforce => (Mode::Enforce, "deny"),
        model::Mode::Audit => (Mode::Audit, "would-deny"),
    };
    Ok(Explanation {
        verdict: if decision.verdict == Verdict::Accept { "allow" } else { refusal }.to_owned(),
        rule: decision.by(policy),
        file: at.and_then(|at| policy.files.get(at.file as usize).cloned()),
        line: at.map(|at| at.line),
        generation: None,
        mode,
        considered: considered
            .into_iter()
            .map(|one| Considered { rule: one.name, matched: one.matched, because: one.because })
            .collect(),
    })
}
