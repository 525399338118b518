//! config and reconfig: who belongs to the ensemble.

use std::io::Read;

use bytes::Bytes;
use clap::{ArgGroup, Args};
use ringkeeper::model::{ReconfigRequest, Stat};
use serde_json::json;

use super::{Context, watch};
use crate::failure::{Failure, Outcome};
use crate::stat;

const CONFIG: &str = "/zookeeper/config";

/// Arguments of config.
#[derive(Args)]
pub(crate) struct Config {
    /// Only the version and where clients connect
    #[arg(long, short)]
    client: bool,
    /// The stat, too
    #[arg(long, short)]
    stat: bool,
    /// Wait for the next change and print it; in the shell: leave a watch
    #[arg(long, short)]
    watch: bool,
}

/// Arguments of reconfig.
#[derive(Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct Reconfig {
    /// Servers that come or get other lines: server.N=HOST:PORT:PORT:ROLE;HOST:PORT,... where
    /// :ROLE and the second HOST: may be left out
    #[arg(long, value_name = "LINES", group = "change")]
    add: Option<String>,
    /// Servers that go: N,...
    #[arg(long, value_name = "NUMBERS", group = "change")]
    remove: Option<String>,
    /// All members from now on: lines as for --add, separated by commas
    #[arg(long, value_name = "LINES", group = "change", conflicts_with_all = ["add", "remove"])]
    members: Option<String>,
    /// All members from now on: a file of such lines, or - for standard input
    #[arg(long, group = "change", conflicts_with_all = ["add", "remove", "members"])]
    file: Option<String>,
    /// Only if the configuration has this version, in hexadecimal digits as `rk config` shows it
    #[arg(long, short, value_name = "HEX", value_parser = parse_version)]
    version: Option<i64>,
    /// Print the new stat
    #[arg(long, short)]
    stat: bool,
}

impl Config {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let (data, stat) = context.zk.absolute().get(CONFIG, self.watch)?;
        if self.client {
            let (version, connect) = for_clients(&text_of(data.as_ref()));
            let value = json!({ "version": version, "connect": connect });
            context.out.either(&format!("{version} {connect}"), &value)?;
        } else {
            print(context, data.as_ref(), &stat, self.stat)?;
        }
        if self.watch { watch::wait_for_one(context) } else { Ok(()) }
    }
}

impl Reconfig {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        let members = match &self.file {
            Some(file) => Some(members_of(file, &read(file)?)?),
            None => self.members.clone(),
        };
        let text = |text: &Option<String>| text.as_deref().map(Into::into);
        let request = ReconfigRequest {
            joining: text(&self.add),
            leaving: text(&self.remove),
            new_members: text(&members),
            from_config: self.version.unwrap_or(-1),
        };
        let (data, stat) = context.zk.reconfig(request)?;
        print(context, data.as_ref(), &stat, self.stat)
    }
}

fn parse_version(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    i64::from_str_radix(digits, 16).map_err(|error| format!("hexadecimal digits: {error}"))
}

fn text_of(data: Option<&Bytes>) -> String {
    String::from_utf8_lossy(data.map(AsRef::as_ref).unwrap_or_default()).into_owned()
}

fn print(context: &mut Context, data: Option<&Bytes>, stat: &Stat, with_stat: bool) -> Outcome {
    let text = text_of(data);
    if context.out.format.json {
        return context.out.json(&json!({ "config": text, "stat": stat::json(stat) }));
    }
    if !text.is_empty() {
        context.out.line(&text)?;
    }
    if with_stat { context.out.bytes(stat::text(stat).as_bytes()) } else { Ok(()) }
}

fn read(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file {
        "-" => std::io::stdin().lock().read_to_string(&mut text),
        file => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| Failure::io(&format!("file {file}"), &error))?;
    Ok(text)
}

/// The lines of a dynamic configuration file that name members and their quorums. Its version is
/// of the configuration that was.
fn members_of(file: &str, text: &str) -> Result<String, Failure> {
    let mut members = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        let key = line.split(['=', ':']).next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with(['#', '!']) || key == "version" {
            continue;
        }
        if !["server.", "group.", "weight."].iter().any(|start| key.starts_with(start)) {
            let text = format!("{file}:{number}: {key} is not server.N, group.N or weight.N");
            return Err(Failure::Usage(text));
        }
        members.push(line);
    }
    if members.is_empty() {
        return Err(Failure::Usage(format!("file {file}: it names no members")));
    }
    Ok(members.join("\n"))
}

/// The version, and what clients connect with: the client addresses of those that have one.
fn for_clients(config: &str) -> (String, String) {
    let mut version = String::new();
    let mut addresses = Vec::new();
    for line in config.lines() {
        let Some((key, value)) = line.split_once('=') else { continue };
        match (key.trim(), value.rsplit_once(';')) {
            ("version", _) => value.trim().clone_into(&mut version),
            (key, Some((_, address))) if key.starts_with("server.") => {
                // A line may say only the port: every address.
                let address = address.trim();
                let is_port = address.bytes().all(|byte| byte.is_ascii_digit());
                addresses.push(if is_port { format!("0.0.0.0:{address}") } else { address.into() });
            }
            _ => {}
        }
    }
    (version, addresses.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_members_becomes_a_list() {
        let text = "# ours\nserver.1=a:1:2;3\n\n version=a00000001\nweight.1 = 2\n";
        let members = members_of("f", text).expect("it is one");
        assert_eq!(members, "server.1=a:1:2;3\nweight.1 = 2");
        for (text, why) in [
            ("server.1=a:1:2;3\ntickTime=2000", "f:2: tickTime is not server.N"),
            ("", "it names no members"),
            ("version=1", "it names no members"),
        ] {
            let refused = members_of("f", text).expect_err("it is none").to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn clients_are_told_where_to_connect() {
        let text = "server.1=a:1:2:participant;a:2181\nserver.2=b:1:2:observer;2182\n\
                    server.3=c:1:2\nversion=100000003";
        let told = for_clients(text);
        assert_eq!(told, ("100000003".to_owned(), "a:2181,0.0.0.0:2182".to_owned()));
        assert_eq!(for_clients(""), (String::new(), String::new()));
    }

    #[test]
    fn versions_are_hexadecimal() {
        assert_eq!(parse_version("100000003"), Ok(0x1_0000_0003));
        assert_eq!(parse_version("0xa"), Ok(10));
        assert_eq!(parse_version("-1"), Ok(-1));
        assert!(parse_version("g").is_err());
    }
}
