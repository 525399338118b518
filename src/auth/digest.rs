//! Scheme `digest`: `user:base64(sha1(user:password))`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// The id that an auth packet proves. The user is the text before the first `:`; a packet without
/// one is its own user.
pub(super) fn id_of(packet: &[u8]) -> String {
    let text = String::from_utf8_lossy(packet);
    let user = text.split(':').next().unwrap_or_default();
    format!("{user}:{}", STANDARD.encode(Sha1::digest(text.as_bytes())))
}

/// Compares two ids in a time that depends on their lengths alone.
pub(super) fn same(left: &str, right: &str) -> bool {
    let differing = left.bytes().zip(right.bytes()).fold(0, |all, (l, r)| all | (l ^ r));
    left.len() == right.len() && differing == 0
}

/// Whether `id` may stand in an ACL: split at `:` with empty parts at the end dropped, exactly two
/// parts remain.
pub(super) fn is_valid_id(id: &str) -> bool {
    let mut parts: Vec<&str> = id.split(':').collect();
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    parts.len() == 2
}
