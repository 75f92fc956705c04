//! Features and codes of all items, made once and kept for a resumed run.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use burn::backend::{Autodiff, Flex};

use super::Narrator;
use crate::domain::CodeTable;
use crate::tokenizer::{
    Diagnostics, FeatureConfig, FeatureTable, Fitted, ItemSource, Tokenizer, TokenizerError, features, fit,
};
use crate::training::dataset::{Dataset, DatasetItem, Split};
use crate::training::preset::FitConfig;

const TOKENIZER: &str = "tokenizer.safetensors";
const CODES: &str = "codes.json";

/// The feature rows of all items. Behaviour is that of the training parts: no target enters it.
pub(super) fn feature_rows(
    dataset: &Dataset,
    split: Split<'_>,
    config: &FeatureConfig,
) -> Result<FeatureTable, TokenizerError> {
    let sources: Vec<ItemSource<'_>> = dataset.items.iter().map(source).collect();
    features(&sources, &split.train_items(), config)
}

/// The columns of a feature row that only items with a past have: the behaviour block and its mask.
pub(crate) fn columns_of_the_past(table: &FeatureTable) -> Vec<Range<usize>> {
    table.columns_of_the_past()
}

/// Fits the tokenizer, or takes what an earlier run of the same data and settings left in `work`.
pub(super) fn tokenize(
    table: &FeatureTable,
    config: &FitConfig,
    work: &Path,
    narrator: &mut Narrator,
) -> anyhow::Result<Fitted> {
    if let Some(fitted) = saved(work)? {
        narrator.stage("tokens", "as the run before left them");
        return Ok(fitted);
    }
    let shape = config.tokenizer.shape();
    let name = config.tokenizer.name();
    narrator.stage("tokens", &format!("{name}, {} codebooks of {}", shape.codebooks, shape.entries));
    let device = Default::default();
    let fitted =
        fit::<Autodiff<Flex>>(table, &config.tokenizer, &device, &mut |progress| narrator.tokenizing(progress))?;
    narrator.say(&fitted.diagnostics.to_string());
    save(work, &fitted)?;
    Ok(fitted)
}

/// What the tokenizer reads of an item.
pub(crate) fn source(item: &DatasetItem) -> ItemSource<'_> {
    ItemSource {
        title: item.item.title.as_deref(),
        text: item.text.as_deref(),
        brand: item.item.brand.as_deref(),
        categories: &item.item.categories,
        price: item.item.price,
        embedding: item.embedding.as_deref(),
    }
}

fn save(work: &Path, fitted: &Fitted) -> anyhow::Result<()> {
    let path = work.join(TOKENIZER);
    fs::write(&path, fitted.tokenizer.to_bytes()?).with_context(|| format!("{}", path.display()))?;
    // The codes are written last and renamed into place: where they are, the tokenizer is whole.
    let (path, draft) = (work.join(CODES), work.join("codes.json.tmp"));
    let content = serde_json::to_vec(&(fitted.codes.shape(), fitted.codes.entries().as_ref(), &fitted.diagnostics))?;
    fs::write(&draft, content).with_context(|| format!("{}", draft.display()))?;
    fs::rename(&draft, &path).with_context(|| format!("{}", path.display()))
}

