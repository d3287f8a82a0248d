//! The compiled tables, walked in user space by the code that the kernel programs run.

use std::collections::BTreeMap;

use ringfence_abi::dynamic::EntryKey;
use ringfence_engine::judge::Entry;
use ringfence_policy::compile::{CompileError, Compiled, compile};
use ringfence_policy::evaluate::{Input, evaluate};
use ringfence_policy::model::Policy;
use ringfence_policy::oracle::Hook;

use super::{Answer, Evaluator, entries};
use crate::generate::{Packet, World};

/// [`ringfence_policy::compile`] with [`ringfence_engine`].
#[derive(Default)]
pub struct Tables(Option<Loaded>);

struct Loaded {
    compiled: Compiled,
    world: World,
    entries: BTreeMap<EntryKey, Entry>,
}

impl Evaluator for Tables {
    fn name(&self) -> &'static str {
        "tables"
    }

    fn load(&mut self, policy: &Policy, world: &World) -> Result<(), CompileError> {
        let compiled = compile(policy)?;
        self.0 = Some(Loaded { compiled, world: world.clone(), entries: entries::entry_map(&world.entries) });
        Ok(())
    }

    fn judge(&mut self, packet: &Packet) -> Option<Answer> {
        let Loaded { compiled, world, entries } = self.0.as_ref()?;
        let context = &packet.context;
        let chain = if context.ingress { &compiled.ingress } else { &compiled.egress };
        let at_tc = context.hook == Hook::Tc;
        let decision = evaluate(
            chain.as_ref()?,
            &Input {
                frame: &packet.frame,
                segment: context.segment.into(),
                egress: !context.ingress,
                l3: context.l3,
                tag: context.tag,
                mark: context.mark.filter(|_| at_tc),
                state: context.state,
                interface: &context.interface,
                loopback: context.loopback,
                members: &|set, address| world.contains(set, address),
                entry: &|fields| entries::find(entries, fields, !context.ingress),
            },
        );
        Some(Answer {
            verdict: decision.verdict,
            line: decision.line,
            entry: decision.entry,
            continued: decision.continued,
            unknown: decision.unknown,
        })
    }
}
