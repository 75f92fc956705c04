//! A stream of requests: several are worked on at once, answers come in the order of the requests, and a client that does
//! not take its answers is not read any further.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Status, Streaming};

use crate::domain::Failure;
use crate::wire::{self, v1};

use super::desk::{Desk, Phase, Recommends};
use super::service::{Context, Service};

/// Requests of one stream that are worked on, or whose answers wait, at once; further ones wait on the client's side.
const AT_ONCE: usize = 64;

/// What a stream answers with.
pub(super) type Results = mpsc::Sender<Result<v1::RecommendResult, Status>>;

/// A request that is being answered; given up with the stream.
struct Answering(JoinHandle<v1::RecommendResult>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers the requests of a stream until it ends, or nobody takes the answers any more, or the server drains: then those
/// that were read are answered, and the stream ends with UNAVAILABLE.
pub(super) async fn answer_all<R: Recommends>(
    service: Service<R>,
    context: Context,
    sent: Streaming<v1::RecommendRequest>,
    results: Results,
) {
    let (begun, mut running) = mpsc::channel::<Result<Answering, Status>>(AT_ONCE);
    let answer = async move {
        while let Some(next) = running.recv().await {
            let result = match next {
                Ok(mut answering) => (&mut answering.0).await.map_err(|error| {
                    tracing::error!(%error, "a request of a stream failed");
                    wire::status(&Failure::Internal("the request's task ended".into()), "")
                }),
                Err(status) => Err(status),
            };
            if results.send(result).await.is_err() {
                return;
            }
        }
    };
    // Over with the answers: a client whose stream was ended is not read any further, whatever it sends.
    let read = async {
        read_all(service, context, sent, begun).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = answer => {}
        () = read => {}
    }
}

async fn read_all<R: Recommends>(
    service: Service<R>,
    context: Context,
    mut sent: Streaming<v1::RecommendRequest>,
    begun: mpsc::Sender<Result<Answering, Status>>,
) {
    let desk = Arc::clone(&service.desk);
    // The first was counted when the call was let in.
    let mut paid = true;
    loop {
        // Only then is it read: what waits before that is on the client's side.
        let Ok(place) = begun.reserve().await else { return };
        let read = tokio::select! {
            biased;
            () = draining(&desk) => Err(leaving()),
            read = sent.message() => read,
        };
        let request = match read {
            Ok(Some(request)) => request,
            Ok(None) => return,
            // A message that cannot be read ends a gRPC stream.
            Err(status) => return place.send(Err(status)),
        };
        let (service, context) = (service.clone(), context.clone());
        let paid = std::mem::take(&mut paid);
        place.send(Ok(Answering(tokio::spawn(async move { service.result(request, &context, paid).await }))));
    }
}

/// Resolves when the server drains.
pub(super) async fn draining<R>(desk: &Desk<R>) {
    // The desk outlives it, so waiting cannot fail.
    drop(desk.watch().wait_for(|phase| *phase == Phase::Draining).await);
}

/// How a stream ends that the server leaves.
pub(super) fn leaving() -> Status {
    wire::status(&Failure::NotReady { reason: "draining", retry_after: Duration::from_secs(1) }, "")
}
