//! One cycle: what is new is learnt, compared with what serves, and published if the gate lets it.

use std::fmt;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::to_value;

use super::candidate::Candidate;
use super::catalogue::Catalogue;
use super::config::SidecarConfig;
use super::drift::Drift;
use super::gate::{Compared, Verdict};
use super::increment::{Bounds, Counts, Increment};
use super::metrics::SidecarMetrics;
use super::replay::Replay;
use super::slates::{Slate, slates};
use super::state::{Plan, State, WorkPlace, is_another};
use super::tune::Start;
use crate::artifact::{BundleRegistry, Lease, LoadedBundle, Manifest, load};
use crate::catalog::{Entries, Word, read_changes};
use crate::domain::DescribedItem;
use crate::events::read_name;
use crate::model::save_weights;
use crate::training::dataset::{Dataset, DatasetItem, read_items};
use crate::training::posttrain::RoundReport;
use crate::training::pretrain::{PretrainError, Pretrained, Progress};

/// Where the candidate that passed the gate waits in the cycle's directory until it is in the registry.
const CANDIDATE: &str = "candidate";

/// How a cycle ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// A new version is the current one.
    Published,
    /// The gate did not let the candidate pass.
    Refused,
    /// There is too little to learn from or to compare on.
    TooFew,
}

/// What came of a cycle.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// How it ended.
    pub result: Ended,
    /// Why.
    pub reason: String,
    /// What was published.
    pub version: Option<String>,
    /// What was read.
    pub events: Counts,
    /// Items that are new in the candidate.
    pub added_items: usize,
    /// How far the events have drifted.
    pub drift: Option<Drift>,
    /// Why a full retrain is suggested.
    pub retrain: Option<String>,
    /// What the gate compared.
    pub compared: Option<Compared>,
    /// Whether it went on from an unfinished cycle.
    pub resumed: bool,
}

/// Everything that a cycle needs; the right to publish among it.
#[derive(Debug)]
pub struct Sidecar {
    pub(super) config: SidecarConfig,
    pub(super) place: WorkPlace,
    pub(super) metrics: SidecarMetrics,
    registry: BundleRegistry,
    data: Option<Dataset>,
    _lease: Lease,
}

/// What a cycle knows before it learns.
pub(super) struct Work {
    pub(super) parent: LoadedBundle,
    pub(super) catalogue: Catalogue,
    pub(super) replay: Replay,
    pub(super) increment: Increment,
    pub(super) slates: Vec<Slate>,
    pub(super) plan: Plan,
    resumed: bool,
}

impl Sidecar {
    /// Takes the lease, opens the work directory and reads the data set.
    ///
    /// # Errors
    /// When another trainer has the lease, and what cannot be read.
    pub fn open(config: SidecarConfig, metrics: SidecarMetrics) -> anyhow::Result<Self> {
        let registry = BundleRegistry::new(&config.registry);
        let lease = registry.lease(&config.variant, &owner())?;
        let place = WorkPlace::open(&config.work)?;
        let data = &config.data;
        let data = if data.as_os_str().is_empty() { None } else { Some(Dataset::read(data)?) };
        let state = place.state()?;
        if let Some(version) = &state.published {
            metrics.published(&config.variant, version, None);
        }
        Ok(Self { config, place, metrics, registry, data, _lease: lease })
    }

    /// Runs one cycle, or what is left of one that was killed, to its end.
    ///
    /// # Errors
    /// What cannot be read, learnt or written. What was done is kept, and the next call goes on from there.
    pub fn cycle(&self) -> anyhow::Result<Outcome> {
        if let Some(outcome) = self.published_before()? {
            return Ok(outcome);
        }
        let metrics = &self.metrics;
        let (parent, catalogue) = metrics.stage("load", || self.load())?;
        let work = metrics.stage("increment", || self.prepare(parent, catalogue))?;
        let mut outcome = self.look(&work);
        let judges = work.increment.judges.len();
        if work.increment.sequences.is_empty() || judges < self.config.gate.fewest_users {
            let few = self.config.gate.fewest_users;
            outcome.reason = format!("{judges} held-out users that can be asked for, expected at least {few}");
            return self.end(&work.plan, outcome);
        }
        let candidate = self.candidate_dir();
        // Only a candidate that passed the gate stands there.
        let waits = work.resumed && load(&candidate).is_ok_and(|found| found.manifest.version == work.plan.version);
        if waits {
            outcome.reason = "passed the gate before".to_owned();
        } else {
            let tuned = match metrics.stage("tune", || self.tune(&work)) {
                Err(error) if error.downcast_ref().is_some_and(is_divergence) => {
                    (outcome.result, outcome.reason) = (Ended::Refused, error.to_string());
                    return self.end(&work.plan, outcome);
                }
                tuned => tuned?,
            };
            let compared = metrics.stage("evaluate", || tuned.compare(&work))?;
            outcome.compared = Some(compared);
            let verdict = self.config.gate.judge(&compared);
            metrics.judged(&compared, matches!(verdict, Verdict::Passed(_)));
            match verdict {
                Verdict::Refused(reason) => {
                    (outcome.result, outcome.reason) = (Ended::Refused, reason);
                    return self.end(&work.plan, outcome);
                }
                Verdict::Passed(reason) => outcome.reason = reason,
            }
            tuned.write(&work, compared, &candidate)?;
        }
        metrics.stage("publish", || self.publish(&work.plan))?;
        (outcome.result, outcome.version) = (Ended::Published, Some(work.plan.version.clone()));
        self.end(&work.plan, outcome)
    }

