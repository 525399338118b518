//! `verify`: every check there is, each finding with its place and what it means.

use ringkeeper::model::Zxid;
use ringkeeper::server::epochs::{self, Epochs};
use ringkeeper::server::install::{self, Install};
use ringkeeper::txnlog::read::{Fault, Seen, What, records_of};
use ringkeeper::txnlog::scan::Item;
use ringkeeper::txnlog::segment_name;
use serde::Serialize;

use super::files::{Files, Kind};
use super::install::{Outcome, inexact};
use super::place::Trouble;
use super::progress::Progress;
use super::replayer::{Complaint, Replayer};
use super::{Ending, Session, start};

/// Something that is not as it should be.
#[derive(Serialize)]
struct Finding {
    /// `damage` counts for the exit code; a `note` is worth knowing.
    level: &'static str,
    file: String,
    /// Where in the file, bytes; absent where no place is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// The last zxid in front of the place, or the one that the finding is about.
    zxid: String,
    what: String,
    meaning: String,
}

/// How much was looked at.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Checked {
    /// Segments, or Apache's logs.
    pub(crate) segments: usize,
    batches: u64,
    pub(crate) records: u64,
    /// Records applied, their digests compared with the tree's if they carry one.
    pub(crate) replayed: u64,
    pub(crate) snapshots: usize,
}

/// What was looked at, and what is wrong with it.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    sound: bool,
    pub(crate) checked: Checked,
    findings: Vec<Finding>,
}

/// Checks everything.
pub(crate) fn run(files: &Files, session: &mut Session<'_>) -> Result<Ending, Trouble> {
    let mut report = Report::default();
    let outcome = files.install_outcome();
    report.check_install(files, &outcome);
    let that_count = files.that_count_after(&outcome);
    let mut replayer = Replayer::new(&that_count);
    report.check_snapshots(&that_count, &mut replayer);
    report.check_log(&that_count, &mut replayer);
    report.checked.replayed = replayer.replayed();
    drop(replayer);
    if files.kind == Kind::Directory {
        report.check_rest(files, &outcome);
        report.check_start(files);
    }
    report.end(session)
}

impl Report {
    /// Prints it.
    pub(crate) fn end(mut self, session: &mut Session<'_>) -> Result<Ending, Trouble> {
        self.sound = self.findings.iter().all(|finding| finding.level != "damage");
        if session.json {
            session.json_line(&self)?;
        } else {
            self.print(session)?;
        }
        Ok(if self.sound { Ending::Sound } else { Ending::Damaged })
    }

    /// Adds a finding: what it is, and what it means.
    pub(crate) fn add(
        &mut self,
        level: &'static str,
        file: &str,
        offset: impl Into<Option<u64>>,
        zxid: Zxid,
        words: [&str; 2],
    ) {
        let [what, meaning] = words.map(str::to_owned);
        let (file, offset, zxid) = (file.to_owned(), offset.into(), zxid.to_string());
        self.findings.push(Finding { level, file, offset, zxid, what, meaning });
    }

    /// Whether something was said of this file.
    pub(crate) fn is_found(&self, file: &str) -> bool {
        self.findings.iter().any(|finding| finding.file == file)
    }

    fn check_install(&mut self, files: &Files, outcome: &Outcome) {
        let file = install::FILE_NAME;
        match outcome {
            Outcome::None => {}
            Outcome::Damaged => {
                let words = ["the record is damaged", "a start is refused"];
                self.add("damage", file, 0, Zxid::ZERO, words);
            }
            Outcome::Replaces(Install { zxid, first_segment }) => {
                let what = format!(
                    "snapshot {zxid} of a leader is to take the place of every other snapshot and \
                     of the segments below {first_segment}"
                );
                let meaning = "the next start does that; what goes was not looked at";
                self.add("note", file, 0, *zxid, [&what, meaning]);
            }
            Outcome::GivenUp(Install { zxid, .. }, why) => {
                let what = format!("snapshot {zxid} of a leader is of no use: {why}");
                let meaning = "a start removes the record, and all stays as it was before";
                let level = if files.received.is_some() { "damage" } else { "note" };
                self.add(level, file, 0, *zxid, [&what, meaning]);
            }
        }
    }

    fn check_snapshots(&mut self, files: &Files, replayer: &mut Replayer<'_>) {
        for (name, zxid, bytes) in files.all_snapshots() {
            self.checked.snapshots += 1;
            for (offset, what) in replayer.check_snapshot(zxid, bytes) {
                let meaning = "a start passes this snapshot over and uses the one before";
                self.add("damage", &name, offset, zxid.unwrap_or_default(), [&what, meaning]);
            }
        }
    }

