//! The shell: the one-shot commands and a few more, line by line, in one session.

use std::env;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use bytes::Bytes;
use clap::{CommandFactory, Parser, Subcommand};
use ringkeeper::client::session::{Phase, Session, SessionEvent, SessionOptions};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor, ExternalPrinter};

use crate::cli::{Cli, Command, Format};
use crate::commands::{self, Context, watch, znode_path};
use crate::completion::Completion;
use crate::failure::{Failure, Outcome};
use crate::output::{Output, escaped};
use crate::zk::Zk;

/// How long completion waits for a server.
const COMPLETION_WAITS: std::time::Duration = std::time::Duration::from_secs(1);

/// One line.
#[derive(Parser)]
#[command(no_binary_name = true, name = "", about = "Commands of the shell")]
struct Line {
    #[command(flatten)]
    format: Format,
    #[command(subcommand)]
    command: ShellCommand,
}

#[derive(Subcommand)]
enum ShellCommand {
    #[command(flatten)]
    Common(Command),
    /// Removes the watches on a path
    Unwatch {
        #[arg(value_parser = znode_path)]
        path: String,
    },
    /// Adds an identity to this session
    Addauth {
        /// digest, ...
        scheme: String,
        /// user:password for digest
        credentials: String,
    },
    /// Ends the session and the shell
    #[command(alias = "exit")]
    Quit,
}

/// Whether the shell goes on.
enum Next {
    Line,
    End,
}

struct Shell {
    context: Context,
    format: Format,
    interrupted: Arc<AtomicBool>,
}

/// Reads lines until there are no more. The exit code is that of the last command.
pub(crate) fn run(cli: &Cli, options: SessionOptions) -> Outcome {
    let interrupted = Arc::new(AtomicBool::new(false));
    let handled =
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted));
    if let Err(error) = handled {
        eprintln!("rk: ctrl-c ends the shell: {error}");
    }
    let (session, events) = Session::open(options.clone());
    let zk = Zk::new(session, &options.servers.chroot, cli.connection.timeout);
    let mut out = Output::new(cli.format);
    out.interrupted = Some(Arc::clone(&interrupted));
    let context = Context { zk, out, options, events: None };
    let mut shell = Shell { context, format: cli.format, interrupted };
    let ended = if io::stdin().is_terminal() { shell.edited(events) } else { shell.piped(events) };
    shell.context.zk.session.close();
    ended
}

impl Shell {
    /// Lines from a pipe or file.
    fn piped(&mut self, events: Receiver<SessionEvent>) -> Outcome {
        self.print_events(events, None);
        let mut last = Ok(());
        let mut line = String::new();
        // Not locked between lines: a command may read what follows its own.
        while io::stdin()
            .read_line(&mut line)
            .map_err(|error| Failure::io("standard input", &error))?
            != 0
        {
            self.renew();
            match self.execute(&line) {
                Ok(Next::Line) => last = Ok(()),
                Ok(Next::End) => return Ok(()),
                Err(failure) => {
                    failure.report(self.format.json);
                    last = Err(Failure::Exit(failure.exit_code()));
                }
            }
            line.clear();
        }
        last
    }