    fn candidate_dir(&self) -> PathBuf {
        self.place.cycle().join(CANDIDATE)
    }

    /// A cycle that was killed after its version became the current one has only to be ended.
    fn published_before(&self) -> anyhow::Result<Option<Outcome>> {
        let Some(plan) = self.place.plan()? else { return Ok(None) };
        if self.registry.current(&self.config.variant)?.as_ref() != Some(&plan.version) {
            return Ok(None);
        }
        self.metrics.published(&self.config.variant, &plan.version, None);
        let outcome = Outcome {
            result: Ended::Published,
            reason: "was published before the trainer ended".to_owned(),
            version: Some(plan.version.clone()),
            resumed: true,
            ..Outcome::empty()
        };
        self.end(&plan, outcome).map(Some)
    }

    fn load(&self) -> anyhow::Result<(LoadedBundle, Catalogue)> {
        let SidecarConfig { variant, items, catalogue, .. } = &self.config;
        let version = self.registry.current(variant)?;
        let root = self.registry.root().display();
        let version =
            version.with_context(|| format!("{root}: variant {variant} has no current version to go on from"))?;
        let parent = load(&self.registry.directory(variant, &version)?)?;
        let mut items: Vec<DatasetItem> = if items.as_os_str().is_empty() { Vec::new() } else { read_items(items)? };
        if !catalogue.as_os_str().is_empty() {
            told_since(&mut items, &read_changes(catalogue)?);
        }
        let catalogue = Catalogue::of(&parent, &items)?;
        if let Some((count, reason)) = &catalogue.left_out {
            tracing::warn!(count, reason, "new items are left out");
        }
        Ok((parent, catalogue))
    }

    /// Reads the log and settles what the cycle is about, as the unfinished one has it where it still holds.
    fn prepare(&self, parent: LoadedBundle, catalogue: Catalogue) -> anyhow::Result<Work> {
        let SidecarConfig { events, increment, .. } = &self.config;
        // Unfinished work is of these items, and of no others.
        let settings = format!("{} {}", serde_json::to_string(&self.config)?, catalogue.fingerprint());
        let read = |until| Replay::read(events, until, self.data.as_ref(), &catalogue.index, increment.low_rating);
        let log = read_name(events)?;
        let unfinished = self.place.plan()?;
        let unfinished = unfinished.filter(|plan| plan.parent == parent.manifest.digest && plan.settings == settings);
        let unfinished = unfinished.filter(|plan| !is_another(plan.log.as_deref(), log.as_deref()));
        if let Some(plan) = unfinished {
            let replay = read(plan.end)?;
            // Other events under the same places: a user was forgotten, and what was learnt from them must go.
            if replay.fingerprint() == plan.events {
                tracing::info!(version = plan.version, "going on with an unfinished cycle");
                return self.work(parent, catalogue, replay, plan, true);
            }
        }
        let replay = read(u64::MAX)?;
        let learnt_through = learnt_through(&parent.manifest, log.as_deref(), replay.end);
        let plan = Plan {
            parent: parent.manifest.digest.clone(),
            version: self.next_version(&parent.manifest)?,
            log,
            learnt_through,
            cut: increment.cut(&replay, learnt_through),
            end: replay.end,
            settings,
            events: replay.fingerprint(),
        };
        self.place.begin(&plan)?;
        self.work(parent, catalogue, replay, plan, false)
    }

