//! Typed calls on a session, below a chroot and with a time limit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringkeeper::base::Str;
use ringkeeper::client::session::{CallError, Session, Ticket};
use ringkeeper::client::{Reply, replies, requests};
use ringkeeper::model::request::{PathWatch, RawAcl, WatcherSelection, WatcherType};
use ringkeeper::model::{
    Acl, CreateKind, CreateRequest, ErrorCode, ReadRequest, ReconfigRequest, Request, Stat,
    WriteRequest,
};
use ringkeeper::wire::jute::{DecodeError, Reader};
use ringkeeper::wire::response::MultiResult;

use crate::failure::{Failure, Outcome};

/// Requests in flight when many znodes are visited.
pub(crate) const WINDOW: usize = 64;

/// A session seen below a chroot.
#[derive(Clone)]
pub(crate) struct Zk {
    pub(crate) session: Arc<Session>,
    chroot: String,
    /// For one call.
    pub(crate) limit: Duration,
}

/// What a create asks for.
pub(crate) struct NewZnode<'a> {
    pub(crate) path: &'a str,
    pub(crate) data: &'a [u8],
    pub(crate) acl: &'a [Acl],
    pub(crate) kind: Kind,
    pub(crate) sequential: bool,
}

/// Kinds of znodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Persistent,
    Ephemeral,
    Container,
    Ttl(Duration),
}

impl Zk {
    pub(crate) fn new(session: Session, chroot: &str, limit: Duration) -> Self {
        Self { session: Arc::new(session), chroot: chroot.to_owned(), limit }
    }

    /// The same session without the chroot, for `/zookeeper`.
    pub(crate) fn absolute(&self) -> Self {
        Self { chroot: String::new(), ..self.clone() }
    }

    /// What is put before every path.
    pub(crate) fn chroot(&self) -> &str {
        &self.chroot
    }

    /// The same session with another time limit.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// The path that the server knows.
    pub(crate) fn full(&self, path: &str) -> String {
        match path {
            "/" if !self.chroot.is_empty() => self.chroot.clone(),
            path => format!("{}{path}", self.chroot),
        }
    }

    /// The path that the user knows.
    pub(crate) fn seen(&self, path: &str) -> String {
        below(&self.chroot, path)
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }

