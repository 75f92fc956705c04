//! A server on free ports over a recommender that the test controls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use reg4rec::config::{self, Layers};
use reg4rec::decode::DecodeSettings;
use reg4rec::domain::{
    Failure, Forgotten, Lateness, Overload, RecommendAnswer, RecommendRequest, Recommendation, Recorded, UserEvent,
};
use reg4rec::recommend::VariantView;
use reg4rec::server::{Opener, Recommends, Server, ServerConfig, ServerError};
use reg4rec::wire::client::RecommendationServiceClient;
use reg4rec::wire::v1;

pub type Client = RecommendationServiceClient<Channel>;

/// Answers k made-up items after a delay; knows only the variant `default`.
#[derive(Debug, Default)]
pub struct Fake {
    pub delay: Duration,
    /// Requests that reached it.
    pub asked: Arc<AtomicUsize>,
    /// Has no time for deadlines nearer than this.
    pub full: Option<Duration>,
}

impl Recommends for Fake {
    fn refusal(&self, deadline: Instant) -> Option<Failure> {
        let late = self.full.is_some_and(|full| deadline < Instant::now() + full);
        late.then_some(Failure::Overloaded { reason: Overload::PredictedLate, retry_after: Duration::from_millis(40) })
    }

    async fn recommend(
        &self,
        request: RecommendRequest,
        deadline: Option<Instant>,
    ) -> Result<RecommendAnswer, Failure> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if !["", "default"].contains(&request.variant.as_str()) {
            return Err(Failure::UnknownVariant(request.variant));
        }
        if request.user_id == "overload" {
            return Err(Failure::Overloaded { reason: Overload::QueueFull, retry_after: Duration::from_millis(1500) });
        }
        if request.user_id == "fault" {
            return Err(Failure::Internal("the cause".into()));
        }
        let answered = Instant::now() + self.delay;
        tokio::time::sleep_until(deadline.map_or(answered, |deadline| deadline.min(answered)).into()).await;
        if deadline.is_some_and(|deadline| deadline < answered) {
            return Err(Failure::Late(Lateness::Answer));
        }
        let item = |rank: usize| Recommendation {
            item_id: format!("{}-{rank}", request.user_id),
            score: -(rank as f32),
            title: Some(format!("Item {rank}")),
            categories: vec!["Shop".into()],
            path: None,
        };
        Ok(RecommendAnswer {
            request_id: request.request_id.clone(),
            items: (0..request.k).map(item).collect(),
            variant: "default".into(),
            bundle_version: "1".into(),
            index_version: "1".into(),
            assignments: Vec::new(),
            cold_start: request.history.is_empty(),
            degraded: false,
            history_missed: false,
            short: false,
            timings: Vec::new(),
        })
    }

    async fn record(&self, _: Vec<UserEvent>) -> Result<Recorded, Failure> {
        Err(Failure::Off("a fake records nothing"))
    }

    async fn forget(&self, _: String) -> Result<Forgotten, Failure> {
        Ok(Forgotten::default())
    }

    fn variants(&self) -> Vec<VariantView> {
        vec![VariantView {
            name: "default".into(),
            default: true,
            alive: true,
            bundle_name: "fake".into(),
            bundle_version: "1".into(),
            created: SystemTime::UNIX_EPOCH,
            directory: "fake/1".into(),
            index_version: "1".into(),
            items: 3,
            settings: DecodeSettings::default(),
        }]
    }

    async fn drain(&self) {}
}

/// A running server.
pub struct Running {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub opener: Opener<Fake>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServerError>>,
}

/// Settings for tests: a short life, and answers well before a caller's own deadline.
pub fn settings() -> ServerConfig {
    let mut settings = config::read(&Layers::default()).unwrap().server;
    settings.deadline_margin_ms = 200;
    settings.drain_lag_ms = 0;
    settings
}

/// Starts a server that has no recommender yet.
pub async fn start_cold(settings: ServerConfig, max_deadline: Duration) -> Running {
    let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = (public.local_addr().unwrap(), admin.local_addr().unwrap());
    let (server, opener) = Server::new(settings, max_deadline, Registry::new(), vec!["default".into()]).unwrap();
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::spawn(server.run(public, admin, async {
        let _ = stopped.await;
    }));
    Running { public: addresses.0, admin: addresses.1, opener, stop, ended }
}

/// Starts a server that is ready.
pub async fn start(fake: Fake) -> Running {
    let running = start_cold(settings(), Duration::from_secs(20)).await;
    assert!(running.opener.open(fake));
    running
}

impl Running {
    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.public)).unwrap().connect().await.unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// Health by name, as grpc.health.v1 tells it; none when the name is unknown.
    pub async fn health(&self, service: &str) -> Option<i32> {
        let request = HealthCheckRequest { service: service.into() };
        HealthClient::new(self.channel().await).check(request).await.ok().map(|told| told.into_inner().status)
    }

    /// GET on the admin port: status and body.
    pub async fn page(&self, path: &str) -> (u16, String) {
        page_at(&self.admin.to_string(), path).await
    }

    /// Whether a good request gets an answer.
    pub async fn answers(&self) -> bool {
        self.client().await.recommend(user("u")).await.is_ok_and(|answer| answer.get_ref().items.len() == 10)
    }

    /// Tells the server to stop.
    pub fn stop(self) -> JoinHandle<Result<(), ServerError>> {
        let _ = self.stop.send(());
        self.ended
    }
}

/// GET on an admin port: status and body.
pub async fn page_at(admin: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A request for a user.
pub fn user(id: &str) -> v1::RecommendRequest {
    v1::RecommendRequest { user_id: id.into(), ..Default::default() }
}
