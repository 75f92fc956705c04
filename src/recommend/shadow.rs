//! Copies of requests to shadow arms: after the answer was given, at the lowest priority, for the counters alone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::known::Known;
use super::recommender::Recommender;
use super::steering::bias;
use super::variant::Variant;
use crate::domain::{Failure, RecommendAnswer, RecommendRequest};
use crate::engine::DecodeRequest;
use crate::experiment::{Shadow, ShadowMetrics, ShadowOutcome};

/// Copies under way at once; more are dropped.
const AT_ONCE: usize = 64;
/// How long a copy may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The shadow arms that run, and how much they do.
#[derive(Debug)]
pub(super) struct Shadows {
    pub(super) arms: Vec<Arc<Shadow>>,
    metrics: ShadowMetrics,
    places: Arc<Semaphore>,
}

impl Shadows {
    pub(super) fn new(arms: Vec<Shadow>, metrics: ShadowMetrics) -> Self {
        metrics.show(&arms);
        Self { arms: arms.into_iter().map(Arc::new).collect(), metrics, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Sends copies of an answered request. A user's history is read once more, as it stands then; a cold start is not
    /// copied: every variant answers it from its prior.
    pub(super) fn copy(&self, recommender: &Recommender, request: &RecommendRequest, answer: &RecommendAnswer) {
        if answer.cold_start {
            return;
        }
        for arm in self.arms.iter().filter(|arm| arm.copies(&request.user_id)) {
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.metrics.count(&arm.name, ShadowOutcome::Dropped);
                continue;
            };
            let (arm, recommender, request) = (Arc::clone(arm), recommender.clone(), request.clone());
            let returned: Vec<String> = answer.items.iter().map(|item| item.item_id.clone()).collect();
            let metrics = self.metrics.clone();
            tokio::spawn(async move {
                let outcome = match recommender.shadowed(&arm, &request, &returned).await {
                    Ok(outcome) => outcome,
                    Err(Failure::Overloaded { .. } | Failure::Late(_)) => ShadowOutcome::Dropped,
                    Err(failure) => {
                        tracing::debug!(shadow = arm.name, %failure, "a shadow arm failed");
                        ShadowOutcome::Failed
                    }
                };
                metrics.count(&arm.name, outcome);
                drop(place);
            });
        }
    }
}

impl Recommender {
    async fn shadowed(
        &self,
        arm: &Shadow,
        request: &RecommendRequest,
        returned: &[String],
    ) -> Result<ShadowOutcome, Failure> {
        let began = Instant::now();
        let deadline = began + PATIENCE;
        let loaded = self.loaded(&arm.variant).ok_or_else(|| Failure::UnknownVariant(arm.variant.clone()))?;
        let settings = loaded.settings(&arm.decode.or(request.decode))?;
        let Variant { engine, max_history, .. } = &loaded.variant;
        let live = loaded.live.load_full();
        let (view, index) = (&live.view, live.view.index());
        let (events, missed) = self.events(request, deadline).await;
        let limit = self.max_history().min(*max_history);
        let known = Known::of(&events, index, &request.filter, self.histories().kind_weights(), limit);
        if missed || known.history.is_empty() {
            return Ok(ShadowOutcome::Dropped);
        }
        let root = view.root(&request.filter, &known.excluded);
        let job = DecodeRequest {
            history: known.history,
            k: request.k,
            root,
            settings,
            explain: false,
            bias: bias(&request.steering, view),
            deadline,
        };
        let answer = engine.decode_shadow(job).await?;
        let items: Vec<&str> = answer.outcome.items.iter().map(|ranked| index.id(ranked.item)).collect();
        let known: HashSet<&str> = items.iter().copied().collect();
        let shared = returned.iter().filter(|id| known.contains(id.as_str())).count();
        Ok(ShadowOutcome::Answered {
            overlap: if returned.is_empty() { 1.0 } else { shared as f64 / returned.len() as f64 },
            first: items.first().copied() == returned.first().map(String::as_str),
            took: began.elapsed(),
        })
    }
}
