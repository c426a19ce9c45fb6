//! A memory arena for activations and packed weights.
//!
//! A step of a network creates hundreds of tensors of the same sizes as the step before. If the memory of the tensors
//! came from the system, the system would map and zero the pages of every tensor, which costs as much as some of the
//! operations on the tensors. The arena is one range of addresses, backed by huge pages if the system has them (packed
//! weights are read faster from huge pages). The memory in use grows to the peak of the largest step; the arena keeps
//! this memory until [`release`].
//!
//! Blocks of the arena are vectors, which the program's global allocator frees. So the arena exists only in programs
//! whose global allocator is [`Allocator`]; in other programs the memory comes from the system allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System, alloc_zeroed, dealloc},
    collections::BTreeMap,
    ops::Range,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use memmap2::{Advice, MmapMut, MmapOptions, UncheckedAdvice};

/// A global allocator. It passes all requests to the system allocator, except requests to free or to resize blocks of
/// the arena.
#[derive(Debug)]
pub struct Allocator;

// SAFETY: blocks outside the arena are passed to the system allocator with unchanged arguments. Blocks of the arena
// come only from `take`, and their addresses identify them.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout == QUESTION {
            IS_INSTALLED.store(true, Ordering::Relaxed);
        }
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match offset(block) {
            Some(offset) => give_back(offset, layout.size()),
            // SAFETY: the block is not the arena's, so it came from the system allocator.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = offset(block) else {
            // SAFETY: the block is not the arena's, so it came from the system allocator.
            return unsafe { System.realloc(block, layout, size) };
        };
        // SAFETY: the caller promises that `size` and the alignment make a valid layout. Both blocks are at least as
        // long as the copy, and they do not overlap, because one belongs to the arena and the other to the system
        // allocator.
        unsafe {
            let moved = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !moved.is_null() {
                block.copy_to_nonoverlapping(moved, size.min(layout.size()));
                give_back(offset, layout.size());
            }
            moved
        }
    }
}

/// The size of the arena in bytes: reserved addresses, which take no memory until they are used. Blocks that do not fit
/// come from the system allocator.
const RESERVED: usize = 1 << 36;

/// The size in bytes of the smallest block of the arena. Smaller blocks come from the system allocator, which reuses
/// their memory anyway.
const LEAST: usize = 1 << 15;

/// The size of a page in bytes. Blocks begin and end at page boundaries.
const PAGE: usize = 1 << 12;

/// The layout by which [`Allocator`] recognizes the request of [`is_installed`]: one byte with an alignment that no
/// other code requests.
const QUESTION: Layout = match Layout::from_size_align(1, 1 << 13) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two is an alignment"),
};

static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

/// Whether the program's global allocator is [`Allocator`], which recognizes blocks of the arena.
fn is_installed() -> bool {
    // SAFETY: the size of the layout is not zero.
    let block = std::hint::black_box(unsafe { alloc_zeroed(QUESTION) });
    if !block.is_null() {
        // SAFETY: the block was just allocated with this layout.
        unsafe { dealloc(block, QUESTION) };
    }
    IS_INSTALLED.load(Ordering::Relaxed)
}

struct Arena {
    memory: MmapMut,
    free: Mutex<Free>,
}

/// The free parts of the arena, as offsets in bytes.
struct Free {
    /// Begin and end of each part.
    parts: BTreeMap<usize, usize>,
    /// No byte at this offset or above has been in use since the last [`release`].
    touched: usize,
    /// The length of the arena.
    end: usize,
}

static ARENA: OnceLock<Option<Arena>> = OnceLock::new();

/// The address at which the arena begins; `usize::MAX` before it exists.
static BEGIN: AtomicUsize = AtomicUsize::new(usize::MAX);

fn arena() -> Option<&'static Arena> {
    ARENA.get_or_init(Arena::reserve).as_ref()
}

impl Arena {
    fn reserve() -> Option<Arena> {
        if !is_installed() {
            return None;
        }
        let mut options = MmapOptions::new();
        #[cfg(target_os = "linux")]
        options.no_reserve_swap();
        let memory = options.len(RESERVED).map_anon().ok()?;
        #[cfg(target_os = "linux")]
        if let Err(error) = memory.advise(Advice::HugePage) {
            tracing::debug!(%error, "activations are not held in huge pages");
        }
        BEGIN.store(memory.as_ptr() as usize, Ordering::Release);
        Some(Arena { memory, free: Mutex::new(Free::new(RESERVED)) })
    }

    /// Locks the free parts with a mutex of the standard library, because the lock of an allocator must not allocate.
    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    fn new(end: usize) -> Free {
        Free { parts: BTreeMap::from([(0, end)]), touched: 0, end }
    }

    /// Takes `size` bytes from the lowest free part that is large enough, so that the used part of the arena stays
    /// short.
    fn take(&mut self, size: usize) -> Option<usize> {
        let (&begin, &end) = self.parts.iter().find(|(begin, end)| *end - *begin >= size)?;
        self.parts.remove(&begin);
        if begin + size < end {
            self.parts.insert(begin + size, end);
        }
        self.touched = self.touched.max(begin + size);
        Some(begin)
    }

