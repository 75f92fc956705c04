//! What a bundle says of itself.
//!
//! The manifest seals the bundle: it holds size and sha256 of every other file, and its own first field, `digest`, is
//! the sha256 of the manifest's bytes with the digest's 64 digits written as zeros. So no byte of a bundle can change
//! unseen. It is a check against damage and half-copied files, not a signature: who can write the directory can seal
//! it anew.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::{Date, Month, OffsetDateTime, Time};

use super::BundleError;
use super::load::PIECE;
use crate::domain::{Violation, breathe};
use crate::model::NetworkConfig;

/// The name of the manifest inside a bundle.
pub const MANIFEST_FILE: &str = "manifest.json";
pub(super) const WEIGHTS_FILE: &str = "weights.safetensors";
pub(super) const CODEBOOKS_FILE: &str = "codebooks.safetensors";
pub(super) const ITEMS_FILE: &str = "items.parquet";
pub(super) const GOLDEN_FILE: &str = "golden.json";
pub(super) const WARMUP_FILE: &str = "warmup.json";

/// Every file that a manifest lists; the manifest itself is the sixth of a bundle.
pub(super) const LISTED_FILES: [&str; 5] = [CODEBOOKS_FILE, GOLDEN_FILE, ITEMS_FILE, WARMUP_FILE, WEIGHTS_FILE];

/// The layout that this build writes and the only one it reads. Any change of a field's name or meaning raises it.
pub const SCHEMA_VERSION: u32 = 1;

/// Histories longer than this are no use to any network here; it bounds what a manifest can ask to be allocated.
const LONGEST_HISTORY: usize = 65_536;

/// A manifest starts with these bytes; the 64 digits of the digest follow.
const SEAL: &str = "{\n  \"digest\": \"";
const OPEN_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What a bundle says of itself.
///
/// Who publishes makes one with [`Manifest::new`] and fills in what it knows; [`publish`](super::publish()) fills in
/// digest, schema version and files, and `created` when empty. Settings of rooms that this one does not know are kept
/// as JSON and read back into their types by [`Manifest::decode_as`] and [`Manifest::tokenizer_as`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// sha256 of this file with these 64 digits as zeros. First in the file; identifies the bundle's whole content.
    pub digest: String,
    /// [`SCHEMA_VERSION`] of the build that wrote it.
    pub schema_version: u32,
    /// What the bundle is for: 1 to 64 of `a-z 0-9 . _ -`, not starting with a dot.
    pub name: String,
    /// Which one of that name; the same letters.
    pub version: String,
    /// When it was published, RFC 3339 in UTC to the second: `2026-01-31T23:59:59Z`.
    pub created: String,
    /// `NAME/VERSION` of the bundle that this one was trained on from; none when trained from nothing.
    pub parent: Option<String>,
    /// The data it was trained on.
    pub data: DataFacts,
    /// How it was trained: preset, seed, epochs and whatever else makes it again.
    pub training: Value,
    /// The network's sizes: items, categories and codes of the bundle, and the longest history, among them.
    pub network: NetworkConfig,
    /// The tokenizer's configuration and how well it did.
    pub tokenizer: TokenizerFacts,
    /// The decode settings to serve with, theta among them.
    pub decode: Value,
    /// The evaluation's report, as the trainer prints it.
    pub metrics: Value,
    /// The categories of the category head; a category's place is its number.
    pub categories: Vec<String>,
    /// Every other file of the bundle, by name.
    pub files: BTreeMap<String, FileFacts>,
}

/// The data that a bundle was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFacts {
    /// sha256 over the data set's content.
    pub fingerprint: String,
    /// Users with at least one event.
    pub users: u64,
    /// Items, with or without events.
    pub items: u64,
    /// Events.
    pub interactions: u64,
}

/// The tokenizer's configuration and how well it did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerFacts {
    /// Of features and quantiser: what is needed to tokenise a new item the same way.
    pub config: Value,
    /// Usage, perplexity, reconstruction error, collisions.
    pub diagnostics: Value,
}

/// What the manifest holds against a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFacts {
    /// 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// Size of the file.
    pub bytes: u64,
}

