//! One function a route: off the runtime's thread, ask the daemon, answer.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, State};
use axum::response::IntoResponse;
use ringfence_api::{
    AccessRequest, ApplyAnswer, ApplyRequest, ApplySource, Connections, ConnectionsQuery, Diff, DiffQuery, Entry,
    EntryList, EntryRequest, ErrorBody, ExplainRequest, Explanation, Generation, GenerationAnswer, GenerationRequest,
    GenerationText, KillAnswer, KillRequest, ModeAnswer, ModeRequest, OffAnswer, RuleLine, RulesQuery, SetAnswer,
    SetElements, SetQuery, SetRequest, Status, UndoAnswer, UndoRequest, path,
};

use super::body::{Json, Query};
use super::caller::Caller;
use super::peer::{Access, Peer, readers};
use crate::daemon::Daemon;
use crate::error::{Result, blocking};

type Shared = State<Arc<Daemon>>;
type From = ConnectInfo<Peer>;
type Answer<T> = Result<Json<T>>;

async fn ask<T: Send + 'static>(
    daemon: Arc<Daemon>,
    work: impl FnOnce(&Daemon) -> Result<T> + Send + 'static,
) -> Answer<T> {
    blocking(move || work(&daemon)).await.map(Json)
}

/// State of every hook and interface.
#[utoipa::path(get, path = path::STATUS, responses((status = 200, body = Status), (status = 403, body = ErrorBody)))]
pub async fn status(State(daemon): Shared) -> Answer<Status> {
    ask(daemon, Daemon::status).await
}

/// Rules and their counters, in order of judgement.
#[utoipa::path(get, path = path::RULES, params(RulesQuery), responses((status = 200, body = Vec<RuleLine>), (status = 403, body = ErrorBody)))]
pub async fn rules(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Query(query): Query<RulesQuery>,
) -> Answer<Vec<RuleLine>> {
    if query.reset {
        // The guard has looked at the text of the query; this is what it means.
        peer.demand(Access::Change, readers())?;
    }
    ask(daemon, move |daemon| daemon.rules(query)).await
}

/// Puts a policy in force, whole or not at all.
#[utoipa::path(post, path = path::APPLY, request_body = ApplyRequest, responses(
    (status = 200, body = ApplyAnswer), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub async fn apply(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Json(request): Json<ApplyRequest>,
) -> Answer<ApplyAnswer> {
    let why = if request.source == ApplySource::Reload { "reload" } else { "apply" };
    let result = ask(daemon, move |daemon| daemon.apply(request, &Caller::Peer(peer), why)).await;
    if let Err(error) = &result {
        tracing::warn!(by = peer.name(), error = error.body().message, "an apply was refused");
    }
    result
}

/// Keeps a pending generation.
#[utoipa::path(post, path = path::CONFIRM, request_body = GenerationRequest, responses(
    (status = 200, body = GenerationAnswer), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn confirm(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Json(request): Json<GenerationRequest>,
) -> Answer<GenerationAnswer> {
    ask(daemon, move |daemon| daemon.confirm(request, &Caller::Peer(peer))).await
}

/// Goes back to an earlier generation.
#[utoipa::path(post, path = path::ROLLBACK, request_body = GenerationRequest, responses(
    (status = 200, body = GenerationAnswer), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn rollback(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Json(request): Json<GenerationRequest>,
) -> Answer<GenerationAnswer> {
    ask(daemon, move |daemon| daemon.rollback(request, &Caller::Peer(peer))).await
}

/// Generations kept on disk, newest first.
#[utoipa::path(get, path = path::HISTORY, responses((status = 200, body = Vec<Generation>), (status = 403, body = ErrorBody)))]
pub async fn history(State(daemon): Shared) -> Answer<Vec<Generation>> {
    ask(daemon, Daemon::history).await
}

/// One of them: a number, `running`, `previous` or `pending`.
#[utoipa::path(get, path = path::GENERATION, params(("n" = String, Path)), responses(
    (status = 200, body = GenerationText), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn generation(State(daemon): Shared, Path(which): Path<String>) -> Answer<GenerationText> {
    ask(daemon, move |daemon| daemon.generation(&which)).await
}

/// What differs between two of them.
#[utoipa::path(get, path = path::DIFF, params(DiffQuery), responses(
    (status = 200, body = Diff), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn diff(State(daemon): Shared, Query(query): Query<DiffQuery>) -> Answer<Diff> {
    ask(daemon, move |daemon| daemon.diff(query)).await
}

/// Adds a dynamic entry; it is in force when the answer comes.
#[utoipa::path(post, path = path::ENTRIES, request_body = EntryRequest, responses(
    (status = 200, body = Entry), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub async fn add_entry(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Json(request): Json<EntryRequest>,
) -> Answer<Entry> {
    ask(daemon, move |daemon| daemon.add_entry(request, &Caller::Peer(peer))).await
}

