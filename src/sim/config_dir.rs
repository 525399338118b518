//! The directory of a simulated member's configuration file: `zoo.cfg` and `myid`.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::{Config, ConfigError};
use crate::model::ServerId;

const CONFIG_FILE: &str = "zoo.cfg";

/// The files of one member.
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigDir {
    files: BTreeMap<String, Vec<u8>>,
}

impl ConfigDir {
    /// The operator writes `zoo.cfg`.
    pub(super) fn write(&mut self, me: ServerId, text: &str) {
        self.files.insert(CONFIG_FILE.to_owned(), text.as_bytes().to_vec());
        self.files.insert("/d/myid".to_owned(), me.to_string().into_bytes());
    }

    /// The operator sets a key of `zoo.cfg`.
    pub(super) fn set(&mut self, key: &str, value: u64) {
        let text = self.files.entry(CONFIG_FILE.to_owned()).or_default();
        let old = String::from_utf8_lossy(text);
        let kept = old.lines().filter(|line| line.split('=').next() != Some(key));
        let new = kept.map(|line| format!("{line}\n")).collect::<String>();
        *text = format!("{new}{key}={value}\n").into_bytes();
    }

    /// What a start makes of the files.
    ///
    /// # Errors
    /// As the server's.
    pub(super) fn parse(&self) -> Result<Config, ConfigError> {
        let read = |path: &Path| Ok(self.files.get(&path.display().to_string()).cloned());
        let text = self.files.get(CONFIG_FILE).map(Vec::as_slice).unwrap_or_default();
        Config::parse(text, CONFIG_FILE, &read).map(|(config, _)| config)
    }
}
