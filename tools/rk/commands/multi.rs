//! multi: several writes as one txn, from a script of lines or JSON.

use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use ringkeeper::model::{ErrorCode, WriteRequest};
use ringkeeper::wire::response::MultiResult;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Context, znode_path, znode_prefix};
use crate::acl;
use crate::cli::Format;
use crate::failure::{Failure, Outcome};
use crate::output::{decode_base64, decode_hex};
use crate::stat;
use crate::zk::{Kind, NewZnode, Zk};

const AFTER_HELP: &str = r#"A script has one op per line; words are quoted as in a shell, and #
begins a comment:
  check /a --version 3
  create /b 'some data' [-s] [-e] [-c] [--acl world:anyone:r]
  set /a data [--version 3]
  rm /c [--version 3]
or it is a JSON array:
  [{"op":"check","path":"/a","version":3},
   {"op":"create","path":"/b","data":"some data","sequential":true,"ephemeral":false},
   {"op":"set","path":"/a","data_base64":"AAE="}, {"op":"rm","path":"/c"}]"#;

/// Arguments of multi.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Multi {
    /// The script as TEXT, @FILE or - for standard input
    #[arg(default_value = "-")]
    script: String,
}

/// A line of a script.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(subcommand)]
    op: Op,
}

/// One op, from a line or from JSON.
#[derive(Debug, PartialEq, Eq, Subcommand, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Op {
    /// The data has this version, or with none: the znode exists.
    Check {
        #[arg(value_parser = znode_path)]
        path: String,
        #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
        #[serde(default = "any_version")]
        version: i32,
    },
    Create {
        #[arg(value_parser = znode_prefix)]
        path: String,
        #[arg(default_value = "", allow_hyphen_values = true)]
        #[serde(default)]
        data: String,
        #[arg(skip)]
        data_base64: Option<String>,
        #[arg(short, long)]
        #[serde(default)]
        sequential: bool,
        #[arg(short, long)]
        #[serde(default)]
        ephemeral: bool,
        #[arg(short, long, conflicts_with_all = ["sequential", "ephemeral"])]
        #[serde(default)]
        container: bool,
        #[arg(long)]
        acl: Option<String>,
    },
    Set {
        #[arg(value_parser = znode_path)]
        path: String,
        #[arg(allow_hyphen_values = true)]
        #[serde(default)]
        data: String,
        #[arg(skip)]
        data_base64: Option<String>,
        #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
        #[serde(default = "any_version")]
        version: i32,
    },
    Rm {
        #[arg(value_parser = znode_path)]
        path: String,
        #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
        #[serde(default = "any_version")]
        version: i32,
    },
}

const fn any_version() -> i32 {
    -1
}

/// Ops, each with what names it in messages.
fn parse(script: &str) -> Result<Vec<(String, Op)>, String> {
    if script.trim_start().starts_with('[') {
        let ops: Vec<Op> =
            serde_json::from_str(script).map_err(|error| format!("the script: {error}"))?;
        return Ok(ops.into_iter().map(|op| (op.name(), op)).collect());
    }
    let mut ops = Vec::new();
    for (at, line) in script.lines().enumerate() {
        let number = at + 1;
        let words = shlex::split(line)
            .ok_or_else(|| format!("line {number}: a quotation mark is left open: {line}"))?;
        if words.is_empty() {
            continue;
        }
        let parsed = Line::try_parse_from(words).map_err(|error| {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            format!("line {number}: {}: {line}", first.trim_start_matches("error: "))
        })?;
        ops.push((parsed.op.name(), parsed.op));
    }
    Ok(ops)
}

impl Op {
    fn path(&self) -> &str {
        match self {
            Self::Check { path, .. }
            | Self::Create { path, .. }
            | Self::Set { path, .. }
            | Self::Rm { path, .. } => path,
        }
    }

    fn verb(&self) -> &'static str {
        match self {
            Self::Check { .. } => "check",
            Self::Create { .. } => "create",
            Self::Set { .. } => "set",
            Self::Rm { .. } => "rm",
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.verb(), self.path())
    }

    fn to_request(&self, zk: &Zk, format: Format) -> Result<WriteRequest, String> {
        let full = zk.full(self.path());
        Ok(match self {
            Self::Check { version, .. } => {
                WriteRequest::Check { path: full.into(), version: *version }
            }
            Self::Rm { version, .. } => {
                WriteRequest::Delete { path: full.into(), version: *version }
            }
            Self::Set { data, data_base64, version, .. } => WriteRequest::SetData {
                path: full.into(),
                data: Some(Bytes::from(bytes(data, data_base64.as_deref(), format)?)),
                version: *version,
            },
            Self::Create { data, data_base64, sequential, ephemeral, container, acl, .. } => {
                let kind = match (ephemeral, container) {
                    (true, true) => return Err("an ephemeral is no container".to_owned()),
                    (true, false) => Kind::Ephemeral,
                    (false, true) => Kind::Container,
                    (false, false) => Kind::Persistent,
                };
                let new = NewZnode {
                    path: self.path(),
                    data: &bytes(data, data_base64.as_deref(), format)?,
                    acl: &acl::parse(acl.as_deref().unwrap_or("world:anyone:cdrwa"))?,
                    kind,
                    sequential: *sequential,
                };
                new.to_request(&full)
            }
        })
    }
}

