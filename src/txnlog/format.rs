//! The byte boxes of a segment: its header block, the batch header, the record frame.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// Bytes of a batch header; the body follows at once.
pub const BATCH_HEADER_BYTES: usize = 96;

/// Bytes of a segment header block.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = BLOCK_BYTES as u64;

/// A byte place in the log. Ordered as the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Sequence number of the segment; 0 is before the first.
    pub segment: u64,
    /// Offset in the segment, in bytes.
    pub offset: u64,
}

/// One segment, for purge and tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its sequence number, which is also its name.
    pub sequence: u64,
    /// No record in it is lower.
    pub first: Zxid,
    /// The last zxid at its end; lower than `first` if it holds no record.
    pub last: Zxid,
    /// Length of the file.
    pub bytes: u64,
    /// Bytes of its records; as much as the file could hold if recovery did not read it.
    pub record_bytes: u64,
}

/// What a batch must follow on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The chain value of the batch before; 0 before the first batch of a log.
    pub chain: u32,
    /// The number the batch must have; the first batch of a log is number 1.
    pub number: u64,
    /// The last zxid before it.
    pub zxid: Zxid,
}

/// The header block of a segment (layout: the document above).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Sequence number, as in the file's name.
    pub sequence: u64,
    /// Random: tells this incarnation's bytes from any other's.
    pub nonce: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// The nonce of the segment before; 0 for the first of a log.
    pub previous_nonce: u64,
    /// The last zxid known durable when this header was built.
    pub flushed_zxid: Zxid,
    /// The position known durable when this header was built.
    pub flushed_to: Position,
}

/// The header of a batch (layout: the document above).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The segment's nonce.
    pub nonce: u64,
    /// Counts batches over the whole log, from 1.
    pub number: u64,
    /// Bytes of records; zeros fill up the last block.
    pub body_bytes: u32,
    /// Number of records. Zero: the batch only attests the one before.
    pub record_count: u32,
    /// The last zxid before this batch.
    pub previous_zxid: Zxid,
    /// The first record's zxid; `previous_zxid` without records.
    pub first_zxid: Zxid,
    /// The last record's zxid; `previous_zxid` without records.
    pub last_zxid: Zxid,
    /// The position known durable when this batch was built.
    pub flushed_to: Position,
    /// CRC-32C of the body with its padding.
    pub body_crc: u32,
    /// The chain value of the batch before.
    pub previous_chain: u32,
    /// CRC-32C of header bytes `[8, 80)`, which hold all the fields above.
    pub chain: u32,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("the header is cut short")]
    Short,
    /// The magic number is absent.
    #[error("the magic number is absent")]
    Magic,
    /// The checksum does not match.
    #[error("the header's checksum does not match")]
    Checksum,
    /// A checksummed field has a value that no writer of this version writes.
    #[error("field {0} of the header has an impossible value")]
    Field(&'static str),
}

impl SegmentHeader {
    /// The block as written.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut block = BytesMut::zeroed(BLOCK_BYTES);
        let mut fields = &mut block[12..];
        fields.put_u32(VERSION);
        fields.put_u64(self.sequence);
        fields.put_u64(self.nonce);
        fields.put_u64(self.bytes);
        fields.put_u64(self.previous_nonce);
        fields.put_i64(self.flushed_zxid.0);
        put_position(&mut fields, self.flushed_to);
        let crc = crc32c::crc32c(&block[12..]);
        block[..8].copy_from_slice(&SEGMENT_MAGIC);
        block[8..12].copy_from_slice(&crc.to_be_bytes());
        block.freeze()
    }

    /// Reads the block at the start of `bytes`.
    ///
    /// # Errors
    /// [`HeaderError`] if it is not a whole, undamaged header of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let block = bytes.get(..BLOCK_BYTES).ok_or(HeaderError::Short)?;
        if block[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Magic);
        }
        let mut fields = &block[8..];
        if fields.get_u32() != crc32c::crc32c(&block[12..]) {
            return Err(HeaderError::Checksum);
        }
        if fields.get_u32() != VERSION {
            return Err(HeaderError::Field("version"));
        }
        let header = Self {
            sequence: fields.get_u64(),
            nonce: fields.get_u64(),
            bytes: fields.get_u64(),
            previous_nonce: fields.get_u64(),
            flushed_zxid: Zxid(fields.get_i64()),
            flushed_to: get_position(&mut fields),
        };
        if header.bytes < SEGMENT_HEADER_BYTES || !header.bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(HeaderError::Field("bytes"));
        }
        Ok(header)
    }
}

