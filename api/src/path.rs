//! Paths of the API, as patterns with `{name}` for what varies; the table at the top of the crate says what each does.

/// State of every hook and interface.
pub const STATUS: &str = "/v1/status";
/// Rules and their counters.
pub const RULES: &str = "/v1/rules";
/// Puts a policy in force.
pub const APPLY: &str = "/v1/apply";
/// Keeps a pending generation.
pub const CONFIRM: &str = "/v1/confirm";
/// Goes back to an earlier generation.
pub const ROLLBACK: &str = "/v1/rollback";
/// Generations kept on disk.
pub const HISTORY: &str = "/v1/history";
/// One of them.
pub const GENERATION: &str = "/v1/generations/{n}";
/// What differs between two of them.
pub const DIFF: &str = "/v1/diff";
/// Dynamic entries: `ringctl deny`, `allow` and `list`.
pub const ENTRIES: &str = "/v1/entries";
/// Takes dynamic entries and set elements back.
pub const UNDO: &str = "/v1/undo";
/// Elements of a dynamic set.
pub const SET: &str = "/v1/sets/{name}";
/// Connections that are followed.
pub const CONNECTIONS: &str = "/v1/connections";
/// Ends connections.
pub const KILL: &str = "/v1/connections/kill";
/// Which rule decides about a packet.
pub const EXPLAIN: &str = "/v1/explain";
/// Which rule decides about a system call.
pub const EXPLAIN_ACCESS: &str = "/v1/explain/access";
/// Enforce or audit.
pub const MODE: &str = "/v1/mode";
/// Removes everything Ringfence owns in the kernel.
pub const OFF: &str = "/v1/off";
/// Puts the last confirmed generation in force again.
pub const ON: &str = "/v1/on";
