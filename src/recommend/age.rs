//! How old the bundles that serve are, worked out when somebody looks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

/// `reg4rec_model_age_seconds{variant}`: seconds since the bundle of each variant was published.
#[derive(Debug, Clone)]
pub(super) struct ModelAges {
    gauges: GaugeVec,
    created: Arc<Mutex<BTreeMap<String, SystemTime>>>,
}

impl ModelAges {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let options =
            Opts::new("reg4rec_model_age_seconds", "Seconds since the bundle that serves each variant was published");
        Ok(Self { gauges: GaugeVec::new(options, &["variant"])?, created: Arc::default() })
    }

    /// Says when the bundle that serves `variant` from now on was published.
    pub(super) fn set(&self, variant: &str, created: SystemTime) {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).insert(variant.to_owned(), created);
    }
}

impl Collector for ModelAges {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = SystemTime::now();
        for (variant, created) in self.created.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // A bundle from a clock that is ahead of ours is new.
            let age = now.duration_since(*created).unwrap_or_default();
            self.gauges.with_label_values(&[variant]).set(age.as_secs_f64());
        }
        self.gauges.collect()
    }
}
