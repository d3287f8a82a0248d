//! The host half in `ringctl status`.

use std::collections::BTreeMap;

use ringfence_api::{Half, Hook, LeftOut, Mode, State};

use crate::apply::active::Meaning;
use crate::apply::fallback;
use crate::apply::host::{AT_CGROUP, is_unused, not_enforced};
use crate::daemon::{Control, Daemon, EMPTY};
use crate::error::Result;
use crate::kernel::{HookState, Obstacle, Support};
use crate::status::half;

/// Hooks that some kernels lack, and what sees the same calls there.
const STAND_INS: [(&str, &str, &str); 5] = [
    ("file_truncate", "path_truncate", "before Linux 6.2"),
    ("inode_set_acl", "inode_setxattr", "before Linux 6.2"),
    ("inode_remove_acl", "inode_removexattr", "before Linux 6.2"),
    ("file_ioctl_compat", "file_ioctl", "before Linux 6.8"),
    ("mmap_backing_file", "mmap_file", "on this kernel"),
];

impl Daemon {
    pub(crate) fn host_half(&self, control: &Control, mode: Mode) -> Result<Half> {
        if self.is_off() {
            return Ok(half(State::Off, Some(self.why_off()), Vec::new()));
        }
        let support = self.kernel(|kernel| Ok(kernel.host_support().clone()))?;
        let Some(running) = control.running.as_ref().filter(|running| running.number() != EMPTY) else {
            return Ok(half(State::Unused, Some(and_obstacle("no policy is in force", &support)), Vec::new()));
        };
        let states = self.kernel(|kernel| Ok(kernel.host_hooks(&control.loaded())?))?;
        let Some(meaning) = &running.meaning else {
            let because = Some("another version of the daemon loaded the policy".to_owned());
            return Ok(half(State::Degraded, because, hooks(&states, &support, mode)));
        };
        let entries = self.dynamic().calls().len();
        if is_unused(&meaning.host) && entries == 0 {
            return Ok(half(State::Unused, Some(and_obstacle("the policy has no host rules", &support)), Vec::new()));
        }
        let hooks = hooks(&states, &support, mode);
        let (state, because) = judged(&hooks, &support, meaning.host.consts.ops, mode);
        let left_out = left_out(meaning, &support);
        Ok(Half { state, because, hooks, left_out, figures: self.figures(control, entries)? })
    }
}

impl Daemon {
    fn figures(&self, control: &Control, entries: usize) -> Result<BTreeMap<String, u64>> {
        let mut figures = BTreeMap::from([
            ("mounts".to_owned(), control.mounts.known as u64),
            ("mounts-left-out".to_owned(), control.mounts.left_out.len() as u64),
            ("path-entries".to_owned(), entries as u64),
        ]);
        if let Some(found) = self.kernel(|kernel| Ok(kernel.doubtful_processes(&control.loaded())?))? {
            figures.insert("processes-unknown".to_owned(), found.unknown);
            figures.insert("processes-tainted".to_owned(), found.tainted);
        }
        Ok(figures)
    }
}

/// The rules that are not enforced as written, for listings.
fn left_out(meaning: &Meaning, support: &Support) -> Vec<LeftOut> {
    let shown = |one: &fallback::LeftOut| LeftOut {
        rule: one.rule.clone(),
        file: meaning.policy.files.get(one.at.file as usize).cloned().unwrap_or_default(),
        line: one.at.line,
        because: one.because.clone(),
        remedy: support.lsm.as_ref().map(Obstacle::remedy),
    };
    meaning.left_out.iter().map(shown).collect()
}

/// The worst of it, and why.
fn judged(hooks: &[Hook], support: &Support, ops: u32, mode: Mode) -> (State, Option<String>) {
    let enforced = if mode == Mode::Audit { State::Audit } else { State::Enforced };
    if let Some(obstacle) = &support.lsm {
        let at_cgroup = support.cgroup.is_none() && ops & AT_CGROUP != 0;
        let left_out = match not_enforced(support, ops) {
            Some((_, left_out)) => format!("not enforced: {left_out}"),
            None if at_cgroup => "connect and bind over IP are judged at a cgroup, refused with EPERM".to_owned(),
            None => "none of the rules can be judged".to_owned(),
        };
        let state = if at_cgroup { State::Degraded } else { State::Unavailable };
        return (state, Some(format!("{left_out}; {obstacle}")));
    }
    match hooks.iter().find(|hook| matches!(hook.state, State::Unavailable | State::Degraded)) {
        None => (enforced, None),
        Some(bad) => {
            (State::Degraded, Some(format!("{}: {}", bad.hook, bad.because.as_deref().unwrap_or("not attached"))))
        }
    }
}

/// The hooks that are needed, or attached for whatever reason.
fn hooks(states: &[HookState], support: &Support, mode: Mode) -> Vec<Hook> {
    states.iter().filter(|state| state.needed || state.attached).map(|state| hook(state, support, mode)).collect()
}