impl FileFacts {
    /// The facts of a file with this content.
    pub fn of(content: &[u8]) -> Self {
        let mut digest = Sha256::new();
        for piece in content.chunks(PIECE) {
            breathe();
            digest.update(piece);
        }
        Self { sha256: hex(&digest.finalize()), bytes: content.len() as u64 }
    }
}

impl Manifest {
    /// A manifest to publish: a bundle of this name and version, with a network of these sizes over these categories.
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        network: NetworkConfig,
        categories: Vec<String>,
    ) -> Self {
        Self {
            digest: String::new(),
            schema_version: SCHEMA_VERSION,
            name: name.into(),
            version: version.into(),
            created: String::new(),
            parent: None,
            data: DataFacts::default(),
            training: Value::Null,
            network,
            tokenizer: TokenizerFacts::default(),
            decode: Value::Null,
            metrics: Value::Null,
            categories,
            files: BTreeMap::new(),
        }
    }

    /// Reads and checks a manifest: schema version, digest, and every field.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        check_schema_version(bytes)?;
        let found = seal(bytes)?;
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| refuse(format!("not a manifest: {error}")))?;
        if manifest.digest != found {
            return Err(refuse(format!("content has sha256 {found}, its digest says {}", manifest.digest)));
        }
        manifest.check()?;
        Ok(manifest)
    }

    /// The file's bytes, and this manifest with the digest that they carry. Refuses what `from_bytes` would refuse.
    pub(super) fn sealed(mut self) -> Result<(Self, Vec<u8>), BundleError> {
        self.check()?;
        self.digest = OPEN_DIGEST.to_owned();
        let mut bytes =
            serde_json::to_vec_pretty(&self).map_err(|error| refuse(format!("cannot be written: {error}")))?;
        bytes.push(b'\n');
        self.digest = seal(&bytes)?;
        bytes[SEAL.len()..SEAL.len() + OPEN_DIGEST.len()].copy_from_slice(self.digest.as_bytes());
        Ok((self, bytes))
    }

    /// `NAME/VERSION`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.name, self.version)
    }

    /// When it was published.
    pub fn created_at(&self) -> Result<OffsetDateTime, BundleError> {
        parse_time(&self.created)
            .ok_or_else(|| refuse(format!("created: {:?}, expected a UTC time as 2026-01-31T23:59:59Z", self.created)))
    }

    /// The decode settings in their own type.
    pub fn decode_as<T: DeserializeOwned>(&self) -> Result<T, BundleError> {
        section("decode", &self.decode)
    }

    /// The tokenizer's configuration in its own type.
    pub fn tokenizer_as<T: DeserializeOwned>(&self) -> Result<T, BundleError> {
        section("tokenizer.config", &self.tokenizer.config)
    }

    fn check(&self) -> Result<(), BundleError> {
        check_name("name", &self.name)?;
        check_name("version", &self.version)?;
        if let Some(parent) = &self.parent {
            let (name, version) = parent
                .split_once('/')
                .ok_or_else(|| refuse(format!("parent: {parent:?}, expected NAME/VERSION or nothing")))?;
            check_name("parent", name)?;
            check_name("parent", version)?;
        }
        self.created_at()?;
        self.network.validate().map_err(|wrong| {
            let each: Vec<String> = wrong
                .iter()
                .map(|Violation { field, description }| format!("network.{field}: {description}"))
                .collect();
            refuse(each.join("; "))
        })?;
        let network = &self.network;
        if network.max_history > LONGEST_HISTORY {
            return Err(refuse(format!(
                "network.max_history: {}, expected at most {LONGEST_HISTORY}",
                network.max_history
            )));
        }
        if u32::try_from(network.items).is_err() {
            return Err(refuse(format!("network.items: {}, expected at most {}", network.items, u32::MAX)));
        }
        if self.categories.len() != network.categories {
            return Err(refuse(format!(
                "categories: {} names, network.categories says {}",
                self.categories.len(),
                network.categories
            )));
        }
        if !self.decode.is_object() {
            return Err(refuse("decode: expected an object of settings"));
        }
        self.check_files()
    }

    fn check_files(&self) -> Result<(), BundleError> {
        if let Some(missing) = LISTED_FILES.iter().find(|name| !self.files.contains_key(**name)) {
            return Err(refuse(format!("files: {missing} is not listed")));
        }
        for (name, facts) in &self.files {
            if !LISTED_FILES.contains(&name.as_str()) {
                return Err(refuse(format!("files: {name:?} is no file of a bundle")));
            }
            if facts.sha256.len() != OPEN_DIGEST.len() || !facts.sha256.bytes().all(is_hex) {
                return Err(refuse(format!(
                    "files: {name}: sha256 {:?}, expected 64 lowercase hexadecimal digits",
                    facts.sha256
                )));
            }
        }
        Ok(())
    }
}

