//! Sources as they are found in the wild, small.

use std::io::Write;
use std::path::Path;

use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::domain::{Event, EventKind, UserEvent};
use crate::events::Logged;
use crate::training::dataset::Dataset;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    import: ImportArgs,
}

/// Runs as from a shell; `{}` stands for the directory of the source.
fn import(directory: &TempDir, line: &str) -> Result<(Dataset, Imported), String> {
    let place = directory.path().to_str().unwrap();
    let line = format!("import {line} --out {{}}/out").replace("{}", place);
    let command = Command::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
    let imported = run(&command.import).map_err(|error| error.to_string().replace(&format!("{place}/"), ""))?;
    Ok((Dataset::read(&directory.path().join("out")).unwrap(), imported))
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, content) in files {
        store(&directory.path().join(name), content.as_bytes());
    }
    directory
}

fn store(file: &Path, content: &[u8]) {
    if file.extension().is_some_and(|extension| extension == "gz") {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        std::fs::write(file, encoder.finish().unwrap()).unwrap();
    } else {
        std::fs::write(file, content).unwrap();
    }
}

fn walk(data: &Dataset, user: usize) -> Vec<&str> {
    data.sequences[user].iter().map(|event| data.items[event.item as usize].item.id.as_str()).collect()
}

const REVIEWS: &str = r#"{"reviewerID": "A2", "asin": "B01", "overall": 5.0, "unixReviewTime": 200, "helpful": [0, 0]}
{"reviewerID": "A1", "asin": "B02", "overall": 1.0, "unixReviewTime": 100, "reviewText": "no"}

{"reviewerID": "A2", "asin": "B02", "overall": 3.0, "unixReviewTime": 100}
{"reviewerID": "A1", "asin": "B01", "overall": 2.0, "unixReviewTime": 100}
{"reviewerID": "A1", "asin": "B02", "overall": 1.0, "unixReviewTime": 100}
{"reviewerID": "A3", "asin": "B02", "overall": 4.0, "unixReviewTime": 50}
"#;

#[test]
fn amazon_of_2014_with_metadata_in_python_and_gzip() {
    let meta = "{'asin': 'B01', 'title': \"Kid's Soap\", 'price': 4.5, 'brand': 'Acme', 'categories': [['Beauty', 'Bath'], ['Gifts']], 'description': 'Mild'}\n\
                {'asin': 'B09', 'title': 'Never reviewed'}\n{'asin': 'B02', 'categories': [['Beauty']]}\n";
    let directory = directory(&[("r.json.gz", REVIEWS), ("m.json.gz", meta)]);
    let (data, imported) = import(&directory, "amazon --reviews {}/r.json.gz --meta {}/m.json.gz --k-core 2").unwrap();
    assert_eq!(data.user_ids, ["A2", "A1"]);
    assert_eq!(walk(&data, 0), ["B02", "B01"], "by time");
    assert_eq!(walk(&data, 1), ["B02", "B01"], "ties in the order of the source, the repetition once");
    assert_eq!(data.sequences[0][1].value, Some(5.0));
    assert_eq!(data.sequences[0][1].kind, EventKind::default());
    let item = &data.items[0];
    assert_eq!((item.item.title.as_deref(), item.item.price), (Some("Kid's Soap"), Some(4.5)));
    assert_eq!((item.item.brand.as_deref(), item.text.as_deref()), (Some("Acme"), Some("Kid's Soap. Mild")));
    assert_eq!(item.item.categories, ["Beauty", "Bath"]);
    assert_eq!(imported.notes[0], "1 exact repetitions of events taken once");
    assert!(imported.notes[1].starts_with("2-core: 2 of 3 users, 2 of 2 items"), "{imported}");
}

