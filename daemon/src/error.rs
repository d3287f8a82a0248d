//! Everything that can go wrong, and what it means for an exit code and an HTTP status.

use ringfence_api::{Diagnostic, ErrorBody, ErrorCode, Severity};
use ringfence_policy::compile::CompileError;

use crate::dynamic::sets::SetError;
use crate::kernel::KernelError;
use crate::state::StateError;

/// An error of the daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel lacks something or refused it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A dynamic set cannot be changed so.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The policy has mistakes.
    #[error("{0}")]
    Policy(Box<ringfence_policy::Report>),
    /// The policy needs more than the tables hold.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Tests of the policy failed.
    #[error("{} of the policy's tests failed", .0.len())]
    Tests(Vec<Diagnostic>),
    /// The request makes no sense.
    #[error("{0}")]
    BadInput(String),
    /// Understood, and the answer is no.
    #[error("{0}")]
    No(String),
    /// Would do harm; `force` does it.
    #[error("{0}; `--force` does it all the same")]
    NeedsForce(String),
    /// `--require` asks for a hook that is not there.
    #[error("--require {half}: {reason}")]
    Required {
        /// The half.
        half: &'static str,
        /// What is missing.
        reason: String,
    },
    /// The peer may not.
    #[error("{0}")]
    Forbidden(String),
    /// `ringctl off` is in force.
    #[error("Ringfence is off; `ringctl on` puts it in force again")]
    Off,
    /// A system call that the daemon depends on failed.
    #[error("{what}: {error}")]
    System {
        /// What was attempted.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A task of the daemon ended in a panic: a bug.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Result of an operation of the daemon.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on I/O.
    pub fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::System { what, error }
    }

    /// The kind of failure in the API.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Kernel(KernelError::Full { .. } | KernelError::NoChain { .. }) | Self::No(_) | Self::Off => {
                ErrorCode::No
            }
            Self::Kernel(_) | Self::Required { .. } => ErrorCode::Kernel,
            Self::State(StateError::NoGeneration(_)) | Self::Tests(_) => ErrorCode::No,
            Self::State(_) | Self::System { .. } | Self::Internal(_) => ErrorCode::Internal,
            Self::Set(_) | Self::Policy(_) | Self::Compile(_) | Self::BadInput(_) => ErrorCode::BadInput,
            Self::NeedsForce(_) => ErrorCode::NeedsForce,
            Self::Forbidden(_) => ErrorCode::Forbidden,
        }
    }

    /// The exit code of `ringfenced`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.code() {
            ErrorCode::No if matches!(self, Self::Tests(_)) => 2,
            code => code.exit_code(),
        }
    }

    /// The answer to a request.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        let mut body = ErrorBody::new(self.code(), with_sources(self));
        match self {
            Self::Policy(report) => {
                let errors =
                    report.diagnostics.iter().filter(|d| d.severity == ringfence_policy::Severity::Error).count();
                let errors = errors + report.omitted;
                body.message = format!("the policy has {errors} error{}", if errors == 1 { "" } else { "s" });
                body.diagnostics = report.diagnostics.iter().map(diagnostic).collect();
                body.omitted = report.omitted as u64;
            }
            Self::Tests(failures) => body.diagnostics.clone_from(failures),
            _ => {}
        }
        body
    }
}

/// The longest cause that is shown: a verifier's log has megabytes.
const MAX_CAUSE: usize = 400;

/// An error with its causes on one line.
#[must_use]
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = shortened(&cause.to_string());
        // `transparent` errors show their cause already.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The first line, and of a verifier's log also its last words, which are its reason.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_CAUSE && !text.contains('\n') {
        return text.to_owned();
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let cut = |line: &str| line.chars().take(MAX_CAUSE).collect::<String>();
    // The log ends with statistics; what is before them says what is wrong.
    let statistics = ["processed ", "verification time", "stack depth"];
    match lines.rfind(|line| !statistics.iter().any(|word| line.starts_with(word))) {
        Some(last) => format!("{} ... {}", cut(first), cut(last)),
        None => cut(first),
    }
}

/// A diagnostic of the policy crate in the words of the API.
#[must_use]
pub fn diagnostic(from: &ringfence_policy::Diagnostic) -> Diagnostic {
    Diagnostic {
        severity: match from.severity {
            ringfence_policy::Severity::Error => Severity::Error,
            ringfence_policy::Severity::Warning => Severity::Warning,
        },
        file: from.file.clone(),
        line: from.place.as_ref().map(|place| place.line),
        column: from.place.as_ref().map(|place| place.column),
        end_column: from.place.as_ref().map(|place| place.end_column),
        source: from.place.as_ref().map(|place| place.source.clone()),
        message: from.message.clone(),
        help: from.help.clone(),
    }
}

/// Runs what blocks or computes off the runtime's one thread, so that the API answers meanwhile.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifiers_log_is_not_an_error_message() {
        let log = format!(
            "the BPF_PROG_LOAD syscall returned E2BIG\n{}BPF program is too large\nprocessed 5 insns\n",
            "0: r1\n".repeat(99_999)
        );
        assert_eq!(shortened(&log), "the BPF_PROG_LOAD syscall returned E2BIG ... BPF program is too large");
        assert_eq!(shortened("permission denied"), "permission denied");
        assert!(shortened(&"x".repeat(9999)).len() <= MAX_CAUSE);
    }
}
