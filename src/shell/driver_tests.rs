//! Tests of the driver, with machines that follow a script.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{panic, thread};

use bytes::Bytes;
use glommio::{LocalExecutorBuilder, Placement};
use socket2::Socket;

use super::clock::Clocks;
use super::driver::{Driver, Outcome};
use super::files::Files;
use super::listener::{self, ConnLimits};
use super::lock::Paths;
use super::mesh::Fabric;
use super::ports::PortSettings;
use super::recover::RecoverOptions;
use super::{StartError, run_for_good, startup};
use crate::base::{FileDir, FileName, FileOp, FileOpId, Instant};
use crate::model::{ExtendedTypes, ShardId, Zxid};
use crate::server::{Clock, Input, Machine, Output, PeerPort};
use crate::tree::TreeOptions;

/// A machine that answers each input, and is told the time every 10 ms.
struct Script<F>(F, Option<Instant>);

impl<F: FnMut(&Input, &mut Vec<Output>)> Machine for Script<F> {
    fn step(&mut self, clock: Clock, input: Input, out: &mut Vec<Output>) {
        self.1 = Some(clock.now + crate::base::Duration::from_millis(10));
        (self.0)(&input, out);
    }
    fn turn_end(&mut self, _: Clock, _: &mut Vec<Output>) {}
    fn wants_turn(&self) -> bool {
        false
    }
    fn next_timer(&self) -> Option<Instant> {
        self.1
    }
}

/// Drives a script, with files below a directory if one is given.
pub(super) fn drive(
    peers: Vec<(PeerPort, Socket)>,
    directory: Option<&Path>,
    script: impl FnMut(&Input, &mut Vec<Output>) + 'static,
) -> Result<Outcome, StartError> {
    let clients = listener::listen("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
    let tree = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };
    let options =
        RecoverOptions { tree, recent_bytes_max: 0, is_member: false, is_empty_lost: false };
    let files =
        directory.map(|path| Rc::new(Files::new(Paths::below(path, path), true, options, None)));
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(512 << 10);
    builder.make().unwrap().run(async move {
        let fabric = Arc::new(Fabric::new(1, Zxid(0)));
        let machine = Box::new(Script(script, Some(Instant(0))));
        let limits = ConnLimits { per_address: 0, total: 0 };
        let ports = PortSettings { limits, backlog: 1, keep_alive: false, peers: None };
        let driver = Driver::new(ShardId(0), machine, Clocks::start(), fabric, files, Some(ports));
        Rc::new(driver).run(clients, peers, &AtomicBool::new(true)).await
    })
}

/// A fresh directory on a disk: direct I/O is not for every file system.
fn fresh() -> PathBuf {
    let name = format!("driver-{:016x}", startup::entropy());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp").join(name);
    fs::create_dir_all(path.join("ringkeeper")).unwrap();
    path
}

/// Files of a directory that this process has open.
fn open_below(path: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    links.filter(|link| fs::read_link(link.path()).is_ok_and(|file| file.starts_with(path))).count()
}

#[test]
fn recovery_runs_again_on_closed_files() {
    let directory = fresh();
    let below = directory.join("ringkeeper");
    let mut recoveries = 0;
    let mut begun = false;
    // A file that recovery leaves alone, and that durable writes keep open as they do a segment.
    fs::write(below.join("scratch"), [0; 8192]).unwrap();
    let write = |number: u64| {
        let file = FileName { dir: FileDir::Log, name: "scratch".to_owned() };
        let bytes = Bytes::from_static(&[1; 4096]);
        let op = FileOp::Write { file, offset: 4096, bytes, durable: true };
        Output::File { id: FileOpId(number), op }
    };
    let path = directory.clone();
    let outcome = drive(Vec::new(), Some(&directory), move |input, out| {
        if !std::mem::replace(&mut begun, true) {
            out.push(Output::Recover { keep_until: None });
        }
        match input {
            Input::Recovered(recovered) => {
                assert_eq!((recovered.last_zxid, open_below(&path)), (Zxid(0), 0));
                recoveries += 1;
                out.push(write(recoveries));
            }
            Input::FileDone { id, result } => {
                assert_eq!((id.0, result), (recoveries, &Ok(())));
                assert_ne!(open_below(&path), 0, "a segment is open");
                if recoveries == 1 {
                    out.push(Output::Recover { keep_until: None });
                } else {
                    out.push(Output::Stopped);
                }
            }
            _ => {}
        }
    });
    assert!(matches!(outcome, Ok(Outcome::Stopped)), "{outcome:?}");
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_refused_recovery_ends_the_driver() {
    let directory = fresh();
    fs::remove_dir(directory.join("ringkeeper")).unwrap();
    let mut begun = false;
    let outcome = drive(Vec::new(), Some(&directory), move |_, out| {
        if !std::mem::replace(&mut begun, true) {
            out.push(Output::Recover { keep_until: None });
        }
    });
    assert!(matches!(outcome, Ok(Outcome::NotRecovered(StartError::Refused(_)))), "{outcome:?}");
    fs::remove_dir_all(&directory).unwrap();
}

/// A planned stop does not wait for a snapshot that is being written.
#[test]
fn a_stop_in_the_middle_of_a_file_operation_panics_nowhere() {
    static LOST: AtomicBool = AtomicBool::new(false);
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        LOST.fetch_or(text == "failed to send response", Ordering::SeqCst);
        report(info);
    }));
    let (begun, has_begun) = mpsc::channel();
    let (end, ends) = mpsc::channel();
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(512 << 10);
    run_for_good(executor.make().unwrap(), async move {
        let operation = move || {
            begun.send(()).unwrap();
            ends.recv().unwrap();
        };
        let waiting = glommio::spawn_local(async move {
            glommio::executor().spawn_blocking(operation).await;
        });
        waiting.detach();
        while has_begun.try_recv().is_err() {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
    });
    end.send(()).unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(!LOST.load(Ordering::SeqCst));
}
