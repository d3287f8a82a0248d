//! What programs at a cgroup cannot judge of the rules about `connect` and `bind`, where they stand in for security hooks.
//!
//! They do not know the caller's executable, its ancestors, its groups or its cgroup's path, and they see TCP, UDP and ping
//! sockets over IP only. A rule that asks for more is not enforced there and shown by name. What is enforced never refuses
//! a call that the whole policy would let through: a refusing rule that cannot be judged is taken out, and in place of a
//! permitting one, what it may have permitted is let through for every caller, whatever the rules after it say.

use ringfence_abi::host::op;
use ringfence_policy::model::{HostMatch, HostRule, Location, Policy, Verdict};
use ringfence_policy::ranges::Ranges;

use super::host::AT_CGROUP;

/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u32; 2] = [2, 10];
/// `SOCK_STREAM` and `SOCK_DGRAM`.
const TYPES: [u32; 2] = [1, 2];
/// Protocols whose sockets pass the programs: ICMP, TCP, UDP, `ICMPv6`, UDP-Lite.
const PROTOCOLS: [u32; 5] = [1, 6, 17, 58, 136];

/// A rule that is not enforced as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub rule: String,
    /// Where it was written.
    pub at: Location,
    /// Why, and what happens instead.
    pub because: String,
}

/// Takes out of a policy what cannot be judged at a cgroup. Rules keep their place and their counter; one that permits
/// gets a rule before it, `unjudged/NAME`, that lets through, and counts, what it may have permitted.
pub fn reduce(policy: &mut Policy) -> Vec<LeftOut> {
    let mut left_out = Vec::new();
    let before = std::mem::take(&mut policy.host.rules);
    let mut rules = Vec::with_capacity(before.len());
    let asked = asked_from(&before, policy.host.default);
    for (mut rule, asked) in before.into_iter().zip(asked) {
        let permits = rule.verdict == Verdict::Accept;
        // Where nothing would refuse, a permission changes nothing.
        let ops = rule.matches.ops & if permits { asked } else { AT_CGROUP };
        let mut leave = |rule: &HostRule, because: String| {
            left_out.push(LeftOut { rule: rule.name.clone(), at: rule.at, because });
        };
        if ops != 0 && !passes(&rule.matches) {
            // It matches nothing that is judged here, as it stands.
            if !permits {
                leave(&rule, format!("{} of sockets that pass no program at a cgroup", words(ops)));
            }
        } else if ops != 0 && !unknown(&rule.matches).is_empty() {
            let cannot = format!(
                "{} by `{}`, which programs at a cgroup cannot tell",
                words(ops),
                unknown(&rule.matches).join("` and `")
            );
            if permits {
                leave(&rule, format!("{cannot}: every caller is let through"));
                rules.push(HostRule {
                    name: format!("unjudged/{}", rule.name),
                    matches: known(HostMatch { ops, ..rule.matches.clone() }),
                    ..rule.clone()
                });
            } else {
                leave(&rule, cannot);
            }
            rule.matches.ops &= !AT_CGROUP;
        }
        rules.push(rule);
    }
    policy.host.rules = rules;
    left_out
}

/// For each rule: the operations that it or one after it may refuse or count, or the default refuse.
fn asked_from(rules: &[HostRule], default: Verdict) -> Vec<u32> {
    let mut ops = if default.refuses() { AT_CGROUP } else { 0 };
    let mut asked: Vec<u32> = rules
        .iter()
        .rev()
        .map(|rule| {
            if rule.verdict != Verdict::Accept && passes(&rule.matches) && unknown(&rule.matches).is_empty() {
                ops |= rule.matches.ops & AT_CGROUP;
            }
            ops
        })
        .collect();
    asked.reverse();
    asked
}

/// Whether sockets that the rule is about pass the programs.
fn passes(matches: &HostMatch) -> bool {
    let some = |ranges: Option<&Ranges>, of: &[u32]| ranges.is_none_or(|ranges| of.iter().any(|n| ranges.contains(*n)));
    matches.path.is_empty()
        && some(matches.family.as_ref(), &FAMILIES)
        && some(matches.proto.as_ref(), &PROTOCOLS)
        && matches.kind.iter().all(|kind| some(kind.any_of.as_ref().map(|kinds| &kinds.types), &TYPES))
}

/// The fields it reads that cannot be told.
fn unknown(matches: &HostMatch) -> Vec<&'static str> {
    [
        ("exe", matches.exe.is_empty()),
        ("ancestor", matches.ancestor.is_empty()),
        ("gid", matches.gid.is_empty()),
        ("unit/cgroup", matches.cgroup.is_empty()),
    ]
    .into_iter()
    .filter_map(|(field, unread)| (!unread).then_some(field))
    .collect()
}

/// The same without them.
fn known(matches: HostMatch) -> HostMatch {
    HostMatch { exe: Vec::new(), ancestor: Vec::new(), gid: Vec::new(), cgroup: Vec::new(), ..matches }
}

