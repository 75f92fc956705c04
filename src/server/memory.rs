//! How much memory the process holds, worked out when somebody looks.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Registry};

/// `reg4rec_resident_memory_bytes`: what the host's memory holds of this process, as the kernel counts it. Not there where the
/// platform does not say.
#[derive(Debug, Clone)]
struct ResidentMemory(IntGauge);

/// Registers the series. Fails when it is registered already.
pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    let gauge = IntGauge::new("reg4rec_resident_memory_bytes", "Memory of the host that this process holds")?;
    registry.register(Box::new(ResidentMemory(gauge)))
}

impl Collector for ResidentMemory {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(bytes) = resident() else { return Vec::new() };
        self.0.set(bytes);
        self.0.collect()
    }
}

fn resident() -> Option<i64> {
    held(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Bytes of the line `VmRSS:  N kB`.
fn held(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_kibibytes_become_bytes() {
        assert_eq!(held("Name: x\nVmRSS:\t   2048 kB\nThreads: 3\n"), Some(2 << 20));
        assert_eq!(held("Name: x\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_page_tells_what_this_process_holds() {
        let registry = Registry::new();
        register(&registry).unwrap();
        let told = registry.gather().remove(0).get_metric()[0].get_gauge().get_value();
        assert!(told > 1e6, "{told} bytes");
    }
}
