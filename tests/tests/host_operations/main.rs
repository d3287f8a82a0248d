//! Every operation by every system call of the table: allowed, audited and counted in one attempt, denied in another; by
//! the user who asks and, where there is one, by the path that is asked for. The errors and the counters are checked.

mod table;

use std::{os::unix::net::UnixListener, sync::OnceLock};

use anyhow::{Context, Result, ensure};
use ringfence_abi::host::op;
use ringfence_tests::host::{Attempt, Fixture, Hits, Machine, Shared, attempt};
use table::{CASES, Case};

static MACHINE: Shared = Shared::new(policy);

/// What the rules of a trial do to it. Each trial has a user and a directory of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Counted by one rule, denied by one in audit mode, allowed by the next; one that denies comes too late.
    Pass,
    Deny,
}

/// What a trial's rules go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    User,
    Path,
}

/// One attempt of the table, with one rule.
struct Trial {
    number: usize,
    case: &'static Case,
    by: By,
    verdict: Verdict,
}

impl Trial {
    /// All trials of the operation; of all operations where none is named.
    fn all(op: Option<&str>) -> impl Iterator<Item = Self> {
        let cases = CASES.iter().enumerate().filter(move |(_, case)| op.is_none_or(|op| case.op == op));
        cases.flat_map(|(number, case)| {
            let ways = [By::User, By::Path].into_iter().filter(|&by| by == By::User || case.path);
            ways.flat_map(move |by| [Verdict::Pass, Verdict::Deny].map(|verdict| Self { number, case, by, verdict }))
        })
    }

    fn name(&self) -> String {
        format!("case{}-{:?}-{:?}", self.number, self.by, self.verdict)
    }

    /// Below one directory for all that pass an operation.
    fn directory(&self) -> String {
        format!("/t/{}/{:?}-{:?}/{}", self.case.op, self.by, self.verdict, self.number)
    }

    fn user(&self) -> usize {
        user(self.number, self.verdict)
    }

    /// The rule that denies it.
    fn rule(&self) -> Option<String> {
        let subject = match self.by {
            By::User => format!("uid: {}", self.user()),
            By::Path => format!("path: {}/**", self.directory()),
        };
        let rule = format!("    - {{deny: {{op: {}, {subject}}}, name: {}}}\n", self.case.op, self.name());
        (self.verdict == Verdict::Deny).then_some(rule)
    }

    /// Makes its files, before the rules come. Somebody listens at the socket as long as the listener is there.
    fn prepare(&self) -> Result<UnixListener> {
        let fixture = Fixture::new(self.directory())?.with_program()?;
        let listener = UnixListener::bind(fixture.path("socket"))?;
        std::os::unix::fs::chown(fixture.path("socket"), Some(u32::try_from(self.user())?), None)?;
        Ok(listener)
    }

    /// Does it and checks how it went.
    fn run(&self, process: u32) -> Result<()> {
        let user = match self.by {
            By::User => format!("become {}", self.user()),
            // Also root.
            By::Path => "sleep 0".to_owned(),
        };
        let mut steps = self.case.steps.to_vec();
        if !steps.contains(&"BECOME") {
            steps.insert(0, "BECOME");
        }
        let steps: Vec<String> =
            steps.iter().map(|step| step.replace("BECOME", &user).replace("PID", &process.to_string())).collect();
        let outcome = attempt(Fixture::at(self.directory()).steps(&steps))?;
        let expected = if self.verdict == Verdict::Deny { self.case.refused } else { "ok" };
        ensure!(outcome == expected, "`{outcome}` instead of `{expected}`: {} {steps:?}", self.name());
        Ok(())
    }

    /// Checks what its rule has counted.
    fn counted(&self, before: &Hits, after: &Hits) -> Result<()> {
        let hits = if self.verdict == Verdict::Deny { after.since(before, &self.name())? } else { 1 };
        ensure!(hits > 0, "{} counted nothing: {:?}", self.name(), self.case.steps);
        Ok(())
    }
}

