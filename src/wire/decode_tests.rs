//! Each check of `decode`, by the name of the field that it refuses.

use prost_types::Timestamp;

use super::*;

fn fields(outcome: Result<RecommendRequest, Failure>) -> Vec<String> {
    match outcome {
        Ok(request) => panic!("accepted: {request:?}"),
        Err(Failure::Invalid(violations)) => violations.into_iter().map(|wrong| wrong.field).collect(),
        Err(other) => panic!("{other:?}"),
    }
}

fn user() -> v1::RecommendRequest {
    v1::RecommendRequest { user_id: "u".into(), ..Default::default() }
}

fn event(item: &str) -> v1::Event {
    v1::Event { item_id: item.into(), ..Default::default() }
}

fn at(item: &str, seconds: i64) -> v1::Event {
    v1::Event { time: Some(Timestamp { seconds, nanos: 0 }), ..event(item) }
}

fn with_history(history: Vec<v1::Event>) -> v1::RecommendRequest {
    v1::RecommendRequest { history, ..Default::default() }
}

#[test]
fn a_bare_user_gets_the_defaults() {
    let request = recommend(user()).unwrap();
    let expected = RecommendRequest { user_id: "u".into(), k: 10, ..Default::default() };
    assert_eq!(request, expected);
}

#[test]
fn an_empty_request_names_user_and_history() {
    assert_eq!(fields(recommend(v1::RecommendRequest::default())), ["user_id", "history"]);
}

#[test]
fn k_is_one_to_a_thousand() {
    for k in [0, 1001, 1_000_000_000] {
        assert_eq!(fields(recommend(v1::RecommendRequest { k: Some(k), ..user() })), ["k"]);
    }
    for k in [1, 1000] {
        assert_eq!(recommend(v1::RecommendRequest { k: Some(k), ..user() }).unwrap().k, k as usize);
    }
}

#[test]
fn steering_is_bounded_and_every_wrong_weight_is_named() {
    let category = |name: &str, weight| v1::CategoryWeight { category: name.into(), weight };
    let like = |id: &str, weight| v1::Likeness { item_id: id.into(), weight };
    let steered = |categories, likes| {
        let steering = v1::Steering { categories, likes, ..v1::Steering::default() };
        recommend(v1::RecommendRequest { steering: Some(steering), ..user() })
    };
    let taken = steered(vec![category("Hair", 20.0)], vec![like("i", -0.5)]).unwrap().steering;
    assert_eq!((taken.categories, taken.likes), (vec![("Hair".into(), 20.0)], vec![("i".into(), -0.5)]));
    let wrong = steered(
        vec![category("", 0.0), category("Hair", 20.1)],
        vec![like("i", f32::NAN), like("j", f32::NEG_INFINITY), like("", 1.0)],
    );
    assert_eq!(
        fields(wrong),
        [
            "steering.categories[0].category",
            "steering.categories[1].weight",
            "steering.likes[0].weight",
            "steering.likes[1].weight",
            "steering.likes[2].item_id"
        ]
    );
    let many = steered(vec![category("c", 1.0); 101], vec![like("i", 1.0); 21]);
    assert_eq!(fields(many), ["steering.categories", "steering.likes"]);
}

#[test]
fn limits_of_categories_are_whole_numbers_in_range() {
    let limit = |name: &str, most| v1::CategoryLimit { category: name.into(), most };
    let limited = |max_per_category, limits| {
        let steering = v1::Steering { max_per_category, limits, ..v1::Steering::default() };
        recommend(v1::RecommendRequest { steering: Some(steering), ..user() })
    };
    let taken = limited(Some(2), vec![limit("Hair", 0)]).unwrap().steering;
    assert_eq!((taken.max_per_category, taken.limits), (Some(2), vec![("Hair".into(), 0)]));
    let wrong = limited(Some(0), vec![limit("", 1), limit("Hair", 1001)]);
    assert_eq!(fields(wrong), ["steering.max_per_category", "steering.limits[0].category", "steering.limits[1].most"]);
    assert_eq!(fields(limited(None, vec![limit("c", 1); 101])), ["steering.limits"]);
}

#[test]
fn a_history_past_the_limit_names_history_once() {
    let sent = with_history(vec![event("a"); 1_000_000]);
    assert_eq!(fields(recommend(sent)), ["history"]);
    assert_eq!(recommend(with_history(vec![event("a"); MAX_HISTORY])).unwrap().history.len(), MAX_HISTORY);
}

#[test]
fn every_wrong_field_is_named_at_once() {
    let sent = v1::RecommendRequest {
        request_id: vec![b'r'; 257],
        user_id: vec![b'u', 0xff],
        history: vec![
            v1::Event { value: Some(f32::NAN), ..event("a") },
            event(""),
            v1::Event { kind: 99, ..event("b") },
            v1::Event { item_id: vec![0xc3, 0x28], value: Some(f32::INFINITY), ..Default::default() },
        ],
        k: Some(0),
        variant: vec![0xfe],
        ..Default::default()
    };
    let named = fields(recommend(sent));
    let expected = [
        "request_id",
        "user_id",
        "history[0].value",
        "history[1].item_id",
        "history[2].kind",
        "history[3].item_id",
        "history[3].value",
        "k",
        "variant",
    ];
    assert_eq!(named, expected);
}

