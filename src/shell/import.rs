//! Drives the import of an Apache data directory, with recovery in its middle.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::lock::{Directories, Paths};
use super::reading::Reading;
use super::recover::{self, RecoverOptions};
use super::{Settings, StartError};
use super::{clock::Clocks, files, seal};
use crate::apache::names;
use crate::base::{FileDir, FileFailure};
use crate::server::import::{
    Answer, Check, Entry, Import, ImportRefusal, Place, PlaceSurvey, Step, Survey,
};
use crate::server::recovery::Recovered;

/// Where Apache's directories would be.
struct Apache {
    data: PathBuf,
    log: PathBuf,
}

impl Apache {
    fn parent(&self, place: Place) -> &Path {
        match place {
            Place::Data => &self.data,
            Place::Log => &self.log,
        }
    }

    fn version_2(&self, place: Place) -> PathBuf {
        self.parent(place).join(names::DIRECTORY)
    }
}

/// Imports what is to be imported, and recovers.
pub(super) fn run(
    directories: &Directories,
    settings: &Settings,
    options: RecoverOptions,
    clock: Clocks,
) -> Result<Recovered, StartError> {
    let paths = directories.paths();
    let apache = Apache { data: settings.data_dir.clone(), log: settings.log_dir.clone() };
    let frame_bytes_max = settings.server.frame_bytes_max;
    let mut import = Import::new(options.tree, frame_bytes_max, clock.now().wall);
    let mut reading = Reading::default();
    let mut recovered = None;
    let mut answer = Answer::Start;
    loop {
        answer = match import.step(answer) {
            Step::Survey => {
                let survey = survey(&paths, &apache).map_err(ImportRefusal::File)?;
                Answer::Surveyed(survey)
            }
            Step::Read { place, name, offset, len } => {
                if offset == 0 {
                    refuse_if_open(&apache)?;
                }
                let path = apache.version_2(place).join(name);
                let bytes = reading.read(&path, offset, len);
                Answer::Bytes(bytes.map_err(ImportRefusal::File)?)
            }
            Step::Run(op) => Answer::Ran(files::run_blocking(&paths, &op)),
            Step::Note(note) => {
                tracing::warn!("{note}");
                Answer::Next
            }
            Step::PassOver { name, unfit } => {
                tracing::warn!("{name} is not used: {unfit}; the snapshot before is tried");
                Answer::Next
            }
            Step::Recover { check } => {
                let found = recover::run(&paths, options, None)?;
                let check = check.then(|| Check::of(&found));
                recovered = Some(found);
                Answer::Recovered(check)
            }
            Step::Seal { place, text } => {
                let parent = apache.parent(place);
                tracing::info!("{} is imported and moved aside", apache.version_2(place).display());
                Answer::Ran(seal::seal(parent, text))
            }
            Step::Done => return Ok(recovered.expect("the machine asked for recovery")),
            Step::Refuse(refusal) => return Err(refusal.into()),
        };
    }
}

fn survey(paths: &Paths, apache: &Apache) -> Result<Survey, FileFailure> {
    let mut own = recover::list(paths, FileDir::Data)?;
    if paths.of(FileDir::Log) != paths.of(FileDir::Data) {
        own.extend(recover::list(paths, FileDir::Log)?);
    }
    let is_one = match (apache.data.canonicalize(), apache.log.canonicalize()) {
        (Ok(data), Ok(log)) => data == log,
        _ => apache.data == apache.log,
    };
    Ok(Survey {
        own_path: paths.of(FileDir::Data).display().to_string(),
        own,
        data: survey_place(&apache.data)?,
        log: if is_one { None } else { Some(survey_place(&apache.log)?) },
    })
}

fn survey_place(parent: &Path) -> Result<PlaceSurvey, FileFailure> {
    let live = parent.join(names::DIRECTORY);
    Ok(PlaceSurvey {
        path: live.display().to_string(),
        live: survey_entry(&live)?,
        imported: survey_entry(&parent.join(seal::ASIDE))?,
    })
}

fn survey_entry(path: &Path) -> Result<Entry, FileFailure> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(Entry::Directory(recover::list_path(path)?)),
        Ok(_) => Ok(Entry::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Entry::Absent),
        Err(error) => Err(files::failure("looking at", path, &error)),
    }
}

/// Apache's servers lock nothing, but they keep the log that they write to open.
fn refuse_if_open(apache: &Apache) -> Result<(), StartError> {
    let directories = [Place::Data, Place::Log].map(|place| apache.version_2(place));
    let directories = directories.map(|path| path.canonicalize().unwrap_or(path));
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter(|process| {
        let name = process.file_name();
        let is_process = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        is_process && name != own.as_str()
    });
    for process in processes {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for descriptor in descriptors {
            let Ok(file) = fs::read_link(descriptor.path()) else { continue };
            if directories.iter().any(|directory| file.starts_with(directory)) {
                let pid = process.file_name();
                return Err(StartError::Directory(format!(
                    "process {} has {} open: stop Apache ZooKeeper before its data is imported",
                    pid.display(),
                    file.display()
                )));
            }
        }
    }
    Ok(())
}
