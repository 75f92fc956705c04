//! Whether a bundle fits beside what is loaded, asked before it is read.

use crate::artifact::Manifest;

/// Columns, look-ups, names and title of one item while its index is built: twice what the index holds in the end.
const ITEM: u64 = 384;
/// Activations of the largest batch, and what the allocator keeps.
const WORKING: u64 = 48 << 20;

/// Host memory that loading a bundle takes at its peak, in bytes, estimated from above by its manifest alone: the files
/// as they are read, the weights twice more (as tensors, and once in between), vectors and postings of every item.
/// On a GPU the tensors are there, and this bounds what is needed on the host.
pub(super) fn estimate(manifest: &Manifest) -> u64 {
    let files: u64 = manifest.files.values().map(|facts| facts.bytes).fold(0, u64::saturating_add);
    let weights = manifest.files.get("weights.safetensors").map_or(0, |facts| facts.bytes);
    let network = &manifest.network;
    let vectors = (network.width as u64).saturating_mul(2 * 4);
    let postings = (network.codes.codebooks as u64).saturating_mul(2 + 4);
    let items = (network.items as u64).saturating_mul(ITEM + vectors + postings);
    files.saturating_add(weights.saturating_mul(2)).saturating_add(items).saturating_add(WORKING)
}

/// Refuses a bundle that would leave less than `reserve` of the `available` bytes. Where the platform does not say how
/// much there is, nothing is refused.
pub(super) fn check(manifest: &Manifest, available: Option<u64>, reserve: u64) -> Result<(), String> {
    let needed = estimate(manifest);
    match available {
        Some(available) if available.saturating_sub(needed) < reserve || available < needed => Err(format!(
            "needs about {} MiB beside what is loaded, {} MiB are available, and {} MiB must stay free",
            mib(needed),
            mib(available),
            mib(reserve)
        )),
        _ => Ok(()),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::artifact::FileFacts;
    use crate::domain::CodeShape;
    use crate::model::NetworkConfig;

    fn manifest(items: usize, weights: u64) -> Manifest {
        let network = NetworkConfig {
            items,
            categories: 1,
            codes: CodeShape { codebooks: 4, entries: 8 },
            width: 64,
            feed_forward: 64,
            max_history: 50,
            ..NetworkConfig::tiny()
        };
        let mut manifest = Manifest::new("shop", "1", network, vec!["hats".to_owned()]);
        let facts = FileFacts { sha256: String::new(), bytes: weights };
        manifest.files.insert("weights.safetensors".to_owned(), facts);
        manifest
    }

    #[test]
    fn the_estimate_grows_with_weights_and_items() {
        let small = estimate(&manifest(1_000, 1 << 20));
        assert_eq!(estimate(&manifest(1_000, 2 << 20)) - small, 3 << 20);
        assert_eq!(estimate(&manifest(2_000, 1 << 20)) - small, 1_000 * (384 + 64 * 8 + 4 * 6));
    }

    #[test]
    fn what_does_not_fit_beside_the_reserve_is_refused_with_its_numbers() {
        let manifest = manifest(1_000, 1 << 20);
        let needed = estimate(&manifest);
        assert!(check(&manifest, None, u64::MAX).is_ok());
        assert!(check(&manifest, Some(needed + 10), 10).is_ok());
        assert!(check(&manifest, Some(needed + 9), 10).is_err());
        let told = check(&manifest, Some(needed - 1), 0).unwrap_err();
        assert!(told.contains(&format!("about {} MiB", mib(needed))), "{told}");
    }
}
