//! Reads a whole log for tools: every record of a list of segments, whatever their state. Never
//! writes.

use bytes::Bytes;

use super::format::{HeaderError, Link, segment_sequence};
use super::scan::{Item, Scanner};

/// One thing seen in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The file it is in.
    pub file: String,
    /// What it is.
    pub what: What,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An item of the segment's walk.
    Item(Item),
    /// The segment's header is damaged; none of its batches can be told from stale bytes.
    Header(HeaderError),
}

/// The walk over several segments; see [`records_of`].
#[derive(Debug)]
pub struct LogReader {
    segments: std::vec::IntoIter<(u64, String, Bytes)>,
    open: Option<(String, Scanner)>,
    link: Option<Link>,
    skip_damage: bool,
    damaged: bool,
}

/// Walks the segments among `files` (name and bytes, usually a memory map) in order of their
/// sequence numbers; other files are passed over. Segments must follow on from one another.
/// With `skip_damage`, the walk goes on behind damage, for inspection only.
#[must_use]
pub fn records_of(files: Vec<(String, Bytes)>, skip_damage: bool) -> LogReader {
    let segment = |(name, bytes): (String, Bytes)| {
        segment_sequence(&name).map(|sequence| (sequence, name, bytes))
    };
    let mut segments: Vec<_> = files.into_iter().filter_map(segment).collect();
    segments.sort_unstable_by_key(|(sequence, ..)| *sequence);
    let segments = segments.into_iter();
    LogReader { segments, open: None, link: None, skip_damage, damaged: false }
}

impl LogReader {
    fn open_next(&mut self) -> Option<Result<(String, Scanner), Seen>> {
        let (_, file, bytes) = self.segments.next()?;
        Some(match Scanner::new(bytes, self.link) {
            Ok(scanner) => Ok((file, scanner)),
            Err(error) => Err(Seen { file, what: What::Header(error) }),
        })
    }
}

impl Iterator for LogReader {
    type Item = Seen;

    fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some((file, scanner)) = &mut self.open {
                if let Some(item) = scanner.next() {
                    self.damaged |= matches!(item, Item::Corrupt { .. });
                    return Some(Seen { file: file.clone(), what: What::Item(item) });
                }
                self.link = scanner.link();
                if self.damaged && self.skip_damage {
                    self.damaged = false;
                    if scanner.skip_damage() {
                        continue;
                    }
                    self.link = None;
                }
                self.open = None;
            }
            if self.damaged && !self.skip_damage {
                return None;
            }
            match self.open_next()? {
                Ok(open) => self.open = Some(open),
                Err(seen) => {
                    self.damaged = true;
                    self.link = None;
                    return Some(seen);
                }
            }
        }
    }
}
