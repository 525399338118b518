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
use crate::model::{ErrorCode, Id};

/// Settings of the schemes.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `DigestAuthenticationProvider.superDigest`: the digest id that is the super user.
    pub super_digest: Option<String>,
    /// `DigestAuthenticationProvider.enabled`.
    pub digest_enabled: bool,
    /// `skipACL=yes`: everything is allowed.
    pub skip_acl: bool,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self { super_digest: None, digest_enabled: true, skip_acl: false }
    }
}

/// Takes an auth packet: the identities with what it proves, or `AUTH_FAILED`.
pub fn authenticate(
    config: &AuthConfig,
    scheme: &str,
    data: Option<&[u8]>,
    identities: &Identities,
) -> Result<Identities, ErrorCode> {
    match scheme {
        "digest" if config.digest_enabled => {
            let data = data.ok_or(ErrorCode::AUTH_FAILED)?;
            let id = digest::id_of(data);
            let mut all = identities.clone();
            if config.super_digest.as_ref().is_some_and(|wanted| digest::same(wanted, &id)) {
                let scheme = Str::from_static("super");
                all = all.with(Id { scheme, id: Str::default() });
            }
            Ok(all.with(Id { scheme: Str::from_static("digest"), id: Str::from(id) }))
        }
        // The address is an identity from the start.
        "ip" => Ok(identities.clone()),
        _ => Err(ErrorCode::AUTH_FAILED),
    }
}
