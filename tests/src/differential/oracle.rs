//! The naive evaluator.

use ringfence_policy::compile::CompileError;
use ringfence_policy::model::Policy;
use ringfence_policy::oracle::{LineRef, judge, parse};

use super::{Answer, Evaluator};
use crate::generate::{Packet, World};

/// [`ringfence_policy::oracle`].
#[derive(Default)]
pub struct Oracle(Option<(Policy, World)>);

impl Evaluator for Oracle {
    fn name(&self) -> &'static str {
        "oracle"
    }

    fn load(&mut self, policy: &Policy, world: &World) -> Result<(), CompileError> {
        self.0 = Some((policy.clone(), world.clone()));
        Ok(())
    }

    fn judge(&mut self, packet: &Packet) -> Option<Answer> {
        let (policy, world) = self.0.as_ref()?;
        let parsed = parse(&packet.frame, &packet.context);
        let members = |set, address| world.contains(set, address);
        let decision = judge(policy, &packet.context, &parsed, &members, &world.entries);
        let rule = |index: &usize| LineRef::Rule(*index).counter();
        Some(Answer {
            verdict: decision.verdict.code().into(),
            line: decision.line.counter()?,
            entry: if let LineRef::Dynamic(id) = decision.line { id } else { 0 },
            continued: decision.continued.iter().filter_map(rule).collect(),
            unknown: decision.unknown,
        })
    }
}
