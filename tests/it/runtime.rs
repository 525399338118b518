//! What the shell builds on: glommio's promises that it cannot do without, each tried by itself.

use std::fs;
use std::rc::Rc;

use glommio::io::OpenOptions;
use glommio::{LocalExecutorBuilder, Placement};

use super::peer;

/// Rings have 128 entries.
const OPERATIONS: u64 = 512;
const BLOCK: u64 = 4096;
/// Executors made and dropped in one process.
const EXECUTORS: usize = 200;
const IO_MEMORY: usize = 512 * 1024;

/// Of this process, whose other tests make none that stay.
fn open_eventfds() -> usize {
    let all = fs::read_dir("/proc/self/fd").expect("procfs is there").flatten();
    let shown = all.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    shown.filter(|shown| shown.to_string_lossy() == "anon_inode:[eventfd]").count()
}

#[test]
fn more_operations_than_a_ring_has_entries_all_complete() {
    let home = peer::fresh_directory();
    let path = home.join("file");
    fs::write(&path, vec![0; usize::try_from(OPERATIONS * BLOCK).expect("it is small")])
        .expect("the directory is writable");
    let target = path.clone();
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY)
        .spawn(move || async move {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_DSYNC);
            let file = Rc::new(options.dma_open(&target).await.expect("it is there"));
            let writes: Vec<_> = (0..OPERATIONS)
                .map(|number| {
                    let file = Rc::clone(&file);
                    glommio::spawn_local(async move {
                        let mut buffer = file.alloc_dma_buffer(BLOCK as usize);
                        buffer.as_bytes_mut().fill(number as u8);
                        file.write_at(buffer, number * BLOCK).await.expect("the disk works")
                    })
                })
                .collect();
            for write in writes {
                assert_eq!(write.await, BLOCK as usize);
            }
            file.close_rc().await.expect("it closes");
        })
        .expect("an executor starts");
    executor.join().expect("it ends");
    let written = fs::read(&path).expect("it is there");
    for (number, block) in written.chunks(BLOCK as usize).enumerate() {
        assert!(block.iter().all(|byte| *byte == number as u8), "block {number} is its own");
    }
    peer::clean(&home);
}

#[test]
fn an_empty_file_opened_for_direct_writes_takes_them_and_reads_back() {
    let home = peer::fresh_directory();
    let path = home.join("file");
    // As the shell does it: made and filled through a plain descriptor, then opened.
    fs::write(&path, vec![0; BLOCK as usize]).expect("the directory is writable");
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY)
        .spawn(move || async move {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_DSYNC);
            let file = options.dma_open(&path).await.expect("it is there");
            let mut buffer = file.alloc_dma_buffer(BLOCK as usize);
            buffer.as_bytes_mut().fill(7);
            file.write_at(buffer, 0).await.expect("the disk works");
            let read = file.read_at_aligned(0, BLOCK as usize).await.expect("reads work");
            assert!(read.iter().all(|byte| *byte == 7));
            file.close().await.expect("it closes");
        })
        .expect("an executor starts");
    executor.join().expect("it ends");
    peer::clean(&home);
}

#[test]
fn executors_come_and_go() {
    let before = open_eventfds();
    for _ in 0..EXECUTORS {
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(IO_MEMORY)
            .spawn(|| async {
                glommio::timer::sleep(std::time::Duration::from_micros(1)).await;
            })
            .expect("an executor starts");
        executor.join().expect("it ends");
    }
    // glommio 0.9 is known to leak one eventfd for each (DataDog/glommio#448).
    let leaked = open_eventfds().saturating_sub(before);
    assert!(leaked <= EXECUTORS * 2, "{leaked} eventfds are left of {EXECUTORS} executors");
}
