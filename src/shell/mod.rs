//! Layer 4: the glommio driver. The only place with `await`, sockets, files, clocks and entropy.
//! It decides nothing: inputs are handed to a machine, outputs are carried out.
//!
//! Start-up, in this order: what the machine offers (`startup`), the directories and their lock
//! (`lock`), the port, the import of Apache's data (`import`) and recovery (`recover`), then an
//! executor for each shard.
//!
//! Rules that glommio 0.9 forces on everything here:
//!
//! 1. A turn of the driver's loop ends in the reactor: no task yields by queueing itself again, and
//!    a timer of 5 ms always runs.
//! 2. Files are created and zeroed through plain descriptors, and opened for direct I/O afterwards.
//! 3. The listening socket is ours, with SO_REUSEADDR and without SO_REUSEPORT.
//! 4. The future of a log write is never dropped.

mod ahead;
mod clock;
mod config_files;
mod conn;
mod descriptors;
mod driver;
#[cfg(test)]
mod driver_tests;
mod export;
mod files;
mod import;
mod listener;
mod lock;
mod mesh;
mod names;
mod notify;
mod peers;
#[cfg(test)]
mod peers_tests;
mod placement;
mod ports;
mod reading;
mod recover;
mod seal;
mod settings;
mod startup;

pub use driver::Outcome;
pub use export::{ExportSettings, Exported, export};
pub use listener::listen_address;
pub use reading::read_if_there;
pub use settings::{PeerSettings, Settings};

use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};

use crate::model::ShardId;
use crate::server::audit;
use crate::server::import::ImportRefusal;
use crate::server::recovery::Refusal;
use crate::server::{Satellite, Server};

/// How long the executor of a server with one shard looks for news before it sleeps: about as long
/// as a log write takes.
const SPIN_ALONE: Duration = Duration::from_micros(150);

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
    /// A port for the other servers cannot be used.
    #[error("{0}")]
    PeerPort(String),
    /// What is on disk cannot be trusted.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Apache's data is not imported.
    #[error("{0}")]
    NotImported(#[from] ImportRefusal),
}

/// Runs a server until it is stopped or must not go on.
pub fn run(settings: &Settings) -> Result<Outcome, StartError> {
    let starting = startup::heed_signals()?;
    let io_memory_bytes = startup::check(settings)?;
    let directories = lock::open(settings)?;
    if let Some(config) = settings.config_file.as_ref().filter(|_| settings.backs_up_config) {
        config_files::back_up(config)?;
    }
    let listener = listener::bind(settings)?;
    let peers = settings.peers.as_ref().map(peers::bind).transpose()?.unwrap_or_default();
    let keep_alive = settings.peers.as_ref().is_some_and(|peers| peers.tcp_keep_alive);
    let clock = clock::Clocks::start();
    let options = recover::RecoverOptions::of(&settings.server);
    let mut recovered = import::run(&directories, settings, options, clock)?;
    if !settings.server.is_member() {
        recovered.settle_alone()?;
    }
    directories.note_log_place()?;
    tracing::info!(
        zxid = %recovered.last_zxid,
        znodes = recovered.tree.znode_count(),
        sessions = recovered.sessions.len(),
        replayed = recovered.replayed_txn_count,
        "recovered"
    );
    let placements = placement::choose(settings);
    let satellites = u16::try_from(placements.cores.len() - 1).expect("shards are few");
    let fabric = Arc::new(mesh::Fabric::new(placements.cores.len(), recovered.last_zxid));
    let (server, satellites) = Server::new(
        settings.server.clone(),
        recovered,
        satellites,
        startup::entropy(),
        clock.now(),
    );
    // Waking up costs some ten microseconds at every step of a write. A server that was given one
    // core spends that core's time rather than its clients'; with more, idle shards should be idle.
    let alone = if placements.cores.len() == 1 { SPIN_ALONE } else { Duration::ZERO };
    let spin = settings.spin.unwrap_or(alone);
    let executor = |at: usize| {
        let place = placements.cores.get(at).copied().flatten();
        let builder = LocalExecutorBuilder::new(place.map_or(Placement::Unbound, Placement::Fixed))
            .name(&format!("shard-{at}"))
            .io_memory(io_memory_bytes);
        match place {
            Some(_) => builder.spin_before_park(spin),
            None => builder,
        }
    };
    for satellite in satellites {
        let builder = executor(usize::from(satellite.id().0));
        serve_satellite(builder, satellite, clock, Arc::clone(&fabric))?;
    }
    // A recovery in the server's course must not take the core of the shard that answers pings, and
    // what is read for a learner must not wait for the flush of a snapshot.
    let beside = PoolPlacement::Unbound(2);
    let home = executor(0).blocking_thread_pool_placement(beside).make().map_err(cannot_start)?;
    if let Some(user) = &settings.server.audit_user {
        audit::server_start(user, true);
    }
    let config_file = settings.config_file.clone();
    let (paths, direct_io) = (directories.paths(), directories.direct_io());
    let files = Rc::new(files::Files::new(paths, direct_io, options, config_file));
    let ports = ports::PortSettings {
        limits: listener::ConnLimits {
            per_address: settings.conns_per_address_max,
            total: settings.conns_max,
        },
        backlog: settings.listen_backlog,
        keep_alive: settings.tcp_keep_alive,
        peers: settings.peers.clone(),
    };
    let outcome = run_for_good(home, async move {
        startup::warm_up().await;
        let machine = Box::new(server);
        let (files, ports) = (Some(files), Some(ports));
        let driver = driver::Driver::new(ShardId(0), machine, clock, fabric, files, ports);
        driver.peers.set_keep_alive(keep_alive);
        Rc::new(driver).run(listener, peers, &starting).await
    });
    // What is still being written is written under the lock.
    std::mem::forget(directories);
    outcome
}

/// Runs to the end of the work, and leaves the executor to the end of the process: its blocking
/// threads may be at a file, and panic when they find it gone.
fn run_for_good<T>(executor: LocalExecutor, work: impl Future<Output = T>) -> T {
    let done = executor.run(work);
    std::mem::forget(executor);
    done
}

/// Starts a satellite on a thread of its own; it ends with the process.
fn serve_satellite(
    builder: LocalExecutorBuilder,
    satellite: Satellite,
    clock: clock::Clocks,
    fabric: Arc<mesh::Fabric>,
) -> Result<(), StartError> {
    // The executor itself is made on the new thread: that it could not be is known when its work is
    // dropped.
    let (lives, hears) = mpsc::channel();
    let started = builder.spawn(move || async move {
        let _ = lives.send(());
        startup::warm_up().await;
        let id = satellite.id();
        let driver = driver::Driver::new(id, Box::new(satellite), clock, fabric, None, None);
        Rc::new(driver).run_satellite().await;
    });
    let thread = started.map_err(cannot_start)?;
    match hears.recv() {
        Ok(()) => Ok(()),
        Err(mpsc::RecvError) => thread.join().map_err(cannot_start),
    }
}

fn cannot_start(error: glommio::GlommioError<()>) -> StartError {
    StartError::Machine(format!(
        "an executor cannot start: {error}; may this process use the cores of ringkeeper.pin, and \
         as much locked memory and as many descriptors as ringkeeper.shards needs?"
    ))
}
