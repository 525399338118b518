//! Apache's txn log files: bytes to records and back.

use bytes::{BufMut, Bytes, BytesMut};

use crate::model::Zxid;

/// A record whose checksum is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Where it starts in the file, in bytes.
    pub offset: u64,
    /// What its txn header says.
    pub zxid: Zxid,
    /// The txn's bytes: header, record, digest. Shares the buffer that was pushed.
    pub txn: Bytes,
}

/// Where the records of a file end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// The end of the last record, in bytes.
    pub at: u64,
    /// How the end shows.
    pub kind: LogEndKind,
}

/// How a file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEndKind {
    /// The file ends with its last record.
    EndOfFile,
    /// A record of length zero follows: space allocated ahead.
    Padding,
    /// A part of a record, or of the file's header, follows: its write was cut short.
    Torn,
}

/// A file that Apache would not read, or would read only in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {kind}")]
pub struct LogDamage {
    /// Where the damaged record starts, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub kind: LogDamageKind,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogDamageKind {
    /// The file does not begin as a log.
    #[error("no log starts here, the magic number is absent")]
    Magic,
    /// Negative, shorter than a txn header, or longer than the bound.
    #[error("unreasonable length {0} of a record")]
    Length(i32),
    /// The bytes are not those that were written.
    #[error("the record's Adler-32 is {found:08x}, its checksum field says {expected:x}")]
    Checksum {
        /// What the file says.
        expected: u64,
        /// What the bytes have.
        found: u32,
    },
    /// The log seems to end here, but it does not: Apache would pass over what follows in silence.
    #[error("the log seems to end here, but a whole record follows at offset {found}")]
    HiddenRecord {
        /// Where the next whole record starts, in bytes.
        found: u64,
    },
}

/// Reads one log file. Push its bytes in order; before each push take records until there is none.
#[derive(Debug)]
pub struct LogDecoder {
    record_bytes_max: usize,
    /// Bytes that were pushed and not taken.
    received: Bytes,
    /// Offset of `received` in the file.
    offset: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Header,
    Records,
    /// The records are over; only a damaged file holds another one.
    Behind(LogEnd),
}

/// What a search for a whole record came to.
enum Search {
    /// It starts so many bytes from here.
    Found(usize),
    /// None starts within so many bytes.
    None(usize),
}

impl LogDecoder {
    /// At the start of a file. Records longer than `record_bytes_max` are taken for damage: twice
    /// `jute.maxbuffer` is what Apache's reader accepts.
    #[must_use]
    pub const fn new(record_bytes_max: usize) -> Self {
        Self { record_bytes_max, received: Bytes::new(), offset: 0, stage: Stage::Header }
    }

    /// Takes the next piece of the file; the whole of it (a memory map) is a piece as well.
    pub fn push(&mut self, bytes: &Bytes) {
        if self.received.is_empty() {
            self.received = bytes.clone();
            return;
        }
        let mut both = BytesMut::with_capacity(self.received.len() + bytes.len());
        both.extend_from_slice(&self.received);
        both.extend_from_slice(bytes);
        self.received = both.freeze();
    }

    /// The next record; `None` when more bytes are needed or the records are over.
    pub fn next_record(&mut self) -> Result<Option<LogRecord>, LogDamage> {
        loop {
            match self.stage {
                Stage::Header => {
                    let Some(header) = self.received.get(..HEADER_BYTES) else { return Ok(None) };
                    if header.get(..4) != Some(MAGIC) {
                        return Err(self.damage(LogDamageKind::Magic));
                    }
                    self.consume(HEADER_BYTES);
                    self.stage = Stage::Records;
                }
                Stage::Records => {
                    let Some((checksum, len)) = head_of(&self.received) else { return Ok(None) };
                    if len == 0 {
                        self.end(LogEndKind::Padding);
                        continue;
                    }
                    let bytes = usize::try_from(len)
                        .ok()
                        .filter(|bytes| (TXN_HEADER_BYTES..=self.record_bytes_max).contains(bytes));
                    let bytes = bytes.ok_or_else(|| self.damage(LogDamageKind::Length(len)))?;
                    let end = HEAD_BYTES + bytes;
                    match self.received.get(end) {
                        None => return Ok(None),
                        Some(&END_OF_RECORD) => return self.record(checksum, end).map(Some),
                        Some(_) => self.end(LogEndKind::Torn),
                    }
                }
                Stage::Behind(end) => return self.look_behind(end, false).map(|()| None),
            }
        }
    }

    /// After damage: goes on at the next whole record of what was pushed, if there is one. For
    /// inspection only: records may be missing between.
    pub fn skip_damage(&mut self) -> bool {
        match self.search(true) {
            Search::Found(at) => {
                self.consume(at);
                self.stage = Stage::Records;
                true
            }
            Search::None(_) => false,
        }
    }

