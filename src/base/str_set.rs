//! [`StrSet`]: a sorted set of texts in shared chunks. A copy costs a pointer for each chunk, so a
//! large set can be read as it was at one moment, in slices, while it changes.

use std::sync::Arc;

use super::Str;

/// Texts of a chunk before it is cut in two; what one change copies at most.
const CHUNK_LEN_MAX: usize = 128;

/// A set of texts. Cloning it is cheap; the copies share what does not change.
#[derive(Clone, Debug, Default)]
pub struct StrSet {
    /// Each is sorted and not empty, and so are all together.
    chunks: Vec<Arc<Vec<Str>>>,
    len: usize,
}

/// The texts of a set, sorted. Made by [`StrSet::into_iter`].
#[derive(Debug)]
pub struct IntoIter {
    chunks: std::vec::IntoIter<Arc<Vec<Str>>>,
    chunk: Arc<Vec<Str>>,
    at: usize,
}

impl StrSet {
    /// Number of texts.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All texts, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Str> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The first text behind another one, which need not be there.
    #[must_use]
    pub fn next_behind(&self, text: &str) -> Option<&Str> {
        let is_behind = |other: &Str| text < other.as_str();
        let chunks = |chunk: &Arc<Vec<Str>>| !chunk.last().is_some_and(is_behind);
        let chunk = self.chunks.get(self.chunks.partition_point(chunks))?;
        chunk.get(chunk.partition_point(|other| !is_behind(other)))
    }

    /// Adds a text; whether it was not there.
    pub fn insert(&mut self, text: Str) -> bool {
        let at = self.chunk_of(&text).min(self.chunks.len().saturating_sub(1));
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![text]));
            self.len = 1;
            return true;
        };
        let Err(place) = chunk.binary_search(&text) else { return false };
        let texts = Arc::make_mut(chunk);
        texts.insert(place, text);
        self.len += 1;
        if CHUNK_LEN_MAX < texts.len() {
            let behind = texts.split_off(CHUNK_LEN_MAX / 2);
            self.chunks.insert(at + 1, Arc::new(behind));
        }
        true
    }

    /// Removes a text; whether it was there.
    pub fn remove(&mut self, text: &str) -> bool {
        let at = self.chunk_of(text);
        let Some(chunk) = self.chunks.get_mut(at) else { return false };
        let place = chunk.binary_search_by(|other| other.as_str().cmp(text));
        let Ok(place) = place else { return false };
        self.len -= 1;
        if chunk.len() == 1 {
            self.chunks.remove(at);
        } else {
            Arc::make_mut(chunk).remove(place);
        }
        true
    }

    /// The first chunk that ends with a text or behind it.
    fn chunk_of(&self, text: &str) -> usize {
        let ends_before =
            |chunk: &Arc<Vec<Str>>| chunk.last().is_some_and(|last| last.as_str() < text);
        self.chunks.partition_point(ends_before)
    }
}

impl IntoIterator for StrSet {
    type Item = Str;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { chunks: self.chunks.into_iter(), chunk: Arc::default(), at: 0 }
    }
}

impl Iterator for IntoIter {
    type Item = Str;

    fn next(&mut self) -> Option<Str> {
        if self.at == self.chunk.len() {
            self.chunk = self.chunks.next()?;
            self.at = 0;
        }
        self.at += 1;
        self.chunk.get(self.at - 1).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_set(
            changes in prop::collection::vec((any::<bool>(), 0..600_u32), 0..2_000),
        ) {
            let (mut set, mut expected) = (StrSet::default(), BTreeSet::new());
            for (adds, number) in changes {
                let text = Str::from(format!("{number}"));
                if adds {
                    prop_assert_eq!(set.insert(text.clone()), expected.insert(text));
                } else {
                    prop_assert_eq!(set.remove(&text), expected.remove(&text));
                }
                prop_assert_eq!((set.len(), set.is_empty()), (expected.len(), expected.is_empty()));
            }
            prop_assert!(set.iter().eq(expected.iter()));
            let behind = |text: &Str| set.next_behind(text).cloned();
            let walked = std::iter::successors(behind(&Str::default()), behind);
            prop_assert!(walked.eq(expected.clone()));
            prop_assert!(set.chunks.iter().all(|chunk| (1..=CHUNK_LEN_MAX).contains(&chunk.len())));
            prop_assert!(set.into_iter().eq(expected));
        }
    }

    #[test]
    fn a_copy_shows_what_was_and_a_change_copies_one_chunk() {
        let text = |number: u32| Str::from(format!("{number:06}"));
        let mut set = StrSet::default();
        (0..10_000).for_each(|number| assert!(set.insert(text(number))));
        let was = set.clone();
        assert!(set.remove(&text(5_000)) && set.insert(text(10_000)));
        let shared = |chunk: &&Arc<Vec<Str>>| 1 < Arc::strong_count(chunk);
        assert!(set.chunks.len() - set.chunks.iter().filter(shared).count() <= 3);
        assert!(was.into_iter().eq((0..10_000).map(text)));
    }
}
