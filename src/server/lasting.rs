//! A body that lasts: what it holds until its end, and what ends it before it would end by itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;

/// A body that goes on until `end` resolves at the latest. It holds a `H` until it has ended, or is dropped.
pub(super) struct Lasting<H> {
    /// None: it has ended.
    rest: Option<Rest<H>>,
}

struct Rest<H> {
    body: Body,
    end: Pin<Box<dyn Future<Output = Option<Status>> + Send>>,
    _held: H,
}

impl<H: Send + Unpin + 'static> Lasting<H> {
    /// `end` may bring the status with which a call's answer ends; a request's body just ends.
    pub fn body(body: Body, held: H, end: impl Future<Output = Option<Status>> + Send + 'static) -> Body {
        Body::new(Self { rest: Some(Rest { body, end: Box::pin(end), _held: held }) })
    }
}

impl<H: Unpin> HttpBody for Lasting<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
        // First: a body that always has more would never be ended.
        if let Poll::Ready(status) = rest.end.as_mut().poll(context) {
            this.rest = None;
            return Poll::Ready(status.map(|status| Ok(Frame::trailers(trailers(&status)))));
        }
        let next = Pin::new(&mut rest.body).poll_frame(context);
        // Let go before whoever reads learns that it is over.
        let over = match &next {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(_) => true,
            Poll::Pending => false,
        };
        if over {
            this.rest = None;
        }
        next
    }
}

/// The status as a call's answer ends with it.
fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Only metadata of its own could be no header, and ours have none.
    if let Err(error) = status.add_header(&mut trailers) {
        tracing::error!(%error, "a status that is no header");
    }
    trailers
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn, ready};
    use std::sync::Arc;

    use super::*;

    async fn frames(mut body: Body) -> Vec<Frame<Bytes>> {
        let mut frames = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            frames.push(frame.unwrap());
        }
        frames
    }

    #[tokio::test]
    async fn a_body_keeps_what_it_holds_until_its_own_end() {
        let held = Arc::new(());
        let mut body = Lasting::body(Body::from("all"), Arc::clone(&held), pending());
        assert_eq!(Arc::strong_count(&held), 2);
        let first = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "all");
        assert!(frames(body).await.is_empty());
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn a_body_that_is_ended_says_why_and_lets_go() {
        let held = Arc::new(());
        let end = ready(Some(Status::deadline_exceeded("late")));
        let told = frames(Lasting::body(Body::from("never sent"), Arc::clone(&held), end)).await;
        assert_eq!((told.len(), Arc::strong_count(&held)), (1, 1));
        let trailers = told[0].trailers_ref().unwrap();
        assert!(trailers["grpc-status"] == "4" && trailers["grpc-message"] == "late", "{trailers:?}");
        assert!(frames(Lasting::body(Body::from("never read"), (), ready(None))).await.is_empty());
    }
}
