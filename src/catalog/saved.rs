//! An index as a file: written once, read in the time that its bytes take.
//!
//! The file holds the index's arrays as they are in memory, and the titles, which stay there. It is a copy of what the
//! bundle's items say, made for one table of items (`key`): whoever finds it missing, damaged, or of other items builds
//! the index anew.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::domain::{CodeShape, CodeTable};

use super::attributes::{Attributes, Kinds, Rows};
use super::candidates::Candidates;
use super::code_order::CodeOrder;
use super::column::Column;
use super::cooccurrence::Cooccurrence;
use super::crowds::Crowds;
use super::dictionary::{Dictionary, Texts};
use super::index::{Index, Paths};
use super::postings::Postings;
use super::sections::{SectionReader, SectionWriter};
use super::titles::{ENTRY, NONE, TitleFile, Titles};

/// Items whose titles are written at a time.
const TITLES: usize = 4096;

/// What a saved index must fit to be used, and what it does not hold itself.
#[derive(Debug, Clone)]
pub struct SavedFor {
    /// Names the table of items that the index is of: its sha256, say.
    pub key: String,
    /// Items.
    pub items: usize,
    /// M and D.
    pub shape: CodeShape,
    /// Names of the classes of the category head.
    pub category_names: Vec<String>,
    /// The version of the index.
    pub version: String,
}

impl Index {
    /// Writes the index to `path`, whole or not at all, as that of the items that `key` names.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, path: &Path, key: &str) -> io::Result<()> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("index");
        let draft = path.with_file_name(format!("{name}.{}.tmp", std::process::id()));
        let written = self.write(&draft, key).and_then(|()| fs::rename(&draft, path));
        if written.is_err() {
            // The first error is told; that a draft could not be removed adds nothing to it.
            drop(fs::remove_file(&draft));
        }
        written
    }

    fn write(&self, path: &Path, key: &str) -> io::Result<()> {
        let mut out = SectionWriter::create(path)?;
        let shape = self.codes.shape();
        for (fact, value) in [("items", self.len()), ("codebooks", shape.codebooks), ("entries", shape.entries)] {
            out.fact(fact, value);
        }
        out.fact("key", key);
        match self.codes.bytes() {
            Some(bytes) => out.put("codes", bytes)?,
            None => out.put("codes", &self.codes.entries())?,
        }
        put_postings(&mut out, "tokens", &self.postings)?;
        if let Some(cooccurrence) = &self.cooccurrence {
            out.put("cooccurrence", cooccurrence.words())?;
        }
        if let Some(Paths { order, crowds }) = &self.paths {
            out.put("order.runs", &order.runs)?;
            out.put("order.pairs", &order.pairs)?;
            out.put("crowds.parents", &crowds.parents)?;
            out.put("crowds.lasts", &crowds.lasts)?;
            out.put("crowds.masks", &crowds.masks)?;
        }
        put_dictionary(&mut out, "ids", &self.ids)?;
        out.put("priors", &self.priors)?;
        out.put("eligible", self.eligible.words())?;
        let Attributes { kind_of, kinds, by_kind, categories, kinds_with, brand_of, brands, by_brand, prices } =
            &self.attributes;
        put_column(&mut out, "kind_of", kind_of)?;
        put_rows(&mut out, "kinds", &kinds.paths)?;
        out.put("classes", &kinds.classes)?;
        put_postings(&mut out, "by_kind", by_kind)?;
        put_dictionary(&mut out, "categories", categories)?;
        put_rows(&mut out, "kinds_with", kinds_with)?;
        put_column(&mut out, "brand_of", brand_of)?;
        put_dictionary(&mut out, "brands", brands)?;
        put_postings(&mut out, "by_brand", by_brand)?;
        out.put("prices", prices)?;
        self.write_titles(&mut out)?;
        out.finish()
    }

    fn write_titles(&self, out: &mut SectionWriter) -> io::Result<()> {
        let (mut entries, mut at) = (Vec::with_capacity(self.len() * ENTRY), 0u64);
        let shares = (0..self.len()).step_by(TITLES).map(|first| {
            let mut texts = String::new();
            for item in first..self.len().min(first + TITLES) {
                let title = self.titles.get(item);
                entries.extend_from_slice(&at.to_le_bytes());
                let length = title.as_ref().map_or(NONE, |title| title.len() as u32);
                entries.extend_from_slice(&length.to_le_bytes());
                let title = title.unwrap_or_default();
                entries.extend_from_slice(&crc32fast::hash(title.as_bytes()).to_le_bytes());
                at += title.len() as u64;
                texts.push_str(&title);
            }
            texts
        });
        out.put_pieces("titles.texts", shares)?;
        out.put("titles.entries", &entries)
    }

    /// Reads what [`Index::save`] wrote, on all threads.
    ///
    /// # Errors
    /// Why it cannot be used: of other items, of another version of the format, damaged.
    pub fn open_saved(path: &Path, wanted: SavedFor) -> Result<Index, String> {
        let SavedFor { key, items, shape, category_names, version } = wanted;
        let file = SectionReader::open(path)?;
        let facts = [
            ("key", key),
            ("items", items.to_string()),
            ("codebooks", shape.codebooks.to_string()),
            ("entries", shape.entries.to_string()),
        ];
        for (fact, wanted) in facts {
            if file.fact(fact) != Some(wanted.as_str()) {
                return Err(format!("{fact} is {:?}, expected {wanted:?}", file.fact(fact).unwrap_or("missing")));
            }
        }
        let tokens = || {
            let postings = postings(&file, "tokens", shape.tokens(), items)?;
            let cooccurrence = match shape.tokens() {
                many if many > Cooccurrence::MOST_TOKENS => None,
                _ => Some(Cooccurrence::of_words(shape, file.take("cooccurrence")?).ok_or("cooccurrence: its length")?),
            };
            Ok::<_, String>((postings, cooccurrence, paths(&file, shape, items)?))
        };
        let rest = || {
            let codes = codes(&file, shape, items)?;
            let ids = dictionary(&file, "ids", items)?;
            let priors: Vec<f32> = sized(file.take("priors")?, items, "priors")?;
            let eligible = Candidates::of_words(items, file.take("eligible")?).ok_or("eligible: its length")?;
            Ok::<_, String>((codes, ids, priors, eligible, attributes(&file, items, category_names.len())?))
        };
        let (tokens, rest) = rayon::join(tokens, rest);
        let ((postings, cooccurrence, paths), (codes, ids, priors, eligible, attributes)) = (tokens?, rest?);
        let titles = Titles::Disk(Arc::new(titles(path, &file, items)?));
        Ok(Index {
            codes,
            ids,
            titles,
            attributes,
            priors,
            eligible,
            postings,
            cooccurrence,
            paths,
            category_names,
            version,
        })
    }
}