/// Now, as `created` wants it.
pub(super) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

/// A bundle of another layout is refused by the number of its layout, before fields that we do not know confuse it.
fn check_schema_version(bytes: &[u8]) -> Result<(), BundleError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema_version: u64,
    }
    match serde_json::from_slice::<Versioned>(bytes) {
        Ok(Versioned { schema_version }) if schema_version > u64::from(SCHEMA_VERSION) => Err(refuse(format!(
            "schema_version {schema_version} is newer than this build reads ({SCHEMA_VERSION}): update the program"
        ))),
        Ok(Versioned { schema_version }) if schema_version < u64::from(SCHEMA_VERSION) => Err(refuse(format!(
            "schema_version {schema_version} is older than this build reads ({SCHEMA_VERSION}): publish the bundle anew"
        ))),
        // What does not even hold a version is told apart by the digest and the strict parse that follow.
        _ => Ok(()),
    }
}

/// The digest that these bytes ought to carry.
fn seal(bytes: &[u8]) -> Result<String, BundleError> {
    let rest = bytes
        .strip_prefix(SEAL.as_bytes())
        .and_then(|after| after.get(OPEN_DIGEST.len()..))
        .ok_or_else(|| refuse("does not begin with its digest, as every manifest that was published does"))?;
    let mut hash = Sha256::new();
    hash.update(SEAL);
    hash.update(OPEN_DIGEST);
    hash.update(rest);
    Ok(hex(&hash.finalize()))
}

fn section<T: DeserializeOwned>(field: &str, value: &Value) -> Result<T, BundleError> {
    T::deserialize(value).map_err(|error| refuse(format!("{field}: {error}")))
}

pub(super) fn check_name(field: &str, name: &str) -> Result<(), BundleError> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=64).contains(&name.len()) && name.bytes().all(letters) && !name.starts_with('.') {
        return Ok(());
    }
    Err(refuse(format!("{field}: {name:?}, expected 1 to 64 of a-z 0-9 . _ - not starting with a dot")))
}

