//! What requests need for a moment; shared by the searches of a batch and from batch to batch, so that its memory is
//! found once.

use crate::catalog::Index;
use crate::domain::ItemNumber;

use super::alone::walkers;
use super::answers::{Answer, Standing};
use super::child::Child;
use super::corp::Verdict;
use super::exact::{best, best_within};
use super::expand::Marginals;
use super::greatest::{Greatest, list_from};
use super::groups::Groups;
use super::job::DecodeJob;
use super::limits::Room;
use super::search::Live;
use super::sums::{Scored, Softmax, mend};
use super::watch::{Part, Watch};

/// The score of an item that is no candidate: below every score.
pub(super) const OUT: f32 = f32::NEG_INFINITY;

/// Room for one request at a time.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The candidates of a request and their s(i).
    pub(super) root: Scored,
    /// The candidates of a request by their first token.
    pub(super) groups: Groups,
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
    /// What the scores of all items are at least, `[items]`.
    pub(super) floors: Vec<f32>,
    /// Scores of answers.
    pub(super) scores: Vec<f32>,
    /// Paths and candidates of a step that is over, for their memory.
    pub(super) live: Vec<Live>,
    pub(super) ended: Vec<Answer>,
    pub(super) held: Scored,
    pub(super) watch: Watch,
    /// Whether the request is alone in its batch.
    pub(super) lone: bool,
}

impl Scratch {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, ..Self::default() }
    }

    /// How many threads share a walk over so many numbers.
    pub(super) fn walkers(&self, numbers: usize) -> usize {
        if self.lone { walkers(numbers) } else { 1 }
    }

    /// Makes scores comparable: the bias in them, [`OUT`] for items that are no candidates. `scores` holds s of every item of
    /// the index. Answers how many were no finite numbers.
    pub(super) fn ready(&self, scores: &mut [f32], index: &Index, job: &DecodeJob<'_>) -> u32 {
        self.watch.turns_to(Part::Scorer);
        let non_finite = mend(scores);
        if let Some(bias) = job.bias {
            bias.add_to(index, scores);
        }
        self.watch.turns_to(Part::Index);
        job.root.keep_of(scores, OUT);
        non_finite
    }

    /// Lists the `most` candidates that the scorer likes best, of those it likes alike the lowest numbers. Of `scores`, that
    /// are [`ready`](Self::ready), `candidates` are no [`OUT`]. Answers whether there were more.
    pub(super) fn list(&mut self, scores: &[f32], candidates: usize, most: usize) -> bool {
        self.root.clear();
        let least = if most < candidates { self.greatest.kth(scores, most) } else { None };
        match least {
            Some(least) => {
                let Scored { numbers, scores: listed } = &mut self.root;
                list_from(scores, least, numbers, listed);
                self.root.truncate_ties(least, most);
            }
            None => self.root.extend_all(scores, |score| score > OUT),
        }
        self.watch.turns_to(Part::Marginals);
        least.is_some()
    }

    /// Lists also the `k` best candidates that there is room for, where they are not listed.
    pub(super) fn list_within(&mut self, room: &Room<'_>, k: usize, scores: &[f32], index: &Index) {
        let softmax = Softmax::of(scores, self.walkers(scores.len()));
        let standing = |at: usize, log_p: f64| Standing::new(index, at as ItemNumber, log_p);
        let best = best_within(room, k, scores, &softmax, &mut self.greatest, standing);
        let listed = &self.root.numbers;
        let mut numbers: Vec<ItemNumber> = best.iter().map(|standing| standing.item).collect();
        numbers.retain(|number| listed.binary_search(number).is_err());
        numbers.extend_from_slice(listed);
        numbers.sort_unstable();
        self.root.scores.clear();
        self.root.scores.extend(numbers.iter().map(|&number| scores[number as usize]));
        self.root.numbers = numbers;
    }

    /// The `count` listed candidates that the scorer ranks first, lowest number first; of those that there is room for, if
    /// there are limits.
    pub(super) fn best(&mut self, count: usize, index: &Index, room: Option<&Room<'_>>) -> Vec<ItemNumber> {
        let softmax = Softmax::of(&self.root.scores, 1);
        let Scored { numbers, scores } = &self.root;
        let standing = |at: usize, log_p: f64| Standing::new(index, numbers[at], log_p);
        let best = match room {
            None => best(count, scores, &softmax, &mut self.greatest, standing),
            Some(room) => best_within(room, count, scores, &softmax, &mut self.greatest, standing),
        };
        let mut numbers: Vec<ItemNumber> = best.into_iter().map(|standing| standing.item).collect();
        numbers.sort_unstable();
        numbers
    }
}
