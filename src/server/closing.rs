//! [`Preparing`]: the txn that ends a session, made in slices. From the first slice on it has its
//! zxid, and no other txn is made until it is whole, so nothing can change what the session owns.

use super::audit;
use super::stream::Origin;
use crate::base::Str;
use crate::base::str_list::StrListMut;
use crate::model::{TxnBody, TxnHeader};
use crate::tree::{Overlay, Tree};
use crate::wire::txn::encoded_bytes;

/// The end of the header's session: deletes its ephemerals, those in flight included.
#[derive(Debug)]
pub(super) struct Preparing {
    pub(super) header: TxnHeader,
    /// `None`: the session expired.
    pub(super) origin: Option<Origin>,
    pub(super) audit: Option<audit::Entry>,
    paths: StrListMut,
    /// What was found up to this path.
    to: Str,
}

impl Preparing {
    pub(super) fn new(
        header: TxnHeader,
        origin: Option<Origin>,
        audit: Option<audit::Entry>,
    ) -> Self {
        Self { header, origin, audit, paths: StrListMut::default(), to: Str::default() }
    }

    /// Finds more ephemerals and stages their deletion; whether these were all. `left` says how
    /// many there may still be.
    pub(super) fn go_on(&mut self, tree: &Tree, overlay: &mut Overlay, left: &mut usize) -> bool {
        while *left != 0 {
            let next = overlay.next_ephemeral(tree, self.header.session, &self.to);
            let Some(path) = next else { return true };
            overlay.stage_delete(tree, self.header.zxid, &path);
            self.paths.push(&path);
            self.to = path;
            *left -= 1;
        }
        false
    }

    /// The txn. The list is left out if with it the txn would be too long to be read anywhere
    /// (ZOOKEEPER-4306): whoever applies it deletes what its own tree says, which is the same.
    pub(super) fn body(&mut self, txn_bytes_max: usize) -> TxnBody {
        let paths = std::mem::take(&mut self.paths).freeze();
        let body = TxnBody::CloseSession { paths: Some(paths) };
        match encoded_bytes(&body, Some(0)) <= txn_bytes_max {
            true => body,
            false => TxnBody::CloseSession { paths: Some(Default::default()) },
        }
    }
}
