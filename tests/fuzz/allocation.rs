//! An allocator that counts the bytes in use on each thread, and the most there were.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static IN_USE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counted.
pub(crate) struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may exist for a moment.
        count(size.cast_signed());
        // SAFETY: the caller's promise.
        let moved = unsafe { System.realloc(at, layout, size) };
        count(-layout.size().cast_signed());
        moved
    }
}

fn count(bytes: isize) {
    // A thread that ends frees memory when its counters are gone.
    let _gone = IN_USE.try_with(|in_use| {
        in_use.set(in_use.get() + bytes);
        MOST.try_with(|most| most.set(most.get().max(in_use.get())))
    });
}

/// The most bytes in use at once on this thread while `work` ran, above those in use before.
pub(crate) fn most_in_use(work: impl FnOnce()) -> usize {
    let before = IN_USE.get();
    MOST.set(before);
    work();
    (MOST.get() - before).unsigned_abs()
}
