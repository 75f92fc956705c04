//! What the server asks: the recommender, once it is warm, and the phase of life that everybody may watch.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::domain::{
    CatalogChange, CatalogChanged, ExperimentsChange, ExperimentsEdition, Failure, Forgotten, ItemPage,
    RecommendAnswer, RecommendRequest, Recorded, StoredItem, UserEvent,
};
use crate::recommend::{Recommender, VariantView};

/// What the server needs of a recommender. A trait so that tests can serve a fake one over a real socket.
pub trait Recommends: Send + Sync + 'static {
    /// Answers one request, by `deadline` or not at all. None: the caller set none.
    fn recommend(
        &self,
        request: RecommendRequest,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<RecommendAnswer, Failure>> + Send;

    /// What every request that came now with this deadline would be refused with, whatever it asks.
    fn refusal(&self, deadline: Instant) -> Option<Failure> {
        let _ = deadline;
        None
    }

    /// Takes events down; resolves when they are durable.
    fn record(&self, events: Vec<UserEvent>) -> impl Future<Output = Result<Recorded, Failure>> + Send;

    /// Removes all that is stored of a user.
    fn forget(&self, user: String) -> impl Future<Output = Result<Forgotten, Failure>> + Send;

    /// Changes items; resolves when the changes are durable and served.
    fn change_items(
        &self,
        changes: Vec<CatalogChange>,
    ) -> impl Future<Output = Result<CatalogChanged, Failure>> + Send {
        drop(changes);
        std::future::ready(Err(Failure::Off("this server's catalogue cannot be changed")))
    }

    /// One item as it stands.
    fn item(&self, id: &str) -> Result<StoredItem, Failure> {
        Err(Failure::UnknownItem(id.to_owned()))
    }

    /// At most `most` items after an id, in the order of their ids.
    fn items(&self, after: Option<&str>, most: usize) -> Result<ItemPage, Failure> {
        let _ = (after, most);
        Ok(ItemPage::default())
    }

    /// The experiments that run, and those before them, newest first, at most `most`.
    fn experiments(&self, most: usize) -> Result<(ExperimentsEdition, Vec<ExperimentsEdition>), Failure> {
        let _ = most;
        Err(Failure::Off("this server's experiments cannot be changed"))
    }

    /// Runs other experiments, and answers the version that runs then. May block its thread.
    fn change_experiments(&self, change: ExperimentsChange) -> Result<ExperimentsEdition, Failure> {
        let _ = change;
        Err(Failure::Off("this server's experiments cannot be changed"))
    }

    /// What is loaded.
    fn variants(&self) -> Vec<VariantView>;

    /// Lets what has been accepted end.
    fn drain(&self) -> impl Future<Output = ()> + Send;

    /// Marked whenever [`Recommends::variants`] tells something else. A closed one says that it never will.
    fn watch_variants(&self) -> watch::Receiver<()> {
        watch::Sender::new(()).subscribe()
    }

    /// Resolves with the name of a variant that cannot answer any more and will not recover; then the server ends.
    fn stopped(&self) -> impl Future<Output = String> + Send {
        std::future::pending()
    }
}

impl Recommends for Recommender {
    async fn recommend(
        &self,
        request: RecommendRequest,
        deadline: Option<Instant>,
    ) -> Result<RecommendAnswer, Failure> {
        Recommender::recommend(self, request, deadline).await
    }

    fn refusal(&self, deadline: Instant) -> Option<Failure> {
        Recommender::refusal(self, Some(deadline))
    }

    async fn record(&self, events: Vec<UserEvent>) -> Result<Recorded, Failure> {
        Recommender::record(self, events).await
    }

    async fn forget(&self, user: String) -> Result<Forgotten, Failure> {
        Recommender::forget(self, user).await
    }

    async fn change_items(&self, changes: Vec<CatalogChange>) -> Result<CatalogChanged, Failure> {
        Recommender::change_items(self, changes).await
    }

    fn item(&self, id: &str) -> Result<StoredItem, Failure> {
        Recommender::item(self, id)
    }

    fn items(&self, after: Option<&str>, most: usize) -> Result<ItemPage, Failure> {
        Recommender::items(self, after, most)
    }

    fn experiments(&self, most: usize) -> Result<(ExperimentsEdition, Vec<ExperimentsEdition>), Failure> {
        Recommender::experiments(self, most)
    }

    fn change_experiments(&self, change: ExperimentsChange) -> Result<ExperimentsEdition, Failure> {
        Recommender::change_experiments(self, change)
    }

    fn variants(&self) -> Vec<VariantView> {
        Recommender::variants(self)
    }

    async fn drain(&self) {
        // The server has kept the lag already.
        Recommender::drain(self, Duration::ZERO).await;
    }

    fn watch_variants(&self) -> watch::Receiver<()> {
        Recommender::watch_variants(self)
    }

    async fn stopped(&self) -> String {
        self.engine_stopped().await
    }
}

/// Where the server is in its life. It only ever moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Bound, but the bundle is still being loaded and warmed.
    Starting,
    /// Answering.
    Serving,
    /// Told to stop; still answering while others learn of it.
    Draining,
}

impl Phase {
    /// The name on the admin page.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Serving => "serving",
            Phase::Draining => "draining",
        }
    }
}

/// The recommender's place, empty until it is warm.
#[derive(Debug)]
pub(super) struct Desk<R> {
    recommender: OnceLock<Arc<R>>,
    phase: watch::Sender<Phase>,
    /// An operator's word that the server is to end.
    drain: Notify,
    /// When the present phase began.
    since: std::sync::Mutex<Instant>,
}

impl<R: Recommends> Desk<R> {
    /// Resolves with the name of a variant that cannot answer any more, once there is a recommender that says so.
    pub async fn stopped(&self) -> String {
        let mut phase = self.watch();
        loop {
            if let Some(recommender) = self.recommender.get() {
                return recommender.stopped().await;
            }
            // The sender is ours, so waiting cannot fail.
            drop(phase.changed().await);
        }
    }
}

impl<R> Desk<R> {
    pub fn new() -> Self {
        Self {
            recommender: OnceLock::new(),
            phase: watch::Sender::new(Phase::Starting),
            drain: Notify::new(),
            since: std::sync::Mutex::new(Instant::now()),
        }
    }

    /// Takes the recommender in. False when there is one already.
    pub fn seat(&self, recommender: R) -> bool {
        self.recommender.set(Arc::new(recommender)).is_ok()
    }

    /// The recommender.
    ///
    /// # Errors
    /// [`Failure::NotReady`] while there is none.
    pub fn recommender(&self) -> Result<&Arc<R>, Failure> {
        let retry_after = Duration::from_secs(1);
        self.recommender.get().ok_or(Failure::NotReady { reason: "the bundle is being loaded and warmed", retry_after })
    }

    /// Moves on to `phase`; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
                *self.since.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
            }
            later
        });
    }

    /// Where the server is, and for how long.
    pub fn phase(&self) -> (Phase, Duration) {
        let phase = *self.phase.borrow();
        (phase, self.since.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed())
    }

    /// Tells the server to end, as a signal would.
    pub fn ask_to_drain(&self) {
        self.drain.notify_one();
    }

    /// Resolves when somebody asked for that.
    pub async fn asked_to_drain(&self) {
        self.drain.notified().await;
    }

    /// To wait for a change of phase.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}
