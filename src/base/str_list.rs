//! [`StrList`]: many texts in one shared buffer, each behind its length. A list of a hundred
//! thousand that was received costs no more than its bytes until it is read.

use std::borrow::Borrow;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Str;

/// A list of texts, taken from its front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StrList {
    /// Of each text its length, 4 bytes, big-endian, then its bytes.
    bytes: Bytes,
    len: usize,
}

impl StrList {
    /// A list of `len` texts in the form that [`StrList`] has. A negative length is passed over;
    /// where the bytes end early, the list ends.
    #[must_use]
    pub const fn new(bytes: Bytes, len: usize) -> Self {
        Self { bytes, len }
    }

    /// The form of the list, as [`StrList::new`] takes it.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

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

    /// All texts; the list stays as it is.
    pub fn iter(&self) -> impl Iterator<Item = Str> + use<> {
        self.clone()
    }
}

/// Malformed UTF-8 becomes U+FFFD, as in [`Str::from_utf8_lossy`].
impl Iterator for StrList {
    type Item = Str;

    fn next(&mut self) -> Option<Str> {
        self.len = self.len.checked_sub(1)?;
        while let Ok(length) = self.bytes.try_get_i32() {
            match usize::try_from(length) {
                Ok(length) if length <= self.bytes.len() => {
                    return Some(Str::from_utf8_lossy(self.bytes.split_to(length)));
                }
                Ok(_) => break,
                Err(_) => {}
            }
        }
        *self = Self::default();
        None
    }
}

impl<T: Borrow<str>> FromIterator<T> for StrList {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut list = StrListMut::default();
        texts.into_iter().for_each(|text| list.push(text.borrow()));
        list.freeze()
    }
}

/// A list that is being made.
#[derive(Debug, Default)]
pub struct StrListMut {
    bytes: BytesMut,
    len: usize,
}

impl StrListMut {
    /// Adds a text at the end.
    pub fn push(&mut self, text: &str) {
        self.bytes.put_i32(i32::try_from(text.len()).expect("texts are shorter than 2 GiB"));
        self.bytes.put_slice(text.as_bytes());
        self.len += 1;
    }

    /// The list.
    #[must_use]
    pub fn freeze(self) -> StrList {
        StrList { bytes: self.bytes.freeze(), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_in_their_order() {
        let list: StrList = ["/a", "", "/b"].into_iter().collect();
        assert_eq!((list.len(), list.is_empty()), (3, false));
        assert!(list.iter().eq(["/a", "", "/b"].map(Str::from)));
        assert_eq!(list.len(), 3);
        assert!(StrList::default().next().is_none());
    }

    #[test]
    fn a_list_ends_where_its_bytes_do_and_passes_over_negative_lengths() {
        let cut = b"\xff\xff\xff\xff\0\0\0\x01a\0\0\0\x09";
        assert!(StrList::new(Bytes::from_static(cut), 3).eq([Str::from("a")]));
        let cut = b"\0\0\0\x01a\xff\xff\xff\xff\0";
        assert!(StrList::new(Bytes::from_static(cut), 3).eq([Str::from("a")]));
    }
}
