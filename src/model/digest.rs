//! [`DigestAlgorithm`]: the hash of the digest scheme.

/// Which hash makes the ids of the digest scheme. Names are Java's, letter case not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DigestAlgorithm {
    #[default]
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha512By224,
    Sha512By256,
}

impl DigestAlgorithm {
    /// The algorithm of this name, if it is offered.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "SHA" | "SHA1" | "SHA-1" => Self::Sha1,
            "SHA-224" => Self::Sha224,
            "SHA-256" => Self::Sha256,
            "SHA-384" => Self::Sha384,
            "SHA-512" => Self::Sha512,
            "SHA-512/224" => Self::Sha512By224,
            "SHA-512/256" => Self::Sha512By256,
            _ => return None,
        })
    }
}
