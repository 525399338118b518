//! Seals an Apache data directory: `version-2` is moved aside and a file takes its name, so that
//! Apache refuses to start there. In one step where the file system can.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::files;
use crate::apache::names;
use crate::base::FileFailure;

/// What `version-2` is called after it was imported.
pub(super) const ASIDE: &str = "version-2.imported";
/// The file that says why, before it has its name.
const UNFINISHED: &str = "version-2.notice";

/// Seals what is in `parent`, or goes on with it. Durable when it returns.
pub(super) fn seal(parent: &Path, text: &str) -> Result<(), FileFailure> {
    let on = |result: io::Result<()>| {
        result.map_err(|error| files::failure("sealing version-2 in", parent, &error))
    };
    let live = parent.join(names::DIRECTORY);
    let aside = parent.join(ASIDE);
    if live.is_dir() {
        // The file is put where the directory will be, and the two trade places.
        on(write_durably(&aside, text))?;
        match exchange(&aside, &live) {
            Ok(()) => return on(sync(parent)),
            Err(error) if cannot(&error) => {
                on(fs::rename(&aside, parent.join(UNFINISHED)))?;
                on(fs::rename(&live, &aside))?;
            }
            Err(error) => return on(Err(error)),
        }
    }
    let notice = parent.join(UNFINISHED);
    on(write_durably(&notice, text))?;
    on(fs::rename(&notice, &live))?;
    on(sync(parent))
}

fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Swaps two names.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let one = CString::new(one.as_os_str().as_bytes())?;
    let other = CString::new(other.as_os_str().as_bytes())?;
    let (at, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both pointers are to strings that end with a zero byte and live through the call.
    match unsafe { libc::renameat2(at, one.as_ptr(), at, other.as_ptr(), flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the file system cannot swap names.
fn cannot(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("rk-seal-{}-{name}", std::process::id()));
        let _old = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("version-2")).unwrap();
        fs::write(path.join("version-2/log.1"), "x").unwrap();
        path
    }

    fn assert_sealed(path: &Path) {
        assert_eq!(fs::read_to_string(path.join("version-2")).unwrap(), "why");
        assert_eq!(fs::read_to_string(path.join("version-2.imported/log.1")).unwrap(), "x");
        assert_eq!(fs::read_dir(path).unwrap().count(), 2);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_directory_is_moved_aside_and_a_file_takes_its_place() {
        let path = directory("whole");
        seal(&path, "why").unwrap();
        assert_sealed(&path);
    }

    #[test]
    fn sealing_goes_on_where_it_was_interrupted() {
        let path = directory("file-written");
        fs::write(path.join(ASIDE), "half").unwrap();
        seal(&path, "why").unwrap();
        assert_sealed(&path);
        let path = directory("moved");
        fs::rename(path.join("version-2"), path.join(ASIDE)).unwrap();
        fs::write(path.join(UNFINISHED), "half").unwrap();
        seal(&path, "why").unwrap();
        assert_sealed(&path);
    }
}
