//! Item-to-item neighbours: what those who had your items had as well (Deshpande and Karypis 2004), nearer and later
//! events counting more.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::harness::{RankError, Ranker};
use super::popular::Popular;
use super::trial::Question;
use crate::domain::ItemNumber;

/// How neighbours are found and added up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ItemKnnConfig {
    /// Neighbours kept of each item.
    pub neighbours: usize,
    /// Added to sqrt(n_a * n_b): holds back pairs that were seen together a few times only.
    pub shrinkage: f32,
    /// Weight of an event to the one after it in a history, in `(0, 1]`.
    pub decay: f32,
    /// Two events of a sequence this many places apart, or more, are not counted as together.
    pub window: usize,
    /// Two events d places apart count 1 / d to this power as together; 0 for all the same.
    pub nearness: f32,
}

/// Chosen on the validation targets of Amazon Beauty and Sports (2014, 5-core).
impl Default for ItemKnnConfig {
    fn default() -> Self {
        Self { neighbours: 300, shrinkage: 60.0, decay: 0.7, window: 50, nearness: 0.5 }
    }
}

/// The neighbours of every item.
#[derive(Debug, Clone)]
pub struct ItemKnn {
    config: ItemKnnConfig,
    neighbours: Vec<Vec<Neighbour>>,
    popular: Popular,
}

#[derive(Debug, Clone, Copy)]
struct Neighbour {
    item: ItemNumber,
    similarity: f32,
}

impl ItemKnn {
    /// Learns from `sequences` (training parts only) over `items` items.
    ///
    /// sim(a, b) = (sum over pairs of events of a and b in one sequence, d places apart, of d^-nearness)
    /// / (sqrt(n_a n_b) + shrinkage), with n the number of an item's events.
    pub fn fit(sequences: &[Vec<ItemNumber>], items: usize, config: ItemKnnConfig) -> Self {
        let mut places: Vec<Vec<(u32, u32)>> = vec![Vec::new(); items];
        for (user, sequence) in sequences.iter().enumerate() {
            for (place, &item) in sequence.iter().enumerate() {
                places[item as usize].push((user as u32, place as u32));
            }
        }
        let weights: Vec<f32> =
            (0..config.window).map(|distance| (distance.max(1) as f32).powf(-config.nearness)).collect();
        let neighbours = (0..items)
            .into_par_iter()
            .map_init(
                || Sums::new(items),
                |together, item| {
                    for &(user, place) in &places[item] {
                        let sequence = &sequences[user as usize];
                        let place = place as usize;
                        let near = place.saturating_sub(config.window - 1)..sequence.len().min(place + config.window);
                        for other in near {
                            if sequence[other] as usize != item {
                                together.add(sequence[other], weights[other.abs_diff(place)]);
                            }
                        }
                    }
                    let own = places[item].len() as f32;
                    let pairs = together.drain().map(|(other, sum)| {
                        let norm = (own * places[other as usize].len() as f32).sqrt() + config.shrinkage;
                        (other, sum / norm)
                    });
                    let best = best(pairs.collect(), config.neighbours);
                    best.into_iter().map(|(item, similarity)| Neighbour { item, similarity }).collect()
                },
            )
            .collect();
        Self { config, neighbours, popular: Popular::fit(sequences, items) }
    }

    /// score(i) = sum over the history, newest first, of decay^age * sim(item, i); what has no score follows by
    /// popularity.
    fn answer(&self, question: &Question<'_>, scores: &mut Sums) -> Vec<ItemNumber> {
        let mut weight = 1.0;
        for entry in question.history.iter().rev() {
            for neighbour in &self.neighbours[entry.item as usize] {
                scores.add(neighbour.item, weight * neighbour.similarity);
            }
            weight *= self.config.decay;
        }
        let scored = scores.drain().filter(|&(item, _)| question.allows(item)).collect();
        let mut list: Vec<ItemNumber> = best(scored, question.k).into_iter().map(|(item, _)| item).collect();
        if list.len() < question.k {
            let named: std::collections::HashSet<ItemNumber> = list.iter().copied().collect();
            let rest = self.popular.order().iter().copied();
            let rest = rest.filter(|item| !named.contains(item) && question.allows(*item));
            list.extend(rest.take(question.k - named.len()));
        }
        list
    }
}

