//! rk-bench: a load generator for servers that speak ZooKeeper's client protocol.

/// How long a follower takes to be in sync, and what the ensemble does meanwhile.
mod catchup;
/// What one measurement does: operation, sessions, pipelining, sizes, rate.
mod cell;
/// Alternating measurements of two servers, and their ratios.
mod compare;
/// How long an ensemble acknowledges nothing when its leader ends.
mod failover;
/// The event loop that drives all sessions from one thread.
mod generator;
/// A server that answers at once, to show what the generator itself costs.
mod null;
/// Processor time and memory of a server process.
mod process;
/// Results as text and JSON.
mod report;
/// Watch fan-out, session churn, filling and restart times.
mod scenarios;

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cell::Cell;

/// Load generator for servers that speak ZooKeeper's client protocol.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Results as one line of JSON each.
    #[arg(long, global = true)]
    json: bool,
    /// Pins the generator to this core.
    #[arg(long, global = true)]
    cpu: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One measurement of one server.
    Run {
        /// Where the server listens.
        #[arg(long, default_value = "127.0.0.1:2181", value_parser = address)]
        server: SocketAddr,
        /// The server's process, for its processor time and memory.
        #[arg(long)]
        pid: Option<u32>,
        #[command(flatten)]
        cell: Cell,
    },
    /// The same measurements of two servers by turns, and the ratios of their medians.
    Compare(compare::Compare),
    /// Many sessions watch one znode; how long until all have heard of a change.
    Fanout {
        /// Where the server listens.
        #[arg(long, default_value = "127.0.0.1:2181", value_parser = address)]
        server: SocketAddr,
        /// The server's process, for its processor time and memory.
        #[arg(long)]
        pid: Option<u32>,
        /// Sessions that watch.
        #[arg(long, default_value_t = 100)]
        sessions: usize,
        /// Changes.
        #[arg(long, default_value_t = 100)]
        changes: usize,
    },
    /// Sessions that connect, create an ephemeral and close, one after the other.
    Churn {
        /// Where the server listens.
        #[arg(long, default_value = "127.0.0.1:2181", value_parser = address)]
        server: SocketAddr,
        /// The server's process, for its processor time and memory.
        #[arg(long)]
        pid: Option<u32>,
        /// How many sessions.
        #[arg(long, default_value_t = 1000)]
        sessions: usize,
    },
    /// Creates znodes and leaves them; prints the server's memory for each.
    Fill {
        /// Where the server listens.
        #[arg(long, default_value = "127.0.0.1:2181", value_parser = address)]
        server: SocketAddr,
        /// The server's process.
        #[arg(long)]
        pid: Option<u32>,
        /// How many.
        #[arg(long, default_value_t = 1_000_000)]
        znodes: u64,
        /// Bytes of data of each.
        #[arg(long, default_value_t = 100)]
        size: usize,
        /// Children of each parent; 0 puts all below one.
        #[arg(long, default_value_t = 1000)]
        children: u64,
    },
    /// Kills a server with SIGKILL, runs the command, and measures until it gives a session.
    Restart {
        /// Where the server listens.
        #[arg(long, default_value = "127.0.0.1:2181", value_parser = address)]
        server: SocketAddr,
        /// The process to kill.
        #[arg(long)]
        pid: u32,
        /// How to start it again; it must stay in the foreground and is left running.
        #[arg(last = true, required = true)]
        start: Vec<String>,
    },
    /// Starts an ensemble, takes its leader away again and again, and prints the longest gaps
    /// without an acknowledged write.
    Failover(failover::Failover),
    /// Starts an ensemble, takes a follower away, and prints how long it takes to be in sync again,
    /// or what the others do without it.
    Catchup(catchup::Catchup),
    /// Answers every request at once and keeps nothing, to measure the generator itself.
    Null {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:2182", value_parser = address)]
        listen: SocketAddr,
    },
}

/// An address that may be a name.
fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("{text}: {error}"))?.next();
    found.ok_or_else(|| format!("{text} has no address"))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A reader that goes away ends the program, as it does other programs of the command line.
    // SAFETY: no other thread runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if let Some(cpu) = cli.cpu
        && let Err(error) = process::pin(cpu)
    {
        eprintln!("--cpu {cpu}: {error}");
        return ExitCode::from(2);
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), String> {
    match &cli.command {
        Command::Run { server, pid, cell } => {
            let result = generator::measure(*server, cell, *pid)?;
            report::print(&result, cli.json);
            Ok(())
        }
        Command::Compare(compare) => compare::run(compare, cli.json),
        Command::Fanout { server, pid, sessions, changes } => {
            scenarios::fanout(*server, *sessions, *changes, *pid, cli.json)
        }
        Command::Churn { server, pid, sessions } => {
            scenarios::churn(*server, *sessions, *pid, cli.json)
        }
        Command::Fill { server, pid, znodes, size, children } => {
            let fill = scenarios::Fill { znodes: *znodes, size: *size, children: *children };
            scenarios::fill(*server, &fill, *pid, cli.json)
        }
        Command::Restart { server, pid, start } => {
            scenarios::restart(*server, *pid, start, cli.json)
        }
        Command::Failover(failover) => failover::run(failover, cli.json),
        Command::Catchup(catchup) => catchup::run(catchup, cli.json),
        Command::Null { listen } => null::serve(*listen),
    }
}
