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

/// One mistake or warning in a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostic {
    /// Whether it keeps the policy from being applied.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The file, as it was named; absent when the mistake has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in characters, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// All of it as text for a terminal, with the line and the place marked; no colours, ends without a newline.
    pub rendered: String,
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
