//! Asks a ranker about every trial, a batch at a time, and counts the places of the targets.

use std::collections::HashSet;

use thiserror::Error;

use super::metrics::{CUTOFFS, Tally};
use super::report::Scores;
use super::trial::{Question, Trial};
use crate::domain::ItemNumber;

const BATCH: usize = 256;

/// What went wrong inside a ranker.
pub type RankError = Box<dyn std::error::Error + Send + Sync>;

/// Anything that can name the items a user is likely to take next.
pub trait Ranker {
    /// Its name in reports.
    fn name(&self) -> &str;

    /// For each question, in the same order, at most `k` items, best first: none twice, none of the excluded ones.
    fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError>;

    /// Whether excluding items gives the same list as naming more and then striking those items out.
    ///
    /// True of anything that scores every item. A search that gives up on some of them is another matter: what it is
    /// not allowed to name leaves it room to find others, so it is asked twice.
    fn excluding_is_striking_out(&self) -> bool;
}

/// Why an evaluation gave no numbers.
#[derive(Debug, Error)]
pub enum EvaluationError {
    /// The ranker failed.
    #[error("{ranker} failed: {source}")]
    Ranker {
        /// Its name.
        ranker: String,
        /// Why.
        source: RankError,
    },
    /// The ranker gave an answer that is none, which would make its numbers meaningless.
    #[error("{ranker} answered wrongly for user {user}: {problem}")]
    Answer {
        /// Its name.
        ranker: String,
        /// The user, by dense number.
        user: u32,
        /// What is wrong.
        problem: String,
    },
    /// There is no user with enough events.
    #[error("no user has a target: leave-one-out wants at least three events of a user")]
    NoTrials,
}

/// Ranks all `items` for every trial, with seen items allowed and with them filtered.
///
/// When filtered, a target that the user had seen before cannot be named and counts as missed. `progress` is told how
/// many trials are done, after each batch.
pub fn evaluate(
    ranker: &mut dyn Ranker,
    trials: &[Trial],
    items: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Scores, EvaluationError> {
    Ok(evaluate_with_places(ranker, trials, items, progress)?.scores)
}

/// A ranker's means, and where each trial's target stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// As [`evaluate`] gives them.
    pub scores: Scores,
    /// For each trial the target's place, from 0, among the items the user had not seen; none when it is not in the
    /// list, which is as long as the longest cutoff.
    pub places: Vec<Option<usize>>,
}

