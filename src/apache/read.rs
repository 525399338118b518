//! Reading a snapshot piece by piece. Nothing of it may be used before [`SnapshotDecoder::finish`]
//! has said that all of it is there and whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use adler2::Adler32;
use bytes::{Bytes, BytesMut};

use super::compression::{BadStream, Compression, Inflate};
use crate::base::Str;
use crate::model::{Acl, Id, Perms, SessionId, StatPersisted, Zxid};

/// A snapshot that is not whole: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {what}")]
pub struct SnapshotDamage {
    /// Offset in the uncompressed bytes where the damaged part starts.
    pub offset: u64,
    /// What is wrong with it.
    pub what: &'static str,
    /// All that is there is whole, but the file ends before the snapshot does: its writing was cut
    /// short, or is going on.
    pub is_cut: bool,
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotItem {
    /// A session.
    Session {
        /// Its id.
        id: SessionId,
        /// Its timeout, ms.
        timeout_ms: i32,
    },
    /// A znode; parents come before their children.
    Znode {
        /// Its path; the root's is `/` here.
        path: Str,
        /// Its data; `None` is null.
        data: Option<Bytes>,
        /// Its ACL.
        acl: Arc<[Acl]>,
        /// Its stored stat.
        stat: StatPersisted,
    },
}

/// The tree's digest at one txn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotDigest {
    /// Which txn it is of; 0 when the writer had applied none.
    pub zxid: Zxid,
    /// Digest version; 2 is the one that this server knows.
    pub version: i32,
    /// The digest.
    pub digest: u64,
}

/// What a whole snapshot says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// Sessions in it.
    pub session_count: u64,
    /// ACLs in its table.
    pub acl_count: u64,
    /// Znodes in it.
    pub znode_count: u64,
    /// Bytes of it, uncompressed.
    pub plain_bytes: u64,
    /// The digest section, if there is one (3.6 and later).
    pub digest: Option<SnapshotDigest>,
    /// The last txn applied when the writing ended, if the section is there (3.9 and later).
    pub last_zxid: Option<Zxid>,
}

/// Turns the bytes of a snapshot into items. Push its bytes in order; before each push take items
/// until there is none.
#[derive(Debug)]
pub struct SnapshotDecoder {
    record_bytes_max: usize,
    /// What follows a SNAP packet, not a file.
    is_stream: bool,
    inflate: Inflate,
    /// Pushed and not inflated.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// Inflated and not taken.
    plain: Bytes,
    /// An item was found to need so many bytes of `plain`.
    needed: usize,
    /// Of everything taken so far.
    adler: Adler32,
    stage: Stage,
    acls: BTreeMap<i64, Arc<[Acl]>>,
    summary: SnapshotSummary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    SessionCount,
    /// So many are to come.
    Sessions(i32),
    AclCount,
    /// So many are to come.
    Acls(i32),
    Znodes,
    Seal,
    /// The sections behind the first seal; which, the end of the file tells.
    Sections,
    /// The text that ends a stream.
    Signature,
    /// What comes is no longer the snapshot's.
    StreamEnd,
}

/// Why no item starts here.
enum Fault {
    /// So many bytes are needed.
    Short(usize),
    Bad(&'static str),
}

type Taken<T> = Result<T, Fault>;

impl SnapshotDecoder {
    /// At the start of a file. Values longer than `record_bytes_max` are taken for damage: twice
    /// `jute.maxbuffer` is what Apache's reader accepts.
    #[must_use]
    pub fn new(compression: Compression, record_bytes_max: usize) -> Self {
        Self {
            record_bytes_max,
            is_stream: false,
            inflate: Inflate::new(compression),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            plain: Bytes::new(),
            needed: 0,
            adler: Adler32::new(),
            stage: Stage::Header,
            acls: BTreeMap::new(),
            summary: SnapshotSummary::default(),
        }
    }

    /// At the first byte behind a SNAP packet: [`SnapshotDecoder::is_over`] says where the snapshot
    /// ends, and [`SnapshotDecoder::finish_stream`] takes the place of `finish`.
    #[must_use]
    pub fn for_stream(record_bytes_max: usize) -> Self {
        let decoder = Self::new(Compression::None, record_bytes_max);
        Self { is_stream: true, stage: Stage::SessionCount, ..decoder }
    }

    /// Takes the next piece of the file.
    pub fn push(&mut self, bytes: &Bytes) {
        if !bytes.is_empty() {
            self.waiting_bytes += bytes.len();
            self.waiting.push_back(bytes.clone());
        }
    }

    /// The stream's last byte was taken.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage == Stage::StreamEnd
    }

