//! `reg4rec.v1.AdminService`: what those who run the service may change. Served on the admin port only.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tonic::{Request, Response, Status};

use crate::domain::{ExperimentsChange, ExperimentsEdition, Failure, Violation};
use crate::rollout::Rollout;
use crate::wire::v1::admin_service_server::AdminService;
use crate::wire::{self, v1};

use super::access::Caller;
use super::config::ServerConfig;
use super::desk::{Desk, Recommends};
use super::log_filter::LogFilter;
use super::metrics::ServerMetrics;
use super::tls::{Identity, TlsError};
use super::variant_messages;

/// Longest directives of a log filter, in bytes.
const LONGEST_FILTER: usize = 4096;

/// Longest id of a user, in bytes, as in events.
const LONGEST_USER: usize = 256;

/// The service over a desk.
#[derive(Debug)]
pub(super) struct Operate<R> {
    pub desk: Arc<Desk<R>>,
    /// Empty until the default variant is warm.
    pub rollout: Arc<OnceLock<Rollout>>,
    /// None where the process did not hand one over.
    pub log: Option<Arc<LogFilter>>,
    pub metrics: Arc<ServerMetrics>,
    pub config: ServerConfig,
    /// None where the ports speak no TLS.
    pub identity: Option<Arc<Identity>>,
}

#[tonic::async_trait]
impl<R: Recommends> AdminService for Operate<R> {
    async fn list_variants(
        &self,
        _: Request<v1::ListVariantsRequest>,
    ) -> Result<Response<v1::ListVariantsResponse>, Status> {
        let mut states = self.rollout()?.states();
        states.sort_by(|one, other| one.name.cmp(&other.name));
        let variants = states.into_iter().map(variant_messages::variant).collect();
        Ok(Response::new(v1::ListVariantsResponse { variants }))
    }

    async fn load_variant(
        &self,
        asked: Request<v1::LoadVariantRequest>,
    ) -> Result<Response<v1::LoadVariantResponse>, Status> {
        let v1::LoadVariantRequest { variant, bundle } = asked.into_inner();
        tracing::info!(variant, bundle, "operator: load");
        let state = self.ended(|rollout| async move { rollout.load(&variant, &bundle).await }).await?;
        Ok(Response::new(v1::LoadVariantResponse { variant: Some(variant_messages::variant(state)) }))
    }

    async fn promote(&self, asked: Request<v1::PromoteRequest>) -> Result<Response<v1::PromoteResponse>, Status> {
        let v1::PromoteRequest { variant, version } = asked.into_inner();
        tracing::info!(variant, version, "operator: promote");
        let state = self.ended(|rollout| async move { rollout.promote(&variant, &version).await }).await?;
        Ok(Response::new(v1::PromoteResponse { variant: Some(variant_messages::variant(state)) }))
    }

    async fn rollback(&self, asked: Request<v1::RollbackRequest>) -> Result<Response<v1::RollbackResponse>, Status> {
        let v1::RollbackRequest { variant } = asked.into_inner();
        tracing::info!(variant, "operator: rollback");
        let (state, pointed) = self.ended(|rollout| async move { rollout.rollback(&variant).await }).await?;
        Ok(Response::new(v1::RollbackResponse { variant: Some(variant_messages::variant(state)), pointed }))
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        tracing::info!("operator: drain");
        let inflight = u64::try_from(self.metrics.inflight()).unwrap_or(0);
        self.desk.ask_to_drain();
        let (lag, limit) = (told(self.config.drain_lag()), told(self.config.drain_limit()));
        Ok(Response::new(v1::DrainResponse { inflight, lag, limit }))
    }

    async fn forget_user(
        &self,
        asked: Request<v1::ForgetUserRequest>,
    ) -> Result<Response<v1::ForgetUserResponse>, Status> {
        let v1::ForgetUserRequest { user_id } = asked.into_inner();
        if !(1..=LONGEST_USER).contains(&user_id.len()) {
            let description = format!("{} bytes, expected 1 to {LONGEST_USER}", user_id.len());
            return Err(status(&Failure::Invalid(vec![Violation::new("user_id", description)])));
        }
        // Whom is not for the log: that would be something stored of the user.
        tracing::info!("operator: forget a user");
        let recommender = Arc::clone(self.desk.recommender().map_err(|failure| status(&failure))?);
        let outcome = tokio::spawn(async move { recommender.forget(user_id).await }).await;
        let outcome = outcome.unwrap_or_else(|error| Err(Failure::Internal(format!("forgetting ended: {error}"))));
        let gone = outcome.map_err(|failure| status(&failure))?;
        Ok(Response::new(v1::ForgetUserResponse {
            history_events: gone.history_events as u64,
            logged_events: gone.logged_events,
            logged_exposures: gone.logged_exposures,
            files: gone.files as u64,
        }))
    }

