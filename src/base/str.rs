//! [`Str`]: UTF-8 text that shares the buffer it was received in.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// Immutable UTF-8 text over a shared buffer. Cloning and slicing copy nothing.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Str(Bytes);

impl Str {
    /// Text over static storage.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Takes received bytes as text. Malformed UTF-8 becomes U+FFFD, as Java's decoder does;
    /// only that case copies.
    #[must_use]
    pub fn from_utf8_lossy(bytes: Bytes) -> Self {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Self(bytes),
            Err(_) => Self::from(lossy(&bytes)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor takes a `str` or checks the bytes, and they never change.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// A part of this text that shares its buffer. `part` must lie inside `self`'s own memory,
    /// as a slice taken from [`Str::as_str`] does.
    #[must_use]
    pub fn slice_ref(&self, part: &str) -> Self {
        Self(self.0.slice_ref(part.as_bytes()))
    }

    /// The shared bytes of the text.
    #[must_use]
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// One U+FFFD for each malformed sequence. Java takes the encoding of a surrogate, whole or cut
/// short, for one sequence; Rust for one sequence per byte.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    let is_surrogate = |pair: &[u8]| matches!(pair, [0xed, 0xa0..=0xbf]);
    while let Some(at) = rest.windows(2).position(is_surrogate) {
        let (before, from) = rest.split_at(at);
        text.push_str(&String::from_utf8_lossy(before));
        text.push(char::REPLACEMENT_CHARACTER);
        rest = match from {
            [_, _, 0x80..=0xbf, rest @ ..] | [_, _, rest @ ..] => rest,
            _ => &[],
        };
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

/// As `str`, so that maps keyed by [`Str`] can be asked with a `&str`.
impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_text_is_replaced_as_java_replaces_it() {
        for (bytes, text) in [
            (b"/a\xff".as_slice(), "/a\u{fffd}"),
            (b"\xe2\x82", "\u{fffd}"),
            (b"\xe2\x82/", "\u{fffd}/"),
            (b"\xc0\x80", "\u{fffd}\u{fffd}"),
            (b"\xed\xa0\xbd\xed\xb8\x80", "\u{fffd}\u{fffd}"),
            (b"\xed\xa0\x80a", "\u{fffd}a"),
            (b"\xed\xa0a", "\u{fffd}a"),
            (b"\xed\xa0", "\u{fffd}"),
            (b"\xed\x9f\xbf", "\u{d7ff}"),
            (b"\xe2\xed\xa0\x80", "\u{fffd}\u{fffd}"),
            (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            let bytes = Bytes::from_static(bytes);
            assert_eq!(Str::from_utf8_lossy(bytes.clone()).as_str(), text, "{bytes:?}");
        }
    }
}
