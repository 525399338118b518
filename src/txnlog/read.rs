//! Reads a whole log for tools: segments, their batches and records with offsets, and every damage
//! on the way, behind which it goes on. Never writes, copies nothing.
//!
//! ```no_run
//! use bytes::Bytes;
//! use ringkeeper::txnlog::read::{What, records_of};
//! use ringkeeper::txnlog::scan::Item;
//!
//! let mut files = Vec::new();
//! for entry in std::fs::read_dir("data/ringkeeper")? {
//!     let entry = entry?;
//!     // Or a memory map: `Bytes::from_owner(map)`.
//!     let bytes = Bytes::from(std::fs::read(entry.path())?);
//!     files.push((entry.file_name().to_string_lossy().into_owned(), bytes));
//! }
//! for seen in records_of(files) {
//!     match &seen.what {
//!         What::Item(Item::Record { zxid, txn, .. }) => {
//!             println!("{zxid}: {:?}", ringkeeper::wire::txn::decode(txn));
//!         }
//!         _ if seen.is_damage() => println!("{seen}"),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use super::format::{
    BatchHeader, HeaderError, Link, Position, SegmentHeader, segment_name, segment_sequence,
};
use super::scan::{Item, Scanner};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// One thing seen in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Sequence number of the segment it is in, which names the file ([`segment_name`]).
    pub segment: u64,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What it is.
    pub what: What,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A segment with an undamaged header begins.
    Segment(SegmentHeader),
    /// An item of the segment's walk.
    Item(Item),
    /// What only a look at more than one batch or at the file as a whole shows.
    Fault(Fault),
}

/// Damage that no walk over one segment's batches shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Segments before this one are absent, though one before them is there.
    #[error("{} segment(s) before this one, from {} on, are absent", .last - .first + 1,
        segment_name(*.first))]
    Missing {
        /// Sequence number of the first absent one.
        first: u64,
        /// Of the last absent one.
        last: u64,
    },
    /// The header block is damaged. Batches are shown under the nonce of the first undamaged one.
    #[error("the segment's header block is damaged: {0}")]
    Header(HeaderError),
    /// The header block is another segment's: the file was copied or renamed.
    #[error("the header says that this is segment {0}")]
    Sequence(u64),
    /// The file has another length.
    #[error("the file is {found} bytes long, its header says {expected}")]
    Length {
        /// What the header says, in bytes.
        expected: u64,
        /// The file's length in bytes.
        found: u64,
    },
    /// The header was written behind another incarnation of the segment before.
    #[error("the header does not follow on from the segment before (nonce)")]
    Nonce,
    /// The log ends here although a later segment knew of more that was flushed.
    #[error("the batch here is absent, and {} was written after it had been flushed",
        segment_name(*.proof))]
    Acknowledged {
        /// Sequence number of the segment that says so.
        proof: u64,
    },
    /// Records are absent before this batch: the log holds none between the two zxids.
    /// No damage if a snapshot covers them: a follower that received one goes on behind it.
    #[error("the records after zxid {after} up to {upto} are absent")]
    Gap {
        /// The last record before.
        after: Zxid,
        /// The last one that is absent.
        upto: Zxid,
    },
}

impl Seen {
    /// Whether it is something that a server would not start over, if it needed the place.
    /// A torn tail is none: it is what a killed server leaves.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self.what, What::Fault(_) | What::Item(Item::Corrupt { .. }))
    }

    /// What is there, in words.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.what {
            What::Segment(_) => "a segment".to_owned(),
            What::Item(Item::Batch { header, .. }) => format!("batch {}", header.number),
            What::Item(Item::Record { zxid, .. }) => format!("record {zxid}"),
            What::Item(Item::End { .. }) => "only zeros follow".to_owned(),
            What::Item(Item::Torn { found, .. }) => {
                format!("{found}: a write that never completed")
            }
            What::Item(Item::Corrupt { why, .. }) => why.to_string(),
            What::Fault(fault) => fault.to_string(),
        }
    }
}

/// File, offset and what is there.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offset {}: {}", segment_name(self.segment), self.offset, self.words())
    }
}

/// The walk over several segments; see [`records_of`]. It ends behind the last segment, whatever
/// it meets: who wants to stop at damage looks at [`Seen::is_damage`].
#[derive(Debug)]
pub struct LogReader {
    segments: VecDeque<(Head, Bytes)>,
    open: Option<Scanner>,
    /// Seen and not yet handed out, oldest first.
    ready: VecDeque<Seen>,
    previous: Option<Head>,
    link: Option<Link>,
    last: Option<Zxid>,
    /// The present segment's walk met damage that can be skipped.
    damaged: bool,
}

/// The front of a segment.
#[derive(Clone, Copy, Debug)]
struct Head {
    sequence: u64,
    header: Result<SegmentHeader, HeaderError>,
    /// What its header and its first batch say is durable.
    flushed_to: Position,
}

