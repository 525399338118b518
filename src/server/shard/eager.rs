//! Eager ACL checks (`enableEagerACLCheck`, `client-protocol.md` 8.6): a member of an ensemble
//! refuses what its own tree does not allow, before anybody else hears of it. What passes is judged
//! again, in its order.

use crate::auth::{self, AuthConfig, Identities};
use crate::model::request::RawAcl;
use crate::model::{CreateKind, ErrorCode, Perms, WriteRequest, path};
use crate::tree::Tree;

/// How a write is refused, if it is: plain creates, deletes, and what sets data or ACLs. An ACL
/// that is asked for must be well-formed; a znode that is not here allows everything.
pub(super) fn refusal(
    config: &AuthConfig,
    view: &Tree,
    write: &WriteRequest,
    identities: &Identities,
) -> Option<ErrorCode> {
    let (path, perms, acl): (&str, Perms, Option<&Option<Vec<RawAcl>>>) = match write {
        WriteRequest::Create(create)
            if matches!(create.kind, CreateKind::Create | CreateKind::Create2) =>
        {
            (path::parent(&create.path)?, Perms::CREATE, Some(&create.acl))
        }
        WriteRequest::Delete { path, .. } => (path::parent(path)?, Perms::DELETE, None),
        WriteRequest::SetData { path, .. } => (path, Perms::WRITE, None),
        WriteRequest::SetAcl { path, acl, .. } => (path, Perms::ADMIN, Some(acl)),
        _ => return None,
    };
    if let Some(Err(code)) = acl.map(|acl| auth::fix_acl(config, acl.as_deref(), identities)) {
        return Some(code);
    }
    let znode = view.get(path)?;
    let allowed = auth::allowed(config, znode.acl(), perms, identities);
    (!allowed).then_some(ErrorCode::NO_AUTH)
}
