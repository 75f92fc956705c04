//! Damaged bundles published during traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fake::Client;
use crate::operated::{Operated, channel, place, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupted_bundle_published_under_traffic_fails_no_request() {
    let server = Operated::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (stop, address) = (Arc::clone(&stop), server.process.public.clone());
            tokio::spawn(async move {
                let mut client = Client::new(channel(&address).await);
                let mut answers = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.recommend(request("")).await.expect("a request failed").into_inner();
                    assert_eq!(answer.bundle_version, "v1");
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    for (version, file) in [("v2", "weights.safetensors"), ("v3", "items.parquet"), ("v4", "codebooks.safetensors")] {
        let dir = place(&server.registry, "default", version);
        let path = dir.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        server.registry.point("default", version).unwrap();
        let (stage, reason) = server.until_refused("default", &dir).await;
        assert!(stage == "verify" && reason.contains(file), "{stage}: {reason}");
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
}
