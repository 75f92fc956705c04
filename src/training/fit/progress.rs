//! What a person sees of a fit: stages, bars with loss, speed and time left.

use indicatif::{ProgressBar, ProgressStyle};

use crate::tokenizer::FitProgress;
use crate::training::pretrain::Progress;

/// Tells a fit on standard error; silent when asked to be.
#[derive(Debug)]
pub struct Narrator {
    bar: ProgressBar,
    quiet: bool,
}

impl Narrator {
    /// One that speaks.
    pub fn new() -> Self {
        Self { bar: ProgressBar::hidden(), quiet: false }
    }

    /// One that does not.
    pub fn silent() -> Self {
        Self { bar: ProgressBar::hidden(), quiet: true }
    }

    /// A stage begins.
    pub fn stage(&mut self, name: &str, about: &str) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::hidden();
        if !self.quiet {
            eprintln!("== {name}: {about}");
        }
    }

    /// A line or a few of result.
    pub fn say(&mut self, lines: &str) {
        if !self.quiet {
            self.bar.suspend(|| lines.lines().for_each(|line| eprintln!("   {line}")));
        }
    }

    /// The tokenizer learns.
    pub fn tokenizing(&mut self, progress: &FitProgress) {
        self.bar_of(progress.epochs as u64, "{wide_bar} {pos}/{len} epochs, {msg}, {eta} left");
        self.bar.set_message(format!("reconstruction {:.4}", progress.loss.reconstruction));
        self.bar.set_position(progress.epoch as u64);
    }

    /// The network learns.
    pub fn pretraining(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Epoch { epoch, epochs, steps } => {
                self.bar.finish_and_clear();
                self.bar = ProgressBar::hidden();
                self.bar_of(steps as u64, "{prefix} {wide_bar} {pos}/{len}, {msg}, {eta} left");
                self.bar.set_prefix(format!("epoch {}/{epochs}", epoch + 1));
            }
            Progress::Step { losses, sequences_per_second } => {
                self.bar.set_message(format!("loss {:.3}, {sequences_per_second:.0} sequences/s", losses.scorer));
                self.bar.inc(1);
            }
            Progress::Done(report) => {
                self.bar.finish_and_clear();
                let (losses, scores) = (report.losses, report.validation);
                self.say(&format!(
                    "epoch {:>2}: scorer {:.4}, begin {:.4}, steps {:.4}, category {:.4}; validation recall@10 {:.4}, \
                     ndcg@10 {:.4}; {:.0} s, {:.0} sequences/s",
                    report.epoch + 1,
                    losses.scorer,
                    losses.begin,
                    losses.steps,
                    losses.category,
                    scores.recall_at_10,
                    scores.ndcg_at_10,
                    report.seconds,
                    report.sequences_per_second,
                ));
            }
        }
    }

    /// `done` of `all` users are ranked for.
    pub fn counted(&mut self, done: usize, all: usize) {
        self.bar_of(all as u64, "{wide_bar} {pos}/{len} users, {per_sec}, {eta} left");
        self.bar.set_position(done as u64);
    }

    /// A visible bar, unless there is one already.
    fn bar_of(&mut self, length: u64, template: &str) {
        if self.quiet || !self.bar.is_hidden() || self.bar.length() == Some(length) {
            return;
        }
        // A template that does not parse shows the default bar: the work goes on all the same.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar = ProgressBar::new(length).with_style(style);
    }
}

impl Default for Narrator {
    fn default() -> Self {
        Self::new()
    }
}
