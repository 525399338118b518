//! Reads a snapshot for tools: its items and every damage on the way, behind which it goes on.
//! Never writes, copies nothing.
//!
//! ```no_run
//! use bytes::Bytes;
//! use ringkeeper::snapshot::{SnapshotItem, inspect::{What, items_of}};
//!
//! // Or a memory map: `Bytes::from_owner(map)`.
//! let file = Bytes::from(std::fs::read("data/ringkeeper/snapshot.000000000000002a")?);
//! for seen in items_of(file) {
//!     match seen.what {
//!         What::Item(SnapshotItem::Znode { path, .. }) => println!("{path}"),
//!         What::Damage(what) => println!("offset {}: {what}", seen.offset),
//!         _ => {}
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use super::block::{BLOCK_HEADER_BYTES, Frame, Kind, open};
use super::item::{ItemDecoder, SnapshotItem, SnapshotSummary, decode_header};
use crate::base::WallMs;
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// One thing seen in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where the block starts in which it is, in bytes.
    pub offset: u64,
    /// What it is.
    pub what: What,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The header: the state's zxid, and when it was taken.
    Header(Zxid, WallMs),
    /// A session or znode. The ACL of a znode is empty if the block that defines it is damaged.
    Item(SnapshotItem),
    /// The end block, and whether it counts what was seen before it.
    End(SnapshotSummary),
    /// Something is wrong here. A server does not use the snapshot.
    Damage(&'static str),
}

/// The walk over one snapshot; see [`items_of`]. It ends with the file, whatever it meets.
#[derive(Debug)]
pub struct SnapshotReader {
    bytes: Bytes,
    at: usize,
    sequence: u32,
    chain: u32,
    items: Bytes,
    items_at: usize,
    decoder: ItemDecoder,
    header: Option<(Zxid, WallMs)>,
    ended: bool,
    ready: VecDeque<Seen>,
}

/// Walks a snapshot's bytes, usually a memory map.
#[must_use]
pub fn items_of(file: Bytes) -> SnapshotReader {
    SnapshotReader {
        bytes: file,
        at: 0,
        sequence: 0,
        chain: 0,
        items: Bytes::new(),
        items_at: 0,
        decoder: ItemDecoder::default(),
        header: None,
        ended: false,
        ready: VecDeque::new(),
    }
}

impl SnapshotReader {
    /// Bytes of the file that were walked over.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.at as u64
    }

    fn see(&mut self, at: usize, what: What) {
        self.ready.push_back(Seen { offset: at as u64, what });
    }

    fn damage(&mut self, at: usize, what: &'static str) {
        self.decoder.lenient = true;
        self.see(at, What::Damage(what));
    }

    /// Reads the next block; false at the end of the file.
    fn next_block(&mut self) -> bool {
        let at = self.at;
        if self.bytes.len() <= at {
            if !self.ended {
                self.ended = true;
                self.damage(at, "the file ends before its end block");
            }
            return false;
        }
        if self.ended {
            self.at = self.bytes.len();
            self.damage(at, "bytes behind the end block");
            return true;
        }
        match open(&self.bytes.slice(at..), self.sequence, self.chain) {
            Ok(block) => {
                self.go_on(at + block.len, self.sequence, block.chain);
                self.take_block(at, block.kind, block.payload);
            }
            Err(fault) => {
                self.damage(at, fault.text());
                self.resynchronise();
            }
        }
        true
    }

    const fn go_on(&mut self, at: usize, sequence: u32, chain: u32) {
        self.at = at;
        self.sequence = sequence.wrapping_add(1);
        self.chain = chain;
    }

    fn take_block(&mut self, at: usize, kind: Kind, payload: Bytes) {
        match (kind, self.header) {
            (Kind::Header, None) => match decode_header(&payload) {
                Ok((zxid, wall)) => {
                    self.header = Some((zxid, wall));
                    self.see(at, What::Header(zxid, wall));
                }
                Err(what) => self.damage(at, what),
            },
            (Kind::Items, _) => (self.items, self.items_at) = (payload, at),
            (Kind::End, header) => {
                self.ended = true;
                match SnapshotSummary::decode(header.unwrap_or_default(), &payload) {
                    Ok(summary) => {
                        if !self.decoder.lenient && !self.decoder.counted(&summary) {
                            self.damage(at, "the end block counts other items");
                        }
                        self.see(at, What::End(summary));
                    }
                    Err(what) => self.damage(at, what),
                }
            }
            (Kind::Header, Some(_)) => self.damage(at, "block in the wrong place"),
        }
    }

    /// Finds the next block behind a damaged one. A block's checksum needs the chain value of the
    /// one before, which the damaged block may still hold or still yield; if it does not, the
    /// block found is passed over, too, and only its own chain value is used.
    fn resynchronise(&mut self) {
        let damaged = self.bytes.slice(self.at..);
        let befores = Frame::befores(&damaged, self.chain);
        let step = |at: &usize| at + BLOCK_BYTES;
        let starts = std::iter::successors(Some(self.at + BLOCK_BYTES), |at| Some(step(at)));
        for at in starts.take_while(|at| at + BLOCK_HEADER_BYTES <= self.bytes.len()) {
            let rest = self.bytes.slice(at..);
            let Some(frame) = Frame::of(&rest).filter(|frame| self.sequence < frame.sequence)
            else {
                continue;
            };
            let is_next = frame.sequence == self.sequence.wrapping_add(1);
            let proved = |before: &u32| open(&rest, frame.sequence, *before).is_ok();
            if let Some(before) = befores.iter().copied().filter(|_| is_next).find(proved) {
                return self.go_on(at, self.sequence, before);
            }
            self.go_on(at + frame.len, frame.sequence, frame.chain);
            return self.damage(at, "it cannot be checked, since the block before is damaged");
        }
        self.at = self.bytes.len();
    }
}

impl Iterator for SnapshotReader {
    type Item = Seen;

    fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Some(seen);
            }
            if self.items.is_empty() {
                if !self.next_block() && self.ready.is_empty() {
                    return None;
                }
                continue;
            }
            let offset = self.items_at as u64;
            match self.decoder.next_item(&mut self.items) {
                Some(None) => {}
                Some(Some(item)) => return Some(Seen { offset, what: What::Item(item) }),
                None => {
                    self.items = Bytes::new();
                    self.damage(self.items_at, "item does not decode");
                }
            }
        }
    }
}