fn sized<T>(values: Vec<T>, items: usize, name: &str) -> Result<Vec<T>, String> {
    if values.len() == items { Ok(values) } else { Err(format!("{name}: {} values, expected {items}", values.len())) }
}

fn codes(file: &SectionReader, shape: CodeShape, items: usize) -> Result<CodeTable, String> {
    let table = if CodeTable::empty(shape)?.bytes().is_some() {
        CodeTable::of_bytes(shape, file.take("codes")?)?
    } else {
        CodeTable::new(shape, file.take("codes")?)?
    };
    if table.items() == items { Ok(table) } else { Err(format!("codes: {} rows, expected {items}", table.items())) }
}

/// None: the index was not made for look-ups of paths.
fn paths(file: &SectionReader, shape: CodeShape, items: usize) -> Result<Option<Paths>, String> {
    let Ok(runs) = file.section("order.runs") else { return Ok(None) };
    let runs = file.take(&runs.name)?;
    let order = CodeOrder::of_parts(runs, file.take("order.pairs")?, items, shape.entries)?;
    let (parents, lasts) = (file.take("crowds.parents")?, file.take("crowds.lasts")?);
    let crowds =
        Crowds::of_parts(shape, parents, lasts, file.take("crowds.masks")?).ok_or("crowds: of another shape")?;
    Ok(Some(Paths { order, crowds }))
}

fn put_column(out: &mut SectionWriter, name: &str, column: &Column) -> io::Result<()> {
    out.fact(format!("{name}.width"), column.width);
    out.put(name, &column.bytes)
}

fn column(file: &SectionReader, name: &str, len: usize) -> Result<Column, String> {
    let width = file.fact(&format!("{name}.width")).and_then(|width| width.parse().ok());
    let width = width.filter(|width| (1..=4).contains(width)).ok_or_else(|| format!("{name}: its width"))?;
    let column = Column { width, bytes: file.take(name)? };
    if column.len() == len && column.bytes.len() == len * width {
        Ok(column)
    } else {
        Err(format!("{name}: {} values, expected {len}", column.len()))
    }
}

fn put_dictionary(out: &mut SectionWriter, name: &str, dictionary: &Dictionary) -> io::Result<()> {
    let Dictionary { texts: Texts { text, bases, ends }, slots } = dictionary;
    out.fact(format!("{name}.texts"), ends.len());
    out.put(format!("{name}.text"), text.as_bytes())?;
    out.put(format!("{name}.bases"), bases)?;
    put_column(out, &format!("{name}.ends"), ends)?;
    out.put(format!("{name}.slots"), slots)
}

