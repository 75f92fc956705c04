//! How each modality becomes numbers, for the items fitted on and for items that come later.

use super::behaviour::mutual_information;
use super::matrix::{Matrix, gaussian};
use super::sparse::{SparseOperator, SparseRows, sum_by_column};
use super::svd::{rotation, truncated_svd};
use super::terms::{brand_terms, category_terms, hashed, text_terms};
use super::{FeatureConfig, ItemSource, Modality, TokenizerError};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Below this, a dimension is constant and is left at zero.
const FLAT: f32 = 1e-6;
/// A brand of n items counts n / (n + this) of a brand: what few items share says little about them.
const BRAND_SHRINK: f32 = 2.0;

/// One modality's numbers, not yet standardised, and which items have it.
pub(super) struct Encoded {
    /// `[items, width]`.
    pub values: Matrix,
    /// Per item.
    pub present: Vec<bool>,
}

/// How one modality is read from an item.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Encoder {
    /// The given embedding, projected where it is wider than wished: `[given, width]`.
    Embedding {
        /// Length of the given embeddings.
        given: usize,
        /// None: taken as given.
        projection: Option<Matrix>,
    },
    /// Hashed terms of the text, weighted by inverse document frequency, projected.
    Text(HashedTerms),
    /// Co-occurrence; an item that comes later has none.
    Behaviour {
        /// Number of columns.
        width: usize,
    },
    /// Hashed category paths, projected.
    Category(HashedTerms),
    /// Hashed brand, as a random direction.
    Brand(HashedTerms),
    /// ln(1 + price).
    Price,
}

/// Terms in hash buckets, and their projection to dense numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct HashedTerms {
    /// Weight of each bucket, `[buckets]`.
    pub weights: Vec<f32>,
    /// `[buckets, width]`.
    pub projection: Matrix,
}

/// One fitted modality.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BlockModel {
    /// How it is read.
    pub encoder: Encoder,
    /// Mean of each dimension over the items that have it.
    pub mean: Vec<f32>,
    /// Standard deviation of each dimension over the items that have it; 1 where it is constant.
    pub deviation: Vec<f32>,
    /// What the standardised numbers are multiplied with.
    pub scale: f32,
}

impl BlockModel {
    /// Number of columns.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Which modality it is.
    pub fn modality(&self) -> Modality {
        match self.encoder {
            Encoder::Embedding { .. } | Encoder::Text(_) => Modality::Content,
            Encoder::Behaviour { .. } => Modality::Behaviour,
            Encoder::Category(_) => Modality::Category,
            Encoder::Brand(_) => Modality::Brand,
            Encoder::Price => Modality::Price,
        }
    }
}

impl Encoder {
    /// An unfitted encoder for every enabled modality, in the order of the columns.
    pub(super) fn all(items: &[ItemSource], config: &FeatureConfig) -> Result<Vec<Encoder>, TokenizerError> {
        let content = match items.iter().find_map(|item| item.embedding) {
            Some(first) => Encoder::Embedding { given: first.len(), projection: None },
            None => Encoder::Text(HashedTerms::default()),
        };
        let every = [
            (config.content, content),
            (config.behaviour, Encoder::Behaviour { width: config.behaviour.width }),
            (config.category, Encoder::Category(HashedTerms::default())),
            (config.brand, Encoder::Brand(HashedTerms::default())),
            (config.price, Encoder::Price),
        ];
        Ok(every.into_iter().filter(|(block, _)| block.enabled).map(|(_, encoder)| encoder).collect())
    }

    /// Learns the encoder from the items; none when no item has the modality.
    pub(super) fn fit(
        self,
        items: &[ItemSource],
        sequences: &[Vec<u32>],
        config: &FeatureConfig,
    ) -> Result<Option<(BlockModel, Encoded)>, TokenizerError> {
        let seed = config.seed;
        let (encoder, encoded) = match self {
            Encoder::Embedding { given, .. } => fit_embedding(items, given, config)?,
            Encoder::Text(_) => {
                let width = config.text_width.min(config.content.width);
                let terms = document_terms(items, seed, config.text_buckets, text_terms);
                let (hashed, encoded) = fit_terms(terms, config.text_buckets, width, 1.0, seed);
                (Encoder::Text(hashed), encoded)
            }
            Encoder::Behaviour { width } => {
                let rows = mutual_information(items.len(), sequences, config.behaviour_window, config.behaviour_shift);
                let present = (0..items.len()).map(|item| !rows.row(item).is_empty()).collect();
                let svd = truncated_svd(&SparseOperator::new(rows), width, seed);
                let mut values = svd.left;
                values.scale_columns(&svd.values.iter().map(|value| value.sqrt()).collect::<Vec<_>>());
                (Encoder::Behaviour { width }, Encoded { values: values.product(&rotation(width, seed)), present })
            }
            Encoder::Category(_) => {
                let terms = document_terms(items, seed, config.category_buckets, category_terms);
                let (hashed, encoded) = fit_terms(terms, config.category_buckets, config.category.width, 0.5, seed);
                (Encoder::Category(hashed), encoded)
            }
            Encoder::Brand(_) => fit_brand(items, config),
            Encoder::Price => (Encoder::Price, encode_price(items)?),
        };
        if !encoded.present.contains(&true) {
            return Ok(None);
        }
        let (mean, deviation) = moments(&encoded);
        Ok(Some((BlockModel { encoder, mean, deviation, scale: 1.0 }, encoded)))
    }

