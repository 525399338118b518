//! What is there, and what a start does about it: one decision, made before anything is touched.

use crate::apache::{Compression, names};
use crate::base::{FileDir, FileName, FileOp};
use crate::model::Zxid;
use crate::server::epochs;
use crate::snapshot::catalog;
use crate::txnlog;

use super::{ImportRefusal, MARKER, Place};

/// What the driver found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Path of our own data directory.
    pub own_path: String,
    /// Our own files: name and length, of both directories.
    pub own: Vec<(String, u64)>,
    /// `dataDir`.
    pub data: PlaceSurvey,
    /// `dataLogDir`, if that is another directory.
    pub log: Option<PlaceSurvey>,
}

/// What is in `dataDir` or `dataLogDir`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlaceSurvey {
    /// Path of `version-2`.
    pub path: String,
    /// What `version-2` is.
    pub live: Entry,
    /// What `version-2.imported` is.
    pub imported: Entry,
}

/// What has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    #[default]
    Absent,
    /// A file.
    File,
    /// A directory with these files: name and length.
    Directory(Vec<(String, u64)>),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing but to start.
    Start,
    /// Read Apache's files and go on to the end.
    Import {
        sources: Sources,
        /// What is sealed at the end.
        unsealed: Vec<Place>,
        /// Files of an attempt that was cut short.
        stale: Vec<String>,
    },
    /// The import was done: only seal the rest.
    Finish(Vec<Place>),
}

/// Apache's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// Snapshots, oldest first.
    pub(super) snapshots: Vec<(Zxid, Compression)>,
    /// Logs, oldest first: the zxid in the name, and the name.
    pub(super) logs: Vec<(Zxid, String)>,
    /// Epoch files that are there.
    pub(super) epoch_files: Vec<&'static str>,
    /// Where the logs are.
    pub(super) log_place: Place,
}

/// How far the sealing of one place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seal {
    /// Nothing of Apache's.
    Nothing,
    /// Apache's directory is where Apache looks for it.
    Live,
    /// The same, but it holds neither snapshots nor logs.
    Empty,
    /// It was moved aside; the file in its place may be missing.
    Begun,
    /// It was moved aside and the file is in its place.
    Done,
}

impl PlaceSurvey {
    fn seal(&self) -> Seal {
        match (&self.live, &self.imported) {
            (Entry::Directory(files), _) if files.iter().any(|(name, _)| is_history(name)) => {
                Seal::Live
            }
            (Entry::Directory(_), _) => Seal::Empty,
            (Entry::File, Entry::Directory(_)) => Seal::Done,
            (Entry::Absent, Entry::Directory(_)) => Seal::Begun,
            (Entry::File | Entry::Absent, _) => Seal::Nothing,
        }
    }

    fn imported_path(&self) -> String {
        format!("{}.imported", self.path)
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        let files = match &self.live {
            Entry::Directory(files) => files.as_slice(),
            Entry::Absent | Entry::File => &[],
        };
        files.iter().map(|(name, _)| name.as_str())
    }
}