/// A dictionary of `len` texts.
fn dictionary(file: &SectionReader, name: &str, len: usize) -> Result<Dictionary, String> {
    let text = String::from_utf8(file.take(&format!("{name}.text"))?);
    let text = text.map_err(|error| format!("{name}.text: {error}"))?;
    let (bases, slots) = (file.take(&format!("{name}.bases"))?, file.take(&format!("{name}.slots"))?);
    if slots.is_empty() {
        return Err(format!("{name}.slots: none"));
    }
    let ends = column(file, &format!("{name}.ends"), len)?;
    Ok(Dictionary { texts: Texts { text, bases, ends }, slots })
}

fn put_rows(out: &mut SectionWriter, name: &str, rows: &Rows) -> io::Result<()> {
    out.put(format!("{name}.starts"), &rows.starts)?;
    out.put(format!("{name}.values"), &rows.values)
}

fn rows(file: &SectionReader, name: &str, len: usize) -> Result<Rows, String> {
    let (starts, values) = (file.take(&format!("{name}.starts"))?, file.take(&format!("{name}.values"))?);
    let rows = Rows { starts: sized(starts, len + 1, name)?, values };
    Ok(rows)
}

fn put_postings(out: &mut SectionWriter, name: &str, postings: &Postings) -> io::Result<()> {
    let Postings { blocks: _, lens, places, bases, starts, lows, whole } = postings;
    out.put(format!("{name}.lens"), lens)?;
    out.put(format!("{name}.places"), places)?;
    out.put(format!("{name}.bases"), bases)?;
    out.put(format!("{name}.starts"), starts)?;
    out.put(format!("{name}.lows"), lows)?;
    out.put(format!("{name}.whole"), whole)
}

fn postings(file: &SectionReader, name: &str, keys: usize, items: usize) -> Result<Postings, String> {
    let postings = Postings {
        blocks: items.div_ceil(super::postings::BLOCK),
        lens: file.take(&format!("{name}.lens"))?,
        places: file.take(&format!("{name}.places"))?,
        bases: file.take(&format!("{name}.bases"))?,
        starts: file.take(&format!("{name}.starts"))?,
        lows: file.take(&format!("{name}.lows"))?,
        whole: file.take(&format!("{name}.whole"))?,
    };
    postings.check(keys, items).map_err(|reason| format!("{name}: {reason}"))?;
    Ok(postings)
}

fn attributes(file: &SectionReader, items: usize, classes_named: usize) -> Result<Attributes, String> {
    let count = |name: &str| -> Result<usize, String> {
        let count = file.fact(&format!("{name}.texts")).and_then(|count| count.parse().ok());
        count.ok_or_else(|| format!("{name}: its number of texts"))
    };
    let classes: Vec<u32> = file.take("classes")?;
    if let Some(class) = classes.iter().find(|class| **class as usize >= classes_named) {
        return Err(format!("classes: {class}, expected numbers below {classes_named}"));
    }
    let (categories, brands) = (count("categories")?, count("brands")?);
    let kinds = Kinds { paths: rows(file, "kinds", classes.len())?, classes };
    Ok(Attributes {
        kind_of: column(file, "kind_of", items)?,
        by_kind: postings(file, "by_kind", kinds.classes.len(), items)?,
        kinds,
        categories: dictionary(file, "categories", categories)?,
        kinds_with: rows(file, "kinds_with", categories)?,
        brand_of: column(file, "brand_of", items)?,
        brands: dictionary(file, "brands", brands)?,
        by_brand: postings(file, "by_brand", brands, items)?,
        prices: sized(file.take("prices")?, items, "prices")?,
    })
}

