//! Random policies on files, and real system calls: the kernel refuses exactly what the oracle says.

use anyhow::{Context, Result, anyhow, ensure};
use ringfence_abi::host::op;
use ringfence_policy::{
    Loaded, SourceText, load_texts,
    model::{Access, ObjectPath, Verdict},
    oracle::judge_access,
};
use ringfence_tests::{
    differential::seed,
    host::{Machine, attempt, put},
};

/// Policies, and attempts on each. Putting one in force takes an emulated machine longer than a hundred attempts;
/// many more are compared without system calls, in `differential_host`.
const POLICIES: usize = 2;
const ATTEMPTS: usize = 130;

/// Operation, and the step that asks for it and for no other.
const STEPS: [(u32, &str, &str); 5] = [
    (op::READ, "open", "r"),
    (op::WRITE, "open", "w"),
    (op::APPEND, "open", "a"),
    // Not chmod: what cannot be executed would be refused without a rule.
    (op::ATTR, "utimes", ""),
    (op::EXEC, "exec", ""),
];
const USERS: [u32; 3] = [1000, 1001, 65534];
const DIRECTORIES: [&str; 4] = ["a", "b", "ab", "a/b"];
const FILES: [&str; 3] = ["a", "b", "x.conf"];
const PATTERNS: [&str; 14] = [
    "/r/**",
    "/r/a/**",
    "/r/*/a",
    "/r/a*/x.conf",
    "/r/**/b",
    "**/x.conf",
    "/r/{a,b}/?",
    "/r/[!a]/**",
    "/r/a/b",
    "/r/a/b/**",
    "/r/*/b/*",
    "**/b/**",
    "/r/ab/a",
    "/r/?b/*.conf",
];

fn file(random: &mut fastrand::Rng) -> String {
    format!("/r/{}/{}", pick(random, &DIRECTORIES), pick(random, &FILES))
}

fn pick<'a, T>(random: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(..from.len())]
}

fn policy(random: &mut fastrand::Rng) -> String {
    const OPERATIONS: [&str; 7] = ["read", "write", "append", "attr", "exec", "[read, exec]", "[read, write, exec]"];
    const VERBS: [(&str, &str); 5] =
        [("allow", ""), ("deny", ""), ("deny", ""), ("deny", ", mode: audit"), ("count", "")];
    // Only about whom the test plays: the machine goes on.
    const USERS: [&str; 3] = ["uid: 1000", "uid: [1001, nobody]", "owner: true, uid: 1000-1001"];
    let mut text = "ringfence: 1\nhost:\n  default: allow\n  rules:\n".to_owned();
    for number in 0..random.usize(4..16) {
        let ((verb, mode), op, user) = (*pick(random, &VERBS), *pick(random, &OPERATIONS), *pick(random, &USERS));
        let path = match random.u8(..4) {
            0 => String::new(),
            1 => format!(", path: {{not: \"{}\"}}", pick(random, &PATTERNS)),
            _ => format!(", path: [\"{}\", \"{}\"]", pick(random, &PATTERNS), pick(random, &PATTERNS)),
        };
        let rule = format!("    - {{{verb}: {{op: {op}{path}, {user}}}, name: rule{number}{mode}}}\n");
        text.push_str(&rule);
    }
    text
}

#[test]
fn real_calls_are_judged_as_the_oracle_does() -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed());
    for directory in DIRECTORIES {
        for name in FILES {
            let path = format!("/r/{directory}/{name}");
            // A directory has this name.
            if path == "/r/a/b" {
                continue;
            }
            // Not links: a program that runs cannot be written.
            put(&path, std::fs::read("/bin/actor")?)?;
        }
    }
    let machine = Machine::new("ringfence: 1\nhost: {default: allow}\n")?;
    let (mut refused, mut compared) = (0, 0);
    for _ in 0..POLICIES {
        let text = policy(&mut random);
        let source = SourceText { name: "random.yaml".into(), base: "/".into(), text: text.clone() };
        let Loaded { policy, .. } = load_texts(vec![source]).map_err(|report| anyhow!("{report:?}\n{text}"))?;
        machine.daemon.apply(&text).with_context(|| text.clone())?;
        for _ in 0..ATTEMPTS {
            let (op, word, flags) = *pick(&mut random, &STEPS);
            let (user, path) = (*pick(&mut random, &USERS), file(&mut random));
            if path == "/r/a/b" {
                continue;
            }
            let access = access(op, user, &path);
            let expected = match judge_access(&policy, &access).verdict {
                Verdict::Accept => "ok".to_owned(),
                _ => format!("{word}: EACCES"),
            };
            let step = format!("{word} {path} {flags}");
            let found = attempt([format!("become {user}"), step.trim_end().to_owned()])?;
            ensure!(found == expected, "`{found}` instead of `{expected}`: {user} {step}, seed {}\n{text}", seed());
            refused += usize::from(expected != "ok");
            compared += 1;
        }
    }
    ensure!(compared > 200 && refused > 30, "{compared} compared, {refused} refused");
    Ok(())
}

/// What the actor's step asks for.
fn access(op: u32, user: u32, path: &str) -> Access {
    Access {
        op,
        path: Some(ObjectPath::Host(path.to_owned())),
        fstype: Some("rootfs".into()),
        anonymous: Some(false),
        exe: Some("/bin/actor".into()),
        tainted: false,
        ancestors: Vec::new(),
        uid: user,
        gids: vec![0],
        // All files are root's.
        owner: Some(false),
        auid: u32::MAX,
        cgroup: Some("/".into()),
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
