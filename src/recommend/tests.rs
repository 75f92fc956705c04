//! The sentence over a network made of a hash function.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus::Registry;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::{JoinHandle, JoinSet};

use super::{NoWayBack, RecommendConfig, Recommender, RecommenderError, Variant};
use crate::catalog::Index;
use crate::domain::{
    DecodeOverrides, Event, EventKind, Failure, Filter, Lateness, RecommendAnswer, RecommendRequest, Stage, Steering,
};
use crate::engine::DecodeSettings;
use crate::engine::fake::{Batches, CATEGORIES, FakeModel, PANICS, index, until_begun};
use crate::engine::{Engine, EngineConfig, EngineMetrics, Turns};
use crate::history::{Histories, HistoryConfig};

pub(super) struct House {
    pub(super) recommender: Recommender,
    pub(super) histories: Histories,
    pub(super) index: Arc<Index>,
    pub(super) batches: Batches,
    pub(super) registry: Registry,
    pub(super) metrics: EngineMetrics,
}

pub(super) async fn variant(name: &str, model: FakeModel, index: Arc<Index>, metrics: &EngineMetrics) -> Variant {
    let engine = Engine {
        name: name.into(),
        index: index.clone(),
        settings: DecodeSettings::default(),
        config: EngineConfig { warmup_batches: vec![], ..EngineConfig::default() },
        metrics: metrics.clone(),
        turns: Turns::new(1),
        quiet: None,
    };
    Variant {
        name: name.into(),
        engine: engine.start(|| Ok::<_, String>(model)).await.unwrap(),
        index,
        newcomers: None,
        bundle_name: "demo".into(),
        bundle_version: "7".into(),
        created: SystemTime::now() - Duration::from_secs(3600),
        directory: "registry/main/7".into(),
        settings: DecodeSettings::default(),
        max_history: 8,
    }
}

pub(super) async fn house(model: FakeModel) -> House {
    house_with(model, RecommendConfig::default()).await
}

pub(super) async fn house_with(model: FakeModel, config: RecommendConfig) -> House {
    let registry = Registry::new();
    let metrics = EngineMetrics::new(&registry).unwrap();
    let histories = Histories::in_memory(&HistoryConfig::default(), &registry).unwrap();
    let (batches, index) = (model.batches.clone(), index(300));
    let main = variant("main", model, index.clone(), &metrics).await;
    let recommender = Recommender::new(vec![main], "main".into(), histories.clone(), config, &registry).unwrap();
    House { recommender, histories, index, batches, registry, metrics }
}

fn view(item: u32) -> Event {
    Event { item_id: format!("i{item}"), kind: EventKind::View, time: i64::from(item), value: None }
}

pub(super) fn viewed(items: &[u32]) -> RecommendRequest {
    RecommendRequest { history: items.iter().copied().map(view).collect(), k: 10, ..RecommendRequest::default() }
}

pub(super) fn ids(answer: &RecommendAnswer) -> Vec<&str> {
    answer.items.iter().map(|item| item.item_id.as_str()).collect()
}

/// What must be equal however a request was batched.
pub(super) fn lasting(answer: &RecommendAnswer) -> RecommendAnswer {
    RecommendAnswer { request_id: String::new(), timings: Vec::new(), ..answer.clone() }
}

fn ask(
    house: &House,
    request: RecommendRequest,
    deadline: Option<Instant>,
) -> JoinHandle<Result<RecommendAnswer, Failure>> {
    let recommender = house.recommender.clone();
    tokio::spawn(async move { recommender.recommend(request, deadline).await })
}

