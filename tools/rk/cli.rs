//! Arguments: the same commands for the command line and for the shell.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ringkeeper::client::servers::Servers;

use crate::commands::{acls, children, data, dump, info, members, multi, quota, watch};
use crate::recipes::{barrier, elect, lock, queue};
use crate::time::parse_duration;

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  refused by the server; the message ends with ZooKeeper's name of the error
  2  wrong usage, or input or output of this program failed
  3  no connection: nothing was changed
  4  no answer in time, connection or session lost: what was asked may have been done or not
`lock`, `elect`, `barrier` and `create -e` pass on the exit code of the command that they run.

Data on the command line: TEXT as it stands, @FILE for a file's content, - for standard input.
Credentials: --auth digest:user:password or the variable RK_AUTH (several on several lines).";

/// Client for ZooKeeper-protocol servers. Without a command: an interactive shell.
#[derive(Parser)]
#[command(name = "rk", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// How to connect.
#[derive(Args)]
pub(crate) struct Connection {
    /// host:port,host:port/chroot
    #[arg(long, short = 'S', env = "RK_SERVER", default_value = "127.0.0.1:2181")]
    #[arg(overrides_with = "server")]
    pub(crate) server: Servers,
    /// Longest wait for an answer, reconnecting included
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// Session timeout to ask the server for
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub(crate) session_timeout: Duration,
    /// Identity as scheme:credentials; may be repeated
    #[arg(long, env = "RK_AUTH", hide_env_values = true, value_delimiter = '\n')]
    pub(crate) auth: Vec<String>,
    /// Keep trying for the time of --timeout when no server can be reached at first
    #[arg(long)]
    pub(crate) patient: bool,
}

/// How to print.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Format {
    /// One JSON value per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Data in and out as base64
    #[arg(long, global = true, conflicts_with = "hex")]
    pub(crate) base64: bool,
    /// Data in and out as hexadecimal digits
    #[arg(long, global = true)]
    pub(crate) hex: bool,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Prints a znode's data
    Get(data::Get),
    /// Lists children
    Ls(children::Ls),
    /// Prints a znode's stat
    Stat(data::Stat),
    /// Creates a znode and prints its path
    Create(data::Create),
    /// Sets a znode's data
    Set(data::Set),
    /// Deletes a znode
    Rm(children::Rm),
    /// Counts all znodes below a znode
    Count(children::Count),
    /// Prints a znode's ACL
    Getacl(acls::Getacl),
    /// Sets a znode's ACL
    Setacl(acls::Setacl),
    /// Prints events as they come, until ctrl-c
    Watch(watch::Watch),
    /// Waits until the server has applied what was committed before
    Sync(info::Sync),
    /// Lists the ephemerals of this session
    Ephemerals(info::Ephemerals),
    /// Lists, sets and deletes quotas
    Quota(quota::Quota),
    /// Executes several writes as one: all or none
    Multi(multi::Multi),
    /// Prints the identities of this connection
    Whoami,
    /// Prints the configuration of the ensemble
    Config(members::Config),
    /// Changes the members of the ensemble and prints its new configuration
    Reconfig(members::Reconfig),
    /// Asks the servers a four-letter word
    Word(info::Word),
    /// Writes a subtree as JSON lines
    Dump(dump::Dump),
    /// Creates what `dump` has written
    Load(dump::Load),
    /// Runs a command while holding a lock
    Lock(lock::Lock),
    /// Takes part in an election
    Elect(elect::Elect),
    /// A queue that several may put to and take from
    Queue(queue::Queue),
    /// Waits until so many have come
    Barrier(barrier::Barrier),
}
