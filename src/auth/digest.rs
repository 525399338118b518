//! Scheme `digest`: `user:base64(hash(user:password))`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use sha2::{Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};

use crate::model::DigestAlgorithm;

/// The id that an auth packet proves. The user is the text before the first `:`; a packet without
/// one is its own user.
pub(super) fn id_of(algorithm: DigestAlgorithm, packet: &[u8]) -> String {
    let text = String::from_utf8_lossy(packet);
    let user = text.split(':').next().unwrap_or_default();
    format!("{user}:{}", hash(algorithm, text.as_bytes()))
}

/// In base64.
fn hash(algorithm: DigestAlgorithm, bytes: &[u8]) -> String {
    match algorithm {
        DigestAlgorithm::Sha1 => STANDARD.encode(Sha1::digest(bytes)),
        DigestAlgorithm::Sha224 => STANDARD.encode(Sha224::digest(bytes)),
        DigestAlgorithm::Sha256 => STANDARD.encode(Sha256::digest(bytes)),
        DigestAlgorithm::Sha384 => STANDARD.encode(Sha384::digest(bytes)),
        DigestAlgorithm::Sha512 => STANDARD.encode(Sha512::digest(bytes)),
        DigestAlgorithm::Sha512By224 => STANDARD.encode(Sha512_224::digest(bytes)),
        DigestAlgorithm::Sha512By256 => STANDARD.encode(Sha512_256::digest(bytes)),
    }
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