    fn check_log(&mut self, files: &Files, replayer: &mut Replayer<'_>) {
        self.checked.segments = files.segments.len();
        let mut progress = Progress::new("log", files.log_bytes());
        let mut last = Zxid::ZERO;
        for seen in records_of(files.log()) {
            match &seen.what {
                What::Item(Item::Batch { header, .. }) => {
                    self.checked.batches += 1;
                    progress.add(header.padded_bytes());
                }
                What::Item(Item::Record { zxid, txn, .. }) => {
                    self.checked.records += 1;
                    last = *zxid;
                    for complaint in replayer.take(*zxid, txn) {
                        let file = segment_name(seen.segment);
                        let words = [complaint.to_string(), complaint.meaning().to_owned()];
                        let level = complaint_level(&complaint, files.kind);
                        let [what, meaning] = &words;
                        self.add(level, &file, seen.offset, *zxid, [what, meaning]);
                    }
                }
                _ => self.look_at(&seen, last, replayer),
            }
        }
    }

    /// Damage and torn tails in the log.
    fn look_at(&mut self, seen: &Seen, last: Zxid, replayer: &Replayer<'_>) {
        let (level, meaning) = match &seen.what {
            What::Item(Item::Torn { .. }) => {
                ("note", "nothing here was acknowledged: the next start cuts it off".to_owned())
            }
            What::Fault(Fault::Gap { upto, .. }) if replayer.covers(*upto) => {
                ("note", "a snapshot holds what they did".to_owned())
            }
            _ if seen.is_damage() => ("damage", meaning(&seen.what, last)),
            _ => return,
        };
        let file = segment_name(seen.segment);
        self.add(level, &file, seen.offset, last, [&seen.words(), &meaning]);
    }

    fn check_rest(&mut self, files: &Files, outcome: &Outcome) {
        let damaged = files.epochs.as_ref().and_then(|bytes| Epochs::decode(bytes).err());
        if let Some(error) = damaged {
            let meaning = "what this server promised is not known; a start is refused";
            let what = error.to_string();
            self.add("damage", epochs::FILE_NAME, 0, Zxid::ZERO, [&what, meaning]);
        }
        // A start that is refused removes nothing.
        let goes = !matches!(outcome, Outcome::Damaged);
        for (name, _) in files.leftovers.iter().filter(|_| goes) {
            let meaning = "it never counted; the next start removes it";
            self.add("note", name, 0, Zxid::ZERO, ["the file is unfinished", meaning]);
        }
    }

    fn check_start(&mut self, files: &Files) {
        match start::think(files).outcome {
            Ok(recovered) => {
                if let Some(what) = inexact(recovered.fuzzy) {
                    let meaning = "a member of an ensemble learns from its leader what is missing";
                    self.add("note", "", 0, recovered.last_zxid, [&what, meaning]);
                }
            }
            Err(refusal) => {
                let what = format!("a start would be refused: {refusal}");
                let meaning = "restore from a backup, or build a directory from what is whole \
                               with `rk-log replay`";
                self.add("damage", "", 0, Zxid::ZERO, [&what, meaning]);
            }
        }
    }

    fn print(&self, session: &mut Session<'_>) -> Result<(), Trouble> {
        for Finding { level, file, offset, zxid, what, meaning } in &self.findings {
            let level = if *level == "damage" { "DAMAGE" } else { "note" };
            let place = match (file.as_str(), offset) {
                ("", _) => String::new(),
                (file, Some(offset)) => format!("{file} offset {offset} zxid {zxid}: "),
                (file, None) => format!("{file} zxid {zxid}: "),
            };
            session.line(format_args!("{level} {place}{what}\n    {meaning}"))?;
        }
        let Checked { segments, batches, records, replayed, snapshots } = &self.checked;
        session.line(format_args!(
            "checked {segments} segments, {batches} batches, {records} records ({replayed} \
             replayed), {snapshots} snapshots"
        ))?;
        let damage = self.findings.iter().filter(|finding| finding.level == "damage").count();
        match damage {
            0 => session.line(format_args!("sound")),
            count => session.line(format_args!("{count} findings")),
        }
    }
}

/// One segment alone cannot be replayed; that says nothing about it.
const fn complaint_level(complaint: &Complaint, kind: Kind) -> &'static str {
    match (complaint, kind) {
        (Complaint::NoBase, Kind::Segment) => "note",
        _ => "damage",
    }
}

fn meaning(what: &What, last: Zxid) -> String {
    match what {
        What::Fault(Fault::Missing { .. } | Fault::Gap { .. }) => {
            format!("txns behind {last} are lost, unless another server has them")
        }
        What::Fault(Fault::Length { .. }) => {
            "the file was cut or appended to after it was made; a start is refused".to_owned()
        }
        What::Fault(Fault::Header(_)) => "the header was durable before the file had its name: \
                                          this is damage; a start is refused"
            .to_owned(),
        What::Fault(Fault::Sequence(_) | Fault::Nonce) => {
            "the file is from another log or another time; a start is refused".to_owned()
        }
        _ => format!(
            "txns behind {last} were durable, perhaps acknowledged, and are damaged; a start that \
             needs them is refused"
        ),
    }
}
