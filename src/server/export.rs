//! Export: a recovered state becomes an Apache snapshot.

use bytes::Bytes;

use super::recovery::Recovered;
use crate::apache::{Compression, SnapshotDigest, SnapshotEncoder};
use crate::model::Zxid;
use crate::tree::Tree;

/// Bytes of a chunk, at least, except the last.
const CHUNK_BYTES: usize = 1 << 20;
/// The digest version that Apache's servers know.
const DIGEST_VERSION: i32 = 2;

/// Which sections the snapshot ends with. A server of Apache's expects what its own version and
/// settings would write, and does not start on anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections {
    /// The tree's digest: 3.6 and later, unless `zookeeper.digest.enabled` is false.
    pub digest: bool,
    /// The last zxid: 3.9 and later, unless `zookeeper.serializeLastProcessedZxid.enabled` is
    /// false.
    pub last_zxid: bool,
}

/// A snapshot being made, chunk by chunk.
#[derive(Debug)]
pub struct Export<'a> {
    tree: &'a Tree,
    encoder: Option<SnapshotEncoder>,
    /// Paths of znodes to come; their parents are written.
    open: Vec<String>,
    digest: Option<SnapshotDigest>,
    last_zxid: Option<Zxid>,
}

impl<'a> Export<'a> {
    /// Of what was recovered, with digests on if a digest is to be written.
    ///
    /// # Panics
    /// If it was recovered without digests and one is wanted.
    #[must_use]
    pub fn new(recovered: &'a Recovered, compression: Compression, sections: Sections) -> Self {
        let tree = &recovered.tree;
        let zxid = tree.last_zxid();
        assert!(tree.digest() != 0 || !sections.digest, "the tree was recovered with its digest");
        let digest = SnapshotDigest { zxid, version: DIGEST_VERSION, digest: tree.digest() };
        Self {
            tree,
            encoder: Some(SnapshotEncoder::new(
                compression,
                &recovered.sessions,
                tree.acls().cloned(),
            )),
            open: vec!["/".to_owned()],
            digest: sections.digest.then_some(digest),
            last_zxid: sections.last_zxid.then_some(zxid),
        }
    }
}

impl Iterator for Export<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let encoder = self.encoder.as_mut()?;
        while let Some(path) = self.open.pop() {
            let Some(znode) = self.tree.get(&path) else { continue };
            encoder.znode(&path, znode.data(), znode.acl(), &znode.persisted());
            let base = if path == "/" { "" } else { path.as_str() };
            self.open.extend(znode.children().map(|name| format!("{base}/{name}")));
            if let Some(chunk) = encoder.take_chunk(CHUNK_BYTES) {
                return Some(chunk);
            }
        }
        self.encoder.take().map(|encoder| encoder.finish(self.digest, self.last_zxid))
    }
}
