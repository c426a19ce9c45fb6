//! The memory of the process: its size, what is free, and what running generations may use.

use std::{fs, path::Path};

/// Assumed memory in bytes if the system does not report it.
const UNKNOWN: u64 = 8 << 30;

/// The memory that the process may use, in bytes: the memory of the machine, or the limit of the process's container if
/// this limit is lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    pub total: u64,
    /// The part of this memory that is still available; `None` if the system does not report it.
    pub free: Option<u64>,
}

/// The bytes of a setting, or half of the process's memory if the setting is 0.
pub(super) fn bound(setting: u64) -> u64 {
    if setting == 0 { HostMemory::now().total / 2 } else { setting }
}

impl HostMemory {
    /// The memory at this time.
    pub fn now() -> HostMemory {
        HostMemory::below(Path::new("/"))
    }

    fn below(root: &Path) -> HostMemory {
        let read = |path: &str| fs::read_to_string(root.join(path)).ok();
        let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
        let meminfo = read("proc/meminfo").unwrap_or_default();
        let machine = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
            Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
        };
        // Without a limit, the files contain "max" or a number larger than any machine's memory.
        let limits = [
            ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
        ];
        let limits = limits.map(|(limit, used)| Some((number(limit)?, number(used))));
        let limits = || limits.iter().flatten();
        let total = limits().map(|(limit, _)| *limit).chain(machine("MemTotal:")).min();
        let left = limits().filter_map(|(limit, used)| Some(limit.saturating_sub((*used)?)));
        HostMemory { total: total.unwrap_or(UNKNOWN), free: left.chain(machine("MemAvailable:")).min() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_machine_and_container_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let memory = || HostMemory::below(root.path());
        assert_eq!(memory(), HostMemory { total: UNKNOWN, free: None });
        write("proc/meminfo", "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n");
        write("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(memory(), HostMemory { total: 24_000_000 << 10, free: Some(20_000_000 << 10) });
        write("sys/fs/cgroup/memory.max", "1000000\n");
        assert_eq!(memory(), HostMemory { total: 1_000_000, free: Some(20_000_000 << 10) });
        write("sys/fs/cgroup/memory.current", "400000\n");
        assert_eq!(memory(), HostMemory { total: 1_000_000, free: Some(600_000) });
        assert_eq!((bound(7), bound(0) > 0), (7, true));
    }
}
