//! Whether a policy would lock out: root's login, the daemon, `ringctl off`.
//!
//! What each of these needs is a list of accesses, as Debian's programs make them, that are put to the naive evaluator.
//! Not everything that can lock out is found; what is found does.

use ringfence_abi::host::op;

use crate::model::{Access, Location, Mode, ObjectPath, Policy, Verdict};
use crate::oracle::{LineRef, judge_access};

/// Something that would not work any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// What, in words: `root could not log in`.
    pub what: &'static str,
    /// The access that would be refused, in words.
    pub access: String,
    /// The rule that refuses it; `default` for the default.
    pub rule: String,
    /// Where that was written.
    pub at: Option<Location>,
}

impl std::fmt::Display for Lockout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: `{}` refuses {}", self.what, self.rule, self.access)
    }
}

/// A step: who does what with which file.
struct Step {
    exe: &'static str,
    op: u32,
    path: &'static str,
    cgroup: &'static str,
}

const fn step(exe: &'static str, op: u32, path: &'static str, cgroup: &'static str) -> Step {
    Step { exe, op, path, cgroup }
}

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
const GETTY: &str = "/usr/sbin/agetty";
const LOGIN: &str = "/usr/bin/login";
const SSHD: &str = "/usr/sbin/sshd";
const SHELL: &str = "/usr/bin/bash";
const RINGCTL: &str = "/usr/bin/ringctl";
const DAEMON: &str = "/usr/sbin/ringfenced";
const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";

const ON_TTY: &str = "/system.slice/system-getty.slice/getty@tty1.service";
const IN_SSH: &str = "/system.slice/ssh.service";
const IN_SESSION: &str = "/user.slice/user-0.slice/session-1.scope";
const IN_SERVICE: &str = "/system.slice/ringfenced.service";

const CONSOLE: [Step; 11] = [
    step(SYSTEMD, op::EXEC, GETTY, ON_TTY),
    step(GETTY, op::MAP_EXEC, LIBC, ON_TTY),
    step(GETTY, op::EXEC, LOGIN, ON_TTY),
    step(LOGIN, op::READ, "/etc/passwd", ON_TTY),
    step(LOGIN, op::READ, "/etc/shadow", ON_TTY),
    step(LOGIN, op::READ, "/etc/pam.d/login", ON_TTY),
    step(LOGIN, op::SETGID, "", ON_TTY),
    step(LOGIN, op::SETUID, "", ON_TTY),
    step(LOGIN, op::EXEC, SHELL, IN_SESSION),
    step(SHELL, op::MAP_EXEC, LIBC, IN_SESSION),
    step(SHELL, op::READ, "/dev/tty1", IN_SESSION),
];

const SSH: [Step; 10] = [
    step(SYSTEMD, op::EXEC, SSHD, IN_SSH),
    step(SSHD, op::MAP_EXEC, LIBC, IN_SSH),
    step(SSHD, op::READ, "/etc/ssh/sshd_config", IN_SSH),
    step(SSHD, op::READ, "/etc/passwd", IN_SSH),
    step(SSHD, op::READ, "/etc/shadow", IN_SSH),
    step(SSHD, op::LISTEN, "", IN_SSH),
    step(SSHD, op::SETGID, "", IN_SSH),
    step(SSHD, op::SETUID, "", IN_SSH),
    step(SSHD, op::EXEC, SHELL, IN_SESSION),
    step(SHELL, op::MAP_EXEC, LIBC, IN_SESSION),
];

const OFF: [Step; 4] = [
    step(SHELL, op::EXEC, RINGCTL, IN_SESSION),
    step(RINGCTL, op::CONNECT, "/run/ringfence/ringfenced.sock", IN_SESSION),
    step(RINGCTL, op::DELETE, "/sys/fs/bpf/ringfence/v1/hooks/file_open", IN_SESSION),
    step(RINGCTL, op::DELETE, "/sys/fs/bpf/ringfence/v1/links/2-xdp", IN_SESSION),
];

const OWN: [Step; 12] = [
    step(SYSTEMD, op::EXEC, DAEMON, IN_SERVICE),
    step(DAEMON, op::BPF, "", IN_SERVICE),
    step(DAEMON, op::READ, "/etc/ringfence/policy.yaml", IN_SERVICE),
    step(DAEMON, op::READ, "/var/lib/ringfence/standing.json", IN_SERVICE),
    step(DAEMON, op::CREATE, "/var/lib/ringfence/standing.json.new", IN_SERVICE),
    step(DAEMON, op::WRITE, "/var/lib/ringfence/standing.json.new", IN_SERVICE),
    step(DAEMON, op::RENAME, "/var/lib/ringfence/standing.json.new", IN_SERVICE),
    step(DAEMON, op::READ, "/proc/1/mountinfo", IN_SERVICE),
    step(DAEMON, op::CREATE, "/sys/fs/bpf/ringfence/v1/gen/1-0/ARENA", IN_SERVICE),
    step(DAEMON, op::DELETE, "/sys/fs/bpf/ringfence/v1/gen/1-0/ARENA", IN_SERVICE),
    step(DAEMON, op::BIND, "/run/ringfence/ringfenced.sock", IN_SERVICE),
    step(DAEMON, op::LISTEN, "/run/ringfence/ringfenced.sock", IN_SERVICE),
];

