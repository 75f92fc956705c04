//! A server process that follows a registry, with everything that an operator has.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tonic::transport::Channel;

use reg4rec::artifact::BundleRegistry;
use reg4rec::wire::client::AdminServiceClient;
use reg4rec::wire::v1;

use crate::bundle;
use crate::fake::{Client, page_at};
use crate::process::{Process, anything};

pub type Operator = AdminServiceClient<Channel>;

/// How long anything may take here; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Operated {
    pub home: TempDir,
    pub registry: BundleRegistry,
    pub process: Process,
}

/// A registry in a directory of its own.
pub fn registry() -> (TempDir, BundleRegistry) {
    let home = tempfile::tempdir().unwrap();
    let registry = BundleRegistry::new(home.path().join("registry"));
    (home, registry)
}

/// What starts a server that follows a registry.
pub fn follower(registry: &BundleRegistry) -> Command {
    let mut command = anything();
    command.arg("--registry").arg(registry.root()).env("REG4REC__REGISTRY__POLL_MS", "50");
    command
}

/// A version of the tiny bundle, in the registry, not yet pointed at.
pub fn place(registry: &BundleRegistry, variant: &str, version: &str) -> PathBuf {
    let dir = registry.directory(variant, version).unwrap();
    bundle::write_version(&dir, version, 0.0);
    dir
}

impl Operated {
    /// Serves version v1 of the tiny bundle.
    pub async fn start() -> Self {
        let (home, registry) = registry();
        place(&registry, "default", "v1");
        registry.point("default", "v1").unwrap();
        Self::follow(home, registry, |_| {}).await
    }

    /// Serves what the registry points at, with `more` settings.
    pub async fn follow(home: TempDir, registry: BundleRegistry, more: impl FnOnce(&mut Command)) -> Self {
        let mut command = follower(&registry);
        more(&mut command);
        let process = tokio::task::spawn_blocking(move || Process::spawn(&mut command, true)).await.unwrap();
        Self { home, registry, process }
    }

    pub async fn client(&self) -> Client {
        Client::new(channel(&self.process.public).await)
    }

    pub async fn operator(&self) -> Operator {
        Operator::new(channel(&self.process.admin).await)
    }

    /// The value of one series; none when it is not there.
    pub async fn series(&self, name: &str) -> Option<f64> {
        let (_, page) = page_at(self.process.admin.trim_start_matches("http://"), "/metrics").await;
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub async fn variant(&self, name: &str) -> v1::Variant {
        let listed = self.operator().await.list_variants(v1::ListVariantsRequest {}).await.unwrap().into_inner();
        listed.variants.into_iter().find(|variant| variant.name == name).unwrap()
    }

    /// The version that answers a request now.
    pub async fn answering(&self, variant: &str) -> String {
        self.client().await.recommend(request(variant)).await.unwrap().into_inner().bundle_version
    }

    /// Waits until a version answers.
    pub async fn until_answered_by(&self, variant: &str, version: &str) {
        let began = Instant::now();
        loop {
            let outcome = self.client().await.recommend(request(variant)).await;
            if outcome.as_ref().is_ok_and(|answer| answer.get_ref().bundle_version == version) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "version {version} never answered: {outcome:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a bundle of the directory is refused; answers stage and reason.
    pub async fn until_refused(&self, variant: &str, dir: &Path) -> (String, String) {
        let began = Instant::now();
        loop {
            let refused = self.variant(variant).await.refused;
            if let Some(refused) = refused.filter(|refused| refused.directory == dir.display().to_string()) {
                return (refused.stage, refused.reason);
            }
            assert!(began.elapsed() < PATIENCE, "{} was never refused", dir.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub async fn channel(address: &str) -> Channel {
    Channel::from_shared(address.to_owned()).unwrap().connect().await.unwrap()
}

/// Something that every tiny bundle can answer.
pub fn request(variant: &str) -> v1::RecommendRequest {
    let event = |id: &str| v1::Event { item_id: id.into(), ..Default::default() };
    let history = vec![event("item-3"), event("item-7")];
    v1::RecommendRequest { history, variant: variant.into(), ..Default::default() }
}
