//! What is like what you had: items by the likeness of their content to that of a history's, later events counting more.
//! It knows nothing of who took what, so an item that nobody has taken yet stands as well as any.

use rayon::prelude::*;

use super::harness::{RankError, Ranker};
use super::trial::Question;
use crate::domain::ItemNumber;

/// Ranks by sum over the history of decay^age * cos(content, content).
#[derive(Debug, Clone)]
pub struct ContentKnn {
    /// Rows of length one, or zero where an item has no content, `[items, width]`.
    rows: Vec<f32>,
    width: usize,
    decay: f32,
}

impl ContentKnn {
    /// A ranker over content rows `[items, width]`; `decay`, in `(0, 1]`, is the weight of an event to the one after it.
    pub fn new(mut rows: Vec<f32>, width: usize, decay: f32) -> Self {
        for row in rows.chunks_exact_mut(width) {
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|value| *value /= length);
            }
        }
        Self { rows, width, decay }
    }

    fn answer(&self, question: &Question<'_>) -> Vec<ItemNumber> {
        let mut profile = vec![0.0f32; self.width];
        let mut weight = 1.0f32;
        for event in question.history.iter().rev() {
            let row = &self.rows[event.item as usize * self.width..][..self.width];
            profile.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * value);
            weight *= self.decay;
        }
        let mut scored: Vec<(f32, ItemNumber)> = self
            .rows
            .chunks_exact(self.width)
            .zip(0..)
            .filter(|&(_, item)| question.allows(item))
            .map(|(row, item)| (row.iter().zip(&profile).map(|(a, b)| a * b).sum(), item))
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored.into_iter().take(question.k).map(|(_, item)| item).collect()
    }
}

impl Ranker for ContentKnn {
    fn name(&self) -> &str {
        "content-knn"
    }

    fn rank(&mut self, questions: &[Question<'_>]) -> Result<Vec<Vec<ItemNumber>>, RankError> {
        Ok(questions.par_iter().map(|question| self.answer(question)).collect())
    }

    fn excluding_is_striking_out(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventKind, History, HistoryEntry};

    #[test]
    fn items_like_the_latest_event_come_first() {
        let rows = vec![1.0, 0.0, 0.0, 2.0, 3.0, 1.0, 1.0, 3.0, 0.0, 0.0];
        let mut ranker = ContentKnn::new(rows, 2, 0.5);
        let history: History = [0, 1].map(|item| HistoryEntry { item, kind: EventKind::View, time: 0 }).into();
        let question = Question { history: &history, k: 3, exclude: &[0, 1] };
        assert_eq!(ranker.rank(&[question]).unwrap(), [[3, 2, 4]]);
    }
}
