//! What `ringfenced` is asked and what it answers: JSON over HTTP/1.1 on its Unix socket, and a client for it.
//!
//! The field names are a stable contract. Answers may gain fields; requests with unknown fields are refused.
//! All times are seconds since 1970-01-01 UTC, all durations seconds.
//!
//! Who may: the peer credentials of the socket decide. Root may do everything, members of the group `ringfence` and
//! nobody else may use what is marked *read*.
//!
//! | method and path | may | asked | answered |
//! | --- | --- | --- | --- |
//! | `GET` [`path::STATUS`] | read | | [`Status`] |
//! | `GET` [`path::RULES`] | read | [`RulesQuery`]; `reset` needs root | [`RuleLine`]s, in order of judgement |
//! | `POST` [`path::APPLY`] | root | [`ApplyRequest`] | [`ApplyAnswer`] |
//! | `POST` [`path::CONFIRM`] | root | [`GenerationRequest`]; default: the pending one | [`GenerationAnswer`] |
//! | `POST` [`path::ROLLBACK`] | root | [`GenerationRequest`]; default: the previous one | [`GenerationAnswer`] |
//! | `GET` [`path::HISTORY`] | read | | [`Generation`]s, newest first |
//! | `GET` [`path::GENERATION`] | read | a number, `running`, `previous` or `pending` | [`GenerationText`] |
//! | `GET` [`path::DIFF`] | read | [`DiffQuery`] | [`Diff`] |
//! | `POST` [`path::ENTRIES`] | root | [`EntryRequest`] | [`Entry`] |
//! | `GET` [`path::ENTRIES`] | read | | [`EntryList`] |
//! | `POST` [`path::UNDO`] | root | [`UndoRequest`] | [`UndoAnswer`] |
//! | `GET` [`path::SET`] | read | [`SetQuery`] | [`SetElements`] |
//! | `POST` [`path::SET`] | root | [`SetRequest`] | [`SetAnswer`] |
//! | `GET` [`path::CONNECTIONS`] | read | [`ConnectionsQuery`] | [`Connections`] |
//! | `POST` [`path::KILL`] | root | [`KillRequest`] | [`KillAnswer`] |
//! | `POST` [`path::EXPLAIN`] | read | [`ExplainRequest`] | [`Explanation`] |
//! | `POST` [`path::EXPLAIN_ACCESS`] | read | [`AccessRequest`] | [`Explanation`] |
//! | `POST` [`path::MODE`] | root | [`ModeRequest`] | [`ModeAnswer`] |
//! | `POST` [`path::OFF`] | root | | [`OffAnswer`] |
//! | `POST` [`path::ON`] | root | | [`GenerationAnswer`] |
//!
//! Anything but success is answered with an [`ErrorBody`] and the HTTP status of its [`ErrorCode`].

mod client;
mod connection;
mod entry;
mod error;
mod explain;
mod generation;
pub mod path;
mod prefix;
mod rules;
mod set;
mod status;

pub use client::{Client, ClientError};
pub use connection::{
    CONNECTION_STATES, Connection, ConnectionDirection, ConnectionFilter, Connections, ConnectionsQuery, CutConnection,
    CutConnections, IcmpQuery, KILLED, KillAnswer, KillRequest, Killed, LISTED_CONNECTIONS, LISTED_CUT,
    MAX_KILLED_CONNECTIONS, MAX_LISTED_CONNECTIONS, Pool, PoolSize, SocketEnd, Traffic, end,
};
pub use entry::{
    Calls, Direction, Element, Entry, EntryList, EntryRequest, EntryVerb, MAX_LISTED_ELEMENTS, Target, UndoAnswer,
    UndoRequest, What,
};
pub use error::{Diagnostic, ErrorBody, ErrorCode, Severity};
pub use explain::{
    Access, AccessRequest, Considered, ExplainRequest, Explanation, Packet, PacketDirection, PacketState,
};
pub use generation::{
    ApplyAnswer, ApplyRequest, ApplySource, Change, ChangeKind, Diff, DiffQuery, FileDiff, Generation,
    GenerationAnswer, GenerationRequest, GenerationState, GenerationText, PolicyText,
};
pub use prefix::{ParsePrefixError, Prefix};
pub use rules::{RuleLine, RulesQuery};
pub use set::{MAX_BATCH, RefusedElement, SetAnswer, SetElements, SetQuery, SetRequest, Timed};
pub use status::{
    FailDirection, Half, Halves, Hook, LeftOut, Mode, ModeAnswer, ModeRequest, OffAnswer, Pending, SetFile, State,
    Status,
};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ringfence/ringfenced.sock";
/// Where it pins what enforces unless told otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf/ringfence";
/// Where it keeps what survives a reboot unless told otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/ringfence";
