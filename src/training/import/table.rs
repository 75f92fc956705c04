//! CSV files of any shop: columns are named by a mapping.

use std::collections::BTreeMap;
use std::path::Path;

use super::draft::{Draft, Finished, Told};
use super::moment::{TimeUnit, moment};
use super::source;
use super::{CsvArgs, ImportError};
use crate::domain::{EventKind, Item};
use crate::training::dataset::DatasetItem;

/// What a column can stand for; without a mapping it is looked for under this very name.
const FIELDS: [&str; 11] =
    ["user", "item", "time", "kind", "value", "id", "title", "brand", "categories", "price", "text"];

/// Reads events and, where there are any, items.
pub(super) fn import(args: &CsvArgs) -> Result<Finished, ImportError> {
    let mapping = pairs("map", &args.map)?;
    if let Some(unknown) = mapping.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        let problem = format!("expected pairs FIELD=COLUMN with fields {}", FIELDS.join(", "));
        return Err(ImportError::Flag { flag: "map", value: unknown.clone(), problem });
    }
    let kinds = kinds(&args.kinds)?;
    let mut draft = read_events(args, &mapping, &kinds)?;
    if let Some(file) = &args.items {
        read_items(args, file, &mapping, &mut draft)?;
    }
    Ok(draft.finish(args.k_core)?)
}

/// `a=b` pairs; none twice.
fn pairs(flag: &'static str, given: &[String]) -> Result<BTreeMap<String, String>, ImportError> {
    let mut pairs = BTreeMap::new();
    for pair in given {
        let wrong = |problem: &str| ImportError::Flag { flag, value: pair.clone(), problem: problem.to_owned() };
        let Some((name, value)) = pair.split_once('=') else { return Err(wrong("expected NAME=VALUE")) };
        if pairs.insert(name.trim().to_owned(), value.trim().to_owned()).is_some() {
            return Err(wrong("named twice"));
        }
    }
    Ok(pairs)
}

/// The source's words for kinds, besides ours.
fn kinds(given: &[String]) -> Result<BTreeMap<String, EventKind>, ImportError> {
    let mut kinds: BTreeMap<String, EventKind> =
        EventKind::ALL.into_iter().map(|kind| (kind.name().to_owned(), kind)).collect();
    for (word, name) in pairs("kinds", given)? {
        let Some(kind) = EventKind::named(&name) else {
            let known = EventKind::ALL.map(EventKind::name).join(", ");
            return Err(ImportError::Flag { flag: "kinds", value: name, problem: format!("expected one of {known}") });
        };
        kinds.insert(word, kind);
    }
    Ok(kinds)
}

/// The columns of one file, by what they stand for.
struct Columns<'a> {
    file: &'a Path,
    header: csv::StringRecord,
    mapping: &'a BTreeMap<String, String>,
}

impl Columns<'_> {
    fn name<'b>(&'b self, field: &'b str) -> &'b str {
        self.mapping.get(field).map_or(field, String::as_str)
    }

    fn required(&self, field: &str) -> Result<usize, ImportError> {
        source::place(self.file, &self.header, self.name(field))
    }

    /// A column may be missing, but not when a mapping names it.
    fn optional(&self, field: &str) -> Result<Option<usize>, ImportError> {
        if self.mapping.contains_key(field) {
            return self.required(field).map(Some);
        }
        Ok(self.header.iter().position(|name| name == field))
    }
}

/// One line's fields; empty ones read as none.
struct Fields<'a> {
    file: &'a Path,
    record: &'a csv::StringRecord,
}

impl Fields<'_> {
    fn at(&self, place: Option<usize>) -> Option<&str> {
        self.record.get(place?).filter(|text| !text.is_empty())
    }

    fn wrong(&self, field: &str, problem: impl Into<String>) -> ImportError {
        ImportError::line(self.file, self.record.position().map_or(0, csv::Position::line), field, problem)
    }

    fn id(&self, field: &str, place: usize) -> Result<&str, ImportError> {
        self.at(Some(place)).ok_or_else(|| self.wrong(field, "empty, expected an id"))
    }

    fn number(&self, field: &str, place: Option<usize>) -> Result<Option<f32>, ImportError> {
        let Some(text) = self.at(place) else { return Ok(None) };
        match text.parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.wrong(field, format!("{text:?}, expected a finite number"))),
        }
    }
}

