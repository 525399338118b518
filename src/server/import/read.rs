//! [`Reader`]: pulls Apache's files in the order in which they make a history.

use std::collections::VecDeque;

use bytes::Bytes;

use super::history::{History, Stop};
use super::plan::Sources;
use super::{ImportRefusal, Place, Step, Unfit};
use crate::apache::{LogDecoder, LogEnd, LogEndKind, SnapshotDecoder, names};
use crate::model::Zxid;
use crate::server::epochs::Epochs;
use crate::tree::TreeOptions;

/// Bytes of a file read at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Reads epoch files, the newest snapshot that leads to a state that can be trusted, and the logs
/// behind it.
#[derive(Debug)]
pub(super) struct Reader {
    options: TreeOptions,
    record_bytes_max: usize,
    sources: Sources,
    /// What the epoch files say.
    epochs: Vec<(&'static str, u32)>,
    unfit: Vec<(String, Unfit)>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Epochs(VecDeque<&'static str>),
    /// The operator is being told why the snapshot before is not used.
    Between,
    Snapshot {
        name: String,
        offset: u64,
        decoder: SnapshotDecoder,
        history: Box<History>,
    },
    Logs {
        snapshot: String,
        at: usize,
        offset: u64,
        decoder: LogDecoder,
        history: Box<History>,
    },
}

/// What comes of reading.
#[derive(Debug)]
pub(super) enum Reading {
    /// The driver must do something first.
    Step(Step),
    /// All was read.
    Done(Box<Found>),
}

/// Apache's history.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) history: History,
    pub(super) epochs: Epochs,
    /// What the operator should know.
    pub(super) notes: Vec<String>,
}

impl Reader {
    pub(super) fn new(options: TreeOptions, record_bytes_max: usize, sources: Sources) -> Self {
        let phase = Phase::Epochs(sources.epoch_files.iter().copied().collect());
        Self { options, record_bytes_max, sources, epochs: Vec::new(), unfit: Vec::new(), phase }
    }

    /// The first step, and the one after a note.
    pub(super) fn go_on(&mut self) -> Reading {
        match &self.phase {
            Phase::Between => self.next_snapshot(),
            Phase::Epochs(files) if files.is_empty() => self.next_snapshot(),
            _ => self.read(),
        }
    }

    /// Bytes that were asked for; none at the end of a file.
    pub(super) fn take(&mut self, bytes: &Bytes) -> Reading {
        match std::mem::replace(&mut self.phase, Phase::Between) {
            Phase::Epochs(mut files) => {
                let file = files.pop_front().expect("a file was asked for");
                match names::parse_epoch(bytes) {
                    Some(epoch) => self.epochs.push((file, epoch)),
                    // A crash may have left it empty, and then it was never of use.
                    None if file == names::CURRENT_EPOCH_UNFINISHED => {}
                    None => return refuse(ImportRefusal::EpochFile { file: file.to_owned() }),
                }
                self.phase = Phase::Epochs(files);
                self.go_on()
            }
            Phase::Snapshot { name, offset, mut decoder, mut history } if !bytes.is_empty() => {
                match history.take_snapshot_piece(&mut decoder, bytes) {
                    Ok(()) => {
                        let offset = offset + bytes.len() as u64;
                        self.phase = Phase::Snapshot { name, offset, decoder, history };
                        self.read()
                    }
                    Err(unfit) => self.give_up(name, unfit),
                }
            }
            Phase::Snapshot { name, decoder, mut history, .. } => {
                if let Err(unfit) = history.finish_snapshot(decoder) {
                    return self.give_up(name, unfit);
                }
                let begun = history.begun;
                let before = self.sources.logs.iter().rposition(|(zxid, _)| *zxid <= begun);
                self.open_log(name, before.unwrap_or(0), history)
            }
            Phase::Logs { snapshot, at, offset, decoder, history } => {
                self.take_log(snapshot, at, offset, decoder, history, bytes)
            }
            Phase::Between => unreachable!("no bytes were asked for"),
        }
    }

    fn take_log(
        &mut self,
        snapshot: String,
        at: usize,
        offset: u64,
        mut decoder: LogDecoder,
        mut history: Box<History>,
        bytes: &Bytes,
    ) -> Reading {
        let file = self.sources.logs.get(at).map(|(_, name)| name.clone()).unwrap_or_default();
        if bytes.is_empty() {
            return match decoder.finish() {
                Ok(end) => self.next_log(snapshot, at, history, end),
                Err(damage) => {
                    let last = history.state.tree.last_zxid();
                    refuse(ImportRefusal::Log { file, damage, last })
                }
            };
        }
        decoder.push(bytes);
        loop {
            let taken = match decoder.next_record() {
                Ok(Some(record)) => history.take_record(&file, &record),
                Ok(None) => break,
                Err(damage) => {
                    let last = history.state.tree.last_zxid();
                    return refuse(ImportRefusal::Log { file, damage, last });
                }
            };
            match taken {
                Ok(()) => {}
                Err(Stop::Unfit(unfit)) => return self.give_up(snapshot, unfit),
                Err(Stop::Refuse(refusal)) => return refuse(refusal),
            }
        }
        let offset = offset + bytes.len() as u64;
        self.phase = Phase::Logs { snapshot, at, offset, decoder, history };
        self.read()
    }