#[test]
fn amazon_of_2018_with_metadata_in_json() {
    let meta = r#"{"asin": "B01", "title": "Soap", "price": "$1,012.99", "category": ["Beauty", "Bath"], "description": ["Mild", ""], "feature": ["Green"]}
{"asin": "B02", "title": "", "price": ".a-box-inner{background-color:#fff}", "brand": ""}
{"asin": "B01", "title": "Soap again"}
{"asin": "B09", "title": "Never reviewed", "price": ""}
"#;
    let directory = directory(&[("r", REVIEWS), ("m", meta)]);
    let (data, imported) = import(&directory, "amazon --reviews {}/r --meta {}/m --k-core 0").unwrap();
    assert_eq!((data.user_ids.len(), data.items.len(), data.interactions()), (3, 3, 5));
    assert_eq!(data.items[0].item.price, Some(1012.99));
    assert_eq!(data.items[0].text.as_deref(), Some("Soap. Mild. Green"));
    assert_eq!(data.items[0].item.categories, ["Beauty", "Bath"]);
    assert_eq!((data.items[1].item.price, &data.items[1].item.title), (None, &None));
    let notes = imported.notes.join("; ");
    assert!(notes.contains("1 items described more than once"), "{notes}");
    assert!(notes.contains("1 prices that are not one amount"), "{notes}");
}

#[test]
fn a_wrong_line_of_amazon_is_named() {
    let wrong = |reviews: &str, meta: &str| {
        let directory = directory(&[("r", reviews), ("m", meta)]);
        import(&directory, "amazon --reviews {}/r --meta {}/m --k-core 0").unwrap_err()
    };
    let message = wrong("{\"reviewerID\": \"A\", \"asin\": \"B\"}\n", "");
    assert!(message.starts_with("r, line 1, review: missing field `unixReviewTime`"), "{message}");
    let message = wrong("{\"reviewerID\": \"\", \"asin\": \"B\", \"unixReviewTime\": 1}\n", "");
    assert_eq!(message, "r, line 1, reviewerID: empty, expected an id");
    assert!(wrong(REVIEWS, "{'asin': 'B01'}\n{'asin': \n").starts_with("m, line 2, item: ends at byte"));
    assert!(wrong(REVIEWS, "{\"asin\": \"B01\", \"a\": nul}\n").starts_with("m, line 1, item: expected ident"));
    assert_eq!(wrong(REVIEWS, "{'asin': 5}\n"), "m, line 1, asin: 5, expected an id");
    assert!(wrong("\n", "").contains("no events"));
}

#[test]
fn a_cut_off_gzip_file_is_refused() {
    let directory = directory(&[("r.gz", REVIEWS), ("m", "")]);
    let whole = std::fs::read(directory.path().join("r.gz")).unwrap();
    std::fs::write(directory.path().join("r.gz"), &whole[..whole.len() - 12]).unwrap();
    assert!(import(&directory, "amazon --reviews {}/r.gz --meta {}/m").unwrap_err().starts_with("r.gz: "));
}

#[test]
fn movielens_1m_in_latin_1() {
    let directory =
        directory(&[("ratings.dat", "2::10::5::978300760\r\n1::9::3::978302109\r\n2::9::4::978300000\r\n")]);
    let movies = b"9::Mis\xe9rables, Les (1995)::Drama|Musical\n10::Heat (1995)::Action\n11::Ghost: A Life::(no genres listed)\n";
    store(&directory.path().join("movies.dat"), movies);
    let (data, _) = import(&directory, "movielens --dir {}").unwrap();
    assert_eq!(data.user_ids, ["1", "2"]);
    assert_eq!(walk(&data, 1), ["9", "10"]);
    assert_eq!(data.sequences[1][1].value, Some(5.0));
    let titles: Vec<&str> = data.items.iter().filter_map(|item| item.item.title.as_deref()).collect();
    assert_eq!(titles, ["Misérables, Les (1995)", "Heat (1995)", "Ghost: A Life"]);
    assert_eq!(data.items[0].item.categories, ["Drama", "Musical"]);
    assert!(data.items[2].item.categories.is_empty());
}