/// Walks the segments among `files` (name and bytes, usually a memory map) in order of their
/// sequence numbers; other files are passed over.
#[must_use]
pub fn records_of(files: Vec<(String, Bytes)>) -> LogReader {
    let segment = |(name, bytes): (String, Bytes)| {
        segment_sequence(&name).map(|sequence| (Head::of(sequence, &bytes), bytes))
    };
    let mut segments: Vec<_> = files.into_iter().filter_map(segment).collect();
    segments.sort_unstable_by_key(|(head, _)| head.sequence);
    LogReader {
        segments: segments.into(),
        open: None,
        ready: VecDeque::new(),
        previous: None,
        link: None,
        last: None,
        damaged: false,
    }
}

impl Head {
    fn of(sequence: u64, bytes: &[u8]) -> Self {
        let header = SegmentHeader::decode(bytes);
        let first = bytes.get(BLOCK_BYTES..).and_then(|rest| BatchHeader::decode(rest).ok());
        let first = first.filter(|batch| header.is_ok_and(|header| batch.nonce == header.nonce));
        let said = header.map_or(Position::default(), |header| header.flushed_to);
        let flushed_to = said.max(first.map_or(Position::default(), |first| first.flushed_to));
        Self { sequence, header, flushed_to }
    }
}

impl LogReader {
    /// Opens the next segment; false if there is none.
    fn open_next(&mut self) -> bool {
        let Some((head, bytes)) = self.segments.pop_front() else { return false };
        let segment = head.sequence;
        let found = bytes.len() as u64;
        for fault in self.faults_of(&head, found) {
            if matches!(fault, Fault::Missing { .. }) {
                self.link = None;
            }
            self.ready.push_back(Seen { segment, offset: 0, what: What::Fault(fault) });
        }
        self.open = match head.header {
            Ok(header) => {
                let what = What::Segment(header);
                self.ready.push_back(Seen { segment, offset: 0, what });
                Scanner::new(bytes, self.link).ok()
            }
            Err(_) => Scanner::without_header(bytes, segment),
        };
        self.previous = Some(head);
        true
    }

    fn faults_of(&self, head: &Head, found: u64) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(previous) = self.previous
            && previous.sequence + 1 < head.sequence
        {
            let (first, last) = (previous.sequence + 1, head.sequence - 1);
            faults.push(Fault::Missing { first, last });
        }
        let header = match head.header {
            Ok(header) => header,
            Err(error) => {
                faults.push(Fault::Header(error));
                return faults;
            }
        };
        if header.sequence != head.sequence {
            faults.push(Fault::Sequence(header.sequence));
        }
        if header.bytes != found {
            faults.push(Fault::Length { expected: header.bytes, found });
        }
        let follows = |previous: Head| {
            previous.sequence + 1 != head.sequence
                || previous.header.is_ok_and(|previous| previous.nonce == header.previous_nonce)
                || previous.header.is_err()
        };
        if !self.previous.is_none_or(follows) {
            faults.push(Fault::Nonce);
        }
        faults
    }

    fn take_item(&mut self, segment: u64, item: Item) {
        let offset = match &item {
            Item::Batch { offset, .. } | Item::Record { offset, .. } => *offset,
            Item::End { at } | Item::Torn { at, .. } | Item::Corrupt { at, .. } => *at,
        };
        let fault = |fault| Seen { segment, offset, what: What::Fault(fault) };
        match &item {
            Item::Batch { header, .. } => {
                if let Some(after) = self.last.filter(|after| *after < header.previous_zxid) {
                    self.ready.push_back(fault(Fault::Gap { after, upto: header.previous_zxid }));
                }
                self.last = Some(header.last_zxid);
            }
            Item::End { .. } | Item::Torn { .. } => {
                let beyond = |to: Position| to.segment == segment && offset < to.offset;
                let later = self.segments.iter().find(|(head, _)| beyond(head.flushed_to));
                if let Some((head, _)) = later {
                    let proof = head.sequence;
                    self.ready.push_back(fault(Fault::Acknowledged { proof }));
                    self.damaged = true;
                }
            }
            Item::Corrupt { .. } => self.damaged = true,
            Item::Record { .. } => {}
        }
        self.ready.push_back(Seen { segment, offset, what: What::Item(item) });
    }
}

impl Iterator for LogReader {
    type Item = Seen;

    fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Some(seen);
            }
            let Some(scanner) = &mut self.open else {
                if self.open_next() {
                    continue;
                }
                return None;
            };
            let segment = self.previous.map_or(0, |head| head.sequence);
            if let Some(item) = scanner.next() {
                self.take_item(segment, item);
            } else if std::mem::take(&mut self.damaged) {
                if !scanner.skip_damage() {
                    self.link = None;
                    self.open = None;
                }
            } else {
                self.link = scanner.link();
                self.open = None;
            }
        }
    }
}
