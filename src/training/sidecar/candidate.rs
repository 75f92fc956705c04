//! The candidate: what a fine-tune came to, compared with the bundle that serves, and as a bundle of its own.

use std::path::Path;

use anyhow::Context;
use burn::backend::Flex;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::compare::Exam;
use super::cycle::Work;
use super::gate::Compared;
use super::golden::made_up;
use crate::artifact::{BundleParts, DataFacts, Manifest, publish, verify};
use crate::catalog::Index;
use crate::decode::DecodeSettings;
use crate::model::{CpuScorer, load_weights};
use crate::training::fit::golden;
use crate::training::pretrain::{EpochReport, PretrainConfig};

/// What a fine-tune came to.
pub(super) struct Candidate {
    /// Its items, with the increment's events in their priors.
    pub index: Index,
    /// Its weights.
    pub weights: Vec<u8>,
    /// How it learnt.
    pub lessons: PretrainConfig,
    /// Its epochs, and which of them the weights are of.
    pub reports: Vec<EpochReport>,
    /// Counted from zero.
    pub best_epoch: usize,
}

impl Candidate {
    /// Both models on the held-out users that judge, and on the exposures since.
    pub fn compare(&self, work: &Work) -> anyhow::Result<Compared> {
        let Work { parent, catalogue, increment, slates, .. } = work;
        let settings: DecodeSettings = parent.manifest.decode_as()?;
        let device = Default::default();
        let exam = Exam { settings: &settings, trials: &increment.judges, slates };
        let current = parent.network::<Flex>(&device)?;
        let candidate = load_weights::<Flex>(&catalogue.config, self.weights.clone(), &device)?;
        Ok(Compared {
            users: exam.trials.len(),
            slates: exam.slates.len(),
            current: exam.sit(current, &parent.manifest.network, &parent.index)?,
            candidate: exam.sit(candidate, &catalogue.config, &self.index)?,
        })
    }

    /// Writes the bundle at `directory`, whole or not at all.
    pub fn write(&self, work: &Work, compared: Compared, directory: &Path) -> anyhow::Result<()> {
        let Work { parent, catalogue, .. } = work;
        let settings: DecodeSettings = parent.manifest.decode_as()?;
        let device = Default::default();
        let nobody = made_up(self.index.len(), catalogue.config.max_history, self.lessons.seed);
        let network = load_weights::<Flex>(&catalogue.config, self.weights.clone(), &device)?;
        let mut scorer = CpuScorer::new(&network, catalogue.config.clone(), self.index.codes())?;
        let parts = BundleParts {
            weights: self.weights.clone(),
            codebooks: parent.codebooks.clone(),
            items: self.index.items().collect(),
            codes: self.index.codes().clone(),
            golden: golden(&mut scorer, &self.index, &nobody, &settings)?,
            warmup: parent.warmup.clone(),
        };
        publish(directory, self.manifest(work, compared), parts)?;
        verify(directory).context("the candidate does not verify")?;
        Ok(())
    }

    fn manifest(&self, work: &Work, compared: Compared) -> Manifest {
        let Work { parent, catalogue, replay, increment, plan, .. } = work;
        let before = &parent.manifest;
        let (name, network) = (before.name.clone(), catalogue.config.clone());
        let mut manifest = Manifest::new(name, plan.version.clone(), network, before.categories.clone());
        manifest.parent = Some(before.label());
        manifest.data = DataFacts {
            fingerprint: format!("{:x}", Sha256::digest(format!("{} {}", before.data.fingerprint, plan.events))),
            // Without the data set, whoever is in the log may have been counted before.
            users: before.data.users.max(replay.users.len() as u64),
            items: self.index.len() as u64,
            interactions: before.data.interactions + increment.counts.learnt,
        };
        manifest.training = json!({
            "sidecar": {
                "log": plan.log,
                "learnt_through": plan.cut,
                "held_out_through": plan.end,
                "events": increment.counts,
                "added_items": catalogue.added(),
            },
            "pretrain": self.lessons,
            "best_epoch": self.best_epoch,
            "epochs": self.reports,
        });
        manifest.tokenizer = before.tokenizer.clone();
        manifest.decode = before.decode.clone();
        manifest.metrics = json!({ "held_out_tail": compared });
        manifest
    }
}