    /// The offset of the first byte after all bytes in use. A free part at the end of the arena begins at this offset;
    /// otherwise the offset is the length of the arena.
    fn used(&self) -> usize {
        let last = self.parts.last_key_value().filter(|(_, end)| **end == self.end);
        last.map_or(self.end, |(begin, _)| *begin)
    }

    fn give_back(&mut self, Range { mut start, mut end }: Range<usize>) {
        if let Some(next) = self.parts.remove(&end) {
            end = next;
        }
        if let Some((&before, _)) =
            self.parts.range(..start).next_back().filter(|(_, before_end)| **before_end == start)
        {
            start = before;
        }
        self.parts.insert(start, end);
    }
}

/// The offset of a block in the arena, or `None` for a block of the system allocator.
fn offset(block: *mut u8) -> Option<usize> {
    (block as usize).checked_sub(BEGIN.load(Ordering::Acquire)).filter(|offset| *offset < RESERVED)
}

fn give_back(offset: usize, size: usize) {
    if let Some(arena) = arena() {
        arena.free().give_back(offset..offset + size.next_multiple_of(PAGE));
    }
}

/// Allocates `len` floats with unspecified values: zero or the values of an earlier tensor.
pub(super) fn take(len: usize) -> Vec<f32> {
    let size = len * size_of::<f32>();
    if !(LEAST..=RESERVED).contains(&size) {
        return vec![0.0; len];
    }
    let Some((arena, offset)) = arena().and_then(|arena| {
        let offset = arena.free().take(size.next_multiple_of(PAGE))?;
        Some((arena, offset))
    }) else {
        return vec![0.0; len];
    };
    // SAFETY: the part lies within the mapping, begins at a page, and has no other owner. All bytes of the mapping are
    // initialized, and any bytes are valid floats. The vector frees the part through `Allocator`, which recognizes the
    // part by its address.
    unsafe { Vec::from_raw_parts(arena.memory.as_ptr().add(offset).cast_mut().cast::<f32>(), len, len) }
}

/// Returns the memory of all free parts to the system. Useful when nothing will be computed for a while.
pub fn release() {
    let Some(arena) = ARENA.get().and_then(Option::as_ref) else { return };
    let mut free = arena.free();
    let touched = std::mem::take(&mut free.touched);
    for (&begin, &end) in &free.parts {
        let end = end.min(touched);
        if begin < end {
            // SAFETY: the part has no owner and gets none while the lock is held. Afterwards, its bytes are zeros.
            let advised = unsafe { arena.memory.unchecked_advise_range(UncheckedAdvice::DontNeed, begin, end - begin) };
            if let Err(error) = advised {
                tracing::debug!(%error, "the arena keeps its memory");
            }
        }
    }
    free.touched = free.used().min(touched);
}

/// Makes glibc return freed blocks of at least 4 MiB to the system at once. To be called when a server process starts.
///
/// glibc makes a mapping of its own for each block above the mmap threshold, and removes the mapping when the program
/// frees the block. Without this call, the threshold grows up to 32 MiB when larger blocks are freed. Then glibc keeps
/// free memory of up to twice the threshold at the end of each thread's heap, and [`trim`] does not return this memory.
pub fn give_large_blocks_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGE: libc::c_int = 4 << 20;
        // A thread's heap grows and shrinks by what a step allocates, and each growth costs page faults.
        const KEPT: libc::c_int = 16 << 20;
        // SAFETY: the function takes no pointer, may be called at any time, and rejects unknown options.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        }
    }
}

/// Returns the memory of freed small blocks to the system. Takes some milliseconds; useful after a peak.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function takes no pointer and may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Allocator = Allocator;

    proptest! {
        #[test]
        fn parts_do_not_overlap_and_grow_together_again(sizes in prop::collection::vec(1usize..9, 1..40), drops: Vec<u8>) {
            let mut free = Free::new(400);
            let mut held: Vec<Range<usize>> = Vec::new();
            let mut drops = drops.into_iter();
            for size in sizes {
                if let Some(drop) = drops.next().filter(|_| !held.is_empty()) {
                    free.give_back(held.swap_remove(usize::from(drop) % held.len()));
                }
                let start = free.take(size).unwrap();
                prop_assert!(held.iter().all(|part| part.end <= start || start + size <= part.start));
                held.push(start..start + size);
                prop_assert_eq!(free.used(), held.iter().map(|part| part.end).max().unwrap_or(0));
            }
            held.into_iter().for_each(|part| free.give_back(part));
            prop_assert_eq!(free.parts, BTreeMap::from([(0, 400)]));
        }
    }

    #[test]
    fn vectors_of_the_arena_drop_their_elements_like_other_vectors() {
        let mut numbers = take(LEAST);
        assert!(offset(numbers.as_mut_ptr().cast()).is_some(), "the arena is in use");
        numbers.fill(7.0);
        numbers.push(8.0); // Moves the vector to the system allocator.
        assert!(offset(numbers.as_mut_ptr().cast()).is_none());
        assert!(numbers[..LEAST].iter().all(|x| *x == 7.0) && numbers[LEAST] == 8.0);
        let others: Vec<Vec<f32>> = (0..20).map(|i| take(LEAST + 1000 * i)).collect();
        std::thread::spawn(move || drop(others)).join().unwrap();
        release();
        assert_eq!(take(5), vec![0.0; 5]);
    }
}
