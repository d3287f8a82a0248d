//! Several evaluators of one policy, asked about the same packets: all must give the same answer.

mod entries;
mod host;
mod kernel;
mod oracle;
mod tables;

use std::cell::RefCell;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use ringfence_policy::compile::CompileError;
use ringfence_policy::model::Policy;

use crate::generate::{Case, Cases, Packet, World};

pub use entries::entry_map;
pub use host::{ComparedAccesses, Explainer};
pub use kernel::Programs;
pub use oracle::Oracle;
pub use tables::Tables;

/// What an evaluator says of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// One of [`ringfence_abi::verdict`].
    pub verdict: u32,
    /// Counter index within the chain.
    pub line: u32,
    /// Id of the dynamic entry that decided; 0: none.
    pub entry: u64,
    /// Counter indices of the rules that matched and let evaluation go on.
    pub continued: Vec<u32>,
    /// A field was unknown.
    pub unknown: bool,
}

/// Something that judges packets by a policy.
pub trait Evaluator {
    /// How it is called in messages.
    fn name(&self) -> &'static str;

    /// Takes up a policy and its surroundings.
    fn load(&mut self, policy: &Policy, world: &World) -> Result<(), CompileError>;

    /// Judges a packet; `None`: the policy has no chain for its direction.
    fn judge(&mut self, packet: &Packet) -> Option<Answer>;
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Policies that all evaluators took.
    pub policies: u32,
    /// Policies that one of them refused, because a packet could meet too many rules that continue.
    pub refused: u32,
    /// Packets judged alike.
    pub packets: u32,
    /// Of these, decided by a rule.
    pub by_rule: u32,
}

/// Loads the case's policy everywhere and asks about each packet; the first evaluator is the one that is believed.
pub fn compare(case: &Case, evaluators: &mut [Box<dyn Evaluator>]) -> Result<Compared, String> {
    for evaluator in &mut *evaluators {
        match evaluator.load(&case.policy, &case.world) {
            Ok(()) => {}
            Err(CompileError::TooManyContinuations { .. }) => {
                return Ok(Compared { refused: 1, ..Compared::default() });
            }
            Err(error) => return Err(format!("{} refuses the policy: {error}", evaluator.name())),
        }
    }
    let mut compared = Compared { policies: 1, ..Compared::default() };
    for packet in &case.packets {
        let answers: Vec<_> =
            evaluators.iter_mut().map(|evaluator| (evaluator.name(), evaluator.judge(packet))).collect();
        if answers.iter().any(|(_, answer)| *answer != answers[0].1) {
            return Err(format!("different answers: {answers:#?}\nto {packet:?}"));
        }
        let line = answers[0].1.as_ref().map_or(0, |answer| answer.line);
        compared.by_rule += u32::from(line >= ringfence_abi::counter::BUILTINS);
        compared.packets += 1;
    }
    Ok(compared)
}

/// The seed of this run: `RINGFENCE_SEED`, or always the same.
#[must_use]
pub fn seed() -> u64 {
    std::env::var("RINGFENCE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Compares random cases, each first changed by `change`.
///
/// # Panics
/// On the first case with different answers, after shrinking it, with the seed, the smallest policy and frame.
pub fn run(cases: Cases, count: u32, change: fn(&mut Case), evaluators: Vec<Box<dyn Evaluator>>) -> Compared {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    let config = Config {
        cases: count,
        max_shrink_iters: 20_000,
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let state = RefCell::new((evaluators, Compared::default()));
    let outcome = runner.run(&cases, |mut case| {
        change(&mut case);
        let (evaluators, total) = &mut *state.borrow_mut();
        let one = compare(&case, evaluators).map_err(TestCaseError::fail)?;
        total.policies += one.policies;
        total.refused += one.refused;
        total.packets += one.packets;
        total.by_rule += one.by_rule;
        Ok(())
    });
    match outcome {
        Ok(()) => state.into_inner().1,
        Err(TestError::Fail(reason, case)) => panic!("seed {}, {cases:?}: {reason}\n{case:#?}", seed()),
        Err(TestError::Abort(reason)) => panic!("seed {}, {cases:?}: {reason}", seed()),
    }
}