    fn next_log(
        &mut self,
        snapshot: String,
        at: usize,
        history: Box<History>,
        end: LogEnd,
    ) -> Reading {
        let name = self.sources.logs.get(at).map(|(_, name)| name.as_str()).unwrap_or_default();
        let mut notes = Vec::new();
        if at + 1 < self.sources.logs.len() {
            // A record cut short in the middle is a gap unless the next file has its zxid.
            return self.open_log(snapshot, at + 1, history);
        }
        if end.kind == LogEndKind::Torn {
            let LogEnd { at, .. } = end;
            notes
                .push(format!("{name} ends at offset {at} with a record cut short, never flushed"));
        }
        self.finish(snapshot, history, notes)
    }

    fn open_log(&mut self, snapshot: String, at: usize, history: Box<History>) -> Reading {
        if self.sources.logs.len() <= at {
            return self.finish(snapshot, history, Vec::new());
        }
        let decoder = LogDecoder::new(self.record_bytes_max);
        self.phase = Phase::Logs { snapshot, at, offset: 0, decoder, history };
        self.read()
    }

    fn finish(
        &mut self,
        snapshot: String,
        mut history: Box<History>,
        mut notes: Vec<String>,
    ) -> Reading {
        if let Err(unfit) = history.finish() {
            return self.give_up(snapshot, unfit);
        }
        let orphans = match history.remove_orphans() {
            Ok(orphans) => orphans,
            Err(refusal) => return refuse(refusal),
        };
        if 0 < orphans {
            notes.push(format!("{orphans} ephemerals of sessions that are over were removed"));
        }
        if history.compared == 0 && self.options.digests {
            notes.push("no digest could be compared: Apache's server kept none".to_owned());
        }
        let epochs = match self.epochs_at(history.state.tree.last_zxid()) {
            Ok(epochs) => epochs,
            Err(refusal) => return refuse(refusal),
        };
        Reading::Done(Box::new(Found { history: *history, epochs, notes }))
    }

    /// Apache's rules at a start (`quorum-and-disk.md` 3.3).
    fn epochs_at(&self, zxid: Zxid) -> Result<Epochs, ImportRefusal> {
        let said = |file| self.epochs.iter().find(|(name, _)| *name == file).map(|(_, said)| *said);
        let mut current = said(names::CURRENT_EPOCH).unwrap_or(zxid.epoch());
        // The crash came between the history and the renaming of the epoch's file.
        if current < zxid.epoch() && said(names::CURRENT_EPOCH_UNFINISHED) == Some(zxid.epoch()) {
            current = zxid.epoch();
        }
        let accepted = said(names::ACCEPTED_EPOCH).unwrap_or(current);
        if current < zxid.epoch() || accepted < current {
            return Err(ImportRefusal::Epochs { accepted, current, zxid });
        }
        Ok(Epochs { accepted, current, sequence: 0 })
    }

    /// The newest snapshot that was not tried.
    fn next_snapshot(&mut self) -> Reading {
        let Some((zxid, compression)) = self.sources.snapshots.pop() else {
            let unfit = std::mem::take(&mut self.unfit);
            return refuse(ImportRefusal::NoSnapshot { unfit });
        };
        self.phase = Phase::Snapshot {
            name: names::snapshot_name(zxid, compression),
            offset: 0,
            decoder: SnapshotDecoder::new(compression, self.record_bytes_max),
            history: Box::new(History::new(self.options, zxid)),
        };
        self.read()
    }

    fn give_up(&mut self, name: String, unfit: Unfit) -> Reading {
        self.unfit.push((name.clone(), unfit.clone()));
        self.phase = Phase::Between;
        Reading::Step(Step::PassOver { name, unfit })
    }

    /// Asks for the next piece of the file under way.
    fn read(&self) -> Reading {
        let (place, name, offset) = match &self.phase {
            Phase::Epochs(files) => {
                let name = files.front().copied().unwrap_or_default();
                (Place::Data, name.to_owned(), 0)
            }
            Phase::Snapshot { name, offset, .. } => (Place::Data, name.clone(), *offset),
            Phase::Logs { at, offset, .. } => {
                let name = self.sources.logs.get(*at).map(|(_, name)| name.clone());
                (self.sources.log_place, name.unwrap_or_default(), *offset)
            }
            Phase::Between => unreachable!("no file is open"),
        };
        Reading::Step(Step::Read { place, name, offset, len: PIECE_BYTES })
    }
}

fn refuse(refusal: ImportRefusal) -> Reading {
    Reading::Step(Step::Refuse(refusal))
}
