//! [`Pages`] and [`Arena`]: large collections that never move what they hold. Growing a vector of
//! millions of entries copies all of them at once, which stalls whoever waits.

/// Entries of one page.
const PAGE_ENTRIES: usize = 1024;

/// A stack of entries in pages of the same size.
#[derive(Clone, Debug)]
pub struct Pages<T> {
    pages: Vec<Vec<T>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> Pages<T> {
    /// Number of entries, the id of the next one.
    #[must_use]
    pub fn len(&self) -> u32 {
        let full = self.pages.len().saturating_sub(1) * PAGE_ENTRIES;
        let last = self.pages.last().map_or(0, Vec::len);
        u32::try_from(full + last).expect("ids are 32 bits")
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Entry `id`.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&T> {
        let at = id as usize;
        self.pages.get(at / PAGE_ENTRIES)?.get(at % PAGE_ENTRIES)
    }

    /// Entry `id`.
    #[must_use]
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let at = id as usize;
        self.pages.get_mut(at / PAGE_ENTRIES)?.get_mut(at % PAGE_ENTRIES)
    }

    /// Adds an entry behind the last one; its id.
    pub fn push(&mut self, entry: T) -> u32 {
        let id = self.len();
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE_ENTRIES => page.push(entry),
            _ => {
                let mut page = Vec::with_capacity(PAGE_ENTRIES);
                page.push(entry);
                self.pages.push(page);
            }
        }
        id
    }

    /// Takes the last entry.
    pub fn pop(&mut self) -> Option<T> {
        let page = self.pages.last_mut()?;
        let entry = page.pop();
        if page.is_empty() {
            self.pages.pop();
        }
        entry
    }
}

/// Entries with ids that are used again once they are free. What a free entry holds is the
/// caller's affair.
#[derive(Clone, Debug)]
pub struct Arena<T> {
    entries: Pages<T>,
    free: Pages<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { entries: Pages::default(), free: Pages::default() }
    }
}

impl<T> Arena<T> {
    /// Bound of all ids that were ever given.
    #[must_use]
    pub fn bound(&self) -> u32 {
        self.entries.len()
    }

    /// The entry with an id that `put` gave. Panics on any other: ids never come from outside.
    #[must_use]
    pub fn get(&self, id: u32) -> &T {
        self.entries.get(id).expect("ids come from this arena")
    }

    /// As [`Arena::get`].
    #[must_use]
    pub fn get_mut(&mut self, id: u32) -> &mut T {
        self.entries.get_mut(id).expect("ids come from this arena")
    }

    /// The id that the next [`Arena::put`] uses again, if there is one.
    #[must_use]
    pub fn next_free(&self) -> Option<u32> {
        self.free.len().checked_sub(1).and_then(|last| self.free.get(last)).copied()
    }

    /// Keeps an entry; its id.
    pub fn put(&mut self, entry: T) -> u32 {
        let Some(id) = self.free.pop() else { return self.entries.push(entry) };
        *self.get_mut(id) = entry;
        id
    }

    /// Lets the id be used again.
    pub fn release(&mut self, id: u32) {
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_used_again_and_entries_stay_where_they_are() {
        let mut arena = Arena::default();
        let ids: Vec<u32> = (0..3000).map(|number| arena.put(number)).collect();
        assert_eq!(arena.bound(), 3000);
        assert!(ids.iter().zip(0..).all(|(id, number)| *arena.get(*id) == number));
        arena.release(17);
        arena.release(2999);
        assert_eq!(arena.next_free(), Some(2999));
        assert_eq!((arena.put(7), arena.put(8)), (2999, 17));
        assert_eq!((arena.next_free(), arena.put(9)), (None, 3000));
    }

    #[test]
    fn a_stack_of_pages_is_a_stack() {
        let mut pages = Pages::default();
        for number in 0..2500 {
            assert_eq!(pages.push(number), number);
        }
        for number in (0..2500).rev() {
            assert_eq!((pages.len(), pages.pop()), (number + 1, Some(number)));
        }
        assert_eq!((pages.is_empty(), pages.pop()), (true, None));
    }
}