    /// The next item; `None` when more bytes are needed or the items are over.
    pub fn next_item(&mut self) -> Result<Option<SnapshotItem>, SnapshotDamage> {
        loop {
            if self.stage == Stage::Sections && SECTIONS_BYTES_MAX < self.plain.len() {
                return Err(self.damage(UNKNOWN_SECTIONS));
            }
            if self.is_over() {
                return Ok(None);
            }
            if self.plain.len() < self.needed.max(1) || self.stage == Stage::Sections {
                if !self.inflate_more()? {
                    return Ok(None);
                }
                continue;
            }
            let mut cursor = Cursor { bytes: &self.plain, at: 0, max: self.record_bytes_max };
            let taken = match self.stage {
                Stage::Header => cursor.header().map(|()| (Stage::SessionCount, None)),
                Stage::SessionCount => cursor.count().map(|count| (sessions_or_next(count), None)),
                Stage::Sessions(left) => {
                    cursor.session().map(|session| (sessions_or_next(left - 1), Some(session)))
                }
                Stage::AclCount => cursor.count().map(|count| (acls_or_next(count), None)),
                Stage::Acls(left) => cursor.acl().map(|(number, acl)| {
                    self.acls.insert(number, acl);
                    (acls_or_next(left - 1), None)
                }),
                Stage::Znodes => cursor.znode(&self.acls).map(|znode| match znode {
                    Some(znode) => (Stage::Znodes, Some(znode)),
                    None if self.is_stream => (Stage::Signature, None),
                    None => (Stage::Seal, None),
                }),
                Stage::Signature => cursor.signature().map(|()| (Stage::StreamEnd, None)),
                Stage::Seal => cursor.seal(self.adler).map(|()| (Stage::Sections, None)),
                Stage::Sections | Stage::StreamEnd => unreachable!("nothing is taken there"),
            };
            let len = cursor.at;
            match taken {
                Ok((stage, item)) => {
                    self.consume(len);
                    self.stage = stage;
                    self.needed = 0;
                    if let Some(item) = item {
                        self.count(&item);
                        return Ok(Some(item));
                    }
                }
                Err(Fault::Short(needed)) => self.needed = needed,
                Err(Fault::Bad(what)) => return Err(self.damage(what)),
            }
        }
    }

    /// Says what was read, if it was all and whole: call it once all of the file was pushed and all
    /// items were taken.
    pub fn finish(mut self) -> Result<SnapshotSummary, SnapshotDamage> {
        let mut plain = BytesMut::from(self.plain.as_ref());
        let finished = self.inflate.finish(&mut plain);
        self.plain = plain.freeze();
        // The last bytes of a compressed stream may come only with its end.
        if self.next_item()?.is_some() {
            return Err(self.damage("items were not taken"));
        }
        let ends = self.stage == Stage::Sections;
        let sections = match self.plain.len() {
            0 => Some((false, false)),
            LAST_ZXID_BYTES => Some((false, true)),
            DIGEST_BYTES => Some((true, false)),
            BOTH_BYTES => Some((true, true)),
            _ => None,
        };
        let is_cut = !ends || (sections.is_none() && self.plain.len() < BOTH_BYTES);
        let cut = |what| SnapshotDamage { is_cut, ..self.damage(what) };
        finished.map_err(|BadStream(what)| cut(what))?;
        if !ends {
            return Err(cut("the file ends before its seal"));
        }
        let (has_digest, has_last_zxid) = sections.ok_or_else(|| cut(UNKNOWN_SECTIONS))?;
        if has_digest {
            let digest = self.section(|cursor| {
                let zxid = Zxid(cursor.i64()?);
                let version = cursor.i32()?;
                Ok(SnapshotDigest { zxid, version, digest: cursor.i64()?.cast_unsigned() })
            })?;
            self.summary.digest = Some(digest);
        }
        if has_last_zxid {
            self.summary.last_zxid = Some(Zxid(self.section(|cursor| cursor.i64())?));
        }
        self.summary.acl_count = self.acls.len() as u64;
        Ok(self.summary)
    }

    /// Says what was read, and hands back what was pushed behind the snapshot: call it once
    /// [`SnapshotDecoder::is_over`] says so, or when nothing more will come.
    pub fn finish_stream(mut self) -> Result<(SnapshotSummary, Bytes), SnapshotDamage> {
        if !self.is_over() {
            return Err(self.damage("the stream ends inside the snapshot"));
        }
        self.summary.acl_count = self.acls.len() as u64;
        let mut rest = vec![self.plain];
        rest.extend(self.waiting);
        Ok((self.summary, joined(rest)))
    }

