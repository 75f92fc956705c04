//! An engine whose thread panics: its callers are told, the server says that it is not ready, and it ends with an error.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::net::TcpListener;
use tonic::Code;

use reg4rec::decode::{Advance, DecodeSettings, PathModel, PathState, Placement, TokenVectors};
use reg4rec::domain::{CodeShape, CodeTable, History};
use reg4rec::engine::{Engine, EngineConfig, EngineMetrics, Turns};
use reg4rec::history::{Histories, HistoryConfig};
use reg4rec::recommend::{RecommendConfig, Recommender, Variant};
use reg4rec::server::{Server, ServerError};

use crate::bundle;
use crate::fake::{Client, page_at, settings};
use crate::operated::{channel, request};

/// Panics at the first history that it reads.
struct Panics(CodeShape, usize);

impl PathModel for Panics {
    type Error = String;

    fn shape(&self) -> CodeShape {
        self.0
    }

    fn categories(&self) -> usize {
        self.1
    }

    fn token_vectors(&self) -> TokenVectors<'_> {
        TokenVectors { rows: &[], width: 0, sums: None }
    }

    fn encode(&mut self, _: &[&History]) -> Result<(), String> {
        panic!("asked to panic")
    }

    fn score_items(&mut self, _: Range<usize>, _: &mut [f32]) -> Result<(), String> {
        panic!("asked to panic")
    }

    fn advance(&mut self, _: &[Advance], _: bool) -> Result<Vec<PathState>, String> {
        panic!("asked to panic")
    }

    fn place(&mut self, _: &CodeTable, _: &[Placement]) -> Result<(), String> {
        panic!("asked to panic")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_engine_hangs_nobody_and_ends_the_server_with_an_error() {
    let (registry, index) = (Registry::new(), Arc::new(bundle::index()));
    let model = Panics(index.codes().shape(), index.category_names().len());
    let engine = Engine {
        name: "default".into(),
        index: Arc::clone(&index),
        settings: DecodeSettings::default(),
        config: EngineConfig { warmup_batches: Vec::new(), ..EngineConfig::default() },
        metrics: EngineMetrics::new(&registry).unwrap(),
        turns: Turns::new(1),
        quiet: None,
    };
    let variant = Variant {
        name: "default".into(),
        engine: engine.start(move || Ok::<_, String>(model)).await.unwrap(),
        index,
        newcomers: None,
        bundle_name: "panics".into(),
        bundle_version: "1".into(),
        created: std::time::SystemTime::UNIX_EPOCH,
        directory: "nowhere".into(),
        settings: DecodeSettings::default(),
        max_history: 8,
    };
    let histories = Histories::in_memory(&HistoryConfig::default(), &registry).unwrap();
    let config = RecommendConfig::default();
    let recommender = Recommender::new(vec![variant], "default".into(), histories, config, &registry).unwrap();

    let mut settings = settings();
    settings.drain_lag_ms = 3000;
    let (server, opener) =
        Server::new(settings, Duration::from_secs(20), registry.clone(), vec!["default".into()]).unwrap();
    let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, pages) = (public.local_addr().unwrap(), admin.local_addr().unwrap().to_string());
    let ended = tokio::spawn(server.run(public, admin, std::future::pending()));
    assert!(opener.open(recommender));
    assert_eq!(page_at(&pages, "/readyz").await.0, 200);

    let mut client = Client::new(channel(&format!("http://{address}")).await);
    let began = Instant::now();
    let status = client.recommend(request("")).await.expect_err("answered");
    assert_eq!(status.code(), Code::Internal);
    // The next one is told at once, not at its deadline: it came while the thread ended, or after.
    let status = client.recommend(request("")).await.expect_err("answered");
    assert!([Code::Internal, Code::Unavailable].contains(&status.code()), "{status:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    while page_at(&pages, "/readyz").await != (503, "draining\n".to_owned()) {
        assert!(began.elapsed() < Duration::from_secs(10), "it still says that it is ready");
    }
    let status = client.recommend(request("")).await.expect_err("answered");
    assert_eq!(status.code(), Code::Unavailable);
    drop(client);
    let outcome = tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap().unwrap();
    assert!(matches!(outcome, Err(ServerError::Engine(variant)) if variant == "default"));
}
