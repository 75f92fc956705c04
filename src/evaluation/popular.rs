//! The same list for everybody: what most events of the training part were about.

use super::harness::{RankError, Ranker};
use super::trial::Question;
use crate::domain::ItemNumber;

/// Items by the number of their training events.
#[derive(Debug, Clone)]
pub struct Popular {
    order: Vec<ItemNumber>,
}

impl Popular {
    /// Counts the events of `sequences` (training parts only) over `items` items; ties go to the lower number.
    pub fn fit(sequences: &[Vec<ItemNumber>], items: usize) -> Self {
        let mut events = vec![0_usize; items];
        for &item in sequences.iter().flatten() {
            events[item as usize] += 1;
        }
        let mut order: Vec<ItemNumber> = (0..items as ItemNumber).collect();
        order.sort_by_key(|&item| std::cmp::Reverse(events[item as usize]));
        Self { order }
    }

    /// Every item, most popular first.
    pub fn order(&self) -> &[ItemNumber] {
        &self.order
    }
}

impl Ranker for Popular {
    fn name(&self) -> &str {
        "popular"
    }

    fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError> {
        let lists = questions.iter().map(|question| {
            self.order.iter().copied().filter(|&item| question.allows(item)).take(question.k).collect()
        });
        Ok(lists.collect())
    }

    fn excluding_is_striking_out(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_comes_first_and_ties_go_to_the_lower_number() {
        let mut popular = Popular::fit(&[vec![3, 1], vec![3, 2], vec![2, 3]], 5);
        assert_eq!(popular.order(), [3, 2, 1, 0, 4]);
        let lists = popular.rank(&[Question { history: &Vec::new(), k: 2, exclude: &[3] }]).unwrap();
        assert_eq!(lists, [[2, 1]]);
    }
}
