//! How much memory this process may still take: the machine's, or less where a control group sets a limit.

use std::fs;
use std::path::Path;

/// Bytes that may still be taken; none where the platform does not say.
pub(super) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemAvailable:")).map(kib);
    let group = group_directory().and_then(|dir| in_group(Path::new(&dir)));
    [machine, group].into_iter().flatten().min()
}

fn kib(count: u64) -> u64 {
    count.saturating_mul(1024)
}

/// Where the limits of this process's group stand (cgroup v2).
fn group_directory() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(format!("/sys/fs/cgroup{own}"))
}

/// What the group's limit leaves. Pages of files that were not used lately count as free: they make room by themselves.
fn in_group(dir: &Path) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
    // `max` is no number: no limit.
    let limit = number("memory.max")?;
    let used = number("memory.current")?;
    let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let idle = field(&stat, "inactive_file").unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(idle)))
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut words =
        text.lines().map(str::split_whitespace).find_map(|mut words| (words.next()? == name).then_some(words))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_group_leaves_its_limit_less_what_is_used_and_not_idle() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(in_group(dir.path()), None);
        let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(in_group(dir.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(in_group(dir.path()), Some(300));
        write("memory.stat", "anon 5\ninactive_file 600\nactive_file 7\n");
        assert_eq!(in_group(dir.path()), Some(900));
        write("memory.max", "50\n");
        assert_eq!(in_group(dir.path()), Some(0));
    }

    #[test]
    fn a_field_is_the_number_after_its_whole_name() {
        let text = "MemTotal:  10 kB\nMemAvailable:   7 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(7));
        assert_eq!(field(text, "MemAvail"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_how_much_it_has() {
        assert!(available().unwrap() > 0);
    }
}
