//! Jute, ZooKeeper's encoding: big-endian integers, length-prefixed strings and buffers
//! (`client-protocol.md` part 1). Decoding copies nothing and believes no length that received
//! bytes do not back.

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::{Str, StrList};
use crate::model::request::RawAcl;
use crate::model::{Acl, Id, Perms, Stat, Zxid};

/// Bytes that do not decode: where, in which field, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {at}: {kind}")]
pub struct DecodeError {
    /// Offset in the record.
    pub at: usize,
    /// The field being read.
    pub field: &'static str,
    /// What is wrong with it.
    pub kind: DecodeErrorKind,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// Fewer bytes than the field needs.
    #[error("input ends within the field")]
    Short,
    /// A length below -1 or above the bound.
    #[error("unreasonable length {0}")]
    Length(i32),
    /// Null where a value is needed.
    #[error("null is not allowed here")]
    Null,
    /// Text that does not have its form.
    #[error("text is malformed")]
    Text,
    /// A number outside its enumeration.
    #[error("{0} is not a known value")]
    Unknown(i32),
    /// What came is not what was sent.
    #[error("the bytes before it were damaged on their way")]
    Damaged,
}

/// Reads fields from a received record, one after the other.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &Bytes) -> Self {
        Self { bytes: bytes.clone(), at: 0 }
    }

    /// Bytes read.
    #[must_use]
    pub const fn read(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error at the present place.
    #[must_use]
    pub const fn error(&self, field: &'static str, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { at: self.at, field, kind }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, field: &'static str, len: usize) -> Result<Bytes, DecodeError> {
        if self.remaining() < len {
            return Err(self.error(field, DecodeErrorKind::Short));
        }
        let part = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(part)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let end = self.at.saturating_add(N);
        let part = self.bytes.get(self.at..end).and_then(|part| part.try_into().ok());
        let array = part.ok_or_else(|| self.error(field, DecodeErrorKind::Short))?;
        self.at = end;
        Ok(array)
    }

    /// A 4-byte integer.
    pub fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    /// An 8-byte integer.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    /// One byte; any value but 0 is true.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.array(field).map(|[byte]: [u8; 1]| byte != 0)
    }

    /// A buffer; `None` is null.
    pub fn buffer(&mut self, field: &'static str) -> Result<Option<Bytes>, DecodeError> {
        let len = self.i32(field)?;
        if len == -1 {
            return Ok(None);
        }
        let bad = self.error(field, DecodeErrorKind::Length(len));
        let len = usize::try_from(len).map_err(|_| bad)?;
        self.take(field, len).map(Some)
    }

    /// A string; `None` is null. Malformed UTF-8 becomes U+FFFD.
    pub fn str(&mut self, field: &'static str) -> Result<Option<Str>, DecodeError> {
        Ok(self.buffer(field)?.map(Str::from_utf8_lossy))
    }

    /// A string that must not be null.
    pub fn some_str(&mut self, field: &'static str) -> Result<Str, DecodeError> {
        let null = self.error(field, DecodeErrorKind::Null);
        self.str(field)?.ok_or(null)
    }

    /// A vector; `None` is null (-1), other counts below 1 are empty. Grows as elements arrive.
    pub fn vector<T>(
        &mut self,
        field: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let count = self.i32(field)?;
        if count == -1 {
            return Ok(None);
        }
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// A vector of strings, checked and left as it is; `None` is null. With null strings in it
    /// those before the first, or all others if it `skips_null`; and whether there are any.
    pub fn strings(
        &mut self,
        field: &'static str,
        skips_null: bool,
    ) -> Result<Option<(StrList, bool)>, DecodeError> {
        let count = self.i32(field)?;
        if count == -1 {
            return Ok(None);
        }
        let (from, mut first_null, mut len) = (self.at, None, 0);
        for _ in 0..count {
            let at = self.at;
            let length = self.i32(field)?;
            let bad = || self.error(field, DecodeErrorKind::Length(length));
            if length == -1 {
                first_null.get_or_insert(at);
                continue;
            }
            let length = usize::try_from(length).map_err(|_| bad())?;
            if self.remaining() < length {
                return Err(self.error(field, DecodeErrorKind::Short));
            }
            self.at += length;
            if first_null.is_none() || skips_null {
                len += 1;
            }
        }
        let to = first_null.filter(|_| !skips_null).unwrap_or(self.at);
        let mut list = StrList::new(self.bytes.slice(from..to), len);
        if skips_null && first_null.is_some() {
            list = list.collect();
        }
        Ok(Some((list, first_null.is_some())))
    }

    /// An ACL as a client sends it.
    pub fn raw_acls(&mut self) -> Result<Option<Vec<RawAcl>>, DecodeError> {
        self.vector("acl", |reader| {
            let perms = Perms(reader.i32("acl.perms")?);
            Ok(RawAcl { perms, scheme: reader.str("acl.scheme")?, id: reader.str("acl.id")? })
        })
    }

    /// An ACL as a txn holds it.
    pub fn acls(&mut self) -> Result<Vec<Acl>, DecodeError> {
        let acls = self.vector("acl", |reader| {
            let perms = Perms(reader.i32("acl.perms")?);
            let scheme = reader.str("acl.scheme")?.unwrap_or_default();
            let id = reader.str("acl.id")?.unwrap_or_default();
            Ok(Acl { perms, id: Id { scheme, id } })
        })?;
        Ok(acls.unwrap_or_default())
    }

    /// A stat as clients see it, 68 bytes.
    pub fn stat(&mut self) -> Result<Stat, DecodeError> {
        Ok(Stat {
            czxid: Zxid(self.i64("stat.czxid")?),
            mzxid: Zxid(self.i64("stat.mzxid")?),
            ctime: self.i64("stat.ctime")?,
            mtime: self.i64("stat.mtime")?,
            version: self.i32("stat.version")?,
            cversion: self.i32("stat.cversion")?,
            aversion: self.i32("stat.aversion")?,
            ephemeral_owner: self.i64("stat.ephemeralOwner")?,
            data_length: self.i32("stat.dataLength")?,
            num_children: self.i32("stat.numChildren")?,
            pzxid: Zxid(self.i64("stat.pzxid")?),
        })
    }
}

