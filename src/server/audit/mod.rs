//! The audit log (`operations.md` 8.3): who changed what, from where, and how it ended. One line
//! for each change, in Apache's format: fields as `key=value`, separated by tabs.
//!
//! A line is made when prep has judged the request and told when the txn is committed, so the lines
//! are in zxid order and tell nothing that a crash could take back. Reads, and what is refused
//! before it becomes a txn, are not told of, nor is what was in flight when a server died, or when
//! an elected one had to apply it before a quorum had it.

use std::collections::VecDeque;

use crate::auth::Identities;
use crate::base::Str;
use crate::model::request::RawAcl;
use crate::model::{CreateRequest, ErrorCode, SessionId, TxnBody, WriteRequest};

#[cfg(test)]
mod tests;

/// The target of the lines, to filter by: failures are errors, all else is information.
pub const TARGET: &str = "audit";

/// What will be told of one request.
#[derive(Debug)]
pub(super) struct Entry {
    /// The beginning of each line.
    who: Line,
    failed: bool,
    /// The rest of each.
    lines: VecDeque<Line>,
}

impl Entry {
    /// Nothing yet, of whoever asks.
    pub(super) fn begin(session: SessionId, identities: &Identities) -> Self {
        let mut who = Line::default();
        who.field("session", &session.to_string());
        who.field("user", &users(identities));
        let ip = identities.iter().find(|id| id.scheme == "ip");
        who.field("ip", ip.map_or("", |id| &id.id));
        Self { who, failed: false, lines: VecDeque::new() }
    }

    /// What is to be told of `request`, of which prep has made `body`.
    pub(super) fn of(
        session: SessionId,
        identities: &Identities,
        request: &Result<WriteRequest, ErrorCode>,
        body: &TxnBody,
    ) -> Self {
        let mut entry = Self::begin(session, identities);
        match (request, body) {
            (Ok(WriteRequest::Multi(requests)), TxnBody::Multi(bodies))
                if !bodies.iter().any(TxnBody::is_error) =>
            {
                requests.iter().zip(bodies).for_each(|(asked, made)| entry.granted(asked, made));
            }
            (Ok(WriteRequest::Multi(_)), _) => entry.multi_failed(),
            (Ok(single), _) => {
                entry.failed = body.is_error();
                entry.granted(single, body);
            }
            // What does not decode has no name any more.
            (Err(_), _) => {}
        }
        entry
    }

    /// Of a multi, one op after the other: `request`, of which prep has made `body`.
    pub(super) fn granted(&mut self, request: &WriteRequest, body: &TxnBody) {
        if let Some(operation) = Operation::of(request, body) {
            self.push(&operation);
        }
    }

    /// Of a multi: it failed, whatever was granted.
    pub(super) fn multi_failed(&mut self) {
        self.failed = true;
        self.lines.clear();
        self.push(&Operation::named("multiOperation"));
    }

    fn push(&mut self, operation: &Operation<'_>) {
        let mut line = Line::default();
        line.field("operation", operation.name);
        for (key, value) in [
            ("znode", operation.path.map(Str::as_str)),
            ("znode_type", operation.create_mode),
            ("acl", operation.acl.as_deref()),
        ] {
            if let Some(value) = value {
                line.field(key, value);
            }
        }
        line.field("result", if self.failed { "failure" } else { "success" });
        self.lines.push_back(line);
    }

    /// The txn is committed: tells the next lines, at most so many.
    pub(super) fn tell(&mut self, lines_max: usize) {
        let who = &self.who.0;
        for Line(rest) in self.lines.drain(..lines_max.min(self.lines.len())) {
            if self.failed {
                tracing::error!(target: TARGET, "{who}\t{rest}");
            } else {
                tracing::info!(target: TARGET, "{who}\t{rest}");
            }
        }
    }
}

