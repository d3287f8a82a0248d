//! `host: {protect_self: true}`: the rules that guard what Ringfence has on disk and in `/proc`, put before the policy's
//! own. (The `bpf` system call and the BPF filesystem are guarded by the programs themselves.)
//!
//! What they refuse, they refuse to root, too: the policy is changed through the daemon (`ringctl apply`), the files in
//! `mode audit` or while `off`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use ringfence_abi::host::op;
use ringfence_policy::model::{HostMatch, HostRule, Location, PathGlob, PathMatch, Policy, Verdict};

use crate::cli::{Arguments, DEFAULT_POLICY};
use crate::dynamic::calls::operations;

/// Where packages put the daemon, and the command for recovery. Exempt whether they are there or not: who could put
/// something else there is refused it by the same rules.
const INSTALLED: [&str; 4] =
    ["/usr/sbin/ringfenced", "/usr/bin/ringctl", "/usr/sbin/ringctl", "/usr/local/bin/ringctl"];

/// What is Ringfence's own on this machine. Paths are as the kernel has them: links are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The daemon's executable, and `ringctl` beside it: they may do what others may not.
    pub programs: Vec<PathBuf>,
    /// Directory of generations, counters and dynamic entries.
    pub state: PathBuf,
    /// Directory of the pins.
    pub pins: PathBuf,
    /// The policy that a reload reads: a file, or a directory.
    pub policy: PathBuf,
    /// The service's cgroup, as a directory; `None`: the daemon shares one with others.
    pub cgroup: Option<PathBuf>,
}

impl Own {
    /// Looks at this process and its command line.
    #[must_use]
    pub fn of(arguments: &Arguments) -> Self {
        let real = |path: &Path| {
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            fs::canonicalize(path).unwrap_or(absolute)
        };
        let mut programs: Vec<PathBuf> = env::current_exe().into_iter().collect();
        let beside = programs.first().and_then(|daemon| Some(daemon.parent()?.join("ringctl")));
        let known = INSTALLED.iter().map(PathBuf::from).chain(beside);
        programs.extend(known.map(|path| real(&path)));
        programs.sort_unstable();
        programs.dedup();
        let policy = arguments.policy.as_deref().unwrap_or(Path::new(DEFAULT_POLICY));
        Self {
            programs,
            state: real(&arguments.state_dir),
            pins: real(&arguments.bpffs),
            policy: real(policy),
            cgroup: fs::read_to_string("/proc/self/cgroup").ok().as_deref().and_then(own_cgroup),
        }
    }

    /// Puts the rules before those of a policy that asks for them.
    pub fn protect(&self, policy: &mut Policy) {
        let Some(at) = policy.host.default_at.filter(|_| policy.host.protect_self) else { return };
        let rules = self.rules(at);
        policy.host.rules.splice(0..0, rules);
    }

    fn rules(&self, at: Location) -> Vec<HostRule> {
        let change = operations("write").unwrap_or_default() | 1 << op::MOUNT | 1 << op::UMOUNT;
        let deny = |name: &str, matches: HostMatch| HostRule {
            name: format!("protected/{name}"),
            named: true,
            at,
            verdict: Verdict::Drop,
            audit: false,
            matches,
        };
        let by_others = |ops: u32, paths: Vec<PathGlob>| HostMatch {
            ops,
            path: vec![one_of(paths)],
            exe: vec![PathMatch { any_of: None, none_of: self.programs.iter().map(|path| file(path)).collect() }],
            ..HostMatch::default()
        };
        let programs: Vec<PathGlob> = self.programs.iter().map(|path| file(path)).collect();
        let mut rules = vec![
            deny("state", by_others(change | 1 << op::READ, vec![tree(&self.state)])),
            deny("policy", by_others(change, vec![tree(&self.policy)])),
            deny("pins", by_others(change, vec![tree(&self.pins)])),
        ];
        // Unmounting what the pins are on would take them away.
        let above: Vec<PathGlob> =
            self.pins.ancestors().skip(1).filter(|path| path.parent().is_some()).map(file).collect();
        if !above.is_empty() {
            rules.push(deny("mounts", by_others(1 << op::MOUNT | 1 << op::UMOUNT, above)));
        }
        if let Some(cgroup) = &self.cgroup {
            rules.push(deny("cgroup", by_others(change, vec![tree(cgroup)])));
        }
        if !programs.is_empty() {
            rules.push(deny("programs", by_others(change, programs.clone())));
            let traced = HostMatch { ops: 1 << op::PTRACE, target: vec![one_of(programs)], ..HostMatch::default() };
            rules.push(deny("processes", traced));
        }
        rules
    }
}

