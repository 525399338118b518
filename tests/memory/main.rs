//! What things cost in memory: an allocator that counts is this binary's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ringkeeper::base::{Prng, Str};
use ringkeeper::model::ConnId;
use ringkeeper::watch::{WatchKind, WatchTable};

/// Counts the bytes that are allocated at the moment.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes for each one-shot watch on a path that is already watched.
const WATCH_BYTES_MAX: f64 = 40.0;

#[test]
fn a_watch_on_a_watched_path_costs_at_most_40_bytes() {
    const PATHS: u64 = 1_000;
    const CONNS: u64 = 1_000;
    let paths: Vec<Str> =
        (0..PATHS).map(|number| Str::from(format!("/service/node-{number:06}").as_str())).collect();
    let mut watches = WatchTable::new();
    for path in &paths {
        watches.add(ConnId(0), path, WatchKind::Data);
    }
    let before = ALLOCATED.load(Ordering::Relaxed);
    let mut worst: f64 = 0.0;
    for conn in 1..=CONNS {
        for path in &paths {
            watches.add(ConnId(conn), path, WatchKind::Data);
        }
        // Connections themselves cost something, so that a few watches alone tell nothing.
        if conn % 10 == 0 && 100 <= conn {
            let bytes = ALLOCATED.load(Ordering::Relaxed) - before;
            worst = worst.max(bytes as f64 / (conn * PATHS) as f64);
        }
    }
    println!("{worst:.1} bytes for each watch at worst, between 100,000 and {}", CONNS * PATHS);
    assert_eq!(watches.data_count() as u64, PATHS * (CONNS + 1));
    assert!(worst <= WATCH_BYTES_MAX, "{worst:.1} bytes for each watch");

    // Set and fired again and again in any order, it stays as small.
    let mut prng = Prng::new(1);
    let mut firings = Vec::new();
    for round in 0..20 {
        for _ in 0..PATHS / 4 {
            let path = &paths[usize::try_from(prng.below(PATHS)).expect("it is small")];
            firings.clear();
            watches.changed(path, &mut firings);
            let mut conns = 0;
            if let Some(firing) = firings.first_mut() {
                while watches.next_of(firing).is_some() {
                    conns += 1;
                }
            }
            for conn in 0..=CONNS {
                watches.add(ConnId(conn), path, WatchKind::Data);
            }
            assert!(conns == CONNS + 1, "round {round}: everybody was told: {conns}");
        }
    }
    firings = Vec::new();
    assert!(firings.is_empty());
    let bytes = (ALLOCATED.load(Ordering::Relaxed) - before) as f64 / (CONNS * PATHS) as f64;
    println!("{bytes:.1} bytes for each watch after having fired");
    assert!(bytes <= WATCH_BYTES_MAX, "{bytes:.1} bytes for each watch");
}