    /// A section and the seal behind it.
    fn section<T>(
        &mut self,
        take: impl FnOnce(&mut Cursor<'_>) -> Taken<T>,
    ) -> Result<T, SnapshotDamage> {
        let mut cursor = Cursor { bytes: &self.plain, at: 0, max: self.record_bytes_max };
        let taken = take(&mut cursor);
        let len = cursor.at;
        let value = taken.map_err(|_| self.damage(UNKNOWN_SECTIONS))?;
        self.consume(len);
        let mut cursor = Cursor { bytes: &self.plain, at: 0, max: self.record_bytes_max };
        let sealed = cursor.seal(self.adler);
        let len = cursor.at;
        match sealed {
            Ok(()) => self.consume(len),
            Err(Fault::Bad(what)) => return Err(self.damage(what)),
            Err(Fault::Short(_)) => return Err(self.damage(UNKNOWN_SECTIONS)),
        }
        Ok(value)
    }

    /// Inflates a piece of what waits; whether there was enough. Pieces are small, so that a stream
    /// of extreme density does not become gigabytes at once.
    fn inflate_more(&mut self) -> Result<bool, SnapshotDamage> {
        if matches!(self.inflate, Inflate::None) {
            // An item that comes in many pieces is put together once, not with each of them.
            let len = self.plain.len() + self.waiting_bytes;
            if self.waiting.is_empty() || len < self.needed {
                return Ok(false);
            }
            let mut parts = vec![std::mem::take(&mut self.plain)];
            parts.extend(self.waiting.drain(..));
            self.waiting_bytes = 0;
            self.plain = joined(parts);
            return Ok(true);
        }
        let Some(first) = self.waiting.front_mut() else { return Ok(false) };
        let piece = first.split_to(first.len().min(INFLATED_BYTES));
        self.waiting_bytes -= piece.len();
        if first.is_empty() {
            self.waiting.pop_front();
        }
        let mut plain = BytesMut::with_capacity(self.plain.len() + piece.len());
        plain.extend_from_slice(&self.plain);
        let fed = self.inflate.feed(&piece, &mut plain);
        self.plain = plain.freeze();
        fed.map_err(|BadStream(what)| self.damage(what))?;
        Ok(true)
    }

    fn consume(&mut self, len: usize) {
        let taken = self.plain.split_to(len);
        self.adler.write_slice(&taken);
        self.summary.plain_bytes += len as u64;
    }

    const fn count(&mut self, item: &SnapshotItem) {
        match item {
            SnapshotItem::Session { .. } => self.summary.session_count += 1,
            SnapshotItem::Znode { .. } => self.summary.znode_count += 1,
        }
    }

    const fn damage(&self, what: &'static str) -> SnapshotDamage {
        SnapshotDamage { offset: self.summary.plain_bytes, what, is_cut: false }
    }
}

const fn sessions_or_next(left: i32) -> Stage {
    if left == 0 { Stage::AclCount } else { Stage::Sessions(left) }
}

const fn acls_or_next(left: i32) -> Stage {
    if left == 0 { Stage::Znodes } else { Stage::Acls(left) }
}

/// Reads fields of one item; nothing is consumed before all of it is there.
struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
    max: usize,
}

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Taken<[u8; N]> {
        let end = self.at + N;
        let part = self.bytes.get(self.at..end).and_then(|part| part.try_into().ok());
        self.at = end;
        part.ok_or(Fault::Short(end))
    }

    fn i32(&mut self) -> Taken<i32> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Taken<i64> {
        self.array().map(i64::from_be_bytes)
    }

    fn count(&mut self) -> Taken<i32> {
        match self.i32()? {
            count if count < 0 => Err(Fault::Bad("a negative count")),
            count => Ok(count),
        }
    }

    /// `None` is null.
    fn buffer(&mut self) -> Taken<Option<Bytes>> {
        let len = self.i32()?;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).ok().filter(|len| *len <= self.max);
        let end = self.at + len.ok_or(Fault::Bad("an unreasonable length"))?;
        if self.bytes.len() < end {
            return Err(Fault::Short(end));
        }
        let part = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(Some(part))
    }

    fn str(&mut self) -> Taken<Str> {
        let bytes = self.buffer()?.ok_or(Fault::Bad("null where text is needed"))?;
        Ok(Str::from_utf8_lossy(bytes))
    }

    fn header(&mut self) -> Taken<()> {
        let magic: [u8; 4] = self.array()?;
        if magic != *MAGIC {
            return Err(Fault::Bad("no snapshot starts here, the magic number is absent"));
        }
        // Format version and database id: Apache's reader believes any.
        self.i32()?;
        self.i64()?;
        Ok(())
    }

    fn session(&mut self) -> Taken<SnapshotItem> {
        let id = SessionId(self.i64()?);
        Ok(SnapshotItem::Session { id, timeout_ms: self.i32()? })
    }

    fn acl(&mut self) -> Taken<(i64, Arc<[Acl]>)> {
        let number = self.i64()?;
        let count = self.i32()?;
        let mut acl = Vec::new();
        for _ in 0..count {
            if self.max < self.at {
                return Err(Fault::Bad("an unreasonable length"));
            }
            let perms = Perms(self.i32()?);
            // Copied: ACLs live on, the piece they came in does not.
            let scheme = Str::from(&*self.str()?);
            let id = Str::from(&*self.str()?);
            acl.push(Acl { perms, id: Id { scheme, id } });
        }
        Ok((number, acl.into()))
    }

    /// `None` is the end of the znodes.
    fn znode(&mut self, acls: &BTreeMap<i64, Arc<[Acl]>>) -> Taken<Option<SnapshotItem>> {
        let path = self.str()?;
        if path == END_OF_ZNODES {
            return Ok(None);
        }
        let path = if path.is_empty() { Str::from_static("/") } else { path };
        let data = self.buffer()?;
        let acl = match self.i64()? {
            OPEN_ACL => Arc::from([Acl::open()]),
            number => match acls.get(&number) {
                Some(acl) => Arc::clone(acl),
                // Apache's servers write the table first, and give an ACL that comes into use
                // later the next number, also if it was in use before: the txn that did that is
                // behind the snapshot, and says what it is.
                None if is_next(acls, number) => Arc::from([Acl::unknown()]),
                None => {
                    let what = "a znode refers to an ACL that the snapshot does not have";
                    return Err(Fault::Bad(what));
                }
            },
        };
        let stat = self.stat()?;
        Ok(Some(SnapshotItem::Znode { path, data, acl, stat }))
    }

    fn stat(&mut self) -> Taken<StatPersisted> {
        let mut stat = StatPersisted {
            czxid: Zxid(self.i64()?),
            mzxid: Zxid(self.i64()?),
            ctime: self.i64()?,
            mtime: self.i64()?,
            version: self.i32()?,
            cversion: self.i32()?,
            aversion: self.i32()?,
            ephemeral_owner: self.i64()?,
            ..StatPersisted::default()
        };
        stat.pzxid = Zxid(self.i64()?);
        Ok(stat)
    }

    fn signature(&mut self) -> Taken<()> {
        match self.array::<{ 4 + SIGNATURE.len() }>()?.strip_prefix(&[0, 0, 0, 10]) {
            Some(text) if text == SIGNATURE.as_bytes() => Ok(()),
            _ => Err(Fault::Bad("the text behind the last znode is another one")),
        }
    }

    fn seal(&mut self, before: Adler32) -> Taken<()> {
        let sum = self.i64()?;
        if self.str()? != END_OF_ZNODES || sum != i64::from(before.checksum()) {
            return Err(Fault::Bad("the seal does not match what is before it"));
        }
        Ok(())
    }
}

