//! Policies put in force, kept and compared.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{CutConnections, Diagnostic, Pending};

/// `ringctl apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Which policy.
    pub source: ApplySource,
    /// Go back by itself unless confirmed within so long.
    #[serde(default)]
    pub confirm_seconds: Option<u64>,
    /// Only compile, test and compare.
    #[serde(default)]
    pub dry_run: bool,
    /// Also when it would cut the caller's own session, or shrinks a set by more than half.
    #[serde(default)]
    pub force: bool,
    /// The [`ApplyAnswer::digest`] of a dry run; the request is refused when the policy read now is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_digest: Option<String>,
}

/// Where the policy comes from: `"reload"` or `{"texts": [...]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ApplySource {
    /// The daemon's configured file or directory, read again.
    Reload,
    /// These files, in this order.
    Texts(Vec<PolicyText>),
}

/// One policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// Its name in diagnostics and listings.
    pub name: String,
    /// Its content.
    pub text: String,
    /// Absolute directory that relative paths in it start from.
    pub base: String,
}

/// What an apply did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyAnswer {
    /// Number of the new generation; `null` for a dry run.
    pub generation: Option<u64>,
    /// What changes against the generation that was in force.
    pub diff: Diff,
    /// Warnings about the policy.
    #[serde(default)]
    pub warnings: Vec<Diagnostic>,
    /// Connections that it cuts; `null`: that could not be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<CutConnections>,
    /// Set when confirmation is awaited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Names the policy's exact content, set files included.
    pub digest: String,
}

/// What differs between two generations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diff {
    /// The older; `null`: nothing in force.
    pub from: Option<u64>,
    /// The newer; `null`: not in force yet.
    pub to: Option<u64>,
    /// Rules, by name and content.
    pub rules: Vec<Change>,
    /// Texts of the policy files that differ.
    pub files: Vec<FileDiff>,
}

/// A rule that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// How.
    pub change: ChangeKind,
    /// Its name, or `default`.
    pub name: String,
    /// `ingress` or `egress`.
    pub chain: String,
    /// Its verb (the new one).
    pub verb: String,
    /// Where it is written (for a removed one: was).
    pub file: Option<String>,
    /// Line there.
    pub line: Option<u32>,
}

/// How a rule differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// New.
    Added,
    /// Gone.
    Removed,
    /// Same name, other content.
    Changed,
    /// Same content, other place in the order.
    Moved,
}

/// A policy file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileDiff {
    /// Its name.
    pub name: String,
    /// Its differences as a unified diff.
    pub unified: String,
}

/// Query of `GET /v1/diff`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// The older; the previous generation unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The newer; the running generation unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// `ringctl confirm` and `rollback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationRequest {
    /// Which; each request has its own default.
    pub generation: Option<u64>,
    /// Roll back also when that cuts the caller's own session.
    pub force: bool,
}

/// The generation in force after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerationAnswer {
    /// Its number.
    pub generation: u64,
}

/// One line of `ringctl history --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Generation {
    /// Its number; they only grow.
    pub generation: u64,
    /// Where it stands.
    pub state: GenerationState,
    /// When it was applied.
    pub applied: u64,
    /// Who applied it: user name, `uid N`, or `ringfenced`.
    pub by: String,
    /// The policy file or directory it came from.
    pub policy: String,
    /// Its rules, both chains together, without built-in lines.
    pub rules: u64,
    /// Names its exact content.
    pub digest: String,
}

/// Where a generation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GenerationState {
    /// In force.
    Running,
    /// In force, and goes unless confirmed.
    Pending,
    /// What a rollback goes back to.
    Previous,
    /// Kept on disk.
    Kept,
    /// Kept on disk; was never confirmed.
    Unconfirmed,
}

impl GenerationState {
    /// The word in every listing.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Pending => "pending",
            Self::Previous => "previous",
            Self::Kept => "kept",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// `ringctl show --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GenerationText {
    /// What `history` says of it.
    #[serde(flatten)]
    pub about: Generation,
    /// Its policy files.
    pub texts: Vec<PolicyText>,
}
