//! One run as a file: what was run on what, how it learnt, how well it ranks, what it cost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::calibration::CategoryCalibration;
use super::harness::Placed;
use super::machine::Machine;
use super::report::Scores;
use super::slices::Slices;
use super::token_use::TokenUse;

/// The version of the files that this program writes and reads.
pub const RECORD_VERSION: u32 = 1;

/// One run of one system. Fields that a reader does not know are passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// What was run: `reg4rec`, a baseline's name, or an ablation's.
    pub system: String,
    /// The comparison it belongs to, such as `headline` or `tokens`: records of a group share tables and charts.
    pub group: String,
    /// The data it was run on.
    pub dataset: DatasetFacts,
    /// Effort, where the system knows presets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Everything random followed from it.
    pub seed: u64,
    /// What tells this run from others, in the system's own words.
    #[serde(default)]
    pub settings: Value,
    /// How it learnt, an entry an epoch; empty for what has no epochs.
    #[serde(default)]
    pub epochs: Vec<EpochPoint>,
    /// The epoch, counted from zero, that the weights are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_epoch: Option<usize>,
    /// On the validation targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Scores>,
    /// Users whose test target was ranked.
    pub trials: usize,
    /// On the test targets.
    pub test: Scores,
    /// The test targets by kind, seen items filtered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<Slices>,
    /// How the codebooks are used, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenUse>,
    /// Whether the category head means what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CategoryCalibration>,
    /// Wall time of learning and evaluation together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The most memory that the process held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// What a reader should know beside the numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a run is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLabel {
    /// As [`RunRecord::system`].
    pub system: String,
    /// As [`RunRecord::group`].
    pub group: String,
    /// As [`RunRecord::preset`].
    pub preset: Option<String>,
    /// As [`RunRecord::seed`].
    pub seed: u64,
}

/// The data of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DatasetFacts {
    /// What people call it.
    pub name: String,
    /// Users, those without a test target among them.
    pub users: usize,
    /// Items, all of which are ranked.
    pub items: usize,
}

/// Where learning stood after an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochPoint {
    /// Counted from zero.
    pub epoch: usize,
    /// Mean training loss of the part that ranks, in nats.
    pub scorer_loss: f64,
    /// On validation users, seen items filtered.
    pub recall_at_10: f64,
    /// On validation users, seen items filtered.
    pub ndcg_at_10: f64,
    /// Wall time of its steps.
    pub seconds: f64,
    /// Training sequences worked through in a second.
    pub sequences_per_second: f64,
}