impl BatchHeader {
    /// Writes the header into the first 96 bytes of `batch` and computes both checksums and the
    /// chain over what is there; `body_crc` and `chain` of `self` are set.
    ///
    /// # Panics
    /// If `batch` is not whole blocks that hold the body.
    pub(crate) fn seal(&mut self, batch: &mut [u8]) {
        assert!(batch.len().is_multiple_of(BLOCK_BYTES));
        assert_eq!(batch.len() as u64, self.padded_bytes());
        self.body_crc = crc32c::crc32c(&batch[BATCH_HEADER_BYTES..]);
        let header = &mut batch[..BATCH_HEADER_BYTES];
        header.fill(0);
        let mut fields = &mut header[8..];
        fields.put_u64(self.nonce);
        fields.put_u64(self.number);
        fields.put_u32(self.body_bytes);
        fields.put_u32(self.record_count);
        fields.put_i64(self.previous_zxid.0);
        fields.put_i64(self.first_zxid.0);
        fields.put_i64(self.last_zxid.0);
        put_position(&mut fields, self.flushed_to);
        fields.put_u32(self.body_crc);
        fields.put_u32(self.previous_chain);
        self.chain = crc32c::crc32c(&header[8..80]);
        header[80..84].copy_from_slice(&self.chain.to_be_bytes());
        header[..4].copy_from_slice(&BATCH_MAGIC);
        let crc = crc32c::crc32c(&header[8..]);
        header[4..8].copy_from_slice(&crc.to_be_bytes());
    }

    /// Reads the header at the start of `bytes`. Says nothing of the body.
    ///
    /// # Errors
    /// [`HeaderError`] if it is not a whole, undamaged header.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let header = bytes.get(..BATCH_HEADER_BYTES).ok_or(HeaderError::Short)?;
        if header[..4] != BATCH_MAGIC {
            return Err(HeaderError::Magic);
        }
        let mut fields = &header[4..];
        if fields.get_u32() != crc32c::crc32c(&header[8..]) {
            return Err(HeaderError::Checksum);
        }
        let decoded = Self {
            nonce: fields.get_u64(),
            number: fields.get_u64(),
            body_bytes: fields.get_u32(),
            record_count: fields.get_u32(),
            previous_zxid: Zxid(fields.get_i64()),
            first_zxid: Zxid(fields.get_i64()),
            last_zxid: Zxid(fields.get_i64()),
            flushed_to: get_position(&mut fields),
            body_crc: fields.get_u32(),
            previous_chain: fields.get_u32(),
            chain: fields.get_u32(),
        };
        if decoded.chain != crc32c::crc32c(&header[8..80]) {
            return Err(HeaderError::Field("chain"));
        }
        Ok(decoded)
    }

    /// Bytes of the whole batch on disk: header, body, padding.
    #[must_use]
    pub const fn padded_bytes(&self) -> u64 {
        padded(self.body_bytes as u64)
    }

    /// What the batch after this one must follow on from.
    #[must_use]
    pub const fn next_link(&self) -> Link {
        Link { chain: self.chain, number: self.number.wrapping_add(1), zxid: self.last_zxid }
    }

    /// What this batch says it follows on from.
    #[must_use]
    pub const fn own_link(&self) -> Link {
        Link { chain: self.previous_chain, number: self.number, zxid: self.previous_zxid }
    }
}

