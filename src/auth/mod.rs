//! Layer 2: identities, ACL schemes and checks (`client-protocol.md` part 8). Pure: what a
//! connection offers comes in, who it is and what it may do come out.

mod acl;
mod digest;
mod identities;
mod ip;

#[cfg(test)]
mod tests;

pub use acl::{allowed, fix_acl, mask_digests};
pub use identities::Identities;

use crate::base::Str;
use crate::model::{DigestAlgorithm, Id};

/// Settings of the schemes.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `DigestAuthenticationProvider.superDigest`: the digest id that is the super user.
    pub super_digest: Option<String>,
    /// `DigestAuthenticationProvider.enabled`.
    pub digest_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`.
    pub digest_algorithm: DigestAlgorithm,
    /// `skipACL=yes`: everything is allowed.
    pub skip_acl: bool,
    /// `ensembleAuthName`: the names of this ensemble that clients may give; empty: any name.
    /// `None`: the scheme is not offered.
    pub ensemble_names: Option<Vec<String>>,
    /// `enforce.auth.schemes` if `enforce.auth.enabled`: a connection without an identity of any of
    /// these schemes is sent away. Empty: nothing is enforced.
    pub enforced_schemes: Vec<String>,
    /// `enableEagerACLCheck`: a member of an ensemble refuses its clients' writes by its own tree,
    /// too, before the leader hears of them.
    pub eager: bool,
}

/// Why an auth packet adds no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRefusal {
    /// It proves nothing: answered with `AUTH_FAILED`, which ends the client's handle.
    Failed,
    /// The connection has proved as much as it may: answered as `Failed`, so that the client does
    /// not connect again and prove all of it anew.
    TooMany,
    /// The client looks for another ensemble: the connection is closed without a word, so that it
    /// tries another server.
    OtherEnsemble,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            super_digest: None,
            digest_enabled: true,
            digest_algorithm: DigestAlgorithm::Sha1,
            skip_acl: false,
            ensemble_names: None,
            enforced_schemes: Vec::new(),
            eager: false,
        }
    }
}

/// Takes an auth packet: the identities with what it proves.
pub fn authenticate(
    config: &AuthConfig,
    scheme: &str,
    data: Option<&[u8]>,
    identities: &Identities,
) -> Result<Identities, AuthRefusal> {
    match scheme {
        "digest" if config.digest_enabled => {
            let data = data.ok_or(AuthRefusal::Failed)?;
            let id = digest::id_of(config.digest_algorithm, data);
            let mut all = identities.clone();
            if config.super_digest.as_ref().is_some_and(|wanted| digest::same(wanted, &id)) {
                let scheme = Str::from_static("super");
                all = all.with(Id { scheme, id: Str::default() }).ok_or(AuthRefusal::TooMany)?;
            }
            let id = Id { scheme: Str::from_static("digest"), id: Str::from(id) };
            all.with(id).ok_or(AuthRefusal::TooMany)
        }
        // The address is an identity from the start.
        "ip" => Ok(identities.clone()),
        "ensemble" => {
            let names = config.ensemble_names.as_ref().ok_or(AuthRefusal::Failed)?;
            let name = String::from_utf8_lossy(data.unwrap_or_default());
            let fits = name.is_empty() || names.is_empty() || names.iter().any(|n| *n == name);
            if fits { Ok(identities.clone()) } else { Err(AuthRefusal::OtherEnsemble) }
        }
        _ => Err(AuthRefusal::Failed),
    }
}

/// Whether a connection with these identities may ask for anything.
#[must_use]
pub fn is_admitted(config: &AuthConfig, identities: &Identities) -> bool {
    config.enforced_schemes.is_empty()
        || identities.iter().any(|id| config.enforced_schemes.iter().any(|s| id.scheme == **s))
}
