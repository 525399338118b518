//! Import: an Apache data directory becomes this server's own, once.
//!
//! A pull machine like [`recovery`](super::recovery), which it asks for in the middle: the driver
//! answers each [`Step`] with an [`Answer`] until `Done` or `Refuse`. Most starts find nothing to
//! import and go straight to [`Step::Recover`].
//!
//! ```text
//! survey, plan -> marker -> read snapshot and logs -> write our snapshot and epochs
//!              -> recover -> seal -> remove the marker
//! ```
//!
//! 1. While the file [`MARKER`] is there, what this server has written does not count. It is there
//!    before the first of our files has its name, and goes when Apache's directories are sealed.
//! 2. Apache's directories are sealed only after recovery has read back what was written.
//! 3. Nothing in Apache's directories is ever written: sealing moves them aside as a whole.
//!
//! So at every moment exactly one history is live, and a start after a kill at any point does the
//! import again or goes on with sealing.

mod history;
mod plan;
mod read;
mod refusal;

#[cfg(test)]
mod tests;

pub use history::fuzzy_range;
pub use plan::{Entry, PlaceSurvey, Survey};
pub use refusal::{ImportRefusal, Unfit};

use std::collections::VecDeque;

use bytes::Bytes;

use super::recovery::Recovered;
use super::snapshotter::{SnapshotProgress, Snapshotter};
use crate::base::{FileDir, FileFailure, FileName, FileOp, FileOpId, FileOps, WallMs};
use crate::limits::RECORD_BYTES_MAX;
use crate::model::Zxid;
use crate::tree::{Tree, TreeOptions};
use plan::Plan;
use read::{Found, Reader, Reading};

/// The file in the data directory that says that an import is not over.
pub const MARKER: &str = "importing";

/// What the driver is to do next.
#[derive(Debug)]
pub enum Step {
    /// Look at our own and at Apache's directories: [`Answer::Surveyed`].
    Survey,
    /// Read `[offset, offset + len)` of one of Apache's files; fewer bytes only at its end.
    Read {
        /// Where the file is.
        place: Place,
        /// Its name.
        name: String,
        /// From where, bytes.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Run the operation in our own directories and wait for its end.
    Run(FileOp),
    /// Tell the operator, then answer `Next`.
    Note(String),
    /// Tell the operator that this snapshot is not used and the one before is tried, then answer
    /// `Next`.
    PassOver {
        /// The file.
        name: String,
        /// Why.
        unfit: Unfit,
    },
    /// Run recovery to its end: [`Answer::Recovered`].
    Recover {
        /// What was written is read back: tell what was found.
        check: bool,
    },
    /// Move `version-2` aside to `version-2.imported` and put a file with this text in its place,
    /// durably, and if possible in one step. It may have been begun before.
    Seal {
        /// Which of the directories.
        place: Place,
        /// What the file says.
        text: &'static str,
    },
    /// The server may start with what was recovered.
    Done,
    /// The server must not start.
    Refuse(ImportRefusal),
}

/// What the driver did.
#[derive(Debug)]
pub enum Answer {
    /// The first call.
    Start,
    /// To `Survey`.
    Surveyed(Survey),
    /// To `Read`.
    Bytes(Bytes),
    /// To `Run` and `Seal`.
    Ran(Result<(), FileFailure>),
    /// To `Note` and `PassOver`.
    Next,
    /// To `Recover`, with what was found if that was asked for.
    Recovered(Option<Check>),
}

/// Which of Apache's two directories. They may be one, which is `Data` then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// `dataDir/version-2`: snapshots and epoch files.
    #[default]
    Data,
    /// `dataLogDir/version-2`: logs.
    Log,
}

/// What must be the same before our files were written and after they were read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// The last txn.
    pub zxid: Zxid,
    /// The tree's digest; 0 when digests are off.
    pub digest: u64,
    /// Of the ACLs, which the tree's digest leaves out.
    pub acl_digest: u64,
    /// Znodes.
    pub znode_count: usize,
    /// Sessions.
    pub session_count: usize,
}

/// The machine. Drive it from [`Answer::Start`] to [`Step::Done`] or [`Step::Refuse`].
#[derive(Debug)]
pub struct Import {
    options: TreeOptions,
    record_bytes_max: usize,
    wall: WallMs,
    phase: Phase,
    /// What recovery must find, if anything was imported.
    expected: Option<Check>,
    /// Directories to seal.
    unsealed: VecDeque<Place>,
    /// Whether the marker is there.
    marked: bool,
}

