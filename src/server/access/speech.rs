//! What a call must be called: gRPC.
//!
//! A web page of any origin may have its reader's browser post a form or a text to any port that the browser reaches, and
//! tonic would take that for a call. It may not say this content type unless the port's answers allow it.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};

/// How the content type of every call begins, gRPC-web's too.
const GRPC: &[u8] = b"application/grpc";

/// Lets calls pass; what is none is answered with HTTP 415.
pub(in crate::server) async fn calls_only(request: Request, next: Next) -> Response {
    if is_call(request.headers()) {
        return next.run(request).await;
    }
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected the content type application/grpc or application/grpc-web\n")
        .into_response()
}

fn is_call(headers: &HeaderMap) -> bool {
    let begins = |value: &http::HeaderValue| {
        value.as_bytes().get(..GRPC.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(GRPC))
    };
    let mut said = headers.get_all(header::CONTENT_TYPE).iter().peekable();
    said.peek().is_some() && said.all(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_by_its_content_type_alone() {
        let said = |values: &[&'static str]| {
            is_call(&values.iter().map(|value| (header::CONTENT_TYPE, value.parse().unwrap())).collect::<HeaderMap>())
        };
        for value in ["application/grpc", "application/grpc+proto", "application/grpc-web-text", "Application/GRPC"] {
            assert!(said(&[value]), "{value}");
        }
        for value in ["", "application", "text/plain", "text/plain;application/grpc", "application/json"] {
            assert!(!said(&[value]), "{value:?}");
        }
        let mut twice = HeaderMap::new();
        for value in ["application/grpc", "text/plain"] {
            twice.append(header::CONTENT_TYPE, value.parse().unwrap());
        }
        assert!(!is_call(&twice) && !said(&[]));
    }
}
