//! [`Identities`]: who a connection is.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::Str;
use crate::limits::{CONN_IDENTITIES_BYTES_MAX, CONN_IDENTITIES_MAX};
use crate::model::Id;

/// The (scheme, id) pairs of a connection, in the order in which they were proved. Immutable, so
/// that each request can keep those it was sent under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities(Arc<[Id]>);

impl Identities {
    /// What every connection starts with: its address.
    #[must_use]
    pub fn of_peer(peer: IpAddr) -> Self {
        let id = Str::from(super::ip::to_text(peer));
        Self(Arc::new([Id { scheme: Str::from_static("ip"), id }]))
    }

    /// Those that another server has found its client to have.
    pub fn of_forwarded(ids: Vec<Id>) -> Self {
        Self(ids.into())
    }

    /// These and `id`, or the same if it is among them; `None` if a connection may not have as many
    /// ([`CONN_IDENTITIES_MAX`], [`CONN_IDENTITIES_BYTES_MAX`]).
    #[must_use]
    pub fn with(&self, id: Id) -> Option<Self> {
        if self.0.contains(&id) {
            return Some(self.clone());
        }
        let all: Arc<[Id]> = self.0.iter().cloned().chain([id]).collect();
        let bytes: usize = all.iter().map(|id| 8 + id.scheme.len() + id.id.len()).sum();
        let fits = all.len() <= CONN_IDENTITIES_MAX && bytes <= CONN_IDENTITIES_BYTES_MAX;
        fits.then_some(Self(all))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Id> {
        self.0.iter()
    }

    /// Whether the super user is among them.
    #[must_use]
    pub fn is_super(&self) -> bool {
        self.0.iter().any(|id| id.scheme == "super")
    }

    /// The answer to whoAmI: (scheme, user) each. Of a digest only the user is told.
    #[must_use]
    pub fn who_am_i(&self) -> Vec<(Str, Str)> {
        let user = |id: &Id| match id.scheme.as_str() {
            "digest" => Str::from(id.id.split(':').next().unwrap_or_default()),
            _ => id.id.clone(),
        };
        self.0.iter().map(|id| (id.scheme.clone(), user(id))).collect()
    }
}
