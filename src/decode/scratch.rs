//! What requests need for a moment; shared by the searches of a batch and from batch to batch, so that its memory is
//! found once.

use crate::catalog::Index;
use crate::domain::ItemNumber;

use super::answers::Answer;
use super::corp::Verdict;
use super::exact::best;
use super::expand::Marginals;
use super::greatest::Greatest;
use super::job::DecodeJob;
use super::search::{Child, Live};
use super::sums::{Scored, Softmax, mend};
use super::watch::{Part, Watch};

/// Room for one request at a time.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The candidates of a request and their s(i).
    pub(super) root: Scored,
    /// s_t of a path's candidates.
    pub(super) refined: Vec<f32>,
    /// A product with every token.
    pub(super) table: Vec<f32>,
    /// exp of scores.
    pub(super) weights: Vec<f32>,
    pub(super) marginals: Marginals,
    pub(super) children: Vec<Child>,
    /// CORP's, of the live paths, and the places of those that go on.
    pub(super) verdicts: Vec<Verdict>,
    pub(super) kept: Vec<usize>,
    pub(super) greatest: Greatest,
    /// Scores that are surely reached, `[items]`.
    pub(super) floors: Vec<f32>,
    /// Scores of answers.
    pub(super) scores: Vec<f32>,
    /// Paths and candidates of a step that is over, for their memory.
    pub(super) live: Vec<Live>,
    pub(super) lone: Vec<Answer>,
    pub(super) held: Scored,
    pub(super) watch: Watch,
}

impl Scratch {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, ..Self::default() }
    }

    /// Lists the job's candidates with their s(i), the bias in it. `scores` holds s of every item of the index, and is
    /// mended and biased in its place. Answers how many scores were no finite numbers.
    pub(super) fn open(&mut self, scores: &mut [f32], index: &Index, job: &DecodeJob<'_>) -> u32 {
        self.watch.turns_to(Part::Scorer);
        let non_finite = mend(scores);
        if let Some(bias) = job.bias {
            bias.add_to(index, scores);
        }
        self.watch.turns_to(Part::Index);
        self.root.clear();
        job.root.list_into(&mut self.root.numbers);
        if self.root.numbers.len() == scores.len() {
            self.root.scores.extend_from_slice(scores);
        } else {
            self.root.scores.extend(self.root.numbers.iter().map(|&number| scores[number as usize]));
        }
        self.watch.turns_to(Part::Marginals);
        non_finite
    }

    /// Leaves the `most` candidates that the scorer likes best. Answers whether there were more.
    pub(super) fn shorten(&mut self, most: usize) -> bool {
        let Scored { numbers, scores } = &mut self.root;
        let Some(least) = self.greatest.kth(scores, most).filter(|_| most < scores.len()) else {
            return false;
        };
        // Of those that are exactly as good as the last one, the lowest numbers.
        let mut ties = most - scores.iter().filter(|score| **score > least).count();
        let mut kept = 0;
        for at in 0..scores.len() {
            let score = scores[at];
            if score > least || (score == least && ties > 0) {
                ties -= usize::from(score == least);
                (numbers[kept], scores[kept]) = (numbers[at], score);
                kept += 1;
            }
        }
        numbers.truncate(kept);
        scores.truncate(kept);
        true
    }

    /// The `count` candidates that the scorer ranks first, lowest number first.
    pub(super) fn best(&mut self, count: usize, index: &Index) -> Vec<ItemNumber> {
        let softmax = Softmax::over(&self.root.scores, &mut self.weights);
        let best = best(count, &self.root.numbers, &self.root.scores, index, &softmax);
        let mut numbers: Vec<ItemNumber> = best.into_iter().map(|standing| standing.item).collect();
        numbers.sort_unstable();
        numbers
    }
}
