//! rk: a client for servers that speak ZooKeeper's protocol, for people and scripts.

/// ACLs as text.
mod acl;
/// Arguments.
mod cli;
/// What can be asked for.
mod commands;
/// Commands and paths that are completed on a terminal.
mod completion;
/// Errors as text, JSON and exit codes.
mod failure;
/// Commands that run while something is held.
mod guard;
/// Events, signals and children in one queue.
mod inputs;
/// Printing, and data in and out.
mod output;
/// Locks, elections, queues, barriers.
mod recipes;
/// Line by line.
mod shell;
/// Stats as text and JSON.
mod stat;
/// Times and durations as people write them.
mod time;
/// Typed calls below a chroot.
mod zk;

use std::process::ExitCode;

use clap::Parser;
use ringkeeper::client::session::{Session, SessionOptions};

use cli::{Cli, Command, Connection};
use commands::Context;
use failure::{Failure, Outcome};
use output::Output;
use zk::Zk;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = session_options(&cli.connection);
    let ended = options.and_then(|options| match &cli.command {
        Some(Command::Word(word)) => {
            let mut out = Output::new(cli.format);
            let done = word.run(&options.servers.addresses, cli.connection.timeout, &mut out);
            done.and(out.flush())
        }
        Some(command) => run(&cli, command, options),
        None => shell::run(&cli, options),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(cli.format.json);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: &Cli, command: &Command, options: SessionOptions) -> Outcome {
    let (session, events) = Session::open(options.clone());
    let zk = Zk::new(session, &options.servers.chroot, cli.connection.timeout);
    let out = Output::new(cli.format);
    let mut context = Context { zk, out, options, events: Some(events) };
    let outcome = commands::run(command, &mut context);
    context.zk.session.close();
    outcome
}

fn session_options(connection: &Connection) -> Result<SessionOptions, Failure> {
    let mut auth = Vec::new();
    for identity in connection.auth.iter().filter(|identity| !identity.is_empty()) {
        // The text is a secret: it is not repeated.
        let (scheme, credentials) = identity.split_once(':').ok_or_else(|| {
            Failure::Usage("--auth or RK_AUTH: write scheme:credentials".to_owned())
        })?;
        auth.push((scheme.into(), credentials.as_bytes().to_vec().into()));
    }
    Ok(SessionOptions {
        servers: connection.server.clone(),
        timeout: connection.session_timeout,
        auth,
        patient: connection.patient,
    })
}
