//! The RPCs: check, ask the recommender, encode.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

use crate::domain::{Failure, ForcedArm, RecommendAnswer, RecommendRequest};
use crate::wire::v1::recommendation_service_server::RecommendationService;
use crate::wire::{self, v1};

use super::desk::{Desk, Recommends};
use super::front::Call;

/// `reg4rec.v1.RecommendationService` over a desk.
#[derive(Debug)]
pub(super) struct Service<R> {
    pub desk: Arc<Desk<R>>,
}

#[tonic::async_trait]
impl<R: Recommends> RecommendationService for Service<R> {
    async fn recommend(&self, sent: Request<v1::RecommendRequest>) -> Result<Response<v1::RecommendResponse>, Status> {
        let (call, forced) = (call(&sent), wire::forced_arm(sent.metadata()));
        let sent = sent.into_inner();
        let request_id = request_id(&sent.request_id);
        let request = forced.and_then(|forced| Ok(forcing(wire::decode::recommend(sent)?, &forced)));
        let answer = match request {
            Ok(request) => self.answer(request, &request_id, &call).await,
            Err(failure) => Err(failure),
        };
        let answer = answer.map_err(|failure| wire::status(&failure, &request_id))?;
        Ok(Response::new(wire::encode::response(answer)))
    }

    async fn recommend_batch(
        &self,
        sent: Request<v1::RecommendBatchRequest>,
    ) -> Result<Response<v1::RecommendBatchResponse>, Status> {
        let (call, forced) = (call(&sent), wire::forced_arm(sent.metadata()));
        let sent = sent.into_inner();
        let ids: Vec<String> = sent.requests.iter().map(|one| request_id(&one.request_id)).collect();
        let refuse = |failure: Failure| wire::status(&failure, "");
        // Not ready is the state of the server, not of one request.
        self.desk.recommender().map_err(refuse)?;
        let forced = forced.map_err(refuse)?;
        let requests = wire::decode::batch(sent).map_err(refuse)?.into_iter();
        let requests = requests.map(|request| Ok(forcing(request?, &forced))).collect();
        let outcomes = self.answer_all(requests, &ids, &call).await;
        let results = outcomes.into_iter().zip(&ids).map(|(outcome, id)| wire::encode::result(outcome, id));
        Ok(Response::new(v1::RecommendBatchResponse { results: results.collect() }))
    }
}

impl<R: Recommends> Service<R> {
    async fn answer(
        &self,
        mut request: RecommendRequest,
        request_id: &str,
        call: &Call,
    ) -> Result<RecommendAnswer, Failure> {
        request_id.clone_into(&mut request.request_id);
        if !request.variant.is_empty() {
            call.variant.get_or_init(|| request.variant.clone());
        }
        let outcome = self.desk.recommender()?.recommend(request, call.deadline).await;
        match &outcome {
            // Set once: the requests of a batch that name different variants count under the first.
            Ok(answer) => drop(call.variant.get_or_init(|| answer.variant.clone())),
            Err(Failure::Internal(cause)) => tracing::error!(request_id, cause, "request failed"),
            Err(failure) => tracing::debug!(request_id, %failure, "request refused"),
        }
        outcome
    }

    /// All at once, so that they can share batches; the answers in the order of the requests.
    async fn answer_all(
        &self,
        requests: Vec<Result<RecommendRequest, Failure>>,
        ids: &[String],
        call: &Call,
    ) -> Vec<Result<RecommendAnswer, Failure>> {
        // Dropped with the call, the set ends its tasks.
        let mut asked = JoinSet::new();
        let mut outcomes: Vec<_> = Vec::with_capacity(requests.len());
        for (at, (request, id)) in requests.into_iter().zip(ids).enumerate() {
            match request {
                Ok(request) => {
                    let (service, id, call) = (self.share(), id.clone(), call.clone());
                    asked.spawn(async move { (at, service.answer(request, &id, &call).await) });
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

    fn share(&self) -> Self {
        Self { desk: Arc::clone(&self.desk) }
    }
}

/// The request, answered by the arm that the call forces.
fn forcing(request: RecommendRequest, forced: &Option<ForcedArm>) -> RecommendRequest {
    RecommendRequest { forced: forced.clone(), ..request }
}

/// What the front said of a call.
fn call<T>(request: &Request<T>) -> Call {
    // Only a service mounted without its front has none.
    request.extensions().get::<Call>().cloned().unwrap_or_else(|| Call { deadline: None, variant: Arc::default() })
}

/// The caller's id where it is usable, so that even a refusal can be found in the log; else a made-up one.
fn request_id(sent: &[u8]) -> String {
    match std::str::from_utf8(sent) {
        Ok(id) if (1..=256).contains(&id.len()) => id.to_owned(),
        // Each `RandomState` has keys of its own, which the system's randomness seeds.
        _ => format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1)),
    }
}
