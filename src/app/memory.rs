//! The memory of the process: its size, what is free, and how it is divided.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{catalogue::Catalogue, config::Config, safety};

/// Assumed memory in bytes if the system does not report it.
const UNKNOWN: u64 = 8 << 30;

/// Bytes that the process takes besides weights and generations: the program, tokenizers, bodies of requests, caches.
const PROCESS: u64 = 512 << 20;

/// The memory that the process may use, in bytes: the memory of the machine, or the limit of the process's container or
/// control group if this limit is lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    pub total: u64,
    /// The part of this memory that the process can still get: memory that no process uses, and memory that the system
    /// uses to cache files. `None` if the system does not report it.
    pub free: Option<u64>,
}

/// How the memory is divided at the start. Unless [`MemoryPlan::warn`] logs a warning, all parts together are at most
/// the memory, so the system does not end the process for requests that the server accepts. LoRAs and textual
/// inversions are not counted, nor are models that are listed after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Maximum bytes that models, ControlNets and safety checkers take.
    pub weights: u64,
    /// Maximum bytes that generations take: `engine.max_bytes`.
    pub generations: u64,
    /// The memory of the machine or container.
    pub memory: u64,
}

impl MemoryPlan {
    /// The division for the weights of this catalogue. If `engine.max_bytes` is 0, generations get the memory minus the
    /// weights, the process and a reserve of a sixteenth of the memory, but at least a quarter and at most half of the
    /// memory.
    pub fn of(config: &Config, catalogue: &Catalogue) -> MemoryPlan {
        let weights = catalogue.most_bytes().saturating_add(safety::most_bytes(&config.safety, catalogue));
        MemoryPlan::within(HostMemory::now().total, weights, config.engine.max_bytes)
    }

    fn within(memory: u64, weights: u64, setting: u64) -> MemoryPlan {
        let left = memory.saturating_sub(memory / 16).saturating_sub(PROCESS).saturating_sub(weights);
        let generations = if setting == 0 { left.clamp(memory / 4, memory / 2) } else { setting };
        MemoryPlan { weights, generations, memory }
    }

    /// Maximum bytes that the process takes.
    pub fn bytes(&self) -> u64 {
        PROCESS.saturating_add(self.weights).saturating_add(self.generations)
    }

    /// Logs a warning if the parts together may take more than the memory.
    pub fn warn(&self) {
        let MemoryPlan { weights, generations, memory } = *self;
        if self.bytes() > memory {
            let advice = "lower models.max_bytes, controlnets.max_bytes or engine.max_bytes";
            tracing::warn!(
                weights,
                generations,
                memory,
                "weights and generations may take more memory than there is; {advice}"
            );
        }
    }
}

/// The bounds of weights in the host's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightBounds {
    /// `models.max_bytes`
    pub models: u64,
    /// `controlnets.max_bytes`
    pub control_nets: u64,
}

/// The sizes of the weights that are listed, in bytes in the host's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListedWeights {
    /// All models together, once for each device.
    pub models: u64,
    pub largest_model: u64,
    /// All ControlNets together.
    pub control_nets: u64,
    /// The safety checkers that can be in memory at the same time.
    pub safety_checkers: u64,
}

impl WeightBounds {
    /// The settings. A setting of 0 is replaced by a part of the memory.
    pub fn of(config: &Config, listed: ListedWeights) -> WeightBounds {
        let settings = WeightBounds { models: config.models.max_bytes, control_nets: config.controlnets.max_bytes };
        // The weights are in the memory of the workers, whose size this process does not know.
        if !config.role.works() {
            let control_nets = if settings.control_nets == 0 { u64::MAX } else { settings.control_nets };
            return WeightBounds { control_nets, ..settings };
        }
        WeightBounds::within(HostMemory::now().total, listed, settings)
    }

    /// The memory for weights W is the memory minus a sixteenth (the reserve), a quarter (for generations), [`PROCESS`]
    /// and the safety checkers. ControlNets get W minus the models, within two bounds. The lower bound is min(W/4, W +
    /// reserve − largest model), or W/4 if W + reserve − largest model is not above 0. The upper bound is the bytes of
    /// all listed ControlNets, or W/16 if that is more. If the bounds contradict each other, the upper bound counts.
    /// Models get the rest of W. [`MemoryPlan::warn`] warns if the largest model does not fit.
    fn within(memory: u64, listed: ListedWeights, settings: WeightBounds) -> WeightBounds {
        let ListedWeights { models, largest_model, control_nets, safety_checkers } = listed;
        let others = PROCESS.saturating_add(safety_checkers);
        let weights = memory.saturating_sub(memory / 16 + memory / 4).saturating_sub(others);
        let wanted = if settings.models == 0 { models } else { models.min(settings.models.max(largest_model)) };
        // The largest model may take the reserve. If the largest model does not fit even then, it does not lower the
        // share of the ControlNets, because it is loaded alone.
        let beside = (weights + memory / 16).checked_sub(largest_model).filter(|left| *left > 0);
        let least = beside.unwrap_or(u64::MAX).min(weights / 4);
        // ControlNets that are listed later get a little room, too.
        let most = control_nets.max(weights / 16);
        let left = weights.saturating_sub(wanted).max(least).min(most);
        let control_nets = if settings.control_nets == 0 { left } else { settings.control_nets };
        let models = if settings.models == 0 { weights.saturating_sub(control_nets).max(1) } else { settings.models };
        WeightBounds { models, control_nets }
    }
}

