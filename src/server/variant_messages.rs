//! The state of variants as messages of `reg4rec.v1`.

use crate::recommend::{SlotView, VariantView};
use crate::rollout::{Refused, VariantState};
use crate::wire::v1;

pub(super) fn variant(state: VariantState) -> v1::Variant {
    let VariantState { name, slot, refused } = state;
    let serving = slot.as_ref().is_some_and(|slot| slot.current.alive);
    let default = slot.as_ref().is_some_and(|slot| slot.current.default);
    let (current, previous) = slot.map_or((None, None), |SlotView { current, previous }| (Some(current), previous));
    v1::Variant {
        name,
        default,
        serving,
        current: current.map(bundle),
        previous: previous.map(bundle),
        refused: refused.map(refusal),
    }
}

fn bundle(view: VariantView) -> v1::Bundle {
    v1::Bundle {
        name: view.bundle_name,
        version: view.bundle_version,
        index_version: view.index_version,
        items: view.items as u64,
        created: Some(view.created.into()),
        directory: view.directory.display().to_string(),
    }
}

fn refusal(refused: Refused) -> v1::Refusal {
    v1::Refusal {
        directory: refused.directory.display().to_string(),
        stage: refused.refusal.stage.name().to_owned(),
        reason: refused.refusal.reason,
        time: Some(refused.time.into()),
    }
}