/// A 4-byte integer.
pub fn put_i32(buf: &mut BytesMut, value: i32) {
    buf.put_i32(value);
}

/// An 8-byte integer.
pub fn put_i64(buf: &mut BytesMut, value: i64) {
    buf.put_i64(value);
}

/// 0 or 1.
pub fn put_bool(buf: &mut BytesMut, value: bool) {
    buf.put_u8(u8::from(value));
}

/// Appends a vector of strings.
pub fn put_strings(buf: &mut BytesMut, strings: &StrList) {
    put_len(buf, strings.len());
    buf.put_slice(strings.as_bytes());
}

/// A length or count. What we encode is bounded far below 2 GiB by what we accept.
pub fn put_len(buf: &mut BytesMut, len: usize) {
    buf.put_i32(i32::try_from(len).expect("encoded values are bounded by accepted frames"));
}

/// A string.
pub fn put_str(buf: &mut BytesMut, value: &str) {
    put_buffer(buf, Some(value.as_bytes()));
}

/// A buffer; `None` is null.
pub fn put_buffer(buf: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(bytes) => {
            put_len(buf, bytes.len());
            buf.extend_from_slice(bytes);
        }
        None => buf.put_i32(-1),
    }
}

/// A vector of ACL entries.
pub fn put_acls(buf: &mut BytesMut, acls: &[Acl]) {
    put_len(buf, acls.len());
    for acl in acls {
        buf.put_i32(acl.perms.0);
        put_str(buf, &acl.id.scheme);
        put_str(buf, &acl.id.id);
    }
}

/// Bytes of a stat.
const STAT_BYTES: usize = 68;

/// A stat as clients see it, 68 bytes.
pub fn put_stat(buf: &mut BytesMut, stat: &Stat) {
    let mut bytes = [0; STAT_BYTES];
    let mut room = bytes.as_mut_slice();
    room.put_i64(stat.czxid.0);
    room.put_i64(stat.mzxid.0);
    room.put_i64(stat.ctime);
    room.put_i64(stat.mtime);
    room.put_i32(stat.version);
    room.put_i32(stat.cversion);
    room.put_i32(stat.aversion);
    room.put_i64(stat.ephemeral_owner);
    room.put_i32(stat.data_length);
    room.put_i32(stat.num_children);
    room.put_i64(stat.pzxid.0);
    buf.put_slice(&bytes);
}