/// Maximum bytes that weights may take: the memory minus [`PROCESS`].
pub(super) fn for_weights() -> u64 {
    HostMemory::now().total.saturating_sub(PROCESS)
}

/// The bytes of `engine.max_bytes`, or half of the process's memory if the setting is 0.
pub(super) fn bound(setting: u64) -> u64 {
    if setting == 0 { HostMemory::now().total / 2 } else { setting }
}

impl HostMemory {
    /// The memory at this time.
    pub fn now() -> HostMemory {
        HostMemory::below(Path::new("/"))
    }

    fn below(root: &Path) -> HostMemory {
        let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let machine = |key: &str| Some(1024 * number(&meminfo, key)?.strip_suffix("kB")?.trim().parse::<u64>().ok()?);
        let groups: Vec<Group> = groups(root).iter().filter_map(|(path, names)| Group::read(path, *names)).collect();
        let total = groups.iter().map(|group| group.limit).chain(machine("MemTotal:")).min();
        let free = groups.iter().filter_map(Group::free).chain(machine("MemAvailable:")).min();
        HostMemory { total: total.unwrap_or(UNKNOWN), free }
    }
}

/// The text after `key` in a line of `text` that begins with it.
fn number<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// The names of the files of control groups in version 2 or 1.
#[derive(Clone, Copy)]
struct Names {
    limit: &'static str,
    used: &'static str,
    /// The name of the controller of memory in `/proc/self/cgroup`.
    controller: &'static str,
}

const V2: Names = Names { limit: "memory.max", used: "memory.current", controller: "" };
const V1: Names = Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", controller: "memory" };

/// The folders of the control groups that contain the process. In a container, the root is the container's group.
fn groups(root: &Path) -> Vec<(PathBuf, Names)> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // A line is NUMBER:CONTROLLERS:PATH. In version 1, several controllers can share a group: `cpuset,memory`.
    let line = |controller: &str| {
        let parts = own.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        parts.into_iter().find(|(controllers, _)| controllers.split(',').any(|name| name == controller))
    };
    let folders = |names: Names, mount: &str, path: &str| {
        let path = Path::new(path.trim_start_matches('/'));
        let above = path.ancestors().map(|part| (root.join("sys/fs/cgroup").join(mount).join(part), names));
        above.collect::<Vec<_>>()
    };
    let v2 = folders(V2, "", line(V2.controller).map_or("", |(_, path)| path));
    let (controllers, path) = line(V1.controller).unwrap_or((V1.controller, ""));
    // Most systems mount shared controllers under their joined names, with a link for each.
    let mounts = BTreeSet::from([V1.controller, controllers]);
    v2.into_iter().chain(mounts.into_iter().flat_map(|mount| folders(V1, mount, path))).collect()
}

/// The memory of a control group with a limit.
struct Group {
    limit: u64,
    used: Option<u64>,
    /// Bytes of `used` that the kernel takes back when memory is needed: cached files.
    reclaimable: u64,
}

