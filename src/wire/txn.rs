//! Txns as Apache's servers log and send them (`quorum-and-disk.md` 7.2): header, record, digest.

use bytes::{BufMut, Bytes, BytesMut};

use super::connect::{finish_frame, jute_frame};
use super::jute::{self, DecodeError, DecodeErrorKind, Reader};
use crate::model::{
    Acl, CreateTxn, CreateTxnKind, ErrorCode, SessionId, Txn, TxnBody, TxnHeader, Xid, Zxid,
};

/// The only digest version that is written.
const DIGEST_VERSION: i32 = 2;
/// The type of a multi.
const MULTI: i32 = 14;
/// Bytes in front of a record.
const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 4;
/// Offset of the zxid.
pub(crate) const ZXID_AT: usize = 8 + 4;
/// Bytes of a digest behind a record.
const DIGEST_BYTES: usize = 12;

/// Appends a txn.
pub fn encode(header: &TxnHeader, body: &TxnBody, digest: Option<u64>, buf: &mut BytesMut) {
    around(header, body.type_number(), digest, buf, |buf| record(body, buf));
}

/// Appends the txn of a multi whose ops [`encode_op`] has put into `ops`.
pub fn encode_multi(
    header: &TxnHeader,
    ops: &[u8],
    op_count: usize,
    digest: Option<u64>,
    buf: &mut BytesMut,
) {
    around(header, MULTI, digest, buf, |buf| {
        jute::put_len(buf, op_count);
        buf.put_slice(ops);
    });
}

/// Appends one op of a multi's txn.
pub fn encode_op(body: &TxnBody, buf: &mut BytesMut) {
    debug_assert!(!matches!(body, TxnBody::Multi(_)), "a multi holds no multi");
    buf.put_i32(body.type_number());
    let frame = jute_frame(buf);
    record(body, buf);
    finish_frame(buf, frame);
}

/// Header and digest around a record.
fn around(
    header: &TxnHeader,
    number: i32,
    digest: Option<u64>,
    buf: &mut BytesMut,
    record: impl FnOnce(&mut BytesMut),
) {
    buf.put_i64(header.session.0);
    buf.put_i32(header.cxid.0);
    buf.put_i64(header.zxid.0);
    buf.put_i64(header.time_ms);
    buf.put_i32(number);
    record(buf);
    if let Some(digest) = digest {
        buf.put_i32(DIGEST_VERSION);
        buf.put_u64(digest);
    }
}

fn record(body: &TxnBody, buf: &mut BytesMut) {
    match body {
        TxnBody::CreateSession { timeout_ms } => buf.put_i32(*timeout_ms),
        TxnBody::CloseSession { paths: None } => {}
        TxnBody::CloseSession { paths: Some(paths) } => {
            jute::put_strings(buf, paths);
        }
        TxnBody::Error(code) => buf.put_i32(code.0),
        TxnBody::Create(create) => create_record(create, buf),
        TxnBody::Delete { path } | TxnBody::DeleteContainer { path } => jute::put_str(buf, path),
        TxnBody::SetData { path, data, version } | TxnBody::Reconfig { path, data, version } => {
            jute::put_str(buf, path);
            jute::put_buffer(buf, data.as_deref());
            buf.put_i32(*version);
        }
        TxnBody::SetAcl { path, acl, version } => {
            jute::put_str(buf, path);
            jute::put_acls(buf, acl);
            buf.put_i32(*version);
        }
        TxnBody::Check { path, version } => {
            jute::put_str(buf, path);
            buf.put_i32(*version);
        }
        TxnBody::Multi(bodies) => {
            jute::put_len(buf, bodies.len());
            bodies.iter().for_each(|body| encode_op(body, buf));
        }
    }
}

