//! Where a ranker is good and where not: the trials by how popular the target is and how long the history.

use serde::{Deserialize, Serialize};

use super::metrics::Tally;
use super::trial::Trial;
use crate::domain::ItemNumber;

/// Tenths of the items.
const DECILES: usize = 10;

/// Shortest and longest history of each bin, in events; the last has no end.
const HISTORY_BINS: [(u32, Option<u32>); 5] = [(1, Some(4)), (5, Some(6)), (7, Some(10)), (11, Some(20)), (21, None)];

/// Means over the trials of a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The kind: a decile's number, `untrained`, or a range of history lengths.
    pub name: String,
    /// The fewest events of the kind: of its items in training, or of the history. None for a kind without items.
    pub least: Option<u32>,
    /// The most events; none where there is no bound.
    pub most: Option<u32>,
    /// Items of the kind, where the kind is one of items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
    /// Trials of the kind.
    pub trials: usize,
    /// Share of their targets among the first ten.
    pub recall_at_10: f64,
    /// NDCG of the first ten.
    pub ndcg_at_10: f64,
}

/// The trials, cut two ways. Each way, every trial is in one slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slices {
    /// By the target's tenth of the trained items, the rarest first, then targets that training never met.
    pub popularity: Vec<Slice>,
    /// By the number of events that the ranker was given.
    pub history: Vec<Slice>,
}

impl Slices {
    /// Cuts `trials`, whose targets stand at `places` (from 0; none when not in the list). `counts` are the training
    /// events of every item.
    ///
    /// The tenths are of items, not of events: items with training events, the fewest first and ties by number, are
    /// cut into ten runs whose lengths differ by one at most.
    pub fn of(trials: &[Trial], places: &[Option<usize>], counts: &[u32]) -> Self {
        let deciles = deciles(counts);
        let mut by_popularity = [Tally::default(); DECILES + 1];
        let mut by_history = [Tally::default(); HISTORY_BINS.len()];
        for (trial, &place) in trials.iter().zip(places) {
            by_popularity[deciles[trial.target as usize].unwrap_or(DECILES)].add(place);
            by_history[history_bin(trial.history.len())].add(place);
        }
        let popularity = by_popularity.iter().enumerate().map(|(at, tally)| {
            let members = || (0..counts.len()).filter(|&item| deciles[item].unwrap_or(DECILES) == at);
            Slice {
                least: members().map(|item| counts[item]).min(),
                most: members().map(|item| counts[item]).max(),
                items: Some(members().count()),
                ..slice(if at == DECILES { "untrained".to_owned() } else { (at + 1).to_string() }, tally)
            }
        });
        let history = HISTORY_BINS.iter().zip(&by_history).map(|(&(least, most), tally)| {
            let name = most.map_or_else(|| format!("{least}+"), |most| format!("{least}-{most}"));
            Slice { least: Some(least), most, ..slice(name, tally) }
        });
        Self { popularity: popularity.collect(), history: history.collect() }
    }
}

/// Events of every item in `sequences`.
pub fn event_counts(sequences: &[Vec<ItemNumber>], items: usize) -> Vec<u32> {
    let mut counts = vec![0; items];
    for &item in sequences.iter().flatten() {
        counts[item as usize] += 1;
    }
    counts
}

/// For every item its tenth by training events; none for items without any.
fn deciles(counts: &[u32]) -> Vec<Option<usize>> {
    let mut trained: Vec<usize> = (0..counts.len()).filter(|&item| counts[item] > 0).collect();
    trained.sort_by_key(|&item| (counts[item], item));
    let mut deciles = vec![None; counts.len()];
    for (place, &item) in trained.iter().enumerate() {
        deciles[item] = Some(place * DECILES / trained.len());
    }
    deciles
}

fn history_bin(events: usize) -> usize {
    let inside = |&(_, most): &(u32, Option<u32>)| most.is_none_or(|most| events <= most as usize);
    HISTORY_BINS.iter().position(inside).unwrap_or(HISTORY_BINS.len() - 1)
}

