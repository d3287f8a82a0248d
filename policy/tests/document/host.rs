//! Rules about the host: what is accepted and what it becomes, what is refused and how it is said.

use ringfence_abi::host::op;
use ringfence_policy::model::{HostRule, PathGlob, Verdict};

use super::{accepts, refuses, says, warns};

fn with(rules: &str) -> String {
    format!("ringfence: 1\nhost:\n  default: allow\n  rules:\n    - {rules}\n")
}

fn rules(text: &str) -> Vec<HostRule> {
    accepts(text).policy.host.rules
}

fn rule(fields: &str) -> HostRule {
    rules(&with(&format!("deny: {{{fields}}}"))).remove(0)
}

#[test]
fn a_policy_without_host_has_the_implicit_chain() {
    let host = accepts("ringfence: 1\n").policy.host;
    assert!(host.implicit && host.default == Verdict::Accept && host.rules.is_empty());
    let host = accepts("ringfence: 1\nhost: {protect_self: true}\n").policy.host;
    assert!(!host.implicit && host.protect_self && host.default == Verdict::Accept);
    refuses("ringfence: 1\nhost: {rules: [{deny: {op: read}}]}\n", "`host` has no `default`");
    refuses("ringfence: 1\nhost: {default: drop}\n", "unknown verdict `drop`");
    refuses("ringfence: 1\nhost: {default: allow, interfaces: [eth0]}\n", "unknown key of `host`");
}

#[test]
fn blocks_and_groups_are_flattened_with_their_names() {
    let text = "ringfence: 1\ngroups:\n  temp:\n    - deny: {op: exec, path: /tmp/**}\n      name: exec\n    - count: {op: read, path: /tmp/**}\nhost:\n  default: allow\n  rules:\n    - use: temp\n      when: {uid: {not: 0}}\n    - name: nginx\n      when: {unit: nginx, op: [exec, write]}\n      rules:\n        - allow: {path: /var/lib/nginx/**}\n        - deny: {op: exec, uid: 33}\n          name: shell\n        - use: temp\n      default: deny\n    - deny: {op: module_load}\n      mode: audit\n";
    let rules = rules(text);
    let names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    let expected = [
        "temp/exec",
        "temp[1]",
        "nginx[0]",
        "nginx/shell",
        "nginx/temp/exec",
        "nginx/temp[1]",
        "nginx/default",
        "policy.yaml:host[2]",
    ];
    assert_eq!(names.len(), expected.len(), "{names:?}");
    for (name, expected) in names.iter().zip(expected) {
        assert!(*name == expected || expected.contains(":host") && name.ends_with(":host[2]"), "{name} for {expected}");
    }
    assert!(!rules[0].matches.uid.as_ref().unwrap().contains(0), "the group's `when` holds");
    assert_eq!(rules[3].matches.ops, 1 << op::EXEC | 1 << op::MAP_EXEC, "both `op` hold");
    assert_eq!(rules[2].matches.cgroup[0].any_of, Some(vec![PathGlob::Unit("nginx.service".to_owned())]));
    assert!(rules[6].verdict == Verdict::Drop && rules[6].named && rules[7].audit);
}

#[test]
fn words_of_operations_cover_what_they_say() {
    assert_eq!(rule("op: write").matches.ops, (op::WRITE..=op::ATTR).map(|op| 1 << op).sum::<u32>());
    assert_eq!(rule("op: exec").matches.ops, 1 << op::EXEC | 1 << op::MAP_EXEC);
    assert_eq!(rule("op: all").matches.ops, (1 << op::COUNT) - 1);
    assert_eq!(rule("op: {in: write, not: attr}").matches.ops >> op::ATTR & 1, 0);
}

#[test]
fn fields_have_their_values() {
    for fields in [
        "op: read, path: [/etc/shadow, '/home/*/.ssh/**', '**/id_rsa', '/srv/{a,b}/[a-z]?']",
        "op: connect, path: ['@dbus*', /run/*.sock]",
        "op: exec, anonymous: true",
        "op: write, fstype: {not: [tmpfs, overlay]}",
        "op: read, exe: /usr/bin/cat, ancestor: {not: /usr/sbin/sshd}",
        "op: read, path: /x, owner: true, container: false",
        "op: setuid, uid: [root, 1000-1999], gid: {not: root}, auid: unset",
        "op: exec, unit: [nginx, 'getty@*', user.slice], cgroup: '/system.slice/**'",
        "op: connect, to: [192.0.2.0/24, '2001:db8::1'], port: [http, 8000-8100], proto: tcp",
        "op: socket, family: [packet, netlink, 44], type: [raw, packet]",
        "op: socket, type: {not: [stream, dgram]}",
        "op: capability, capability: [sys_admin, CAP_NET_RAW, 39]",
        "op: signal, signal: [kill, SIGTERM, 9], target: /usr/sbin/sshd",
        "op: ptrace, target: '/usr/**'",
    ] {
        rule(fields);
    }
    let matches = rule("op: signal, signal: [kill, SIGTERM, hup]").matches.signal.unwrap();
    assert!([1, 9, 15].into_iter().all(|signal| matches.contains(signal)) && !matches.contains(2));
    assert!(rule("op: capability, capability: checkpoint_restore").matches.capability.unwrap().contains(40));
}