fn create_record(create: &CreateTxn, buf: &mut BytesMut) {
    jute::put_str(buf, &create.path);
    jute::put_buffer(buf, create.data.as_deref());
    jute::put_acls(buf, &create.acl);
    match create.kind {
        CreateTxnKind::Create { ephemeral } | CreateTxnKind::Create2 { ephemeral } => {
            jute::put_bool(buf, ephemeral);
            buf.put_i32(create.parent_cversion);
        }
        CreateTxnKind::Container => buf.put_i32(create.parent_cversion),
        CreateTxnKind::Ttl { ttl_ms } => {
            buf.put_i32(create.parent_cversion);
            buf.put_i64(ttl_ms);
        }
    }
}

/// Length of what [`encode`] appends.
#[must_use]
pub fn encoded_bytes(body: &TxnBody, digest: Option<u64>) -> usize {
    HEADER_BYTES + record_bytes(body) + if digest.is_some() { DIGEST_BYTES } else { 0 }
}

/// Length of what [`encode_multi`] appends, with a digest.
#[must_use]
pub const fn multi_encoded_bytes(ops: &[u8]) -> usize {
    HEADER_BYTES + 4 + ops.len() + DIGEST_BYTES
}

/// Length of what [`encode_op`] appends.
#[must_use]
pub fn op_bytes(body: &TxnBody) -> usize {
    4 + 4 + record_bytes(body)
}

fn record_bytes(body: &TxnBody) -> usize {
    let acls = |acl: &[Acl]| {
        let entries = acl.iter().map(|acl| 4 + 4 + acl.id.scheme.len() + 4 + acl.id.id.len());
        4 + entries.sum::<usize>()
    };
    let buffer = |data: &Option<Bytes>| 4 + data.as_ref().map_or(0, Bytes::len);
    match body {
        TxnBody::CloseSession { paths: None } => 0,
        TxnBody::CloseSession { paths: Some(paths) } => 4 + paths.as_bytes().len(),
        TxnBody::CreateSession { .. } | TxnBody::Error(_) => 4,
        TxnBody::Create(create) => {
            let kind = match create.kind {
                CreateTxnKind::Create { .. } | CreateTxnKind::Create2 { .. } => 1 + 4,
                CreateTxnKind::Container => 4,
                CreateTxnKind::Ttl { .. } => 4 + 8,
            };
            4 + create.path.len() + buffer(&create.data) + acls(&create.acl) + kind
        }
        TxnBody::Delete { path } | TxnBody::DeleteContainer { path } => 4 + path.len(),
        TxnBody::SetData { path, data, .. } | TxnBody::Reconfig { path, data, .. } => {
            4 + path.len() + buffer(data) + 4
        }
        TxnBody::SetAcl { path, acl, .. } => 4 + path.len() + acls(acl) + 4,
        TxnBody::Check { path, .. } => 4 + path.len() + 4,
        TxnBody::Multi(bodies) => {
            4 + bodies.iter().map(|body| 4 + 4 + record_bytes(body)).sum::<usize>()
        }
    }
}

/// Whether a txn is a configuration, by its header alone.
#[must_use]
pub fn is_reconfig(txn: &[u8]) -> bool {
    const TYPE_AT: usize = 8 + 4 + 8 + 8;
    txn.get(TYPE_AT..TYPE_AT + 4) == Some(&[0, 0, 0, 16])
}

/// Reads a txn. Bytes behind the record are a digest if there are enough of them.
pub fn decode(bytes: &Bytes) -> Result<Txn, DecodeError> {
    let mut reader = Reader::new(bytes);
    let session = SessionId(reader.i64("clientId")?);
    let cxid = Xid(reader.i32("cxid")?);
    let zxid = Zxid(reader.i64("zxid")?);
    let time_ms = reader.i64("time")?;
    let number = reader.i32("type")?;
    let body = match number {
        MULTI => TxnBody::Multi(multi(&mut reader)?),
        13 => return Err(reader.error("type", DecodeErrorKind::Unknown(number))),
        _ => decode_record(number, &mut reader)?,
    };
    let digest = decode_digest(&mut reader)?;
    Ok(Txn { header: TxnHeader { session, cxid, zxid, time_ms }, body, digest })
}

