//! Writes an Apache data directory from this server's own, which is only read.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::lock::{self, Paths};
use super::{StartError, files, recover};
use crate::apache::{Compression, names};
use crate::base::FileDir;
use crate::model::{ExtendedTypes, Zxid};
use crate::server::epochs::Epochs;
use crate::server::export::{Export, Sections};
use crate::server::import;
use crate::tree::TreeOptions;
use crate::txnlog;

/// What to export, where to, and how.
#[derive(Clone, Debug)]
pub struct ExportSettings {
    /// `dataDir`.
    pub data_dir: PathBuf,
    /// `dataLogDir`.
    pub log_dir: PathBuf,
    /// The directory to make; Apache's `dataDir` then.
    pub out: PathBuf,
    /// Of the snapshot.
    pub compression: Compression,
    /// What the snapshot ends with.
    pub sections: Sections,
    /// `extendedTypesEnabled` and `emulate353TTLNodes` where the data comes from.
    pub extended_types: ExtendedTypes,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The snapshot.
    pub file: PathBuf,
    /// The last txn in it.
    pub zxid: Zxid,
    /// Znodes in it.
    pub znode_count: usize,
    /// Sessions in it.
    pub session_count: usize,
    /// The tree's digest.
    pub digest: u64,
}

/// The directory that is filled before it gets its name.
const UNFINISHED: &str = "version-2.exporting";

/// Exports. The server must not run, and nothing must be at `out` but an empty directory.
pub fn export(settings: &ExportSettings) -> Result<Exported, StartError> {
    let paths = Paths::below(&settings.data_dir, &settings.log_dir);
    let _locks = lock::lock_for_reading(&paths)?;
    let directory = |text| StartError::Directory(text);
    let read = |dir| recover::list(&paths, dir).map_err(|failure| directory(failure.text));
    if read(FileDir::Data)?.iter().any(|(name, _)| name == import::MARKER) {
        return Err(directory(format!(
            "an import into {} has not finished; start the server once before the export",
            paths.of(FileDir::Data).display()
        )));
    }
    let is_segment = |(name, _): &(String, u64)| txnlog::segment_sequence(name).is_some();
    if !read(FileDir::Log)?.iter().any(is_segment) {
        return Err(directory(format!(
            "{} holds no log of this server's; if dataLogDir is another directory, name the \
             configuration file instead of the directory",
            paths.of(FileDir::Log).display()
        )));
    }
    let options = TreeOptions { extended_types: settings.extended_types, digests: true };
    let mut recovered = recover::inspect(&paths, options)?;
    recovered.settle_alone()?;
    let zxid = recovered.last_zxid;
    let name = names::snapshot_name(zxid, settings.compression);
    let written = write(
        settings,
        &name,
        recovered.epochs,
        zxid,
        &mut Export::new(&recovered, settings.compression, settings.sections),
    );
    written.map_err(|error| directory(files::failure("writing", &settings.out, &error).text))?;
    Ok(Exported {
        file: settings.out.join(names::DIRECTORY).join(name),
        zxid,
        znode_count: recovered.tree.znode_count(),
        session_count: recovered.sessions.len(),
        digest: recovered.tree.digest(),
    })
}

fn write(
    settings: &ExportSettings,
    name: &str,
    epochs: Epochs,
    zxid: Zxid,
    chunks: &mut dyn Iterator<Item = bytes::Bytes>,
) -> io::Result<()> {
    let out = &settings.out;
    fs::create_dir_all(out)?;
    if fs::read_dir(out)?.next().is_some() {
        let text = "the directory is not empty; name one that is, or one that does not exist";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let unfinished = out.join(UNFINISHED);
    fs::create_dir(&unfinished)?;
    write_file(&unfinished.join(name), chunks)?;
    let current = epochs.current.max(zxid.epoch());
    let accepted = epochs.accepted.max(current);
    for (name, epoch) in [(names::ACCEPTED_EPOCH, accepted), (names::CURRENT_EPOCH, current)] {
        let text = bytes::Bytes::from(epoch.to_string());
        write_file(&unfinished.join(name), &mut std::iter::once(text))?;
    }
    File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, out.join(names::DIRECTORY))?;
    File::open(out)?.sync_all()
}

fn write_file(path: &Path, chunks: &mut dyn Iterator<Item = bytes::Bytes>) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    for chunk in chunks {
        file.write_all(&chunk)?;
    }
    file.sync_all()
}
