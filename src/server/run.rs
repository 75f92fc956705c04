//! The server's life: bound, warm, serving, draining, gone.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tonic::server::NamedService;
use tonic_health::server::{HealthReporter, HealthService};

use crate::rollout::Rollout;
use crate::wire::v1::admin_service_server::AdminServiceServer;
use crate::wire::v1::catalog_service_server::CatalogServiceServer;
use crate::wire::v1::event_service_server::EventServiceServer;
use crate::wire::v1::recommendation_service_server::RecommendationServiceServer;
use crate::wire::{ADMIN_DESCRIPTORS, DESCRIPTORS};

use super::access::{AccessLayer, Clients, calls_only};
use super::admin::{self, Admin};
use super::catalogue::Catalogue;
use super::config::ServerConfig;
use super::desk::{Desk, Phase, Recommends};
use super::door::Door;
use super::events::Events;
use super::front::{self, Front, PhaseReader, RefusalReader};
use super::health;
use super::lasting::Lasting;
use super::log_filter::LogFilter;
use super::memory;
use super::metrics::ServerMetrics;
use super::operate::Operate;
use super::service::Service;
use super::tls::{Identity, TlsError, TlsMetrics, accept};
use super::web;

/// Why the server could not run.
#[derive(Debug, Error)]
pub enum ServerError {
    /// A socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The gRPC transport failed.
    #[error("transport: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The embedded descriptors cannot be read.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Certificates are refused.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A variant's engine stopped, which only a fault of ours does. The server has drained.
    #[error("the engine of variant {0:?} stopped; the log says why")]
    Engine(String),
}

/// A server that has not been given its sockets yet.
#[derive(Debug)]
pub struct Server<R> {
    config: ServerConfig,
    max_deadline: Duration,
    registry: Registry,
    metrics: Arc<ServerMetrics>,
    desk: Arc<Desk<R>>,
    health: HealthReporter,
    variants: Vec<String>,
    log: Option<Arc<LogFilter>>,
    rollout: Arc<OnceLock<Rollout>>,
    clients: Arc<Clients>,
    identity: Option<Arc<Identity>>,
    tls_metrics: TlsMetrics,
}

/// Opens a running server for business.
#[derive(Debug, Clone)]
pub struct Opener<R> {
    desk: Arc<Desk<R>>,
    rollout: Arc<OnceLock<Rollout>>,
}

impl<R: Recommends> Opener<R> {
    /// Hands operators the rollout of the recommender that is to be opened. False when there is one already.
    pub fn operate(&self, rollout: Rollout) -> bool {
        self.rollout.set(rollout).is_ok()
    }

    /// Takes in the warm recommender; from here on the server is ready. A server opens once: a second recommender is
    /// refused, and the answer is false.
    pub fn open(&self, recommender: R) -> bool {
        if !self.desk.seat(recommender) {
            return false;
        }
        // A server that was told to stop in the meantime stays not ready.
        self.desk.enter(Phase::Serving);
        true
    }
}

impl<R: Recommends> Server<R> {
    /// A server for `variants`, the closed list of names that metrics and health know. It answers UNAVAILABLE until
    /// its opener brings a recommender. No call takes longer than `max_deadline`, whatever its caller allows.
    ///
    /// # Errors
    /// When a metric of the same name is registered already, or the files of its certificate are refused.
    pub fn new(
        config: ServerConfig,
        max_deadline: Duration,
        registry: Registry,
        variants: Vec<String>,
    ) -> Result<(Self, Opener<R>), ServerError> {
        let names: Vec<String> = config.key.iter().map(|key| key.name.clone()).collect();
        let metrics = Arc::new(ServerMetrics::new(&registry, &variants, &names)?);
        memory::register(&registry)?;
        let tls_metrics = TlsMetrics::new(&registry)?;
        let identity = Identity::read(&config.tls, tls_metrics.clone())?;
        let clients = Arc::new(Clients::new(&config.key));
        let desk = Arc::new(Desk::new());
        let rollout = Arc::default();
        let opener = Opener { desk: Arc::clone(&desk), rollout: Arc::clone(&rollout) };
        let health = HealthReporter::new();
        let server = Self {
            config,
            max_deadline,
            registry,
            metrics,
            desk,
            health,
            variants,
            log: None,
            rollout,
            clients,
            identity,
            tls_metrics,
        };
        Ok((server, opener))
    }

    /// Lets operators change what is logged.
    pub fn with_log_filter(mut self, filter: LogFilter) -> Self {
        self.log = Some(Arc::new(filter));
        self
    }