    /// A request that changes nothing.
    fn read<T>(
        &self,
        path: &str,
        request: &Request,
        decode: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<T, Failure> {
        finish(path, self.session.read(request, self.deadline()), decode)
    }

    /// A request that is sent once.
    fn write<T>(
        &self,
        path: &str,
        request: WriteRequest,
        decode: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<T, Failure> {
        let reply = self.session.call(&Request::Write(request), self.deadline());
        finish(path, reply, decode)
    }

    pub(crate) fn get(&self, path: &str, watch: bool) -> Result<(Option<Bytes>, Stat), Failure> {
        self.read(path, &requests::get(&self.full(path), watch), replies::data_and_stat)
    }

    pub(crate) fn stat(&self, path: &str, watch: bool) -> Result<Stat, Failure> {
        self.read(path, &requests::exists(&self.full(path), watch), Reader::stat)
    }

    /// As [`Zk::stat`]; `None` if the znode does not exist.
    pub(crate) fn exists(&self, path: &str, watch: bool) -> Result<Option<Stat>, Failure> {
        none_if_missing(self.stat(path, watch))
    }

    /// Names in order.
    pub(crate) fn children(&self, path: &str, watch: bool) -> Result<(Vec<String>, Stat), Failure> {
        let target = PathWatch { path: self.full(path).into(), watch };
        let request = Request::Read(ReadRequest::GetChildren2(target));
        self.read(path, &request, |body| Ok((sorted(body)?, body.stat()?)))
    }

    pub(crate) fn create(&self, new: &NewZnode<'_>) -> Result<String, Failure> {
        self.created(new.path, self.submit_create(new))
    }

    /// Sends a create; [`Zk::created`] waits for its reply.
    pub(crate) fn submit_create(&self, new: &NewZnode<'_>) -> Result<Ticket, CallError> {
        let request = Request::Write(new.to_request(&self.full(new.path)));
        self.session.submit(&request, self.deadline())
    }

    /// The path of a znode whose create was sent.
    pub(crate) fn created(
        &self,
        path: &str,
        ticket: Result<Ticket, CallError>,
    ) -> Result<String, Failure> {
        let reply = ticket.and_then(|ticket| ticket.wait(self.deadline()));
        Ok(self.seen(&finish(path, reply, |body| body.some_str("path"))?))
    }

    /// Creates what is missing of `path`'s parents, with `acl`.
    pub(crate) fn create_parents(&self, path: &str, acl: &[Acl], kind: Kind) -> Outcome {
        for (at, _) in path.match_indices('/').skip(1) {
            self.ensure(&path[..at], acl, kind)?;
        }
        Ok(())
    }

    /// Creates a znode unless it exists. An unknown outcome is settled by looking.
    pub(crate) fn ensure(&self, path: &str, acl: &[Acl], kind: Kind) -> Outcome {
        if path.is_empty() || path == "/" {
            return Ok(());
        }
        let new = NewZnode { path, data: b"", acl, kind, sequential: false };
        match self.create(&new) {
            Ok(_) => Ok(()),
            Err(failure) if failure.is(ErrorCode::NODE_EXISTS) => Ok(()),
            Err(failure) if failure.is(ErrorCode::NO_NODE) => {
                self.create_parents(path, acl, kind)?;
                self.ensure(path, acl, kind)
            }
            // Servers without containers, or that do not offer them.
            Err(failure) if failure.is(ErrorCode::UNIMPLEMENTED) && kind != Kind::Persistent => {
                self.ensure(path, acl, Kind::Persistent)
            }
            Err(failure @ Failure::Unknown(_)) => match self.exists(path, false) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => self.ensure(path, acl, kind),
                Err(_) => Err(failure),
            },
            Err(failure) => Err(failure),
        }
    }

    pub(crate) fn set(&self, path: &str, data: &[u8], version: i32) -> Result<Stat, Failure> {
        let data = Some(Bytes::copy_from_slice(data));
        let request = WriteRequest::SetData { path: self.full(path).into(), data, version };
        self.write(path, request, Reader::stat)
    }

    pub(crate) fn delete(&self, path: &str, version: i32) -> Outcome {
        let request = WriteRequest::Delete { path: self.full(path).into(), version };
        self.write(path, request, |_| Ok(()))
    }

    pub(crate) fn acl(&self, path: &str) -> Result<(Vec<Acl>, Stat), Failure> {
        let request = Request::Read(ReadRequest::GetAcl { path: self.full(path).into() });
        self.read(path, &request, replies::acl_and_stat)
    }

    pub(crate) fn set_acl(&self, path: &str, acl: &[Acl], version: i32) -> Result<Stat, Failure> {
        let acl = Some(raw(acl));
        let request = WriteRequest::SetAcl { path: self.full(path).into(), acl, version };
        self.write(path, request, Reader::stat)
    }

    /// Changes the members of the ensemble; the new configuration.
    pub(crate) fn reconfig(
        &self,
        request: ReconfigRequest,
    ) -> Result<(Option<Bytes>, Stat), Failure> {
        let request = WriteRequest::Reconfig(request);
        self.write("/zookeeper/config", request, replies::data_and_stat)
    }

    pub(crate) fn sync(&self, path: &str) -> Outcome {
        self.read(path, &Request::Sync { path: self.full(path).into() }, |_| Ok(()))
    }

    pub(crate) fn ephemerals(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let full = Some(self.full(prefix).into());
        let request = Request::Read(ReadRequest::GetEphemerals { prefix: full });
        let paths = self.read(prefix, &request, sorted)?;
        Ok(paths.iter().map(|path| self.seen(path)).collect())
    }

    pub(crate) fn count(&self, path: &str) -> Result<i32, Failure> {
        let path_of = self.full(path).into();
        let request = Request::Read(ReadRequest::GetAllChildrenNumber { path: path_of });
        self.read(path, &request, |body| body.i32("totalNumber"))
    }

    pub(crate) fn identities(&self) -> Result<Vec<(Str, Str)>, Failure> {
        self.read("", &Request::WhoAmI, replies::identities)
    }

    pub(crate) fn add_watch(&self, path: &str, recursive: bool) -> Outcome {
        let request =
            Request::Read(ReadRequest::AddWatch { path: self.full(path).into(), recursive });
        self.read(path, &request, |_| Ok(()))
    }

    /// Removes every watch on a path.
    pub(crate) fn remove_watches(&self, path: &str) -> Outcome {
        let selection =
            WatcherSelection { path: self.full(path).into(), watcher_type: WatcherType::Any };
        self.read(path, &Request::Read(ReadRequest::RemoveWatches(selection)), |_| Ok(()))
    }

    /// Executes ops, with paths as the server knows them, as one txn.
    pub(crate) fn multi(
        &self,
        ops: Vec<WriteRequest>,
    ) -> Result<Result<Vec<MultiResult>, Vec<ErrorCode>>, Failure> {
        self.write("the multi", WriteRequest::Multi(ops), replies::multi)
    }

    /// Sends requests for many paths, [`WINDOW`] at a time, and passes on the replies in order.
    pub(crate) fn for_each<P: AsRef<str>>(
        &self,
        paths: impl IntoIterator<Item = P>,
        request: impl Fn(&str) -> Request,
        mut reply: impl FnMut(&Self, P, Result<Reply, CallError>) -> Outcome,
    ) -> Outcome {
        let mut paths = paths.into_iter();
        loop {
            let mut sent: Vec<(P, Result<Ticket, CallError>)> = Vec::new();
            for path in paths.by_ref().take(WINDOW) {
                let ticket = self.session.submit(&request(path.as_ref()), self.deadline());
                sent.push((path, ticket));
            }
            if sent.is_empty() {
                return Ok(());
            }
            for (path, ticket) in sent {
                let answer = ticket.and_then(|ticket| ticket.wait(self.deadline()));
                reply(self, path, answer)?;
            }
        }
    }

    /// Visits `root` and all below it, parents first, level by level, names in order. Znodes that
    /// vanish meanwhile are passed over.
    pub(crate) fn walk(&self, root: &str, mut visit: impl FnMut(&str) -> Outcome) -> Outcome {
        visit(root)?;
        let mut level = vec![root.to_owned()];
        while !level.is_empty() {
            let mut next = Vec::new();
            let request = |path: &str| requests::list(&self.full(path), false);
            self.for_each(&level, request, |zk, path, answer| {
                let answer = zk.again_if_lost(answer, || request(path));
                let names = match finish(path, answer, sorted) {
                    Err(failure) if failure.is(ErrorCode::NO_NODE) && path != root => return Ok(()),
                    names => names?,
                };
                for name in names {
                    let child = join(path, &name);
                    visit(&child)?;
                    next.push(child);
                }
                Ok(())
            })?;
            level = next;
        }
        Ok(())
    }

    /// For requests that change nothing.
    pub(crate) fn again_if_lost(
        &self,
        answer: Result<Reply, CallError>,
        request: impl Fn() -> Request,
    ) -> Result<Reply, CallError> {
        match answer {
            Err(CallError::Lost) => self.session.read(&request(), self.deadline()),
            answer => answer,
        }
    }
}

impl NewZnode<'_> {
    /// The create of `path` as the server knows it.
    pub(crate) fn to_request(&self, path: &str) -> WriteRequest {
        let (flags, kind) = match (self.kind, self.sequential) {
            (Kind::Persistent, false) => (0, CreateKind::Create),
            (Kind::Ephemeral, false) => (1, CreateKind::Create),
            (Kind::Persistent, true) => (2, CreateKind::Create),
            (Kind::Ephemeral, true) => (3, CreateKind::Create),
            (Kind::Container, _) => (4, CreateKind::Container),
            (Kind::Ttl(ttl), sequential) => {
                let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                (if sequential { 6 } else { 5 }, CreateKind::Ttl { ttl_ms })
            }
        };
        WriteRequest::Create(CreateRequest {
            kind,
            path: path.into(),
            data: Some(Bytes::copy_from_slice(self.data)),
            acl: Some(raw(self.acl)),
            flags,
        })
    }
}