fn parse_time(text: &str) -> Option<OffsetDateTime> {
    let bytes = text.as_bytes();
    let pattern = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(&byte, &wanted): (&u8, &u8)| if wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted };
    if bytes.len() != pattern.len() || !bytes.iter().zip(pattern).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u8>().ok();
    let year = text.get(0..4)?.parse::<i32>().ok()?;
    let month = Month::try_from(number(5, 7)?).ok()?;
    let date = Date::from_calendar_date(year, month, number(8, 10)?).ok()?;
    let time = Time::from_hms(number(11, 13)?, number(14, 16)?, number(17, 19)?).ok()?;
    Some(OffsetDateTime::new_utc(date, time))
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn refuse(reason: impl Into<String>) -> BundleError {
    BundleError::new(MANIFEST_FILE, reason)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::super::sample;
    use super::*;

    fn complete() -> Manifest {
        let mut manifest = sample::manifest("1");
        manifest.files = LISTED_FILES.map(|name| (name.to_owned(), FileFacts::of(name.as_bytes()))).into();
        manifest
    }

    /// The manifest as JSON, changed, and sealed as if published so.
    fn changed(change: impl Fn(&mut Value)) -> Result<Manifest, BundleError> {
        let (_, bytes) = complete().sealed().unwrap();
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        change(&mut value);
        let fields = value.as_object_mut().unwrap();
        fields.remove("digest");
        let rest = serde_json::to_string_pretty(&fields).unwrap();
        let mut bytes = format!("{SEAL}{OPEN_DIGEST}\",{}", &rest[1..]).into_bytes();
        let digest = seal(&bytes).unwrap();
        bytes[SEAL.len()..SEAL.len() + 64].copy_from_slice(digest.as_bytes());
        Manifest::from_bytes(&bytes)
    }

    #[test]
    fn what_was_sealed_is_read() {
        let (manifest, bytes) = complete().sealed().unwrap();
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest);
        assert_eq!(manifest.digest.len(), 64);
        assert!(changed(|_| ()).is_ok());
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let (_, sound) = complete().sealed().unwrap();
        for at in 0..sound.len() {
            assert!(Manifest::from_bytes(&sound[..at]).is_err(), "cut to {at} bytes");
            for bit in 0..8 {
                let mut damaged = sound.clone();
                damaged[at] ^= 1 << bit;
                assert!(Manifest::from_bytes(&damaged).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn another_layout_is_refused_by_its_number() {
        let newer = changed(|manifest| {
            manifest["schema_version"] = json!(SCHEMA_VERSION + 1);
            manifest["invented"] = json!(true);
        });
        assert!(newer.unwrap_err().reason.starts_with("schema_version 2 is newer"));
        let older = changed(|manifest| manifest["schema_version"] = json!(0));
        assert!(older.unwrap_err().reason.starts_with("schema_version 0 is older"));
    }

    #[test]
    fn every_bad_field_is_named() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 23] = [
            ("invented", |manifest| manifest["invented"] = json!(1)),
            ("version", |manifest| drop(manifest.as_object_mut().unwrap().remove("version"))),
            ("name", |manifest| manifest["name"] = json!("")),
            ("name", |manifest| manifest["name"] = json!("../shop")),
            ("version", |manifest| manifest["version"] = json!(".hidden")),
            ("parent", |manifest| manifest["parent"] = json!("shop")),
            ("created", |manifest| manifest["created"] = json!("yesterday")),
            ("created", |manifest| manifest["created"] = json!("2026-02-30T00:00:00Z")),
            ("network.max_history", |manifest| manifest["network"]["max_history"] = json!(0)),
            ("network.max_history", |manifest| manifest["network"]["max_history"] = json!(1_u64 << 40)),
            ("network.items", |manifest| manifest["network"]["items"] = json!(0)),
            ("network.items", |manifest| manifest["network"]["items"] = json!(1_u64 << 33)),
            ("network.codes.codebooks", |manifest| manifest["network"]["codes"]["codebooks"] = json!(65)),
            ("network.codes.entries", |manifest| manifest["network"]["codes"]["entries"] = json!(1)),
            ("network.heads", |manifest| manifest["network"]["heads"] = json!(3)),
            ("invented", |manifest| manifest["network"]["invented"] = json!(3)),
            ("categories", |manifest| manifest["categories"] = json!([])),
            ("decode", |manifest| manifest["decode"] = json!([1])),
            ("golden.json", |manifest| drop(manifest["files"].as_object_mut().unwrap().remove("golden.json"))),
            ("../x", |manifest| manifest["files"]["../x"] = json!({"sha256": "0".repeat(64), "bytes": 1})),
            ("sha256", |manifest| manifest["files"]["golden.json"]["sha256"] = json!("A".repeat(64))),
            ("bytes", |manifest| manifest["files"]["golden.json"]["bytes"] = json!(-1)),
            ("mode", |manifest| manifest["files"]["golden.json"]["mode"] = json!(1)),
        ];
        for (field, change) in cases {
            let error = changed(change).expect_err(field);
            // serde names an unknown or missing field, and of a wrong value the line.
            assert!(error.reason.contains(field) || error.reason.contains("line"), "{field}: {error}");
            assert_eq!(error.file, MANIFEST_FILE);
        }
    }

    #[test]
    fn sections_are_read_into_their_types() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code)]
        struct Narrow {
            beam: usize,
        }
        let error = complete().decode_as::<Narrow>().unwrap_err();
        assert!(error.reason.contains("decode") && error.reason.contains("theta"), "{error}");
        assert_eq!(complete().tokenizer_as::<BTreeMap<String, u8>>().unwrap()["latent"], 4);
        assert_eq!(complete().decode_as::<BTreeMap<String, f32>>().unwrap()["theta"], 0.06);
    }

    #[test]
    fn the_time_of_publishing_is_read_back() {
        let mut manifest = complete();
        manifest.created = now();
        let age = OffsetDateTime::now_utc() - manifest.created_at().unwrap();
        assert!((0..60).contains(&age.whole_seconds()), "{age}");
    }
}
