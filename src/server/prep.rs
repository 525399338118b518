//! Prep: judges a write request against the tree and the changes in flight, and makes the txn.
//!
//! Every request becomes a txn: what the rules refuse becomes an error txn with its own zxid. The
//! order of the checks is `client-protocol.md` 5.2 and 5.3; the first failure wins.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

use crate::auth::{self, AuthConfig, Identities};
use crate::base::Str;
use crate::model::request::RawAcl;
use crate::model::{
    Acl, CreateKind, CreateRequest, CreateTxn, CreateTxnKind, EphemeralOwner, ErrorCode,
    ExtendedTypes, Perms, TxnBody, TxnHeader, WriteRequest, path,
};
use crate::tree::{self, Excess, Overlay, PendingZnode, Tree};
use crate::wire::txn::{encode_op, encoded_bytes, multi_encoded_bytes, op_bytes};

type Judged<T> = Result<T, ErrorCode>;

/// What prep looks at besides the request.
pub(crate) struct Prep<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) overlay: &'a mut Overlay,
    pub(crate) auth: &'a AuthConfig,
    pub(crate) extended_types: ExtendedTypes,
    pub(crate) enforce_quotas: bool,
    pub(crate) txn_bytes_max: usize,
    /// Whether the session may own ephemerals, or how it is refused.
    pub(crate) may_own: Judged<()>,
    /// Wall clock, ms.
    pub(crate) now_ms: i64,
    pub(crate) warnings: &'a QuotaWarnings,
}

/// Writes above quotas are told of once a second: clients could fill the log with them.
#[derive(Debug, Default)]
pub(crate) struct QuotaWarnings {
    told_at_ms: Cell<Option<i64>>,
    untold: Cell<u64>,
}

impl QuotaWarnings {
    const EVERY_MS: i64 = 1_000;

    /// Whether one is told of, and then how many were not since the last.
    fn take(&self, now_ms: i64) -> Option<u64> {
        let is_due = |told: i64| !(told..told.saturating_add(Self::EVERY_MS)).contains(&now_ms);
        if self.told_at_ms.get().is_none_or(is_due) {
            self.told_at_ms.set(Some(now_ms));
            return Some(self.untold.take());
        }
        self.untold.set(self.untold.get() + 1);
        None
    }
}

/// How far a multi has come.
#[derive(Debug)]
pub(crate) struct MultiPrep {
    /// Not yet judged.
    requests: std::vec::IntoIter<WriteRequest>,
    identities: Identities,
    bodies: Vec<TxnBody>,
    /// The same, as [`encode_op`] makes them.
    encoded: BytesMut,
    begun: bool,
    /// An op was refused, or the whole.
    failed: bool,
    /// What it has come to, while what was staged is taken back.
    refused: Option<Made>,
}

/// A txn that is made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) body: TxnBody,
    /// Of a multi its ops, as [`encode_op`] makes them.
    pub(crate) encoded_ops: BytesMut,
}

impl From<TxnBody> for Made {
    /// One that is no multi.
    fn from(body: TxnBody) -> Self {
        debug_assert!(!matches!(body, TxnBody::Multi(_)), "its ops are encoded by who makes them");
        Self { body, encoded_ops: BytesMut::new() }
    }
}

/// Bytes of an op in a txn that most are shorter than.
const OP_BYTES: usize = 64;

impl MultiPrep {
    pub(crate) fn new(requests: Vec<WriteRequest>, identities: Identities) -> Self {
        Self {
            bodies: Vec::with_capacity(requests.len()),
            encoded: BytesMut::with_capacity(requests.len() * OP_BYTES),
            requests: requests.into_iter(),
            identities,
            begun: false,
            failed: false,
            refused: None,
        }
    }

    /// Whether it is refused.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// As a whole, without its ops.
    fn refuse(&mut self, code: ErrorCode) {
        self.failed = true;
        self.refused = Some(TxnBody::Error(code).into());
    }

    fn push(&mut self, body: TxnBody) {
        encode_op(&body, &mut self.encoded);
        self.bodies.push(body);
    }
}

