//! `EventService`: check, record, answer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::domain::{Failure, Recorded};
use crate::wire::v1::event_service_server::EventService;
use crate::wire::{self, v1};

use super::access::Caller;
use super::desk::{Desk, Recommends};
use super::metrics::{Method, ServerMetrics};
use super::stream::{draining, leaving};

/// Requests of one stream that are worked on at once; further ones wait on the client's side.
const AT_ONCE: usize = 16;

/// `reg4rec.v1.EventService` over a desk.
#[derive(Debug)]
pub(super) struct Events<R> {
    pub desk: Arc<Desk<R>>,
    pub metrics: Arc<ServerMetrics>,
}

/// What the requests of one call share.
#[derive(Debug)]
struct Book<R> {
    desk: Arc<Desk<R>>,
    metrics: Arc<ServerMetrics>,
    caller: Caller,
}

impl<R> Events<R> {
    fn book<T>(&self, sent: &Request<T>) -> Book<R> {
        let caller = sent.extensions().get::<Caller>().cloned().unwrap_or_default();
        Book { desk: Arc::clone(&self.desk), metrics: Arc::clone(&self.metrics), caller }
    }
}

#[tonic::async_trait]
impl<R: Recommends> EventService for Events<R> {
    async fn record(&self, sent: Request<v1::RecordRequest>) -> Result<Response<v1::RecordResponse>, Status> {
        let outcome = record(&self.book(&sent), sent.into_inner()).await;
        let recorded = outcome.map_err(|failure| wire::status(&failure, ""))?;
        Ok(Response::new(wire::record::response(recorded)))
    }

    type RecordStreamStream = ReceiverStream<Result<v1::RecordResult, Status>>;

    async fn record_stream(
        &self,
        sent: Request<Streaming<v1::RecordRequest>>,
    ) -> Result<Response<Self::RecordStreamStream>, Status> {
        // Not ready is the state of the server, not of one request.
        self.desk.recommender().map_err(|failure| wire::status(&failure, ""))?;
        let (results, answers) = mpsc::channel(AT_ONCE);
        tokio::spawn(answer_all(Arc::new(self.book(&sent)), sent.into_inner(), results));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// A request of a stream that is being recorded.
type Recording = Pin<Box<dyn Future<Output = v1::RecordResult> + Send>>;

/// Records the requests of a stream as they come, several at once, and answers in their order. Ends with the stream, when
/// nobody takes the answers any more, or when the server drains.
async fn answer_all<R: Recommends>(
    book: Arc<Book<R>>,
    mut sent: Streaming<v1::RecordRequest>,
    results: mpsc::Sender<Result<v1::RecordResult, Status>>,
) {
    let (begun, mut running) = mpsc::channel::<Result<Recording, Status>>(AT_ONCE);
    let read = async move {
        // The first was counted when the call was let in.
        let mut paid = true;
        loop {
            let read = tokio::select! {
                biased;
                () = draining(&book.desk) => Err(leaving()),
                read = sent.message() => read,
            };
            let next = match read {
                Ok(Some(request)) => Ok(begin(&book, request, std::mem::take(&mut paid)).await),
                Ok(None) => return,
                // A message that cannot be read ends a gRPC stream.
                Err(status) => Err(status),
            };
            let over = next.is_err();
            if begun.send(next).await.is_err() || over {
                return;
            }
        }
    };
    let answer = async move {
        while let Some(next) = running.recv().await {
            let result = match next {
                Ok(recording) => Ok(recording.await),
                Err(status) => Err(status),
            };
            if results.send(result).await.is_err() {
                return;
            }
        }
    };
    // Over with the answers: a client whose stream was ended is not read any further, whatever it sends.
    let read = async {
        read.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = answer => {}
        () = read => {}
    }
}

/// Puts a request into the log's queue, so that requests stand there in the order of their stream, and does not wait
/// for more.
async fn begin<R: Recommends>(book: &Arc<Book<R>>, request: v1::RecordRequest, paid: bool) -> Recording {
    let counted = book.metrics.begin_request(Method::RecordStream);
    let book = Arc::clone(book);
    let mut recording: Recording = Box::pin(async move {
        let asked = if paid { Ok(()) } else { book.caller.ask() };
        let outcome = match asked {
            Ok(()) => record(&book, request).await,
            Err(failure) => {
                book.metrics.refused(&failure, book.caller.name());
                Err(failure)
            }
        };
        counted.end(outcome.as_ref().err().map_or(Code::Ok, wire::code));
        wire::record::result(outcome)
    });
    match poll_fn(|context| Poll::Ready(recording.as_mut().poll(context))).await {
        Poll::Ready(result) => Box::pin(std::future::ready(result)),
        Poll::Pending => recording,
    }
}

async fn record<R: Recommends>(book: &Book<R>, sent: v1::RecordRequest) -> Result<Recorded, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let events = wire::record::events(sent, now)?;
    let outcome = book.desk.recommender()?.record(events).await;
    match &outcome {
        Ok(_) => {}
        Err(Failure::Internal(cause)) => tracing::error!(cause, "events were not recorded"),
        Err(failure) => {
            book.metrics.refused(failure, book.caller.name());
            tracing::debug!(%failure, "events were refused");
        }
    }
    outcome
}