#[test]
fn movielens_latest_in_csv() {
    let files = [
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,3.0,1260759179\n"),
        (
            "movies.csv",
            "movieId,title,genres\n31,\"Dangerous Minds, The (1995)\",Drama\n1029,Dumbo (1941),Animation|Children\n",
        ),
    ];
    let (data, _) = import(&directory(&files), "movielens --dir {}").unwrap();
    assert_eq!(walk(&data, 0), ["31", "1029"]);
    assert_eq!(data.items[0].item.title.as_deref(), Some("Dangerous Minds, The (1995)"));
    assert_eq!(data.sequences[0][0].value, Some(2.5));
    let broken = [("ratings.csv", "userId,movieId,rating,timestamp\n1,31,good,1260759144\n"), files[1]];
    let message = import(&directory(&broken), "movielens --dir {}").unwrap_err();
    assert_eq!(message, "ratings.csv, line 2, rating: \"good\", expected a number");
    let broken = [("ratings.csv", "userId,movieId,timestamp\n1,31,1\n"), files[1]];
    let message = import(&directory(&broken), "movielens --dir {}").unwrap_err();
    assert_eq!(message, "ratings.csv: no column \"rating\"; the columns are: userId, movieId, timestamp");
    assert!(import(&directory(&[]), "movielens --dir {}").unwrap_err().contains("holds neither ratings.dat"));
}

const EVENTS: &str = "ts;visitor;action;sku;amount\n\
                      2024-05-01T10:00:00Z;eve;addtocart;B-2;\n\
                      2024-05-01T09:00:00Z;eve;view;B-1;\n\
                      2024-05-02T00:00:00Z;bob;transaction;B-1;19.5\n";

#[test]
fn csv_files_are_read_by_a_mapping() {
    let items = "product;title;path;price\nB-1;Soap;Home>Bath;2.5\nB-2;\"Pen; blue\";;\nB-3;Never sold;Home;1\n";
    let directory = directory(&[("e.csv", EVENTS), ("i.csv", items)]);
    let line = "csv --interactions {}/e.csv --items {}/i.csv --delimiter ; --category-separator > \
                --map user=visitor,item=sku,time=ts,kind=action,value=amount,id=product,categories=path \
                --kinds addtocart=cart,transaction=purchase"
        .replace("                ", "");
    let (data, _) = import(&directory, &line).unwrap();
    assert_eq!(data.user_ids, ["eve", "bob"]);
    assert_eq!(walk(&data, 0), ["B-1", "B-2"]);
    assert_eq!(data.sequences[1][0].value, Some(19.5));
    assert_eq!((data.sequences[0][1].kind, data.sequences[1][0].kind), (EventKind::Cart, EventKind::Purchase));
    let find = |id: &str| data.items.iter().find(|item| item.item.id == id).unwrap().clone();
    assert_eq!(find("B-1").item.categories, ["Home", "Bath"]);
    assert_eq!(find("B-2").item.title.as_deref(), Some("Pen; blue"));
    assert_eq!(find("B-3").item.price, Some(1.0), "an item without events stays: it is new");
}

#[test]
fn csv_without_times_or_items_has_order() {
    let directory = directory(&[("e.csv", "user,item\n7,30\n5,10\n7,10\n7,10\n")]);
    let (data, imported) = import(&directory, "csv --interactions {}/e.csv --time-unit order").unwrap();
    assert!(!data.has_times);
    assert_eq!((walk(&data, 1), data.user_ids.clone()), (vec!["30", "10", "10"], vec!["5".to_owned(), "7".to_owned()]));
    assert_eq!(imported.notes, ["2 items have events but no description"]);
}

