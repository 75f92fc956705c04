//! The experiments and shadow arms that operators set while the server runs: a book of versions on disk. Once it holds a version, the
//! newest one counts, and the experiments of the server's own settings no longer do; the force token and the kill switch
//! stay those of the settings.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::{ExperimentsChange, ExperimentsEdition, Failure, Violation};

use super::config::{ExperimentConfig, ExperimentsConfig, ShadowConfig};

/// The version of the file's layout.
const FORMAT: u32 = 1;
/// Older versions than so many are dropped.
const KEPT: usize = 200;
/// Longest settings and notes, in bytes.
const LONGEST_SETTINGS: usize = 1 << 20;
const LONGEST_NOTE: usize = 4096;

/// Why a book cannot be read.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct BookError {
    /// Its file.
    pub path: PathBuf,
    /// What was found, and what was expected.
    pub reason: String,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pages {
    format: u32,
    /// Oldest first.
    editions: Vec<Page>,
}

/// One version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    version: u64,
    unix_ms: u64,
    client: String,
    note: String,
    settings: String,
}

/// What the text of a version holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    experiment: Vec<ExperimentConfig>,
    shadow: Vec<ShadowConfig>,
}

/// The book, open.
#[derive(Debug)]
pub struct ExperimentBook {
    /// None: what is set lasts as long as the process would; so nothing may be set.
    path: Option<PathBuf>,
    settings: ExperimentsConfig,
    opened: SystemTime,
    /// Oldest first.
    pages: Vec<Page>,
}

impl ExperimentBook {
    /// Reads the book at `settings.path`, where it may not be yet.
    ///
    /// # Errors
    /// When the file cannot be read, is no such book, or its newest version is refused together with the settings.
    pub fn open(settings: &ExperimentsConfig) -> Result<Self, BookError> {
        let path = Some(settings.path.clone()).filter(|path| !path.as_os_str().is_empty());
        let mut book =
            Self { path: path.clone(), settings: settings.clone(), opened: SystemTime::now(), pages: Vec::new() };
        let Some(path) = path else { return Ok(book) };
        let wrong = |reason: String| BookError { path: path.clone(), reason };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(book),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let pages: Pages = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if pages.format != FORMAT {
            return Err(wrong(format!("format {}, expected {FORMAT}", pages.format)));
        }
        book.pages = pages.editions;
        book.running().map_err(|problems| {
            let told: Vec<String> =
                problems.iter().map(|one| format!("{} is {}", one.field, one.description)).collect();
            wrong(format!("version {}: {}", book.version(), told.join("; ")))
        })?;
        Ok(book)
    }

    /// The version that runs; 0: that of the settings.
    pub fn version(&self) -> u64 {
        self.pages.last().map_or(0, |page| page.version)
    }

    /// The settings with the experiments that run.
    ///
    /// # Errors
    /// A violation for every field of them that is wrong.
    pub fn running(&self) -> Result<ExperimentsConfig, Vec<Violation>> {
        match self.pages.last() {
            Some(page) => self.with(&page.settings),
            None => Ok(self.settings.clone()),
        }
    }

    /// The version that runs.
    pub fn current(&self) -> ExperimentsEdition {
        self.pages.last().map_or_else(|| self.of_settings(), edition)
    }

    /// Those before it, newest first, at most so many.
    pub fn before(&self, most: usize) -> Vec<ExperimentsEdition> {
        let older = self.pages.iter().rev().skip(1).map(edition);
        let settings = (!self.pages.is_empty()).then(|| self.of_settings());
        older.chain(settings).take(most).collect()
    }

    fn of_settings(&self) -> ExperimentsEdition {
        let settings = shown(&self.settings);
        let (note, client) = ("the server's settings".to_owned(), String::new());
        ExperimentsEdition { version: 0, settings, note, client, time: self.opened }
    }

    /// Makes the change the newest version, on disk when this returns, and answers the settings that now run. A change
    /// that is only checked answers what would.
    ///
    /// # Errors
    /// `Invalid` with every wrong field; `Unmet` when another version runs than the one to be replaced, and when there is
    /// no file to keep it; `Internal` when the file cannot be written: then nothing has changed.
    pub fn change(&mut self, change: ExperimentsChange) -> Result<ExperimentsConfig, Failure> {
        let ExperimentsChange { replaces, settings, note, client, check_only } = change;
        let mut wrong = Vec::new();
        for (field, text, most) in [("settings", &settings, LONGEST_SETTINGS), ("note", &note, LONGEST_NOTE)] {
            if text.len() > most {
                wrong.push(Violation::new(field, format!("{} bytes: expected at most {most}", text.len())));
            }
        }
        if !wrong.is_empty() {
            return Err(Failure::Invalid(wrong));
        }
        let running = self.with(&settings).map_err(Failure::Invalid)?;
        let version = self.version();
        if let Some(replaces) = replaces.filter(|replaces| *replaces != version) {
            let reason = format!("version {version} runs, expected version {replaces}: somebody changed it meanwhile");
            return Err(Failure::Unmet { code: "VERSION_CHANGED", reason });
        }
        let Some(path) = &self.path else {
            let reason = "experiments.path is not set: there is no file to keep what is set".to_owned();
            return Err(Failure::Unmet { code: "NO_EXPERIMENTS_FILE", reason });
        };
        if check_only {
            return Ok(running);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut editions = self.pages.clone();
        editions.push(Page { version: version + 1, unix_ms, client, note, settings });
        editions.drain(..editions.len().saturating_sub(KEPT));
        let pages = Pages { format: FORMAT, editions };
        write(path, &pages).map_err(|error| Failure::Internal(format!("{}: {error}", path.display())))?;
        self.pages = pages.editions;
        Ok(running)
    }

    /// The settings with the experiments of a text.
    fn with(&self, text: &str) -> Result<ExperimentsConfig, Vec<Violation>> {
        let given: Given = toml::from_str(text)
            .map_err(|error| vec![Violation::new("settings", error.to_string().trim().to_owned())])?;
        let config = ExperimentsConfig { experiment: given.experiment, shadow: given.shadow, ..self.settings.clone() };
        let within = |wrong: Violation| Violation::new(format!("settings.{}", wrong.field), wrong.description);
        config.validate().map_err(|wrong| wrong.into_iter().map(within).collect::<Vec<_>>())?;
        Ok(config)
    }
}

fn edition(page: &Page) -> ExperimentsEdition {
    let Page { version, unix_ms, client, note, settings } = page.clone();
    ExperimentsEdition { version, settings, note, client, time: UNIX_EPOCH + Duration::from_millis(unix_ms) }
}

/// Experiments as a text that a change may hold.
fn shown(settings: &ExperimentsConfig) -> String {
    let (experiment, shadow) = (settings.experiment.clone(), settings.shadow.clone());
    let Ok(mut table) = toml::Table::try_from(Given { experiment, shadow }) else { return String::new() };
    let list = table.get_mut("experiment").and_then(toml::Value::as_array_mut);
    for one in list.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
        for name in ["start", "end"] {
            // Kept as seconds, and written as a time.
            let seconds = one.get(name).and_then(toml::Value::as_integer);
            let moment =
                seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok());
            if let Some(moment) = moment {
                one.insert(name.to_owned(), moment.into());
            }
        }
    }
    toml::to_string(&table).unwrap_or_default()
}