    /// The numbers of items that come later, with the same encoder.
    pub(super) fn encode(&self, items: &[ItemSource], config: &FeatureConfig) -> Result<Encoded, TokenizerError> {
        match self {
            Encoder::Embedding { given, projection } => {
                let Encoded { values, present } = given_embeddings(items, *given)?;
                let values = match projection {
                    Some(projection) => values.product(projection),
                    None => values,
                };
                Ok(Encoded { values, present })
            }
            Encoder::Text(hashed) => Ok(hashed.encode(items, config.seed, text_terms)),
            Encoder::Behaviour { width } => {
                Ok(Encoded { values: Matrix::zeros(items.len(), *width), present: vec![false; items.len()] })
            }
            Encoder::Category(hashed) => Ok(hashed.encode(items, config.seed, category_terms)),
            Encoder::Brand(hashed) => Ok(hashed.encode(items, config.seed, brand_terms)),
            Encoder::Price => encode_price(items),
        }
    }
}

impl HashedTerms {
    fn encode(&self, items: &[ItemSource], seed: u64, terms: fn(&ItemSource) -> Vec<String>) -> Encoded {
        let documents = document_terms(items, seed, self.weights.len(), terms);
        let present = documents.iter().map(|document| !document.is_empty()).collect();
        let rows = weighted(documents, &self.weights);
        Encoded { values: rows.product(&self.projection), present }
    }
}

/// Each item's buckets and signed counts, buckets ascending.
fn document_terms(
    items: &[ItemSource],
    seed: u64,
    buckets: usize,
    terms: fn(&ItemSource) -> Vec<String>,
) -> Vec<Vec<(u32, f32)>> {
    let document = |item: &ItemSource| {
        let mut found: Vec<(u32, f32)> = terms(item).iter().map(|term| hashed(term, seed, buckets)).collect();
        sum_by_column(&mut found);
        found
    };
    items.par_iter().map(document).collect()
}

/// Damped counts times bucket weights, each row of length 1.
fn weighted(documents: Vec<Vec<(u32, f32)>>, weights: &[f32]) -> SparseRows {
    let rows = documents
        .into_par_iter()
        .map(|mut row| {
            for (bucket, count) in &mut row {
                *count = count.signum() * count.abs().ln_1p() * weights[*bucket as usize];
            }
            let length = row.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|(_, value)| *value /= length);
            }
            row
        })
        .collect();
    SparseRows::new(weights.len(), rows)
}

/// TF-IDF reduced by SVD; singular coordinates are scaled by their value to the power `spectrum`, then rotated.
fn fit_terms(
    documents: Vec<Vec<(u32, f32)>>,
    buckets: usize,
    width: usize,
    spectrum: f32,
    seed: u64,
) -> (HashedTerms, Encoded) {
    let present: Vec<bool> = documents.iter().map(|document| !document.is_empty()).collect();
    let mut frequency = vec![0u32; buckets];
    documents.iter().flatten().for_each(|&(bucket, _)| frequency[bucket as usize] += 1);
    let items = documents.len() as f32;
    let weights: Vec<f32> = frequency.iter().map(|&n| ((1.0 + items) / (1.0 + n as f32)).ln() + 1.0).collect();
    let operator = SparseOperator::new(weighted(documents, &weights));
    let svd = truncated_svd(&operator, width, seed);
    let mut projection = svd.right;
    let factor = |value: &f32| if *value > 0.0 { value.powf(spectrum - 1.0) } else { 0.0 };
    projection.scale_columns(&svd.values.iter().map(factor).collect::<Vec<_>>());
    let projection = projection.product(&rotation(width, seed));
    let values = operator.forward().product(&projection);
    (HashedTerms { weights, projection }, Encoded { values, present })
}

