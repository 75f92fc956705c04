//! The RPCs: check, ask the recommender, encode.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::domain::{Failure, ForcedArm, Lateness, RecommendAnswer, RecommendRequest};
use crate::wire::v1::recommendation_service_server::RecommendationService;
use crate::wire::{self, v1};

use super::access::Caller;
use super::desk::{Desk, Recommends};
use super::front::Call;
use super::metrics::{CallVariant, Method, ServerMetrics};
use super::stream;

/// `reg4rec.v1.RecommendationService` over a desk.
#[derive(Debug)]
pub(super) struct Service<R> {
    pub desk: Arc<Desk<R>>,
    pub metrics: Arc<ServerMetrics>,
}

/// What is known of a call before its message is read.
#[derive(Debug, Clone)]
pub(super) struct Context {
    call: Call,
    caller: Caller,
    /// The arm that a stream forces.
    forced: Option<ForcedArm>,
}

#[tonic::async_trait]
impl<R: Recommends> RecommendationService for Service<R> {
    async fn recommend(&self, sent: Request<v1::RecommendRequest>) -> Result<Response<v1::RecommendResponse>, Status> {
        let (context, forced) = (Context::of(&sent), wire::forced_arm(sent.metadata()));
        let sent = sent.into_inner();
        let request_id = request_id(&sent.request_id);
        let request = forced.and_then(|forced| Ok(forcing(wire::decode::recommend(sent)?, &forced)));
        let answer = match request {
            Ok(request) => self.answer(request, &request_id, &context).await,
            Err(failure) => Err(failure),
        };
        let answer = answer.map_err(|failure| wire::status(&failure, &request_id))?;
        Ok(Response::new(wire::encode::response(answer)))
    }

    async fn recommend_batch(
        &self,
        sent: Request<v1::RecommendBatchRequest>,
    ) -> Result<Response<v1::RecommendBatchResponse>, Status> {
        let (context, forced) = (Context::of(&sent), wire::forced_arm(sent.metadata()));
        let sent = sent.into_inner();
        let refuse = |failure: Failure| wire::status(&failure, "");
        // Not ready is the state of the server, not of one request.
        self.desk.recommender().map_err(refuse)?;
        let forced = forced.map_err(refuse)?;
        // Of a batch that is too large none is needed: it is refused as a whole.
        let ids: Vec<String> =
            sent.requests.iter().take(wire::decode::MAX_BATCH).map(|one| request_id(&one.request_id)).collect();
        let requests = wire::decode::batch(sent).map_err(refuse)?.into_iter();
        // The first was counted when the call was let in.
        context.caller.owe(requests.len().saturating_sub(1));
        let requests = requests.map(|request| Ok(forcing(request?, &forced))).collect();
        let outcomes = self.answer_all(requests, &ids, &context).await;
        let results = outcomes.into_iter().zip(&ids).map(|(outcome, id)| wire::encode::result(outcome, id));
        Ok(Response::new(v1::RecommendBatchResponse { results: results.collect() }))
    }

    type RecommendStreamStream = ReceiverStream<Result<v1::RecommendResult, Status>>;

