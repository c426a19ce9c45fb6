//! CPU affinity: reads and sets the cores that a thread may use.

/// The cores that the calling thread may use, in ascending order.
#[cfg(target_os = "linux")]
pub(super) fn allowed() -> Vec<usize> {
    let mut set = empty();
    // SAFETY: the set is valid for writes of its own size; 0 is the calling thread.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0;
    if failed {
        return all();
    }
    // SAFETY: the number is below the set's size in bits.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allowed() -> Vec<usize> {
    all()
}

/// Pins the calling thread to these cores. If the system refuses, logs a warning and leaves the thread as it is.
#[cfg(target_os = "linux")]
pub(super) fn pin_current_thread(cores: &[usize]) {
    let mut set = empty();
    for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
        // SAFETY: the number is below the set's size in bits.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: the set is valid for reads of its own size; 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        tracing::warn!(?cores, error = %std::io::Error::last_os_error(), "a thread cannot be pinned to its cores");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn pin_current_thread(_cores: &[usize]) {}

#[cfg(target_os = "linux")]
fn empty() -> libc::cpu_set_t {
    // SAFETY: the set is an array of integers, and all of them may be zero.
    unsafe { std::mem::zeroed() }
}

fn all() -> Vec<usize> {
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}