    /// Lines from a terminal, with history and completion.
    fn edited(&mut self, events: Receiver<SessionEvent>) -> Outcome {
        let unusable = |error: ReadlineError| Failure::Usage(format!("the terminal: {error}"));
        let config = Config::builder().auto_add_history(false).build();
        let mut editor: Editor<Completion, FileHistory> =
            Editor::with_config(config).map_err(unusable)?;
        let history = history_file();
        if let Some(file) = &history {
            let _none_yet = editor.load_history(file);
        }
        let printer = editor.create_external_printer().map_err(unusable)?;
        self.print_events(events, Some(Box::new(printer)));
        eprintln!("help lists the commands, quit ends the session");
        let _soon = self.context.zk.session.wait_connected(self.context.zk.deadline());
        loop {
            if let Some(events) = self.renew() {
                let printer = editor.create_external_printer().map_err(unusable)?;
                self.print_events(events, Some(Box::new(printer)));
            }
            editor.set_helper(Some(Completion { zk: self.context.zk.within(COMPLETION_WAITS) }));
            match editor.readline(&self.prompt()) {
                Ok(line) => {
                    // Secrets do not go into a file.
                    if !line.trim_start().starts_with("addauth") && !line.trim().is_empty() {
                        let _remembered = editor.add_history_entry(line.as_str());
                    }
                    match self.execute(&line) {
                        Ok(Next::Line) => {}
                        Ok(Next::End) => break,
                        Err(failure) => failure.report(self.format.json),
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(unusable(error)),
            }
        }
        if let Some(file) = &history
            && let Err(error) = editor.save_history(file)
        {
            eprintln!("rk: history {}: {error}", file.display());
        }
        Ok(())
    }

    fn prompt(&self) -> String {
        let state = match self.context.zk.session.phase() {
            Phase::Connected => "",
            Phase::Connecting => " (connecting)",
            Phase::Expired => " (expired)",
            Phase::AuthFailed => " (auth failed)",
            Phase::Closed => " (not connected)",
        };
        format!("{}{state}> ", self.context.options.servers)
    }

    /// After the end of a session: a new one, and its events.
    fn renew(&mut self) -> Option<Receiver<SessionEvent>> {
        match self.context.zk.session.phase() {
            Phase::Expired => {
                eprintln!("rk: a new session begins; ephemerals and watches of the old are gone");
            }
            Phase::Closed => {}
            _ => return None,
        }
        let (session, events) = Session::open(self.context.options.clone());
        let chroot = self.context.options.servers.chroot.clone();
        self.context.zk = Zk::new(session, &chroot, self.context.zk.limit);
        Some(events)
    }

    fn print_events(
        &self,
        events: Receiver<SessionEvent>,
        mut printer: Option<Box<dyn ExternalPrinter + Send>>,
    ) {
        // The thread must not keep the session: its events end with it.
        let chroot = self.context.options.servers.chroot.clone();
        let json = self.format.json;
        std::thread::spawn(move || {
            for event in events {
                if matches!(event, SessionEvent::Connected { renewed: false, .. }) {
                    continue;
                }
                let (text, value) = watch::describe(&chroot, &event);
                let line = match (json, &printer) {
                    (true, _) => value.to_string(),
                    (false, Some(_)) => escaped(text.as_bytes()),
                    (false, None) => text,
                };
                match &mut printer {
                    Some(printer) => {
                        let _shown = printer.print(format!("{line}\n"));
                    }
                    None => println!("{line}"),
                }
            }
        });
    }

    fn execute(&mut self, text: &str) -> Result<Next, Failure> {
        let words = shlex::split(text)
            .ok_or_else(|| Failure::Usage("a quotation mark is left open".to_owned()))?;
        if words.is_empty() {
            return Ok(Next::Line);
        }
        let line = match Line::try_parse_from(words) {
            Ok(line) => line,
            Err(error) if error.use_stderr() => {
                let text = error.to_string();
                let text = text.trim_start_matches("error: ").trim_end();
                return Err(Failure::Usage(text.to_owned()));
            }
            // Help.
            Err(error) => {
                self.context.out.line(error.to_string().trim_end())?;
                self.context.out.flush()?;
                return Ok(Next::Line);
            }
        };
        self.context.out.format = Format {
            json: line.format.json || self.format.json,
            base64: line.format.base64 || self.format.base64,
            hex: line.format.hex || self.format.hex,
        };
        self.interrupted.store(false, Ordering::Relaxed);
        match line.command {
            ShellCommand::Common(command) => commands::run(&command, &mut self.context)?,
            ShellCommand::Unwatch { path } => self.context.zk.remove_watches(&path)?,
            ShellCommand::Addauth { scheme, credentials } => {
                self.add_auth(&scheme, credentials.into())?;
            }
            ShellCommand::Quit => return Ok(Next::End),
        }
        Ok(Next::Line)
    }

    fn add_auth(&mut self, scheme: &str, credentials: Bytes) -> Outcome {
        let zk = &self.context.zk;
        let added = zk.session.add_auth(scheme, credentials.clone(), zk.deadline());
        added.map_err(|error| Failure::of(error, "addauth"))?;
        self.context.options.auth.push((scheme.into(), credentials));
        Ok(())
    }
}

/// `RK_HISTORY`, or a file where the user's state is kept.
fn history_file() -> Option<PathBuf> {
    if let Some(file) = env::var_os("RK_HISTORY") {
        return Some(PathBuf::from(file));
    }
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".local/state")))?;
    let folder = state.join("rk");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// The commands that begin with `word`.
pub(crate) fn command_names(word: &str) -> Vec<String> {
    let line = Line::command();
    let names = line.get_subcommands().map(|command| command.get_name().to_owned());
    names.filter(|name| name.starts_with(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_completed_and_read() {
        assert_eq!(command_names("get"), ["get", "getacl"]);
        assert!(command_names("un").contains(&"unwatch".to_owned()));
        Line::command().debug_assert();
        Cli::command().debug_assert();
    }
}
