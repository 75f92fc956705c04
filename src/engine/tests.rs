//! The engine over a network made of a hash function.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::task::JoinSet;

use super::fake::{FAILS, FakeModel, PANICS, history, index, until_begun};
use super::{DecodeRequest, Engine, EngineAnswer, EngineConfig, EngineError, EngineHandle, EngineMetrics, Turns};
use crate::batch::BatchConfig;
use crate::catalog::Index;
use crate::decode::Bias;
use crate::decode::{DecodeJob, DecodeSettings, Engine as Ranking, Outcome, decode};
use crate::domain::{Failure, Filter, ItemNumber, Lateness};

fn engine(index: Arc<Index>) -> Engine {
    Engine {
        name: "test".into(),
        index,
        settings: DecodeSettings::default(),
        config: EngineConfig { warmup_batches: vec![], ..EngineConfig::default() },
        metrics: EngineMetrics::new(&Registry::new()).unwrap(),
        turns: Turns::new(1),
        quiet: None,
    }
}

async fn started(model: FakeModel) -> (EngineHandle, Arc<Index>) {
    let index = index(100);
    (engine(index.clone()).start(|| Ok::<_, String>(model)).await.unwrap(), index)
}

fn request(index: &Index, items: &[ItemNumber]) -> DecodeRequest {
    DecodeRequest {
        history: history(items),
        k: 10,
        root: index.root(&Filter::default(), &[]),
        settings: DecodeSettings::default(),
        explain: false,
        bias: Bias::default(),
        deadline: Instant::now() + Duration::from_secs(30),
    }
}

/// The answer of a decode without an engine.
fn alone(index: &Index, request: &DecodeRequest) -> Outcome {
    let DecodeRequest { history, k, root, settings, explain, bias, .. } = request;
    let job = DecodeJob { history, k: *k, root, settings, explain: *explain, bias: Some(bias) };
    decode(&mut FakeModel::default(), index, &[job], &|_| true).unwrap().pop().unwrap().unwrap()
}

fn ask(handle: &EngineHandle, request: DecodeRequest) -> tokio::task::JoinHandle<Result<EngineAnswer, Failure>> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.decode(request).await })
}

