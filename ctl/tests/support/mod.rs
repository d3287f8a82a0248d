//! Running `ringctl`, and a socket that answers as the daemon would.
//!
//! The answers here are made up: what is tested is how they are asked for, carried and shown. The real daemon is
//! tested in the `tests` crate.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use serde_json::Value;

/// What a run of `ringctl` left.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `ringctl` with these arguments and nothing on standard input.
pub fn ringctl<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Run {
    ringctl_reading("", arguments)
}

/// Runs `ringctl` with `input` on standard input.
pub fn ringctl_reading<A: AsRef<OsStr>>(input: &str, arguments: impl IntoIterator<Item = A>) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringctl"));
    command.args(arguments);
    run(&mut command, input)
}

/// Runs a prepared command.
pub fn run(command: &mut Command, input: &str) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What the daemon was asked: method, path with query, body.
pub type Asked = (String, String, Value);

/// A socket in a directory of its own that gives prepared answers, in order.
pub struct Daemon {
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Prepared = Arc<(Mutex<std::vec::IntoIter<(u16, Value)>>, Arc<Mutex<Vec<Asked>>>)>;

impl Daemon {
    /// Answers each request with the next of `answers`.
    pub fn new(answers: impl Into<Vec<(u16, Value)>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let prepared: Prepared = Arc::new((Mutex::new(answers.into().into_iter()), Arc::clone(&asked)));
        let router = Router::new().fallback(answer).with_state(prepared);
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        listener.set_nonblocking(true).unwrap();
        // It ends with the test.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                axum::serve(listener, router).await
            })
        });
        Self { directory, asked }
    }

    /// Runs `ringctl` against it.
    pub fn ringctl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.ringctl_reading("", arguments)
    }

    /// The same with standard input.
    pub fn ringctl_reading<A: AsRef<OsStr>>(&self, input: &str, arguments: impl IntoIterator<Item = A>) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringctl"));
        command.args(arguments).arg("--socket").arg(self.socket());
        run(&mut command, input)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// A directory that goes with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(State(state): State<Prepared>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, String) {
    let (answers, asked) = &*state;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    asked.lock().unwrap().push((method.to_string(), uri.to_string(), body));
    let (status, answer) = answers.lock().unwrap().next().expect("more requests than prepared answers");
    (StatusCode::from_u16(status).unwrap(), answer.to_string())
}