/// Why a record cannot be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The record.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A field is missing or says what cannot be.
    #[error("{}: not a run record: {field}: {problem}", path.display())]
    Field {
        /// The record.
        path: PathBuf,
        /// The field, by its path from the record's root.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl RunRecord {
    /// A record of what every system has: a name, data, and the places of the test targets. The rest is set field by
    /// field.
    pub fn new(label: RunLabel, dataset: DatasetFacts, placed: &Placed, slices: Slices) -> Self {
        let RunLabel { system, group, preset, seed } = label;
        Self {
            version: RECORD_VERSION,
            system,
            group,
            dataset,
            preset,
            seed,
            settings: Value::Null,
            epochs: Vec::new(),
            best_epoch: None,
            validation: None,
            trials: placed.places.len(),
            test: placed.scores,
            slices: Some(slices),
            tokens: None,
            calibration: None,
            seconds: None,
            peak_memory_bytes: None,
            machine: None,
            notes: Vec::new(),
        }
    }

    /// Reads and checks a record.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let bytes = fs::read(path).map_err(|source| RecordError::File { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes).map_err(|fault| fault.of(path))
    }

    /// Writes the record, making the directory when it is not there. Refuses what `read` would refuse.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let bytes = self.to_bytes().map_err(|fault| fault.of(path))?;
        let refused = |source| RecordError::File { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(refused)?;
        }
        // Renamed into place, so that a record is whole or not there.
        let draft = path.with_extension("json.tmp");
        fs::write(&draft, bytes).map_err(refused)?;
        fs::rename(&draft, path).map_err(refused)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        // The version first: a later one may have other fields.
        let Versioned { version } = parse(bytes)?;
        if version != RECORD_VERSION {
            return Err(Fault::new("version", format!("{version}, expected {RECORD_VERSION}")));
        }
        let record: Self = parse(bytes)?;
        record.check()?;
        Ok(record)
    }

    fn to_bytes(&self) -> Result<Vec<u8>, Fault> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|error| Fault::new("record", error.to_string()))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn check(&self) -> Result<(), Fault> {
        for (field, text) in [("system", &self.system), ("group", &self.group), ("dataset.name", &self.dataset.name)] {
            if text.trim().is_empty() {
                return Err(Fault::new(field, "is empty".to_owned()));
            }
        }
        if self.trials == 0 || self.trials > self.dataset.users {
            let problem = format!("{}, expected 1 to the data set's {} users", self.trials, self.dataset.users);
            return Err(Fault::new("trials", problem));
        }
        scores("test", &self.test)?;
        if let Some(validation) = &self.validation {
            scores("validation", validation)?;
        }
        for (at, epoch) in self.epochs.iter().enumerate() {
            share(&format!("epochs[{at}].recall_at_10"), epoch.recall_at_10)?;
            share(&format!("epochs[{at}].ndcg_at_10"), epoch.ndcg_at_10)?;
            finite(&format!("epochs[{at}].scorer_loss"), epoch.scorer_loss)?;
            finite(&format!("epochs[{at}].seconds"), epoch.seconds)?;
            finite(&format!("epochs[{at}].sequences_per_second"), epoch.sequences_per_second)?;
        }
        if let Some(best) = self.best_epoch
            && !self.epochs.iter().any(|epoch| epoch.epoch == best)
        {
            return Err(Fault::new("best_epoch", format!("{best}, which is none of the epochs")));
        }
        if let Some(slices) = &self.slices {
            self.check_slices(slices)?;
        }
        if let Some(tokens) = &self.tokens {
            for (at, codebook) in tokens.codebooks.iter().enumerate() {
                finite(&format!("tokens.codebooks[{at}].perplexity"), codebook.perplexity)?;
            }
            finite("tokens.variance_left", tokens.variance_left.unwrap_or(0.0))?;
        }
        for (at, bin) in self.calibration.iter().flat_map(|calibration| &calibration.bins).enumerate() {
            share(&format!("calibration.bins[{at}].belief"), bin.belief)?;
            share(&format!("calibration.bins[{at}].accuracy"), bin.accuracy)?;
        }
        finite("seconds", self.seconds.unwrap_or(0.0))
    }

    fn check_slices(&self, slices: &Slices) -> Result<(), Fault> {
        for (name, rows) in [("slices.popularity", &slices.popularity), ("slices.history", &slices.history)] {
            let trials: usize = rows.iter().map(|slice| slice.trials).sum();
            if trials != self.trials {
                return Err(Fault::new(name, format!("{trials} trials together, expected {}", self.trials)));
            }
            for (at, slice) in rows.iter().enumerate() {
                share(&format!("{name}[{at}].recall_at_10"), slice.recall_at_10)?;
                share(&format!("{name}[{at}].ndcg_at_10"), slice.ndcg_at_10)?;
            }
        }
        Ok(())
    }
}

/// What is wrong with a field, before the file is known.
struct Fault {
    field: String,
    problem: String,
}

impl Fault {
    fn new(field: &str, problem: String) -> Self {
        Self { field: field.to_owned(), problem }
    }

    fn of(self, path: &Path) -> RecordError {
        RecordError::Field { path: path.to_owned(), field: self.field, problem: self.problem }
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Fault> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        Fault::new(if field == "." { "record" } else { &field }, error.into_inner().to_string())
    })
}