/// What the policy would lock out. A policy that only audits locks nothing out.
#[must_use]
pub fn check(policy: &Policy) -> Vec<Lockout> {
    if policy.mode == Mode::Audit {
        return Vec::new();
    }
    let refused = |what, steps: &[Step]| steps.iter().find_map(|step| refusal(policy, what, step));
    // One way in is enough.
    let login = match (refused("root could not log in", &CONSOLE), refused("root could not log in", &SSH)) {
        (Some(console), Some(_)) => Some(console),
        _ => None,
    };
    let off = refused("`ringctl off` would not work", &OFF);
    let daemon = refused("ringfenced would not work", &OWN);
    [login, off, daemon].into_iter().flatten().collect()
}

fn refusal(policy: &Policy, what: &'static str, step: &Step) -> Option<Lockout> {
    let access = access(step);
    let decision = judge_access(policy, &access);
    if decision.verdict != Verdict::Drop {
        return None;
    }
    let at = match decision.line {
        LineRef::Rule(index) => policy.host.rules.get(index).map(|rule| rule.at),
        _ => policy.host.default_at,
    };
    let name = op::NAMES[step.op as usize];
    let object = if step.path.is_empty() { String::new() } else { format!(" of {}", step.path) };
    Some(Lockout { what, access: format!("{name}{object} by {} as root", step.exe), rule: decision.by(policy), at })
}

fn access(step: &Step) -> Access {
    let on_file = !step.path.is_empty();
    Access {
        op: step.op,
        path: on_file.then(|| ObjectPath::Host(step.path.to_owned())),
        fstype: None,
        anonymous: on_file.then_some(false),
        exe: Some(step.exe.to_owned()),
        tainted: false,
        ancestors: vec![SYSTEMD.to_owned()],
        uid: 0,
        gids: vec![0],
        owner: on_file.then_some(true),
        auid: u32::MAX,
        cgroup: Some(step.cgroup.to_owned()),
        container: false,
        to: None,
        port: None,
        proto: None,
        family: None,
        kind: None,
        capability: None,
        signal: None,
        target: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HostMatch, HostRule, PathGlob, PathMatch};
    use crate::ranges::Ranges;

    const AT: Location = Location { file: 0, line: 7, column: 5 };

    fn deny(ops: u32, path: &str) -> HostRule {
        let any_of = Some(vec![PathGlob::Path(path.to_owned())]);
        HostRule {
            name: "r".to_owned(),
            named: true,
            at: AT,
            verdict: Verdict::Drop,
            audit: false,
            matches: HostMatch { ops, path: vec![PathMatch { any_of, none_of: Vec::new() }], ..HostMatch::default() },
        }
    }

    fn locked(rules: Vec<HostRule>) -> Vec<&'static str> {
        let mut policy = Policy::empty();
        policy.host.rules = rules;
        check(&policy).iter().map(|lockout| lockout.what).collect()
    }

    #[test]
    fn what_root_the_daemon_and_the_way_out_need_is_found_refused() {
        assert_eq!(locked(Vec::new()), [""; 0]);
        assert_eq!(locked(vec![deny(1 << op::EXEC, "/usr/bin/bash")]), ["root could not log in"]);
        assert_eq!(
            locked(vec![deny(1 << op::READ, "/etc/**")]),
            ["root could not log in", "ringfenced would not work"]
        );
        assert_eq!(locked(vec![deny(1 << op::EXEC, "/usr/bin/ringctl")]), ["`ringctl off` would not work"]);
        assert_eq!(locked(vec![deny(1 << op::RENAME, "/var/lib/**")]), ["ringfenced would not work"]);
        let mut by_default = Policy::empty();
        by_default.host.default = Verdict::Drop;
        by_default.host.default_at = Some(AT);
        let found = check(&by_default);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].rule.as_str(), found[0].at), ("default", Some(AT)));
        assert!(found[0].to_string().contains("`default` refuses exec of /usr/sbin/agetty"), "{}", found[0]);
    }

    #[test]
    fn hardening_that_leaves_a_way_in_is_none() {
        assert_eq!(locked(vec![deny(1 << op::EXEC, "/usr/sbin/sshd")]), [""; 0], "the console is left");
        assert_eq!(locked(vec![deny(1 << op::EXEC, "/tmp/**"), deny(u32::MAX >> 3, "/home/**")]), [""; 0]);
        let mut users = deny(1 << op::READ, "/etc/shadow");
        users.matches.uid = Some(Ranges::new(vec![(1, u32::MAX)]));
        assert_eq!(locked(vec![users]), [""; 0]);
        let mut audited = deny(1 << op::EXEC, "/usr/bin/bash");
        audited.audit = true;
        assert_eq!(locked(vec![audited]), [""; 0]);
        let mut audits = Policy::empty();
        audits.mode = Mode::Audit;
        audits.host.default = Verdict::Drop;
        assert_eq!(check(&audits), []);
    }
}
