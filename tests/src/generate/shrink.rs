//! Cases as a proptest strategy: drawn by seed, shrunk by leaving things out.

use proptest::prelude::any;
use proptest::strategy::{NewTree, Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use ringfence_policy::model::{Chain, Match};

use super::{Case, Shape, case};

/// Random cases of one shape.
#[derive(Clone, Copy, Debug)]
pub struct Cases {
    /// Size of the policy.
    pub shape: Shape,
    /// How many packets.
    pub packets: usize,
}

impl Strategy for Cases {
    type Tree = CaseTree;
    type Value = Case;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let seed = any::<u64>().new_tree(runner)?.current();
        Ok(CaseTree { current: case(seed, self.shape, self.packets), before: None, step: Step::default() })
    }
}

/// A case and the way it is made smaller: chunks of each list, from halves to single elements; then the conditions of
/// the rules that are left; then the bytes of the frames.
#[derive(Clone, Debug)]
pub struct CaseTree {
    current: Case,
    /// What the current case was made from, to go back to when it no longer fails.
    before: Option<Case>,
    step: Step,
}

/// Which part is to be left out next.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    list: usize,
    /// Length of a chunk; 0: not yet chosen.
    chunk: usize,
    at: usize,
}

const LISTS: usize = 8;

impl ValueTree for CaseTree {
    type Value = Case;

    fn current(&self) -> Case {
        self.current.clone()
    }

    fn simplify(&mut self) -> bool {
        while self.step.list < LISTS {
            let length = list_length(&self.current, self.step.list);
            if self.step.chunk == 0 {
                self.step.chunk = length.div_ceil(2);
            }
            if length == 0 {
                self.step = Step { list: self.step.list + 1, ..Step::default() };
            } else if self.step.at >= length {
                self.step = match self.step.chunk {
                    1 => Step { list: self.step.list + 1, ..Step::default() },
                    chunk => Step { chunk: chunk / 2, at: 0, ..self.step },
                };
            } else {
                let end = (self.step.at + self.step.chunk).min(length);
                let mut smaller = self.current.clone();
                if leave_out(&mut smaller, self.step.list, self.step.at, end) {
                    self.before = Some(std::mem::replace(&mut self.current, smaller));
                    return true;
                }
                self.step.at = end;
            }
        }
        false
    }

    fn complicate(&mut self) -> bool {
        let Some(before) = self.before.take() else { return false };
        self.current = before;
        self.step.at += self.step.chunk;
        true
    }
}

const CONDITIONS: usize = 14;

/// How many elements list number `list` of a case has.
fn list_length(case: &Case, list: usize) -> usize {
    let rules = |chain: &Option<Chain>| chain.as_ref().map_or(0, |chain| chain.rules.len());
    match list {
        0 => case.packets.len(),
        1 => rules(&case.policy.ingress),
        2 => rules(&case.policy.egress),
        3 => case.world.entries.len(),
        4 => case.world.members.len(),
        5 => rules(&case.policy.ingress) * CONDITIONS,
        6 => rules(&case.policy.egress) * CONDITIONS,
        _ => case.packets.first().map_or(0, |packet| packet.frame.len()),
    }
}

/// Leaves out elements `from..to`; false where that changes nothing. Conditions are cleared and bytes cut off the end,
/// which does not change the length of their lists, or only behind the place.
fn leave_out(case: &mut Case, list: usize, from: usize, to: usize) -> bool {
    let rules = |chain: &mut Option<Chain>| chain.as_mut().map(|chain| chain.rules.drain(from..to).len());
    let clear = |chain: &mut Option<Chain>| {
        let rules = &mut chain.as_mut()?.rules;
        let changed = (from..to).filter(|at| clear_condition(&mut rules[at / CONDITIONS].matches, at % CONDITIONS));
        Some(changed.count())
    };
    let removed = match list {
        0 => Some(case.packets.drain(from..to).len()),
        1 => rules(&mut case.policy.ingress),
        2 => rules(&mut case.policy.egress),
        3 => Some(case.world.entries.drain(from..to).len()),
        4 => Some(case.world.members.drain(from..to).len()),
        5 => clear(&mut case.policy.ingress),
        6 => clear(&mut case.policy.egress),
        _ => case.packets.first_mut().map(|packet| packet.frame.drain(packet.frame.len() - (to - from)..).len()),
    };
    removed.is_some_and(|count| count > 0)
}

/// Makes a rule not read a field; false where it did not.
fn clear_condition(matches: &mut Match, field: usize) -> bool {
    fn all<T>(list: &mut Vec<T>) -> bool {
        !std::mem::take(list).is_empty()
    }
    match field {
        0 => all(&mut matches.from),
        1 => all(&mut matches.to),
        2 => all(&mut matches.interface),
        3 => matches.proto.take().is_some(),
        4 => matches.port.take().is_some(),
        5 => matches.source_port.take().is_some(),
        6 => matches.family.take().is_some(),
        7 => matches.flags.take().is_some(),
        8 => matches.icmp.take().is_some(),
        9 => matches.vlan.take().is_some(),
        10 => matches.dscp.take().is_some(),
        11 => matches.mark.take().is_some(),
        12 => matches.length.take().is_some(),
        _ => matches.fragment.take().is_some(),
    }
}
