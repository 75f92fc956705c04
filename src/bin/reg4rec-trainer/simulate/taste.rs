//! What the simulated users truly like, before and after the shift: hidden from every model, and the law of every click.

use std::collections::{BTreeMap, HashSet};

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use reg4rec::training::dataset::DatasetItem;

/// A click on the best item of a shelf that the user is after.
const SUREST: f64 = 0.45;
/// A click on anything of a shelf that the user is not after.
const STRAY: f64 = 0.005;
/// Places on a shelf over which the appeal falls to a third.
const FALL: f64 = 5.0;
/// Share of the users' shelves that change with the shift.
const MOVED: f64 = 0.3;

/// Before or after the shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Season {
    Before = 0,
    After = 1,
}

/// Every user's shelves, and the appeal of every item, in both seasons.
#[derive(Debug)]
pub struct Taste {
    /// Items of each shelf.
    shelves: Vec<Vec<usize>>,
    shelf_of: Vec<usize>,
    /// By season, in (0, 1]: 1 for the best item of a shelf.
    appeal: [Vec<f64>; 2],
    /// By season and user: shelves with weights.
    interests: [Vec<Vec<(usize, f64)>>; 2],
}

impl Taste {
    /// Draws it. With the shift the items of every shelf are ranked anew, and some users go to other shelves.
    pub fn draw(items: &[DatasetItem], users: usize, random: &mut ChaCha8Rng) -> Self {
        let mut by_name: BTreeMap<&[String], Vec<usize>> = BTreeMap::new();
        for (at, item) in items.iter().enumerate() {
            by_name.entry(&item.item.categories).or_default().push(at);
        }
        let shelves: Vec<Vec<usize>> = by_name.into_values().collect();
        let mut shelf_of = vec![0; items.len()];
        for (shelf, members) in shelves.iter().enumerate() {
            members.iter().for_each(|&item| shelf_of[item] = shelf);
        }
        let mut ranked = || {
            let mut appeal = vec![0.0; items.len()];
            for shelf in &shelves {
                let mut order = shelf.clone();
                order.shuffle(random);
                order.iter().enumerate().for_each(|(rank, &item)| appeal[item] = (-(rank as f64) / FALL).exp());
            }
            appeal
        };
        let appeal = [ranked(), ranked()];
        let before: Vec<Vec<(usize, f64)>> = (0..users)
            .map(|_| {
                let count = random.random_range(2..=3);
                (0..count).map(|_| (random.random_range(0..shelves.len()), random.random_range(0.4..1.0))).collect()
            })
            .collect();
        let mut moved = |&(shelf, weight): &(usize, f64)| {
            (if random.random_bool(MOVED) { random.random_range(0..shelves.len()) } else { shelf }, weight)
        };
        let after = before.iter().map(|interests| interests.iter().map(&mut moved).collect()).collect();
        Self { shelves, shelf_of, appeal, interests: [before, after] }
    }

    /// How likely the user is to click the item when it is shown.
    pub fn click(&self, user: usize, item: usize, season: Season) -> f64 {
        let wanted = self.interests[season as usize][user].iter().any(|(shelf, _)| *shelf == self.shelf_of[item]);
        if wanted { SUREST * self.appeal[season as usize][item] } else { STRAY }
    }

    /// An item that the user finds without being recommended it: of a shelf by weight, by appeal, not met before.
    pub fn find(&self, user: usize, season: Season, met: &HashSet<usize>, random: &mut ChaCha8Rng) -> Option<usize> {
        let shelf = drawn(&self.interests[season as usize][user], random)?;
        let appeal = &self.appeal[season as usize];
        let fresh = self.shelves[shelf].iter().filter(|item| !met.contains(item)).map(|&item| (item, appeal[item]));
        drawn(&fresh.collect::<Vec<_>>(), random)
    }
}

/// One of the choices, by weight.
fn drawn(choices: &[(usize, f64)], random: &mut ChaCha8Rng) -> Option<usize> {
    let mut mark = random.random_range(0.0..1.0) * choices.iter().map(|(_, weight)| weight).sum::<f64>();
    for &(choice, weight) in choices {
        mark -= weight;
        if mark < 0.0 {
            return Some(choice);
        }
    }
    choices.last().map(|&(choice, _)| choice)
}
