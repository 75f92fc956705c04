//! What must stop by itself: an arm that is broken on purpose, and a delivery that does not keep to the weights.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use reg4rec::artifact::{BundleParts, BundleRegistry, Golden, Manifest, load, publish};
use reg4rec::catalog::CatalogItem;
use reg4rec::domain::Item;
use reg4rec::experiment::{Draw, Experiment, ExperimentConfig, SAMPLE_RATIO_ALARM, Subject};
use reg4rec::wire::client::{AdminServiceClient, RecommendationServiceClient};
use reg4rec::wire::v1;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::FROZEN;

/// The broken arm and its variant: a bundle of which no item may be shown.
pub const BROKEN: &str = "broken";
/// Requests of the first drill, at most; the kill switch looks at an arm's first two hundred.
const REQUESTS: usize = 2_000;
/// Units that reach the arms of the second drill.
const UNITS: usize = 1_000;

/// Publishes the bundle at `from` as [`BROKEN`], with every item off the shelves.
pub fn publish_broken(from: &Path, registry: &BundleRegistry, scratch: &Path) -> anyhow::Result<()> {
    let bundle = load(from)?;
    let off = |row: CatalogItem| CatalogItem { item: Item { eligible: false, ..row.item }, ..row };
    let before = &bundle.manifest;
    let mut manifest = Manifest::new(before.name.clone(), "broken", before.network.clone(), before.categories.clone());
    manifest.data = before.data.clone();
    manifest.tokenizer = before.tokenizer.clone();
    manifest.decode = before.decode.clone();
    let parts = BundleParts {
        items: bundle.index.items().map(off).collect(),
        codes: bundle.index.codes().clone(),
        golden: bundle.golden.into_iter().map(|golden| Golden { answers: Vec::new(), ..golden }).collect(),
        weights: bundle.weights,
        codebooks: bundle.codebooks,
        warmup: bundle.warmup,
    };
    publish(scratch, manifest, parts)?;
    registry.publish(scratch, BROKEN, None)?;
    Ok(())
}

/// What the drills came to.
#[derive(Debug)]
pub struct Drills {
    /// Requests of the broken arm's users until it was killed, none of them with an item; none when it never was.
    pub killed_after: Option<usize>,
    /// Requests of those users from then on, and of these the ones with items.
    pub healed: (usize, usize),
    /// p of the sample-ratio test by how units were delivered: by the weights, and 60 to 40.
    pub ratio: BTreeMap<&'static str, f64>,
}

impl Drills {
    /// As the summary has it.
    pub fn summary(&self) -> Value {
        json!({
            "broken_arm": {
                "killed_after_requests": self.killed_after,
                "its_users_afterwards": { "requests": self.healed.0, "answered_with_items": self.healed.1 },
            },
            "sample_ratio_p": self.ratio,
        })
    }

    /// Whether what must stop did, and nothing else.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.killed_after.is_some(), "the broken arm was never killed");
        let (asked, answered) = self.healed;
        ensure!(
            asked > 0 && asked == answered,
            "{answered} of {asked} answers had items once the broken arm was killed"
        );
        let [even, lopsided] = ["50/50", "60/40"].map(|delivery| self.ratio.get(delivery).copied());
        ensure!(lopsided.is_some_and(|p| p < SAMPLE_RATIO_ALARM), "60/40 of 50/50 raised no alarm: p {lopsided:?}");
        ensure!(even.is_some_and(|p| p >= SAMPLE_RATIO_ALARM), "50/50 of 50/50 raised an alarm: p {even:?}");
        Ok(())
    }
}

/// Runs both drills on a server that has [`BROKEN`] loaded. `admin` is the URL of its admin port.
pub async fn run(channel: &Channel, admin: &str) -> anyhow::Result<Drills> {
    let mut client = RecommendationServiceClient::new(channel.clone());
    set(admin, &[arms("drill-broken", FROZEN, BROKEN)]).await?;
    let (mut empty, mut killed_after, mut healed) = (0, None, (0, 0));
    for user in 0..REQUESTS {
        let answer = ask(&mut client, &format!("drill-{user}")).await?;
        let assignment = answer.assignment.context("an answer of no experiment")?;
        if assignment.arm != BROKEN {
            continue;
        }
        let items = !answer.items.is_empty();
        if assignment.reason == v1::AssignmentReason::Killed as i32 {
            killed_after.get_or_insert(empty);
            healed = (healed.0 + 1, healed.1 + usize::from(items));
            if healed.0 == 100 {
                break;
            }
        } else {
            ensure!(!items, "the broken arm answered {} with items", user);
            empty += 1;
        }
    }

    let mut ratio = BTreeMap::new();
    for (delivery, key, reaches) in [("50/50", "drill-even", 1.0), ("60/40", "drill-lopsided", 2.0 / 3.0)] {
        set(admin, &[halves(key)]).await?;
        let experiment = Experiment::new(&serde_json::from_value::<ExperimentConfig>(halves(key))?);
        let (mut delivered, mut of_second, nothing) = (0, 0usize, BTreeMap::new());
        for unit in 0.. {
            let user = format!("{key}-{unit}");
            let drawn = experiment.draw(Subject { user_id: &user, attributes: &nothing }, 0);
            if drawn == Some(Draw::Arm(1)) {
                of_second += 1;
                // Some of its users never get through, as behind a balancer that loses one host's answers.
                if (of_second as f64 * reaches).floor() == ((of_second - 1) as f64 * reaches).floor() {
                    continue;
                }
            }
            ask(&mut client, &user).await?;
            delivered += 1;
            if delivered == UNITS {
                break;
            }
        }
        ratio.insert(delivery, p_value(admin, key)?);
    }
    Ok(Drills { killed_after, healed, ratio })
}

/// An experiment of two variants.
fn arms(key: &str, control: &str, other: &str) -> Value {
    json!({ "key": key, "arms": [{ "name": control, "variant": control }, { "name": other, "variant": other }] })
}

/// An experiment of two arms that do the same.
fn halves(key: &str) -> Value {
    json!({ "key": key, "arms": [{ "name": "first" }, { "name": "second" }] })
}

/// Lets the server run these experiments instead of those before.
async fn set(admin: &str, experiments: &[Value]) -> anyhow::Result<()> {
    let settings = toml::to_string(&json!({ "experiment": experiments }))?;
    let asked = v1::SetExperimentsRequest { settings, note: "a drill".into(), ..Default::default() };
    let channel = Channel::from_shared(admin.to_owned())?.connect().await?;
    AdminServiceClient::new(channel).set_experiments(asked).await.context("setting an experiment")?;
    Ok(())
}

async fn ask(client: &mut RecommendationServiceClient<Channel>, user: &str) -> anyhow::Result<v1::RecommendResponse> {
    let request = v1::RecommendRequest { user_id: user.to_owned().into(), k: Some(5), ..Default::default() };
    Ok(client.recommend(request).await.with_context(|| format!("asking for {user}"))?.into_inner())
}

/// The sample-ratio p of an experiment, from the metrics page.
fn p_value(admin: &str, key: &str) -> anyhow::Result<f64> {
    let address = admin.strip_prefix("http://").context("an admin port without TLS")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes())?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let series = format!("reg4rec_experiment_srm_p_value{{experiment=\"{key}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    Ok(value.with_context(|| format!("no {series}on the metrics page"))?.parse()?)
}