/// Puts the pages in the file's place, whole or not at all.
fn write(path: &Path, pages: &Pages) -> io::Result<()> {
    let text = serde_json::to_string_pretty(pages)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let draft = path.with_extension("draft");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ONE: &str = "[[experiment]]\nkey = \"one\"\nstart = \"2026-01-01T00:00:00Z\"\narms = [{ name = \"a\" }, { name = \"b\", decode = { beam = 40 } }]\n";

    fn settings(path: &Path) -> ExperimentsConfig {
        let given: Given = toml::from_str(ONE).unwrap();
        ExperimentsConfig { path: path.to_owned(), experiment: given.experiment, ..ExperimentsConfig::default() }
    }

    fn change(replaces: Option<u64>, settings: &str) -> ExperimentsChange {
        ExperimentsChange { replaces, settings: settings.into(), note: "why".into(), ..ExperimentsChange::default() }
    }

    #[test]
    fn versions_replace_each_other_in_turn_and_are_found_again() {
        let home = tempfile::tempdir().unwrap();
        let settings = settings(&home.path().join("state/experiments.json"));
        let mut book = ExperimentBook::open(&settings).unwrap();
        assert_eq!((book.version(), book.running().unwrap()), (0, settings.clone()));
        // What the settings say, said as a change, is the same.
        assert_eq!(book.with(&book.current().settings).unwrap(), settings);
        let two = ONE.replace("one", "two");
        assert_eq!(book.change(change(Some(0), &two)).unwrap().experiment[0].key, "two");
        for stale in [0, 2] {
            let refused = book.change(change(Some(stale), ONE)).unwrap_err();
            assert!(matches!(refused, Failure::Unmet { code: "VERSION_CHANGED", .. }), "{refused}");
        }
        let checked = book.change(ExperimentsChange { check_only: true, ..change(Some(1), "") }).unwrap();
        assert!(checked.experiment.is_empty());
        assert_eq!(book.change(change(None, "")).unwrap().experiment, []);
        drop(book);
        let book = ExperimentBook::open(&settings).unwrap();
        assert_eq!((book.version(), book.running().unwrap().experiment.len()), (2, 0));
        let before: Vec<(u64, String)> = book.before(9).into_iter().map(|one| (one.version, one.settings)).collect();
        assert_eq!(before[0], (1, two));
        assert_eq!((before.len(), before[1].0, book.before(1).len()), (2, 0, 1));
    }

    #[test]
    fn what_is_wrong_is_named_and_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let settings = settings(&home.path().join("book.json"));
        let mut book = ExperimentBook::open(&settings).unwrap();
        for (text, field, named) in [
            ("experiment = 1", "settings", "invalid type"),
            ("[[experiment]]\nkey = \"k\"\narmz = 1", "settings", "armz"),
            ("force_token = \"0123456789abcdef\"", "settings", "force_token"),
            (
                "[[experiment]]\nkey = \"k\"\ncoverage = 2.0\narms = [{ name = \"a\" }]",
                "settings.experiment[0].coverage",
                "0 to 1",
            ),
        ] {
            let Failure::Invalid(wrong) = book.change(change(None, text)).unwrap_err() else { panic!("{text}") };
            assert_eq!(wrong[0].field, field, "{wrong:?}");
            assert!(wrong[0].description.contains(named), "{wrong:?}");
        }
        let long = "#".repeat(LONGEST_SETTINGS + 1);
        assert!(matches!(book.change(change(None, &long)), Err(Failure::Invalid(_))));
        assert!(!settings.path.exists());
        let nowhere = ExperimentsConfig { path: PathBuf::new(), ..settings.clone() };
        let refused = ExperimentBook::open(&nowhere).unwrap().change(change(None, ONE)).unwrap_err();
        assert!(matches!(refused, Failure::Unmet { code: "NO_EXPERIMENTS_FILE", .. }), "{refused}");
        for text in ["", "{}", "{\"format\": 2, \"editions\": []}"] {
            fs::write(&settings.path, text).unwrap();
            assert!(ExperimentBook::open(&settings).unwrap_err().to_string().contains("book.json"));
        }
    }
}
