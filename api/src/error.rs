//! How a request fails.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What happened, for people: lowercase, one line.
    pub message: String,
    /// For a policy that was refused: every mistake in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// How many more errors there are than `diagnostics` holds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ErrorBody {
    /// A failure that is not about the text of a policy.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), diagnostics: Vec::new(), omitted: 0 }
    }
}

/// Kinds of failure; each has an HTTP status and an exit code of `ringctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// Understood, and the answer is no: nothing to undo, no such generation, a policy test failed. HTTP 409, exit 1.
    No,
    /// Would cut the caller off or otherwise do harm; `force: true` does it. HTTP 409, exit 1.
    NeedsForce,
    /// The request or the policy is wrong. HTTP 422, exit 2.
    BadInput,
    /// The caller may not. HTTP 403, exit 3.
    Forbidden,
    /// The kernel lacks something, or refused it. HTTP 503, exit 3.
    Kernel,
    /// The daemon could not do it for a reason of its own (disk full, a bug). HTTP 500, exit 3.
    Internal,
}

impl ErrorCode {
    /// The status of the HTTP answer.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::No | Self::NeedsForce => 409,
            Self::BadInput => 422,
            Self::Forbidden => 403,
            Self::Kernel => 503,
            Self::Internal => 500,
        }
    }

    /// The exit code of `ringctl`: 1 the answer is no, 2 bad input, 3 the kernel, the daemon or a permission is missing.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::No | Self::NeedsForce => 1,
            Self::BadInput => 2,
            Self::Forbidden | Self::Kernel | Self::Internal => 3,
        }
    }
}

/// One mistake or warning in a policy, with all that is needed to show it to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostic {
    /// Whether it keeps the policy from being applied.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: String,
    /// Line, counted from 1; absent when it is about the file as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// First column in characters, counted from 1; present with `line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Column after the last; present with `line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_column: Option<u32>,
    /// The text of the line, empty when it is too long to be shown; present with `line`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What is wrong and what was expected, one line.
    pub message: String,
    /// What to write instead, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Weight of a [`Diagnostic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is loaded from a policy with one.
    Error,
    /// Applied all the same.
    Warning,
}