impl Group {
    /// Reads the files of a group. Returns `None` if the file of the limit is missing or contains "max". Version 1
    /// writes a number above any machine's memory instead of "max".
    fn read(folder: &Path, names: Names) -> Option<Group> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let value = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let stat = read("memory.stat").unwrap_or_default();
        let of_stat = |key: &str| number(&stat, key).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        let reclaimable = ["inactive_file ", "active_file ", "slab_reclaimable "].map(of_stat).into_iter().sum();
        Some(Group { limit: value(names.limit)?, used: value(names.used), reclaimable })
    }

    fn free(&self) -> Option<u64> {
        Some(self.limit.saturating_sub(self.used?.saturating_sub(self.reclaimable)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_least_of_machine_and_groups_counts() {
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
        // The system gives up cached files before it ends a process.
        write("sys/fs/cgroup/memory.stat", "anon 100000\ninactive_file 200000\nactive_file 50000\nslab 9\n");
        assert_eq!(memory(), HostMemory { total: 1_000_000, free: Some(850_000) });
        // A service of systemd has a group of its own, and the limits of all groups around it count.
        write("proc/self/cgroup", "1:name=systemd:/x\n0::/system.slice/latentd.service\n");
        write("sys/fs/cgroup/system.slice/memory.max", "900000\n");
        write("sys/fs/cgroup/system.slice/latentd.service/memory.max", "500000\n");
        write("sys/fs/cgroup/system.slice/latentd.service/memory.current", "450000\n");
        assert_eq!(memory(), HostMemory { total: 500_000, free: Some(50_000) });
        write("sys/fs/cgroup/system.slice/latentd.service/memory.max", "max\n");
        assert_eq!(memory(), HostMemory { total: 900_000, free: Some(850_000) });
        write("proc/self/cgroup", "7:memory:/docker\n");
        write("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "300000\n");
        assert_eq!(memory().total, 300_000);
        write("proc/self/cgroup", "9:cpu,cpuacct:/other\n7:cpuset,memory:/a:b\n");
        write("sys/fs/cgroup/cpuset,memory/a:b/memory.limit_in_bytes", "200000\n");
        assert_eq!(memory().total, 200_000, "controllers that share a group, without a link to it");
        write("sys/fs/cgroup/memory/a:b/memory.limit_in_bytes", "100000\n");
        assert_eq!(memory().total, 100_000);
        assert_eq!((bound(7), bound(0) > 0), (7, true));
    }

    const GIB: u64 = 1 << 30;

    proptest! {
        /// With the default settings, all parts together never take more than the memory: models, ControlNets,
        /// generations, the process, and safety checkers of at most a quarter of the memory. There is one exception: a
        /// model that does not fit into three quarters of the memory together with the process and the safety checkers.
        #[test]
        fn computed_bounds_fit_the_memory(
            memory in 2 * GIB..256 * GIB,
            sizes in prop::collection::vec(0..40 * GIB, 0..6),
            control_nets in 0..40 * GIB,
            part in 0.0..1.0,
            devices in 1u64..3,
        ) {
            let largest_model = sizes.iter().copied().max().unwrap_or(0);
            let models = devices * sizes.iter().sum::<u64>();
            let safety_checkers = (part * (memory / 4) as f64) as u64;
            let listed = ListedWeights { models, largest_model, control_nets, safety_checkers };
            let bounds = WeightBounds::within(memory, listed, WeightBounds { models: 0, control_nets: 0 });
            let weights = models.min(bounds.models.max(largest_model)) + control_nets.min(bounds.control_nets);
            let plan = MemoryPlan::within(memory, weights + safety_checkers, 0);
            let usable = memory - memory / 4 - PROCESS - safety_checkers;
            prop_assert!(plan.bytes() <= memory || largest_model >= usable, "{bounds:?} {plan:?}");
            prop_assert!(bounds.control_nets > 0, "ControlNets are never all refused");
        }
    }

    #[test]
    fn weights_get_the_settings_or_a_part_of_the_memory() {
        let of = |models: u64, largest_model: u64, control_nets: u64, settings: [u64; 2]| {
            let [models, largest_model, control_nets] = [models, largest_model, control_nets].map(|gib| gib * GIB);
            let [of_models, of_nets] = settings.map(|gib| gib * GIB);
            let settings = WeightBounds { models: of_models, control_nets: of_nets };
            let listed = ListedWeights { models, largest_model, control_nets, safety_checkers: 0 };
            let bounds = WeightBounds::within(64 * GIB, listed, settings);
            [bounds.models, bounds.control_nets].map(|bytes| bytes as f64 / GIB as f64)
        };
        let weights = 64.0 - 4.0 - 16.0 - 0.5;
        assert_eq!(of(10, 5, 20, [0, 0]), [weights - 20.0, 20.0], "all fit");
        assert_eq!(of(30, 15, 20, [0, 0]), [30.0, weights - 30.0], "ControlNets get what models leave");
        assert_eq!(of(90, 15, 20, [0, 0]), [0.75 * weights, 0.25 * weights], "models take turns");
        assert_eq!(of(90, 40, 20, [0, 0]), [weights - 7.5, 7.5], "the largest model may take the reserve");
        assert_eq!(of(90, 50, 20, [0, 0]), [0.75 * weights, 0.25 * weights], "the largest model never fits");
        assert_eq!(of(90, 15, 0, [0, 0]), [weights - weights / 16.0, weights / 16.0]);
        assert_eq!(of(90, 15, 20, [16, 0]), [16.0, 20.0], "a setting leaves more");
        assert_eq!(of(90, 15, 20, [16, 3]), [16.0, 3.0]);
    }

    #[test]
    fn generations_get_what_weights_leave() {
        let of = |memory: u64, weights: u64, setting| MemoryPlan::within(memory * GIB, weights * GIB, setting);
        assert_eq!(of(64, 1, 0).generations, 32 * GIB, "at most half");
        assert_eq!(of(32, 20, 0).generations, 32 * GIB - 2 * GIB - PROCESS - 20 * GIB);
        assert_eq!(of(16, 15, 0).generations, 4 * GIB, "at least a quarter");
        assert_eq!(of(8, 0, 0).generations, 4 * GIB);
        assert_eq!(of(16, 15, 7).generations, 7);
        for weights in 0..=10 {
            assert!(of(16, weights, 0).bytes() <= 15 * GIB, "the parts fit the memory with {weights} GiB of weights");
        }
        assert!(of(16, 15, 0).bytes() > 16 * GIB, "there is nothing left to divide");
    }
}