fn read_events(
    args: &CsvArgs,
    mapping: &BTreeMap<String, String>,
    kinds: &BTreeMap<String, EventKind>,
) -> Result<Draft, ImportError> {
    let file = args.interactions.as_path();
    let mut reader = source::csv(file, delimiter(args)?)?;
    let header = reader.headers().map_err(|error| source::csv_error(file, error))?.clone();
    let columns = Columns { file, header, mapping };
    let (user, item) = (columns.required("user")?, columns.required("item")?);
    let (kind, value) = (columns.optional("kind")?, columns.optional("value")?);
    let time = match args.time_unit {
        TimeUnit::Order => None,
        _ => Some(columns.required("time")?),
    };
    let mut draft = if time.is_some() { Draft::timed() } else { Draft::default() };
    let mut record = csv::StringRecord::new();
    let mut row = 0;
    while reader.read_record(&mut record).map_err(|error| source::csv_error(file, error))? {
        let fields = Fields { file, record: &record };
        let kind = match fields.at(kind) {
            None => EventKind::default(),
            Some(word) => *kinds.get(word).ok_or_else(|| {
                let known: Vec<&str> = kinds.keys().map(String::as_str).collect();
                fields.wrong("kind", format!("{word:?}, expected one of {} (see --kinds)", known.join(", ")))
            })?,
        };
        let time = match time {
            None => row,
            Some(place) => {
                let text = fields.id("time", place)?;
                moment(text, args.time_unit).map_err(|problem| fields.wrong("time", problem))?
            }
        };
        let value = fields.number("value", value)?;
        draft.event(&Told { user: fields.id("user", user)?, item: fields.id("item", item)?, time, kind, value });
        row += 1;
    }
    Ok(draft)
}

fn read_items(
    args: &CsvArgs,
    file: &Path,
    mapping: &BTreeMap<String, String>,
    draft: &mut Draft,
) -> Result<(), ImportError> {
    let mut reader = source::csv(file, delimiter(args)?)?;
    let header = reader.headers().map_err(|error| source::csv_error(file, error))?.clone();
    let columns = Columns { file, header, mapping };
    let id = columns.required(if mapping.contains_key("id") { "id" } else { "item" })?;
    let (title, brand) = (columns.optional("title")?, columns.optional("brand")?);
    let (categories, text) = (columns.optional("categories")?, columns.optional("text")?);
    let price = columns.optional("price")?;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| source::csv_error(file, error))? {
        let fields = Fields { file, record: &record };
        let owned = |place| fields.at(place).map(str::to_owned);
        let names = fields.at(categories).unwrap_or_default().split(args.category_separator.as_str());
        let item = Item {
            id: fields.id("id", id)?.to_owned(),
            title: owned(title),
            brand: owned(brand),
            categories: names.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            price: fields.number("price", price)?,
            eligible: true,
        };
        if item.price.is_some_and(|price| price < 0.0) {
            return Err(fields.wrong("price", "below zero, expected a price"));
        }
        let text = owned(text);
        let id = item.id.clone();
        if !draft.describe(DatasetItem { item, text, embedding: None }) {
            return Err(fields.wrong("id", format!("{id:?} twice, expected it once")));
        }
    }
    Ok(())
}

fn delimiter(args: &CsvArgs) -> Result<u8, ImportError> {
    u8::try_from(args.delimiter).ok().filter(u8::is_ascii).ok_or_else(|| ImportError::Flag {
        flag: "delimiter",
        value: args.delimiter.to_string(),
        problem: "expected one ASCII character".to_owned(),
    })
}
