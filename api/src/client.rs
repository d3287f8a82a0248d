//! The client for the daemon's socket: one connection a request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::{
    AccessRequest, ApplyAnswer, ApplyRequest, Connections, ConnectionsQuery, Diff, DiffQuery, Entry, EntryList,
    EntryRequest, ErrorBody, ExplainRequest, Explanation, Generation, GenerationAnswer, GenerationRequest,
    GenerationText, KillAnswer, KillRequest, ModeAnswer, ModeRequest, OffAnswer, RuleLine, RulesQuery, SetAnswer,
    SetElements, SetQuery, SetRequest, Status, UndoAnswer, UndoRequest, path,
};

/// Compiling and loading the largest policies takes seconds; a daemon that takes longer than this hangs.
const TIMEOUT: Duration = Duration::from_mins(2);
/// Far above the largest answer: a policy's text, or 65,536 rules with their counters.
const MAX_ANSWER: usize = 256 << 20;

/// Talks to the daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket could not be connected to.
    #[error("cannot reach ringfenced at {}: {source}", .socket.display())]
    Connect {
        /// Where it should listen.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("no answer from ringfenced: {0}")]
    Http(#[from] hyper::Error),
    /// The body ended early or is too large.
    #[error("the answer of ringfenced could not be read: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came.
    #[error("ringfenced did not answer within {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// The request cannot be written: a path with a byte that URLs do not have.
    #[error("the request cannot be written: {0}")]
    Request(#[from] hyper::http::Error),
    /// The answer is not of the expected shape.
    #[error("ringfenced answered in another way than this ringctl understands (HTTP {status}): {source}")]
    Decode {
        /// The HTTP status.
        status: StatusCode,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
}

impl ClientError {
    /// The exit code of `ringctl`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(body) => body.code.exit_code(),
            Self::Request(_) => 2,
            _ => 3,
        }
    }

    /// Whether nobody listens at the socket.
    #[must_use]
    pub fn daemon_is_down(&self) -> bool {
        use std::io::ErrorKind;
        matches!(self, Self::Connect { source, .. }
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused))
    }
}