    /// Serves on the two listeners until `stop` resolves, an operator asks for it, or an engine stops; then drains: says
    /// "not ready", goes on answering for the drain lag, stops accepting, lets calls end up to the drain limit.
    ///
    /// # Errors
    /// When a socket fails, or when an engine stopped.
    pub async fn run(
        self,
        public: TcpListener,
        admin: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServerError> {
        let following = health::follow(self.health.clone(), self.variants.clone(), Arc::clone(&self.desk)).await;
        let (close_public, public_closed) = closing();
        let (close_admin, admin_closed) = closing();
        let (stay, leave) = watch::channel(());
        let pages = self.admin_routes(public.local_addr()?, &leave)?;
        let (most, patience) = (self.config.max_connections, self.config.handshake_timeout());
        let of_admin = self.identity.clone().filter(|_| self.config.tls.admin);
        let (admin, _) = accept(admin, of_admin, most, patience, self.tls_metrics.clone())?;
        let admin_task = tokio::spawn(axum::serve(admin, pages).with_graceful_shutdown(admin_closed).into_future());
        let (public, listening) = accept(public, self.identity.clone(), most, patience, self.tls_metrics.clone())?;
        let front = Arc::new(self.front());
        let calls = Door { calls: self.routes(&front, &leave)?, front };
        let calls = self.transport().serve_with_incoming_shutdown(calls, public.into_stream(), public_closed);
        let renewing = self.identity.clone().map(|identity| tokio::spawn(identity.follow()));
        let mut calls = tokio::spawn(calls);

        let mut failed = None;
        tokio::select! {
            () = stop => {}
            () = self.desk.asked_to_drain() => {}
            variant = self.desk.stopped() => failed = Some(variant),
            ended = &mut calls => return flatten(ended),
        }
        self.desk.enter(Phase::Draining);
        if let Some(variant) = &failed {
            tracing::error!(variant, "its engine stopped; the server ends");
        }
        tracing::info!(lag = ?self.config.drain_lag(), "draining: not ready, still answering");
        tokio::time::sleep(self.config.drain_lag()).await;
        drop(close_public);
        // Once tonic has let go of its connections, the port is closed.
        if within(Duration::from_secs(1), listening).await.is_none() {
            tracing::warn!("the public port did not close in time");
        }
        // Those who only look on would stay for ever.
        health::end(following, self.health.clone(), &self.variants, &self.desk).await;
        drop(stay);
        let ended = within(self.config.drain_limit(), async {
            let ended = flatten((&mut calls).await);
            if let Ok(recommender) = self.desk.recommender() {
                recommender.drain().await;
            }
            ended
        });
        let outcome = ended.await.unwrap_or_else(|| {
            calls.abort();
            tracing::warn!(inflight = self.metrics.inflight(), "the drain limit passed; leaving calls unanswered");
            Ok(())
        });
        drop(close_admin);
        // A scrape in progress may end; one that hangs must not keep the process.
        if within(Duration::from_secs(1), admin_task).await.is_none() {
            tracing::debug!("the admin port did not close in time");
        }
        renewing.iter().for_each(|task| task.abort());
        outcome?;
        failed.map_or(Ok(()), |variant| Err(ServerError::Engine(variant)))
    }

    fn transport(&self) -> tonic::transport::Server {
        // h2 ends a connection on which it holds too many small DATA frames: each under 256 bytes counts as 256, and the
        // sum may reach half the connection's window. The window is sized so that every stream may hold one, or a burst
        // of small requests on one connection would end it. (An adaptive window begins too small for that.)
        let streams = self.config.max_streams_per_connection;
        let window = streams.saturating_mul(4 * 256).clamp(1 << 20, i32::MAX as u32);
        tonic::transport::Server::builder()
            // For gRPC-web; what is neither is answered 415.
            .accept_http1(true)
            .max_concurrent_streams(streams)
            // Calls that their callers gave up before we saw them: under overload many at once, and by default twenty of them
            // end the connection, with all calls on it. A connection may stay unread for as long as it takes to give up
            // all its streams this many times.
            .http2_max_pending_accept_reset_streams(usize::try_from(streams.saturating_mul(16)).ok())
            .initial_connection_window_size(window)
            .http2_keepalive_interval(Some(Duration::from_millis(self.config.keepalive_interval_ms)))
            .http2_keepalive_timeout(Some(Duration::from_millis(self.config.keepalive_timeout_ms)))
    }

    fn front(&self) -> Front {
        let desk = Arc::clone(&self.desk);
        let phase = PhaseReader(Box::new(move || desk.phase()));
        let desk = Arc::clone(&self.desk);
        let refusals = RefusalReader(Box::new(move |deadline| desk.recommender().ok()?.refusal(deadline)));
        Front::new(&self.config, self.max_deadline, Arc::clone(&self.metrics), phase, refusals)
    }

    /// `leave`: closed when those who only look on are to go.
    fn routes(&self, front: &Arc<Front>, leave: &watch::Receiver<()>) -> Result<Router, ServerError> {
        let service = Service { desk: Arc::clone(&self.desk), metrics: Arc::clone(&self.metrics) };
        let service =
            RecommendationServiceServer::new(service).max_decoding_message_size(self.config.max_message_bytes);
        let events = Events { desk: Arc::clone(&self.desk), metrics: Arc::clone(&self.metrics) };
        let events = EventServiceServer::new(events).max_decoding_message_size(self.config.max_message_bytes);
        let catalogue = Catalogue { desk: Arc::clone(&self.desk), metrics: Arc::clone(&self.metrics) };
        let catalogue = CatalogServiceServer::new(catalogue).max_decoding_message_size(self.config.max_message_bytes);
        let calls = mount(mount(mount(Router::new(), service), events), catalogue);
        let calls = calls.route_layer(self.access());
        let calls = calls.route_layer(axum::middleware::from_fn_with_state(Arc::clone(front), front::pass));
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let told = mount(mount(Router::new(), reflection().build_v1()?), reflection().build_v1alpha()?);
        let told = told.route_layer(axum::middleware::from_fn_with_state(leave.clone(), leaving));
        let calls = calls.merge(told.route_layer(self.access()));
        // Open to everybody: whoever asks a balancer's question has no key.
        let health = HealthService::from_health_reporter(self.health.clone());
        let calls = mount(calls, tonic_health::pb::health_server::HealthServer::new(health));
        let unknown = || async { tonic::Status::unimplemented("no such service").into_http::<axum::body::Body>() };
        let calls = calls.fallback(unknown).layer(tonic_web::GrpcWebLayer::new());
        let calls = calls.layer(axum::middleware::from_fn(calls_only));
        let origins = &self.config.web_origins;
        Ok(if origins.is_empty() { calls } else { calls.layer(web::pages(origins)) })
    }

    fn access(&self) -> AccessLayer {
        AccessLayer { clients: Arc::clone(&self.clients), metrics: Arc::clone(&self.metrics) }
    }

    /// Pages over HTTP/1 and gRPC over HTTP/2 on one port.
    fn admin_routes(&self, public: SocketAddr, leave: &watch::Receiver<()>) -> Result<Router, ServerError> {
        let pages = Admin { registry: self.registry.clone(), desk: Arc::clone(&self.desk), public: self.url(public) };
        let operate = Operate {
            desk: Arc::clone(&self.desk),
            rollout: Arc::clone(&self.rollout),
            log: self.log.clone(),
            metrics: Arc::clone(&self.metrics),
            config: self.config.clone(),
            identity: self.identity.clone(),
        };
        let reflection =
            || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(ADMIN_DESCRIPTORS);
        let told = mount(mount(Router::new(), reflection().build_v1()?), reflection().build_v1alpha()?);
        let told = told.route_layer(axum::middleware::from_fn_with_state(leave.clone(), leaving));
        let calls = mount(told, AdminServiceServer::new(operate));
        let calls = calls.route_layer(self.access()).route_layer(axum::middleware::from_fn(calls_only));
        Ok(admin::routes(pages).merge(calls))
    }

    /// How to reach a port that speaks as the public one does.
    fn url(&self, address: SocketAddr) -> String {
        format!("{}://{address}", if self.identity.is_some() { "https" } else { "http" })
    }
}

/// Mounts a gRPC service under its name.
fn mount<S>(router: Router, service: S) -> Router
where
    S: tower::Service<Request, Error = std::convert::Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Response: axum::response::IntoResponse,
    S::Future: Send + 'static,
{
    router.route_service(&format!("/{}/{{*method}}", S::NAME), service)
}

/// Ends what a client asks in a stream, and with it the answers, once the sender of `leave` is dropped.
async fn leaving(State(mut leave): State<watch::Receiver<()>>, request: Request, next: Next) -> Response {
    let end = async move {
        while leave.changed().await.is_ok() {}
        None
    };
    next.run(request.map(|body| Lasting::body(body, (), end))).await
}

/// A sender whose drop resolves the future.
fn closing() -> (oneshot::Sender<()>, impl Future<Output = ()>) {
    let (close, closed) = oneshot::channel::<()>();
    (close, async move {
        // An error is the sender's drop, which is the signal.
        closed.await.unwrap_or_default();
    })
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

fn flatten(ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>) -> Result<(), ServerError> {
    match ended {
        Ok(outcome) => Ok(outcome?),
        Err(error) => Err(io::Error::other(error).into()),
    }
}
