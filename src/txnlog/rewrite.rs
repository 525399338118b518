//! A cut: the kept front of a segment, batch by batch, under a new nonce and so a new chain. The
//! bytes behind the cut can never become valid again, whatever a dead process still writes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::format::{
    BATCH_HEADER_BYTES, BatchHeader, Link, Position, SEGMENT_HEADER_BYTES, SegmentHeader, new_name,
    padded, put_record, segment_name, take_record,
};
use crate::base::{FileDir, FileName, FileOp};
use crate::limits::BLOCK_BYTES;
use crate::model::Zxid;

/// Where a segment is cut.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// Index of the segment among those listed.
    pub(super) index: usize,
    /// End of the last batch that is kept whole.
    pub(super) offset: u64,
    /// The batch at `offset` is kept up to this zxid.
    pub(super) partial: Option<Zxid>,
    /// The caller wants it; otherwise the bytes behind are torn.
    pub(super) asked: bool,
    /// The segment.
    pub(super) bytes: Bytes,
}

/// The operations that replace the segment, and how it then ends.
pub(super) struct Rewritten {
    pub(super) ops: VecDeque<FileOp>,
    pub(super) end: Position,
    pub(super) link: Link,
}

/// Rewrites what `cut` keeps of the segment with `header` under `nonce`. At least one batch or
/// part of one must be kept.
pub(super) fn rewrite(cut: &Cut, header: &SegmentHeader, nonce: u64) -> Rewritten {
    let mut out = BytesMut::new();
    let mut link = None;
    let mut at = SEGMENT_HEADER_BYTES;
    while at < cut.offset {
        let mut batch = BatchHeader::decode(&cut.bytes[at as usize..]).expect("scanned before");
        let end = at + batch.padded_bytes();
        let start = out.len();
        out.extend_from_slice(&cut.bytes[at as usize..end as usize]);
        link = Some(relink(&mut batch, nonce, link, &mut out[start..]));
        at = end;
    }
    if let Some(keep) = cut.partial {
        let mut batch = BatchHeader::decode(&cut.bytes[at as usize..]).expect("scanned before");
        let mut kept = keep_records(&mut batch, &cut.bytes[at as usize..], keep);
        link = Some(relink(&mut batch, nonce, link, &mut kept));
        out.extend_from_slice(&kept);
    }
    let link = link.expect("a cut that keeps nothing is no rewrite");
    let end =
        Position { segment: header.sequence, offset: SEGMENT_HEADER_BYTES + out.len() as u64 };
    // Every byte of the new file is durable before it has its name, and its header says so.
    let header = SegmentHeader {
        nonce,
        bytes: end.offset,
        flushed_zxid: link.zxid,
        flushed_to: end,
        ..*header
    };
    Rewritten { ops: replacement(&header, out.freeze()), end, link }
}

fn relink(batch: &mut BatchHeader, nonce: u64, link: Option<Link>, bytes: &mut [u8]) -> Link {
    batch.nonce = nonce;
    if let Some(link) = link {
        batch.previous_chain = link.chain;
    }
    batch.seal(bytes);
    batch.next_link()
}

/// The batch with the records up to `keep`; its header's counts follow.
fn keep_records(batch: &mut BatchHeader, bytes: &[u8], keep: Zxid) -> BytesMut {
    let end = BATCH_HEADER_BYTES + batch.body_bytes as usize;
    let mut body = Bytes::copy_from_slice(&bytes[BATCH_HEADER_BYTES..end]);
    let mut out = BytesMut::zeroed(BATCH_HEADER_BYTES);
    (batch.record_count, batch.last_zxid) = (0, batch.previous_zxid);
    while let Some((zxid, txn)) = take_record(&mut body).filter(|(zxid, _)| *zxid <= keep) {
        put_record(&mut out, zxid, |buf| buf.extend_from_slice(&txn));
        batch.record_count += 1;
        batch.last_zxid = zxid;
    }
    let body_bytes = out.len() - BATCH_HEADER_BYTES;
    batch.body_bytes = u32::try_from(body_bytes).expect("shorter than the batch it is from");
    out.resize(padded(body_bytes as u64) as usize, 0);
    out
}

fn replacement(header: &SegmentHeader, batches: Bytes) -> VecDeque<FileOp> {
    let file = FileName::log(new_name(header.sequence));
    let mut ops = VecDeque::from([FileOp::Create { file: file.clone() }]);
    for start in (0..batches.len()).step_by(WRITE_BYTES) {
        let bytes = batches.slice(start..batches.len().min(start + WRITE_BYTES));
        let offset = SEGMENT_HEADER_BYTES + start as u64;
        ops.push_back(FileOp::Write { file: file.clone(), offset, bytes, durable: false });
    }
    let bytes = header.encode();
    ops.push_back(FileOp::Write { file: file.clone(), offset: 0, bytes, durable: false });
    ops.push_back(FileOp::Flush { file: file.clone() });
    ops.push_back(FileOp::Rename { from: file, to: segment_name(header.sequence) });
    ops.push_back(FileOp::SyncDir { dir: FileDir::Log });
    ops
}

/// One write of a rewritten segment.
const WRITE_BYTES: usize = 1 << 20;

const _: () = assert!(WRITE_BYTES.is_multiple_of(BLOCK_BYTES));