impl Client {
    /// A client for the daemon at `socket`. Does not connect yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where the daemon is looked for.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// State of every hook and interface.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get(path::STATUS).await
    }

    /// Rules and their counters.
    pub async fn rules(&self, query: RulesQuery) -> Result<Vec<RuleLine>, ClientError> {
        self.get(&format!("{}?reset={}", path::RULES, query.reset)).await
    }

    /// Puts a policy in force.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyAnswer, ClientError> {
        self.post(path::APPLY, request).await
    }

    /// Keeps a pending generation.
    pub async fn confirm(&self, request: GenerationRequest) -> Result<GenerationAnswer, ClientError> {
        self.post(path::CONFIRM, &request).await
    }

    /// Goes back to an earlier generation.
    pub async fn rollback(&self, request: GenerationRequest) -> Result<GenerationAnswer, ClientError> {
        self.post(path::ROLLBACK, &request).await
    }

    /// Generations kept on disk, newest first.
    pub async fn history(&self) -> Result<Vec<Generation>, ClientError> {
        self.get(path::HISTORY).await
    }

    /// One generation: a number, `running`, `previous` or `pending`.
    pub async fn generation(&self, which: &str) -> Result<GenerationText, ClientError> {
        self.get(&path::GENERATION.replace("{n}", &escape(which))).await
    }

    /// What differs between two generations.
    pub async fn diff(&self, query: DiffQuery) -> Result<Diff, ClientError> {
        let part = |name: &str, value: Option<u64>| value.map(|value| format!("{name}={value}"));
        let parts: Vec<_> = [part("from", query.from), part("to", query.to)].into_iter().flatten().collect();
        self.get(&format!("{}?{}", path::DIFF, parts.join("&"))).await
    }

    /// Adds a dynamic entry; it is in force when this returns.
    pub async fn add_entry(&self, request: &EntryRequest) -> Result<Entry, ClientError> {
        self.post(path::ENTRIES, request).await
    }

    /// Dynamic entries and set elements.
    pub async fn entries(&self) -> Result<EntryList, ClientError> {
        self.get(path::ENTRIES).await
    }

    /// Takes dynamic entries and set elements back.
    pub async fn undo(&self, request: UndoRequest) -> Result<UndoAnswer, ClientError> {
        self.post(path::UNDO, &request).await
    }

    /// Elements of a dynamic set, one batch of them.
    pub async fn set(&self, name: &str, query: SetQuery) -> Result<SetElements, ClientError> {
        let after = query.after.map_or_else(String::new, |after| format!("?after={}", escape(&after.to_string())));
        self.get(&(set_path(name) + &after)).await
    }

    /// Changes a dynamic set.
    pub async fn change_set(&self, name: &str, request: &SetRequest) -> Result<SetAnswer, ClientError> {
        self.post(&set_path(name), request).await
    }

    /// Connections that are followed.
    pub async fn connections(&self, query: &ConnectionsQuery) -> Result<Connections, ClientError> {
        let parts: Vec<_> =
            query.parts().into_iter().map(|(name, value)| format!("{name}={}", escape(&value))).collect();
        self.get(&format!("{}?{}", path::CONNECTIONS, parts.join("&"))).await
    }

    /// Ends connections.
    pub async fn kill_connections(&self, request: &KillRequest) -> Result<KillAnswer, ClientError> {
        self.post(path::KILL, request).await
    }

    /// Which rule decides about a packet.
    pub async fn explain(&self, request: &ExplainRequest) -> Result<Explanation, ClientError> {
        self.post(path::EXPLAIN, request).await
    }

    /// Which rule decides about a system call.
    pub async fn explain_access(&self, request: &AccessRequest) -> Result<Explanation, ClientError> {
        self.post(path::EXPLAIN_ACCESS, request).await
    }

    /// Enforce or audit.
    pub async fn mode(&self, request: ModeRequest) -> Result<ModeAnswer, ClientError> {
        self.post(path::MODE, &request).await
    }

    /// Removes everything Ringfence owns in the kernel.
    pub async fn off(&self) -> Result<OffAnswer, ClientError> {
        self.send(Method::POST, path::OFF, Bytes::new()).await
    }

    /// Puts the last confirmed generation in force again.
    pub async fn on(&self) -> Result<GenerationAnswer, ClientError> {
        self.send(Method::POST, path::ON, Bytes::new()).await
    }

    async fn get<A: DeserializeOwned>(&self, target: &str) -> Result<A, ClientError> {
        self.send(Method::GET, target, Bytes::new()).await
    }

    async fn post<Q: Serialize, A: DeserializeOwned>(&self, target: &str, request: &Q) -> Result<A, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Body(error.into()))?;
        self.send(Method::POST, target, body.into()).await
    }

    async fn send<A: DeserializeOwned>(&self, method: Method, target: &str, body: Bytes) -> Result<A, ClientError> {
        let (status, answer) = tokio::time::timeout(TIMEOUT, self.exchange(method, target, body))
            .await
            .map_err(|_| ClientError::Timeout(TIMEOUT))??;
        let decode = |source| ClientError::Decode { status, source };
        if status.is_success() {
            serde_json::from_slice(&answer).map_err(decode)
        } else {
            Err(ClientError::Refused(serde_json::from_slice(&answer).map_err(decode)?))
        }
    }

    async fn exchange(&self, method: Method, target: &str, body: Bytes) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "ringfenced")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(ClientError::Body)?;
            Ok((status, body.to_bytes()))
        };
        // The connection only makes progress while it is polled; its own error is also the answer's.
        tokio::pin!(answer, connection);
        tokio::select! {
            result = &mut answer => result,
            _ = &mut connection => answer.await,
        }
    }
}

fn set_path(name: &str) -> String {
    path::SET.replace("{name}", &escape(name))
}

/// Percent-encodes everything but unreserved characters (RFC 3986).
fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_types_cannot_leave_its_path_segment() {
        assert_eq!(set_path("jail"), "/v1/sets/jail");
        assert_eq!(set_path("../off?x#"), "/v1/sets/..%2Foff%3Fx%23");
    }
}