/// Bytes on disk of a batch with `body_bytes` of records.
pub(crate) const fn padded(body_bytes: u64) -> u64 {
    (BATCH_HEADER_BYTES as u64 + body_bytes).next_multiple_of(BLOCK_BYTES as u64)
}

/// Appends a record: the PROPOSAL packet that a learner expects, around what `encode` writes.
pub(crate) fn put_record(buf: &mut BytesMut, zxid: Zxid, encode: impl FnOnce(&mut BytesMut)) {
    buf.put_i32(PROPOSAL);
    buf.put_i64(zxid.0);
    buf.put_i32(0);
    let start = buf.len();
    encode(buf);
    let txn_bytes = i32::try_from(buf.len() - start).expect("prep bounds txns far below 2 GiB");
    buf[start - 4..start].copy_from_slice(&txn_bytes.to_be_bytes());
    buf.put_i32(NULL_VECTOR);
}

/// Takes the record at the front of `body`; `None` if there is no whole one.
pub(crate) fn take_record(body: &mut Bytes) -> Option<(Zxid, Bytes)> {
    let mut head = body.get(..RECORD_HEAD_BYTES)?;
    if head.get_i32() != PROPOSAL {
        return None;
    }
    let zxid = Zxid(head.get_i64());
    let txn_bytes = usize::try_from(head.get_i32()).ok()?;
    let end = RECORD_HEAD_BYTES.checked_add(txn_bytes)?;
    let mut tail = body.get(end..end.checked_add(4)?)?;
    if tail.get_i32() != NULL_VECTOR {
        return None;
    }
    let txn = body.slice(RECORD_HEAD_BYTES..end);
    body.advance(end + 4);
    Some((zxid, txn))
}

/// The records of one batch, which `bytes` begins with; `None` if it is none. For the simulator,
/// which looks at what is written.
pub(crate) fn batch_records(bytes: &Bytes) -> Option<Vec<(Zxid, Bytes)>> {
    let header = BatchHeader::decode(bytes).ok()?;
    let end = BATCH_HEADER_BYTES.checked_add(usize::try_from(header.body_bytes).ok()?)?;
    bytes.get(BATCH_HEADER_BYTES..end)?;
    let mut body = bytes.slice(BATCH_HEADER_BYTES..end);
    Some(std::iter::from_fn(|| take_record(&mut body)).collect())
}

/// The name of segment `sequence`: `txnlog.` and 16 hexadecimal digits.
#[must_use]
pub fn segment_name(sequence: u64) -> String {
    format!("txnlog.{sequence:016x}")
}

/// The sequence number in a segment's name; `None` for any other file.
#[must_use]
pub fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("txnlog.")?;
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 16 || !digits.bytes().all(lower) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// The name under which segment `sequence` is made before it counts.
pub(crate) fn new_name(sequence: u64) -> String {
    segment_name(sequence) + NEW_SUFFIX
}

/// Whether `name` is that of a segment still being made.
pub(crate) fn is_new_name(name: &str) -> bool {
    name.strip_suffix(NEW_SUFFIX).is_some_and(|base| segment_sequence(base).is_some())
}

fn put_position(fields: &mut &mut [u8], position: Position) {
    fields.put_u64(position.segment);
    fields.put_u64(position.offset);
}

fn get_position(fields: &mut &[u8]) -> Position {
    Position { segment: fields.get_u64(), offset: fields.get_u64() }
}

/// Type, zxid and txn length in front of a record's txn.
pub(crate) const RECORD_HEAD_BYTES: usize = 16;
/// The same, and what stands behind the txn.
pub(crate) const RECORD_FRAME_BYTES: usize = RECORD_HEAD_BYTES + 4;
/// The first bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"RKTXNLOG";
const BATCH_MAGIC: [u8; 4] = *b"RKb1";
const VERSION: u32 = 1;
const PROPOSAL: i32 = 2;
const NULL_VECTOR: i32 = -1;
const NEW_SUFFIX: &str = ".new";
