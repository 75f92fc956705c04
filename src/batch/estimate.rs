//! How long a batch takes, learnt from those that ran, and how far that holds for the jobs that wait.

use std::time::Duration;

/// The weight of a batch beside that of the next one: about the last twenty count.
const KEEP: f64 = 0.95;

/// How much of a straight line through the origin is mixed in, as a share of the squared mean size. Batches of one size
/// say nothing of a fixed cost, and a chance slope of 0 would make large batches look free.
const TOWARDS_ORIGIN: f64 = 0.05;

/// A batch that took more than so many times what was expected counts as one that took so many times that: one stall
/// says little of the next batch.
const WILDEST: f64 = 4.0;

/// Seconds of a batch as `base + slope * jobs`, by least squares, and what came of predictions made with it.
#[derive(Debug, Default)]
pub(super) struct ServiceEstimate {
    weight: f64,
    jobs: f64,
    jobs_squared: f64,
    seconds: f64,
    jobs_seconds: f64,
    /// Seconds that were predicted of jobs when they came.
    predicted: f64,
    /// Seconds that they took.
    took: f64,
}

impl ServiceEstimate {
    /// Learns from one batch that has run.
    pub(super) fn record(&mut self, took: Duration, jobs: usize) {
        let (mut seconds, jobs) = (took.as_secs_f64(), jobs as f64);
        if let Some((base, slope)) = self.line() {
            seconds = seconds.min(WILDEST * (base + slope * jobs));
        }
        self.weight = KEEP * self.weight + 1.0;
        self.jobs = KEEP * self.jobs + jobs;
        self.jobs_squared = KEEP * self.jobs_squared + jobs * jobs;
        self.seconds = KEEP * self.seconds + seconds;
        self.jobs_seconds = KEEP * self.jobs_seconds + jobs * seconds;
    }

    /// How long a batch of so many takes on average; none before the first one has ended.
    pub(super) fn batch(&self, jobs: usize) -> Option<Duration> {
        let (base, slope) = self.line()?;
        Some(Duration::from_secs_f64(base + slope * jobs as f64))
    }

    /// The most jobs, at least 1 and at most `most`, whose batch ends within `limit` on average.
    pub(super) fn fitting(&self, limit: Duration, most: usize) -> usize {
        let Some((base, slope)) = self.line() else { return most };
        let room = limit.as_secs_f64() - base;
        // As a float to an integer: what is below 0 is 0, what is too large the largest.
        ((room / slope.max(1e-12)) as usize).clamp(1, most)
    }

    /// Learns from jobs that something was predicted of, and what they took instead: what lies between batches, as on a
    /// machine that is busy with other work, is seen by no batch.
    pub(super) fn held(&mut self, jobs: impl Iterator<Item = (Duration, Duration)>) {
        let sums = jobs.fold((0.0, 0.0), |(predicted, took), (one, other)| {
            (predicted + one.as_secs_f64(), took + other.as_secs_f64().min(WILDEST * one.as_secs_f64()))
        });
        if sums.0 > 0.0 {
            self.predicted = KEEP * self.predicted + sums.0;
            self.took = KEEP * self.took + sums.1;
        }
    }

    /// What a prediction is to be multiplied with, as it turned out before.
    pub(super) fn stretch(&self) -> f64 {
        if self.predicted > 0.0 { (self.took / self.predicted).max(1.0) } else { 1.0 }
    }

    /// Base and slope; neither is below 0.
    fn line(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 {
            return None;
        }
        let (jobs, seconds) = (self.jobs / self.weight, self.seconds / self.weight);
        let spread = (self.jobs_squared / self.weight - jobs * jobs).max(0.0);
        let together = self.jobs_seconds / self.weight - jobs * seconds;
        let through_origin = seconds / jobs;
        let pull = TOWARDS_ORIGIN * jobs * jobs;
        let slope = (together + pull * through_origin) / (spread + pull);
        let slope = slope.clamp(0.0, through_origin);
        Some((seconds - slope * jobs, slope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: f64) -> Duration {
        Duration::from_secs_f64(value / 1e3)
    }

    fn close(one: Duration, other: Duration) -> bool {
        (one.as_secs_f64() / other.as_secs_f64() - 1.0).abs() < 0.1
    }

    #[test]
    fn batches_of_many_sizes_tell_the_fixed_cost_from_that_of_a_job() {
        let mut estimate = ServiceEstimate::default();
        assert_eq!((estimate.batch(1), estimate.fitting(ms(1.0), 64)), (None, 64));
        for jobs in (1..=64).chain(1..=64) {
            estimate.record(ms(5.0 + 2.0 * jobs as f64), jobs);
        }
        for jobs in [8, 32, 64] {
            let expected = ms(5.0 + 2.0 * jobs as f64);
            assert!(close(estimate.batch(jobs).unwrap(), expected), "{jobs}: {:?}", estimate.batch(jobs));
        }
        assert!((20..=25).contains(&estimate.fitting(ms(50.0), 64)), "{}", estimate.fitting(ms(50.0), 64));
        assert_eq!((estimate.fitting(ms(0.0), 64), estimate.fitting(ms(1e6), 64)), (1, 64));
    }

    #[test]
    fn batches_of_one_size_are_taken_as_without_a_fixed_cost() {
        let mut estimate = ServiceEstimate::default();
        for took in [9.0, 11.0, 10.0, 10.0, 10.0] {
            estimate.record(ms(took), 10);
        }
        assert!(close(estimate.batch(10).unwrap(), ms(10.0)) && close(estimate.batch(40).unwrap(), ms(40.0)));
    }

    #[test]
    fn predictions_that_were_too_low_are_stretched_and_those_too_high_are_not_shrunk() {
        let mut estimate = ServiceEstimate::default();
        assert_eq!(estimate.stretch(), 1.0);
        (0..100).for_each(|_| estimate.held([(ms(10.0), ms(14.0)), (ms(30.0), ms(46.0))].into_iter()));
        assert!((1.49..1.51).contains(&estimate.stretch()), "{}", estimate.stretch());
        estimate.held(std::iter::empty());
        (0..200).for_each(|_| estimate.held([(ms(10.0), ms(5.0))].into_iter()));
        assert_eq!(estimate.stretch(), 1.0);
    }

    #[test]
    fn one_stall_moves_little_and_a_slower_machine_is_learnt() {
        let mut estimate = ServiceEstimate::default();
        (0..50).for_each(|_| estimate.record(ms(10.0), 5));
        estimate.record(ms(10_000.0), 5);
        assert!(estimate.batch(5).unwrap() < ms(13.0), "{:?}", estimate.batch(5));
        (0..60).for_each(|_| estimate.record(ms(30.0), 5));
        assert!(close(estimate.batch(5).unwrap(), ms(30.0)), "{:?}", estimate.batch(5));
    }
}
