//! The admin port: metrics, liveness, readiness, and a page that says what is served and how to ask.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use prometheus::{Registry, TextEncoder};

use crate::recommend::VariantView;

use super::desk::{Desk, Phase, Recommends};

/// What the pages show.
#[derive(Debug)]
pub(super) struct Admin<R> {
    pub registry: Registry,
    pub desk: Arc<Desk<R>>,
    /// Where gRPC listens.
    pub public: String,
}

/// The admin port's routes.
pub(super) fn routes<R: Recommends>(admin: Admin<R>) -> Router {
    Router::new()
        .route("/", get(index::<R>))
        .route("/metrics", get(metrics::<R>))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready::<R>))
        .with_state(Arc::new(admin))
}

async fn metrics<R: Recommends>(State(admin): State<Arc<Admin<R>>>) -> Response {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready<R: Recommends>(State(admin): State<Arc<Admin<R>>>) -> Response {
    let (phase, _) = admin.desk.phase();
    let status = if phase == Phase::Serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", phase.name())).into_response()
}

async fn index<R: Recommends>(State(admin): State<Arc<Admin<R>>>) -> Html<String> {
    let (phase, since) = admin.desk.phase();
    let variants = admin.desk.recommender().map(|recommender| recommender.variants()).unwrap_or_default();
    let rows: String = variants.iter().map(row).collect();
    Html(format!(
        r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>REG4Rec: {phase}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ccc }}
pre {{ background: #f4f4f4; color: #222; padding: .8rem; overflow-x: auto }}
</style>
<h1>REG4Rec</h1>
<p>{phase} for {since} s, version {version}, gRPC on {public}</p>
<table><tr><th>Variant<th>Bundle<th>Version<th>Index<th>Items</tr>
{rows}</table>
<h2>Ask</h2>
<pre>reg4rec ask --server {public} --user U -k 10 --explain
grpcurl {plain}-d '{{"user_id": "U", "k": 10}}' {address} reg4rec.v1.RecommendationService/Recommend</pre>
<p><a href="metrics">metrics</a> · <a href="healthz">alive</a> · <a href="readyz">ready</a></p>
</html>
"#,
        phase = phase.name(),
        since = since.as_secs(),
        version = env!("CARGO_PKG_VERSION"),
        public = escaped(&admin.public),
        plain = if admin.public.starts_with("https") { "" } else { "-plaintext " },
        address = escaped(admin.public.split("://").last().unwrap_or_default()),
    ))
}

fn row(variant: &VariantView) -> String {
    format!(
        "<tr><td>{}{}<td>{}<td>{}<td>{}<td>{}</tr>\n",
        escaped(&variant.name),
        if variant.default { " (default)" } else { "" },
        escaped(&variant.bundle_name),
        escaped(&variant.bundle_version),
        escaped(&variant.index_version),
        variant.items,
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