fn words(ops: u32) -> String {
    let named = [op::CONNECT, op::BIND].into_iter().filter(|op| ops >> op & 1 == 1);
    named.map(|op| format!("`{}`", op::NAMES[op as usize])).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use ringfence_policy::model::{Access, ObjectPath};
    use ringfence_policy::oracle::judge_access;
    use ringfence_policy::{SourceText, load_texts_with_copies};

    use super::*;

    fn policy(host: &str) -> Policy {
        let text = SourceText { name: "p.yaml".into(), text: format!("ringfence: 1\nhost:\n{host}"), base: "/".into() };
        load_texts_with_copies(vec![text], &ringfence_policy::Copies::new()).unwrap().policy
    }

    fn reduced(host: &str) -> (Policy, Vec<(String, u32)>) {
        let mut policy = policy(host);
        let left_out = reduce(&mut policy).into_iter().map(|one| (one.rule, one.at.line)).collect();
        (policy, left_out)
    }

    fn connect(exe: &str, uid: u32, port: u16) -> Access {
        Access {
            op: op::CONNECT,
            path: None,
            fstype: None,
            anonymous: None,
            exe: Some(exe.into()),
            tainted: false,
            ancestors: Vec::new(),
            uid,
            gids: vec![uid],
            owner: None,
            auid: u32::MAX,
            cgroup: Some("/system.slice/x.service".into()),
            container: false,
            to: Some([10, 0, 0, 1].into()),
            port: Some(port),
            proto: Some(6),
            family: Some(2),
            kind: Some(1),
            capability: None,
            signal: None,
            target: None,
        }
    }

    const ALL: &str = "  default: deny
  rules:
    - deny: {op: connect, port: 25, exe: {not: /usr/sbin/mta}}
      name: mail
    - allow: {op: [read, connect], exe: /usr/bin/psql}
      name: psql
    - allow: {op: connect, port: 443, gid: 33}
      name: web
    - deny: {op: connect, port: 80, uid: 33}
      name: plain
    - allow: {op: connect, uid: 33}
      name: www
";

    fn with_port() -> String {
        ALL.replace("op: [read, connect]", "op: connect, port: 5432")
    }

    #[test]
    fn what_is_enforced_never_refuses_what_the_whole_policy_lets_through() {
        let whole = policy(&with_port());
        let (reduced, left_out) = reduced(&with_port());
        assert_eq!(left_out, [("mail".to_owned(), 5), ("psql".to_owned(), 7), ("web".to_owned(), 9)]);
        let refused = |policy: &Policy, access: &Access| judge_access(policy, access).verdict.refuses();
        let (mut both, mut fewer) = (0, 0);
        for exe in ["/usr/bin/psql", "/usr/sbin/mta", "/usr/bin/curl"] {
            for uid in [0, 33] {
                for port in [25, 80, 443, 5432, 1] {
                    let access = connect(exe, uid, port);
                    let (here, there) = (refused(&reduced, &access), refused(&whole, &access));
                    assert!(there || !here, "{exe} {uid} {port}");
                    both += u32::from(here);
                    fewer += u32::from(there && !here);
                }
            }
        }
        // It is no empty promise: what can be judged is refused, among it by the default.
        assert!(both >= 9 && fewer > 0, "{both} {fewer}");
    }

    #[test]
    fn other_operations_of_a_rule_stay_as_they_were() {
        let (reduced, _) = reduced(ALL);
        let names: Vec<&str> = reduced.host.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["mail", "unjudged/psql", "psql", "unjudged/web", "web", "plain", "www"]);
        let read = |exe: &str| Access {
            op: op::READ,
            path: Some(ObjectPath::Host("/etc/hosts".into())),
            ..connect(exe, 0, 1)
        };
        assert!(!judge_access(&reduced, &read("/usr/bin/psql")).verdict.refuses());
        assert!(judge_access(&reduced, &read("/usr/bin/curl")).verdict.refuses());
    }

    #[test]
    fn a_permission_that_changes_nothing_is_no_matter() {
        let rules = "  rules:
    - allow: {op: all, exe: /usr/bin/psql}
      name: psql
    - deny: {op: connect, port: 25, gid: 33}
      name: mail
";
        let (allows, left_out) = reduced(&format!("  default: allow\n{rules}"));
        assert_eq!((allows.host.rules.len(), left_out), (2, vec![("mail".to_owned(), 7)]));
        let (refuses, left_out) = reduced(&format!("  default: deny\n{rules}"));
        assert_eq!((refuses.host.rules.len(), left_out.len()), (3, 2));
    }

    #[test]
    fn rules_about_other_sockets_are_named_unless_they_permit() {
        let rule = |verb: &str, what: &str| {
            reduced(&format!("  default: allow\n  rules:\n    - {verb}: {{op: connect, {what}}}\n      name: r\n"))
                .1
                .len()
        };
        for what in ["path: /run/x.sock", "family: unix", "type: raw", "proto: 132"] {
            assert_eq!((rule("deny", what), rule("allow", what)), (1, 0), "{what}");
        }
        for what in ["family: [ipv4, unix]", "type: stream", "proto: tcp", "port: 25", "uid: 33", "to: 10.0.0.0/8"] {
            assert_eq!(rule("deny", what), 0, "{what}");
        }
    }
}