fn user(number: usize, verdict: Verdict) -> usize {
    20_000 + number + if verdict == Verdict::Deny { 1_000 } else { 0 }
}

/// The rules for all attempts on an operation that pass: so few, because one call may meet 32 that count.
fn passing(op: &str, by: By) -> Option<String> {
    let trials = || Trial::all(Some(op)).filter(move |trial| trial.by == by && trial.verdict == Verdict::Pass);
    let subject = match by {
        By::User => format!("uid: {}-{}", trials().next()?.user(), trials().last()?.user()),
        By::Path => trials().next().map(|_| format!("path: /t/{op}/Path-Pass/**"))?,
    };
    let rule = |verb: &str, suffix: &str, mode: &str| {
        format!("    - {{{verb}: {{op: {op}, {subject}}}, name: {op}-{by:?}-{suffix}{mode}}}\n")
    };
    let rules = [
        rule("count", "count", ""),
        rule("deny", "audit", ", mode: audit"),
        rule("allow", "allow", ""),
        rule("deny", "late", ""),
    ];
    Some(rules.concat())
}

/// Checks that these have counted each attempt, and the one that comes too late none.
fn passed(op: &str, by: By, before: &Hits, after: &Hits) -> Result<()> {
    let trials = Trial::all(Some(op)).filter(|trial| trial.by == by && trial.verdict == Verdict::Pass).count() as u64;
    let grown = |suffix: &str| after.since(before, &format!("{op}-{by:?}-{suffix}"));
    for suffix in ["count", "audit", "allow"] {
        let hits = if trials == 0 { 0 } else { grown(suffix)? };
        ensure!(hits >= trials, "{op}-{by:?}-{suffix} counted {hits} in {trials} attempts");
    }
    let late = if trials == 0 { 0 } else { grown("late")? };
    ensure!(late == 0, "{op}-{by:?}-late decided {late} times");
    Ok(())
}

/// Those who listen at the trials' sockets, as long as the tests run.
static LISTENERS: OnceLock<Vec<UnixListener>> = OnceLock::new();

fn policy() -> Result<String> {
    let listeners = Trial::all(None).map(|trial| trial.prepare()).collect::<Result<_>>()?;
    LISTENERS.get_or_init(|| listeners);
    let denying = Trial::all(None).filter_map(|trial| trial.rule());
    let passing = op::NAMES.iter().flat_map(|op| [By::User, By::Path].map(|by| passing(op, by))).flatten();
    let rules: String = denying.chain(passing).collect();
    Ok(format!("ringfence: 1\nhost:\n  default: allow\n  rules:\n{rules}"))
}

/// Every attempt on an operation; all that is wrong is said at once.
fn check(op: &str) -> Result<()> {
    ensure!(CASES.iter().any(|case| case.op == op), "the table has no {op}");
    MACHINE.run(|machine: &mut Machine| {
        let process = Attempt::new(["wait"]).start()?;
        let before = machine.hits()?;
        let mut wrong: Vec<String> =
            Trial::all(Some(op)).filter_map(|trial| Some(format!("{:#}", trial.run(process.id()).err()?))).collect();
        let after = machine.hits()?;
        wrong.extend(
            Trial::all(Some(op)).filter_map(|trial| Some(format!("{:#}", trial.counted(&before, &after).err()?))),
        );
        wrong.extend(
            [By::User, By::Path].iter().filter_map(|&by| Some(format!("{:#}", passed(op, by, &before, &after).err()?))),
        );
        ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        ensure!(process.finish().context("the other process")? == "ok", "the other process was disturbed");
        Ok(())
    })
}

macro_rules! operations {
    ($($op:ident)*) => {
        $(
            #[test]
            fn $op() -> Result<()> {
                check(stringify!($op))
            }
        )*

        /// Each operation is tested.
        #[test]
        fn nothing_is_left_out() {
            assert_eq!([$(stringify!($op)),*], op::NAMES);
        }
    };
}

operations! {
    read write append create delete rename link attr exec map_exec mount umount connect bind listen send socket
    module_load kexec ptrace bpf perf userns capability setuid setgid signal ioctl settime
}
