//! Asking a generation's own programs what they would do with a packet, without effect.
//!
//! The programs that answer are loaded from the same object over the same maps, with the constant `EXPLAIN` set, when
//! the first question comes.

use std::{os::fd::AsFd as _, sync::PoisonError};

use aya::{
    Ebpf,
    programs::{Program, TestRun as _, TestRunOptions},
};
use ringfence_abi::{
    explain::{Answer, Question},
    names,
};

use super::{
    Kernel,
    error::{Context as _, KernelError, Result},
    generation::{Loaded, open_object},
    maps,
    objects::NETWORK,
    table::Table,
};

/// The kernel's test run takes no shorter frame: an Ethernet header.
const MIN_FRAME: usize = 14;

/// Where a packet is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Arriving, at XDP.
    XdpIngress,
    /// Arriving, at TC.
    TcIngress,
    /// Arriving at TC on a device without Ethernet headers.
    TcIngressL3,
    /// Leaving.
    TcEgress,
    /// Leaving on a device without Ethernet headers.
    TcEgressL3,
}

impl Hook {
    fn program(self) -> &'static str {
        match self {
            Self::XdpIngress => names::XDP_INGRESS,
            Self::TcIngress => names::TC_INGRESS,
            Self::TcIngressL3 => names::TC_INGRESS_L3,
            Self::TcEgress => names::TC_EGRESS,
            Self::TcEgressL3 => names::TC_EGRESS_L3,
        }
    }

    fn chain(self) -> (usize, &'static str) {
        match self {
            Self::XdpIngress | Self::TcIngress | Self::TcIngressL3 => (0, "ingress"),
            Self::TcEgress | Self::TcEgressL3 => (1, "egress"),
        }
    }
}

/// The programs of one generation that explain; each is loaded when it is first asked.
#[derive(Debug)]
pub struct Explainer {
    object: Ebpf,
    loaded: Vec<&'static str>,
    question: Table<u32, Question>,
    answer: Table<u32, Answer>,
}

impl Kernel {
    /// What the generation does with a frame (that begins at the IP header for the `L3` hooks).
    pub fn explain(&self, loaded: &Loaded, hook: Hook, frame: &[u8], question: &Question) -> Result<Answer> {
        let (chain, name) = hook.chain();
        if !loaded.has(chain) {
            return Err(KernelError::NoChain { chain: name });
        }
        if frame.len() < MIN_FRAME {
            return Err(KernelError::FrameTooShort { length: frame.len(), needed: MIN_FRAME });
        }
        let mut explainer = loaded.explainer.lock().unwrap_or_else(PoisonError::into_inner);
        let explainer = match &mut *explainer {
            Some(explainer) => explainer,
            none => {
                none.insert(Explainer::new(open_object(self, &loaded.directory, &loaded.chains, &loaded.track, true)?)?)
            }
        };
        explainer.ask(hook.program(), frame, question)
    }
}

impl Explainer {
    fn new(object: Ebpf) -> Result<Self> {
        let question = own_map(&object, names::EXPLAIN_IN)?;
        let answer = own_map(&object, names::EXPLAIN_OUT)?;
        Ok(Self { object, loaded: Vec::new(), question, answer })
    }

    fn ask(&mut self, program: &'static str, frame: &[u8], question: &Question) -> Result<Answer> {
        if !self.loaded.contains(&program) {
            NETWORK.load(&mut self.object, program)?;
            self.loaded.push(program);
        }
        self.question.set(&0, question).context(|| "cannot put the question".to_owned())?;
        self.answer.set(&0, &Answer::default()).context(|| "cannot clear the answer".to_owned())?;
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        let run = match self.object.program(program) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => return Err(KernelError::Missing { object: "network", kind: "network", program: program.to_owned() }),
        };
        run.map_err(|source| KernelError::TestRun { program, source })?;
        let answer = self.answer.get(&0).context(|| "cannot read the answer".to_owned())?;
        Ok(answer.unwrap_or_default())
    }
}

/// A map that the object made for itself.
pub(super) fn own_map<V: ringfence_abi::Bytes>(object: &Ebpf, name: &'static str) -> Result<Table<u32, V>> {
    let missing = KernelError::Missing { object: "network", kind: "map", program: name.to_owned() };
    let Some(aya::maps::Map::Array(map)) = object.map(name) else { return Err(missing) };
    maps::table(map.fd().as_fd().try_clone_to_owned().context(|| format!("cannot keep {name}"))?)
}
