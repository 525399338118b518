//! Layer 4: the glommio driver. The only place with `await`, sockets, files, clocks and entropy.
//! It decides nothing: inputs are handed to a [`Machine`], outputs are carried out.
//!
//! Start-up, in this order: what the machine offers (`startup`), the directories and their lock
//! (`lock`), the port, recovery (`recover`), then one executor that serves.
//!
//! Rules that glommio 0.9 forces on everything here:
//!
//! 1. A turn of the driver's loop ends in the reactor: no task yields by queueing itself again, and
//!    a timer of 5 ms always runs.
//! 2. Files are created and zeroed through plain descriptors, and opened for direct I/O afterwards.
//! 3. The listening socket is ours, with SO_REUSEADDR and without SO_REUSEPORT.
//! 4. The future of a log write is never dropped.

mod clock;
mod conn;
mod driver;
mod files;
mod listener;
mod lock;
mod notify;
mod recover;
mod settings;
mod startup;

pub use driver::Outcome;
pub use settings::Settings;

use std::rc::Rc;

use glommio::{LocalExecutorBuilder, Placement};

use crate::server::recovery::Refusal;
use crate::server::{Machine, Server};
use crate::tree::TreeOptions;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// io_uring, memory or permissions.
    #[error("{0}")]
    Machine(String),
    /// The directories cannot be used.
    #[error("{0}")]
    Directory(String),
    /// The port cannot be used.
    #[error("{0}")]
    Port(String),
    /// What is on disk cannot be trusted.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// Runs a server until it is stopped or must not go on.
pub fn run(settings: &Settings) -> Result<Outcome, StartError> {
    let io_memory_bytes = startup::check(settings)?;
    let directories = lock::open(settings)?;
    let listener = listener::bind(settings.listen, settings.listen_backlog)?;
    let clock = clock::Clocks::start();
    let tree = TreeOptions {
        extended_types: settings.server.extended_types,
        digests: settings.server.digests,
    };
    let recovered = recover::run(&directories, tree, startup::entropy())?;
    tracing::info!(
        zxid = %recovered.last_zxid,
        znodes = recovered.tree.znode_count(),
        sessions = recovered.sessions.len(),
        replayed = recovered.replayed_txn_count,
        "recovered"
    );
    let options = settings.server.clone();
    let machine = Server::new(options, recovered, startup::entropy(), clock.now());
    serve(settings, io_memory_bytes, listener, clock, &directories, Box::new(machine))
}

/// Drives `machine` on one executor.
fn serve(
    settings: &Settings,
    io_memory_bytes: usize,
    listener: socket2::Socket,
    clock: clock::Clocks,
    directories: &lock::Directories,
    machine: Box<dyn Machine>,
) -> Result<Outcome, StartError> {
    let placement = settings.pin_to_cpu.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name("shard-0")
        .io_memory(io_memory_bytes)
        .make()
        .map_err(|error| StartError::Machine(format!("the executor cannot start: {error}")))?;
    let files = Rc::new(files::Files::new(directories.paths(), directories.direct_io()));
    let limits = listener::ConnLimits {
        per_address: settings.conns_per_address_max,
        total: settings.conns_max,
    };
    executor.run(async move {
        startup::warm_up().await;
        let driver = Rc::new(driver::Driver::new(machine, clock, files));
        driver.run(listener, limits).await
    })
}