fn decode_digest(reader: &mut Reader) -> Result<Option<u64>, DecodeError> {
    if reader.remaining() == 0 {
        return Ok(None);
    }
    let version = reader.i32("digest.version")?;
    let digest = reader.i64("digest.treeDigest")?.cast_unsigned();
    Ok((version == DIGEST_VERSION).then_some(digest))
}

fn multi(reader: &mut Reader) -> Result<Vec<TxnBody>, DecodeError> {
    let bodies = reader.vector("txns", |reader| {
        let number = reader.i32("txns.type")?;
        let null = reader.error("txns.data", DecodeErrorKind::Null);
        let bytes = reader.buffer("txns.data")?.ok_or(null)?;
        decode_record(number, &mut Reader::new(&bytes))
    })?;
    Ok(bodies.unwrap_or_default())
}

fn decode_record(number: i32, reader: &mut Reader) -> Result<TxnBody, DecodeError> {
    Ok(match number {
        -10 => TxnBody::CreateSession { timeout_ms: reader.i32("timeOut")? },
        -11 if is_bare(reader) => TxnBody::CloseSession { paths: None },
        -11 => {
            let null = reader.error("paths2Delete", DecodeErrorKind::Null);
            match reader.strings("paths2Delete", false)? {
                Some((_, true)) => return Err(null),
                paths => {
                    let paths = paths.map(|(paths, _)| paths).unwrap_or_default();
                    TxnBody::CloseSession { paths: Some(paths) }
                }
            }
        }
        -1 => TxnBody::Error(ErrorCode(reader.i32("err")?)),
        1 | 15 | 19 | 21 => TxnBody::Create(decode_create(number, reader)?),
        2 => TxnBody::Delete { path: reader.some_str("path")? },
        20 => TxnBody::DeleteContainer { path: reader.some_str("path")? },
        5 => {
            let (path, data, version) = decode_set(reader)?;
            TxnBody::SetData { path, data, version }
        }
        16 => {
            let (path, data, version) = decode_set(reader)?;
            TxnBody::Reconfig { path, data, version }
        }
        7 => TxnBody::SetAcl {
            path: reader.some_str("path")?,
            acl: reader.acls()?,
            version: reader.i32("version")?,
        },
        13 => TxnBody::Check { path: reader.some_str("path")?, version: reader.i32("version")? },
        other => return Err(reader.error("type", DecodeErrorKind::Unknown(other))),
    })
}

/// Whether a closeSession has no record: nothing follows, or only a digest, as Apache writes it
/// with `closeSessionTxn.enabled=false`. As a record these bytes would be two empty paths.
fn is_bare(reader: &Reader) -> bool {
    match reader.remaining() {
        0 => true,
        DIGEST_BYTES => reader.clone().i32("digest.version") == Ok(DIGEST_VERSION),
        _ => false,
    }
}

fn decode_set(reader: &mut Reader) -> Result<(crate::base::Str, Option<Bytes>, i32), DecodeError> {
    Ok((reader.some_str("path")?, reader.buffer("data")?, reader.i32("version")?))
}

fn decode_create(number: i32, reader: &mut Reader) -> Result<CreateTxn, DecodeError> {
    let path = reader.some_str("path")?;
    let data = reader.buffer("data")?;
    let acl = reader.acls()?;
    let mut parent_cversion = -1;
    let kind = match number {
        1 | 15 => {
            let ephemeral = reader.bool("ephemeral")?;
            // The oldest form of the record ends here.
            if reader.remaining() != 0 {
                parent_cversion = reader.i32("parentCVersion")?;
            }
            match number {
                1 => CreateTxnKind::Create { ephemeral },
                _ => CreateTxnKind::Create2 { ephemeral },
            }
        }
        19 => {
            parent_cversion = reader.i32("parentCVersion")?;
            CreateTxnKind::Container
        }
        _ => {
            parent_cversion = reader.i32("parentCVersion")?;
            CreateTxnKind::Ttl { ttl_ms: reader.i64("ttl")? }
        }
    };
    Ok(CreateTxn { kind, path, data, acl, parent_cversion })
}