fn slice(name: String, tally: &Tally) -> Slice {
    let metrics = tally.mean();
    Slice {
        name,
        least: None,
        most: None,
        items: None,
        trials: tally.users(),
        recall_at_10: metrics.recall_at_10,
        ndcg_at_10: metrics.ndcg_at_10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HistoryEntry;

    fn trial(events: usize, target: ItemNumber) -> Trial {
        let entry = HistoryEntry { item: 0, kind: Default::default(), time: 0 };
        Trial { user: 0, history: vec![entry; events], seen: vec![0], target }
    }

    fn trials(slices: &[Slice]) -> usize {
        slices.iter().map(|slice| slice.trials).sum()
    }

    #[test]
    fn every_trial_is_in_one_slice_each_way() {
        let counts: Vec<u32> = (0..53).map(|item| item * 7 % 13).collect();
        let asked: Vec<Trial> = (0..200).map(|at| trial(1 + at % 50, (at % 53) as u32)).collect();
        let places: Vec<Option<usize>> = (0..200).map(|at| (at % 3 == 0).then_some(at % 20)).collect();
        let slices = Slices::of(&asked, &places, &counts);
        assert_eq!((trials(&slices.popularity), trials(&slices.history)), (200, 200));
        let mut tally = Tally::default();
        places.iter().for_each(|&place| tally.add(place));
        for cut in [&slices.popularity, &slices.history] {
            let hits: f64 = cut.iter().map(|slice| slice.recall_at_10 * slice.trials as f64).sum();
            assert!((hits / 200.0 - tally.mean().recall_at_10).abs() < 1e-12);
        }
    }

    #[test]
    fn deciles_split_the_trained_items_evenly_and_in_order() {
        let counts: Vec<u32> = (0..104).map(|item| if item < 4 { 0 } else { 1 + item / 9 }).collect();
        let slices = Slices::of(&[], &[], &counts);
        let items: Vec<usize> = slices.popularity.iter().map(|slice| slice.items.unwrap()).collect();
        assert_eq!(items, [10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 4]);
        let (trained, untrained) = slices.popularity.split_at(10);
        assert!(trained.windows(2).all(|pair| pair[0].most <= pair[1].least));
        assert_eq!((trained[0].name.as_str(), untrained[0].name.as_str()), ("1", "untrained"));
        assert_eq!((untrained[0].least, untrained[0].most), (Some(0), Some(0)));
    }

    #[test]
    fn ties_go_by_item_number() {
        let deciles = deciles(&[5; 20]);
        assert_eq!(deciles, (0..20).map(|item| Some(item / 2)).collect::<Vec<_>>());
    }

    #[test]
    fn a_target_that_training_never_met_has_a_row_of_its_own() {
        let slices = Slices::of(&[trial(3, 2), trial(3, 0)], &[Some(0), None], &[4, 1, 0]);
        assert_eq!((slices.popularity[10].trials, slices.popularity[10].recall_at_10), (1, 1.0));
        assert_eq!(trials(&slices.popularity[..10]), 1);
    }

    #[test]
    fn histories_fall_into_the_bin_that_holds_their_length() {
        let bins = [(1, "1-4"), (4, "1-4"), (5, "5-6"), (7, "7-10"), (11, "11-20"), (20, "11-20"), (21, "21+")];
        for (events, name) in bins {
            let slices = Slices::of(&[trial(events, 0)], &[None], &[1]);
            let held: Vec<&str> =
                slices.history.iter().filter(|slice| slice.trials == 1).map(|slice| slice.name.as_str()).collect();
            assert_eq!(held, [name], "{events} events");
        }
    }

    #[test]
    fn events_are_counted_by_item() {
        assert_eq!(event_counts(&[vec![0, 2], vec![2]], 4), [1, 0, 2, 0]);
    }
}