    /// How the file ends, once all of it was pushed and all records were taken.
    pub fn finish(mut self) -> Result<LogEnd, LogDamage> {
        let left = self.received.len();
        match self.stage {
            Stage::Header => {
                let kind = if left == 0 { LogEndKind::EndOfFile } else { LogEndKind::Torn };
                Ok(LogEnd { at: 0, kind })
            }
            Stage::Records => {
                let kind = match left {
                    0 => LogEndKind::EndOfFile,
                    _ if is_zero(&self.received) => LogEndKind::Padding,
                    _ => LogEndKind::Torn,
                };
                let end = LogEnd { at: self.offset, kind };
                self.look_behind(end, true).map(|()| end)
            }
            Stage::Behind(end) => self.look_behind(end, true).map(|()| end),
        }
    }

    fn record(&mut self, expected: u64, end: usize) -> Result<LogRecord, LogDamage> {
        let txn = self.received.slice(HEAD_BYTES..end);
        let found = adler2::adler32_slice(&txn);
        if u64::from(found) != expected {
            return Err(self.damage(LogDamageKind::Checksum { expected, found }));
        }
        let zxid = txn.get(ZXID_AT..ZXID_AT + 8).and_then(|zxid| zxid.try_into().ok());
        let zxid = Zxid(i64::from_be_bytes(zxid.unwrap_or_default()));
        let offset = self.offset;
        self.consume(end + 1);
        Ok(LogRecord { offset, zxid, txn })
    }

    fn end(&mut self, kind: LogEndKind) {
        self.stage = Stage::Behind(LogEnd { at: self.offset, kind });
    }

    /// Looks for a whole record behind the end, so that one damaged length or end byte does not
    /// hide the rest of a file.
    fn look_behind(&mut self, end: LogEnd, is_all: bool) -> Result<(), LogDamage> {
        match self.search(is_all) {
            Search::Found(at) => {
                let kind = LogDamageKind::HiddenRecord { found: self.offset + at as u64 };
                Err(LogDamage { offset: end.at, kind })
            }
            Search::None(ruled_out) => {
                self.consume(ruled_out);
                Ok(())
            }
        }
    }

    fn search(&self, is_all: bool) -> Search {
        let bytes = &self.received;
        let last = bytes.len().saturating_sub(HEAD_BYTES);
        if is_zero(bytes) {
            return Search::None(last);
        }
        for at in 0..last {
            let Some((checksum, len)) = bytes.get(at..).and_then(head_of) else { break };
            let len = usize::try_from(len).unwrap_or_default();
            let plausible = (TXN_HEADER_BYTES..=self.record_bytes_max).contains(&len);
            if !plausible || u64::from(u32::MAX) < checksum {
                continue;
            }
            let start = at + HEAD_BYTES;
            match (bytes.get(start..start + len), bytes.get(start + len)) {
                (Some(txn), Some(&END_OF_RECORD)) => {
                    if u64::from(adler2::adler32_slice(txn)) == checksum {
                        return Search::Found(at);
                    }
                }
                (Some(_), Some(_)) => {}
                _ if is_all => {}
                _ => return Search::None(at),
            }
        }
        Search::None(last)
    }

    fn consume(&mut self, len: usize) {
        let _taken = self.received.split_to(len);
        self.offset += len as u64;
    }

    const fn damage(&self, kind: LogDamageKind) -> LogDamage {
        LogDamage { offset: self.offset, kind }
    }
}

/// Appends the header of a log file.
pub fn put_log_header(buf: &mut BytesMut) {
    buf.put_slice(MAGIC);
    buf.put_i32(VERSION);
    buf.put_i64(DATABASE_ID);
}

/// Appends a record around a txn's bytes.
pub fn put_log_record(buf: &mut BytesMut, txn: &[u8]) {
    buf.put_u64(u64::from(adler2::adler32_slice(txn)));
    buf.put_i32(i32::try_from(txn.len()).expect("txns are bounded by accepted frames"));
    buf.put_slice(txn);
    buf.put_u8(END_OF_RECORD);
}

/// Checksum and length at the front of `bytes`.
fn head_of(bytes: &[u8]) -> Option<(u64, i32)> {
    let checksum = bytes.get(..8)?.try_into().ok()?;
    let len = bytes.get(8..HEAD_BYTES)?.try_into().ok()?;
    Some((u64::from_be_bytes(checksum), i32::from_be_bytes(len)))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

const MAGIC: &[u8; 4] = b"ZKLG";
const VERSION: i32 = 2;
const DATABASE_ID: i64 = 0;
/// Bytes of a file's header.
const HEADER_BYTES: usize = 16;
/// Checksum and length in front of a txn.
const HEAD_BYTES: usize = 12;
/// Bytes of a txn header; no txn is shorter.
const TXN_HEADER_BYTES: usize = 32;
/// Offset of the zxid in a txn header.
const ZXID_AT: usize = 12;
const END_OF_RECORD: u8 = b'B';