    fn work(
        &self,
        parent: LoadedBundle,
        catalogue: Catalogue,
        replay: Replay,
        plan: Plan,
        resumed: bool,
    ) -> anyhow::Result<Work> {
        let SidecarConfig { events, increment: config, .. } = &self.config;
        let (index, known) = (&catalogue.index, catalogue.known);
        let bounds = Bounds { learnt_through: plan.learnt_through, cut: plan.cut };
        let increment = config.part(&replay, bounds, known, index.len());
        let slates = slates(events, (plan.cut, plan.end), &replay, index, known, config.held_out_users)?;
        Ok(Work { parent, catalogue, replay, increment, slates, plan, resumed })
    }

    /// Seconds since 1970, as a fit names versions; later than the parent's, and of no other version.
    fn next_version(&self, parent: &Manifest) -> anyhow::Result<String> {
        let after = parent.version.parse::<u64>().map_or(0, |version| version.saturating_add(1));
        let mut version = unix_seconds()?.max(after);
        while self.registry.directory(&self.config.variant, &version.to_string())?.exists() {
            version += 1;
        }
        Ok(version.to_string())
    }

    /// Counts, and says whether the vocabulary still fits.
    fn look(&self, work: &Work) -> Outcome {
        let Work { parent, catalogue, increment, resumed, .. } = work;
        let drift = Drift::of(&parent.index, &increment.counts, &increment.taken);
        let retrain = self.config.drift.suggests_retrain(&drift);
        self.metrics.drifted(&drift, retrain.is_some());
        if !resumed {
            self.metrics.read(&increment.counts);
        }
        tracing::info!(events = ?increment.counts, ?drift, added = catalogue.added(), "the increment");
        if let Some(reason) = &retrain {
            tracing::warn!(reason, "a full retrain is suggested");
        }
        Outcome {
            events: increment.counts,
            added_items: catalogue.added(),
            drift: Some(drift),
            retrain,
            resumed: *resumed,
            ..Outcome::empty()
        }
    }

    fn tune(&self, work: &Work) -> anyhow::Result<Candidate> {
        let Work { parent, catalogue, increment, plan, .. } = work;
        let weights = save_weights(&catalogue.network)?;
        let start = Start {
            manifest: &parent.manifest,
            network: &catalogue.config,
            weights: &weights,
            index: &catalogue.index,
        };
        let run = to_value(plan)?;
        let told = &mut |progress: Progress<'_>| {
            if let Progress::Done(report) = progress {
                tracing::info!(
                    epoch = report.epoch + 1,
                    loss = report.losses.scorer,
                    ndcg_at_10 = report.validation.ndcg_at_10,
                    seconds = report.seconds,
                    "tuned"
                );
            }
        };
        let directory = self.place.cycle().join("pretrain");
        let (lessons, pretrained) = self.config.tune.tune(start, increment, &directory, &run, told)?;
        let Pretrained { weights, reports, best_epoch } = pretrained;
        let told = &mut |report: &RoundReport| {
            tracing::info!(
                round = report.round,
                reward = report.reward,
                kl = report.kl,
                ndcg_at_10 = report.validation.ndcg_at_10,
                "rewarded"
            );
        };
        let directory = self.place.cycle().join("posttrain");
        let weights = self.config.tune.reward(weights, start, increment, &directory, &run, told)?;
        let index = catalogue.with_priors(&increment.taken, parent.manifest.data.interactions)?;
        Ok(Candidate { index, weights, lessons, reports, best_epoch })
    }

    fn publish(&self, plan: &Plan) -> anyhow::Result<()> {
        let SidecarConfig { variant, keep_versions, .. } = &self.config;
        let parent = self.registry.current(variant)?.context("the variant has no current version any more")?;
        let parent = load(&self.registry.directory(variant, &parent)?)?.manifest;
        // Somebody published or rolled back meanwhile: a candidate that goes on from another bundle must not undo that.
        ensure!(
            parent.digest == plan.parent,
            "variant {variant} points at {} by now, not at what this candidate goes on from",
            parent.label()
        );
        self.registry.publish(&self.candidate_dir(), variant, Some(&plan.version))?;
        let gone = self.registry.prune(variant, *keep_versions)?;
        if !gone.is_empty() {
            tracing::info!(versions = ?gone, "old versions are removed");
        }
        self.metrics.published(variant, &plan.version, Some(std::time::Duration::from_secs(unix_seconds()?)));
        Ok(())
    }

    /// Writes down that the cycle is over, and removes its work.
    fn end(&self, plan: &Plan, outcome: Outcome) -> anyhow::Result<Outcome> {
        let before = self.place.state()?;
        let state = State {
            looked_through: plan.end,
            log: plan.log.clone(),
            ended_at: unix_seconds()? as i64,
            published: outcome.version.clone().or(before.published),
        };
        self.place.end(&state)?;
        self.metrics.ended(match outcome.result {
            Ended::Published => "published",
            Ended::Refused => "refused",
            Ended::TooFew => "too_few",
        });
        Ok(outcome)
    }
}

