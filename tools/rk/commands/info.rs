//! sync, ephemerals, whoami and word.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Context, znode_path};
use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// Arguments of sync.
#[derive(Args)]
pub(crate) struct Sync {
    #[arg(value_parser = znode_path, default_value = "/")]
    path: String,
}

/// Arguments of ephemerals.
#[derive(Args)]
pub(crate) struct Ephemerals {
    /// Only paths that begin with this text
    #[arg(default_value = "/")]
    prefix: String,
}

/// Arguments of word.
#[derive(Args)]
pub(crate) struct Word {
    /// ruok, srvr, mntr, ...
    word: String,
    /// Ask every server of the list, not only the first that answers
    #[arg(long, short)]
    all: bool,
}

/// What a server answers whose 4lw.commands.whitelist lacks the word; it names the word before.
const REFUSED: &str = " is not executed because it is not in the whitelist.";

impl Sync {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        context.zk.sync(&self.path)?;
        context.out.json_only(&json!({ "path": self.path }))
    }
}

impl Ephemerals {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let paths = context.zk.ephemerals(&self.prefix)?;
        if context.out.format.json {
            return context.out.json(&json!({ "ephemerals": paths }));
        }
        paths.iter().try_for_each(|path| context.out.shown(path))
    }
}

/// The identities of the connection.
pub(crate) fn whoami(context: &mut Context) -> Outcome {
    let mut identities = context.zk.identities()?;
    identities.sort();
    for (scheme, user) in identities {
        let value = json!({ "scheme": scheme.as_str(), "id": user.as_str() });
        context.out.either(&format!("{scheme}: {user}"), &value)?;
    }
    Ok(())
}

impl Word {
    /// Asks the servers at these addresses. No session is begun: a server that has no leader, or
    /// takes no sessions, answers too.
    pub(crate) fn run(&self, servers: &[String], limit: Duration, out: &mut Output) -> Outcome {
        if self.word.len() != 4 || !self.word.bytes().all(|byte| byte.is_ascii_lowercase()) {
            let text = format!("{:?}: a word has four letters, such as ruok", self.word);
            return Err(Failure::Usage(text));
        }
        let mut failed = None;
        for name in servers {
            match ask(name, &self.word, limit) {
                Ok(answer) => {
                    self.print(out, name, &answer)?;
                    let refused = answer.trim_end().ends_with(REFUSED);
                    if !self.all {
                        return if refused { Err(Failure::Exit(1)) } else { Ok(()) };
                    }
                    if refused {
                        failed = Some(Failure::Exit(1));
                    }
                }
                Err(error) => {
                    let failure = Failure::NoConnection(format!("{name}: {error}"));
                    failed = Some(if self.all {
                        failure.report(out.format.json);
                        Failure::Exit(failure.exit_code())
                    } else {
                        failure
                    });
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn print(&self, out: &mut Output, name: &str, answer: &str) -> Outcome {
        if out.format.json {
            let value = json!({ "server": name, "word": self.word, "answer": answer });
            return out.json(&value);
        }
        if self.all {
            out.line(&format!("{name}:"))?;
        }
        out.bytes(answer.as_bytes())?;
        // Some answers end without a line break.
        if answer.ends_with('\n') { Ok(()) } else { out.line("") }
    }
}

fn ask(name: &str, word: &str, limit: Duration) -> std::io::Result<String> {
    let mut last = std::io::Error::other("the name has no address");
    for address in name.to_socket_addrs()? {
        let asked = TcpStream::connect_timeout(&address, limit).and_then(|mut stream| {
            stream.set_read_timeout(Some(limit))?;
            stream.write_all(word.as_bytes())?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        });
        match asked {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}
