//! `ringctl explain --access`: asked of the programs of the generation in force; why each rule did or did not match is
//! the naive evaluator's to say.

use ringfence_abi::counter::DYNAMIC;
use ringfence_abi::host::line::BUILTINS;
use ringfence_abi::host::{EXE_UNKNOWN, op};
use ringfence_abi::verdict;
use ringfence_api::{AccessRequest, Considered, Explanation, Mode};
use ringfence_policy::{evaluate, oracle};

use super::host::AT_CGROUP;
use crate::daemon::{Daemon, EMPTY};
use crate::error::{Error, Result};

impl Daemon {
    /// Which rule decides about a system call.
    pub fn explain_access(&self, request: AccessRequest) -> Result<Explanation> {
        let access = super::subject::complete(request)?;
        let control = self.control();
        let none = || Error::No("no policy is in force".to_owned());
        let running = control.running.as_ref().filter(|running| running.number() != EMPTY).ok_or_else(none)?;
        let unreadable = || Error::No("the policy in force was loaded by another version of the daemon".to_owned());
        let meaning = running.meaning.as_ref().ok_or_else(unreadable)?;
        // Dynamic entries alone ask for executables by number.
        let exe = access.exe.as_ref().filter(|_| !self.dynamic().calls().is_empty());
        let exe = exe.map(|exe| self.kernel(|kernel| Ok(kernel.exe_id(exe.as_ref())?))).transpose()?;
        let long = || Error::BadInput("the path is too long to be asked about".to_owned());
        let question = evaluate::question(&meaning.host, &access, exe.unwrap_or(EXE_UNKNOWN)).ok_or_else(long)?;
        let answer = self.kernel(|kernel| Ok(kernel.explain_access(&running.loaded, &question)?))?;
        let refuses = match answer.verdict as u8 {
            verdict::ACCEPT => false,
            verdict::DROP => true,
            _ => return Err(Error::Internal("the program gave no verdict".to_owned())),
        };
        let considered: Vec<Considered> = match answer.line {
            DYNAMIC => Vec::new(),
            _ => oracle::explain_access(&meaning.policy, &access)
                .into_iter()
                .map(|one| {
                    let asked = meaning.left_out.iter().filter(|_| AT_CGROUP >> access.op & 1 == 1 && !one.matched);
                    let left_out = asked.into_iter().find(|left_out| left_out.rule == one.name);
                    let because = left_out.map_or(one.because, |left_out| left_out.because.clone());
                    Considered { rule: one.name, matched: one.matched, because }
                })
                .collect(),
        };
        let line = running.lines.iter().filter(|line| line.chain == "host").nth(answer.line as usize);
        let rule = match line {
            _ if answer.line == DYNAMIC => format!("dynamic/{}", answer.entry),
            Some(line) => line.name.clone(),
            None => return Err(Error::Internal(format!("the program named line {}, which is none", answer.line))),
        };
        let (file, number) = line.and_then(|line| line.at.clone()).map_or((None, None), |(f, n)| (Some(f), Some(n)));
        if answer.line >= BUILTINS && considered.last().is_none_or(|last| last.rule != rule) {
            tracing::error!(rule, "the program and the evaluator disagree about a call");
        }
        let audited = control.standing.get().audit.is_some() || running.audits();
        Ok(Explanation {
            verdict: word(refuses, audited).to_owned(),
            rule,
            file,
            line: number,
            generation: Some(running.number()),
            mode: if audited { Mode::Audit } else { Mode::Enforce },
            considered,
        })
    }
}

/// The word for what becomes of a call.
#[must_use]
pub fn word(refuses: bool, audited: bool) -> &'static str {
    match (refuses, audited) {
        (false, _) => "allow",
        (true, false) => "deny",
        (true, true) => "would-deny",
    }
}

/// The number of an operation that a call can ask for.
pub fn operation(word: &str) -> Result<u32> {
    let number = op::NAMES.iter().position(|name| *name == word);
    number.map(|number| number as u32).ok_or_else(|| {
        Error::BadInput(format!(
            "`op`: a call asks for one of {}; found `{}`",
            op::NAMES.join(", "),
            word.escape_debug()
        ))
    })
}