/// A random direction per brand: brands have no order to learn a projection from.
fn fit_brand(items: &[ItemSource], config: &FeatureConfig) -> (Encoder, Encoded) {
    let (buckets, width) = (config.brand_buckets, config.brand.width);
    let documents = document_terms(items, config.seed, buckets, brand_terms);
    let mut counts = vec![0.0f32; buckets];
    documents.iter().flatten().for_each(|&(bucket, _)| counts[bucket as usize] += 1.0);
    let mut random = ChaCha8Rng::seed_from_u64(config.seed ^ 0xb5);
    let mut projection = Matrix { rows: buckets, columns: width, data: gaussian(buckets * width, &mut random) };
    // Rows are scaled to length 1 later, so the shrinkage belongs to the projection, not to the bucket's weight.
    for (row, count) in projection.data.chunks_exact_mut(width).zip(&counts) {
        row.iter_mut().for_each(|value| *value *= count / (count + BRAND_SHRINK));
    }
    let hashed = HashedTerms { weights: vec![1.0; buckets], projection };
    let encoded = hashed.encode(items, config.seed, brand_terms);
    (Encoder::Brand(hashed), encoded)
}

fn fit_embedding(
    items: &[ItemSource],
    given: usize,
    config: &FeatureConfig,
) -> Result<(Encoder, Encoded), TokenizerError> {
    let mut encoded = given_embeddings(items, given)?;
    let width = config.content.width;
    if given <= width {
        return Ok((Encoder::Embedding { given, projection: None }, encoded));
    }
    // Centred, so that the first direction is not spent on the mean; items without one stay at zero.
    let (mean, _) = moments(&encoded);
    let mut centred = encoded.values.clone();
    for (row, _) in centred.data.chunks_exact_mut(given).zip(&encoded.present).filter(|(_, present)| **present) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
    }
    let projection = truncated_svd(&centred, width, config.seed).right.product(&rotation(width, config.seed));
    encoded.values = encoded.values.product(&projection);
    Ok((Encoder::Embedding { given, projection: Some(projection) }, encoded))
}

fn given_embeddings(items: &[ItemSource], given: usize) -> Result<Encoded, TokenizerError> {
    let field = "embedding";
    if given == 0 {
        return Err(TokenizerError::Item { item: 0, field, reason: "it is empty".to_owned() });
    }
    let mut values = Matrix::zeros(items.len(), given);
    let mut present = vec![false; items.len()];
    for (item, row) in values.data.chunks_exact_mut(given).enumerate() {
        let Some(embedding) = items[item].embedding else { continue };
        if embedding.len() != given {
            let reason = format!("{} numbers: expected {given}, as the others have", embedding.len());
            return Err(TokenizerError::Item { item, field, reason });
        }
        if let Some(at) = embedding.iter().position(|value| !value.is_finite()) {
            let reason = format!("number {at} is {}: expected a finite one", embedding[at]);
            return Err(TokenizerError::Item { item, field, reason });
        }
        row.copy_from_slice(embedding);
        present[item] = true;
    }
    Ok(Encoded { values, present })
}

fn encode_price(items: &[ItemSource]) -> Result<Encoded, TokenizerError> {
    let mut encoded = Encoded { values: Matrix::zeros(items.len(), 1), present: vec![false; items.len()] };
    for (item, source) in items.iter().enumerate() {
        let Some(price) = source.price else { continue };
        if !(price.is_finite() && price >= 0.0) {
            let reason = format!("{price}: expected a finite number of at least 0");
            return Err(TokenizerError::Item { item, field: "price", reason });
        }
        encoded.values.data[item] = price.ln_1p();
        encoded.present[item] = true;
    }
    Ok(encoded)
}

/// Mean and standard deviation of each dimension over the items that have the modality.
fn moments(encoded: &Encoded) -> (Vec<f32>, Vec<f32>) {
    let width = encoded.values.columns;
    let rows = || (0..encoded.values.rows).filter(|&row| encoded.present[row]).map(|row| encoded.values.row(row));
    let count = rows().count().max(1) as f64;
    let mut mean = vec![0.0f64; width];
    rows().for_each(|row| mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value)));
    mean.iter_mut().for_each(|sum| *sum /= count);
    let mut square = vec![0.0f64; width];
    for row in rows() {
        for ((sum, &value), mean) in square.iter_mut().zip(row).zip(&mean) {
            *sum += (f64::from(value) - mean).powi(2);
        }
    }
    let deviation = square.iter().map(|sum| (sum / count).sqrt() as f32);
    let deviation = deviation.map(|value| if value > FLAT { value } else { 1.0 }).collect();
    (mean.into_iter().map(|value| value as f32).collect(), deviation)
}
