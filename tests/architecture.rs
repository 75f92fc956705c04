//! The house rules that a machine can hold: who may import whom, what the map names, how long a file may be, and that
//! alerts watch metrics that exist.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may import, beside itself and `domain`.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("wire", &[]),
    ("history", &[]),
    ("catalog", &[]),
    ("batch", &[]),
    ("tokenizer", &[]),
    ("experiment", &[]),
    ("events", &[]),
    ("decode", &["catalog"]),
    ("model", &["decode"]),
    ("artifact", &["model", "catalog", "tokenizer"]),
    ("engine", &["model", "decode", "catalog", "batch"]),
    // `artifact` for the type of a loaded bundle: a variant is made of one.
    ("recommend", &["history", "catalog", "engine", "batch", "experiment", "events", "artifact"]),
    // Wires a bundle to an engine to a variant, and nothing of requests.
    ("rollout", &["artifact", "model", "catalog", "tokenizer", "engine", "recommend"]),
    // Beside the sentence and the wire only views of what a page shows.
    ("server", &["wire", "recommend", "rollout", "artifact", "catalog", "config"]),
    ("training", &["tokenizer", "catalog", "decode", "model", "artifact", "events", "evaluation"]),
    ("evaluation", &["catalog", "decode", "model"]),
];

/// A struct of every part's settings: it may import them all.
const IMPORTS_ALL: &str = "config";
/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager", "base", "types"];
/// Lines of a file before its tests.
const LONGEST_FILE: usize = 600;

#[test]
fn every_import_keeps_the_directions() {
    let rooms = rooms();
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let place = relative(&path);
        faults.extend(misdirected(&place, &text, &rooms));
    }
    assert!(faults.is_empty(), "{} imports against the table:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn the_map_names_every_room() {
    let lib = fs::read_to_string(source_root().join("lib.rs")).unwrap();
    let declared: BTreeSet<String> = lib
        .lines()
        .filter_map(|line| Some(line.trim().strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    assert_eq!(declared, rooms(), "lib.rs declares other rooms than src holds");
    for room in declared {
        let shown = lib.lines().any(|line| line.starts_with(&format!("//! | [`{room}`] |")));
        assert!(shown, "lib.rs: the map has no line for `{room}`");
        let known = room == IMPORTS_ALL || DIRECTIONS.iter().any(|(name, _)| *name == room);
        assert!(known, "the table of directions has no line for `{room}`");
    }
    assert!(!lib.contains("pub use"), "lib.rs re-exports; rooms are imported by their full names");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| relative(&path)).collect();
    assert!(silent.is_empty(), "files without a first line `//! …`: {silent:?}");
}

#[test]
fn no_file_has_an_empty_name() {
    let empty = |path: &Path| {
        path.strip_prefix(source_root()).unwrap().components().any(|part| {
            let part = Path::new(part.as_os_str()).file_stem().unwrap().to_string_lossy().into_owned();
            EMPTY_NAMES.contains(&part.as_str())
        })
    };
    let named: Vec<PathBuf> = sources().into_iter().map(|(path, _)| path).filter(|path| empty(path)).collect();
    assert!(named.is_empty(), "names that say nothing: {named:?}");
}

#[test]
fn no_file_is_a_department() {
    let tests = |place: &str| place.ends_with("tests.rs") || place.contains("/tests/");
    for (path, text) in sources().into_iter().filter(|(path, _)| !tests(&relative(path))) {
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        assert!(lines <= LONGEST_FILE, "{}: {lines} lines before its tests, split it", relative(&path));
    }
}

#[test]
fn alerts_name_only_metrics_that_the_sources_register() {
    let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/alerts.yml");
    let sources: String = sources().into_iter().map(|(_, text)| text).collect();
    let named = series(&fs::read_to_string(alerts).unwrap());
    assert!(named.len() > 3, "the alerts name only {named:?}");
    for name in named {
        // A histogram is registered under one name and scraped under three.
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let registered = [Some(name.as_str()), family].into_iter().flatten();
        let known = registered.clone().any(|name| sources.contains(&format!("\"{name}\"")));
        assert!(known, "deploy/alerts.yml: no source registers {:?}", registered.collect::<Vec<_>>());
    }
}

/// Where time is measured, and a clock that an operator or a time server sets must not be looked at: queue, engine, search,
/// quotas, and what watches a store.
const MEASURED: &[&str] = &[
    "src/batch/",
    "src/engine/",
    "src/decode/",
    "src/server/access/",
    "src/server/front.rs",
    "src/server/service.rs",
    "src/server/stream.rs",
    "src/recommend/ladder.rs",
    "src/recommend/cache.rs",
    "src/recommend/door.rs",
    "src/recommend/shadow.rs",
    "src/rollout/mirror.rs",
    "src/artifact/lease.rs",
];

#[test]
fn deadlines_queues_and_quotas_know_no_wall_clock() {
    let mut found = 0;
    for (path, text) in sources() {
        let place = relative(&path);
        if MEASURED.iter().any(|measured| place.starts_with(measured)) {
            found += 1;
            let wall = ["SystemTime::now", "now_utc", "UNIX_EPOCH.elapsed"].iter().find(|clock| text.contains(**clock));
            assert!(wall.is_none(), "{place} asks {wall:?}; expected Instant");
        }
    }
    assert!(found >= 2 * MEASURED.len(), "only {found} files: {MEASURED:?} has moved");
}

#[test]
fn the_checker_finds_what_breaks_the_table() {
    let rooms: BTreeSet<String> =
        DIRECTIONS.iter().map(|(room, _)| (*room).to_owned()).chain([IMPORTS_ALL.to_owned()]).collect();
    let code = r##"
//! Talks of crate::server without importing it.
use crate::domain::Item;
use crate::{catalog::{Index, Filter}, model::Network, domain::{Token, Code as Other}};
/* use crate::server::Nothing; /* nested */ use crate::wire::Nothing; */
const TEXT: &str = "use crate::server::Nothing; \" use crate::wire::Nothing;";
const RAW: &str = r#"use crate::server::" "#;
const LETTER: char = '"'; // use crate::wire::Nothing
fn inline<'a>(index: &'a crate::catalog::Index) -> crate::training::Run {
    use super::super::wire;
    super::beam::run(index);
    pub(crate) fn seen() {}
    $crate::engine::start()
}
mod tests {
    use super::*;
    use super::super::Neighbour;
    use super::super::super::recommend::Recommender;
    use crate :: batch
        ::Queue;
}
use super::super::history::Store;
use crate::Thing;
use crate::*;
use crate as whole;
use super::super::{evaluation, domain::Item};
use super::super as root;
"##;
    let found = misdirected("src/decode/beam.rs", code, &rooms);
    let wanted = [
        "src/decode/beam.rs:4: decode -> model",
        "src/decode/beam.rs:9: decode -> training",
        "src/decode/beam.rs:10: decode -> wire",
        "src/decode/beam.rs:13: decode -> engine",
        "src/decode/beam.rs:18: decode -> recommend",
        "src/decode/beam.rs:19: decode -> batch",
        "src/decode/beam.rs:22: decode -> history",
        "src/decode/beam.rs:23: decode -> the root (Thing)",
        "src/decode/beam.rs:24: decode -> the root (*)",
        "src/decode/beam.rs:25: decode -> the root (as)",
        "src/decode/beam.rs:26: decode -> evaluation",
        "src/decode/beam.rs:27: decode -> the root (as)",
    ];
    assert_eq!(found, wanted);
    // The same lines in `config` break nothing but the rule on the root; a room's `mod.rs` is one level higher.
    assert_eq!(misdirected("src/config.rs", "use crate::{server, wire::Status};", &rooms), Vec::<String>::new());
    assert_eq!(misdirected("src/decode/mod.rs", "use super::wire;", &rooms), ["src/decode/mod.rs:1: decode -> wire"]);
    assert_eq!(misdirected("src/bin/reg4rec.rs", "use crate::Any;", &rooms), Vec::<String>::new());
}