fn one_of(paths: Vec<PathGlob>) -> PathMatch {
    PathMatch { any_of: Some(paths), none_of: Vec::new() }
}

pub(super) fn file(path: &Path) -> PathGlob {
    PathGlob::Path(literal(path))
}

/// The path itself and all below it.
pub(super) fn tree(path: &Path) -> PathGlob {
    PathGlob::Path(format!("{}/**", literal(path).trim_end_matches('/')))
}

/// A path as a pattern that matches nothing else.
fn literal(path: &Path) -> String {
    let mut pattern = String::new();
    for letter in path.to_string_lossy().chars() {
        match letter {
            '*' | '?' | '[' | '{' => pattern.extend(['[', letter, ']']),
            other => pattern.push(other),
        }
    }
    pattern
}

/// The directory of the service's cgroup from `/proc/self/cgroup`.
fn own_cgroup(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.ends_with("ringfenced.service").then(|| PathBuf::from(format!("/sys/fs/cgroup{path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Own {
        Own {
            programs: vec!["/usr/sbin/ringfenced".into()],
            state: "/var/lib/ringfence".into(),
            pins: "/sys/fs/bpf/ringfence".into(),
            policy: "/etc/ringfence/[x].yaml".into(),
            cgroup: None,
        }
    }

    fn policy(protect_self: bool) -> Policy {
        let mut policy = Policy::empty();
        policy.host.default_at = Some(Location { file: 0, line: 3, column: 1 });
        policy.host.protect_self = protect_self;
        policy
    }

    #[test]
    fn only_a_policy_that_asks_is_given_the_rules_and_before_its_own() {
        let mut asks = policy(true);
        own().protect(&mut asks);
        let names: Vec<&str> = asks.host.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "protected/state",
                "protected/policy",
                "protected/pins",
                "protected/mounts",
                "protected/programs",
                "protected/processes"
            ]
        );
        let mut silent = policy(false);
        own().protect(&mut silent);
        assert!(silent.host.rules.is_empty());
    }

    #[test]
    fn the_programs_are_exempt_and_wildcards_in_names_are_none() {
        let mut asks = policy(true);
        own().protect(&mut asks);
        let rule = &asks.host.rules[1];
        let paths = rule.matches.path[0].any_of.as_ref().unwrap();
        assert_eq!(paths, &[PathGlob::Path("/etc/ringfence/[[]x].yaml/**".into())]);
        assert_eq!(rule.matches.exe[0].none_of, [PathGlob::Path("/usr/sbin/ringfenced".into())]);
        for one in [op::WRITE, op::DELETE, op::RENAME, op::LINK, op::MOUNT, op::UMOUNT] {
            assert_eq!(rule.matches.ops >> one & 1, 1, "{}", op::NAMES[one as usize]);
        }
        assert_eq!(rule.matches.ops >> op::READ & 1, 0);
        let above = ["/sys/fs/bpf", "/sys/fs", "/sys"].map(|path| PathGlob::Path(path.into()));
        assert_eq!(asks.host.rules[3].matches.path[0].any_of.as_deref(), Some(&above[..]));
    }

    #[test]
    fn a_shared_cgroup_is_not_ours() {
        let own = own_cgroup("0::/system.slice/ringfenced.service\n");
        assert_eq!(own, Some(PathBuf::from("/sys/fs/cgroup/system.slice/ringfenced.service")));
        assert_eq!(own_cgroup("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(own_cgroup("1:cpu:/x\n"), None);
    }
}
