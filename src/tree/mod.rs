//! Layer 2: the data tree: znodes, what txns do to them, and what requests in flight will have
//! done. Knows nothing of sessions' expiry, of who may do what, or of bytes on a wire.
//!
//! ```text
//! pages of slots:   id -> { parent, siblings, first child, name, shared Value }
//! index:            (parent id, name) -> id
//! Value:            stat, ACL, data; immutable, replaced as a whole, shared with readers
//! ```
//!
//! 1. A slot's parent and name never change while it is in use.
//! 2. No single operation moves more than about a thousand entries, however large the tree is.
//! 3. Nothing visible depends on the order of a hash table.

mod apply;
mod cut;
mod listing;
mod overlay;
mod owners;
mod quota;
mod replay;
mod restore;
mod rules;
mod store;
mod value;
mod znode;

#[cfg(test)]
mod tests;

pub use apply::{Applied, Outcome, Partial, Step};
pub use cut::{CutId, CutItem};
pub use listing::Listing;
pub use overlay::{Overlay, PendingZnode};
pub use owners::is_overdue;
pub use quota::{Excess, Quota, Track};
pub use restore::RestoreError;
pub use store::{Tree, TreeOptions};
pub use value::{Shared, Value, digest as znode_digest};
pub use znode::ZnodeRef;
