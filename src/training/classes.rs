//! The classes of the category head: for every item, its finest category that enough items share.

use std::collections::HashMap;

use crate::domain::Item;

/// Fewest training items of a class that is not the coarsest.
const ENOUGH: usize = 20;

/// The class of items without categories, and of those whose categories are all too rare.
const NONE: &str = "uncategorised";

/// Class names, and the class of every item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// `coarse > … > fine`, by class number.
    pub names: Vec<String>,
    /// For each item, its class.
    pub of_item: Vec<u32>,
}

impl Classes {
    /// Gives every item the finest level of its category path that at least twenty training items share, else that
    /// level's parent. `trained` says which items occur in the training part.
    pub fn new(items: &[&Item], trained: &[bool]) -> Self {
        let mut counts: HashMap<&[String], usize> = HashMap::new();
        for (item, _) in items.iter().zip(trained).filter(|(_, trained)| **trained) {
            for level in 1..=item.categories.len() {
                *counts.entry(&item.categories[..level]).or_default() += 1;
            }
        }
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut names = Vec::new();
        let of_item = items
            .iter()
            .map(|item| {
                let path = (1..=item.categories.len())
                    .rev()
                    .map(|level| &item.categories[..level])
                    .find(|path| counts.get(path).is_some_and(|&count| count >= ENOUGH));
                let name = path.map_or_else(|| NONE.to_owned(), |path| path.join(" > "));
                *numbers.entry(name).or_insert_with_key(|name| {
                    names.push(name.clone());
                    names.len() as u32 - 1
                })
            })
            .collect();
        Self { names, of_item }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(categories: &[&str]) -> Item {
        Item {
            id: "x".into(),
            title: None,
            brand: None,
            categories: categories.iter().map(|&name| name.into()).collect(),
            price: None,
            eligible: true,
        }
    }

    #[test]
    fn an_item_takes_its_finest_shared_category() {
        let mut items = vec![item(&["shop", "hair", "combs"]); 20];
        items.extend(vec![item(&["shop", "hair", "wigs"]); 3]);
        items.push(item(&[]));
        let classes = Classes::new(&items.iter().collect::<Vec<_>>(), &vec![true; items.len()]);
        assert_eq!(classes.names, ["shop > hair > combs", "shop > hair", NONE]);
        assert_eq!((classes.of_item[0], classes.of_item[20], classes.of_item[23]), (0, 1, 2));
    }

    #[test]
    fn items_outside_training_do_not_make_a_class() {
        let items = vec![item(&["shop"]); 20];
        let mut trained = vec![true; 20];
        trained[0] = false;
        assert_eq!(Classes::new(&items.iter().collect::<Vec<_>>(), &trained).names, [NONE]);
    }
}
