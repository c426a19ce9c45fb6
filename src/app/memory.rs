//! The memory that running generations may use.

use std::path::Path;

/// Assumed memory in bytes if the system does not report it.
const UNKNOWN: u64 = 8 << 30;

/// The bytes of a setting, or half of the process's memory if the setting is 0.
pub(super) fn bound(setting: u64) -> u64 {
    if setting == 0 { of_process(Path::new("/")) / 2 } else { setting }
}

/// Bytes that the process may use: the memory of the machine, or the limit of the process's container if it is lower.
fn of_process(root: &Path) -> u64 {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
    });
    let limits = ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"];
    // Without a limit, the files contain "max" or a number larger than any machine's memory.
    let limits = limits.into_iter().filter_map(|path| read(path)?.trim().parse::<u64>().ok());
    limits.chain(machine).min().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_machine_and_container_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(of_process(root.path()), UNKNOWN);
        write("proc/meminfo", "MemTotal:       24000000 kB\nMemFree: 1 kB\n");
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(of_process(root.path()), 24_000_000 << 10);
        write("sys/fs/cgroup/memory.max", "1000000\n");
        assert_eq!(of_process(root.path()), 1_000_000);
        assert_eq!((bound(7), bound(0) > 0), (7, true));
    }
}