async fn until_waiting(handle: &EngineHandle, jobs: usize) {
    while handle.queue_depth() != jobs {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_out_of_a_batch_equals_the_answer_alone() {
    let (model, open) = FakeModel::gated();
    let batches = model.batches.clone();
    let (handle, index) = started(model).await;

    // While one is held up, others with other settings and lengths gather.
    let held = ask(&handle, request(&index, &[4]));
    until_begun(&batches, 1).await;
    let mut waiting = JoinSet::new();
    for user in 0..40u32 {
        let items: Vec<ItemNumber> = (0..=user % 7).map(|place| 5 + (user * 3 + place) % 90).collect();
        let mut asked = request(&index, &items);
        asked.settings.engine = if user.is_multiple_of(4) { Ranking::Exact } else { Ranking::Beam };
        asked.settings.beam = 2 + user as usize % 9;
        asked.explain = user.is_multiple_of(2);
        let handle = handle.clone();
        waiting.spawn(async move { (asked.clone(), handle.decode(asked).await.unwrap()) });
    }
    until_waiting(&handle, 40).await;
    open.send(()).unwrap();
    open.send(()).unwrap();
    assert_eq!(held.await.unwrap().unwrap().batch_size, 1);
    while let Some(done) = waiting.join_next().await {
        let (asked, answer) = done.unwrap();
        assert_eq!(answer.batch_size, 40);
        assert_eq!(answer.outcome, alone(&index, &asked));
        assert_eq!(answer.outcome.items.len(), 10);
    }
}

#[tokio::test]
async fn warm_up_visits_every_shape_before_the_engine_is_ready() {
    let model = FakeModel { steady: true, ..FakeModel::default() };
    let batches = model.batches.clone();
    let mut plan = engine(index(100));
    plan.config.batch.max_batch = 4;
    plan.config.warmup_batches = vec![1, 4, 64];
    plan.config.warmup_histories = vec![1, 50];
    let handle = plan.start(|| Ok::<_, String>(model)).await.unwrap();
    assert!(handle.alive());
    assert_eq!(*batches.lock().unwrap(), [4, 4, 1, 4, 4, 1]);
}

#[tokio::test]
async fn each_engine_works_on_a_thread_of_its_own_pool() {
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let mut engines = Vec::new();
    for name in ["one", "other"] {
        let (mut plan, told) = (engine(index(10)), told.clone());
        plan.name = name.into();
        let build = move || {
            let named = std::thread::current().name().map(str::to_owned);
            told.send((named, rayon::current_thread_index())).map(|()| FakeModel::default())
        };
        engines.push(plan.start(build).await.unwrap());
        let (named, at) = hears.recv().await.unwrap();
        assert_eq!(named, at.map(|at| format!("engine-{name}-{at}")));
        assert!(at.is_some());
    }
}

#[tokio::test]
async fn what_goes_wrong_at_the_start_is_told() {
    let failed = engine(index(10)).start(|| Err::<FakeModel, _>("no weights")).await;
    assert!(matches!(failed, Err(EngineError::Build(reason)) if reason == "no weights"));

    let panicked = engine(index(10)).start(|| -> Result<FakeModel, String> { panic!("at the disco") }).await;
    assert!(matches!(panicked, Err(EngineError::Panicked)));

    let mut plan = engine(index(10));
    plan.config.warmup_batches = vec![0];
    plan.config.batch.max_batch = 0;
    let Err(EngineError::Config(wrong)) = plan.start(|| Ok::<_, String>(FakeModel::default())).await else {
        panic!("a config with zeros was taken");
    };
    let fields: Vec<_> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["batch.max_batch", "warmup_batches[0]"]);

    let mut plan = engine(index(10));
    plan.config.warmup_batches = vec![4];
    plan.config.warmup_histories = vec![50];
    let failed = plan.start(|| Ok::<_, String>(FakeModel::default())).await;
    assert!(matches!(failed, Err(EngineError::Panicked | EngineError::WarmUp(_))));
}

#[tokio::test]
async fn a_failing_batch_fails_its_jobs_and_not_the_engine() {
    let (handle, index) = started(FakeModel::default()).await;
    let failed = handle.decode(request(&index, &[FAILS])).await.unwrap_err();
    assert!(matches!(&failed, Failure::Internal(cause) if cause.contains("on fire")), "{failed}");
    assert!(matches!(handle.decode(request(&index, &[])).await, Err(Failure::Internal(_))));
    assert!(handle.decode(request(&index, &[3])).await.is_ok());
    assert!(handle.alive());
}

#[tokio::test]
async fn a_panic_ends_the_engine_and_everybody_is_told() {
    let (model, open) = FakeModel::gated();
    let batches = model.batches.clone();
    let (handle, index) = started(model).await;
    let mut alive = handle.watch_alive();
    let fatal = ask(&handle, request(&index, &[PANICS]));
    until_begun(&batches, 1).await;
    let waiting: Vec<_> = (3..9).map(|item| ask(&handle, request(&index, &[item]))).collect();
    until_waiting(&handle, 6).await;
    open.send(()).unwrap();
    assert!(matches!(fatal.await.unwrap(), Err(Failure::Internal(_))));
    for caller in waiting {
        assert!(matches!(caller.await.unwrap(), Err(Failure::Internal(_))));
    }
    alive.wait_for(|alive| !alive).await.unwrap();
    assert!(!handle.alive());
    assert!(matches!(handle.decode(request(&index, &[3])).await, Err(Failure::NotReady { .. })));
}

#[tokio::test]
async fn dropping_the_last_handle_joins_the_thread() {
    let (handle, index) = started(FakeModel::default()).await;
    let clone = handle.clone();
    let alive = handle.watch_alive();
    drop(handle);
    assert!(clone.decode(request(&index, &[3])).await.is_ok());
    drop(clone);
    assert!(!*alive.borrow(), "the thread had not ended when the drop returned");
}

#[tokio::test]
async fn a_job_that_gets_late_between_steps_is_dropped() {
    let model = FakeModel { encode: Duration::from_millis(100), ..FakeModel::default() };
    let advances = model.advances.clone();
    let (handle, index) = started(model).await;
    let mut late = request(&index, &[3]);
    late.deadline = Instant::now() + Duration::from_millis(50);
    let began = Instant::now();
    let failed = handle.decode(late).await.unwrap_err();
    assert!(matches!(failed, Failure::Late(Lateness::Answer | Lateness::Dequeue)), "{failed}");
    assert!(began.elapsed() < Duration::from_millis(95), "it waited for the engine");
    // The decoder reads nothing of the late one; whoever comes next gets its passes.
    let answer = handle.decode(request(&index, &[3])).await.unwrap();
    assert_eq!(advances.lock().unwrap().len(), answer.outcome.passes as usize);
}

#[tokio::test]
async fn times_of_the_stages_are_told() {
    let model = FakeModel { encode: Duration::from_millis(20), ..FakeModel::default() };
    let (handle, index) = started(model).await;
    let answer = handle.decode(request(&index, &[3])).await.unwrap();
    assert!(answer.encode >= Duration::from_millis(20), "{answer:?}");
    assert!(answer.search > Duration::ZERO && answer.search < Duration::from_secs(1), "{answer:?}");
}

#[tokio::test]
async fn an_engine_that_only_scores_items_spares_the_network_what_paths_read() {
    let model = FakeModel::default();
    let (batches, for_scores) = (model.batches.clone(), model.for_scores.clone());
    let (handle, index) = started(model).await;
    let mut asked = request(&index, &[4]);
    asked.settings.engine = Ranking::Exact;
    handle.decode(asked).await.unwrap();
    handle.decode(request(&index, &[5])).await.unwrap();
    assert_eq!((batches.lock().unwrap().len(), for_scores.lock().unwrap().clone()), (2, vec![1]));
}

#[tokio::test]
async fn the_warm_up_shows_the_network_every_shape_that_it_wants_to_see() {
    let model = FakeModel { paths_to_see: vec![8, 32], ..FakeModel::default() };
    let (batches, advances) = (model.batches.clone(), model.advances.clone());
    let config = EngineConfig {
        warmup_batches: vec![],
        warmup_histories: vec![3],
        batch: BatchConfig { max_batch: 4, ..BatchConfig::default() },
        ..EngineConfig::default()
    };
    let warmed = Engine { config, ..engine(index(100)) };
    drop(warmed.start(|| Ok::<_, String>(model)).await.unwrap());
    assert_eq!(*batches.lock().unwrap(), [4, 4]);
    // <BOS>, then all paths of four requests, codebook after codebook.
    assert_eq!(*advances.lock().unwrap(), [4, 32, 32, 32, 4, 128, 128, 128]);
}
