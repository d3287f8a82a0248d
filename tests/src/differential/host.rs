//! Random accesses: the oracle, the compiled tables and the program in the kernel.
#![expect(clippy::expect_used, reason = "what the kernel refuses here is a failed test")]

use std::path::Path;

use ringfence_abi::host::line::BUILTINS;
use ringfence_policy::{
    compile::{Compiled, compile},
    evaluate,
    generate::{self, Random},
    model::{Access, Policy},
    oracle::judge_access,
};
use ringfenced::kernel::{Kernel, Loaded, mount_bpffs};

use super::Answer;

/// A bpffs of its own; the program that explains accesses is loaded there, and nothing is attached.
pub struct Explainer {
    kernel: Option<Kernel>,
    directory: tempfile::TempDir,
    generation: u64,
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct ComparedAccesses {
    /// Policies.
    pub policies: u32,
    /// Accesses judged alike.
    pub accesses: u32,
    /// Of these, decided by a rule.
    pub by_rule: u32,
}

impl Explainer {
    /// Mounts the bpffs and takes it over.
    ///
    /// # Panics
    /// Where the kernel refuses either.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        mount_bpffs(directory.path()).expect("a bpffs");
        let kernel = Kernel::open(directory.path(), Some(directory.path())).expect("a kernel that can");
        Self { kernel: Some(kernel), directory, generation: 0 }
    }

    /// Draws a policy from the seed, and compares what all three say of so many accesses.
    ///
    /// # Panics
    /// On the first access with different answers, with the seed, the rules and the access.
    pub fn compare(&mut self, seed: u64, accesses: u32) -> ComparedAccesses {
        let mut random = Random::new(seed);
        let policy = generate::policy(&mut random);
        let compiled = compile(&policy).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        self.generation += 1;
        let kernel = self.kernel.as_ref().expect("the kernel is given up only on drop");
        let loaded = kernel.load(&compiled, self.generation, |set| set.0).unwrap_or_else(|error| {
            panic!("seed {seed}: the kernel refuses a generation: {error}: {:?}", std::error::Error::source(&error))
        });
        let mut compared = ComparedAccesses { policies: 1, ..ComparedAccesses::default() };
        for _ in 0..accesses {
            let access = generate::access(&mut random);
            let oracle = oracle(&policy, &access);
            let others = [("tables", tables(&compiled, &access)), ("kernel", ask(kernel, &loaded, &compiled, &access))];
            for (name, other) in others {
                let rules = &policy.host.rules;
                assert!(
                    other == oracle,
                    "seed {seed}: {name} {other:?}, oracle {oracle:?}: {access:#?}\nin {rules:#?}"
                );
            }
            compared.accesses += 1;
            compared.by_rule += u32::from(oracle.line >= BUILTINS);
        }
        kernel.unload(loaded).expect("an idle generation can be unloaded");
        compared
    }
}

impl Default for Explainer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Explainer {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.take() {
            // The mount goes either way.
            let _ = kernel.off();
        }
        let _ = nix::mount::umount2(self.directory.path() as &Path, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Whether a field was unknown is the programs' own business: the oracle does not say.
fn answer(verdict: u32, line: u32, continued: Vec<u32>) -> Answer {
    Answer { verdict, line, entry: 0, continued, unknown: false }
}

fn oracle(policy: &Policy, access: &Access) -> Answer {
    let decision = judge_access(policy, access);
    let line = decision.line.host_counter().expect("a line that counts");
    let continued = decision.continued.iter().map(|&rule| BUILTINS + rule as u32).collect();
    answer(u32::from(decision.verdict.code()), line, continued)
}

fn tables(compiled: &Compiled, access: &Access) -> Answer {
    let decision = evaluate::access(&compiled.host, access);
    answer(decision.verdict, decision.line, decision.continued)
}

fn ask(kernel: &Kernel, loaded: &Loaded, compiled: &Compiled, access: &Access) -> Answer {
    let question = evaluate::question(&compiled.host, access, 0).expect("paths are short");
    let found = kernel.explain_access(loaded, &question).expect("a test run");
    answer(found.verdict, found.line, found.continued[..found.continued_len as usize].to_vec())
}