/// The value of one series, as the metrics page shows it.
pub(super) fn series(registry: &Registry, line: &str) -> f64 {
    let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let found = page.lines().find_map(|row| row.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no series {line} in\n{page}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_at_once_share_batches_and_each_gets_its_single_answer() {
    let house = house(FakeModel { encode: Duration::from_millis(2), ..FakeModel::default() }).await;
    let request = |user: u32| RecommendRequest {
        explain: user.is_multiple_of(3),
        filter: Filter { exclude_seen: user.is_multiple_of(2), ..Filter::default() },
        ..viewed(&(0..=user % 11).map(|place| 3 + (user * 13 + place * 5) % 290).collect::<Vec<_>>())
    };
    let mut together = JoinSet::new();
    for user in 0..200 {
        let (recommender, request) = (house.recommender.clone(), request(user));
        together.spawn(async move { (user, recommender.recommend(request, None).await.unwrap()) });
    }
    let together = together.join_all().await;
    let batches = house.batches.lock().unwrap().clone();
    assert_eq!((together.len(), batches.iter().sum::<usize>()), (200, 200));
    assert!(batches.iter().any(|&size| size > 1), "{batches:?}");
    for (user, answer) in together {
        let single = house.recommender.recommend(request(user), None).await.unwrap();
        assert_eq!(lasting(&answer), lasting(&single), "user {user}");
        assert_eq!(answer.items.len(), 10);
    }
}

#[tokio::test]
async fn steering_moves_categories_and_likes_with_and_without_a_history() {
    let house = house(FakeModel::default()).await;
    let steered = |history: &[u32], categories: &[(&str, f32)], likes: &[(&str, f32)]| {
        let named = |list: &[(&str, f32)]| list.iter().map(|(name, nats)| ((*name).into(), *nats)).collect();
        let steering = Steering { categories: named(categories), likes: named(likes), ..Steering::default() };
        let user_id = "nobody".to_owned();
        house.recommender.recommend(RecommendRequest { steering, user_id, ..viewed(history) }, None)
    };
    for history in [&[3, 7, 11][..], &[]] {
        let plain = steered(history, &[], &[]).await.unwrap();
        let neutral = steered(history, &[("oil", 0.0), ("unheard of", 9.0)], &[("no such", 9.0)]).await.unwrap();
        assert_eq!(lasting(&neutral), lasting(&plain));
        assert_eq!(plain.cold_start, history.is_empty());

        let mut before = 0;
        for nats in [-20.0, -2.0, 0.0, 1.0, 3.0, 20.0] {
            let answer = steered(history, &[("oil", nats)], &[]).await.unwrap();
            let share = answer.items.iter().filter(|item| item.categories.contains(&"oil".to_owned())).count();
            assert!(share >= before, "{history:?}, {nats} nats: {share} after {before}");
            assert_eq!(answer.items.len(), 10);
            before = share;
        }
        assert_eq!(before, 10);
        // Every item has the coarse category: more of it is more of nothing.
        let all = steered(history, &[("beauty", 5.0)], &[]).await.unwrap();
        assert_eq!(ids(&all), ids(&plain));
        let like = steered(history, &[], &[("i205", 20.0)]).await.unwrap();
        // The only item with all three tokens of i205.
        assert_eq!(ids(&like)[0], "i205");
        let unlike = steered(history, &[], &[(ids(&plain)[0], -20.0)]).await.unwrap();
        assert_ne!(ids(&unlike)[0], ids(&plain)[0]);
    }
}

#[tokio::test]
async fn a_forbidden_category_never_appears_however_it_is_boosted() {
    let house = house(FakeModel { steady: true, ..FakeModel::default() }).await;
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for at in 0..10_000 {
        let forbidden = CATEGORIES[random.random_range(0..CATEGORIES.len())];
        let events = random.random_range(0..12);
        let history: Vec<u32> = (0..events).map(|_| random.random_range(0..300)).collect();
        let mut steered = vec![(forbidden.into(), random.random_range(-20.0..20.0))];
        if random.random_bool(0.5) {
            let other = CATEGORIES[random.random_range(0..CATEGORIES.len())];
            steered.extend((other != forbidden).then(|| (other.into(), random.random_range(-20.0..20.0))));
        }
        let likes =
            (0..random.random_range(0..3)).map(|_| (format!("i{}", random.random_range(0..300)), 5.0)).collect();
        let request = RecommendRequest {
            filter: Filter { exclude_categories: vec![forbidden.into()], ..Filter::default() },
            steering: Steering {
                categories: steered,
                likes,
                max_per_category: random.random_bool(0.2).then_some(10),
                ..Steering::default()
            },
            user_id: "nobody".into(),
            ..viewed(&history)
        };
        let answer = house.recommender.recommend(request, None).await.unwrap();
        assert_eq!(answer.items.len(), 10);
        assert!(answer.items.iter().all(|item| !item.categories.contains(&forbidden.to_owned())), "request {at}");
    }
}

#[tokio::test]
async fn an_answer_says_where_it_comes_from() {
    let house = house(FakeModel::default()).await;
    let mut request = viewed(&[5, 6]);
    request.explain = true;
    let answer = house.recommender.recommend(request.clone(), None).await.unwrap();
    assert_eq!((answer.variant.as_str(), answer.bundle_version.as_str()), ("main", "7"));
    assert_eq!((answer.index_version.as_str(), answer.cold_start, answer.short), ("index-1", false, false));
    let stages: Vec<Stage> = answer.timings.iter().map(|timing| timing.0).collect();
    assert_eq!(stages, Stage::ALL);
    assert!(answer.items.windows(2).all(|pair| pair[0].score >= pair[1].score));
    for item in &answer.items {
        assert!(item.score < 0.0 && item.title.is_some() && item.categories[0] == "beauty");
        let path = item.path.as_ref().unwrap();
        assert_eq!(path.category_names.len(), path.path.steps.len());
        let names: Vec<&String> = path.category_names.iter().flatten().collect();
        assert!(!names.is_empty() && names.iter().all(|name| CATEGORIES.contains(&name.as_str())), "{names:?}");
    }
    request.explain = false;
    let plain = house.recommender.recommend(request, None).await.unwrap();
    assert_eq!(ids(&plain), ids(&answer));
    assert!(plain.items.iter().all(|item| item.path.is_none()));
    assert_eq!(series(&house.registry, "reg4rec_stage_duration_seconds_count{stage=\"queue\"}"), 2.0);
    let info = "reg4rec_model_info{name=\"demo\",variant=\"main\",version=\"7\"}";
    assert_eq!(series(&house.registry, info), 1.0);
    assert_eq!(series(&house.registry, "reg4rec_index_items{variant=\"main\"}"), 300.0);
    let age = series(&house.registry, "reg4rec_model_age_seconds{variant=\"main\"}");
    assert!((3600.0..3700.0).contains(&age), "{age}");
}

#[tokio::test]
async fn request_ids_are_kept_or_made_up() {
    let house = house(FakeModel::default()).await;
    let mut request = viewed(&[5]);
    let mut made = HashSet::new();
    for _ in 0..20 {
        let answer = house.recommender.recommend(request.clone(), None).await.unwrap();
        assert!(answer.request_id.len() >= 24 && answer.request_id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        made.insert(answer.request_id);
    }
    assert_eq!(made.len(), 20);
    request.request_id = "mine".into();
    assert_eq!(house.recommender.recommend(request, None).await.unwrap().request_id, "mine");
}

#[tokio::test]
async fn a_stored_history_answers_as_the_same_one_sent() {
    let house = house(FakeModel::default()).await;
    [5, 7, 9].into_iter().for_each(|item| house.histories.memory().unwrap().append("ann", view(item)));
    let stored = RecommendRequest { user_id: "ann".into(), k: 10, ..RecommendRequest::default() };
    let by_user = house.recommender.recommend(stored.clone(), None).await.unwrap();
    let sent = house.recommender.recommend(viewed(&[5, 7, 9]), None).await.unwrap();
    assert_eq!(lasting(&by_user), lasting(&sent));
    let other = RecommendRequest { history: viewed(&[11]).history, ..stored };
    let overridden = house.recommender.recommend(other, None).await.unwrap();
    let alone = house.recommender.recommend(viewed(&[11]), None).await.unwrap();
    assert_eq!(lasting(&overridden), lasting(&alone));
}

#[tokio::test]
async fn unknown_items_are_dropped_and_the_newest_known_ones_kept() {
    let house = house(FakeModel::default()).await;
    let plain = house.recommender.recommend(viewed(&[21, 22, 23, 24, 25, 26, 27, 28]), None).await.unwrap();
    // Two that are too old for the network's eight, and two that the bundle does not know.
    let longer = viewed(&[3, 4, 21, 22, 9999, 23, 24, 25, 26, 27, 28, 7777]);
    let answer = house.recommender.recommend(longer, None).await.unwrap();
    assert_eq!(lasting(&answer), lasting(&plain));
}

#[tokio::test]
async fn a_cold_user_gets_the_popular_items_of_the_root() {
    let house = house(FakeModel::default()).await;
    let nobody = RecommendRequest { user_id: "nobody".into(), k: 3, ..RecommendRequest::default() };
    let strange = RecommendRequest { k: 3, ..viewed(&[9999]) };
    for request in [nobody, strange, RecommendRequest { k: 3, ..RecommendRequest::default() }] {
        let answer = house.recommender.recommend(request, None).await.unwrap();
        assert!(answer.cold_start);
        assert_eq!(ids(&answer), ["i0", "i1", "i2"]);
    }
    let filter = Filter { include_categories: vec!["oil".into()], max_price: Some(5.0), ..Filter::default() };
    let narrow = RecommendRequest { k: 3, filter, ..RecommendRequest::default() };
    let answer = house.recommender.recommend(narrow, None).await.unwrap();
    assert_eq!((ids(&answer), answer.short), (vec!["i1", "i4"], true));
    let mass: f32 = answer.items.iter().map(|item| item.score.exp()).sum();
    assert!((mass - 1.0).abs() < 1e-5, "scores are normalised over the root: {mass}");
    assert!((answer.items[0].score - (5.0f32 / 7.0).ln()).abs() < 1e-5, "1/2 against 1/5");
    assert!(house.batches.lock().unwrap().is_empty(), "nothing is asked of the engine");
    assert_eq!(series(&house.registry, "reg4rec_cold_start_total"), 4.0);
    assert_eq!(series(&house.registry, "reg4rec_results_short_total"), 1.0);

    let all = RecommendRequest { k: 1000, ..RecommendRequest::default() };
    let answer = house.recommender.recommend(all, None).await.unwrap();
    assert_eq!((answer.items.len(), answer.short), (299, true));
    let mass: f32 = answer.items.iter().map(|item| item.score.exp()).sum();
    assert!((mass - 1.0).abs() < 1e-4, "{mass}");
}

#[tokio::test]
async fn seen_items_are_left_out_when_asked_and_hidden_ones_always() {
    let house = house(FakeModel::default()).await;
    let everything = RecommendRequest { k: 1000, ..viewed(&(3..20).collect::<Vec<_>>()) };
    let with_seen = house.recommender.recommend(everything.clone(), None).await.unwrap();
    assert_eq!(with_seen.items.len(), 299);

    let mut without = everything.clone();
    without.filter.exclude_seen = true;
    let answer = house.recommender.recommend(without, None).await.unwrap();
    assert_eq!(answer.items.len(), 299 - 17, "also those too old for the network");
    assert!((3..20).all(|item| !ids(&answer).contains(&format!("i{item}").as_str())));

    let mut hidden = everything;
    hidden.history[1].kind = EventKind::Hide;
    let answer = house.recommender.recommend(hidden, None).await.unwrap();
    assert_eq!(answer.items.len(), 298);
    assert!(!ids(&answer).contains(&"i4"));
}

#[tokio::test]
async fn an_empty_root_is_a_short_answer() {
    let house = house(FakeModel::default()).await;
    for mut request in [viewed(&[5]), RecommendRequest { k: 3, ..RecommendRequest::default() }] {
        request.filter.include_brands = vec!["nobody's".into()];
        let answer = house.recommender.recommend(request, None).await.unwrap();
        assert!(answer.items.is_empty() && answer.short);
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_by_name() {
    let house = house(FakeModel::default()).await;
    let unknown = RecommendRequest { variant: "nope".into(), ..viewed(&[5]) };
    let refused = house.recommender.recommend(unknown, None).await.unwrap_err();
    assert_eq!(refused, Failure::UnknownVariant("nope".into()));
    let decode = DecodeOverrides { beam: Some(0), theta: Some(f32::NAN), ..DecodeOverrides::default() };
    let Err(Failure::Invalid(wrong)) =
        house.recommender.recommend(RecommendRequest { decode, ..viewed(&[5]) }, None).await
    else {
        panic!("a beam of nothing was taken");
    };
    let fields: Vec<_> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["decode.beam", "decode.theta"]);
}

#[tokio::test]
async fn overrides_change_this_request_alone() {
    let house = house(FakeModel::default()).await;
    let plain = house.recommender.recommend(viewed(&[5, 6]), None).await.unwrap();
    let decode = DecodeOverrides { engine: Some(crate::domain::Engine::Exact), ..DecodeOverrides::default() };
    let exact = house.recommender.recommend(RecommendRequest { decode, ..viewed(&[5, 6]) }, None).await.unwrap();
    assert_ne!(lasting(&exact).items, lasting(&plain).items);
    let again = house.recommender.recommend(viewed(&[5, 6]), None).await.unwrap();
    assert_eq!(lasting(&again), lasting(&plain));
}

#[tokio::test]
async fn deadlines_hold_at_every_stage() {
    let (model, open) = FakeModel::gated();
    let house = house(model).await;
    let soon = |millis| Some(Instant::now() + Duration::from_millis(millis));

    let late = house.recommender.recommend(viewed(&[5]), soon(0)).await.unwrap_err();
    assert_eq!(late, Failure::Late(Lateness::Enqueue));
    let cold = RecommendRequest { k: 3, ..RecommendRequest::default() };
    assert_eq!(house.recommender.recommend(cold, soon(0)).await, Err(Failure::Late(Lateness::Enqueue)));

    let running = ask(&house, viewed(&[5]), soon(100));
    until_begun(&house.batches, 1).await;
    let waiting = ask(&house, viewed(&[6]), soon(50));
    assert_eq!(waiting.await.unwrap(), Err(Failure::Late(Lateness::Dequeue)));
    assert_eq!(running.await.unwrap(), Err(Failure::Late(Lateness::Answer)));
    open.send(()).unwrap();

    open.send(()).unwrap();
    assert!(house.recommender.recommend(viewed(&[7]), None).await.is_ok());
    assert_eq!(*house.batches.lock().unwrap(), [1, 1], "what was late in line never ran");
    for (place, count) in [("enqueue", 2.0), ("dequeue", 1.0), ("answer", 1.0), ("step", 0.0)] {
        let line = format!("reg4rec_deadline_exceeded_total{{where=\"{place}\"}}");
        assert_eq!(series(&house.registry, &line), count, "{place}");
    }
    assert_eq!(series(&house.registry, "reg4rec_requests_without_deadline_total"), 1.0);
}

#[tokio::test]
async fn the_servers_maximum_bounds_every_deadline() {
    let (model, _open) = FakeModel::gated();
    let registry = Registry::new();
    let metrics = EngineMetrics::new(&registry).unwrap();
    let histories = Histories::in_memory(&HistoryConfig::default(), &registry).unwrap();
    let config = RecommendConfig { max_deadline_ms: 30, ..RecommendConfig::default() };
    let main = variant("main", model, index(300), &metrics).await;
    let recommender = Recommender::new(vec![main], "main".into(), histories, config, &registry).unwrap();
    let hour = Some(Instant::now() + Duration::from_secs(3600));
    for deadline in [None, hour] {
        let late = recommender.recommend(viewed(&[5]), deadline).await.unwrap_err();
        assert!(matches!(late, Failure::Late(Lateness::Answer | Lateness::Dequeue)), "{late}");
    }
    // The gate's other end is dropped before the recommender, so that the engine can end.
    drop(_open);
}

#[tokio::test]
async fn a_cancelled_request_leaves_the_queue() {
    let (model, open) = FakeModel::gated();
    let house = house(model).await;
    let running = ask(&house, viewed(&[5]), None);
    until_begun(&house.batches, 1).await;
    let (cancelled, staying) = (ask(&house, viewed(&[6]), None), ask(&house, viewed(&[7]), None));
    while house.recommender.inflight() < 3 {
        tokio::task::yield_now().await;
    }
    cancelled.abort();
    assert!(cancelled.await.unwrap_err().is_cancelled());
    assert_eq!(house.recommender.inflight(), 2);
    drop(open);
    assert!(running.await.unwrap().is_ok() && staying.await.unwrap().is_ok());
    assert_eq!(*house.batches.lock().unwrap(), [1, 1]);
}

#[tokio::test]
async fn a_stopped_engine_is_told() {
    let house = house(FakeModel::default()).await;
    assert!(house.recommender.ready());
    let recommender = house.recommender.clone();
    let stopped = tokio::spawn(async move { recommender.engine_stopped().await });
    assert!(matches!(house.recommender.recommend(viewed(&[PANICS]), None).await, Err(Failure::Internal(_))));
    assert_eq!(stopped.await.unwrap(), "main");
    assert!(!house.recommender.ready() && !house.recommender.variants()[0].alive);
    assert!(matches!(house.recommender.recommend(viewed(&[5]), None).await, Err(Failure::NotReady { .. })));
}

#[tokio::test]
async fn a_variant_is_swapped_under_load_without_losing_a_request() {
    let house = house(FakeModel::default()).await;
    let recommender = house.recommender.clone();
    let stopped = tokio::spawn(async move { recommender.engine_stopped().await });
    let callers: Vec<_> = (0..100).map(|user| ask(&house, viewed(&[3 + user]), None)).collect();
    for version in ["8", "9"] {
        let mut next = variant("main", FakeModel::default(), house.index.clone(), &house.metrics).await;
        next.bundle_version = version.into();
        house.recommender.set_variant(next).unwrap();
    }
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().items.len(), 10);
    }
    let views = house.recommender.variants();
    assert_eq!((views.len(), views[0].bundle_version.as_str(), views[0].default), (1, "9", true));
    assert!(house.recommender.ready() && !stopped.is_finished(), "an engine that was replaced has not failed");
    let page = prometheus::TextEncoder::new().encode_to_string(&house.registry.gather()).unwrap();
    assert_eq!(page.matches("reg4rec_model_info{").count(), 1, "only the bundle that serves is shown");
}

#[tokio::test]
async fn a_rollback_swaps_back_and_forth_and_what_came_before_ends() {
    let house = house(FakeModel::default()).await;
    let recommender = &house.recommender;
    assert_eq!(recommender.rollback("main"), Err(NoWayBack::NoPrevious));
    assert_eq!(recommender.rollback("other"), Err(NoWayBack::Unknown));
    let first = recommender.loaded("main").unwrap().variant.engine.watch_alive();
    for version in ["8", "9"] {
        let next = variant("main", FakeModel::default(), house.index.clone(), &house.metrics).await;
        recommender.set_variant(Variant { bundle_version: version.into(), ..next }).unwrap();
    }
    let shown = || {
        let slot = recommender.slots().remove(0);
        (slot.current.bundle_version, slot.previous.map(|previous| previous.bundle_version))
    };
    let info = |version| format!("reg4rec_model_info{{name=\"demo\",variant=\"main\",version=\"{version}\"}}");
    assert_eq!(shown(), ("9".into(), Some("8".into())));
    recommender.rollback("main").unwrap();
    assert_eq!(shown(), ("8".into(), Some("9".into())));
    assert_eq!(series(&house.registry, &info("8")), 1.0);
    assert_eq!(recommender.recommend(viewed(&[5]), None).await.unwrap().bundle_version, "8");
    recommender.rollback("main").unwrap();
    assert_eq!(shown(), ("9".into(), Some("8".into())));
    // Version 7 is nobody's way back.
    let mut first = first;
    tokio::time::timeout(Duration::from_secs(30), first.wait_for(|alive| !alive)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_keeps_the_variant_that_it_began_with() {
    let (model, open) = FakeModel::gated();
    let house = house(model).await;
    let inside = ask(&house, viewed(&[5]), None);
    until_begun(&house.batches, 1).await;
    let mut first = house.recommender.loaded("").unwrap().variant.engine.watch_alive();
    for version in ["8", "9"] {
        let next = variant("main", FakeModel::default(), house.index.clone(), &house.metrics).await;
        house.recommender.set_variant(Variant { bundle_version: version.into(), ..next }).unwrap();
    }
    assert_eq!(house.recommender.recommend(viewed(&[5]), None).await.unwrap().bundle_version, "9");
    assert!(*first.borrow(), "its engine ended under a request");
    open.send(()).unwrap();
    assert_eq!(inside.await.unwrap().unwrap().bundle_version, "7");
    tokio::time::timeout(Duration::from_secs(30), first.wait_for(|alive| !alive)).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_default_is_one_of_the_loaded_variants() {
    let house = house(FakeModel::default()).await;
    let other = variant("other", FakeModel::default(), house.index.clone(), &house.metrics).await;
    house.recommender.set_variant(other).unwrap();
    assert_eq!(house.recommender.recommend(viewed(&[5]), None).await.unwrap().variant, "main");
    assert!(house.recommender.set_default("other") && !house.recommender.set_default("nobody"));
    assert_eq!(house.recommender.recommend(viewed(&[5]), None).await.unwrap().variant, "other");
    let defaults: Vec<String> =
        house.recommender.variants().into_iter().filter(|view| view.default).map(|view| view.name).collect();
    assert_eq!(defaults, ["other"]);
}

#[tokio::test]
async fn a_drain_answers_who_is_inside_and_refuses_who_comes_later() {
    let (model, open) = FakeModel::gated();
    let house = house(model).await;
    let inside = ask(&house, viewed(&[5]), None);
    until_begun(&house.batches, 1).await;
    let mut ready = house.recommender.watch_ready();
    let recommender = house.recommender.clone();
    let drain = tokio::spawn(async move { recommender.drain(Duration::from_millis(30)).await });
    ready.wait_for(|ready| !ready).await.unwrap();
    assert!(!house.recommender.ready());
    let in_the_lag = RecommendRequest { k: 3, ..RecommendRequest::default() };
    assert!(house.recommender.recommend(in_the_lag.clone(), None).await.is_ok());
    loop {
        match house.recommender.recommend(in_the_lag.clone(), None).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(failure) => break assert!(matches!(failure, Failure::NotReady { reason: "draining", .. })),
        }
    }
    assert!(!drain.is_finished(), "one is still inside");
    drop(open);
    assert!(inside.await.unwrap().is_ok());
    drain.await.unwrap();
    assert_eq!(house.recommender.inflight(), 0);
}

#[tokio::test]
async fn a_recommender_refuses_wrong_settings() {
    let registry = Registry::new();
    let metrics = EngineMetrics::new(&registry).unwrap();
    let histories = Histories::in_memory(&HistoryConfig::default(), &registry).unwrap();
    let main = variant("main", FakeModel::default(), index(10), &metrics).await;
    let new = |variants: Vec<Variant>, default: &str, config| {
        Recommender::new(variants, default.into(), histories.clone(), config, &Registry::new()).err().unwrap()
    };
    let config = RecommendConfig::default();
    assert!(matches!(new(vec![main.clone()], "other", config), RecommenderError::NoDefault(name) if name == "other"));
    assert!(matches!(new(vec![main.clone(), main.clone()], "main", config), RecommenderError::Twice(_)));
    let broken = Variant { settings: DecodeSettings { beam: 0, ..DecodeSettings::default() }, ..main.clone() };
    let RecommenderError::Config(wrong) = new(vec![broken], "main", config) else { panic!("a beam of nothing") };
    assert_eq!(wrong[0].field, "settings.beam");
    let config = RecommendConfig { max_history: 0, max_deadline_ms: 0, ..RecommendConfig::default() };
    let RecommenderError::Config(wrong) = new(vec![main], "main", config) else { panic!("no history at all") };
    assert_eq!(wrong.len(), 2);
}