#[derive(Debug)]
enum Phase {
    Surveying,
    /// Operations before the reading.
    Preparing(VecDeque<FileOp>, Box<Reader>),
    Reading(Box<Reader>),
    /// What was found is told before it is written.
    Noting(VecDeque<String>, Box<Found>),
    Writing(Box<Writing>),
    /// Operations behind our snapshot.
    WritingEpochs(VecDeque<FileOp>),
    Recovering,
    Sealing,
    /// The marker goes.
    Unmarking(VecDeque<FileOp>),
    Over,
}

/// Our snapshot under way.
#[derive(Debug)]
struct Writing {
    tree: Tree,
    snapshotter: Snapshotter,
    ops: FileOps,
    asked: VecDeque<(FileOpId, FileOp)>,
    under_way: Option<FileOpId>,
    /// What is written behind the snapshot.
    epochs: VecDeque<FileOp>,
}

impl Check {
    /// Of what recovery found.
    #[must_use]
    pub fn of(recovered: &Recovered) -> Self {
        Self::of_state(&recovered.tree, recovered.sessions.len())
    }

    fn of_state(tree: &Tree, session_count: usize) -> Self {
        Self {
            zxid: tree.last_zxid(),
            digest: tree.digest(),
            acl_digest: tree.acl_digest(),
            znode_count: tree.znode_count(),
            session_count,
        }
    }
}

impl Import {
    /// At the beginning. Values in Apache's files may be as long as `frame_bytes_max`
    /// (`jute.maxbuffer`) allows; `wall` is the time that our snapshot will bear.
    #[must_use]
    pub fn new(options: TreeOptions, frame_bytes_max: usize, wall: WallMs) -> Self {
        Self {
            options,
            record_bytes_max: RECORD_BYTES_MAX.max(frame_bytes_max.saturating_mul(2)),
            wall,
            phase: Phase::Surveying,
            expected: None,
            unsealed: VecDeque::new(),
            marked: false,
        }
    }

    /// Takes the driver's answer to the last step and gives the next.
    pub fn step(&mut self, answer: Answer) -> Step {
        if let Answer::Ran(Err(failure)) = answer {
            return self.refuse(ImportRefusal::File(failure));
        }
        match (std::mem::replace(&mut self.phase, Phase::Over), answer) {
            (Phase::Surveying, Answer::Start) => {
                self.phase = Phase::Surveying;
                Step::Survey
            }
            (Phase::Surveying, Answer::Surveyed(survey)) => self.on_survey(&survey),
            (Phase::Preparing(ops, reader), Answer::Ran(Ok(()))) => self.prepare(ops, reader),
            (Phase::Reading(mut reader), Answer::Bytes(bytes)) => {
                let reading = reader.take(&bytes);
                self.on_reading(reader, reading)
            }
            (Phase::Reading(mut reader), Answer::Next) => {
                let reading = reader.go_on();
                self.on_reading(reader, reading)
            }
            (Phase::Noting(notes, found), Answer::Next) => self.note(notes, found),
            (Phase::Writing(writing), Answer::Ran(Ok(()))) => self.on_written(writing),
            (Phase::WritingEpochs(ops), Answer::Ran(Ok(()))) => self.write_epochs(ops),
            (Phase::Recovering, Answer::Recovered(found)) => match (self.expected, found) {
                (Some(expected), Some(found)) if expected != found => {
                    self.refuse(ImportRefusal::ReadBack { expected, found })
                }
                _ => self.seal(),
            },
            (Phase::Sealing, Answer::Ran(Ok(()))) => self.seal(),
            (Phase::Unmarking(ops), Answer::Ran(Ok(()))) => self.unmark(ops),
            (phase, answer) => unreachable!("the driver answered {answer:?} in {phase:?}"),
        }
    }

    fn refuse(&mut self, refusal: ImportRefusal) -> Step {
        self.phase = Phase::Over;
        Step::Refuse(refusal)
    }