/// Whether a server with this table may have given this number since.
fn is_next(acls: &BTreeMap<i64, Arc<[Acl]>>, number: i64) -> bool {
    let last = acls.keys().next_back().copied().unwrap_or(0);
    last < number && number.checked_sub(last).is_some_and(|ahead| ahead <= ACLS_MEANWHILE_MAX)
}

/// One after the other; without a copy if there is only one.
fn joined(mut parts: Vec<Bytes>) -> Bytes {
    parts.retain(|part| !part.is_empty());
    match parts.as_slice() {
        [] => Bytes::new(),
        [part] => part.clone(),
        _ => Bytes::from(parts.concat()),
    }
}

/// Magic number at the start of a snapshot.
pub(super) const MAGIC: &[u8; 4] = b"ZKSN";
/// The path behind the last znode, and the text in every seal.
pub(super) const END_OF_ZNODES: &str = "/";
/// The text behind the last znode of a stream.
pub(super) const SIGNATURE: &str = "BenWasHere";
/// The number of the ACL that everybody may do everything; it is in no table.
pub(super) const OPEN_ACL: i64 = -1;

/// More ACLs than come into use while a snapshot is written.
const ACLS_MEANWHILE_MAX: i64 = 1 << 20;
const SEAL_BYTES: usize = 8 + 4 + END_OF_ZNODES.len();
const DIGEST_BYTES: usize = 8 + 4 + 8 + SEAL_BYTES;
const LAST_ZXID_BYTES: usize = 8 + SEAL_BYTES;
const BOTH_BYTES: usize = DIGEST_BYTES + LAST_ZXID_BYTES;
/// More than all known sections.
const SECTIONS_BYTES_MAX: usize = 4096;
const UNKNOWN_SECTIONS: &str = "what follows the first seal are no known sections";
/// Compressed bytes that are inflated at once.
const INFLATED_BYTES: usize = 16 * 1024;
