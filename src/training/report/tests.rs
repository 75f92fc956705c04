//! The report of small hand-made records.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::domain::{CodeShape, CodeTable, HistoryEntry};
use crate::evaluation::{
    CategoryCalibration, DatasetFacts, EpochPoint, Machine, Metrics, Placed, RunLabel, Scores, Slices, TokenUse, Trial,
};

const USERS: usize = 400;

fn record(system: &str, group: &str, seed: u64, recall: f64) -> RunRecord {
    let label = RunLabel { system: system.into(), group: group.into(), preset: Some("quick".into()), seed };
    let dataset = DatasetFacts { name: "beauty".into(), users: USERS, items: 40 };
    let entry = HistoryEntry { item: 0, kind: Default::default(), time: 0 };
    let trials: Vec<Trial> = (0..USERS)
        .map(|user| Trial {
            user: user as u32,
            history: vec![entry; 1 + user % 30],
            seen: vec![],
            target: user as u32 % 40,
        })
        .collect();
    let places: Vec<Option<usize>> = (0..USERS).map(|user| (user % 5 == 0).then_some(2)).collect();
    let counts: Vec<u32> = (0..40).map(|item| item / 2).collect();
    let filtered = Metrics { recall_at_10: recall, ndcg_at_10: recall / 2.0, ..Metrics::default() };
    let placed = Placed { scores: Scores { filtered, all: filtered }, places };
    let mut record = RunRecord::new(label, dataset, &placed, Slices::of(&trials, &placed.places, &counts));
    record.epochs = (0..3)
        .map(|epoch| EpochPoint {
            epoch,
            scorer_loss: 8.0 - epoch as f64,
            recall_at_10: recall * 0.3 * (epoch + 1) as f64,
            ndcg_at_10: recall * 0.1 * (epoch + 1) as f64,
            seconds: 50.0,
            sequences_per_second: 412.0,
        })
        .collect();
    record.best_epoch = Some(2);
    record.seconds = Some(675.0);
    record.peak_memory_bytes = Some(3 << 29);
    record.machine = Some(Machine { cpu: "Some <CPU> & more".into(), cores: 2 });
    record
}

/// Two seeds of the model, one of the reference, one ablation.
fn records() -> Vec<RunRecord> {
    let mut model = record("reg4rec", "headline", 1, 0.08);
    let codes = CodeTable::new(CodeShape { codebooks: 2, entries: 4 }, vec![0, 1, 1, 1, 2, 1, 0, 3]).unwrap();
    model.tokens = Some(TokenUse { variance_left: Some(0.25), ..TokenUse::of(&codes) });
    model.calibration = Some(CategoryCalibration::of(&[(0.9, true), (0.3, false)]).unwrap());
    let mut ablation = record("no|decoder", "ablation", 1, 0.07);
    ablation.notes = vec!["<b>left out</b>".into()];
    ablation.settings = json!({ "network": { "width": 64, "decoder_layers": 0 } });
    model.settings = json!({ "network": { "width": 64, "decoder_layers": 2 } });
    vec![model, record("reg4rec", "headline", 2, 0.1), record("sasrec", "headline", 1, 0.06), ablation]
}

fn home_with(records: &[RunRecord]) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    for (at, record) in records.iter().enumerate() {
        record.write(&home.path().join(format!("runs/{}/{at}.json", record.group))).unwrap();
    }
    home
}

fn report(home: &Path) -> anyhow::Result<(String, String)> {
    let args = ReportArgs {
        runs: home.join("runs"),
        out: home.join("report.html"),
        markdown: Some(home.join("report.md")),
        reference: "sasrec".into(),
        base: "reg4rec".into(),
    };
    run(&args)?;
    Ok((fs::read_to_string(&args.out)?, fs::read_to_string(home.join("report.md"))?))
}

/// The cells of the first row of a Markdown text that starts with `name`, after the heading `title`.
fn row<'a>(markdown: &'a str, title: &str, name: &str) -> Vec<&'a str> {
    let from = markdown.find(title).unwrap_or_else(|| panic!("no {title:?} in {markdown}"));
    let start = format!("| {name} |");
    let line = markdown[from..].lines().find(|line| line.starts_with(&start));
    line.unwrap_or_else(|| panic!("no {start:?} in {markdown}")).trim_matches('|').split(" | ").map(str::trim).collect()
}

