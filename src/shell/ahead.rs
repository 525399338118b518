//! Reads and decodes a snapshot on a thread of its own, a few pieces ahead of the machine that
//! builds the tree: on two cores the two take as long as the longer one.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::files;
use super::reading::{Reading, Soon, is_of_medium};
use crate::base::FileFailure;
use crate::limits::BLOCK_BYTES;
use crate::server::recovery::Decoded;
use crate::snapshot::{self, SnapshotDamage, SnapshotDecoder};

/// Bytes of the file in a piece.
const PIECE_BYTES: u64 = 512 << 10;
/// Decoded pieces that may wait.
const PIECES_AHEAD: usize = 2;

/// A snapshot being read.
#[derive(Debug)]
pub(super) struct Ahead {
    pieces: Receiver<Piece>,
}

/// What became of a piece: reading failed, or decoding, or neither.
type Piece = Result<Result<Decoded, SnapshotDamage>, FileFailure>;

impl Ahead {
    /// Begins with the file at `path`. Those in `then` will be read behind it.
    pub(super) fn start(path: &Path, then: &[PathBuf]) -> Self {
        let (sender, pieces) = sync_channel(PIECES_AHEAD);
        let (path, soon) = (path.to_owned(), Soon::new(then));
        let failed = sender.clone();
        let reader = move || decode(&path, soon, &sender);
        if let Err(error) = thread::Builder::new().name("snapshot".to_owned()).spawn(reader) {
            let text = format!("no thread can be had to read a snapshot: {error}");
            let failure = FileFailure { no_space: false, no_descriptor: false, text };
            let _room = failed.try_send(Err(failure));
        }
        Self { pieces }
    }

    /// The next piece. Not to be called behind the last or a failed one.
    pub(super) fn next(&self) -> Piece {
        self.pieces.recv().expect("the thread ends behind the last piece")
    }
}

/// Sends piece after piece until the last, or until nobody listens.
fn decode(path: &Path, mut soon: Soon, pieces: &SyncSender<Piece>) {
    let mut reading = Reading::default();
    let mut decoder = SnapshotDecoder::new();
    let mut offset = 0;
    // What cannot be read fails again below.
    let mut expected_znodes = expected_znodes_of(path, &mut reading).unwrap_or_default();
    loop {
        let piece = match reading.try_read(path, offset, PIECE_BYTES) {
            Ok(bytes) => {
                offset += bytes.len() as u64;
                let expected_znodes = std::mem::take(&mut expected_znodes);
                let decoded = Decoded::take(&mut decoder, &bytes);
                Ok(decoded.map(|decoded| Decoded { expected_znodes, ..decoded }))
            }
            Err(error) if is_of_medium(&error) => {
                Ok(Err(SnapshotDamage { offset, what: "the disk cannot read it" }))
            }
            Err(error) => Err(files::failure("reading", path, &error)),
        };
        soon.advance(PIECE_BYTES);
        let is_last = !matches!(&piece, Ok(Ok(decoded)) if decoded.summary.is_none());
        if pieces.send(piece).is_err() || is_last {
            return;
        }
    }
}

/// How many znodes the file's last block speaks of.
fn expected_znodes_of(path: &Path, reading: &mut Reading) -> Option<u64> {
    let len = path.metadata().ok()?.len();
    let bytes =
        reading.read(path, len.checked_sub(BLOCK_BYTES as u64)?, BLOCK_BYTES as u64).ok()?;
    Some(snapshot::expected_znodes(&bytes, len))
}
