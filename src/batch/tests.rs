//! The lane, end to end: batches, deadlines, cancellation, admission, and how it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::task::JoinSet;

use super::{Answered, BatchConfig, BatchMetrics, Submitter, Turns, Worker, lane};
use crate::domain::{Failure, Lateness, Overload};

struct Bench {
    submitter: Arc<Submitter<u64, u64>>,
    worker: Worker<u64, u64>,
    registry: Registry,
}

fn bench(config: BatchConfig) -> Bench {
    let registry = Registry::new();
    let (submitter, worker) = lane("test", config, &Turns::new(1), &BatchMetrics::new(&registry).unwrap());
    Bench { submitter: Arc::new(submitter), worker, registry }
}

fn sized(max_batch: usize, max_queue: usize) -> BatchConfig {
    BatchConfig { max_batch, max_queue, linger_us: 0 }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// The value of one series, as the metrics page shows it.
fn series(registry: &Registry, line: &str) -> f64 {
    let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let found = page.lines().find_map(|row| row.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no series {line} in\n{page}"))
}

fn submit(
    submitter: &Arc<Submitter<u64, u64>>,
    job: u64,
    deadline: Instant,
) -> tokio::task::JoinHandle<Result<Answered<u64>, Failure>> {
    let submitter = submitter.clone();
    tokio::spawn(async move { submitter.submit(job, deadline).await })
}

async fn until_waiting(submitter: &Submitter<u64, u64>, jobs: usize) {
    while submitter.depth() != jobs {
        tokio::task::yield_now().await;
    }
}

/// Runs `batches` batches that take `took` each, answering every job with its double.
fn serve(worker: &Worker<u64, u64>, batches: usize, took: Duration) {
    for _ in 0..batches {
        let batch = worker.next_batch().unwrap();
        let answers: Vec<_> = batch.jobs().map(|job| Ok(job * 2)).collect();
        let until = Instant::now() + took;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        batch.answer(answers);
    }
}

#[tokio::test]
async fn all_that_waits_goes_in_one_batch_up_to_the_limit() {
    let Bench { submitter, worker, registry } = bench(sized(4, 100));
    let callers: Vec<_> = (0..6).map(|job| submit(&submitter, job, soon())).collect();
    until_waiting(&submitter, 6).await;
    assert_eq!(series(&registry, "reg4rec_queue_depth{lane=\"test\"}"), 6.0);
    serve(&worker, 2, Duration::ZERO);
    for (job, caller) in callers.into_iter().enumerate() {
        let answered = caller.await.unwrap().unwrap();
        assert_eq!((answered.answer, answered.batch_size), (job as u64 * 2, if job < 4 { 4 } else { 2 }));
    }
    assert_eq!(series(&registry, "reg4rec_queue_depth{lane=\"test\"}"), 0.0);
    assert_eq!(series(&registry, "reg4rec_batch_size_sum"), 6.0);
    assert_eq!(series(&registry, "reg4rec_queue_wait_seconds_count"), 6.0);
}

#[tokio::test]
async fn a_late_job_does_not_enter() {
    let Bench { submitter, registry, .. } = bench(sized(4, 100));
    let refused = submitter.submit(1, Instant::now()).await.unwrap_err();
    assert_eq!(refused, Failure::Late(Lateness::Enqueue));
    assert_eq!(submitter.refuse_late(Instant::now()), Err(Failure::Late(Lateness::Enqueue)));
    assert_eq!(submitter.refuse_late(soon()), Ok(()));
    assert_eq!(series(&registry, "reg4rec_deadline_exceeded_total{where=\"enqueue\"}"), 2.0);
}

#[tokio::test]
async fn a_job_that_is_late_in_line_is_never_worked_on() {
    let Bench { submitter, worker, registry } = bench(sized(4, 100));
    let late = submit(&submitter, 1, Instant::now() + Duration::from_millis(20));
    assert_eq!(late.await.unwrap().unwrap_err(), Failure::Late(Lateness::Dequeue));
    assert_eq!(submitter.depth(), 0, "its caller took it out");

    // Here the worker meets it first: the runtime's only thread is busy past the deadline.
    let late = submit(&submitter, 2, Instant::now() + Duration::from_millis(5));
    let alive = submit(&submitter, 3, soon());
    until_waiting(&submitter, 2).await;
    let past = Instant::now() + Duration::from_millis(10);
    while Instant::now() < past {
        std::hint::spin_loop();
    }
    let batch = worker.next_batch().unwrap();
    assert_eq!(batch.jobs().copied().collect::<Vec<_>>(), [3]);
    batch.answer([Ok(6)]);
    assert_eq!(late.await.unwrap().unwrap_err(), Failure::Late(Lateness::Dequeue));
    assert_eq!(alive.await.unwrap().unwrap().answer, 6);
    assert_eq!(series(&registry, "reg4rec_deadline_exceeded_total{where=\"dequeue\"}"), 2.0);
}

#[tokio::test]
async fn a_job_that_is_late_in_its_batch_is_unwanted() {
    let Bench { submitter, worker, registry } = bench(sized(4, 100));
    let late = submit(&submitter, 1, Instant::now() + Duration::from_millis(30));
    until_waiting(&submitter, 1).await;
    let batch = worker.next_batch().unwrap();
    assert!(batch.wanted(0) && !batch.wanted(1));
    assert_eq!(late.await.unwrap().unwrap_err(), Failure::Late(Lateness::Answer));
    assert!(!batch.wanted(0));
    batch.answer([Ok(2)]);
    assert_eq!(series(&registry, "reg4rec_deadline_exceeded_total{where=\"answer\"}"), 1.0);
}

#[tokio::test]
async fn a_cancelled_caller_takes_its_job_out() {
    let Bench { submitter, worker, registry } = bench(sized(4, 100));
    let callers: Vec<_> = (0..3).map(|job| submit(&submitter, job, soon())).collect();
    until_waiting(&submitter, 3).await;
    callers[1].abort();
    until_waiting(&submitter, 2).await;
    assert_eq!(series(&registry, "reg4rec_queue_depth{lane=\"test\"}"), 2.0);
    let batch = worker.next_batch().unwrap();
    assert_eq!(batch.jobs().copied().collect::<Vec<_>>(), [0, 2]);
    callers[2].abort();
    while batch.wanted(1) {
        tokio::task::yield_now().await;
    }
    assert!(batch.wanted(0));
    batch.answer([Ok(0), Ok(4)]);
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let Bench { submitter, worker, .. } = bench(sized(2, 3));
    let callers: Vec<_> = (0..3).map(|job| submit(&submitter, job, soon())).collect();
    until_waiting(&submitter, 3).await;
    let refused = submitter.submit(9, soon()).await.unwrap_err();
    let Failure::Overloaded { reason: Overload::QueueFull, retry_after } = refused else { panic!("{refused:?}") };
    assert!(retry_after > Duration::ZERO);
    serve(&worker, 2, Duration::ZERO);
    for caller in callers {
        assert!(caller.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn only_what_is_predicted_late_is_refused() {
    let Bench { submitter, worker, .. } = bench(sized(2, 100));
    let short = || Instant::now() + Duration::from_millis(150);

    // No estimate yet: everybody enters, however long the line.
    let mut callers: Vec<_> = (0..8).map(|job| submit(&submitter, job, soon())).collect();
    until_waiting(&submitter, 8).await;
    assert_eq!(submitter.pressure(short()), 0.0);
    callers.push(submit(&submitter, 8, short()));
    until_waiting(&submitter, 9).await;
    callers.pop().unwrap().abort();
    until_waiting(&submitter, 8).await;

    // One batch of two took 400 ms and six jobs wait: 1400 ms to the end of a seventh.
    serve(&worker, 1, Duration::from_millis(400));
    assert!(submitter.pressure(short()) > 5.0 && submitter.pressure(soon()) < 0.5);
    let refused = submitter.submit(9, short()).await.unwrap_err();
    let Failure::Overloaded { reason: Overload::PredictedLate, retry_after } = refused else { panic!("{refused:?}") };
    assert!((1000..=5000).contains(&retry_after.as_millis()), "{retry_after:?}");
    callers.push(submit(&submitter, 10, soon()));
    until_waiting(&submitter, 7).await;

    // Nobody waits: even one that looks late enters.
    serve(&worker, 4, Duration::from_millis(200));
    until_waiting(&submitter, 0).await;
    let doubtful = submit(&submitter, 11, short());
    until_waiting(&submitter, 1).await;
    serve(&worker, 1, Duration::ZERO);
    assert!(doubtful.await.unwrap().is_ok());
    for caller in callers {
        assert!(caller.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_batch_is_no_larger_than_the_deadlines_of_its_jobs_allow() {
    let Bench { submitter, worker, .. } = bench(sized(64, 1000));
    // Four jobs took 200 ms: 50 ms each.
    let first: Vec<_> = (0..4).map(|job| submit(&submitter, job, soon())).collect();
    until_waiting(&submitter, 4).await;
    serve(&worker, 1, Duration::from_millis(200));
    for caller in first {
        caller.await.unwrap().unwrap();
    }
    // A third of 1200 ms is enough for eight.
    let within = || Instant::now() + Duration::from_millis(1200);
    let callers: Vec<_> = (0..10).map(|job| submit(&submitter, job, within())).collect();
    until_waiting(&submitter, 10).await;
    serve(&worker, 1, Duration::from_millis(350));
    let rest = submitter.depth();
    assert!((2..=4).contains(&rest), "{rest} of 10 are left");
    drop(callers);
    // And without a hurry all go together.
    let callers: Vec<_> = (0..40).map(|job| submit(&submitter, job, soon())).collect();
    until_waiting(&submitter, rest + 40).await;
    assert!(worker.next_batch().unwrap().len() <= 8, "those in a hurry are taken with the others");
    assert!(worker.next_batch().unwrap().len() > 30);
    drop(callers);
}

#[tokio::test]
async fn what_cannot_be_done_in_time_makes_room_for_what_can() {
    let Bench { submitter, worker, .. } = bench(sized(4, 100));
    let first = submit(&submitter, 0, soon());
    until_waiting(&submitter, 1).await;
    serve(&worker, 1, Duration::from_millis(300));
    first.await.unwrap().unwrap();
    let hopeless = submit(&submitter, 1, Instant::now() + Duration::from_millis(150));
    until_waiting(&submitter, 1).await;
    let hopeful = submit(&submitter, 2, soon());
    until_waiting(&submitter, 2).await;
    let batch = worker.next_batch().unwrap();
    assert_eq!(batch.jobs().copied().collect::<Vec<_>>(), [2]);
    batch.answer([Ok(4)]);
    assert_eq!(hopeless.await.unwrap().unwrap_err(), Failure::Late(Lateness::Dequeue));
    assert_eq!(hopeful.await.unwrap().unwrap().answer, 4);
    // Alone it is tried all the same: the estimate may be wrong.
    let alone = submit(&submitter, 3, Instant::now() + Duration::from_millis(250));
    until_waiting(&submitter, 1).await;
    serve(&worker, 1, Duration::ZERO);
    assert_eq!(alone.await.unwrap().unwrap().answer, 6);
}

#[tokio::test]
async fn an_idle_worker_lingers_only_when_told() {
    let Bench { submitter, worker, .. } = bench(BatchConfig { max_batch: 2, max_queue: 9, linger_us: 2000 });
    let first = submit(&submitter, 1, soon());
    until_waiting(&submitter, 1).await;
    let began = Instant::now();
    let taker = std::thread::spawn(move || {
        let batch = worker.next_batch().unwrap();
        let waited = began.elapsed();
        let answers: Vec<_> = batch.jobs().map(|job| Ok(job * 2)).collect();
        batch.answer(answers);
        waited
    });
    assert!(first.await.unwrap().is_ok());
    assert!(taker.join().unwrap() >= Duration::from_millis(1));
}

#[tokio::test]
async fn a_lane_that_ends_tells_everybody() {
    let Bench { submitter, worker, .. } = bench(sized(2, 100));
    let callers: Vec<_> = (0..3).map(|job| submit(&submitter, job, soon())).collect();
    until_waiting(&submitter, 3).await;
    let batch = worker.next_batch().unwrap();
    drop(batch);
    drop(worker);
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(Failure::Internal(_))));
    }
    assert!(matches!(submitter.submit(1, soon()).await, Err(Failure::NotReady { .. })));
}

#[tokio::test]
async fn dropping_the_submitter_ends_the_worker() {
    let Bench { submitter, worker, .. } = bench(sized(2, 100));
    let taker = std::thread::spawn(move || worker.next_batch().is_none());
    drop(submitter);
    assert!(taker.join().unwrap());
}

/// A thousand callers, some cancelled, some with hardly any time: each that stays is answered, with its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_job_is_lost_under_load() {
    let Bench { submitter, worker, registry } = bench(sized(16, 2000));
    let taker = std::thread::spawn(move || {
        while let Some(batch) = worker.next_batch() {
            let answers: Vec<_> = batch.jobs().map(|job| Ok(job * 2)).collect();
            batch.answer(answers);
        }
    });
    let mut staying = JoinSet::new();
    for job in 0..1000 {
        let wait = if job % 10 == 3 { Duration::from_micros(job) } else { Duration::from_secs(20) };
        let caller = submit(&submitter, job, Instant::now() + wait);
        if job % 7 == 2 {
            caller.abort();
        } else {
            staying.spawn(async move { (job, caller.await.unwrap()) });
        }
    }
    let mut answered = 0;
    while let Some(done) = staying.join_next().await {
        match done.unwrap() {
            (job, Ok(back)) => {
                assert_eq!(back.answer, job * 2);
                answered += 1;
            }
            (job, Err(failure)) => {
                let short_of_time = matches!(failure, Failure::Late(_) | Failure::Overloaded { .. });
                assert!(job % 10 == 3 && short_of_time, "job {job}: {failure}");
            }
        }
    }
    assert!(answered >= 700, "{answered}");
    assert_eq!(submitter.depth(), 0);
    assert_eq!(series(&registry, "reg4rec_queue_depth{lane=\"test\"}"), 0.0);
    drop(submitter);
    taker.join().unwrap();
}

#[test]
fn every_wrong_setting_is_named() {
    let wrong = BatchConfig { max_batch: 0, max_queue: 2_000_000, linger_us: 3000 }.validate().unwrap_err();
    let fields: Vec<_> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["max_batch", "max_queue", "linger_us"]);
    assert!(sized(8, 4).validate().is_err());
    assert!(BatchConfig::default().validate().is_ok());
}

#[tokio::test]
async fn shadow_jobs_run_when_nobody_else_waits_and_never_with_those_who_do() {
    let Bench { submitter, worker, registry } = bench(sized(4, 100));
    let shadow = |job: u64| {
        let submitter = submitter.clone();
        tokio::spawn(async move { submitter.submit_shadow(job, soon()).await })
    };
    let mut shadows: Vec<_> = (0..12).map(|job| shadow(100 + job)).collect();
    // A few may wait; those beyond are refused at once.
    for late in shadows.split_off(8) {
        let refused = late.await.unwrap().unwrap_err();
        assert!(matches!(refused, Failure::Overloaded { reason: Overload::QueueFull, .. }), "{refused}");
    }
    let served: Vec<_> = (0..2).map(|job| submit(&submitter, job, soon())).collect();
    until_waiting(&submitter, 2).await;
    let refused = submitter.submit_shadow(9, soon()).await.unwrap_err();
    assert!(matches!(refused, Failure::Overloaded { .. }), "others wait: {refused}");
    let gone = shadows.pop().unwrap();
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    serve(&worker, 3, Duration::ZERO);
    for (job, caller) in served.into_iter().enumerate() {
        let answered = caller.await.unwrap().unwrap();
        assert_eq!((answered.answer, answered.batch_size), (job as u64 * 2, 2), "they came last and went first");
    }
    for (at, caller) in shadows.into_iter().enumerate() {
        let answered = caller.await.unwrap().unwrap();
        assert_eq!((answered.answer, answered.batch_size), (200 + 2 * at as u64, if at < 4 { 4 } else { 3 }));
    }
    assert_eq!(series(&registry, "reg4rec_queue_depth{lane=\"test\"}"), 0.0);
    submitter.close();
    assert!(matches!(submitter.submit_shadow(1, soon()).await, Err(Failure::NotReady { .. })));
}