/// Decides.
///
/// | marker | own history | live | sealed | |
/// |---|---|---|---|---|
/// | no | yes | yes | | refused: two histories |
/// | no | yes | no | | start |
/// | no | no | yes | no | import |
/// | no | no | | yes | refused: the result of an import is gone |
/// | no | no | no | no | start |
/// | yes | | yes | no | import again |
/// | yes | | no | no | refused: nothing to import is left |
/// | yes | | | yes | finish: what was written was read back before the first seal |
pub(super) fn plan(survey: &Survey) -> Result<Plan, ImportRefusal> {
    let places: Vec<(Place, &PlaceSurvey, Seal)> = [(Place::Data, Some(&survey.data))]
        .into_iter()
        .chain([(Place::Log, survey.log.as_ref())])
        .filter_map(|(place, found)| found.map(|found| (place, found, found.seal())))
        .collect();
    let first = |wanted: &[Seal]| places.iter().find(|(_, _, seal)| wanted.contains(seal));
    let live = first(&[Seal::Live]).map(|(_, found, _)| *found);
    let sealed = first(&[Seal::Begun, Seal::Done]).map(|(_, found, _)| *found);
    let own = survey.own_path.clone();
    let marked = survey.own.iter().any(|(name, _)| name == MARKER);
    let has_own = survey.own.iter().any(|(name, _)| is_own_history(name));
    let unsealed = places.iter().filter(|(_, _, seal)| !matches!(seal, Seal::Done | Seal::Nothing));
    let unsealed: Vec<Place> = unsealed.map(|(place, ..)| *place).collect();
    match (marked, live, sealed) {
        (true, _, Some(_)) => Ok(Plan::Finish(unsealed)),
        (true, None, None) => {
            Err(ImportRefusal::SourcesGone { apache: survey.data.path.clone(), own })
        }
        (false, Some(live), _) if has_own => {
            Err(ImportRefusal::TwoHistories { apache: live.path.clone(), own })
        }
        (false, None, _) if has_own => Ok(Plan::Start),
        (false, _, Some(sealed)) => {
            Err(ImportRefusal::ResultGone { imported: sealed.imported_path(), own })
        }
        (false, None, None) => Ok(Plan::Start),
        (_, Some(_), None) => {
            if let Some((_, taken, _)) =
                places.iter().find(|(_, found, _)| matches!(found.imported, Entry::Directory(_)))
            {
                return Err(ImportRefusal::ImportedExists { imported: taken.imported_path() });
            }
            let stale = survey.own.iter().filter(|(name, _)| is_own_history(name));
            let stale = stale.map(|(name, _)| name.clone()).collect();
            Ok(Plan::Import { sources: sources(survey)?, unsealed, stale })
        }
    }
}

fn sources(survey: &Survey) -> Result<Sources, ImportRefusal> {
    let (log_place, logs_in) = match &survey.log {
        Some(log) => (Place::Log, log),
        None => (Place::Data, &survey.data),
    };
    if survey.log.is_some() {
        let misplaced = survey.data.files().find(|name| names::log_zxid(name).is_some());
        let misplaced = misplaced.map(|name| format!("{}/{name}", survey.data.path));
        let other = logs_in.files().find(|name| names::snapshot_zxid(name).is_some());
        let other = other.map(|name| format!("{}/{name}", logs_in.path));
        if let Some(file) = misplaced.or(other) {
            return Err(ImportRefusal::Misplaced { file });
        }
    }
    let mut snapshots: Vec<_> = survey.data.files().filter_map(names::snapshot_zxid).collect();
    snapshots.sort_unstable();
    let logs = logs_in
        .files()
        .filter_map(|name| names::log_zxid(name).map(|zxid| (zxid, name.to_owned())));
    let mut logs: Vec<_> = logs.collect();
    logs.sort_unstable();
    if snapshots.is_empty() {
        return Err(ImportRefusal::LogsAlone { apache: logs_in.path.clone() });
    }
    let epoch_files =
        names::EPOCHS.into_iter().filter(|known| survey.data.files().any(|f| f == *known));
    let epoch_files = epoch_files.collect();
    Ok(Sources { snapshots, logs, epoch_files, log_place })
}

/// Operations that make the marker durable and then remove what an earlier attempt left.
pub(super) fn mark(stale: Vec<String>) -> Vec<FileOp> {
    let marker = FileName::data(MARKER.to_owned());
    let sync = || FileOp::SyncDir { dir: FileDir::Data };
    let mut ops =
        vec![FileOp::Create { file: marker.clone() }, FileOp::Flush { file: marker }, sync()];
    if !stale.is_empty() {
        ops.extend(stale.into_iter().map(|name| FileOp::Remove { file: FileName::data(name) }));
        ops.push(sync());
    }
    ops
}

fn is_history(name: &str) -> bool {
    names::snapshot_zxid(name).is_some() || names::log_zxid(name).is_some()
}

fn is_own_history(name: &str) -> bool {
    name == epochs::FILE_NAME
        || catalog::zxid_of(name).is_some()
        || txnlog::segment_sequence(name).is_some()
}