fn saved(work: &Path) -> anyhow::Result<Option<Fitted>> {
    let path = work.join(CODES);
    if !path.exists() {
        return Ok(None);
    }
    let content = fs::read(&path).with_context(|| format!("{}", path.display()))?;
    let (shape, entries, diagnostics): (_, Vec<u16>, Diagnostics) =
        serde_json::from_slice(&content).with_context(|| format!("{}", path.display()))?;
    let codes = CodeTable::new(shape, entries).map_err(|wrong| anyhow::anyhow!("{}: {wrong}", path.display()))?;
    let path = work.join(TOKENIZER);
    let bytes = fs::read(&path).with_context(|| format!("{}", path.display()))?;
    Ok(Some(Fitted { tokenizer: Tokenizer::from_bytes(&bytes)?, codes, diagnostics }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::tokenizer::{Modality, MpqConfig, OpqConfig, Quantiser, RqConfig};
    use crate::training::dataset::Interaction;
    use crate::training::generate::generate;
    use crate::training::preset::Preset;

    const ITEMS: usize = 90;

    /// A small shop, whose users' events `change` may change, given their place in the sequence and its length.
    fn shop(change: impl Fn(&mut Interaction, usize, usize)) -> Dataset {
        let Dataset { user_ids, items, mut sequences, .. } = generate(120, ITEMS, 5).unwrap();
        for sequence in &mut sequences {
            let length = sequence.len();
            sequence.iter_mut().enumerate().for_each(|(place, event)| change(event, place, length));
        }
        Dataset::new(user_ids, items, sequences).unwrap()
    }

    fn settings(tokenizer: Quantiser) -> FitConfig {
        FitConfig { tokenizer, ..Preset::Quick.config(ITEMS, 6, 1_000, 3) }
    }

    fn rows(dataset: &Dataset) -> FeatureTable {
        feature_rows(dataset, Split::new(dataset), &settings(Quantiser::default()).features).unwrap()
    }

    fn tokens(dataset: &Dataset, quantiser: &Quantiser) -> CodeTable {
        let work = tempfile::tempdir().unwrap();
        let config = settings(quantiser.clone());
        tokenize(&rows(dataset), &config, work.path(), &mut Narrator::silent()).unwrap().codes
    }

    fn other_item(event: &mut Interaction) {
        event.item = (event.item + 31) % ITEMS as u32;
    }

    #[test]
    fn the_last_two_events_of_users_change_no_feature_row_and_no_token() {
        let before = shop(|_, _, _| ());
        let after = shop(|event, place, length| {
            if place + 2 >= length {
                other_item(event);
            }
        });
        assert!(before.sequences.iter().zip(&after.sequences).all(|(before, after)| {
            let changed = before.iter().zip(after).filter(|(before, after)| before != after).count();
            changed == 2 && before.len() >= 3
        }));
        assert_eq!(rows(&before), rows(&after));
        let (codebooks, entries, epochs) = (3, 16, 2);
        let mpq = MpqConfig { codebooks, entries, epochs, warmup_epochs: 1, hidden: 16, ..MpqConfig::default() };
        let rq = RqConfig { levels: 3, entries, epochs, warmup_epochs: 1, hidden: vec![16], ..RqConfig::default() };
        let opq = OpqConfig { codebooks, entries, width: 12, rounds: 3, ..OpqConfig::default() };
        let random = Quantiser::Random { codebooks, entries, seed: 2 };
        for quantiser in [Quantiser::Mpq(mpq), Quantiser::Rq(rq), Quantiser::Opq(opq), random] {
            assert_eq!(tokens(&before, &quantiser), tokens(&after, &quantiser), "{}", quantiser.name());
        }
    }

    #[test]
    fn a_training_event_changes_the_behaviour_features_and_no_others() {
        let (before, after) = (
            shop(|_, _, _| ()),
            shop(|event, place, length| {
                if event.user == 7 && place + 3 == length {
                    other_item(event);
                }
            }),
        );
        let (before, after) = (rows(&before), rows(&after));
        assert_eq!(before.blocks.len(), 5);
        for block in &before.blocks {
            let columns = |table: &FeatureTable| -> Vec<Vec<f32>> {
                (0..ITEMS).map(|item| table.row(item)[block.start..block.start + block.width].to_vec()).collect()
            };
            let changed = columns(&before) != columns(&after);
            assert_eq!(changed, block.modality == Modality::Behaviour, "{:?}", block.modality);
        }
    }

    #[test]
    fn tokens_of_an_earlier_run_are_taken_as_they_are() {
        let (dataset, work) = (shop(|_, _, _| ()), tempfile::tempdir().unwrap());
        let config = settings(Quantiser::Random { codebooks: 4, entries: 16, seed: 9 });
        let first = tokenize(&rows(&dataset), &config, work.path(), &mut Narrator::silent()).unwrap();
        let again = tokenize(&rows(&dataset), &config, work.path(), &mut Narrator::silent()).unwrap();
        assert_eq!(first, again);
    }
}