/// The names of metrics in a text.
fn series(text: &str) -> BTreeSet<String> {
    let named = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = text.split(|character: char| !named(character));
    words.filter(|word| word.starts_with("reg4rec_")).map(str::to_owned).collect()
}

/// One line for every import of `text` that the table forbids. `place` is the file's path from the package's root.
fn misdirected(place: &str, text: &str, rooms: &BTreeSet<String>) -> Vec<String> {
    let modules = module_path(place);
    let Some(from) = modules.first() else { return Vec::new() };
    let allowed: BTreeMap<&str, &[&str]> = DIRECTIONS.iter().copied().collect();
    let mut faults = Vec::new();
    for Import { line, name } in imports(text, modules.len()) {
        let fault = if !rooms.contains(&name) {
            Some(format!("the root ({name})"))
        } else {
            let open = from == IMPORTS_ALL || name == *from || name == "domain";
            let listed = allowed.get(from.as_str()).is_some_and(|list| list.contains(&name.as_str()));
            (!open && !listed).then_some(name)
        };
        faults.extend(fault.map(|to| format!("{place}:{line}: {from} -> {to}")));
    }
    faults.dedup();
    faults
}

/// The modules that lead to a file: `src/decode/beam.rs` is `decode, beam`. Empty for `lib.rs` and the binaries.
fn module_path(place: &str) -> Vec<String> {
    let inside = place.strip_prefix("src/").unwrap_or(place).strip_suffix(".rs").unwrap_or(place);
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    if parts.first().is_some_and(|first| first == "lib" || first == "bin") { Vec::new() } else { parts }
}

/// A name directly below the crate's root, and the line where it stands.
struct Import {
    line: usize,
    name: String,
}