impl Prep<'_> {
    /// Makes the txn of `request`, which is no multi, and stages its effect for the requests that
    /// follow.
    pub(crate) fn prepare(
        &mut self,
        header: &TxnHeader,
        request: &WriteRequest,
        identities: &Identities,
    ) -> TxnBody {
        match self.single(header, request, identities, false) {
            Ok(body) if self.is_too_long(header, encoded_bytes(&body, Some(0))) => {
                TxnBody::Error(ErrorCode::BAD_ARGUMENTS)
            }
            Ok(body) => {
                self.overlay.stage(self.tree, header, &body);
                body
            }
            Err(code) => TxnBody::Error(code),
        }
    }

    /// A txn that no server could read must not reach a log (ZOOKEEPER-3496, 2101).
    fn is_too_long(&self, header: &TxnHeader, size: usize) -> bool {
        let too_long = self.txn_bytes_max < size;
        if too_long {
            let (session, limit) = (header.session, self.txn_bytes_max);
            tracing::warn!(%session, size, limit, "a write would make a txn longer than \
                jute.maxbuffer and jute.maxbuffer.extrasize allow, and was refused");
        }
        too_long
    }

    /// The txn of a configuration whose members were judged before.
    pub(crate) fn reconfigure(
        &mut self,
        header: &TxnHeader,
        text: &str,
        identities: &Identities,
    ) -> Result<TxnBody, ErrorCode> {
        let path = Str::from_static("/zookeeper/config");
        let znode = self.look(&path).ok_or(ErrorCode::NO_NODE)?;
        self.demand(&znode.acl, Perms::WRITE, identities)?;
        let data = Some(Bytes::copy_from_slice(text.as_bytes()));
        let body = TxnBody::Reconfig { path, data, version: -1 };
        if self.is_too_long(header, encoded_bytes(&body, Some(0))) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        self.overlay.stage(self.tree, header, &body);
        Ok(body)
    }

    /// A container or TTL znode was found overdue: `None` if it is needed again by now.
    pub(crate) fn reap(
        &mut self,
        header: &TxnHeader,
        path: &Str,
        never_used_ms: i64,
    ) -> Option<TxnBody> {
        let znode = self.look(path).filter(|znode| znode.child_count == 0)?;
        let owner = EphemeralOwner::of(znode.stat.ephemeral_owner, self.extended_types);
        if !tree::is_overdue(owner, &znode.stat, header.time_ms, never_used_ms) {
            return None;
        }
        let body = TxnBody::DeleteContainer { path: path.clone() };
        self.overlay.stage(self.tree, header, &body);
        Some(body)
    }

    /// Goes on with a multi; its txn once it is made. `left` says how many ops may still be judged
    /// or taken back; `granted` hears of each that was granted.
    pub(crate) fn multi(
        &mut self,
        header: &TxnHeader,
        multi: &mut MultiPrep,
        mut granted: impl FnMut(&WriteRequest, &TxnBody),
        left: &mut usize,
    ) -> Option<Made> {
        if multi.refused.is_none() {
            if !std::mem::replace(&mut multi.begun, true) {
                self.overlay.begin_multi();
            }
            while multi.refused.is_none() && !multi.requests.as_slice().is_empty() {
                *left = left.checked_sub(1)?;
                let Some(request) = multi.requests.next() else { break };
                self.next_of_multi(header, multi, &request, &mut granted);
            }
            if multi.refused.is_none() {
                let body = TxnBody::Multi(std::mem::take(&mut multi.bodies));
                let made = Made { body, encoded_ops: std::mem::take(&mut multi.encoded) };
                if !multi.failed {
                    self.overlay.keep_multi();
                    return Some(made);
                }
                multi.refused = Some(made);
            }
        }
        self.overlay.take_back_multi(left).then(|| multi.refused.take()).flatten()
    }

    fn next_of_multi(
        &mut self,
        header: &TxnHeader,
        multi: &mut MultiPrep,
        request: &WriteRequest,
        granted: &mut impl FnMut(&WriteRequest, &TxnBody),
    ) {
        let judged = match multi.failed {
            true => Err(ErrorCode::RUNTIME_INCONSISTENCY),
            false => self.single(header, request, &multi.identities, true),
        };
        let body = match judged {
            Ok(body) => body,
            Err(ErrorCode::MARSHALLING_ERROR) => return multi.refuse(ErrorCode::MARSHALLING_ERROR),
            Err(code) => {
                multi.failed = true;
                TxnBody::Error(code)
            }
        };
        // What it refers to may be long: it is not written down to be thrown away.
        if self.is_too_long(header, multi_encoded_bytes(&multi.encoded) + op_bytes(&body)) {
            return multi.refuse(ErrorCode::BAD_ARGUMENTS);
        }
        if !multi.failed {
            self.overlay.stage(self.tree, header, &body);
            granted(request, &body);
        }
        multi.push(body);
    }

    fn single(
        &self,
        header: &TxnHeader,
        request: &WriteRequest,
        identities: &Identities,
        in_multi: bool,
    ) -> Judged<TxnBody> {
        match request {
            WriteRequest::Create(create) => {
                self.create(create, identities, in_multi).map(TxnBody::Create)
            }
            WriteRequest::Delete { path, version } => self.delete(path, *version, identities),
            WriteRequest::SetData { path, data, version } => {
                let znode = self.look_validated(path, Perms::WRITE, identities)?;
                let new = data.as_ref().map_or(0, |data| data.len() as i64);
                self.check_quota(path, 0, new - znode.data_len as i64)?;
                let version = next_version(znode.stat.version, *version)?;
                Ok(TxnBody::SetData { path: path.clone(), data: data.clone(), version })
            }
            WriteRequest::SetAcl { path, acl, version } => {
                self.set_acl(path, acl.as_deref(), *version, identities)
            }
            WriteRequest::Check { path, version } => {
                let znode = self.look_validated(path, Perms::READ, identities)?;
                let version = next_version(znode.stat.version, *version)?;
                Ok(TxnBody::Check { path: path.clone(), version })
            }
            WriteRequest::Multi(_) | WriteRequest::CloseSession | WriteRequest::Reconfig(_) => {
                debug_assert!(header.session.0 != 0, "decoders refuse these inside a multi");
                Err(ErrorCode::MARSHALLING_ERROR)
            }
        }
    }

    fn create(
        &self,
        create: &CreateRequest,
        identities: &Identities,
        in_multi: bool,
    ) -> Judged<CreateTxn> {
        let mode = self.create_mode(create, in_multi)?;
        if mode.ephemeral {
            self.may_own?;
        }
        if !create.path.contains('/') || create.path.contains('\0') {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let acl = auth::fix_acl(self.auth, create.acl.as_deref(), identities)?;
        let parent_path = path::parent(&create.path).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let parent = self.look(parent_path).ok_or(ErrorCode::NO_NODE)?;
        self.demand(&parent.acl, Perms::CREATE, identities)?;
        let path = if mode.sequential {
            Str::from(format!("{}{:010}", create.path, parent.stat.cversion))
        } else {
            create.path.clone()
        };
        if !path::is_valid(&path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        if self.look(&path).is_some() {
            return Err(ErrorCode::NODE_EXISTS);
        }
        let owner = EphemeralOwner::of(parent.stat.ephemeral_owner, self.extended_types);
        if matches!(owner, EphemeralOwner::Session(_)) {
            return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
        }
        self.check_quota(&path, 1, create.data.as_ref().map_or(0, |data| data.len() as i64))?;
        let parent_cversion = parent.stat.cversion.wrapping_add(1);
        Ok(CreateTxn { kind: mode.kind, path, data: create.data.clone(), acl, parent_cversion })
    }

    /// Flags, opcode and TTL together decide what is created (`client-protocol.md` 5.7, 6.1).
    fn create_mode(&self, create: &CreateRequest, in_multi: bool) -> Judged<CreateMode> {
        let flags = create.flags;
        if !(0..=6).contains(&flags) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let ttl_flag = flags >= 5;
        if ttl_flag && self.extended_types == ExtendedTypes::Off {
            return Err(ErrorCode::UNIMPLEMENTED);
        }
        let sequential = matches!(flags, 2 | 3 | 6);
        let ephemeral = matches!(flags, 1 | 3);
        let kind = match create.kind {
            CreateKind::Ttl { ttl_ms } if ttl_flag => {
                if !(1..=EphemeralOwner::TTL_MS_MAX).contains(&ttl_ms) {
                    return Err(ErrorCode::BAD_ARGUMENTS);
                }
                CreateTxnKind::Ttl { ttl_ms }
            }
            CreateKind::Ttl { .. } if !in_multi => return Err(ErrorCode::BAD_ARGUMENTS),
            _ if ttl_flag => return Err(ErrorCode::BAD_ARGUMENTS),
            CreateKind::Container => CreateTxnKind::Container,
            _ if in_multi && flags == 4 => CreateTxnKind::Container,
            CreateKind::Create | CreateKind::Ttl { .. } => CreateTxnKind::Create { ephemeral },
            CreateKind::Create2 => CreateTxnKind::Create2 { ephemeral },
        };
        let ephemeral = matches!(
            kind,
            CreateTxnKind::Create { ephemeral: true } | CreateTxnKind::Create2 { ephemeral: true }
        );
        Ok(CreateMode { kind, sequential, ephemeral })
    }

    fn delete(&self, path: &Str, version: i32, identities: &Identities) -> Judged<TxnBody> {
        if !path.contains('/') || path.contains('\0') || is_built_in(path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let parent_path = path::parent(path).ok_or(ErrorCode::BAD_ARGUMENTS)?;
        let parent = self.look(parent_path).ok_or(ErrorCode::NO_NODE)?;
        self.demand(&parent.acl, Perms::DELETE, identities)?;
        let znode = self.look(path).ok_or(ErrorCode::NO_NODE)?;
        next_version(znode.stat.version, version)?;
        if znode.child_count != 0 {
            return Err(ErrorCode::NOT_EMPTY);
        }
        Ok(TxnBody::Delete { path: path.clone() })
    }

    fn set_acl(
        &self,
        path: &Str,
        acl: Option<&[RawAcl]>,
        version: i32,
        identities: &Identities,
    ) -> Judged<TxnBody> {
        if !path::is_valid(path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let acl = auth::fix_acl(self.auth, acl, identities)?;
        let znode = self.look(path).ok_or(ErrorCode::NO_NODE)?;
        self.demand(&znode.acl, Perms::ADMIN, identities)?;
        let version = next_version(znode.stat.aversion, version)?;
        Ok(TxnBody::SetAcl { path: path.clone(), acl, version })
    }

    /// The znode at `path`, if the path is valid, it exists, and `wanted` is allowed.
    fn look_validated(
        &self,
        path: &Str,
        wanted: Perms,
        identities: &Identities,
    ) -> Judged<PendingZnode> {
        if !path::is_valid(path) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let znode = self.look(path).ok_or(ErrorCode::NO_NODE)?;
        self.demand(&znode.acl, wanted, identities)?;
        Ok(znode)
    }

    /// Against applied usage: requests in flight do not count (`client-protocol.md` part 9).
    fn check_quota(&self, path: &str, count: i64, bytes: i64) -> Judged<()> {
        if !self.enforce_quotas {
            return Ok(());
        }
        let Some(quota) = self.tree.quota_of(path) else { return Ok(()) };
        let mut refused = false;
        for excess in quota.excesses(count, bytes) {
            let Excess { what, usage, limit, hard } = excess;
            if let Some(untold) = self.warnings.take(self.now_ms) {
                let root = &quota.root;
                tracing::warn!(path, %root, what, usage, limit, hard, untold, "quota exceeded");
            }
            refused |= hard;
        }
        if refused { Err(ErrorCode::QUOTA_EXCEEDED) } else { Ok(()) }
    }

    fn look(&self, path: &str) -> Option<PendingZnode> {
        self.overlay.look(self.tree, path)
    }

    fn demand(&self, acl: &[Acl], wanted: Perms, identities: &Identities) -> Judged<()> {
        if auth::allowed(self.auth, acl, wanted, identities) {
            Ok(())
        } else {
            Err(ErrorCode::NO_AUTH)
        }
    }
}

struct CreateMode {
    kind: CreateTxnKind,
    sequential: bool,
    ephemeral: bool,
}

/// The version after a change, if `expected` is the current one or -1. -1 itself is skipped, since
/// it would mean "any" to the next client (3.10's rule; earlier servers wrap through it).
const fn next_version(current: i32, expected: i32) -> Judged<i32> {
    if expected != -1 && expected != current {
        return Err(ErrorCode::BAD_VERSION);
    }
    match current.wrapping_add(1) {
        -1 => Ok(0),
        next => Ok(next),
    }
}

fn is_built_in(path: &str) -> bool {
    matches!(path, "/" | "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excesses_are_told_of_once_a_second() {
        let warnings = QuotaWarnings::default();
        let told = [5_000, 5_001, 5_999, 6_000, 6_500, 5_000, 5_100, 9_000];
        let told = told.map(|now_ms| warnings.take(now_ms));
        // The wall clock may go back.
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1), None, Some(1)]);
    }
}
