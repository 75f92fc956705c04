//! What browsers are told: whose pages may ask, with which headers, and which they may read.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::domain::ForcedArm;

/// How long a browser need not ask again.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// The answers for pages of these origins; of any for `*`.
pub(super) fn pages(origins: &[String]) -> CorsLayer {
    let names = |names: &[&'static str]| names.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    let sent = names(&["x-grpc-web", "x-user-agent", "grpc-timeout", ForcedArm::FIELD, ForcedArm::TOKEN_FIELD]);
    let origins = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        // What is no header value was refused with the settings.
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse::<HeaderValue>().ok()))
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::POST])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION].into_iter().chain(sent).collect::<Vec<_>>())
        .expose_headers(names(&["grpc-status", "grpc-message", "grpc-status-details-bin"]))
        .max_age(REMEMBERED)
}
