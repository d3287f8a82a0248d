use std::path::PathBuf;

use clap::Args;
use ringfence_policy::compile::{CompileError, compile};
use ringfence_policy::diagnostic::{Diagnostic, Place, Report, Severity};
use ringfence_policy::lockout;
use ringfence_policy::model::Location;
use ringfence_policy::oracle::{run_access_tests, run_tests};
use ringfence_policy::{Loaded, SourceText, paths};

use super::Listing;
use crate::context::Context;
use crate::report::Summary;
use crate::{Exit, Failure, policy_source};

/// Compile a policy and run its tests, without touching the kernel
///
/// Neither the daemon nor the kernel is asked.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  ringctl check /etc/ringfence/policy.yaml
  ringctl check policy.d/ --strict
  generate-policy | ringctl check -

Exit codes: 1 a test of the policy failed, or it would lock out; 2 it has a mistake, or with --strict a warning.")]
pub struct Check {
    /// A policy file, a directory of *.yaml, or `-` for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Take warnings for mistakes
    #[arg(long)]
    strict: bool,
    /// Also when it would stop root's login, ringfenced or `ringctl off`
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    listing: Listing,
}

impl Check {
    pub fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let mut loaded = policy_source::load(&self.file)?;
        // The tests come before links are followed: they mean the same on every machine.
        let failed = run_tests(&loaded.policy).into_iter().chain(run_access_tests(&loaded.policy));
        let failures: Vec<Diagnostic> = failed
            .map(|failure| diagnostic(&loaded.sources, failure.at, format!("test failed: {}", failure.message)))
            .collect();
        let remarks = paths::resolve(&mut loaded, &paths::Machine);
        loaded.warnings.extend(remarks);
        let policy = &loaded.policy;
        let compiled = compile(policy).map_err(|error| failure(&loaded.sources, &error))?;
        let summary = Summary::new(&loaded, &compiled, failures.len());
        if self.listing.json {
            context.json(&summary)?;
        } else {
            summary.write(context)?;
        }
        context.flush()?;
        policy_source::say(&loaded.warnings);
        policy_source::say(&failures);
        let lockouts: Vec<Diagnostic> = lockout::check(policy)
            .into_iter()
            .map(|lockout| {
                let message = format!("{lockout}; `--force` does it all the same");
                diagnostic(&loaded.sources, lockout.at.unwrap_or(Location { file: 0, line: 1, column: 1 }), message)
            })
            .filter(|_| !self.force)
            .collect();
        policy_source::say(&lockouts);
        Ok(exit(&loaded, self.strict, failures.len() + lockouts.len()))
    }
}

fn exit(loaded: &Loaded, strict: bool, failed: usize) -> Exit {
    if strict && !loaded.warnings.is_empty() {
        Exit::BadInput
    } else if failed > 0 {
        Exit::No
    } else {
        Exit::Done
    }
}

fn failure(sources: &[SourceText], error: &CompileError) -> Failure {
    let message = error.to_string();
    match error.at() {
        Some(at) => Failure::Policy(Report { diagnostics: vec![diagnostic(sources, at, message)], omitted: 0 }),
        None => Failure::BadInput(message),
    }
}

fn diagnostic(sources: &[SourceText], at: Location, message: String) -> Diagnostic {
    let source = sources.get(at.file as usize);
    let line = source.and_then(|source| source.text.lines().nth(at.line.saturating_sub(1) as usize));
    Diagnostic {
        severity: Severity::Error,
        file: source.map_or_else(String::new, |source| source.name.clone()),
        place: Some(Place {
            line: at.line,
            column: at.column,
            end_column: at.column + 1,
            source: line.unwrap_or_default().to_owned(),
        }),
        message,
        help: None,
    }
}
