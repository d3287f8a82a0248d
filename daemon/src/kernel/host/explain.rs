//! Asking a generation's own programs what they would do with an access, without effect: a security hook has no test
//! run, so a program of another type decides with the same code over the same tables.

use std::sync::PoisonError;

use aya::{
    Ebpf,
    programs::{Program, TestRun as _, TestRunOptions},
};
use ringfence_abi::{explain::Answer, host::AccessQuestion, names};

use super::generation;
use crate::kernel::{
    Kernel,
    error::{Context as _, KernelError, Result},
    explain::own_map,
    generation::Loaded,
    objects::LSM,
    table::Table,
};

/// What a test run takes at least. Nobody looks at it.
const FRAME: [u8; 64] = [0; 64];

/// The program of one generation that explains accesses.
#[derive(Debug)]
pub struct AccessExplainer {
    object: Ebpf,
    question: Table<u32, AccessQuestion>,
    answer: Table<u32, Answer>,
}

impl Kernel {
    /// What a generation does with an access, decided by its own programs without effect. Works on every kernel.
    pub fn explain_access(&self, loaded: &Loaded, question: &AccessQuestion) -> Result<Answer> {
        let mut explainer = loaded.access_explainer.lock().unwrap_or_else(PoisonError::into_inner);
        let explainer = match &mut *explainer {
            Some(explainer) => explainer,
            none => none.insert(AccessExplainer::new(self, loaded)?),
        };
        explainer.ask(question)
    }
}

impl AccessExplainer {
    fn new(kernel: &Kernel, loaded: &Loaded) -> Result<Self> {
        let mut object = generation::open(kernel, &LSM, &loaded.directory, &loaded.host.consts, true)?;
        LSM.load(&mut object, names::EXPLAIN_ACCESS)?;
        let question = own_map(&object, names::ACCESS_IN)?;
        let answer = own_map(&object, names::EXPLAIN_OUT)?;
        Ok(Self { object, question, answer })
    }

    fn ask(&self, question: &AccessQuestion) -> Result<Answer> {
        let program = names::EXPLAIN_ACCESS;
        self.question.set(&0, question).context(|| "cannot put the question".to_owned())?;
        self.answer.set(&0, &Answer::default()).context(|| "cannot clear the answer".to_owned())?;
        let Some(Program::Xdp(explain)) = self.object.program(program) else {
            return Err(KernelError::Missing { object: LSM.name(), kind: "XDP", program: program.to_owned() });
        };
        let run = explain.test_run(TestRunOptions { data_in: Some(&FRAME), ..TestRunOptions::default() });
        run.map_err(|source| KernelError::TestRun { program, source })?;
        let answer = self.answer.get(&0).context(|| "cannot read the answer".to_owned())?;
        Ok(answer.unwrap_or_default())
    }
}