/// Takes a reply apart and names the path in what went wrong.
pub(crate) fn finish<T>(
    path: &str,
    reply: Result<Reply, CallError>,
    decode: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
) -> Result<T, Failure> {
    let mut reply = reply.map_err(|error| Failure::of(error, path))?;
    decode(&mut reply.body).map_err(|error| Failure::of(CallError::Malformed(error), path))
}

/// `path` as it is seen below a chroot.
pub(crate) fn below(chroot: &str, path: &str) -> String {
    match path.strip_prefix(chroot) {
        Some("") => "/".to_owned(),
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        _ => path.to_owned(),
    }
}

/// The path of a child.
pub(crate) fn join(parent: &str, name: &str) -> String {
    format!("{}/{name}", parent.trim_end_matches('/'))
}

/// `None` instead of a refusal with NO_NODE.
pub(crate) fn none_if_missing<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.is(ErrorCode::NO_NODE) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn sorted(body: &mut Reader) -> Result<Vec<String>, DecodeError> {
    let mut names: Vec<String> = replies::strings(body)?.iter().map(|s| s.to_string()).collect();
    names.sort();
    Ok(names)
}

fn raw(acl: &[Acl]) -> Vec<RawAcl> {
    let entry = |acl: &Acl| RawAcl {
        perms: acl.perms,
        scheme: Some(acl.id.scheme.clone()),
        id: Some(acl.id.id.clone()),
    };
    acl.iter().map(entry).collect()
}