fn scores(field: &str, scores: &Scores) -> Result<(), Fault> {
    for (part, metrics) in [("filtered", scores.filtered), ("all", scores.all)] {
        for (name, value) in metrics.named() {
            share(&format!("{field}.{part}.{name}"), value)?;
        }
    }
    Ok(())
}

fn share(field: &str, value: f64) -> Result<(), Fault> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Fault::new(field, format!("{value}, expected 0 to 1")))
}

fn finite(field: &str, value: f64) -> Result<(), Fault> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Fault::new(field, format!("{value}, expected a finite number, not negative")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Metrics;

    fn record() -> RunRecord {
        let label = RunLabel { system: "reg4rec".into(), group: "headline".into(), preset: None, seed: 1 };
        let dataset = DatasetFacts { name: "beauty".into(), users: 3, items: 5 };
        let filtered = Metrics { recall_at_10: 0.5, ..Metrics::default() };
        let scores = Scores { filtered, all: Metrics::default() };
        let placed = Placed { scores, places: vec![Some(3), None] };
        let slices = Slices::of(&[], &[], &[1, 2, 3, 4, 0]);
        let mut record = RunRecord::new(label, dataset, &placed, slices);
        record.slices = None;
        record
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/run.json");
        let mut record = record();
        record.preset = Some("quick".into());
        record.epochs = vec![EpochPoint {
            epoch: 0,
            scorer_loss: 8.1,
            recall_at_10: 0.02,
            ndcg_at_10: 0.01,
            seconds: 40.0,
            sequences_per_second: 400.0,
        }];
        record.best_epoch = Some(0);
        record.machine = Machine::here();
        record.notes = vec!["one seed".into()];
        record.write(&path).unwrap();
        assert_eq!(RunRecord::read(&path).unwrap(), record);
    }

    #[test]
    fn unknown_fields_and_absent_optional_ones_are_no_fault() {
        let mut json = serde_json::to_value(record()).unwrap();
        json["mood"] = "good".into();
        let object = json.as_object_mut().unwrap();
        for optional in ["settings", "epochs"] {
            object.remove(optional);
        }
        let bytes = serde_json::to_vec(&json).unwrap();
        assert!(RunRecord::from_bytes(&bytes).is_ok_and(|found| found == record()));
    }

    #[test]
    fn an_error_names_the_file_and_the_field() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run.json");
        let good = serde_json::to_value(record()).unwrap();
        let told = |change: &dyn Fn(&mut Value)| {
            let mut json = good.clone();
            change(&mut json);
            fs::write(&path, serde_json::to_vec(&json).unwrap()).unwrap();
            RunRecord::read(&path).unwrap_err().to_string()
        };
        for (change, wanted) in [
            (&(|json: &mut Value| json["test"]["filtered"]["recall@10"] = 1.5.into()) as &dyn Fn(&mut Value), "1.5"),
            (&|json| json["test"]["filtered"]["recall@10"] = "high".into(), "test.filtered.recall@10"),
            (&|json| drop(json.as_object_mut().unwrap().remove("system")), "`system`"),
            (&|json| json["best_epoch"] = 4.into(), "best_epoch"),
            (&|json| json["group"] = " ".into(), "group: is empty"),
            (&|json| json["version"] = 9.into(), "version: 9, expected 1"),
            (&|json| json["trials"] = 4.into(), "trials: 4"),
        ] {
            let told = told(change);
            assert!(told.contains("run.json") && told.contains(wanted), "{told}");
        }
        assert!(RunRecord::read(&home.path().join("none.json")).unwrap_err().to_string().contains("none.json"));
    }

    #[test]
    fn what_is_no_number_is_not_written() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run.json");
        let mut record = record();
        record.test.all.ndcg_at_5 = f64::NAN;
        assert!(record.write(&path).unwrap_err().to_string().contains("test.all.ndcg@5"));
        assert!(!path.exists());
    }
}
