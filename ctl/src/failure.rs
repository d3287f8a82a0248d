//! How a command fails, and with which exit code.

use std::io::Write as _;
use std::process::ExitCode;

use ringfence_api::ClientError;
use ringfence_policy::diagnostic::Report;

use crate::policy_source;

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or yes.
    Done,
    /// 1: the answer is no.
    No,
    /// 2: bad usage or bad input.
    BadInput,
    /// 3: the kernel, the daemon or a permission is missing.
    Missing,
    /// What the command on another host ended with.
    Remote(u8),
}

impl Exit {
    /// From a code of the API.
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::No,
            2 => Self::BadInput,
            _ => Self::Missing,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::No => 1,
            Exit::BadInput => 2,
            Exit::Missing => 3,
            Exit::Remote(code) => code,
        })
    }
}

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The answer is no.
    #[error("{0}")]
    No(String),
    /// What was typed or read is wrong.
    #[error("{0}")]
    BadInput(String),
    /// Something this command needs is not there.
    #[error("{0}")]
    Missing(String),
    /// The policy has mistakes.
    #[error("{0}")]
    Policy(Report),
    /// The daemon gave no answer or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::No(_) => Exit::No,
            Self::BadInput(_) | Self::Policy(_) => Exit::BadInput,
            Self::Client(error) => Exit::from_code(error.exit_code()),
            // A reader that has seen enough (`| head`) is no failure.
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Missing(_) | Self::Output(_) => Exit::Missing,
        }
    }

    /// Says it on standard error.
    pub fn report(&self) {
        let text = match self {
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return,
            Self::Policy(report) => report.render(true),
            Self::Client(ClientError::Refused(body)) if !body.diagnostics.is_empty() => {
                format!("{}\n{}", policy_source::report(body).render(true), error_line(&body.message))
            }
            Self::Client(error @ ClientError::Connect { .. }) => {
                format!("{}help: {}\n", error_line(&error.to_string()), connect_help(error))
            }
            other => error_line(&other.to_string()),
        };
        // Nothing is left to tell it to when standard error is gone.
        let _ = anstream::stderr().write_all(text.as_bytes());
    }
}

/// `error: MESSAGE` and a newline, for a terminal.
fn error_line(message: &str) -> String {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    format!("{red}error{red:#}: {message}\n")
}

fn connect_help(error: &ClientError) -> &'static str {
    if error.daemon_is_down() {
        "is it running? `systemctl status ringfenced`; another instance is named with --socket"
    } else {
        "root may do everything, members of the group `ringfence` may read"
    }
}

#[cfg(test)]
mod tests {
    use ringfence_api::{ErrorBody, ErrorCode};

    use super::*;

    #[test]
    fn each_failure_has_its_exit_code() {
        let refused = |code| Failure::Client(ClientError::Refused(ErrorBody::new(code, "no")));
        assert_eq!(refused(ErrorCode::NeedsForce).exit(), Exit::No);
        assert_eq!(refused(ErrorCode::BadInput).exit(), Exit::BadInput);
        assert_eq!(refused(ErrorCode::Forbidden).exit(), Exit::Missing);
        let write = |kind| Failure::Output(std::io::Error::from(kind));
        assert_eq!(write(std::io::ErrorKind::BrokenPipe).exit(), Exit::Done);
        assert_eq!(write(std::io::ErrorKind::StorageFull).exit(), Exit::Missing);
    }
}