/// Adds the items that their owner described while they served; what was said last of an item holds.
fn told_since(items: &mut Vec<DatasetItem>, changes: &Entries) {
    let told = changes.values().filter_map(|entry| match &entry.word {
        Word::Item(described) => Some(DescribedItem::clone(described)),
        Word::Eligible(_) | Word::Removed => None,
    });
    items.retain(|item| changes.get(&item.item.id).is_none_or(|entry| matches!(entry.word, Word::Eligible(_))));
    items.extend(told.map(|DescribedItem { item, text, embedding }| DatasetItem { item, text, embedding }));
}

/// Who publishes, for whoever finds the lease taken.
fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.map_or_else(|_| "an unknown host".to_owned(), |name| name.trim().to_owned());
    format!("reg4rec-trainer sidecar on {host}")
}

fn unix_seconds() -> anyhow::Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(since.as_secs())
}

fn is_divergence(error: &PretrainError) -> bool {
    matches!(error, PretrainError::Diverged { .. })
}

/// The place up to which a bundle has learnt from the log of this name; 0 for one that knows of no log, or of another, as its
/// name says, or where one of them has none, that it had more events.
fn learnt_through(manifest: &Manifest, log: Option<&str>, end: u64) -> u64 {
    let noted = &manifest.training["sidecar"];
    let through = noted["learnt_through"].as_u64().unwrap_or(0);
    let learnt_from = noted["log"].as_str();
    if is_another(learnt_from, log) {
        tracing::warn!(?learnt_from, ?log, "the bundle has learnt from another log than this: all of this one is new");
        return 0;
    }
    if through > end {
        tracing::warn!(through, end, "the bundle has learnt from a longer log than this: all of this one is new");
        return 0;
    }
    through
}

impl Outcome {
    fn empty() -> Self {
        Self {
            result: Ended::TooFew,
            reason: String::new(),
            version: None,
            events: Counts::default(),
            added_items: 0,
            drift: None,
            retrain: None,
            compared: None,
            resumed: false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.result, &self.version) {
            (Ended::Published, Some(version)) => write!(out, "published {version}: {}", self.reason)?,
            (Ended::Published, None) => write!(out, "published: {}", self.reason)?,
            (Ended::Refused, _) => write!(out, "refused by the gate: {}", self.reason)?,
            (Ended::TooFew, _) => write!(out, "nothing to publish: {}", self.reason)?,
        }
        let Counts { fresh, learnt, held_out, unknown, hidden, .. } = self.events;
        write!(
            out,
            "\n{fresh} new events: {learnt} learnt from, {held_out} held out, {unknown} of unknown items, \
             {hidden} hides and low ratings"
        )?;
        if let Some(reason) = &self.retrain {
            write!(out, "\na full retrain is suggested: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::NetworkConfig;

    #[test]
    fn places_of_another_log_are_none_of_this_one() {
        let mut manifest = Manifest::new("shop", "1", NetworkConfig::tiny(), vec!["shop".into()]);
        assert_eq!(learnt_through(&manifest, Some("a"), 100), 0);
        manifest.training = json!({ "sidecar": { "learnt_through": 40, "log": "a" } });
        let found = [(Some("a"), 100), (Some("b"), 100), (None, 100), (Some("a"), 39)];
        assert_eq!(found.map(|(log, end)| learnt_through(&manifest, log, end)), [40, 0, 40, 0]);
        // A bundle from before logs were told apart.
        manifest.training = json!({ "sidecar": { "learnt_through": 40 } });
        assert_eq!(learnt_through(&manifest, Some("b"), 100), 40);
        // One whose log had no name.
        manifest.training = json!({ "sidecar": { "learnt_through": 40, "log": null } });
        assert_eq!(learnt_through(&manifest, Some("b"), 100), 40);
    }
}
