//! Storing and checking ACLs (`client-protocol.md` 8.3 and 8.4).

use std::collections::BTreeSet;

use super::{AuthConfig, Identities, digest, ip};
use crate::base::Str;
use crate::limits;
use crate::model::request::RawAcl;
use crate::model::{Acl, ErrorCode, Id, Perms};

/// The form in which an ACL is stored: duplicates removed, `auth` replaced by the identities that
/// count, every other entry accepted by its scheme. Many `auth` entries of somebody with many
/// identities are refused: no packet holds what they would become.
pub fn fix_acl(
    config: &AuthConfig,
    acl: Option<&[RawAcl]>,
    identities: &Identities,
) -> Result<Vec<Acl>, ErrorCode> {
    let entries = acl.filter(|acl| !acl.is_empty()).ok_or(ErrorCode::INVALID_ACL)?;
    let mut fixed = Vec::new();
    for entry in without_duplicates(entries)? {
        let scheme = entry.scheme.as_ref().ok_or(ErrorCode::INVALID_ACL)?;
        if *scheme == "auth" {
            expand_auth(entry.perms, identities, &mut fixed)?;
            continue;
        }
        let is_known = match scheme.as_str() {
            "world" | "ip" => true,
            "digest" => config.digest_enabled,
            _ => false,
        };
        if !is_known {
            return Err(ErrorCode::INVALID_ACL);
        }
        let id = entry.id.as_ref().ok_or(ErrorCode::MARSHALLING_ERROR)?;
        let valid = match scheme.as_str() {
            "digest" => digest::is_valid_id(id),
            "ip" => ip::is_valid_id(id),
            _ => *id == "anyone",
        };
        if !valid {
            return Err(ErrorCode::INVALID_ACL);
        }
        // Copied: an ACL outlives the packet it came in.
        let id = Id { scheme: Str::from(scheme.as_str()), id: Str::from(id.as_str()) };
        fixed.push(Acl { perms: entry.perms, id });
    }
    Ok(fixed)
}

/// Every entry once. Apache compares permissions, then schemes, then ids, and fails where the
/// entry that comes later has a null to compare.
fn without_duplicates(entries: &[RawAcl]) -> Result<Vec<&RawAcl>, ErrorCode> {
    let mut seen: BTreeSet<(Perms, &Option<Str>, &Option<Str>)> = BTreeSet::new();
    let mut kept = Vec::new();
    for entry in entries {
        let RawAcl { perms, scheme, id } = entry;
        // Nulls come first in the order of the set: the next one is the first that is alike.
        let next = seen.range((*perms, scheme, &None)..).next();
        let fails = match (scheme, id) {
            (None, _) => next.is_some_and(|(seen, ..)| seen == perms),
            (_, None) => next.is_some_and(|(seen, of, _)| seen == perms && *of == scheme),
            _ => false,
        };
        if fails {
            return Err(ErrorCode::MARSHALLING_ERROR);
        }
        if seen.insert((*perms, scheme, id)) {
            kept.push(entry);
        }
    }
    Ok(kept)
}

fn expand_auth(
    perms: Perms,
    identities: &Identities,
    fixed: &mut Vec<Acl>,
) -> Result<(), ErrorCode> {
    let before = fixed.len();
    let counting = identities.iter().filter(|id| id.scheme == "digest");
    fixed.extend(counting.map(|id| Acl { perms, id: id.clone() }));
    let added = before < fixed.len() && fixed.len() <= limits::ACL_ENTRIES_MAX;
    if added { Ok(()) } else { Err(ErrorCode::INVALID_ACL) }
}

/// Whether any entry grants any bit of `wanted` to any of the identities.
#[must_use]
pub fn allowed(config: &AuthConfig, acl: &[Acl], wanted: Perms, identities: &Identities) -> bool {
    config.skip_acl
        || acl.is_empty()
        || acl.iter().any(|entry| entry.perms.any_of(wanted) && matches(&entry.id, identities))
        || identities.is_super()
}

fn matches(entry: &Id, identities: &Identities) -> bool {
    match entry.scheme.as_str() {
        "world" => entry.id == "anyone",
        "ip" => {
            identities.iter().any(|held| held.scheme == "ip" && ip::matches(&entry.id, &held.id))
        }
        "digest" => identities
            .iter()
            .any(|held| held.scheme == "digest" && digest::same(&entry.id, &held.id)),
        _ => false,
    }
}

/// What someone without ADMIN sees: everything behind the user of a digest id is `x`.
#[must_use]
pub fn mask_digests(acl: &[Acl]) -> Vec<Acl> {
    let mask = |entry: &Acl| {
        let mut entry = entry.clone();
        if entry.id.scheme == "digest"
            && let Some((user, _)) = entry.id.id.clone().split_once(':')
        {
            entry.id.id = Str::from(format!("{user}:x"));
        }
        entry
    };
    acl.iter().map(mask).collect()
}
