//! The sidecar's own pages: /metrics, /healthz, /readyz.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus::{Registry, TextEncoder};

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Page {
    /// What is counted.
    pub registry: Registry,
    /// Whether the last look at log and registry, or the last cycle, went well.
    pub ready: Arc<AtomicBool>,
}

impl Page {
    /// The routes.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .with_state(self)
    }
}

async fn metrics(State(page): State<Page>) -> Result<String, (StatusCode, String)> {
    TextEncoder::new()
        .encode_to_string(&page.registry.gather())
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn ready(State(page): State<Page>) -> (StatusCode, &'static str) {
    if page.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the log says what failed\n")
    }
}
