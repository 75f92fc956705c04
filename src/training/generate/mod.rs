//! A synthetic shop: items with titles, brands, categories and prices, and users with intents that drift.
//!
//! It stands in for foreign data in the demo and the tests. What a user does next can be learnt both from what things
//! are (shelf, style, price) and from what others had together (companions). Equal settings give equal data.

mod catalogue;
mod shoppers;
mod words;

use std::path::PathBuf;

use clap::Args;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use thiserror::Error;

use crate::training::dataset::{DataError, Dataset, Summary};

/// The smallest shop: two items a shelf.
pub const FEWEST_ITEMS: usize = 2 * words::SHELVES.len();
/// The largest shop.
pub const MOST_ITEMS: usize = 10_000_000;

/// What to generate, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct GenerateArgs {
    /// Directory to write interactions.parquet and items.parquet into.
    #[arg(long)]
    pub out: PathBuf,
    /// Number of users.
    #[arg(long, default_value_t = 2_000)]
    pub users: usize,
    /// Number of items.
    #[arg(long, default_value_t = 1_200)]
    pub items: usize,
    /// Equal seeds give equal shops.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

/// Why no shop was generated.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// A size that cannot be.
    #[error("--{field} {value}: expected {expected}")]
    Size {
        /// The flag.
        field: &'static str,
        /// What it held.
        value: usize,
        /// What it may hold.
        expected: String,
    },
    /// The data set could not be written.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Generates a shop and writes it; says what is in it.
pub fn run(args: &GenerateArgs) -> Result<Summary, GenerateError> {
    let data = generate(args.users, args.items, args.seed)?;
    data.write(&args.out)?;
    Ok(data.summary())
}

/// A shop of `users` users and `items` items.
pub fn generate(users: usize, items: usize, seed: u64) -> Result<Dataset, GenerateError> {
    if users == 0 || users > u32::MAX as usize {
        let expected = format!("1 to {}", u32::MAX);
        return Err(GenerateError::Size { field: "users", value: users, expected });
    }
    if !(FEWEST_ITEMS..=MOST_ITEMS).contains(&items) {
        let expected = format!("{FEWEST_ITEMS} to {MOST_ITEMS}");
        return Err(GenerateError::Size { field: "items", value: items, expected });
    }
    let shop = catalogue::Catalogue::new(items, &mut ChaCha8Rng::seed_from_u64(seed));
    let sequences = (0..users as u32).into_par_iter().map(|user| shoppers::simulate(user, &shop, seed)).collect();
    let user_ids = (1..=users).map(|user| user.to_string()).collect();
    Ok(Dataset::new(user_ids, shop.items, sequences)?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::EventKind;
    use crate::evaluation::baselines;
    use crate::training::dataset::{Part, Split};

    #[test]
    fn equal_settings_give_equal_shops_and_seeds_differ() {
        let shop = generate(60, 200, 3).unwrap();
        assert_eq!(shop, generate(60, 200, 3).unwrap());
        assert_ne!(shop.fingerprint, generate(60, 200, 4).unwrap().fingerprint);
        let larger = generate(90, 200, 3).unwrap();
        assert_eq!(shop.sequences, larger.sequences[..60], "a user does not depend on how many others there are");
    }

    #[test]
    fn a_shop_looks_like_one() {
        let shop = generate(400, 600, 1).unwrap();
        let titles: HashSet<&str> = shop.items.iter().filter_map(|item| item.item.title.as_deref()).collect();
        assert_eq!(titles.len(), 600);
        assert!(shop.items.iter().all(|item| item.item.categories.len() == 3 && item.text.is_some()));
        assert!(shop.items.iter().filter(|item| item.item.price.is_none()).count() < 40);
        let kinds: HashSet<EventKind> = shop.sequences.iter().flatten().map(|event| event.kind).collect();
        assert_eq!(kinds.len(), 6);
        for sequence in &shop.sequences {
            assert!((5..=60).contains(&sequence.len()));
            assert!(sequence.is_sorted_by_key(|event| event.time));
            for event in sequence {
                assert_eq!(event.value.is_some(), event.kind == EventKind::Rating);
            }
        }
        assert!(shop.has_times);
    }

    #[test]
    fn what_comes_next_can_be_learnt_and_is_not_just_popularity() {
        let shop = generate(1_500, 600, 2).unwrap();
        let split = Split::new(&shop);
        let found = baselines(&split.train_items(), &split.trials(Part::Test), shop.items.len()).unwrap();
        let (popular, knn) = (found["popular"].filtered.recall_at_10, found["item-knn"].filtered.recall_at_10);
        assert!(knn > 3.0 * popular && knn > 0.15, "popular {popular:.3}, item-knn {knn:.3}");
    }

    #[test]
    fn a_shop_too_small_for_its_shelves_is_refused() {
        let message = generate(10, 3, 1).unwrap_err().to_string();
        assert_eq!(message, "--items 3: expected 72 to 10000000");
        assert!(generate(0, 100, 1).unwrap_err().to_string().starts_with("--users 0"));
    }
}
