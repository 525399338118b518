//! rk-log: looks into the files of a server while it is down or running. It never writes where it
//! inspects.

/// Apache ZooKeeper's files.
mod apache;
/// Commands on them.
mod apache_commands;
mod apache_compact;
/// Replaying them.
mod apache_replayer;
/// Verifying them.
mod apache_verify;
/// A log range folded into a snapshot.
mod compact;
/// Which txns and znodes a dump shows.
mod dump;
/// The files of a place, opened for reading.
mod files;
/// What a dump lets pass.
mod filter;
/// What is in a directory or file, in short.
mod info;
/// The install record.
mod install;
/// Files as bytes.
mod map;
/// What a path is.
mod place;
/// A progress bar.
mod progress;
/// The state at a moment, rebuilt and written.
mod rebuild;
/// A new data directory at a zxid or time.
mod replay;
/// Replaying with every digest compared.
mod replayer;
/// Txns, znodes and sessions as text and JSON.
mod show;
/// What a server would do on these files.
mod start;
/// Times, numbers and ranges as people write them.
mod time;
/// Every check there is.
mod verify;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use files::Files;
use place::Trouble;

/// Looks into a server's log and snapshots. Never writes where it inspects, and may run while a
/// server does; then it shows the view of one moment.
///
/// PATH is a dataDir, the `ringkeeper` directory in it, a zoo.cfg, a log segment or a snapshot;
/// or, of Apache ZooKeeper, a dataDir, the `version-2` in it, a log or a snapshot.
/// Exit code: 0 all is sound, 1 damage was met, 2 wrong usage, 3 something cannot be read.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Output as JSON: one object, or one for each line where there are many.
    #[arg(long, global = true)]
    json: bool,
    /// The dataLogDir, where it is not the dataDir.
    #[arg(long, global = true, value_name = "DIR")]
    log_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What is there: segments, snapshots, ranges of zxids and times, and what a start would do.
    Info {
        /// What to inspect.
        path: PathBuf,
    },
    /// Every txn of the log, or every session and znode of a snapshot, one on each line.
    Dump {
        /// What to inspect.
        path: PathBuf,
        #[command(flatten)]
        filter: filter::Filter,
    },
    /// Checks everything: checksums, chain, numbers, gaps, digests by replaying. Goes on behind
    /// damage.
    Verify {
        /// What to inspect.
        path: PathBuf,
    },
    /// Makes a new data directory with the state at one zxid or time. A server starts from it.
    Replay {
        /// What to inspect.
        path: PathBuf,
        /// Behind the txn of this zxid, or before the first txn later than this time.
        #[arg(long, value_name = "ZXID|TIME", value_parser = rebuild::parse_moment)]
        to: rebuild::Moment,
        /// The new dataDir; it must not be there, or be empty.
        out: PathBuf,
    },
    /// Folds the log up to a zxid into a snapshot and lists the files that are then no longer
    /// needed. Removes nothing. Of Apache's directories the snapshot is Apache's, too.
    Compact {
        /// What to inspect.
        path: PathBuf,
        /// The last zxid of the snapshot, or a time; otherwise the end of the log.
        #[arg(long, value_name = "ZXID|TIME", value_parser = rebuild::parse_moment)]
        to: Option<rebuild::Moment>,
        /// A directory for the snapshot; it must not be there, or be empty.
        out: PathBuf,
    },
}

/// How a command ended that could do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Nothing is wrong with what was looked at.
    Sound,
    /// Damage was met.
    Damaged,
}

impl Ending {
    /// The worse of two.
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Sound, Self::Sound) => Self::Sound,
            _ => Self::Damaged,
        }
    }
}

/// What every command is given besides its own arguments.
struct Session<'a> {
    /// Where results go.
    out: &'a mut dyn Write,
    /// Whether as JSON.
    json: bool,
}

impl Session<'_> {
    /// One line of JSON.
    fn json_line(&mut self, value: &impl serde::Serialize) -> Result<(), Trouble> {
        let line = serde_json::to_string(value);
        let line = line.map_err(|error| Trouble::Unreadable(error.to_string()))?;
        self.line(format_args!("{line}"))
    }

    /// One line of text.
    fn line(&mut self, line: std::fmt::Arguments<'_>) -> Result<(), Trouble> {
        let written = self.out.write_fmt(line).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|error| Trouble::Unreadable(format!("standard output: {error}")))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A reader that goes away ends the program, as it does other programs of the command line.
    // SAFETY: no other thread runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let mut out = BufWriter::new(io::stdout().lock());
    let ending = run(&cli, &mut Session { out: &mut out, json: cli.json });
    let flushed = out.flush();
    let ending = ending.and_then(|ending| {
        let failed = |error| Trouble::Unreadable(format!("standard output: {error}"));
        flushed.map(|()| ending).map_err(failed)
    });
    let shrunk = map::shrunk();
    for path in &shrunk {
        let path = path.display();
        eprintln!("{path}: became shorter while it was read; what is gone was taken for zeros");
    }
    match ending {
        Ok(Ending::Sound) if shrunk.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(trouble) => {
            eprintln!("{trouble}");
            ExitCode::from(match trouble {
                Trouble::Usage(_) => 2,
                Trouble::Unreadable(_) => 3,
            })
        }
    }
}

fn run(cli: &Cli, session: &mut Session<'_>) -> Result<Ending, Trouble> {
    let open = |path: &PathBuf| -> Result<Files, Trouble> {
        let place = place::locate(path, cli.log_dir.as_deref())?;
        let files = files::open(&place)?;
        files.warn();
        Ok(files)
    };
    let open_directory = |path: &PathBuf| -> Result<Files, Trouble> {
        let files = open(path)?;
        match files.kind {
            files::Kind::Directory | files::Kind::Apache => Ok(files),
            _ => Err(Trouble::Usage(format!("{} is no data directory", path.display()))),
        }
    };
    let is_apache = |files: &Files| files.kind == files::Kind::Apache;
    match &cli.command {
        Command::Info { path } => {
            let files = open(path)?;
            match &files.apache {
                Some(apache) => apache_commands::info(apache, is_apache(&files), session),
                None => info::run(&files, session),
            }
        }
        Command::Dump { path, filter } => {
            let files = open(path)?;
            match &files.apache {
                Some(apache) => apache_commands::dump(apache, filter, session),
                None => dump::run(&files, filter, session),
            }
        }
        Command::Verify { path } => {
            let files = open(path)?;
            match &files.apache {
                Some(apache) => apache_verify::run(apache, is_apache(&files), session),
                None => verify::run(&files, session),
            }
        }
        Command::Replay { path, to, out } => {
            let files = open_directory(path)?;
            match &files.apache {
                Some(apache) => apache_commands::replay(apache, *to, out, session),
                None => replay::run(&files, *to, out, session),
            }
        }
        Command::Compact { path, to, out } => {
            let files = open_directory(path)?;
            let to = to.unwrap_or(rebuild::Moment::End);
            match &files.apache {
                Some(apache) => apache_compact::run(apache, to, out, session),
                None => compact::run(&files, to, out, session),
            }
        }
    }
}