#[test]
fn an_event_log_goes_on_from_the_data_set_before_it() {
    let directory = directory(&[("e.csv", EVENTS)]);
    let mapping =
        "--map user=visitor,item=sku,time=ts,kind=action,value=amount --kinds addtocart=cart,transaction=purchase";
    import(&directory, &format!("csv --interactions {{}}/e.csv {mapping} --delimiter ;")).unwrap();
    std::fs::rename(directory.path().join("out"), directory.path().join("before")).unwrap();
    let mut log = b"R4EV\x01\0\0\0".to_vec();
    let told = [("eve", "B-9", EventKind::Click, 1_800_000_000), ("zoe", "B-1", EventKind::Rating, 1_700_000_000)];
    let hidden = ("eve", "B-1", EventKind::Hide, 1_800_000_001);
    for (at, (user, item, kind, time)) in told.into_iter().chain([hidden]).enumerate() {
        let event = Event { item_id: item.into(), kind, time, value: (kind == EventKind::Rating).then_some(4.0) };
        let event = UserEvent { user_id: user.into(), event, event_id: at.to_string(), request_id: String::new() };
        Logged { sequence: at as u64 + 1, arrived_ms: 0, event }.write(&mut log);
    }
    std::fs::create_dir(directory.path().join("log")).unwrap();
    std::fs::write(directory.path().join("log/00000000000000000001.events"), &log).unwrap();

    let (data, imported) = import(&directory, "events --log {}/log --after {}/before").unwrap();
    assert_eq!(data.user_ids, ["eve", "bob", "zoe"]);
    assert_eq!(walk(&data, 0), ["B-1", "B-2", "B-9"]);
    assert_eq!((data.sequences[2][0].kind, data.sequences[2][0].value), (EventKind::Rating, Some(4.0)));
    assert_eq!(imported.notes, ["1 items have events but no description", "1 events that hide an item left out"]);
    let bob: String = Sha256::digest("bob")[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(directory.path().join("log/forgotten"), format!("\n{bob}\n")).unwrap();
    std::fs::remove_dir_all(directory.path().join("out")).unwrap();
    let (data, _) = import(&directory, "events --log {}/log --after {}/before").unwrap();
    assert_eq!(data.user_ids, ["eve", "zoe"], "who was forgotten is brought back");
    std::fs::write(directory.path().join("log/00000000000000000001.events"), "R4EV....").unwrap();
    assert!(import(&directory, "events --log {}/log").unwrap_err().contains("expected an event log of version 1"));
}

#[test]
fn a_wrong_csv_file_or_flag_is_named() {
    let mapping = "--map user=visitor,item=sku,time=ts,kind=action,value=amount --delimiter ;";
    let wrong = |events: &str, flags: &str| {
        import(&directory(&[("e.csv", events)]), &format!("csv --interactions {{}}/e.csv {flags}")).unwrap_err()
    };
    assert!(wrong(EVENTS, "--delimiter ;").starts_with("e.csv: no column \"user\"; the columns are: ts, visitor"));
    let message = wrong(EVENTS, mapping);
    assert!(message.starts_with("e.csv, line 2, kind: \"addtocart\", expected one of cart, click"), "{message}");
    let message = wrong("ts;visitor;action;sku;amount\n1;a;view;x;1\n1;a;view;;1\n", mapping);
    assert_eq!(message, "e.csv, line 3, item: empty, expected an id");
    let message = wrong("ts;visitor;action;sku;amount\nsoon;a;view;x;1\n", mapping);
    assert!(message.starts_with("e.csv, line 2, time: \"soon\", expected Unix seconds or a date"), "{message}");
    let message = wrong("ts;visitor;action;sku;amount\n1;a;view;x;NaN\n", mapping);
    assert_eq!(message, "e.csv, line 2, value: \"NaN\", expected a finite number");
    let message = wrong("ts;visitor;action;sku;amount\n1;a;view;x\n", mapping);
    assert_eq!(message, "e.csv, line 2, fields: 4, expected 5 as in the first line");
    assert!(wrong(EVENTS, "--map usr=visitor").starts_with("--map \"usr\": expected pairs FIELD=COLUMN"));
    assert!(wrong(EVENTS, "--map user").starts_with("--map \"user\": expected NAME=VALUE"));
    assert!(wrong(EVENTS, "--kinds buy=bought").starts_with("--kinds \"bought\": expected one of view"));
    assert!(wrong("user,item,time\n1,2,3\n", "--k-core 5").contains("5 events among themselves"));
}
