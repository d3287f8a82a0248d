//! Which path is answered by what, and who may ask.

use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ringfence_api::path;

use super::handlers as to;
use super::peer::{Access, Peer, readers};
use crate::daemon::Daemon;
use crate::error::Error;

/// The description of all this.
pub const OPENAPI: &str = "/openapi.json";

/// Room for 65,536 elements or any other request but an apply.
const MAX_BODY: usize = 8 << 20;
/// Room for the largest policy text, each byte of it escaped.
const MAX_APPLY: usize = 6 * ringfence_policy::document::MAX_TEXT + MAX_BODY;

macro_rules! routes {
    ($($method:ident $path:expr => $handler:path),+ $(,)?) => {
        /// Method and path of every route.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        fn table() -> Router<Arc<Daemon>> {
            Router::new()$(.route($path, $method($handler)))+
        }
    };
}

routes! {
    get path::STATUS => to::status,
    get path::RULES => to::rules,
    post path::APPLY => to::apply,
    post path::CONFIRM => to::confirm,
    post path::ROLLBACK => to::rollback,
    get path::HISTORY => to::history,
    get path::GENERATION => to::generation,
    get path::DIFF => to::diff,
    post path::ENTRIES => to::add_entry,
    get path::ENTRIES => to::entries,
    post path::UNDO => to::undo,
    get path::SET => to::set,
    post path::SET => to::change_set,
    get path::CONNECTIONS => to::connections,
    post path::KILL => to::kill_connections,
    post path::EXPLAIN => to::explain,
    post path::EXPLAIN_ACCESS => to::explain_access,
    post path::MODE => to::mode,
    post path::OFF => to::off,
    post path::ON => to::on,
    get OPENAPI => to::openapi,
}

/// The whole API.
pub fn router(daemon: Arc<Daemon>) -> Router {
    let guarded = from_fn_with_state(readers(), guard);
    table()
        .layer(guarded)
        .layer(axum::middleware::from_fn(limit))
        .fallback(async || Error::BadInput("there is nothing at this path".to_owned()))
        .method_not_allowed_fallback(async || Error::BadInput("this path is asked in another way".to_owned()))
        .layer(DefaultBodyLimit::max(MAX_APPLY))
        .with_state(daemon)
}

/// What a request takes. Whatever is not known to be a question changes something.
#[must_use]
pub fn wanted(method: &Method, path: &str, query: Option<&str>) -> Access {
    match (method, path) {
        // `reset=false` alone, as the client writes it; any other way of saying something about it needs the right to.
        (&Method::GET, path::RULES) if query.is_some_and(|q| q.contains("reset") && q != "reset=false") => {
            Access::Change
        }
        (&Method::GET, _) | (&Method::POST, path::EXPLAIN | path::EXPLAIN_ACCESS) => Access::Read,
        _ => Access::Change,
    }
}

async fn guard(
    State(readers): State<Option<u32>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    matched: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    match peer.demand(wanted(request.method(), matched.as_str(), request.uri().query()), readers) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Only an apply may be large; the check is on the length the client states, the limit above on what it sends.
async fn limit(request: Request, next: Next) -> Response {
    let length = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if request.uri().path() != path::APPLY && length.unwrap_or(0) > MAX_BODY {
        return Error::BadInput(format!("a request of more than {} MiB", MAX_BODY >> 20)).into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_need_less_than_changes() {
        assert_eq!(wanted(&Method::GET, path::STATUS, None), Access::Read);
        assert_eq!(wanted(&Method::POST, path::EXPLAIN, None), Access::Read);
        assert_eq!(wanted(&Method::POST, path::EXPLAIN_ACCESS, None), Access::Read);
        assert_eq!(wanted(&Method::GET, path::RULES, Some("reset=false")), Access::Read);
        for query in ["reset=true", "reset=false&reset=true", "r%65set=true&reset=false"] {
            assert_eq!(wanted(&Method::GET, path::RULES, Some(query)), Access::Change, "{query}");
        }
        assert_eq!(wanted(&Method::GET, path::RULES, None), Access::Read);
        for (method, route) in ROUTES {
            if *method == "post" && !route.starts_with(path::EXPLAIN) {
                assert_eq!(wanted(&Method::POST, route, None), Access::Change, "{route}");
            }
        }
        assert_eq!(wanted(&Method::DELETE, path::STATUS, None), Access::Change);
    }
}
