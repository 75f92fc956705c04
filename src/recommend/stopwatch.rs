//! How long each stage took.

use std::time::{Duration, Instant};

use crate::domain::Stage;
use crate::engine::EngineAnswer;

#[derive(Clone)]
pub(super) struct Stopwatch {
    started: Instant,
    stage_began: Instant,
    timings: Vec<(Stage, Duration)>,
}

impl Stopwatch {
    pub(super) fn start() -> Self {
        let started = Instant::now();
        Self { started, stage_began: started, timings: Vec::with_capacity(Stage::ALL.len()) }
    }

    /// Ends a stage: all the time since the one before ended.
    pub(super) fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        self.timings.push((stage, now - self.stage_began));
        self.stage_began = now;
    }

    /// Ends the stages that the engine has timed.
    pub(super) fn engine(&mut self, answer: &EngineAnswer) {
        let stages =
            [(Stage::Queue, answer.queue_wait), (Stage::Encode, answer.encode), (Stage::Search, answer.search)];
        self.timings.extend(stages);
        self.stage_began = Instant::now();
    }

    /// All stages, in order, the last one being their total.
    pub(super) fn stop(mut self) -> Vec<(Stage, Duration)> {
        self.timings.push((Stage::Total, self.started.elapsed()));
        self.timings
    }
}
