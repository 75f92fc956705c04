//! Where a run took place, as far as the system tells.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that the process may use.
    pub cores: usize,
}

impl Machine {
    /// This machine; none where `/proc/cpuinfo` does not name the processor.
    pub fn here() -> Option<Self> {
        let cpu = cpu_name(&fs::read_to_string("/proc/cpuinfo").ok()?)?;
        Some(Self { cpu, cores: std::thread::available_parallelism().ok()?.get() })
    }
}

/// The most memory that this process has held so far, in bytes; none where `/proc/self/status` does not say.
pub fn peak_memory_bytes() -> Option<u64> {
    peak(&fs::read_to_string("/proc/self/status").ok()?)
}

fn cpu_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_as_the_kernel_names_it() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nprocessor\t: 1\nmodel name\t: Other\n";
        assert_eq!(cpu_name(cpuinfo).as_deref(), Some("Some CPU @ 2.00GHz"));
        assert_eq!(cpu_name("processor\t: 0\n"), None);
    }

    #[test]
    fn the_peak_is_the_high_water_mark() {
        assert_eq!(peak("VmPeak:\t  99 kB\nVmHWM:\t    12 kB\nVmRSS:\t 3 kB\n"), Some(12 * 1024));
        assert_eq!(peak("VmRSS:\t 3 kB\n"), None);
    }
}