fn hook(state: &HookState, support: &Support, mode: Mode) -> Hook {
    let enforced = if mode == Mode::Audit { State::Audit } else { State::Enforced };
    let one = |state_of: State, how: Option<String>, because: Option<String>, remedy: Option<String>| Hook {
        hook: state.name.to_owned(),
        interface: None,
        state: state_of,
        how,
        because,
        remedy,
    };
    if state.name.starts_with("cg_") {
        let because = Some("at a cgroup: TCP and UDP over IP only, refused with EPERM".to_owned());
        let remedy = support.lsm.as_ref().map(Obstacle::remedy);
        return match (state.attached, &support.cgroup) {
            (true, _) => one(State::Degraded, Some("cgroup".to_owned()), because, remedy),
            (false, Some(obstacle)) => {
                one(State::Unavailable, None, Some(obstacle.to_string()), Some(obstacle.remedy()))
            }
            (false, None) => one(State::Unavailable, None, Some("not attached".to_owned()), None),
        };
    }
    if state.attached {
        return one(enforced, Some("lsm".to_owned()), None, None);
    }
    if let Some(obstacle) = &support.lsm {
        return one(State::Unavailable, None, Some(obstacle.to_string()), Some(obstacle.remedy()));
    }
    if !state.present {
        if let Some((_, by, since)) = STAND_INS.iter().find(|(name, ..)| *name == state.name) {
            return one(enforced, Some(format!("by {by}")), Some((*since).to_owned()), None);
        }
        let because = Some("this kernel has no such hook".to_owned());
        return one(State::Degraded, None, because, Some("use a newer kernel".to_owned()));
    }
    let because = Some("not attached; it is tried again, and the log has the details".to_owned());
    one(State::Unavailable, None, because, None)
}

/// Why nothing is asked, and what would be in the way if it were.
fn and_obstacle(why: &str, support: &Support) -> String {
    match &support.lsm {
        None => why.to_owned(),
        Some(obstacle) => format!("{why} (unavailable: {obstacle})"),
    }
}

#[cfg(test)]
mod tests {
    use ringfence_abi::host::{HOOKS, op};

    use super::*;

    fn state(name: &'static str, needed: bool, attached: bool, present: bool) -> HookState {
        HookState { name, needed, attached, present }
    }

    fn with_lsm() -> Support {
        Support { lsm: None, cgroup: None, missing: Vec::new() }
    }

    fn without_lsm(cgroup: bool) -> Support {
        let no_cgroup = || Obstacle::Cgroup { error: "no cgroup2".into() };
        Support { lsm: Some(Obstacle::NotBuilt), cgroup: (!cgroup).then(no_cgroup), missing: Vec::new() }
    }

    #[test]
    fn stand_ins_are_hooks_and_only_what_matters_is_listed() {
        for (name, by, _) in STAND_INS {
            assert!([name, by].iter().all(|name| HOOKS.iter().any(|hook| hook.name == *name)), "{name}, {by}");
        }
        let states = [state("file_open", true, true, true), state("bpf", false, false, true)];
        let listed = hooks(&states, &with_lsm(), Mode::Enforce);
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].state, listed[0].how.as_deref()), (State::Enforced, Some("lsm")));
        assert_eq!(judged(&listed, &with_lsm(), 1, Mode::Audit), (State::Audit, None));
    }

    #[test]
    fn a_hook_that_a_kernel_lacks_is_degraded_unless_another_sees_the_same() {
        let old = hook(&state("file_truncate", true, false, false), &with_lsm(), Mode::Enforce);
        assert_eq!((old.state, old.how.as_deref()), (State::Enforced, Some("by path_truncate")));
        let lost = hook(&state("userns_create", true, false, false), &with_lsm(), Mode::Enforce);
        assert_eq!(lost.state, State::Degraded);
        assert_eq!(judged(&[old, lost], &with_lsm(), 1, Mode::Enforce).0, State::Degraded);
        let failed = hook(&state("file_open", true, false, true), &with_lsm(), Mode::Enforce);
        assert_eq!(failed.state, State::Unavailable);
    }

    #[test]
    fn without_security_hooks_it_is_unavailable_or_degraded_and_says_what_to_do() {
        let open = hook(&state("file_open", true, false, true), &without_lsm(true), Mode::Enforce);
        assert_eq!(open.state, State::Unavailable);
        assert!(open.remedy.unwrap().contains("CONFIG_BPF_LSM"));
        let connect = hook(&state("cg_connect4", true, true, true), &without_lsm(true), Mode::Enforce);
        assert_eq!((connect.state, connect.how.as_deref()), (State::Degraded, Some("cgroup")));
        let both = 1 << op::READ | AT_CGROUP;
        let of = |cgroup, ops| judged(&[], &without_lsm(cgroup), ops, Mode::Enforce).0;
        assert_eq!(of(true, both), State::Degraded);
        assert_eq!(of(true, AT_CGROUP), State::Degraded);
        assert_eq!(of(true, 1 << op::READ), State::Unavailable);
        assert_eq!(of(false, both), State::Unavailable);
    }
}
