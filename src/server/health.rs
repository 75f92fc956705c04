//! `grpc.health.v1`: the server as a whole (the empty name), its services, and each variant by its own state.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::wire::v1::catalog_service_server::CatalogServiceServer;
use crate::wire::v1::event_service_server::EventServiceServer;
use crate::wire::v1::recommendation_service_server::RecommendationServiceServer;

use super::desk::{Desk, Phase, Recommends};

/// The names of the server as a whole and of its services.
const SERVICES: [&str; 4] =
    ["", RecommendationServiceServer::<()>::NAME, EventServiceServer::<()>::NAME, CatalogServiceServer::<()>::NAME];

/// Reports the present state of the server and of `names`, and from then on every change of it.
pub(super) async fn follow<R: Recommends>(
    reporter: HealthReporter,
    names: Vec<String>,
    desk: Arc<Desk<R>>,
) -> JoinHandle<()> {
    let mut phase = desk.watch();
    phase.mark_unchanged();
    report(&reporter, &names, &desk).await;
    tokio::spawn(async move {
        let mut variants: Option<watch::Receiver<()>> = None;
        loop {
            if variants.is_none() {
                variants = desk.recommender().ok().map(|recommender| recommender.watch_variants());
            }
            tokio::select! {
                ended = phase.changed() => if ended.is_err() { return },
                () = marked(variants.as_mut()) => {}
            }
            report(&reporter, &names, &desk).await;
        }
    })
}

/// Tells those who watch a last time how it stands, and lets them go: nobody who watches keeps a server from ending.
pub(super) async fn end<R: Recommends>(
    following: JoinHandle<()>,
    mut reporter: HealthReporter,
    names: &[String],
    desk: &Desk<R>,
) {
    following.abort();
    // Only when it is over: it would name again what is cleared here.
    drop(following.await);
    report(&reporter, names, desk).await;
    for name in SERVICES.into_iter().chain(names.iter().map(String::as_str)) {
        reporter.clear_service_status(name).await;
    }
}

/// Resolves when the variants change; never where there are none yet, or none that ever change.
async fn marked(variants: Option<&mut watch::Receiver<()>>) {
    if let Some(variants) = variants
        && variants.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn report<R: Recommends>(reporter: &HealthReporter, names: &[String], desk: &Desk<R>) {
    let serving = desk.phase().0 == Phase::Serving;
    let loaded = desk.recommender().map(|recommender| recommender.variants()).unwrap_or_default();
    let status = |healthy: bool| if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in SERVICES {
        reporter.set_service_status(name, status(serving)).await;
    }
    for name in names {
        let answers = loaded.iter().any(|variant| variant.name == *name && variant.alive);
        reporter.set_service_status(name, status(serving && answers)).await;
    }
}