    fn on_survey(&mut self, survey: &Survey) -> Step {
        match plan::plan(survey) {
            Ok(Plan::Start) => self.recover(),
            Ok(Plan::Finish(unsealed)) => {
                self.unsealed = unsealed.into();
                self.marked = true;
                self.recover()
            }
            Ok(Plan::Import { sources, unsealed, stale }) => {
                self.unsealed = unsealed.into();
                self.marked = true;
                let reader = Reader::new(self.options, self.record_bytes_max, sources);
                self.prepare(plan::mark(stale).into(), Box::new(reader))
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn prepare(&mut self, mut ops: VecDeque<FileOp>, mut reader: Box<Reader>) -> Step {
        if let Some(op) = ops.pop_front() {
            self.phase = Phase::Preparing(ops, reader);
            return Step::Run(op);
        }
        let reading = reader.go_on();
        self.on_reading(reader, reading)
    }

    fn on_reading(&mut self, reader: Box<Reader>, reading: Reading) -> Step {
        match reading {
            Reading::Step(Step::Refuse(refusal)) => self.refuse(refusal),
            Reading::Step(step) => {
                self.phase = Phase::Reading(reader);
                step
            }
            Reading::Done(mut found) => {
                let notes = std::mem::take(&mut found.notes);
                self.note(notes.into(), found)
            }
        }
    }

    fn note(&mut self, mut notes: VecDeque<String>, found: Box<Found>) -> Step {
        match notes.pop_front() {
            Some(note) => {
                self.phase = Phase::Noting(notes, found);
                Step::Note(note)
            }
            None => self.begin_writing(*found),
        }
    }

    fn begin_writing(&mut self, found: Found) -> Step {
        let state = found.history.state;
        let mut tree = state.tree;
        let sessions: Vec<_> = state.sessions.into_iter().collect();
        self.expected = Some(Check::of_state(&tree, sessions.len()));
        let mut snapshotter = Snapshotter::new(Vec::new(), Vec::new());
        let mut ops = FileOps::default();
        snapshotter.begin(&mut tree, self.wall, sessions, &mut ops);
        self.write(Box::new(Writing {
            tree,
            snapshotter,
            ops,
            asked: VecDeque::new(),
            under_way: None,
            epochs: found.epochs.make(),
        }))
    }

    fn write(&mut self, mut writing: Box<Writing>) -> Step {
        let Writing { tree, snapshotter, ops, asked, .. } = &mut *writing;
        while snapshotter.wants_items() {
            snapshotter.feed(tree, ops);
        }
        asked.extend(ops.take());
        let (id, op) = asked.pop_front().expect("a snapshot under way asks for operations");
        writing.under_way = Some(id);
        self.phase = Phase::Writing(writing);
        Step::Run(op)
    }

    fn on_written(&mut self, mut writing: Box<Writing>) -> Step {
        let id = writing.under_way.take().expect("an operation was asked for");
        let Writing { tree, snapshotter, ops, .. } = &mut *writing;
        match snapshotter.on_done(id, &Ok(()), tree, ops) {
            SnapshotProgress::Finished(_) => self.write_epochs(writing.epochs),
            SnapshotProgress::Failed(failure) => self.refuse(ImportRefusal::File(failure)),
            SnapshotProgress::Going | SnapshotProgress::NotMine => self.write(writing),
        }
    }

    fn write_epochs(&mut self, mut ops: VecDeque<FileOp>) -> Step {
        match ops.pop_front() {
            Some(op) => {
                self.phase = Phase::WritingEpochs(ops);
                Step::Run(op)
            }
            None => self.recover(),
        }
    }

    fn recover(&mut self) -> Step {
        self.phase = Phase::Recovering;
        Step::Recover { check: self.expected.is_some() }
    }

    fn seal(&mut self) -> Step {
        if let Some(place) = self.unsealed.pop_front() {
            self.phase = Phase::Sealing;
            return Step::Seal { place, text: SEAL_TEXT };
        }
        if !self.marked {
            return Step::Done;
        }
        let file = FileName::data(MARKER.to_owned());
        let ops = [FileOp::Remove { file }, FileOp::SyncDir { dir: FileDir::Data }];
        self.unmark(ops.into())
    }

    fn unmark(&mut self, mut ops: VecDeque<FileOp>) -> Step {
        match ops.pop_front() {
            Some(op) => {
                self.phase = Phase::Unmarking(ops);
                Step::Run(op)
            }
            None => Step::Done,
        }
    }
}

/// What stands in the file that takes the place of Apache's directory.
const SEAL_TEXT: &str = "\
This directory was imported by Ringkeeper, which keeps the data in `ringkeeper` from then on. Apache
ZooKeeper must not go on with what is in `version-2.imported`: it does not know what was written
since. That is why this file stands where Apache looks for its directory.

To go back to Apache ZooKeeper with everything that was written since:
    stop the server, `ringkeeper export DATADIR OUT`, and start Apache with dataDir=OUT.
To go back to the state at the import, losing everything that was written since:
    stop the server, remove this file and the directory `ringkeeper`, and rename
    `version-2.imported` to `version-2`.
";