/// An ephemeral went with its session; `user` is the server's.
pub(super) fn ephemeral_deleted(user: &str, session: SessionId, path: &str) {
    let mut line = Line::default();
    line.field("session", &session.to_string());
    line.field("user", user);
    line.field("operation", "ephemeralZNodeDeletionOnSessionCloseOrExpire");
    line.field("znode", path);
    line.field("result", "success");
    tracing::info!(target: TARGET, "{}", line.0);
}

/// The server begins to serve, or cannot; `user` is its own.
pub fn server_start(user: &str, serves: bool) {
    if serves {
        tracing::info!(target: TARGET, "{}", of_server(user, "serverStart", "success"));
    } else {
        tracing::error!(target: TARGET, "{}", of_server(user, "serverStart", "failure"));
    }
}

/// The server was told to stop.
pub(super) fn server_stop(user: &str) {
    tracing::info!(target: TARGET, "{}", of_server(user, "serverStop", "invoked"));
}

fn of_server(user: &str, operation: &str, result: &str) -> String {
    let mut line = Line::default();
    line.field("user", user);
    line.field("operation", operation);
    line.field("result", result);
    line.0
}

/// What one op did, or was to do.
struct Operation<'a> {
    name: &'static str,
    path: Option<&'a Str>,
    create_mode: Option<&'static str>,
    acl: Option<String>,
}

impl<'a> Operation<'a> {
    const fn named(name: &'static str) -> Self {
        Self { name, path: None, create_mode: None, acl: None }
    }

    fn on(name: &'static str, path: &'a Str) -> Self {
        Self { path: Some(path), ..Self::named(name) }
    }

    fn of(request: &'a WriteRequest, body: &'a TxnBody) -> Option<Self> {
        match request {
            WriteRequest::Create(create) => {
                // A sequential znode has its final path.
                let path = match body {
                    TxnBody::Create(created) => &created.path,
                    _ => &create.path,
                };
                Some(Self { create_mode: create_mode(create), ..Self::on("create", path) })
            }
            WriteRequest::Delete { path, .. } => Some(Self::on("delete", path)),
            WriteRequest::SetData { path, .. } => Some(Self::on("setData", path)),
            WriteRequest::SetAcl { path, acl, .. } => {
                let acl = Some(acl_text(acl.as_deref().unwrap_or_default()));
                Some(Self { acl, ..Self::on("setAcl", path) })
            }
            WriteRequest::Reconfig(_) => Some(Self::named("reconfig")),
            WriteRequest::Check { .. } | WriteRequest::Multi(_) | WriteRequest::CloseSession => {
                None
            }
        }
    }
}

/// Apache tells the mode that the flags ask for, whatever the opcode makes of it.
fn create_mode(create: &CreateRequest) -> Option<&'static str> {
    Some(match create.flags {
        0 => "persistent",
        1 => "ephemeral",
        2 => "persistent_sequential",
        3 => "ephemeral_sequential",
        4 => "container",
        5 => "persistent_with_ttl",
        6 => "persistent_sequential_with_ttl",
        _ => return None,
    })
}

/// Entries as `scheme:id:perms`. Apache puts nothing between them.
fn acl_text(acl: &[RawAcl]) -> String {
    let entry = |entry: &RawAcl| {
        let text = |text: &Option<Str>| text.clone().unwrap_or_default();
        format!("{}:{}:{}", text(&entry.scheme), text(&entry.id), entry.perms.letters())
    };
    acl.iter().map(entry).collect::<Vec<_>>().join(",")
}

/// The names of all identities that have one.
fn users(identities: &Identities) -> String {
    let names = identities.who_am_i().into_iter().map(|(_, user)| user);
    let names: Vec<Str> = names.filter(|name| !name.trim().is_empty()).collect();
    names.join(",")
}

/// One line.
#[derive(Debug, Default)]
struct Line(String);

impl Line {
    /// Adds a field. Control characters are escaped: clients send any, and one could end the line
    /// and begin another.
    fn field(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('\t');
        }
        self.0.push_str(key);
        self.0.push('=');
        for character in value.chars() {
            if character.is_control() {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
    }
}
