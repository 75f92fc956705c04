//! What a person wants to know of a bundle: whether it is whole, and what it is.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;

use burn::backend::Flex;
use serde::Serialize;
use serde_json::Value;

use super::load::{load, load_manifest};
use super::manifest::LISTED_FILES;
use super::saved_index::is_saved_index;
use super::{BundleError, MANIFEST_FILE, Manifest, TensorFacts};
use crate::domain::{Code, CodeTable, ItemNumber};

/// Longest list of a manifest that is shown in full.
const SHOWN_ENTRIES: usize = 8;

/// A bundle that was read whole and found sound. Printed as a page, or as JSON through serde.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Where it stands.
    pub dir: String,
    /// `NAME/VERSION`.
    pub bundle: String,
    /// The manifest's digest.
    pub digest: String,
    /// Every listed file, with its checked size and hash.
    pub files: Vec<FileReport>,
    /// Bytes of the listed files together.
    pub bytes: u64,
    /// Items.
    pub items: usize,
    /// Items that may be recommended.
    pub eligible: usize,
    /// Classes of the category head.
    pub categories: usize,
    /// M.
    pub codebooks: usize,
    /// D.
    pub entries: usize,
    /// Different codes among the items.
    pub distinct_codes: usize,
    /// Items that share the commonest code.
    pub largest_group: usize,
    /// What `weights.safetensors` holds.
    pub weights: TensorFacts,
    /// What `codebooks.safetensors` holds.
    pub tokenizer: TensorFacts,
    /// Requests with known answers.
    pub golden: usize,
    /// Shapes to warm up.
    pub warmup: usize,
    /// Files in the directory that no manifest lists; they are never read.
    pub unlisted: Vec<String>,
}

/// One checked file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its sha256 in hexadecimal digits.
    pub sha256: String,
}

/// What a bundle says of itself. Printed as a page, or as JSON through serde.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BundleView {
    /// Where it stands.
    pub dir: String,
    /// Its manifest.
    pub manifest: Manifest,
}

/// Reads the bundle in `dir` whole, with every check of [`load`](super::load()), and builds its network on the CPU. The
/// first fault is the error.
pub fn verify(dir: &Path) -> Result<VerifyReport, BundleError> {
    let loaded = load(dir)?;
    loaded.network::<Flex>(&Default::default())?;
    let manifest = loaded.manifest;
    let (distinct_codes, largest_group) = groups(loaded.index.codes());
    let files: Vec<FileReport> = manifest
        .files
        .into_iter()
        .map(|(name, facts)| FileReport { name, bytes: facts.bytes, sha256: facts.sha256 })
        .collect();
    Ok(VerifyReport {
        dir: dir.display().to_string(),
        bundle: format!("{}/{}", manifest.name, manifest.version),
        digest: manifest.digest,
        bytes: files.iter().map(|file| file.bytes).sum(),
        files,
        items: loaded.index.len(),
        eligible: loaded.index.eligible().len(),
        categories: manifest.categories.len(),
        codebooks: manifest.network.codes.codebooks,
        entries: manifest.network.codes.entries,
        distinct_codes,
        largest_group,
        weights: loaded.weight_facts,
        tokenizer: loaded.codebook_facts,
        golden: loaded.golden.len(),
        warmup: loaded.warmup.len(),
        unlisted: unlisted(dir),
    })
}

/// Reads and checks the manifest of the bundle in `dir`; the other files are not touched.
pub fn show(dir: &Path) -> Result<BundleView, BundleError> {
    Ok(BundleView { dir: dir.display().to_string(), manifest: load_manifest(dir)? })
}

/// How many different codes there are, and how many items share the commonest.
fn groups(codes: &CodeTable) -> (usize, usize) {
    let mut sizes: HashMap<Code<'_>, usize> = HashMap::new();
    for item in 0..codes.items() as ItemNumber {
        *sizes.entry(codes.code(item)).or_default() += 1;
    }
    (sizes.len(), sizes.values().copied().max().unwrap_or(0))
}