/// The titles stay on disk; each is checked when it is read.
fn titles(path: &Path, sections: &SectionReader, items: usize) -> Result<TitleFile, String> {
    let (entries, texts) = (sections.section("titles.entries")?, sections.section("titles.texts")?);
    if entries.bytes != (items * ENTRY) as u64 {
        return Err("titles.entries: not one an item".to_owned());
    }
    let file = File::open(path).map_err(|error| error.to_string())?;
    Ok(TitleFile { file, entries: entries.at, items, texts: texts.at, bytes: texts.bytes })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::{CatalogItem, IndexBuilder, Row};
    use super::*;
    use crate::domain::{Filter, Item, Token};

    const SHAPE: CodeShape = CodeShape { codebooks: 3, entries: 5 };

    fn index(shape: CodeShape, for_paths: bool) -> Index {
        let items: Vec<CatalogItem> = (0..150u32)
            .map(|n| CatalogItem {
                item: Item {
                    id: format!("item-{n}"),
                    title: (n % 3 != 0).then(|| format!("Title \u{e9} {n}").repeat((n % 4) as usize)),
                    brand: (n % 4 != 0).then(|| format!("brand {}", n % 7)),
                    categories: (0..n % 3).map(|level| format!("level {level} {}", n % 5)).collect(),
                    price: (n % 5 != 0).then_some(n as f32 / 2.0),
                    eligible: n % 6 != 0,
                },
                category: n % 2,
                prior: -(n as f32),
            })
            .collect();
        let entries = (0..items.len() * shape.codebooks).map(|at| (at * 7 % 11 % shape.entries) as u16).collect();
        let codes = CodeTable::new(shape, entries).unwrap();
        let mut builder = IndexBuilder::new(vec!["a".into(), "b".into()]);
        if for_paths {
            builder = builder.for_paths();
        }
        for entry in &items {
            builder.push(&Row::from(entry), entry.item.categories.iter().map(String::as_str)).unwrap();
        }
        builder.finish(codes, "1".into()).unwrap()
    }

    fn wanted(shape: CodeShape) -> SavedFor {
        let category_names = vec!["a".into(), "b".into()];
        SavedFor { key: "k".into(), items: 150, shape, category_names, version: "1".into() }
    }

    fn saved(shape: CodeShape, for_paths: bool) -> (tempfile::TempDir, std::path::PathBuf, Index) {
        let dir = tempfile::tempdir().unwrap();
        let (path, index) = (dir.path().join("index"), index(shape, for_paths));
        index.save(&path, "k").unwrap();
        (dir, path, index)
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let wide = CodeShape { codebooks: 2, entries: 300 };
        for (shape, for_paths) in [(SHAPE, false), (wide, false), (SHAPE, true), (wide, true)] {
            let (_dir, path, index) = saved(shape, for_paths);
            let read = Index::open_saved(&path, wanted(shape)).unwrap();
            assert_eq!(read.items().collect::<Vec<_>>(), index.items().collect::<Vec<_>>());
            assert_eq!((read.codes(), read.cooccurrence()), (index.codes(), index.cooccurrence()));
            assert_eq!((&read.postings, &read.paths), (&index.postings, &index.paths));
            assert_eq!(read.paths.is_some(), for_paths);
            assert!(index.items().all(|row| read.number(&row.item.id) == index.number(&row.item.id)));
            let filter = Filter {
                include_categories: vec!["level 0 2".into()],
                exclude_brands: vec!["brand 3".into()],
                max_price: Some(60.0),
                ..Filter::default()
            };
            assert_eq!(read.root(&filter, &[7]), index.root(&filter, &[7]));
            assert!(!read.root(&filter, &[7]).is_empty());
            assert_eq!((read.bytes().titles, read.bytes().total()), (0, index.bytes().total() - index.bytes().titles));
            // The titles outlive the file's name.
            std::fs::remove_file(&path).unwrap();
            assert_eq!(read.item(7), index.item(7));
        }
    }

    #[test]
    fn one_for_other_items_is_refused_by_name() {
        let (_dir, path, _) = saved(SHAPE, false);
        let refused = |change: fn(&mut SavedFor)| {
            let mut wanted = wanted(SHAPE);
            change(&mut wanted);
            Index::open_saved(&path, wanted).unwrap_err()
        };
        assert_eq!(refused(|wanted| wanted.key = "other".into()), "key is \"k\", expected \"other\"");
        assert_eq!(refused(|wanted| wanted.items = 151), "items is \"150\", expected \"151\"");
        assert_eq!(refused(|wanted| wanted.shape.entries = 6), "entries is \"5\", expected \"6\"");
        assert_eq!(refused(|wanted| drop(wanted.category_names.pop())), "classes: 1, expected numbers below 1");
        assert!(Index::open_saved(&path.with_file_name("none"), wanted(SHAPE)).unwrap_err().contains("No such file"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_damaged_file_is_refused_or_harmless(
            edits in prop::collection::vec((any::<prop::sample::Index>(), 1..=u8::MAX), 0..3),
            cut in prop::option::of(any::<prop::sample::Index>()),
            for_paths: bool,
        ) {
            let (_dir, path, index) = saved(SHAPE, for_paths);
            let mut bytes = std::fs::read(&path).unwrap();
            for (at, flip) in &edits {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
            std::fs::write(&path, &bytes).unwrap();
            match Index::open_saved(&path, wanted(SHAPE)) {
                Err(reason) => prop_assert!(!edits.is_empty() || cut.is_some(), "{}", reason),
                // Padding was hit, or a title, which is then not told.
                Ok(read) => for number in 0..150 {
                    let (mut found, told) = (read.item(number), index.item(number));
                    prop_assert!(found.item.title == told.item.title || found.item.title.is_none());
                    found.item.title.clone_from(&told.item.title);
                    prop_assert_eq!(found, told);
                    let token = Token { codebook: 0, entry: 1 };
                    prop_assert_eq!(read.postings(token).to_vec(), index.postings(token).to_vec());
                }
            }
        }
    }
}