/// [`evaluate`], and the places that the filtered means were made of.
pub fn evaluate_with_places(
    ranker: &mut dyn Ranker,
    trials: &[Trial],
    items: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Placed, EvaluationError> {
    if trials.is_empty() {
        return Err(EvaluationError::NoTrials);
    }
    let mut all = Tally::default();
    let mut filtered = Tally::default();
    let mut places = Vec::with_capacity(trials.len());
    for batch in trials.chunks(BATCH) {
        let lists = Lists::ask(ranker, batch, items)?;
        for (trial, (open, unseen)) in batch.iter().zip(lists.all.iter().zip(&lists.filtered)) {
            all.add(open.iter().position(|&item| item == trial.target));
            let place = unseen.iter().position(|&item| item == trial.target);
            filtered.add(place);
            places.push(place);
        }
        progress(all.users());
    }
    Ok(Placed { scores: Scores { filtered: filtered.mean(), all: all.mean() }, places })
}

/// A ranker's lists for one batch, as long as the longest cutoff.
struct Lists {
    all: Vec<Vec<ItemNumber>>,
    filtered: Vec<Vec<ItemNumber>>,
}

impl Lists {
    fn ask(ranker: &mut dyn Ranker, batch: &[Trial], items: usize) -> Result<Self, EvaluationError> {
        let longest = CUTOFFS[CUTOFFS.len() - 1];
        if !ranker.excluding_is_striking_out() {
            let all =
                ask(ranker, batch, items, |trial| Question { history: &trial.history, k: longest, exclude: &[] })?;
            let filtered = ask(ranker, batch, items, |trial| Question {
                history: &trial.history,
                k: longest,
                exclude: &trial.seen,
            })?;
            return Ok(Self { all, filtered });
        }
        let long = ask(ranker, batch, items, |trial| Question {
            history: &trial.history,
            k: longest + trial.seen.len(),
            exclude: &[],
        })?;
        let unseen = batch.iter().zip(&long).map(|(trial, list)| {
            list.iter().copied().filter(|item| trial.seen.binary_search(item).is_err()).take(longest).collect()
        });
        Ok(Self {
            filtered: unseen.collect(),
            all: long.iter().map(|list| list[..list.len().min(longest)].to_vec()).collect(),
        })
    }
}

fn ask<'a>(
    ranker: &mut dyn Ranker,
    batch: &'a [Trial],
    items: usize,
    question: impl Fn(&'a Trial) -> Question<'a>,
) -> Result<Vec<Vec<ItemNumber>>, EvaluationError> {
    let questions: Vec<Question<'a>> = batch
        .iter()
        .map(|trial| {
            let question = question(trial);
            Question { k: question.k.min(items - question.exclude.len().min(items)), ..question }
        })
        .collect();
    let lists = match ranker.rank(&questions) {
        Ok(lists) => lists,
        Err(source) => return Err(EvaluationError::Ranker { ranker: ranker.name().to_owned(), source }),
    };
    let wrong =
        |trial: &Trial, problem| EvaluationError::Answer { ranker: ranker.name().into(), user: trial.user, problem };
    if lists.len() != batch.len() {
        return Err(wrong(&batch[0], format!("{} lists for {} questions", lists.len(), batch.len())));
    }
    for ((trial, question), list) in batch.iter().zip(&questions).zip(&lists) {
        check(question, list, items).map_err(|problem| wrong(trial, problem))?;
    }
    Ok(lists)
}

fn check(question: &Question<'_>, list: &[ItemNumber], items: usize) -> Result<(), String> {
    if list.len() > question.k {
        return Err(format!("{} items, asked for {}", list.len(), question.k));
    }
    let mut named = HashSet::with_capacity(list.len());
    for &item in list {
        if item as usize >= items {
            return Err(format!("item {item} of {items}"));
        }
        if !question.allows(item) {
            return Err(format!("item {item}, which was excluded"));
        }
        if !named.insert(item) {
            return Err(format!("item {item} twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventKind, HistoryEntry};

    /// Ranks items by number, after what the history's last event asks for.
    struct Fixed {
        list: Vec<ItemNumber>,
        strikes_out: bool,
        calls: usize,
    }

    impl Ranker for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }

        fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError> {
            self.calls += 1;
            let lists = questions.iter().map(|question| {
                self.list.iter().copied().filter(|&item| question.allows(item)).take(question.k).collect()
            });
            Ok(lists.collect())
        }

        fn excluding_is_striking_out(&self) -> bool {
            self.strikes_out
        }
    }

    fn trial(history: &[ItemNumber], target: ItemNumber) -> Trial {
        let mut seen = history.to_vec();
        seen.sort_unstable();
        seen.dedup();
        let history = history.iter().map(|&item| HistoryEntry { item, kind: EventKind::View, time: 0 }).collect();
        Trial { user: 7, history, seen, target }
    }

    #[test]
    fn seen_items_move_the_target_up_when_filtered() {
        let trials = [trial(&[0, 1, 2, 3, 4], 5), trial(&[8], 40)];
        let mut ranker = Fixed { list: (0..50).collect(), strikes_out: true, calls: 0 };
        let scores = evaluate(&mut ranker, &trials, 50, &mut |_| ()).unwrap();
        assert_eq!((scores.all.recall_at_5, scores.all.recall_at_10), (0.0, 0.5));
        assert_eq!((scores.filtered.recall_at_5, scores.filtered.ndcg_at_5), (0.5, 0.5));
    }

    #[test]
    fn asking_once_equals_asking_twice_where_excluding_is_striking_out() {
        let trials: Vec<Trial> = (0..300).map(|at| trial(&[at % 7, at % 11, 3], at % 50)).collect();
        let list: Vec<ItemNumber> = (0..50).map(|item| item * 7 % 50).collect();
        let mut once = Fixed { list: list.clone(), strikes_out: true, calls: 0 };
        let mut twice = Fixed { list, strikes_out: false, calls: 0 };
        let mut done = Vec::new();
        let scores = evaluate(&mut once, &trials, 50, &mut |users| done.push(users)).unwrap();
        assert_eq!(scores, evaluate(&mut twice, &trials, 50, &mut |_| ()).unwrap());
        assert_eq!((once.calls, twice.calls), (2, 4));
        assert_eq!(done, [256, 300]);
    }

    #[test]
    fn the_places_are_those_that_the_filtered_means_are_made_of() {
        let trials: Vec<Trial> = (0..300).map(|at| trial(&[at % 7, 3], at % 50)).collect();
        let mut ranker = Fixed { list: (0..50).collect(), strikes_out: true, calls: 0 };
        let placed = evaluate_with_places(&mut ranker, &trials, 50, &mut |_| ()).unwrap();
        let mut tally = Tally::default();
        placed.places.iter().for_each(|&place| tally.add(place));
        assert_eq!((placed.places.len(), tally.mean()), (300, placed.scores.filtered));
        assert_eq!(placed.scores, evaluate(&mut ranker, &trials, 50, &mut |_| ()).unwrap());
        // Target 0 is of the history; before target 7 stand 1, 2, 4, 5 and 6.
        assert_eq!((placed.places[0], placed.places[7]), (None, Some(5)));
    }

    #[test]
    fn a_target_seen_before_is_missed_when_filtered() {
        let mut ranker = Fixed { list: (0..50).collect(), strikes_out: true, calls: 0 };
        let scores = evaluate(&mut ranker, &[trial(&[1, 2], 1)], 50, &mut |_| ()).unwrap();
        assert_eq!((scores.all.recall_at_5, scores.filtered.recall_at_20), (1.0, 0.0));
    }

    #[test]
    fn an_item_named_twice_or_from_nowhere_is_an_error() {
        for list in [vec![1, 2, 1], vec![60]] {
            let mut ranker = Fixed { list, strikes_out: true, calls: 0 };
            let error = evaluate(&mut ranker, &[trial(&[1], 2)], 50, &mut |_| ()).unwrap_err();
            assert!(matches!(error, EvaluationError::Answer { user: 7, .. }), "{error}");
        }
        let mut ranker = Fixed { list: vec![], strikes_out: true, calls: 0 };
        assert!(matches!(evaluate(&mut ranker, &[], 50, &mut |_| ()), Err(EvaluationError::NoTrials)));
    }
}