    async fn get_experiments(
        &self,
        asked: Request<v1::GetExperimentsRequest>,
    ) -> Result<Response<v1::GetExperimentsResponse>, Status> {
        let most = asked.into_inner().previous as usize;
        let recommender = self.desk.recommender().map_err(|failure| status(&failure))?;
        let (current, previous) = recommender.experiments(most).map_err(|failure| status(&failure))?;
        let previous = previous.into_iter().map(edition).collect();
        Ok(Response::new(v1::GetExperimentsResponse { current: Some(edition(current)), previous }))
    }

    async fn set_experiments(
        &self,
        asked: Request<v1::SetExperimentsRequest>,
    ) -> Result<Response<v1::SetExperimentsResponse>, Status> {
        let caller = asked.extensions().get::<Caller>().cloned().unwrap_or_default();
        let client = caller.name().unwrap_or_default().to_owned();
        let v1::SetExperimentsRequest { settings, replaces, note, check_only } = asked.into_inner();
        tracing::info!(?replaces, note, client, check_only, "operator: set experiments");
        let change = ExperimentsChange { replaces, settings, note, client, check_only };
        let recommender = Arc::clone(self.desk.recommender().map_err(|failure| status(&failure))?);
        let outcome = tokio::task::spawn_blocking(move || recommender.change_experiments(change)).await;
        let outcome = outcome.unwrap_or_else(|error| Err(Failure::Internal(format!("a change ended: {error}"))));
        let current = outcome.map_err(|failure| status(&failure))?;
        Ok(Response::new(v1::SetExperimentsResponse { current: Some(edition(current)) }))
    }

    async fn reload_tls(&self, _: Request<v1::ReloadTlsRequest>) -> Result<Response<v1::ReloadTlsResponse>, Status> {
        tracing::info!("operator: reload TLS");
        let reason = || "the server speaks no TLS: server.tls.certificate is not set".to_owned();
        let identity = self.identity.clone().ok_or_else(|| Failure::Unmet { code: "NO_TLS", reason: reason() });
        let identity = identity.map_err(|failure| status(&failure))?;
        let outcome = tokio::task::spawn_blocking(move || identity.reload()).await;
        let outcome = outcome.map_err(|error| Failure::Internal(format!("reading certificates ended: {error}")));
        let refused = |error: TlsError| Failure::Unmet { code: "TLS_REFUSED", reason: error.to_string() };
        let changed = outcome.and_then(|read| read.map_err(refused)).map_err(|failure| status(&failure))?;
        Ok(Response::new(v1::ReloadTlsResponse { changed }))
    }

    async fn set_log_level(
        &self,
        asked: Request<v1::SetLogLevelRequest>,
    ) -> Result<Response<v1::SetLogLevelResponse>, Status> {
        let v1::SetLogLevelRequest { filter } = asked.into_inner();
        let previous = self.set_log_level(&filter).map_err(|failure| status(&failure))?;
        tracing::info!(filter, previous, "operator: log level");
        Ok(Response::new(v1::SetLogLevelResponse { previous }))
    }
}

impl<R: Recommends> Operate<R> {
    fn rollout(&self) -> Result<Rollout, Status> {
        let failure = || Failure::NotReady {
            reason: "the bundle is being loaded and warmed",
            retry_after: Duration::from_secs(1),
        };
        self.rollout.get().cloned().ok_or_else(|| status(&failure()))
    }

    /// Does a change to its end, also when the operator does not wait for it: a load that is given up half-way would
    /// hold a thread of the runtime until its engine has warmed up.
    async fn ended<T: Send + 'static, F>(&self, change: impl FnOnce(Rollout) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let change = change(self.rollout()?);
        let outcome = tokio::spawn(change).await;
        let outcome = outcome.unwrap_or_else(|error| Err(Failure::Internal(format!("a change ended: {error}"))));
        outcome.map_err(|failure| status(&failure))
    }

    fn set_log_level(&self, filter: &str) -> Result<String, Failure> {
        if filter.is_empty() || filter.len() > LONGEST_FILTER {
            let description = format!("{} bytes, expected 1 to {LONGEST_FILTER} of directives", filter.len());
            return Err(Failure::Invalid(vec![Violation::new("filter", description)]));
        }
        let reason = || "the process has no log filter that could be changed".to_owned();
        let log = self.log.as_ref().ok_or_else(|| Failure::Unmet { code: "NO_LOG_FILTER", reason: reason() })?;
        log.set(filter).map_err(|reason| {
            let description = format!("is {filter:?}, expected directives as in `info,reg4rec=debug`: {reason}");
            Failure::Invalid(vec![Violation::new("filter", description)])
        })
    }
}

fn edition(edition: ExperimentsEdition) -> v1::ExperimentsVersion {
    let ExperimentsEdition { version, settings, note, client, time } = edition;
    v1::ExperimentsVersion { version, settings, note, client, time: Some(time.into()) }
}

/// Operators read the log: what is internal is told there, under no request's id.
fn status(failure: &Failure) -> Status {
    match failure {
        Failure::Internal(cause) => tracing::error!(cause, "operator: failed"),
        refused => tracing::warn!(%refused, "operator: refused"),
    }
    wire::status(failure, "")
}

/// Settings bound both far below what a protobuf duration holds.
fn told(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}
