//! Tests that need the machine for themselves: cargo runs this binary when no other test runs.

#[path = "../it/client.rs"]
#[expect(dead_code, unused_imports, reason = "the other binary uses the rest")]
mod client;
#[path = "../it/peer.rs"]
#[expect(dead_code, reason = "the other binary uses the rest")]
mod peer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringkeeper::model::ErrorCode;

use client::{create, get, set};
use peer::Server;

/// How long the hogs run; `RINGKEEPER_HOG_SECONDS` lengthens it.
const HOG_SECONDS: u64 = 5;

/// So many writes without a hog take so long at most on a disk that is quick enough to judge by.
const ALONE: u32 = 20;
const QUICK: Duration = Duration::from_millis(200);

#[test]
fn log_writes_and_sockets_go_on_beside_a_cpu_hog_on_every_core() {
    let server = Server::start("");
    let seconds = std::env::var("RINGKEEPER_HOG_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(HOG_SECONDS);
    let mut client = client::connect_for_long(server.port).expect("the server serves");
    assert_eq!(client.code(&create("/a", b"", 0)), ErrorCode::OK);
    let begun = Instant::now();
    for _ in 0..ALONE {
        assert_eq!(client.code(&set("/a", b"x")), ErrorCode::OK);
    }
    let is_quick = begun.elapsed() < QUICK;
    let stop = Arc::new(AtomicBool::new(false));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let hogs: Vec<_> = (0..cores)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
        })
        .collect();
    // Saturated sockets: clients that always have many reads in flight.
    let port = server.port;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut client = client::connect(port).expect("the server serves");
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..64 {
                        client.send(&get("/a", false)).expect("it is sent");
                    }
                    for _ in 0..64 {
                        client.receive().expect("nothing hangs");
                    }
                }
            })
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut writes = 0;
    while Instant::now() < until {
        // The client's own time limit of 20 s turns a hang into a failure.
        assert_eq!(client.code(&set("/a", b"x")), ErrorCode::OK);
        writes += 1;
    }
    stop.store(true, Ordering::Relaxed);
    for thread in hogs.into_iter().chain(readers) {
        thread.join().expect("it ends well");
    }
    // A loop that polls its disk only every 100 ms would do ten of these a second; a disk may be
    // slower.
    let writes_min = if is_quick { seconds * 20 } else { 0 };
    assert!(writes_min < writes, "{writes} writes in {seconds} s, {is_quick}");
    let home = server.home.clone();
    drop(server);
    peer::clean(&home);
}