fn unlisted(dir: &Path) -> Vec<String> {
    // Only a courtesy: the bundle was read already, so a directory that cannot be listed is no fault of it.
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let mut strangers: Vec<String> =
        names.filter(|name| name != MANIFEST_FILE && !LISTED_FILES.contains(&name.as_str())).collect();
    strangers.retain(|name| !is_saved_index(name));
    strangers.sort();
    strangers
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, page: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(page, "{} in {}: sound", self.bundle, self.dir)?;
        writeln!(page, "  digest     {}", self.digest)?;
        for file in &self.files {
            writeln!(page, "  ok         {:<24} {:>12} bytes  sha256 {}", file.name, file.bytes, file.sha256)?;
        }
        writeln!(page, "  items      {} ({} eligible) in {} categories", self.items, self.eligible, self.categories)?;
        writeln!(
            page,
            "  codes      {} codebooks of {} entries, {} distinct, at most {} items share one",
            self.codebooks, self.entries, self.distinct_codes, self.largest_group
        )?;
        writeln!(page, "  weights    {} numbers in {} tensors", self.weights.numbers, self.weights.tensors)?;
        writeln!(page, "  tokenizer  {} numbers in {} tensors", self.tokenizer.numbers, self.tokenizer.tensors)?;
        write!(page, "  serving    {} golden requests, {} shapes to warm up", self.golden, self.warmup)?;
        if !self.unlisted.is_empty() {
            write!(page, "\n  unlisted   {} (never read)", self.unlisted.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for BundleView {
    fn fmt(&self, page: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        writeln!(page, "{} in {}", manifest.label(), self.dir)?;
        writeln!(page, "  created    {}", manifest.created)?;
        writeln!(page, "  parent     {}", manifest.parent.as_deref().unwrap_or("none"))?;
        writeln!(page, "  digest     {} (schema version {})", manifest.digest, manifest.schema_version)?;
        let data = &manifest.data;
        writeln!(page, "  data       {} users, {} items, {} events", data.users, data.items, data.interactions)?;
        writeln!(page, "             fingerprint {}", data.fingerprint)?;
        writeln!(page, "  items      {} in {} categories", manifest.network.items, manifest.categories.len())?;
        writeln!(
            page,
            "  codes      {} codebooks of {} entries",
            manifest.network.codes.codebooks, manifest.network.codes.entries
        )?;
        writeln!(page, "  history    the latest {} events", manifest.network.max_history)?;
        let network = serde_json::to_value(&manifest.network).map_err(|_| fmt::Error)?;
        let sections = [
            ("training", &manifest.training),
            ("network", &network),
            ("tokenizer", &manifest.tokenizer.config),
            ("diagnostics", &manifest.tokenizer.diagnostics),
            ("decode", &manifest.decode),
            ("metrics", &manifest.metrics),
        ];
        for (title, value) in sections {
            let mut lines = Vec::new();
            flatten("", value, &mut lines);
            if lines.is_empty() {
                continue;
            }
            writeln!(page, "  {title}")?;
            let width = lines.iter().map(|(path, _)| path.len()).max().unwrap_or(0);
            for (path, text) in lines {
                writeln!(page, "    {path:<width$}  {text}")?;
            }
        }
        writeln!(page, "  files")?;
        let bytes: u64 = manifest.files.values().map(|facts| facts.bytes).sum();
        for (name, facts) in &manifest.files {
            writeln!(page, "    {name:<24} {:>12} bytes", facts.bytes)?;
        }
        write!(page, "    {:<24} {bytes:>12} bytes", "together")
    }
}

/// One line for every setting or number, with the dotted path to it. Lists of plain values stay on one line.
fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, field, lines);
            }
        }
        Value::Array(entries) if entries.iter().any(|entry| entry.is_object() || entry.is_array()) => {
            for (at, entry) in entries.iter().enumerate() {
                flatten(&format!("{path}[{at}]"), entry, lines);
            }
        }
        Value::Array(entries) => {
            let mut shown: Vec<String> = entries.iter().take(SHOWN_ENTRIES).map(plain).collect();
            if entries.len() > SHOWN_ENTRIES {
                shown.push(format!("… {} in all", entries.len()));
            }
            lines.push((path.to_owned(), shown.join(" ")));
        }
        leaf => lines.push((path.to_owned(), plain(leaf))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
