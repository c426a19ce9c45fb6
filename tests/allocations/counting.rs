//! The C library's allocator with a count: bytes that are held, the most that were, and how often it was asked.

use std::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed},
};

static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// A span of time in which memory is counted.
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

    /// The most bytes that were held at a time beyond those at the beginning, and the number of allocations.
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
    // SAFETY: the block is null, of which the size is 0, or one of the allocator's that is held.
    unsafe { malloc_usable_size(block) as isize }
}

fn given(block: *mut c_void) -> *mut c_void {
    ALLOCATIONS.fetch_add(1, Relaxed);
    let size = size_of_block(block);
    let held = HELD.fetch_add(size, Relaxed) + size;
    PEAK.fetch_max(held, Relaxed);
    block
}

/// # Safety
/// As of C's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: the caller's promises are the function's conditions; so below.
    given(unsafe { __libc_malloc(size) })
}

/// # Safety
/// As of C's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: see `malloc`.
    given(unsafe { __libc_calloc(count, size) })
}

/// # Safety
/// As of C's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    let before = size_of_block(block);
    // SAFETY: see `malloc`.
    let moved = unsafe { __libc_realloc(block, size) };
    if !moved.is_null() || size == 0 {
        HELD.fetch_sub(before, Relaxed);
    }
    if moved.is_null() { moved } else { given(moved) }
}

/// # Safety
/// As of C's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    // SAFETY: see `malloc`.
    given(unsafe { __libc_memalign(align, size) })
}

/// # Safety
/// As of C's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    // SAFETY: see `malloc`.
    given(unsafe { __libc_memalign(align, size) })
}

/// # Safety
/// As of C's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(block: *mut *mut c_void, align: usize, size: usize) -> c_int {
    const OUT_OF_MEMORY: c_int = 12;
    // SAFETY: see `malloc`; the caller promises that the place for the answer can be written.
    unsafe {
        *block = given(__libc_memalign(align, size));
        if (*block).is_null() { OUT_OF_MEMORY } else { 0 }
    }
}

/// # Safety
/// As of C's function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    HELD.fetch_sub(size_of_block(block), Relaxed);
    // SAFETY: see `malloc`.
    unsafe { __libc_free(block) }
}
