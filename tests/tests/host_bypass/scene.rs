//! Twin directories: below `/p` files are protected, below `/q` the same files are not.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};
use ringfence_tests::host::{Attempt, Machine, Shared, attempt, make_directory, name_actor, put};

/// The machine with the rules that no attempt may get round.
pub static MACHINE: Shared = Shared::new(policy);

/// The file systems that hold pairs of directories, in memory and on a disk, and how many. Each test takes its own.
const ROOTS: [(&str, usize); 2] = [("", 70), ("/mnt/ext4", 4)];

/// Protected are `file` and `sub` (reading), `other` (writing), `program` (executing); `/bin/trusted` may read `file`.
const POLICY: &str = "ringfence: 1
host:
  default: allow
  rules:
    - {allow: {op: read, path: [FILES/file], exe: /bin/trusted}, name: trusted}
    - {allow: {op: read, path: [FILES/sub/**], exe: /bin/mover}, name: mover}
    - {deny: {op: read, path: [FILES/file, FILES/sub/**]}, name: secret}
    - {deny: {op: write, path: [FILES/other]}, name: fixed}
    - {deny: {op: exec, path: [FILES/program, FILES/dynamic]}, name: program}
    - {deny: {op: exec, anonymous: true, uid: 4001}, name: nameless}
    - {deny: {op: read, path: /shared, exe: /bin/untrusted}, name: untrusted}
    - {deny: {op: signal, target: /bin/victim}, name: signal}
    - {deny: {op: connect, to: [127.0.0.1, \"::1\"], port: 4001}, name: port}
";

fn policy() -> Result<String> {
    for name in ["trusted", "untrusted", "mover", "victim"] {
        name_actor(&format!("/bin/{name}"))?;
    }
    put("/shared", "shared")?;
    for (root, pairs) in ROOTS {
        for (side, number) in ["p", "q"].into_iter().flat_map(|side| (0..pairs).map(move |number| (side, number))) {
            let base = format!("{root}/{side}/{number}");
            for file in ["file", "other", "sub/file", "sub/deep/file", "sub/a/file", "sub/b/file", "free"] {
                put(format!("{base}/{file}"), "secret")?;
            }
            make_directory(format!("{base}/empty"))?;
            make_directory(format!("{base}/work"))?;
            put(format!("{base}/script"), format!("#!{base}/program\n"))?;
            if root.is_empty() {
                std::fs::hard_link("/bin/actor", format!("{base}/program"))?;
                std::fs::hard_link("/usr/bin/cat", format!("{base}/dynamic"))?;
                std::fs::hard_link(format!("{base}/file"), format!("{base}/older"))?;
            }
        }
    }
    for base in ["/p/deep", "/q/deep"] {
        for deep in &DEEP {
            make_directory(format!("{base}/sub/{}", deep.name))?;
            let outcome = attempt(deep.steps(base, "mkdir", "open file rc"))?;
            ensure!(outcome == "ok", "cannot make deep directories: {outcome}");
        }
    }
    let files = |name: &str| format!("/p/*/{name}, /mnt/ext4/p/*/{name}");
    let names = ["file", "sub/**", "other", "program", "dynamic"];
    Ok(names.iter().fold(POLICY.to_owned(), |text, name| text.replace(&format!("FILES/{name}"), &files(name))))
}

/// Directories in directories.
pub struct Deep {
    /// Name of the first.
    pub name: &'static str,
    levels: usize,
    width: usize,
    /// The line that counts paths that cannot be told for this reason.
    pub line: Option<&'static str>,
}

/// 100 levels; 4,000 bytes, which can be told; 4,600 bytes.
pub const DEEP: [Deep; 3] = [
    Deep { name: "deep", levels: 100, width: 1, line: Some("unknown/depth") },
    Deep { name: "long", levels: 57, width: 68, line: None },
    Deep { name: "longer", levels: 56, width: 80, line: Some("unknown/length") },
];

impl Deep {
    /// Steps down from `base/sub`, each after `step` (making or changing directories) for the next, and one at the end.
    pub fn steps(&self, base: &str, step: &str, last: &str) -> Vec<String> {
        let component = "d".repeat(self.width);
        let mut steps = vec![format!("chdir {base}/sub/{}", self.name)];
        for _ in 0..self.levels {
            if step != "chdir" {
                steps.push(format!("{step} {component}"));
            }
            steps.push(format!("chdir {component}"));
        }
        steps.push(last.to_owned());
        steps
    }
}

/// A pair of directories of a test's own.
pub struct Pair {
    root: &'static str,
    number: usize,
}

impl Pair {
    /// In memory.
    pub fn new() -> Result<Self> {
        Self::on(0)
    }

    /// On the disk.
    pub fn on_disk() -> Result<Self> {
        Self::on(1)
    }

    fn on(root: usize) -> Result<Self> {
        static NEXT: [AtomicUsize; ROOTS.len()] = [const { AtomicUsize::new(0) }; ROOTS.len()];
        let ((root, pairs), number) = (ROOTS[root], NEXT[root].fetch_add(1, Ordering::Relaxed));
        ensure!(number < pairs, "there are no more directories");
        Ok(Self { root, number })
    }

    /// The protected directory.
    pub fn protected(&self) -> String {
        format!("{}/p/{}", self.root, self.number)
    }

    /// The one without rules.
    pub fn free(&self) -> String {
        format!("{}/q/{}", self.root, self.number)
    }

    /// Both, with what the steps come to there.
    fn sides(&self, refused: &str) -> [(String, String); 2] {
        [(self.protected(), refused.to_owned()), (self.free(), "ok".to_owned())]
    }
}

/// Does the steps in both directories of a fresh pair, `BASE` standing for the directory: refused as expected, by this
/// rule, in the protected one; done in the other.
pub fn refused(steps: &[&str], rule: &str, outcome: &str) -> Result<()> {
    refused_in(&Pair::new()?, steps, rule, outcome)
}

/// The same in a pair.
pub fn refused_in(pair: &Pair, steps: &[&str], rule: &str, outcome: &str) -> Result<()> {
    MACHINE.run(|machine| {
        for (base, expected) in pair.sides(outcome) {
            let steps: Vec<String> = steps.iter().map(|step| step.replace("BASE", &base)).collect();
            judged(machine, &Attempt::new(&steps), rule, &expected)?;
        }
        Ok(())
    })
}

/// Makes an attempt: if it is expected to fail, then by this rule.
pub fn judged(machine: &Machine, attempt: &Attempt, rule: &str, expected: &str) -> Result<()> {
    let before = machine.hits()?;
    let outcome = attempt.run()?;
    ensure!(outcome == expected, "`{outcome}` instead of `{expected}`: {attempt:?}");
    let hits = machine.hits()?.since(&before, rule)?;
    ensure!((hits > 0) == (expected != "ok"), "{rule} counted {hits} with `{outcome}`: {attempt:?}");
    Ok(())
}

/// Runs a program that is not ours; whether it ended well, and all that it printed.
pub fn program(words: &[&str]) -> Result<(bool, String)> {
    let (program, arguments) = words.split_first().context("no program")?;
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot start {words:?}"))?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
}
