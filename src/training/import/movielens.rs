//! MovieLens: the 1M release (`ratings.dat`, `movies.dat`, fields between `::`, Latin-1) and the later ones
//! (`ratings.csv`, `movies.csv`).

use std::path::Path;

use super::draft::{Draft, Finished, Told};
use super::source::{self, Encoding, Lines};
use super::{ImportError, MovielensArgs};
use crate::domain::{EventKind, Item};
use crate::training::dataset::DatasetItem;

const NO_GENRES: &str = "(no genres listed)";

/// Reads whichever layout the directory holds.
pub(super) fn import(args: &MovielensArgs) -> Result<Finished, ImportError> {
    let mut draft = Draft::timed();
    let path = |name: &str| args.dir.join(name);
    if path("ratings.dat").is_file() {
        read_dat(&path("ratings.dat"), 4, |file, line, fields| rating(&mut draft, file, line, fields))?;
        read_dat(&path("movies.dat"), 3, |file, line, fields| movie(&mut draft, file, line, fields))?;
    } else if path("ratings.csv").is_file() {
        let columns = ["userId", "movieId", "rating", "timestamp"];
        read_csv(&path("ratings.csv"), &columns, |file, line, fields| rating(&mut draft, file, line, fields))?;
        let columns = ["movieId", "title", "genres"];
        read_csv(&path("movies.csv"), &columns, |file, line, fields| movie(&mut draft, file, line, fields))?;
    } else {
        let problem = "holds neither ratings.dat and movies.dat nor ratings.csv and movies.csv";
        return Err(ImportError::Layout { directory: args.dir.clone(), problem });
    }
    Ok(draft.finish(args.k_core)?)
}

/// User, movie, rating, time. Its kind is the default one, as in every source that knows but one kind of event.
fn rating(draft: &mut Draft, file: &Path, line: u64, fields: &[&str]) -> Result<(), ImportError> {
    let [user, movie, rating, time] = fields else {
        return Err(ImportError::line(file, line, "fields", format!("{}, expected 4", fields.len())));
    };
    let value: f32 = number(file, line, "rating", rating)?;
    if !value.is_finite() {
        return Err(ImportError::line(file, line, "rating", format!("{value}, expected a finite number")));
    }
    let _: i64 = number(file, line, "user", user)?;
    let _: i64 = number(file, line, "movie", movie)?;
    let time = number(file, line, "timestamp", time)?;
    draft.event(&Told { user, item: movie, time, kind: EventKind::default(), value: Some(value) });
    Ok(())
}

/// Movie, title, genres between bars. A movie's genres are its categories, in the order given.
fn movie(draft: &mut Draft, file: &Path, line: u64, fields: &[&str]) -> Result<(), ImportError> {
    let [movie, title, genres] = fields else {
        return Err(ImportError::line(file, line, "fields", format!("{}, expected 3", fields.len())));
    };
    let _: i64 = number(file, line, "movie", movie)?;
    let categories = genres.split('|').map(str::trim).filter(|genre| !genre.is_empty() && *genre != NO_GENRES);
    let item = Item {
        id: (*movie).to_owned(),
        title: Some((*title).to_owned()).filter(|title| !title.trim().is_empty()),
        brand: None,
        categories: categories.map(str::to_owned).collect(),
        price: None,
        eligible: true,
    };
    if !draft.describe(DatasetItem { item, text: None, embedding: None }) {
        return Err(ImportError::line(file, line, "movie", format!("{movie} twice, expected it once")));
    }
    Ok(())
}

fn number<T: std::str::FromStr>(file: &Path, line: u64, field: &str, text: &str) -> Result<T, ImportError> {
    text.parse().map_err(|_| ImportError::line(file, line, field, format!("{text:?}, expected a number")))
}

fn read_dat(
    file: &Path,
    fields: usize,
    mut take: impl FnMut(&Path, u64, &[&str]) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut lines = Lines::open(file, Encoding::Latin1)?;
    while let Some(line) = lines.next_line()? {
        let parts: Vec<&str> = line.text.splitn(fields, "::").collect();
        take(file, line.number, &parts)?;
    }
    Ok(())
}

fn read_csv(
    file: &Path,
    columns: &[&str],
    mut take: impl FnMut(&Path, u64, &[&str]) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let mut reader = source::csv(file, b',')?;
    let header = reader.headers().map_err(|error| source::csv_error(file, error))?.clone();
    let places: Vec<usize> =
        columns.iter().map(|column| source::place(file, &header, column)).collect::<Result<_, _>>()?;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| source::csv_error(file, error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let fields: Vec<&str> = places.iter().map(|&place| &record[place]).collect();
        take(file, line, &fields)?;
    }
    Ok(())
}
