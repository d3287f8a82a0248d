//! Policies from files and from standard input, and diagnostics on their way to and from the daemon.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use ringfence_api::{ErrorBody, PolicyText};
use ringfence_policy::diagnostic::{self, Place, render};
use ringfence_policy::document::MAX_TEXT;
use ringfence_policy::{Loaded, Report, SourceText};

use crate::Failure;

/// Loads a policy file, a directory of them, or `-`, standard input.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    let loaded = if path == Path::new("-") {
        ringfence_policy::load_texts(vec![standard_input()?])
    } else {
        ringfence_policy::load(path)
    };
    loaded.map_err(Failure::Policy)
}

/// The texts of a policy, for the daemon. They are loaded here first: a mistake is reported without asking it.
pub fn texts(path: &Path) -> Result<Vec<PolicyText>, Failure> {
    load(path)?.sources.into_iter().map(text).collect()
}

fn text(source: SourceText) -> Result<PolicyText, Failure> {
    // Relative paths in the policy mean this process's directory; the daemon has another one.
    let base = std::path::absolute(if source.base.as_os_str().is_empty() { Path::new(".") } else { &source.base })
        .ok()
        .and_then(|base| base.into_os_string().into_string().ok())
        .ok_or_else(|| {
            Failure::BadInput(format!("the path of the directory {} is not UTF-8", source.base.display()))
        })?;
    Ok(PolicyText { name: source.name, text: source.text, base })
}

fn standard_input() -> Result<SourceText, Failure> {
    let mut text = String::new();
    // One byte more than allowed: the loader then says what the limit is.
    std::io::stdin()
        .take(MAX_TEXT as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::BadInput(format!("cannot read standard input: {error}")))?;
    let base = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    Ok(SourceText { name: "stdin".to_owned(), text, base })
}

/// The mistakes that the daemon found.
#[must_use]
pub fn report(body: &ErrorBody) -> Report {
    Report {
        diagnostics: body.diagnostics.iter().map(from_api).collect(),
        omitted: usize::try_from(body.omitted).unwrap_or(usize::MAX),
    }
}

/// Says the daemon's warnings on standard error.
pub fn warn(warnings: &[ringfence_api::Diagnostic]) {
    say(&warnings.iter().map(from_api).collect::<Vec<_>>());
}

/// Says diagnostics on standard error.
pub fn say(diagnostics: &[diagnostic::Diagnostic]) {
    // Nothing is left to tell it to when standard error is gone.
    let _ = anstream::stderr().write_all(render(diagnostics, true).as_bytes());
}

fn from_api(from: &ringfence_api::Diagnostic) -> diagnostic::Diagnostic {
    let place = from.line.map(|line| {
        let column = from.column.unwrap_or(1);
        let end_column = from.end_column.unwrap_or(column + 1);
        Place { line, column, end_column, source: from.source.clone().unwrap_or_default() }
    });
    diagnostic::Diagnostic {
        severity: match from.severity {
            ringfence_api::Severity::Error => diagnostic::Severity::Error,
            ringfence_api::Severity::Warning => diagnostic::Severity::Warning,
        },
        file: from.file.clone(),
        place,
        message: from.message.clone(),
        help: from.help.clone(),
    }
}
