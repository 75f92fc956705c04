//! Foreign sources into the layout that everything here reads: Amazon reviews, MovieLens, CSV files, event logs.
//!
//! A source that knows one kind of event gives events of the default kind, as a client that names none sends them; a
//! rating goes along as the event's value. Events are ordered by time, ties in the order of the source.

mod amazon;
mod draft;
mod error;
mod literal;
mod log;
mod moment;
mod movielens;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};

pub use self::error::ImportError;
pub use self::moment::TimeUnit;
use crate::training::dataset::Summary;

/// What to import.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ImportArgs {
    /// The source.
    #[command(subcommand)]
    pub source: Source,
}

/// The sources that are understood.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Source {
    /// Amazon reviews and metadata of 2014 or 2018, a line an object, plain or gzip.
    Amazon(AmazonArgs),
    /// MovieLens: a directory with ratings.dat and movies.dat (1M), or with ratings.csv and movies.csv (later ones).
    Movielens(MovielensArgs),
    /// CSV files, plain or gzip, whose first line names the columns.
    Csv(CsvArgs),
    /// The event log of a server, after the data set that its model was fitted on.
    Events(EventsArgs),
}

/// Amazon reviews and metadata.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct AmazonArgs {
    /// The reviews, as in reviews_Beauty_5.json.gz.
    #[arg(long)]
    pub reviews: PathBuf,
    /// The metadata, as in meta_Beauty.json.gz.
    #[arg(long)]
    pub meta: PathBuf,
    /// Directory to write interactions.parquet and items.parquet into.
    #[arg(long)]
    pub out: PathBuf,
    /// Keep users and items with at least this many events among themselves; 0 keeps all.
    #[arg(long, default_value_t = 5)]
    pub k_core: usize,
}

/// A MovieLens directory.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MovielensArgs {
    /// The unpacked archive.
    #[arg(long)]
    pub dir: PathBuf,
    /// Directory to write interactions.parquet and items.parquet into.
    #[arg(long)]
    pub out: PathBuf,
    /// Keep users and items with at least this many events among themselves; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    pub k_core: usize,
}

/// CSV files.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CsvArgs {
    /// The events, a line each.
    #[arg(long)]
    pub interactions: PathBuf,
    /// The items, a line each; without it items are known by their ids alone.
    #[arg(long)]
    pub items: Option<PathBuf>,
    /// Directory to write interactions.parquet and items.parquet into.
    #[arg(long)]
    pub out: PathBuf,
    /// Which column is what, as in user=visitor,item=sku,time=ts. Of events: user, item, time, kind, value. Of items:
    /// id (as item when left out), title, brand, categories, price, text. What is not named has its own name.
    #[arg(long, value_delimiter = ',', value_name = "FIELD=COLUMN")]
    pub map: Vec<String>,
    /// The source's words for kinds of events, as in addtocart=cart,transaction=purchase.
    #[arg(long, value_delimiter = ',', value_name = "WORD=KIND")]
    pub kinds: Vec<String>,
    /// How times are written.
    #[arg(long, value_enum, default_value_t)]
    pub time_unit: TimeUnit,
    /// What stands between fields.
    #[arg(long, default_value_t = ',')]
    pub delimiter: char,
    /// What stands between an item's categories.
    #[arg(long, default_value = "|")]
    pub category_separator: String,
    /// Keep users and items with at least this many events among themselves; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    pub k_core: usize,
}

/// An event log.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct EventsArgs {
    /// The log's directory; a server may be writing it.
    #[arg(long)]
    pub log: PathBuf,
    /// A data set whose items and events come before those of the log.
    #[arg(long, value_name = "DIR")]
    pub after: Option<PathBuf>,
    /// Directory to write interactions.parquet and items.parquet into.
    #[arg(long)]
    pub out: PathBuf,
    /// Keep users and items with at least this many events among themselves; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    pub k_core: usize,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// What was written.
    pub summary: Summary,
    /// What was left out, taken once or missing, in words.
    pub notes: Vec<String>,
}

impl fmt::Display for Imported {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.summary)?;
        self.notes.iter().try_for_each(|note| write!(out, "\n  {note}"))
    }
}

/// Reads a source and writes it in the layout.
pub fn run(args: &ImportArgs) -> Result<Imported, ImportError> {
    let (finished, out) = match &args.source {
        Source::Amazon(args) => (amazon::import(args)?, &args.out),
        Source::Movielens(args) => (movielens::import(args)?, &args.out),
        Source::Csv(args) => (table::import(args)?, &args.out),
        Source::Events(args) => (log::import(args)?, &args.out),
    };
    finished.data.write(out)?;
    Ok(Imported { summary: finished.data.summary(), notes: finished.notes })
}
