//! Replaces the C library's allocator with one that counts: allocated bytes, their peak, and the number of allocations.

use std::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed},
};

static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// A measurement of memory between `begin` and `end`.
pub struct Count {
    held: isize,
    allocations: usize,
}

impl Count {
    pub fn begin() -> Count {
        let held = HELD.load(Relaxed);
        PEAK.store(held, Relaxed);
        Count { held, allocations: ALLOCATIONS.load(Relaxed) }
    }

    /// The peak of allocated bytes above the amount at the beginning, and the number of allocations.
    pub fn end(self) -> (usize, usize) {
        let peak = PEAK.load(Relaxed) - self.held;
        (usize::try_from(peak).unwrap_or(0), ALLOCATIONS.load(Relaxed) - self.allocations)
    }
}

unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    fn __libc_free(block: *mut c_void);
    fn malloc_usable_size(block: *mut c_void) -> usize;
}

fn size_of_block(block: *mut c_void) -> isize {
    // SAFETY: the block is null, whose size is 0, or the allocator returned it and it has not been freed.
    unsafe { malloc_usable_size(block) as isize }
}

fn count_block(block: *mut c_void) -> *mut c_void {
    ALLOCATIONS.fetch_add(1, Relaxed);
    let size = size_of_block(block);
    let held = HELD.fetch_add(size, Relaxed) + size;
    PEAK.fetch_max(held, Relaxed);
    block
}

/// # Safety
/// The conditions of C's `malloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: the caller keeps the conditions of C's function, and glibc's function has the same conditions.
    count_block(unsafe { __libc_malloc(size) })
}

/// # Safety
/// The conditions of C's `calloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: see `malloc`.
    count_block(unsafe { __libc_calloc(count, size) })
}

/// # Safety
/// The conditions of C's `realloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    let before = size_of_block(block);
    // SAFETY: see `malloc`.
    let moved = unsafe { __libc_realloc(block, size) };
    if !moved.is_null() || size == 0 {
        HELD.fetch_sub(before, Relaxed);
    }
    if moved.is_null() { moved } else { count_block(moved) }
}

/// # Safety
/// The conditions of C's `memalign`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    // SAFETY: see `malloc`.
    count_block(unsafe { __libc_memalign(align, size) })
}

/// # Safety
/// The conditions of C's `aligned_alloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    // SAFETY: see `malloc`.
    count_block(unsafe { __libc_memalign(align, size) })
}

/// # Safety
/// The conditions of C's `posix_memalign`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int {
    const OUT_OF_MEMORY: c_int = 12;
    // SAFETY: see `malloc`; the caller guarantees that `block` is valid for writes.
    unsafe {
        *block = count_block(__libc_memalign(align, size));
        if (*block).is_null() { OUT_OF_MEMORY } else { 0 }
    }
}

/// # Safety
/// The conditions of C's `free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    HELD.fetch_sub(size_of_block(block), Relaxed);
    // SAFETY: see `malloc`.
    unsafe { __libc_free(block) }
}
