//! The layer before the services: lets a call in, with its caller, or answers why not.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use tower::{Layer, Service};

use crate::wire;

use super::super::metrics::ServerMetrics;
use super::clients::Clients;
use super::role::Role;

/// Makes services ask for keys.
#[derive(Debug, Clone)]
pub(in crate::server) struct AccessLayer {
    pub clients: Arc<Clients>,
    pub metrics: Arc<ServerMetrics>,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { layer: self.clone(), inner }
    }
}

/// A service behind the layer. Requests reach it with their [`super::Caller`] as an extension.
#[derive(Debug, Clone)]
pub(in crate::server) struct Access<S> {
    layer: AccessLayer,
    inner: S,
}

impl<S> Service<Request> for Access<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let needed = Role::needed(request.uri().path());
        match self.layer.clients.admit(request.headers(), needed) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Box::pin(self.inner.call(request))
            }
            Err(failure) => {
                self.layer.metrics.refused(&failure, None);
                let response = wire::status(&failure, "").into_http::<Body>();
                Box::pin(std::future::ready(Ok(response)))
            }
        }
    }
}