    async fn recommend_stream(
        &self,
        sent: Request<Streaming<v1::RecommendRequest>>,
    ) -> Result<Response<Self::RecommendStreamStream>, Status> {
        let refuse = |failure: Failure| wire::status(&failure, "");
        self.desk.recommender().map_err(refuse)?;
        let forced = wire::forced_arm(sent.metadata()).map_err(refuse)?;
        let context = Context { forced, ..Context::of(&sent) };
        // One: the others wait where they are counted.
        let (results, answers) = mpsc::channel(1);
        tokio::spawn(stream::answer_all(self.clone(), context, sent.into_inner(), results));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

impl<R: Recommends> Service<R> {
    /// What became of one request of a stream. `paid`: it was counted against the quota already.
    pub(super) async fn result(
        &self,
        sent: v1::RecommendRequest,
        context: &Context,
        paid: bool,
    ) -> v1::RecommendResult {
        let counted = self.metrics.begin_request(Method::RecommendStream);
        let context = &context.counted_by(counted.variant());
        let request_id = request_id(&sent.request_id);
        let request = if paid { Ok(()) } else { context.caller.ask() };
        let refuse = |failure: &Failure| self.metrics.refused(failure, context.caller.name());
        let request = request.inspect_err(refuse).and_then(|()| wire::decode::recommend(sent));
        let outcome = match request {
            Ok(request) => self.answer(forcing(request, &context.forced), &request_id, context).await,
            Err(failure) => Err(failure),
        };
        counted.end(outcome.as_ref().err().map_or(Code::Ok, wire::code));
        wire::encode::result(outcome, &request_id)
    }

    async fn answer(
        &self,
        mut request: RecommendRequest,
        request_id: &str,
        Context { call, caller, .. }: &Context,
    ) -> Result<RecommendAnswer, Failure> {
        request_id.clone_into(&mut request.request_id);
        if !request.variant.is_empty() {
            call.variant.get_or_init(|| request.variant.clone());
        }
        let own = request.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let longest = call.longest.and_then(|longest| Instant::now().checked_add(longest));
        // None where nobody but the server asks for one, as in a call of its own.
        let asked = own.into_iter().chain(call.deadline).min();
        let deadline = asked.map(|asked| longest.map_or(asked, |longest| asked.min(longest)));
        let answered = self.desk.recommender()?.recommend(request, deadline);
        let outcome = match longest {
            Some(longest) => {
                let answered = tokio::time::timeout_at(deadline.unwrap_or(longest).into(), answered).await;
                answered.unwrap_or(Err(Failure::Late(Lateness::Answer)))
            }
            None => answered.await,
        };
        match &outcome {
            // Set once: the requests of a batch that name different variants count under the first.
            Ok(answer) => drop(call.variant.get_or_init(|| answer.variant.clone())),
            Err(Failure::Internal(cause)) => tracing::error!(request_id, cause, "request failed"),
            Err(failure) => {
                self.metrics.refused(failure, caller.name());
                tracing::debug!(request_id, %failure, "request refused");
            }
        }
        outcome
    }

    /// All at once, so that they can share batches; the answers in the order of the requests.
    async fn answer_all(
        &self,
        requests: Vec<Result<RecommendRequest, Failure>>,
        ids: &[String],
        context: &Context,
    ) -> Vec<Result<RecommendAnswer, Failure>> {
        // Dropped with the call, the set ends its tasks.
        let mut asked = JoinSet::new();
        let mut outcomes: Vec<_> = Vec::with_capacity(requests.len());
        for (at, (request, id)) in requests.into_iter().zip(ids).enumerate() {
            match request {
                Ok(request) => {
                    let (service, id, context) = (self.clone(), id.clone(), context.clone());
                    asked.spawn(async move { (at, service.answer(request, &id, &context).await) });
                    outcomes.push(Err(Failure::Internal("the request's task ended without an outcome".into())));
                }
                Err(failure) => outcomes.push(Err(failure)),
            }
        }
        while let Some(joined) = asked.join_next().await {
            match joined {
                Ok((at, outcome)) => outcomes[at] = outcome,
                Err(error) => tracing::error!(%error, "a request of a batch failed"),
            }
        }
        outcomes
    }
}

// Not derived: that would ask for a recommender that can be cloned.
impl<R> Clone for Service<R> {
    fn clone(&self) -> Self {
        Self { desk: Arc::clone(&self.desk), metrics: Arc::clone(&self.metrics) }
    }
}

/// The request, answered by the arm that the call forces.
fn forcing(request: RecommendRequest, forced: &Option<ForcedArm>) -> RecommendRequest {
    RecommendRequest { forced: forced.clone(), ..request }
}

impl Context {
    /// What the layers said of a call.
    fn of<T>(request: &Request<T>) -> Self {
        // Only a service mounted without its layers has none.
        let none = || Call { deadline: None, longest: None, variant: Arc::default() };
        let call = request.extensions().get::<Call>().cloned().unwrap_or_else(none);
        Self { call, caller: request.extensions().get::<Caller>().cloned().unwrap_or_default(), forced: None }
    }

    /// As it is known of one request of a stream, which is counted under a variant of its own.
    fn counted_by(&self, variant: CallVariant) -> Self {
        Self { call: Call { variant, ..self.call.clone() }, ..self.clone() }
    }
}

/// The caller's id where it is usable, so that even a refusal can be found in the log; else a made-up one.
fn request_id(sent: &[u8]) -> String {
    match std::str::from_utf8(sent) {
        Ok(id) if (1..=256).contains(&id.len()) => id.to_owned(),
        // Each `RandomState` has keys of its own, which the system's randomness seeds.
        _ => format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1)),
    }
}
