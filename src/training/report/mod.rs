//! `report`: run records in, one page for people out, and the same tables as Markdown.

mod charts;
mod figures;
mod html;
mod markdown;
mod sections;
mod settings;
mod svg;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;

use self::sections::{Names, sections};
use crate::evaluation::{RunRecord, Summary};

/// `report`: a page of run records.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Directory with run records; every .json file in it and below is one
    #[arg(long, value_name = "DIR")]
    pub runs: PathBuf,
    /// The page to write
    #[arg(long, value_name = "HTML")]
    pub out: PathBuf,
    /// Also write the tables as Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// The system that tables compare with
    #[arg(long, value_name = "SYSTEM", default_value = "sasrec")]
    pub reference: String,
    /// The system that ablations are compared with
    #[arg(long, value_name = "SYSTEM", default_value = "reg4rec")]
    pub base: String,
}

/// Writes the page, and says of how many runs. The same records give the same bytes.
pub fn run(args: &ReportArgs) -> anyhow::Result<usize> {
    let records = read(&args.runs)?;
    let names = Names { reference: &args.reference, base: &args.base };
    let sections = sections(&Summary::of(&records), names);
    let write = |path: &Path, text: String| fs::write(path, text).with_context(|| format!("{}", path.display()));
    write(&args.out, html::page(&sections))?;
    if let Some(path) = &args.markdown {
        write(path, markdown::page(&sections))?;
    }
    Ok(records.len())
}

/// Every record below `directory`, in the order of their paths. All bad files are named at once.
fn read(directory: &Path) -> anyhow::Result<Vec<RunRecord>> {
    let paths = record_paths(directory)?;
    ensure!(!paths.is_empty(), "{}: no run records (*.json) in it or below", directory.display());
    let (mut records, mut faults) = (Vec::with_capacity(paths.len()), Vec::new());
    let mut known: BTreeMap<_, &Path> = BTreeMap::new();
    for path in &paths {
        match RunRecord::read(path) {
            Ok(record) => {
                let RunRecord { system, group, dataset, preset, seed, .. } = record.clone();
                // The same run twice would pass for two seeds that agree.
                if let Some(other) = known.insert((dataset, group, system, preset, seed), path) {
                    let (one, two) = (other.display(), path.display());
                    faults.push(format!("{two}: the same system, group, data, preset and seed as {one}"));
                }
                records.push(record);
            }
            Err(error) => faults.push(error.to_string()),
        }
    }
    if !faults.is_empty() {
        bail!("{} of {} records are no good:\n{}", faults.len(), paths.len(), faults.join("\n"));
    }
    Ok(records)
}

fn record_paths(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = open.pop() {
        let named = || format!("{}", directory.display());
        for entry in fs::read_dir(&directory).with_context(named)? {
            let path = entry.with_context(named)?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|kind| kind == "json") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
