//! The control API: HTTP with JSON bodies on a Unix socket. Each request becomes a message to the owner of the
//! director; nothing is decided here.
//!
//! Who may open the socket may do everything: the file mode is the access control.

use crate::messages::{Mailbox, Request};
use api::{Refusal, RefusalKind};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest request body in bytes: a configuration of some 130,000 services and as many real servers.
const BODY_BYTES_MAX: usize = 128 << 20;

/// The routes.
pub(crate) fn router(mailbox: Mailbox) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/changes", post(changes))
        .route("/v1/connections", get(connections))
        .route("/v1/flows", post(flows))
        .route("/v1/verdicts", get(verdicts))
        .route("/v1/marks", get(marks))
        .route("/v1/policies", get(policies))
        .route("/v1/settings", get(settings))
        .route("/v1/plan", post(plan))
        .route("/v1/apply", post(apply))
        .route("/v1/rollback", post(roll_back))
        .route("/v1/confirm", post(confirm))
        .route("/v1/history", get(history))
        .route("/v1/declared", get(declared))
        .route("/v1/saved", get(saved))
        .route("/v1/health", get(health))
        .route("/v1/metrics", get(metrics))
        .route("/v1/events", get(events))
        .route("/v1/capture", post(capture))
        .route("/v1/capture/end", post(end_capture))
        .route("/v1/sync", get(sync_daemons))
        .route("/v1/sync/start", post(start_sync))
        .route("/v1/sync/stop", post(stop_sync))
        .route("/v1/explain", post(explain))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(mailbox)
}

/// A refusal with its status.
struct Refused(StatusCode, Refusal);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        json(self.0, &self.1)
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.kind {
            RefusalKind::Kernel => StatusCode::INTERNAL_SERVER_ERROR,
            RefusalKind::NoSuchService | RefusalKind::NoSuchReal => StatusCode::NOT_FOUND,
            _ => StatusCode::BAD_REQUEST,
        };
        Self(status, refusal)
    }
}

fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        // The types of the API always serialise; should one not, say so.
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(RefusalKind::Invalid, format!("the request body: {error}")).into())
}

/// Sends a request to the owner and waits for its answer.
async fn ask<T: Serialize>(
    mailbox: &Mailbox,
    request: impl FnOnce(crate::messages::Reply<T>) -> Request,
) -> Result<Response, Refused> {
    let answer = mailbox.ask(request).await?;
    Ok(json(StatusCode::OK, &answer))
}

async fn marks(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Marks).await
}

async fn sync_daemons(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::SyncDaemons).await
}

async fn start_sync(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let ready = crate::sync::prepare(parse(&body)?, mailbox.clone()).await?;
    ask(&mailbox, |reply| Request::SyncStart(Box::new(ready), reply)).await
}

async fn stop_sync(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let api::SyncStop { role } = parse(&body)?;
    ask(&mailbox, |reply| Request::SyncStop(role, reply)).await
}

async fn status(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Status).await
}

async fn services(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Services).await
}

async fn policies(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Policies).await
}

async fn settings(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Settings).await
}

async fn plan(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let request = parse(&body)?;
    ask(&mailbox, |reply| Request::Plan(request, reply)).await
}

async fn apply(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let request = parse(&body)?;
    ask(&mailbox, |reply| Request::Apply(request, reply)).await
}

async fn roll_back(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let request = parse(&body)?;
    ask(&mailbox, |reply| Request::RollBack(request, reply)).await
}

async fn confirm(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Confirm).await
}

async fn history(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::History).await
}

async fn declared(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Declared).await
}

async fn saved(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Saved).await
}

/// The one answer that is a JSON string: its text is what a scraper wants.
async fn metrics(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Metrics).await
}

async fn health(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Health).await
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn events(
    State(mailbox): State<Mailbox>,
    page: Result<Query<After>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(After { after }) = page.map_err(|error| {
        Refused::from(Refusal::new(RefusalKind::Invalid, format!("after must be a number: {error}")))
    })?;
    ask(&mailbox, |reply| Request::Events(after, reply)).await
}

async fn verdicts(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::Verdicts).await
}

async fn changes(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let changes = parse(&body)?;
    ask(&mailbox, |reply| Request::Change(changes, reply)).await
}

async fn flows(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let question = parse(&body)?;
    ask(&mailbox, |reply| Request::Flows(question, reply)).await
}

/// The one answer that is no JSON, and goes on until it is over.
async fn capture(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let request = parse(&body)?;
    let claim = mailbox.ask(|reply| Request::CaptureClaim(request, reply)).await?;
    let pieces = crate::capture::start(mailbox, claim).await?;
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), pieces))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-pcapng")];
    Ok((StatusCode::OK, kind, Body::from_stream(pieces)).into_response())
}

async fn end_capture(State(mailbox): State<Mailbox>) -> Result<Response, Refused> {
    ask(&mailbox, Request::CaptureStop).await
}

async fn explain(State(mailbox): State<Mailbox>, body: Bytes) -> Result<Response, Refused> {
    let question = parse(&body)?;
    ask(&mailbox, |reply| Request::Explain(question, reply)).await
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    cursor: u64,
}

async fn connections(
    State(mailbox): State<Mailbox>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refused> {
    let Query(Page { cursor }) = page.map_err(|error| {
        Refused::from(Refusal::new(RefusalKind::Invalid, format!("cursor must be a number: {error}")))
    })?;
    ask(&mailbox, |reply| Request::Connections(cursor, reply)).await
}

async fn unknown_path(uri: axum::http::Uri) -> Refused {
    let message = format!("there is no {}: docs/operating.md lists the paths", uri.path());
    Refused(StatusCode::NOT_FOUND, Refusal::new(RefusalKind::Unsupported, message))
}

async fn wrong_method(method: axum::http::Method, uri: axum::http::Uri) -> Refused {
    let message = format!("{} does not take {method}", uri.path());
    Refused(StatusCode::METHOD_NOT_ALLOWED, Refusal::new(RefusalKind::Unsupported, message))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_path_is_in_the_documents() {
        let page = include_str!("../../../docs/operating.md");
        let mut paths = 0;
        for route in include_str!("http.rs").lines().filter_map(|it| it.trim().strip_prefix(".route(\"")) {
            let (path, rest) = route.split_once("\", ").expect("a path");
            let method = rest.split_once('(').expect("a method").0.to_uppercase();
            let shown = format!("`{method} {path}");
            assert!(
                [format!("{shown}`"), format!("{shown}?")].iter().any(|shown| page.contains(shown)),
                "{shown}` is not in docs/operating.md"
            );
            paths += 1;
        }
        assert!(paths >= 20, "{paths} paths");
    }
}