/// Dynamic entries and set elements.
#[utoipa::path(get, path = path::ENTRIES, responses((status = 200, body = EntryList), (status = 403, body = ErrorBody)))]
pub async fn entries(State(daemon): Shared) -> Answer<EntryList> {
    ask(daemon, Daemon::list).await
}

/// Takes dynamic entries and set elements back.
#[utoipa::path(post, path = path::UNDO, request_body = UndoRequest, responses(
    (status = 200, body = UndoAnswer), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn undo(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Json(request): Json<UndoRequest>,
) -> Answer<UndoAnswer> {
    ask(daemon, move |daemon| daemon.undo(&request, &Caller::Peer(peer))).await
}

/// Elements of a dynamic set, one batch of them.
#[utoipa::path(get, path = path::SET, params(("name" = String, Path), SetQuery), responses(
    (status = 200, body = SetElements), (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub async fn set(
    State(daemon): Shared,
    Path(name): Path<String>,
    Query(query): Query<SetQuery>,
) -> Answer<SetElements> {
    ask(daemon, move |daemon| daemon.set(&name, query)).await
}

/// Changes a dynamic set.
#[utoipa::path(post, path = path::SET, params(("name" = String, Path)), request_body = SetRequest, responses(
    (status = 200, body = SetAnswer), (status = 403, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub async fn change_set(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Path(name): Path<String>,
    Json(request): Json<SetRequest>,
) -> Answer<SetAnswer> {
    ask(daemon, move |daemon| daemon.change_set(&name, request, &Caller::Peer(peer))).await
}

/// Connections that the policy in force follows, the newest of those that fit.
#[utoipa::path(get, path = path::CONNECTIONS, params(ConnectionsQuery), responses(
    (status = 200, body = Connections), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub async fn connections(State(daemon): Shared, Query(query): Query<ConnectionsQuery>) -> Answer<Connections> {
    ask(daemon, move |daemon| daemon.connections(&query)).await
}

/// Ends connections: their packets are dropped when the answer comes.
#[utoipa::path(post, path = path::KILL, request_body = KillRequest, responses(
    (status = 200, body = KillAnswer), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub async fn kill_connections(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Json(request): Json<KillRequest>,
) -> Answer<KillAnswer> {
    ask(daemon, move |daemon| daemon.kill_connections(&request, &Caller::Peer(peer))).await
}

/// Which rule decides about a packet; asked of the kernel's own program, without effect.
#[utoipa::path(post, path = path::EXPLAIN, request_body = ExplainRequest, responses(
    (status = 200, body = Explanation), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub async fn explain(State(daemon): Shared, Json(request): Json<ExplainRequest>) -> Answer<Explanation> {
    ask(daemon, move |daemon| daemon.explain(&request)).await
}

/// Which rule decides about a system call; asked of the programs of the generation in force, without effect.
#[utoipa::path(post, path = path::EXPLAIN_ACCESS, request_body = AccessRequest, responses(
    (status = 200, body = Explanation), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub async fn explain_access(State(daemon): Shared, Json(request): Json<AccessRequest>) -> Answer<Explanation> {
    ask(daemon, move |daemon| daemon.explain_access(request)).await
}

/// Enforce or audit.
#[utoipa::path(post, path = path::MODE, request_body = ModeRequest, responses(
    (status = 200, body = ModeAnswer), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn mode(
    State(daemon): Shared,
    ConnectInfo(peer): From,
    Json(request): Json<ModeRequest>,
) -> Answer<ModeAnswer> {
    ask(daemon, move |daemon| daemon.set_mode(request, &Caller::Peer(peer))).await
}

/// Removes everything Ringfence owns in the kernel, and only that.
#[utoipa::path(post, path = path::OFF, responses(
    (status = 200, body = OffAnswer), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn off(State(daemon): Shared, ConnectInfo(peer): From) -> Answer<OffAnswer> {
    ask(daemon, move |daemon| daemon.off(&Caller::Peer(peer))).await
}

/// Puts the last confirmed generation in force again.
#[utoipa::path(post, path = path::ON, responses(
    (status = 200, body = GenerationAnswer), (status = 403, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub async fn on(State(daemon): Shared, ConnectInfo(peer): From) -> Answer<GenerationAnswer> {
    ask(daemon, move |daemon| daemon.on(&Caller::Peer(peer))).await
}

/// This description.
#[utoipa::path(get, path = super::routes::OPENAPI, responses((status = 200, description = "OpenAPI 3.1")))]
pub async fn openapi() -> impl IntoResponse {
    axum::Json(super::openapi::document())
}