#[test]
fn the_tables_hold_means_spreads_and_differences() {
    let (_, markdown) = report(home_with(&records()).path()).unwrap();
    let model = row(&markdown, "### Test, seen items filtered", "reg4rec");
    assert_eq!((model[1], model[3], model[6]), ("2", "**0.0900** (0.0800 to 0.1000)", "**0.0450** (0.0400 to 0.0500)"));
    assert_eq!(&model[8..], ["+50.0%", "+50.0%"]);
    let reference = row(&markdown, "### Test, seen items filtered", "sasrec");
    assert_eq!((reference[3], reference[8]), ("0.0600", ""));
    // Under the headline's model by 0.02, with sqrt(0.07 * 0.93 / 400).
    let ablation = row(&markdown, "Change in Recall@10", "no\\|decoder");
    assert_eq!(&ablation[1..], ["0.0700", "-0.0200", "-22.2%", "0.0128"]);
    let tokens = row(&markdown, "### Use of tokens", "reg4rec");
    assert_eq!((tokens[1], tokens[5], tokens[6], tokens[7]), ("2 x 4", "4", "4", "25.0%"));
    let deciles = row(&markdown, "### Recall@10 by popularity", "untrained");
    assert_eq!((deciles[1], deciles[2], deciles[3]), ("0", "20", "0.5000"));
    assert_eq!(row(&markdown, "### Learning", "sasrec")[2..4], ["3", "3"]);
    assert_eq!(row(&markdown, "### Calibration", "reg4rec")[1..4], ["2", "0.600", "0.500"]);
    let cost = row(&markdown, "### Machine", "beauty");
    assert_eq!(cost[6..9], ["412", "11 min 15 s", "1.5 GiB"]);
    let settings = row(&markdown, "### Settings other than those of reg4rec", "no\\|decoder");
    assert_eq!(settings[1], "network.decoder\\_layers = 0");
}

#[test]
fn the_page_holds_every_figure_and_escapes_what_records_say() {
    let (page, _) = report(home_with(&records()).path()).unwrap();
    for title in
        ["Learning curves", "Change in Recall@10", "popularity", "length of the history", "tokens", "Calibration"]
    {
        assert!(page.contains(title), "{title}");
    }
    assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (15, 15));
    assert!(page.contains("&lt;b&gt;left out&lt;/b&gt;") && !page.contains("<b>left out"));
    assert!(page.contains("Some &lt;CPU&gt; &amp; more"));
    for number in ["NaN", "inf\""] {
        assert!(!page.contains(number), "{number}");
    }
}

#[test]
fn the_same_records_give_the_same_bytes_in_any_order() {
    let mut records = records();
    let first = report(home_with(&records).path()).unwrap();
    records.reverse();
    assert_eq!(report(home_with(&records).path()).unwrap(), first);
}

#[test]
fn a_record_of_a_baseline_needs_no_epochs_tokens_or_slices() {
    let mut bare = record("popular", "headline", 0, 0.0);
    (bare.epochs, bare.best_epoch, bare.slices, bare.machine) = (Vec::new(), None, None, None);
    let (page, markdown) = report(home_with(&[bare]).path()).unwrap();
    assert!(!page.contains("<svg"), "{page}");
    assert_eq!(row(&markdown, "filtered", "popular")[3], "0.0000");
}

#[test]
fn a_directory_without_records_is_an_error_that_says_so() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("runs")).unwrap();
    let told = format!("{:#}", report(home.path()).unwrap_err());
    assert!(told.contains("runs: no run records"), "{told}");
    let told = format!("{:#}", report(&home.path().join("none")).unwrap_err());
    assert!(told.contains("none/runs"), "{told}");
}

#[test]
fn bad_records_are_named_all_at_once() {
    let home = home_with(&records());
    fs::write(home.path().join("runs/half.json"), "{\"version\": 1,").unwrap();
    fs::write(home.path().join("runs/other.json"), "{\"version\": 1}").unwrap();
    let told = format!("{:#}", report(home.path()).unwrap_err());
    assert!(told.contains("2 of 6") && told.contains("half.json") && told.contains("other.json"), "{told}");
    assert!(told.contains("`system`"), "{told}");
}

#[test]
fn one_run_cannot_pass_for_two_seeds() {
    let mut records = records();
    records.push(records[0].clone());
    let told = format!("{:#}", report(home_with(&records).path()).unwrap_err());
    assert!(told.contains("headline/4.json: the same system") && told.contains("headline/0.json"), "{told}");
}