fn bytes(data: &str, base64: Option<&str>, format: Format) -> Result<Vec<u8>, String> {
    match base64 {
        Some(encoded) => decode_base64(encoded.as_bytes()),
        None if format.base64 => decode_base64(data.as_bytes()),
        None if format.hex => decode_hex(data.as_bytes()),
        None => Ok(data.as_bytes().to_vec()),
    }
}

impl Multi {
    pub(crate) fn run(&self, context: &mut Context) -> Outcome {
        // --base64 and --hex are about the znodes' data, not the script.
        let script = Format::default().data_from(&self.script)?;
        let script = String::from_utf8(script)
            .map_err(|error| Failure::Usage(format!("the script is not UTF-8: {error}")))?;
        let ops = parse(&script).map_err(Failure::Usage)?;
        if ops.is_empty() {
            return Err(Failure::Usage("the script has no op".to_owned()));
        }
        let mut requests = Vec::new();
        for (name, op) in &ops {
            let request = op.to_request(&context.zk, context.out.format);
            requests.push(request.map_err(|why| Failure::Usage(format!("{name}: {why}")))?);
        }
        match context.zk.multi(requests)? {
            Ok(results) => print(context, &ops, &results),
            Err(codes) => Err(blame(&ops, &codes)),
        }
    }
}

/// The op that is to blame is the first that neither succeeded nor only came after it.
fn blame(ops: &[(String, Op)], codes: &[ErrorCode]) -> Failure {
    let own =
        |code: &ErrorCode| *code != ErrorCode::OK && *code != ErrorCode::RUNTIME_INCONSISTENCY;
    let at = codes.iter().position(own).unwrap_or_default();
    let line = ops.get(at).map(|(name, _)| name.clone()).unwrap_or_default();
    let code = codes.get(at).copied().unwrap_or(ErrorCode::RUNTIME_INCONSISTENCY);
    Failure::MultiRefused { code, op: at + 1, line }
}

fn print(context: &mut Context, ops: &[(String, Op)], results: &[MultiResult]) -> Outcome {
    let mut values = Vec::new();
    for ((_, op), result) in ops.iter().zip(results) {
        let (path, stat) = match result {
            MultiResult::Create { path } => (context.zk.seen(path), None),
            MultiResult::Create2 { path, stat } => (context.zk.seen(path), Some(stat)),
            MultiResult::SetData(stat) => (op.path().to_owned(), Some(stat)),
            MultiResult::Delete | MultiResult::Check => (op.path().to_owned(), None),
        };
        if !context.out.format.json {
            context.out.line(&format!("{} {path}", op.verb()))?;
        }
        let mut value = json!({ "op": op.verb(), "path": path });
        if let Some(stat) = stat {
            value["stat"] = stat::json(stat);
        }
        values.push(value);
    }
    context.out.json_only(&Value::Array(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(script: &str) -> Vec<String> {
        let ops = parse(script).unwrap_or_else(|error| panic!("{error}"));
        ops.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn scripts_are_read_from_lines() {
        let script = "# all at once\ncheck /a --version 3\n\ncreate /b 'some data' -s -e\n\
                      set /a \"x y\" --version 4 # why not\nrm /c\ncreate /d -c\n";
        assert_eq!(names(script), ["check /a", "create /b", "set /a", "rm /c", "create /d"]);
        let ops = parse(script).unwrap();
        let Op::Create { data, sequential, ephemeral, container, .. } = &ops[1].1 else {
            panic!("a create")
        };
        assert_eq!(
            (data.as_str(), sequential, ephemeral, container),
            ("some data", &true, &true, &false)
        );
        assert_eq!(
            ops[2].1,
            Op::Set { path: "/a".into(), data: "x y".into(), data_base64: None, version: 4 }
        );
    }

    #[test]
    fn scripts_are_read_from_json() {
        let script = r#" [{"op":"check","path":"/a","version":3}, {"op":"create","path":"/b"},
            {"op":"set","path":"/a","data_base64":"AAE="}, {"op":"rm","path":"/c"}]"#;
        assert_eq!(names(script), ["check /a", "create /b", "set /a", "rm /c"]);
        let ops = parse(script).unwrap();
        let Op::Set { data, data_base64, version, .. } = &ops[2].1 else { panic!("a set") };
        assert_eq!(bytes(data, data_base64.as_deref(), Format::default()), Ok(vec![0, 1]));
        assert_eq!(*version, -1);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (script, expected) in [
            ("rm /a\nget /b", "line 2"),
            ("rm a", "line 1"),
            ("set /a", "line 1"),
            ("create /a 'x", "line 1: a quotation mark"),
            ("check /a --version x", "invalid value"),
            ("create /a -e -c", "cannot be used with"),
            ("[{\"op\":\"rm\"}]", "missing field"),
            ("[{\"op\":\"rm\",\"path\":\"/a\",\"x\":1}]", "unknown field"),
            ("[", "the script"),
        ] {
            let error = parse(script).expect_err(script);
            assert!(error.contains(expected), "{script}: {error}");
        }
    }

    #[test]
    fn the_op_to_blame_is_found() {
        let ops = parse("rm /a\nrm /b\nrm /c").unwrap();
        let codes = [ErrorCode::OK, ErrorCode::NO_NODE, ErrorCode::RUNTIME_INCONSISTENCY];
        let failure = blame(&ops, &codes);
        assert!(failure.to_string().contains("op 2 (rm /b)"), "{failure}");
    }
}
