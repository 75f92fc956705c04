//! Facts about feature rows.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::fixtures::{self, Shop};
use super::{FeatureBlock, FeatureConfig, ItemSource, Modality, TokenizerError, features};

#[test]
fn columns_are_standardised_and_the_mean_variance_is_one() {
    let shop = Shop::new(120);
    let table = features(&shop.sources(), &shop.sequences, &fixtures::config()).unwrap();
    let masks = table.width - table.blocks.len();
    let mut total = 0.0;
    for column in 0..masks {
        let values: Vec<f32> = (0..table.items()).map(|item| table.row(item)[column]).collect();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        total += values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 1e-3, "column {column}: mean {mean}");
    }
    let variance = total / masks as f32;
    assert!((variance - 1.0).abs() < 0.02, "mean variance {variance}");
}

#[test]
fn a_missing_modality_is_zeros_and_mask_zero() {
    let mut shop = Shop::new(60);
    shop.brands[7] = None;
    shop.prices[7] = None;
    let table = features(&shop.sources(), &shop.sequences, &fixtures::config()).unwrap();
    let masks = table.width - table.blocks.len();
    for (number, block) in table.blocks.iter().enumerate() {
        let lacks = matches!(block.modality, Modality::Brand | Modality::Price);
        let row = table.row(7);
        assert_eq!(row[masks + number], if lacks { 0.0 } else { 1.0 });
        assert_eq!(row[block.start..block.start + block.width].iter().all(|&value| value == 0.0), lacks);
    }
}

#[test]
fn a_modality_that_no_item_has_or_that_is_off_is_left_out() {
    let mut shop = Shop::new(40);
    shop.prices.fill(None);
    let mut config = fixtures::config();
    config.brand.enabled = false;
    let table = features(&shop.sources(), &[], &config).unwrap();
    let found: Vec<Modality> = table.blocks.iter().map(|block| block.modality).collect();
    assert_eq!(found, [Modality::Content, Modality::Category]);
    assert!(matches!(features(&[ItemSource::default(); 3], &[], &config), Err(TokenizerError::NoFeatures(_))));
}

#[test]
fn each_modality_can_be_switched_off_alone_and_takes_its_columns_and_its_mask_with_it() {
    let shop = Shop::new(40);
    let whole = features(&shop.sources(), &shop.sequences, &fixtures::config()).unwrap();
    assert_eq!(whole.blocks.len(), 5);
    for off in &whole.blocks {
        let mut config = fixtures::config();
        let block = match off.modality {
            Modality::Content => &mut config.content,
            Modality::Behaviour => &mut config.behaviour,
            Modality::Category => &mut config.category,
            Modality::Brand => &mut config.brand,
            Modality::Price => &mut config.price,
        };
        block.enabled = false;
        let table = features(&shop.sources(), &shop.sequences, &config).unwrap();
        assert_eq!(table.width, whole.width - off.width - 1, "{:?}", off.modality);
        let layout = |blocks: &[FeatureBlock]| -> Vec<(Modality, usize)> {
            let kept = blocks.iter().filter(|block| block.modality != off.modality);
            kept.map(|block| (block.modality, block.width)).collect()
        };
        assert_eq!(table.blocks.len(), 4);
        assert_eq!(layout(&table.blocks), layout(&whole.blocks));
    }
}

#[test]
fn events_that_are_not_passed_change_nothing() {
    let mut shop = Shop::new(80);
    let whole = shop.sequences.clone();
    let train = |sequences: &[Vec<u32>]| -> Vec<Vec<u32>> {
        sequences.iter().map(|events| events[..events.len() - 2].to_vec()).collect()
    };
    let before = features(&shop.sources(), &train(&whole), &fixtures::config()).unwrap();
    for events in &mut shop.sequences {
        let length = events.len();
        events[length - 2] = (events[length - 2] + 13) % 80;
        events[length - 1] = (events[length - 1] + 29) % 80;
    }
    assert_ne!(whole, shop.sequences);
    let after = features(&shop.sources(), &train(&shop.sequences), &fixtures::config()).unwrap();
    assert_eq!(before, after);
    let leaked = features(&shop.sources(), &whole, &fixtures::config()).unwrap();
    assert_ne!(before.rows, leaked.rows, "the sequences do enter the rows");
}

#[test]
fn later_items_get_the_rows_of_fitted_ones_but_for_behaviour() {
    for with_embeddings in [false, true] {
        let mut shop = Shop::new(70);
        if !with_embeddings {
            shop.embeddings.fill(None);
        }
        let table = features(&shop.sources(), &shop.sequences, &fixtures::config()).unwrap();
        let later = table.model.rows(&shop.sources()[..20]).unwrap();
        assert_eq!(later.width, table.width);
        for block in &table.blocks {
            for item in 0..20 {
                let columns = block.start..block.start + block.width;
                let (old, new) = (&table.row(item)[columns.clone()], &later.row(item)[columns]);
                if block.modality == Modality::Behaviour {
                    assert!(new.iter().all(|&value| value == 0.0));
                } else {
                    assert!(old.iter().zip(new).all(|(a, b)| (a - b).abs() < 1e-4), "{:?}", block.modality);
                }
            }
        }
    }
}

#[test]
fn wide_embeddings_are_reduced_and_keep_their_distances() {
    let shop = Shop::new(90);
    let mut config = fixtures::config();
    config.content.width = 6;
    let table = features(&shop.sources(), &shop.sequences, &config).unwrap();
    assert_eq!(table.blocks[0].width, 6);
    let distance = |a: usize, b: usize| -> f32 {
        table.row(a)[..6].iter().zip(&table.row(b)[..6]).map(|(x, y)| (x - y).powi(2)).sum()
    };
    // Items 0 and 6 are of one group, 0 and 1 of two.
    assert!(distance(0, 6) < distance(0, 1));
}

#[test]
fn rows_do_not_depend_on_the_thread_count() {
    let shop = Shop::new(150);
    let build = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| features(&shop.sources(), &shop.sequences, &fixtures::config()).unwrap())
    };
    assert_eq!(build(1), build(3));
}

#[test]
fn bad_input_is_refused_by_name() {
    let shop = Shop::new(10);
    let config = fixtures::config();
    let refused = |items: &[ItemSource], sequences: &[Vec<u32>], config: &FeatureConfig| {
        features(items, sequences, config).unwrap_err().to_string()
    };
    let mut items = shop.sources();
    items[3].price = Some(f32::NAN);
    assert_eq!(refused(&items, &[], &config), "item 3, price: NaN: expected a finite number of at least 0");
    items[3].price = None;
    items[4].embedding = Some(&[1.0, 2.0]);
    assert_eq!(refused(&items, &[], &config), "item 4, embedding: 2 numbers: expected 12, as the others have");
    let message = refused(&shop.sources(), &[vec![1], vec![2, 10]], &config);
    assert_eq!(message, "sequence 1, event 1: item number 10 is not below 10");
    let wrong = FeatureConfig { text_buckets: 0, behaviour_window: 0, ..config };
    let message = refused(&shop.sources(), &[], &wrong);
    assert!(message.contains("text_buckets: 0") && message.contains("behaviour_window: 0"), "{message}");
}
