//! Elements of dynamic sets.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Element, Prefix};

/// The most elements in one request or answer about a set.
pub const MAX_BATCH: usize = 65_536;

/// `ringctl set add|del|flush`. An element that is no address refuses the whole request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SetRequest {
    /// Adds elements, or renews their timeout. Of an element that comes twice the last one counts.
    Add {
        /// At most [`MAX_BATCH`], those in `timed` included.
        elements: Vec<Prefix>,
        /// Elements that have timeouts of their own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        timed: Vec<Timed>,
        /// Instead of the set's `timeout`.
        #[serde(default)]
        for_seconds: Option<u64>,
        /// Why, for the listing.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Deletes elements.
    Del {
        /// At most [`MAX_BATCH`].
        elements: Vec<Prefix>,
    },
    /// Deletes all elements.
    Flush,
}

/// Elements with a timeout of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// How long they stay.
    pub for_seconds: u64,
    /// The elements.
    pub elements: Vec<Prefix>,
}

/// What a [`SetRequest`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetAnswer {
    /// Elements added, renewed or deleted.
    pub done: u64,
    /// Elements that were not there to delete.
    pub missing: u64,
    /// Elements that were not added.
    #[serde(default)]
    pub refused: Vec<RefusedElement>,
}

/// An element that was not added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedElement {
    /// The element.
    pub address: Prefix,
    /// Why: the set is full, it is a `never` member.
    pub because: String,
}

/// Query of `GET /v1/sets/{name}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SetQuery {
    /// Go on after this element.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub after: Option<Prefix>,
}

/// A dynamic set and its elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetElements {
    /// Its name without the `$`.
    pub name: String,
    /// Elements it may have.
    pub capacity: u64,
    /// Elements it has.
    pub size: u64,
    /// How long an element stays unless said otherwise; `null`: until deleted.
    pub timeout_seconds: Option<u64>,
    /// Elements by address, at most [`MAX_BATCH`].
    pub elements: Vec<Element>,
    /// There are more: ask again with this as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Prefix>,
}
