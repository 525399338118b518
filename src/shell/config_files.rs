//! The configuration's files beside `zoo.cfg`, each replaced in one step: written under another
//! name, flushed, renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::StartError;
use super::files::failure;
use crate::base::{FileFailure, FileOp};
use crate::config::dynamic;

/// Carries out an operation on these files; `None`: it is another one. `config` is the file that
/// the server was started with.
pub(super) fn run(config: Option<&Path>, op: &FileOp) -> Option<Result<(), FileFailure>> {
    let done = match (op, config) {
        (FileOp::WriteNextConfig { text }, Some(config)) => write_next(config, text),
        (FileOp::WriteConfig { version, text, moves_client, is_last }, Some(config)) => {
            write(config, *version, text, *moves_client, *is_last)
        }
        (FileOp::WriteNextConfig { .. } | FileOp::WriteConfig { .. }, None) => Err(FileFailure {
            no_space: false,
            no_descriptor: false,
            text: "there is no configuration file".to_owned(),
        }),
        _ => return None,
    };
    Some(done)
}

/// Writes the configuration that was last proposed.
fn write_next(config: &Path, text: &str) -> Result<(), FileFailure> {
    let next = PathBuf::from(dynamic::next_name(&config.display().to_string()));
    replace(&next, dynamic::dynamic_text(text, true).as_bytes())
}

/// Writes the configuration in force, and then the file that names it. The one that was last
/// proposed goes if it is this one.
fn write(
    config: &Path,
    version: i64,
    text: &str,
    moves_client: bool,
    is_last: bool,
) -> Result<(), FileFailure> {
    let on = |what, path: &Path, error: io::Error| failure(what, path, &error);
    let name = config.display().to_string();
    let dynamic = PathBuf::from(dynamic::dynamic_name(&name, version));
    replace(&dynamic, dynamic::dynamic_text(text, false).as_bytes())?;
    let old = fs::read(config).map_err(|error| on("reading", config, error))?;
    let canonical = fs::canonicalize(&dynamic);
    let canonical = canonical.map_err(|error| on("looking up", &dynamic, error))?;
    let new = dynamic::static_text(&old, &canonical.display().to_string(), moves_client);
    replace(config, &new)?;
    let next = PathBuf::from(dynamic::next_name(&name));
    match is_last.then(|| fs::remove_file(&next)) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            Err(on("removing", &next, error))
        }
        _ => Ok(()),
    }
}

/// Keeps `zoo.cfg` as it is while it holds the list of members itself.
pub(super) fn back_up(config: &Path) -> Result<(), StartError> {
    let text = fs::read(config);
    let text =
        text.map_err(|error| StartError::Directory(format!("{}: {error}", config.display())))?;
    let backup = PathBuf::from(format!("{}.bak", config.display()));
    replace(&backup, &text).map_err(|failure| {
        StartError::Directory(format!(
            "{failure}: with reconfigEnabled the configuration is kept up to date where it is"
        ))
    })
}

fn replace(path: &Path, content: &[u8]) -> Result<(), FileFailure> {
    let unfinished = PathBuf::from(format!("{}.tmp", path.display()));
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(content)?;
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()
    });
    written.map_err(|error| failure("writing", &unfinished, &error))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let renamed = fs::rename(&unfinished, path)
        .and_then(|()| File::open(directory).and_then(|directory| directory.sync_all()));
    renamed.map_err(|error| failure("replacing", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_takes_effect_in_steps() {
        let name = format!("ringkeeper-config-{}", std::process::id());
        let home = std::env::temp_dir().join(name);
        fs::create_dir_all(&home).unwrap();
        let config = home.join("zoo.cfg");
        fs::write(&config, "dataDir=/d\nserver.1=a:1:2\nclientPort=5\n").unwrap();
        back_up(&config).unwrap();
        let read = |name: &str| fs::read_to_string(home.join(name)).ok();
        write_next(&config, "server.2=b:1:2:participant\nserver.1=a:1:2:observer\nversion=1f")
            .unwrap();
        assert_eq!(
            read("zoo.cfg.dynamic.next").unwrap(),
            "server.1=a:1:2:observer\nserver.2=b:1:2:participant\nversion=1f"
        );
        write(&config, 0x1f, "server.1=a:1:2:participant;3\nversion=1f", true, false).unwrap();
        assert!(read("zoo.cfg.dynamic.next").is_some(), "another one was proposed since");
        let dynamic = home.join("zoo.cfg.dynamic.1f").canonicalize().unwrap();
        assert_eq!(fs::read_to_string(&dynamic).unwrap(), "server.1=a:1:2:participant;3");
        let expected = format!("dataDir=/d\ndynamicConfigFile={}\n", dynamic.display());
        assert_eq!(read("zoo.cfg").unwrap(), expected);
        assert_eq!(read("zoo.cfg.bak").unwrap(), "dataDir=/d\nserver.1=a:1:2\nclientPort=5\n");
        write(&config, 0x1f, "server.1=a:1:2:participant;3\nversion=1f", true, true).unwrap();
        assert_eq!(read("zoo.cfg.dynamic.next"), None);
        assert!(write(&home.join("nowhere/zoo.cfg"), 1, "", false, true).is_err());
        fs::remove_dir_all(&home).unwrap();
    }
}
