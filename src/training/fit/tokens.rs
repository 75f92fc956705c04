//! Features and codes of all items, made once and kept for a resumed run.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;
use burn::backend::{Autodiff, Flex};

use super::Narrator;
use crate::domain::CodeTable;
use crate::tokenizer::{
    Diagnostics, FeatureConfig, FeatureTable, Fitted, ItemSource, Modality, Tokenizer, TokenizerError, features, fit,
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
    let masks = table.width - table.blocks.len();
    let past = table.blocks.iter().enumerate().filter(|(_, block)| block.modality == Modality::Behaviour);
    past.flat_map(|(at, block)| [block.start..block.start + block.width, masks + at..masks + at + 1]).collect()
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
    narrator.stage("tokens", &format!("MPQ, {} codebooks of {}", shape.codebooks, shape.entries));
    let device = Default::default();
    let fitted =
        fit::<Autodiff<Flex>>(table, &config.tokenizer, &device, &mut |progress| narrator.tokenizing(progress))?;
    narrator.say(&fitted.diagnostics.to_string());
    save(work, &fitted)?;
    Ok(fitted)
}

/// What the tokenizer reads of an item.
fn source(item: &DatasetItem) -> ItemSource<'_> {
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
    let content = serde_json::to_vec(&(fitted.codes.shape(), fitted.codes.entries(), &fitted.diagnostics))?;
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