impl Ranker for ItemKnn {
    fn name(&self) -> &str {
        "item-knn"
    }

    fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError> {
        let items = self.neighbours.len();
        let lists =
            questions.par_iter().map_init(|| Sums::new(items), |scores, question| self.answer(question, scores));
        Ok(lists.collect())
    }

    fn excluding_is_striking_out(&self) -> bool {
        true
    }
}

/// The `k` largest, largest first, ties to the lower number.
fn best(mut scored: Vec<(ItemNumber, f32)>, k: usize) -> Vec<(ItemNumber, f32)> {
    let order =
        |one: &(ItemNumber, f32), other: &(ItemNumber, f32)| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0));
    if scored.len() > k && k > 0 {
        scored.select_nth_unstable_by(k - 1, order);
    }
    scored.truncate(k);
    scored.sort_unstable_by(order);
    scored
}

/// Sums by item, cleared at the cost of what was touched.
struct Sums {
    sums: Vec<f32>,
    touched: Vec<ItemNumber>,
}

impl Sums {
    fn new(items: usize) -> Self {
        Self { sums: vec![0.0; items], touched: Vec::new() }
    }

    /// `amount` is above zero.
    fn add(&mut self, item: ItemNumber, amount: f32) {
        let sum = &mut self.sums[item as usize];
        if *sum == 0.0 {
            self.touched.push(item);
        }
        *sum += amount;
    }

    fn drain(&mut self) -> impl Iterator<Item = (ItemNumber, f32)> + '_ {
        let sums = &mut self.sums;
        self.touched.drain(..).map(|item| (item, std::mem::take(&mut sums[item as usize])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventKind, History, HistoryEntry};

    fn history(items: &[ItemNumber]) -> History {
        items.iter().map(|&item| HistoryEntry { item, kind: EventKind::View, time: 0 }).collect()
    }

    #[test]
    fn items_bought_together_come_before_popular_ones() {
        let mut sequences = vec![vec![0, 1]; 3];
        sequences.extend(vec![vec![4]; 9]);
        sequences.push(vec![2, 3]);
        let mut knn = ItemKnn::fit(&sequences, 6, ItemKnnConfig::default());
        let (one, two) = (history(&[0]), history(&[0, 2]));
        let questions =
            [Question { history: &one, k: 3, exclude: &[] }, Question { history: &two, k: 6, exclude: &[0, 2] }];
        let lists = knn.rank(&questions).unwrap();
        assert_eq!(lists[0], [1, 4, 0]);
        assert_eq!(lists[1].len(), 4);
        assert_eq!(lists[1][2], 4);
    }

    #[test]
    fn a_batch_answers_as_its_questions_one_by_one() {
        let sequences: Vec<Vec<ItemNumber>> =
            (0..60_u32).map(|user| (0..5).map(|place| (user * 7 + place * place * 3) % 40).collect()).collect();
        let mut knn = ItemKnn::fit(&sequences, 40, ItemKnnConfig::default());
        let histories: Vec<History> = (0..20).map(|at| history(&[at, at + 3, at + 9])).collect();
        let questions: Vec<Question<'_>> =
            histories.iter().map(|history| Question { history, k: 25, exclude: &[1, 5] }).collect();
        let together = knn.rank(&questions).unwrap();
        for (question, list) in questions.iter().zip(&together) {
            assert_eq!(&knn.rank(std::slice::from_ref(question)).unwrap()[0], list);
            assert_eq!(list.len(), 25);
        }
    }
}