#[test]
fn mistakes_are_named() {
    for (fields, fragment) in [
        ("op: raed", "did you mean `read`?"),
        ("op: read, pth: /etc", "did you mean `path`?"),
        ("path: /etc", "a rule without `op`"),
        ("op: read, path: etc", "a path begins with `/`"),
        ("op: read, path: /etc/", "a component without a name"),
        ("op: read, path: /a/../b", "`.` and `..`"),
        ("op: read, path: '/a/b**'", "`**` stands for whole components"),
        ("op: read, path: '/a/{b'", "`{` without `}`"),
        ("op: read, path: '/a/[b'", "`[` without `]`"),
        ("op: read, path: '/{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}'", "more than 64 patterns"),
        ("op: read, path: $nope", "there is no set"),
        ("op: exec, exe: '@x'", "expected an executable's path"),
        ("op: exec, anonymous: maybe", "expected `true` or `false`"),
        ("op: read, uid: nobody-here", "there is no user `nobody-here` in /etc/passwd"),
        ("op: read, gid: nobody-here", "there is no group `nobody-here` in /etc/group"),
        ("op: read, uid: 1_000", "without `_`"),
        ("op: read, unit: a/b", "expected a unit such as `nginx`"),
        ("op: read, unit: backup.timer", "has no processes"),
        ("op: read, cgroup: nginx", "expected the path of a cgroup"),
        ("op: read, fstype: fuse.sshfs", "write `fuse`"),
        ("op: socket, family: ip4", "did you mean `ipv4`?"),
        ("op: socket, type: rw", "unknown socket type"),
        ("op: capability, capability: sys_admn", "did you mean `sys_admin`?"),
        ("op: signal, signal: trem", "did you mean `term`?"),
        ("op: signal, signal: 0", "there is no signal 0"),
        ("op: connect, to: $local", "a dynamic set cannot be used"),
        ("op: connect, proto: icmp, port: 80", "needs a protocol with ports"),
        ("op: read, port: 80", "`port` means nothing for `read`"),
        ("op: exec, signal: kill", "`signal` means nothing for"),
        ("op: read, target: /bin/x", "`target` means nothing"),
        ("op: read, anonymous: true", "`anonymous` means nothing"),
        ("op: read, state: new", "belongs to the network half"),
        ("op: read, name: x", "stands beside the verb"),
    ] {
        refuses(&with(&format!("deny: {{{fields}}}")), fragment);
    }
    for (rule, fragment) in [
        ("drop: {op: read}", "operations are denied: `deny`"),
        ("accept: {op: read}", "operations are allowed: `allow`"),
        ("deny: any\n      allow: any", "two verbs"),
        ("name: x", "a rule without a verb"),
        ("allow: {op: read}\n      mode: audit", "refuses nothing"),
        ("allow: {op: read}\n      when: {uid: 0}", "`when` stands beside"),
        ("deny: {op: read}\n      log: true", "`log` needs events"),
        ("deny: {op: read}\n      limit: {over: 1/s}", "a `limit` of calls is not in this version"),
        ("use: nowhere", "there is no group"),
        ("rules: [{rules: [{deny: any}]}]", "a block inside a block"),
        ("rules: [{deny: any}]\n      mode: audit", "`mode` beside `rules`"),
        ("deny: any\n      rules: [{deny: any}]", "no verb"),
    ] {
        refuses(&with(rule), fragment);
    }
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_places() {
    let said = says(&with("deny: {op: raed, path: etc, uid: -1}"));
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said.iter().all(|line| line.starts_with("5:")), "{said:#?}");
}

#[test]
fn what_excludes_itself_is_warned_of() {
    warns(&with("when: {op: read}\n      rules: [{deny: {op: exec}}]"), "can never match");
    warns("ringfence: 1\ngroups: {g: [{deny: {op: exec}}]}\nhost: {default: allow}\n", "the group `g` is not used");
}

#[test]
fn tests_say_an_access() {
    let text = |test: &str| {
        format!(
            "{}tests:\n  - access: {{{test}}}\n    expect: deny\n",
            with("deny: {op: [read, exec], path: /etc/shadow, uid: {not: 0}}\n      name: shadow")
        )
    };
    let loaded = accepts(&text("op: read, path: /etc/shadow, exe: /usr/bin/cat, uid: 1000, gid: [4, 27]"));
    let access = &loaded.policy.access_tests[0].access;
    assert_eq!((access.op, access.uid, access.gids.as_slice()), (op::READ, 1000, &[4, 27][..]));
    assert_eq!((access.owner, access.anonymous, access.auid), (Some(false), None, u32::MAX));
    assert_eq!(ringfence_policy::oracle::run_access_tests(&loaded.policy), []);
    let loaded = accepts(&text("op: read, path: /etc/shadow, uid: 0"));
    let failures = ringfence_policy::oracle::run_access_tests(&loaded.policy);
    assert!(failures.len() == 1 && failures[0].message.contains("`default` decides allow"), "{failures:?}");
    for (test, fragment) in [
        ("path: /etc/shadow", "an access without `op`"),
        ("op: all", "one operation"),
        ("op: read, path: /etc/../x", "a whole path"),
        ("op: read, paht: /x", "did you mean `path`?"),
        ("op: read, uid: 1-2", "expected one value"),
    ] {
        refuses(&text(test), fragment);
    }
}
