//! Before all else: a call that would be refused whatever it says goes no further.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use http::Request;
use tower::Service;

use super::front::Front;

/// The calls behind the front's first look. It stands before routes and their layers, each of which costs a call more than its
/// refusal does.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub front: Arc<Front>,
    pub calls: Router,
}

impl Service<Request<tonic::body::Body>> for Door {
    type Response = Response;
    type Error = Infallible;
    type Future = Passed;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router always is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Passed {
        match self.front.refused_unread(request.uri().path(), request.headers()) {
            Some(refused) => Passed::Refused(ready(Ok(refused))),
            None => Passed::In(self.calls.call(request)),
        }
    }
}

/// A call that was refused, or is on its way.
pub(super) enum Passed {
    Refused(Ready<Result<Response, Infallible>>),
    In(RouteFuture<Infallible>),
}

impl Future for Passed {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Refused(refused) => Pin::new(refused).poll(cx),
            Self::In(call) => Pin::new(call).poll(cx),
        }
    }
}
