//! [`Content`]: the bytes of a simulated file. Pages of zeros take no room, and copies share what
//! has not changed since.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// Bytes up to a length; what was never written is 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// By number; one that is missing is all zeros.
    pages: BTreeMap<usize, Arc<Page>>,
    len: usize,
}

impl Content {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Grows to hold them.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.len = self.len.max(offset + bytes.len());
        let mut left = bytes;
        for (number, start, end) in pieces(offset, bytes.len()) {
            let (piece, rest) = left.split_at(end - start);
            left = rest;
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            if let Some(place) = Arc::make_mut(page).get_mut(start..end) {
                place.copy_from_slice(piece);
            }
        }
    }

    /// Grows to hold them.
    pub(super) fn write_zeros(&mut self, offset: usize, len: usize) {
        self.len = self.len.max(offset + len);
        for (number, start, end) in pieces(offset, len) {
            if end - start == PAGE_BYTES {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number)
                && let Some(place) = Arc::make_mut(page).get_mut(start..end)
            {
                place.fill(0);
            }
        }
    }

    /// So many bytes, fewer at the end.
    pub(super) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let start = offset.min(self.len);
        let len = len.min(self.len - start);
        let mut bytes = vec![0; len];
        for (number, from, to) in pieces(start, len) {
            let at = number * PAGE_BYTES + from - start;
            if let Some(page) = self.pages.get(&number)
                && let Some(source) = page.get(from..to)
                && let Some(place) = bytes.get_mut(at..at + source.len())
            {
                place.copy_from_slice(source);
            }
        }
        bytes
    }

    /// Where the last byte is that is not 0.
    pub(super) fn last_written(&self) -> Option<usize> {
        self.pages.iter().rev().find_map(|(number, page)| {
            Some(number * PAGE_BYTES + page.iter().rposition(|byte| *byte != 0)?)
        })
    }

    /// Flips bits of a byte that is there.
    pub(super) fn flip(&mut self, at: usize, bits: u8) {
        if let Some(byte) = self.read(at, 1).first() {
            self.write(at, &[byte ^ bits]);
        }
    }
}

/// A range in pieces that are within one page each: its number, and where in it.
fn pieces(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = offset + len;
    (offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).filter_map(move |number| {
        let page = number * PAGE_BYTES;
        let (start, end) = (offset.max(page) - page, end.min(page + PAGE_BYTES) - page);
        (start < end).then_some((number, start, end))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Write(usize, Vec<u8>),
        Zero(usize, usize),
        Flip(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let at = 0..4 * PAGE_BYTES;
        prop_oneof![
            (at.clone(), prop::collection::vec(0..3_u8, 0..2 * PAGE_BYTES))
                .prop_map(|(at, bytes)| Op::Write(at, bytes)),
            (at.clone(), 0..3 * PAGE_BYTES).prop_map(|(at, len)| Op::Zero(at, len)),
            at.prop_map(Op::Flip),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn it_reads_as_a_vector_of_bytes(ops in prop::collection::vec(op(), 0..20)) {
            let (mut content, mut plain) = (Content::default(), Vec::<u8>::new());
            let mut copies = Vec::new();
            for op in ops {
                copies.push((content.clone(), plain.clone()));
                let (at, bytes) = match op {
                    Op::Write(at, bytes) => {
                        content.write(at, &bytes);
                        (at, bytes)
                    }
                    Op::Zero(at, len) => {
                        content.write_zeros(at, len);
                        (at, vec![0; len])
                    }
                    Op::Flip(at) => {
                        content.flip(at, 0x40);
                        if let Some(byte) = plain.get_mut(at) {
                            *byte ^= 0x40;
                        }
                        continue;
                    }
                };
                plain.resize(plain.len().max(at + bytes.len()), 0);
                plain[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            copies.push((content, plain));
            for (content, plain) in copies {
                prop_assert_eq!(content.len(), plain.len());
                prop_assert_eq!(content.read(0, usize::MAX), plain.clone());
                let middle = plain.get(100..).map(|rest| &rest[..rest.len().min(PAGE_BYTES)]);
                prop_assert_eq!(content.read(100, PAGE_BYTES), middle.unwrap_or_default());
                let last = plain.iter().rposition(|byte| *byte != 0);
                prop_assert_eq!(content.last_written(), last);
            }
        }
    }
}
