//! A tokenizer as one safetensors file: the quantiser with its codebooks, and all that builds feature rows.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::encoders::{BlockModel, Encoder, HashedTerms};
use super::matrix::Matrix;
use super::tensors::{NamedTensor, TensorFile, to_bytes};
use super::{FeatureConfig, FeatureModel, Modality, Quantiser, Tokenizer, TokenizerError};

/// Raised when the meaning of the file changes.
const FORMAT: u32 = 1;

/// What the header holds beside the tensors.
#[derive(Serialize, Deserialize)]
struct Settings {
    format: u32,
    /// Its settings under its name.
    #[serde(flatten)]
    quantiser: Quantiser,
    features: FeatureConfig,
    blocks: Vec<BlockSettings>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockSettings {
    modality: Modality,
    encoder: EncoderKind,
    width: usize,
    scale: f32,
    /// Length of the given embeddings, or number of buckets; as wide as the block for the others.
    source: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EncoderKind {
    Given,
    Projected,
    Text,
    Behaviour,
    Category,
    Brand,
    Price,
}

impl EncoderKind {
    fn modality(self) -> Modality {
        match self {
            EncoderKind::Given | EncoderKind::Projected | EncoderKind::Text => Modality::Content,
            EncoderKind::Behaviour => Modality::Behaviour,
            EncoderKind::Category => Modality::Category,
            EncoderKind::Brand => Modality::Brand,
            EncoderKind::Price => Modality::Price,
        }
    }
}

impl Tokenizer {
    /// The bytes of `codebooks.safetensors`.
    ///
    /// # Errors
    /// When the header cannot be written, which only a header past 100 MB does.
    pub fn to_bytes(&self) -> Result<Vec<u8>, TokenizerError> {
        let mut tensors = self.tensors.clone();
        let mut blocks = Vec::new();
        for block in &self.features.blocks {
            let (settings, saved) = save_block(block);
            blocks.push(settings);
            tensors.extend(saved);
        }
        let (quantiser, features) = (self.quantiser.clone(), self.features.config.clone());
        let settings = Settings { format: FORMAT, quantiser, features, blocks };
        let settings = serde_json::to_string(&settings).map_err(|cause| TokenizerError::Format(cause.to_string()))?;
        to_bytes(&tensors, settings)
    }

    /// Reads what [`Tokenizer::to_bytes`] wrote.
    ///
    /// # Errors
    /// Names the tensor that is missing, of another shape or type, or not finite; or says what is wrong in the header.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let file = TensorFile::open(bytes)?;
        let settings: Settings =
            serde_json::from_str(file.settings()).map_err(|cause| TokenizerError::Format(cause.to_string()))?;
        if settings.format != FORMAT {
            return Err(TokenizerError::Format(format!("format {}: expected {FORMAT}", settings.format)));
        }
        settings.quantiser.validate().map_err(TokenizerError::Settings)?;
        settings.features.validate().map_err(TokenizerError::Settings)?;
        if settings.blocks.is_empty() {
            return Err(TokenizerError::Format("blocks: none listed".to_owned()));
        }
        let blocks = settings.blocks.iter().map(|block| load_block(block, &file)).collect::<Result<Vec<_>, _>>()?;
        let features = FeatureModel { config: settings.features, blocks };
        let tensors: Vec<NamedTensor> = Self::layout(&settings.quantiser, features.width())
            .iter()
            .map(|(name, shape)| file.take(name, shape))
            .collect::<Result<_, _>>()?;
        if let Some(scale) = tensors.iter().find(|tensor| tensor.name == "scale") {
            refuse_flat(scale)?;
        }
        let tokenizer = Self { quantiser: settings.quantiser, features, tensors };
        let expected =
            tokenizer.tensors.len() + tokenizer.features.blocks.iter().map(|b| save_block(b).1.len()).sum::<usize>();
        if file.len() != expected {
            return Err(TokenizerError::Format(format!("{} tensors: expected {expected}", file.len())));
        }
        Ok(tokenizer)
    }

    /// Writes the file. It is not synced: whoever publishes it does that.
    ///
    /// # Errors
    /// Names the path and the cause.
    pub fn save(&self, path: &Path) -> Result<(), TokenizerError> {
        std::fs::write(path, self.to_bytes()?).map_err(|cause| file_error(path, &cause))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Names the path and the cause, or what [`Tokenizer::from_bytes`] refuses.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        Self::from_bytes(&std::fs::read(path).map_err(|cause| file_error(path, &cause))?)
    }
}

fn file_error(path: &Path, cause: &std::io::Error) -> TokenizerError {
    TokenizerError::File { path: path.to_owned(), reason: cause.to_string() }
}

fn save_block(block: &BlockModel) -> (BlockSettings, Vec<NamedTensor>) {
    let (modality, width) = (block.modality(), block.width());
    let name = |part: &str| tensor_name(modality, part);
    let mut tensors = vec![
        NamedTensor::vector(name("mean"), block.mean.clone()),
        NamedTensor::vector(name("deviation"), block.deviation.clone()),
    ];
    let (encoder, source) = match &block.encoder {
        Encoder::Embedding { given, projection: None } => (EncoderKind::Given, *given),
        Encoder::Embedding { given, projection: Some(projection) } => {
            tensors.push(saved_matrix(name("projection"), projection));
            (EncoderKind::Projected, *given)
        }
        Encoder::Text(hashed) => (EncoderKind::Text, save_terms(hashed, &name, &mut tensors)),
        Encoder::Category(hashed) => (EncoderKind::Category, save_terms(hashed, &name, &mut tensors)),
        Encoder::Brand(hashed) => (EncoderKind::Brand, save_terms(hashed, &name, &mut tensors)),
        Encoder::Behaviour { width } => (EncoderKind::Behaviour, *width),
        Encoder::Price => (EncoderKind::Price, 1),
    };
    (BlockSettings { modality, encoder, width, scale: block.scale, source }, tensors)
}

fn save_terms(hashed: &HashedTerms, name: &dyn Fn(&str) -> String, tensors: &mut Vec<NamedTensor>) -> usize {
    tensors.push(NamedTensor::vector(name("weights"), hashed.weights.clone()));
    tensors.push(saved_matrix(name("projection"), &hashed.projection));
    hashed.weights.len()
}

fn saved_matrix(name: String, matrix: &Matrix) -> NamedTensor {
    NamedTensor { name, shape: vec![matrix.rows, matrix.columns], data: matrix.data.clone() }
}

fn load_block(settings: &BlockSettings, file: &TensorFile) -> Result<BlockModel, TokenizerError> {
    let BlockSettings { modality, encoder, width, scale, source } = *settings;
    let refuse = |reason: String| TokenizerError::Format(format!("blocks.{}: {reason}", modality.name()));
    if encoder.modality() != modality {
        return Err(refuse(format!("its encoder reads {}", encoder.modality().name())));
    }
    let same_width = matches!(encoder, EncoderKind::Given | EncoderKind::Behaviour | EncoderKind::Price);
    if width == 0 || (same_width && source != width) || (encoder == EncoderKind::Price && width != 1) {
        return Err(refuse(format!("width {width} from {source}: these do not fit together")));
    }
    if !scale.is_finite() {
        return Err(refuse(format!("scale {scale}: expected a finite number")));
    }
    let name = |part: &str| tensor_name(modality, part);
    let vector = |part: &str, length: usize| file.take(&name(part), &[length]).map(|tensor| tensor.data);
    let projection = || -> Result<Matrix, TokenizerError> {
        let data = file.take(&name("projection"), &[source, width])?.data;
        Ok(Matrix { rows: source, columns: width, data })
    };
    let terms =
        || Ok::<_, TokenizerError>(HashedTerms { weights: vector("weights", source)?, projection: projection()? });
    let encoder = match encoder {
        EncoderKind::Given => Encoder::Embedding { given: source, projection: None },
        EncoderKind::Projected => Encoder::Embedding { given: source, projection: Some(projection()?) },
        EncoderKind::Text => Encoder::Text(terms()?),
        EncoderKind::Behaviour => Encoder::Behaviour { width },
        EncoderKind::Category => Encoder::Category(terms()?),
        EncoderKind::Brand => Encoder::Brand(terms()?),
        EncoderKind::Price => Encoder::Price,
    };
    let deviation = file.take(&name("deviation"), &[width])?;
    refuse_flat(&deviation)?;
    Ok(BlockModel { encoder, mean: vector("mean", width)?, deviation: deviation.data, scale })
}

/// Refuses what is divided by and not above 0.
fn refuse_flat(tensor: &NamedTensor) -> Result<(), TokenizerError> {
    let Some(at) = tensor.data.iter().position(|value| *value <= 0.0) else { return Ok(()) };
    let reason = format!("number {at} is {}: expected one above 0", tensor.data[at]);
    Err(TokenizerError::Tensor { name: tensor.name.clone(), reason })
}

fn tensor_name(modality: Modality, part: &str) -> String {
    format!("features.{}.{part}", modality.name())
}