/// Every name that the code reaches through the root: by `crate::`, or by as many `super::` as lead there from a
/// module `depth` below the root.
fn imports(text: &str, depth: usize) -> Vec<Import> {
    let words = words(text);
    let is = |at: usize, wanted: &str| words.get(at).is_some_and(|(_, word)| word == wanted);
    let mut found = Vec::new();
    // Braces around the place, each with whether it belongs to an inline module.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let inline = braces.iter().filter(|module| **module).count();
        match words[at].1.as_str() {
            "{" => braces.push(at >= 2 && is(at - 2, "mod")),
            "}" => drop(braces.pop()),
            "crate" if is(at + 1, "::") => names_at(&words, at + 2, &mut found),
            "crate" if is(at + 1, "as") => names_at(&words, at + 1, &mut found),
            "super" if at < 2 || !is(at - 1, "::") || is(at - 2, "self") => {
                let mut end = at;
                while is(end + 1, "::") && is(end + 2, "super") {
                    end += 2;
                }
                if (end - at) / 2 + 1 == depth + inline {
                    let next = if is(end + 1, "::") { end + 2 } else { end + 1 };
                    names_at(&words, next, &mut found);
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The name at `at`, or the first name of every entry when a group stands there.
fn names_at(words: &[(usize, String)], at: usize, found: &mut Vec<Import>) {
    let mut push = |(line, name): &(usize, String)| found.push(Import { line: *line, name: name.clone() });
    match words.get(at) {
        Some((_, brace)) if brace == "{" => {
            let (mut open, mut first) = (0, false);
            for word in &words[at..] {
                match word.1.as_str() {
                    "{" => (open, first) = (open + 1, open == 0),
                    "}" if open == 1 => break,
                    "}" => open -= 1,
                    "," if open == 1 => first = true,
                    _ if first => {
                        push(word);
                        first = false;
                    }
                    _ => {}
                }
            }
        }
        Some(word) => push(word),
        None => {}
    }
}

/// The words and signs of Rust code with their lines; comments and literals are left out.
fn words(text: &str) -> Vec<(usize, String)> {
    let letters: Vec<char> = text.chars().collect();
    let letter = |at: usize| letters.get(at).copied().unwrap_or('\0');
    let named = |character: char| character.is_alphanumeric() || character == '_';
    let (mut words, mut line, mut at) = (Vec::new(), 1, 0);
    while at < letters.len() {
        let start = at;
        match letter(at) {
            '/' if letter(at + 1) == '/' => at += letters[at..].iter().take_while(|next| **next != '\n').count(),
            '/' if letter(at + 1) == '*' => {
                let mut open = 0;
                while at < letters.len() {
                    match (letter(at), letter(at + 1)) {
                        ('/', '*') => (open, at) = (open + 1, at + 2),
                        ('*', '/') => (open, at) = (open - 1, at + 2),
                        _ => at += 1,
                    }
                    if open == 0 {
                        break;
                    }
                }
            }
            'r' | 'b' | 'c' if raw_hashes(&letters, at).is_some() => {
                let (body, hashes) = raw_hashes(&letters, at).unwrap();
                let closes = |end: usize| letter(end) == '"' && (1..=hashes).all(|next| letter(end + next) == '#');
                at = (body..letters.len()).find(|end| closes(*end)).map_or(letters.len(), |end| end + 1 + hashes);
            }
            '"' => {
                at += 1;
                while at < letters.len() && letter(at) != '"' {
                    at += if letter(at) == '\\' { 2 } else { 1 };
                }
                at += 1;
            }
            // A letter, not a lifetime.
            '\'' if letter(at + 1) == '\\' => {
                at += 3;
                at += letters[at.min(letters.len())..].iter().take_while(|next| **next != '\'').count() + 1;
            }
            '\'' if letter(at + 2) == '\'' => at += 3,
            ':' if letter(at + 1) == ':' => {
                words.push((line, "::".to_owned()));
                at += 2;
            }
            first if named(first) => {
                at += letters[at..].iter().take_while(|next| named(**next)).count();
                words.push((line, letters[start..at].iter().collect()));
            }
            sign => {
                if !sign.is_whitespace() {
                    words.push((line, sign.to_string()));
                }
                at += 1;
            }
        }
        line += letters[start..at.min(letters.len())].iter().filter(|passed| **passed == '\n').count();
    }
    words
}

/// Where the body of the raw string at `at` begins, and how many `#` close it; none when there is none.
fn raw_hashes(letters: &[char], at: usize) -> Option<(usize, usize)> {
    // `r"`, `br"`, `cr"`; not the end of a longer name.
    if at > 0 && (letters[at - 1].is_alphanumeric() || letters[at - 1] == '_') {
        return None;
    }
    let r = if letters[at] == 'r' { at } else { at + 1 };
    if letters.get(r) != Some(&'r') {
        return None;
    }
    let hashes = letters[r + 1..].iter().take_while(|next| **next == '#').count();
    (letters.get(r + 1 + hashes) == Some(&'"')).then_some((r + 2 + hashes, hashes))
}

/// What stands directly in `src` beside `lib.rs` and the binaries.
fn rooms() -> BTreeSet<String> {
    let entries = fs::read_dir(source_root()).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.filter(|path| path.is_dir() || path.extension().is_some_and(|kind| kind == "rs"));
    let stems = named.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    stems.filter(|name| name != "lib" && name != "bin").collect()
}

/// Every Rust file under `src` with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![source_root()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 10, "found only {} files under src", found.len());
    found
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn relative(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_string_lossy().replace('\\', "/")
}
