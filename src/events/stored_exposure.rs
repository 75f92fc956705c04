//! An exposure as a part of a record's protobuf message. Tags are never given to another field.

use std::sync::Arc;

use prost::Message;

use crate::domain::{AssignmentReason, Design, ExposedArm, Exposure};

#[derive(Clone, PartialEq, Message)]
pub(super) struct StoredExposure {
    #[prost(message, repeated, tag = "1")]
    arms: Vec<StoredArm>,
    #[prost(string, tag = "2")]
    variant: String,
    #[prost(string, tag = "3")]
    bundle_version: String,
    #[prost(string, repeated, tag = "4")]
    item_ids: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredArm {
    #[prost(string, tag = "1")]
    experiment: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(uint32, tag = "3")]
    arm: u32,
    #[prost(string, repeated, tag = "4")]
    names: Vec<String>,
    #[prost(double, repeated, tag = "5")]
    weights: Vec<f64>,
    #[prost(string, optional, tag = "6")]
    unit: Option<String>,
    #[prost(uint32, tag = "7")]
    reason: u32,
}

impl StoredExposure {
    pub(super) fn new(exposure: &Exposure) -> Self {
        let arm = |exposed: &ExposedArm| StoredArm {
            experiment: exposed.design.experiment.clone(),
            version: exposed.design.version.clone(),
            arm: exposed.arm as u32,
            names: exposed.design.arms.clone(),
            weights: exposed.design.weights.clone(),
            unit: exposed.unit.clone(),
            reason: exposed.reason as u32,
        };
        Self {
            arms: exposure.arms.iter().map(arm).collect(),
            variant: exposure.variant.clone(),
            bundle_version: exposure.bundle_version.clone(),
            item_ids: exposure.item_ids.clone(),
        }
    }

    /// The exposure again, with what stands beside it in the record; or what is wrong with it.
    pub(super) fn exposure(self, request_id: String, user_id: String) -> Result<Exposure, String> {
        let Self { arms, variant, bundle_version, item_ids } = self;
        let arms = arms.into_iter().map(StoredArm::exposed).collect::<Result<_, _>>()?;
        Ok(Exposure { request_id, user_id, arms, variant, bundle_version, item_ids })
    }
}

impl StoredArm {
    fn exposed(self) -> Result<ExposedArm, String> {
        let Self { experiment, version, arm, names, weights, unit, reason } = self;
        let most = AssignmentReason::ALL.len() - 1;
        let &reason = AssignmentReason::ALL
            .get(reason as usize)
            .ok_or_else(|| format!("an exposure's reason {reason}, expected 0 to {most}"))?;
        if names.len() != weights.len() || arm as usize >= names.len() {
            let (names, weights) = (names.len(), weights.len());
            return Err(format!(
                "an exposure's arm {arm} of {names} arms with {weights} weights, expected one of them"
            ));
        }
        let design = Arc::new(Design { experiment, version, arms: names, weights });
        Ok(ExposedArm { design, arm: arm as usize, unit, reason })
    }
}
