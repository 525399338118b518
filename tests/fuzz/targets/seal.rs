//! Puts the checksums of mutated files right, so that a mutation reaches what they guard. The
//! layouts are those of `src/docs/txnlog.md`, `src/docs/snapshot.md` and Apache's log.

/// Blocks of our files.
const BLOCK: usize = 4096;

/// A log segment: its header says the length that it has, every batch follows on from the one
/// before.
pub(super) fn segment(bytes: &mut [u8]) {
    let len = bytes.len() as u64;
    if let Some(block) = bytes.get_mut(..BLOCK) {
        block[32..40].copy_from_slice(&len.to_be_bytes());
        let crc = crc32c::crc32c(&block[12..]);
        block[8..12].copy_from_slice(&crc.to_be_bytes());
    }
    let mut at = BLOCK;
    let mut before = None;
    while let Some(batch) = bytes.get_mut(at..).filter(|batch| BLOCK <= batch.len()) {
        let padded = (96 + number(batch, 24)).next_multiple_of(BLOCK);
        let end = if padded <= batch.len() { padded } else { BLOCK };
        if number(batch, 0) != 0 {
            batch_header(&mut batch[..end], before);
            before = Some(number(batch, 80));
        }
        at += end;
    }
}

fn batch_header(batch: &mut [u8], before: Option<usize>) {
    put(batch, 72, crc32c::crc32c(&batch[96..]));
    if let Some(before) = before {
        put(batch, 76, u32::try_from(before).unwrap_or_default());
    }
    put(batch, 80, crc32c::crc32c(&batch[8..80]));
    put(batch, 4, crc32c::crc32c(&batch[8..96]));
}

/// A snapshot: every block follows on from the one before.
pub(super) fn snapshot(bytes: &mut [u8]) {
    let mut at = 0;
    let mut before = 0_u32;
    while let Some(block) = bytes.get_mut(at..).filter(|block| BLOCK <= block.len()) {
        let payload = number(block, 12);
        let padded = (20 + payload).next_multiple_of(BLOCK);
        if block.len() < padded {
            return;
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&before.to_be_bytes()), &block[..16]);
        before = crc32c::crc32c_append(crc, &block[20..20 + payload]);
        put(block, 16, before);
        at += padded;
    }
}

/// Apache's log: checksum, length, bytes, end mark of each record.
pub(super) fn apache_log(bytes: &mut [u8]) {
    let mut at = 16;
    while let Some(record) = bytes.get_mut(at..).filter(|record| 12 < record.len()) {
        let len = number(record, 8);
        let Some(body) = record.get(12..12 + len).filter(|body| !body.is_empty()) else { return };
        let checksum = u64::from(adler2::adler32_slice(body));
        record[..8].copy_from_slice(&checksum.to_be_bytes());
        at += 13 + len;
    }
}

fn number(bytes: &[u8], at: usize) -> usize {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    u32::from_be_bytes(field) as usize
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
