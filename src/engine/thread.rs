//! The loop of an engine's thread.

use std::sync::Arc;
use std::time::Instant;

use crate::batch::{Batch, Worker};
use crate::catalog::Index;
use crate::decode::{DecodeJob, Decoder, PathModel};
use crate::domain::{Failure, Lateness};

use super::growth::Growths;
use super::handle::{DecodeRequest, Decoded};
use super::metrics::EngineMetrics;
use super::timed::Timed;

/// Decodes batch after batch until the lane is closed. Ends, too, when the network cannot take in what the catalogue says:
/// it would then answer for other items.
pub(super) fn run<M: PathModel>(
    worker: &Worker<DecodeRequest, Decoded>,
    model: &mut M,
    decoder: &mut Decoder,
    mut index: Arc<Index>,
    growths: &Growths,
    metrics: &EngineMetrics,
) {
    while let Some(mut batch) = worker.next_batch() {
        if let Some(growth) = growths.take() {
            if let Err(error) = model.place(growth.index.codes(), &growth.placed) {
                tracing::error!(%error, items = growth.index.len(), "the network cannot take in new items; the engine ends");
                return;
            }
            index = growth.index;
        }
        // Neighbours of like length, so that a network that splits the batch pads little.
        batch.order_by_key(|request| request.history.len());
        metrics.observe_padding(batch.jobs().map(|request| &request.history));
        let answers = answer(&batch, decoder, model, &index, metrics);
        batch.answer(answers);
    }
}

/// One decode for all jobs of the batch, each with its own settings.
fn answer<M: PathModel>(
    batch: &Batch<DecodeRequest, Decoded>,
    decoder: &mut Decoder,
    model: &mut M,
    index: &Index,
    metrics: &EngineMetrics,
) -> Vec<Result<Decoded, Failure>> {
    let started = Instant::now();
    let jobs: Vec<DecodeJob<'_>> = batch.jobs().map(DecodeRequest::job).collect();
    let mut timed = Timed::new(model);
    let outcomes = decoder.decode(&mut timed, index, &jobs, &|place| batch.wanted(place));
    let encode = timed.encode;
    let search = started.elapsed().saturating_sub(encode);
    match outcomes {
        Ok(outcomes) => outcomes
            .into_iter()
            .map(|outcome| {
                let outcome = outcome.ok_or(Failure::Late(Lateness::Step))?;
                metrics.non_finite.inc_by(outcome.non_finite.into());
                Ok(Decoded { outcome, encode, search })
            })
            .collect(),
        Err(error) => {
            let failure = Failure::Internal(format!("decode of a batch of {}: {error}", jobs.len()));
            tracing::error!(%failure, "batch failed");
            jobs.iter().map(|_| Err(failure.clone())).collect()
        }
    }
}

impl DecodeRequest {
    fn job(&self) -> DecodeJob<'_> {
        DecodeJob {
            history: &self.history,
            k: self.k,
            root: &self.root,
            settings: &self.settings,
            explain: self.explain,
            bias: Some(&self.bias).filter(|bias| !bias.is_neutral()),
        }
    }
}