#[test]
fn a_string_that_is_not_utf8_says_where() {
    let sent = v1::RecommendRequest { user_id: vec![b'u', b's', 0xff], ..Default::default() };
    let Err(Failure::Invalid(violations)) = recommend(sent) else { panic!("accepted") };
    assert_eq!(violations[0].description, "byte 0xff at position 2 is not UTF-8");
}

#[test]
fn the_bytes_of_a_string_field_on_the_wire_are_the_same() {
    use prost::Message;
    // Field 2, length-delimited, "ué": what any other client sends for `string user_id = 2`.
    let sent = v1::RecommendRequest::decode(&[0x12, 3, b'u', 0xc3, 0xa9][..]).unwrap();
    assert_eq!(recommend(sent).unwrap().user_id, "ué");
    // Field 9, a map entry {1: "a", 2: "b"}.
    let sent = v1::RecommendRequest::decode(&[0x12, 1, b'u', 0x4a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'][..]).unwrap();
    assert_eq!(recommend(sent).unwrap().attributes, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
}

#[test]
fn events_carry_over() {
    let sent = v1::Event { kind: v1::EventKind::Rating as i32, value: Some(4.5), ..at("a", 1_400_000_000) };
    let history = recommend(with_history(vec![sent])).unwrap().history;
    let expected = Event { item_id: "a".into(), kind: EventKind::Rating, time: 1_400_000_000, value: Some(4.5) };
    assert_eq!(history, [expected]);
}

#[test]
fn events_without_a_time_take_their_neighbours() {
    let sent = with_history(vec![event("a"), at("b", 100), event("c"), at("d", 300)]);
    let times: Vec<i64> = recommend(sent).unwrap().history.iter().map(|event| event.time).collect();
    assert_eq!(times, [100, 100, 100, 300]);
}

#[test]
fn the_oldest_event_comes_first() {
    let sent = with_history(vec![at("a", 300), event("b"), at("c", 100), at("d", 100)]);
    assert_eq!(fields(recommend(sent)), ["history[2].time"]);
}

#[test]
fn a_time_is_within_the_calendar() {
    assert_eq!(fields(recommend(with_history(vec![at("a", i64::MAX)]))), ["history[0].time"]);
    let nanos = v1::Event { time: Some(Timestamp { seconds: 0, nanos: -1 }), ..event("a") };
    assert_eq!(fields(recommend(with_history(vec![nanos]))), ["history[0].time"]);
    assert!(recommend(with_history(vec![at("a", -1)])).is_ok());
}

#[test]
fn filters_are_checked_entry_by_entry() {
    let filter = v1::Filter {
        exclude_items: vec!["a".into(), Vec::new()],
        include_categories: vec![vec![0xff]],
        exclude_categories: vec![vec![b'c'; 300]],
        exclude_brands: vec!["b".into(); MAX_FILTER + 1],
        price: Some(v1::PriceRange { min: Some(f32::NAN), max: Some(-1.0) }),
        ..Default::default()
    };
    let named = fields(recommend(v1::RecommendRequest { filter: Some(filter), ..user() }));
    let expected = [
        "filter.price.min",
        "filter.price.max",
        "filter.exclude_items[1]",
        "filter.include_categories[0]",
        "filter.exclude_categories[0]",
        "filter.exclude_brands",
    ];
    assert_eq!(named, expected);
}

#[test]
fn a_price_range_is_not_upside_down() {
    let price = Some(v1::PriceRange { min: Some(2.0), max: Some(1.0) });
    let filter = Some(v1::Filter { price, ..Default::default() });
    assert_eq!(fields(recommend(v1::RecommendRequest { filter, ..user() })), ["filter.price"]);
}

#[test]
fn decode_options_are_checked() {
    let decode = v1::DecodeOptions { engine: 9, beam: Some(0), theta: Some(f32::NAN), ..Default::default() };
    let named = fields(recommend(v1::RecommendRequest { decode: Some(decode), ..user() }));
    assert_eq!(named, ["decode.engine", "decode.beam", "decode.theta"]);
    let decode = v1::DecodeOptions { engine: v1::Engine::Exact as i32, corp: Some(false), ..Default::default() };
    let request = recommend(v1::RecommendRequest { decode: Some(decode), ..user() }).unwrap();
    assert_eq!(
        request.decode,
        DecodeOverrides { engine: Some(Engine::Exact), corp: Some(false), ..Default::default() }
    );
}

#[test]
fn attributes_are_named_by_their_key() {
    let entry =
        |key: &str, value: &[u8]| v1::recommend_request::AttributesEntry { key: key.into(), value: value.into() };
    let attributes = vec![entry("os", b"x"), entry("bad", &[0xff]), entry("", b"y")];
    let named = fields(recommend(v1::RecommendRequest { attributes, ..user() }));
    assert_eq!(named, ["attributes[\"bad\"]", "attributes[\"\"]"]);
}

#[test]
fn a_batch_checks_each_request_on_its_own() {
    let requests = vec![user(), v1::RecommendRequest::default(), user()];
    let checked = batch(v1::RecommendBatchRequest { requests }).unwrap();
    assert!(checked[0].is_ok() && checked[1].is_err() && checked[2].is_ok());
}

#[test]
fn a_batch_is_neither_empty_nor_too_large() {
    for requests in [vec![], vec![user(); MAX_BATCH + 1]] {
        let Err(Failure::Invalid(violations)) = batch(v1::RecommendBatchRequest { requests }) else {
            panic!("accepted")
        };
        assert_eq!(violations[0].field, "requests");
    }
}
