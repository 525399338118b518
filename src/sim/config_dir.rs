//! The directory of a simulated member's configuration file: `zoo.cfg`, `myid`, and what changes of
//! the ensemble's members write beside them. Each file is replaced in one durable step, as the
//! shell does it; a crash comes between any two.

use std::collections::BTreeMap;
use std::path::Path;

use super::plant::Plant;
use crate::base::{FileOp, Prng};
use crate::config::{self, Config, ConfigError, dynamic};
use crate::model::{EnsembleConfig, ServerId};

const CONFIG_FILE: &str = "zoo.cfg";
/// Steps of the longest operation.
const STEPS: u64 = 3;

/// The files of one member.
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigDir {
    files: BTreeMap<String, Vec<u8>>,
    /// A proposal that was removed; the name's end is not flushed.
    removed: Option<Vec<u8>>,
}

impl ConfigDir {
    /// The operator writes `zoo.cfg`; a proposal that is there stays.
    pub(super) fn write(&mut self, me: ServerId, text: &str) {
        self.files.insert(CONFIG_FILE.to_owned(), text.as_bytes().to_vec());
        self.files.insert("/d/myid".to_owned(), me.to_string().into_bytes());
    }

    /// The operator copies the dynamic file of another member.
    pub(super) fn take_over(&mut self, config: &EnsembleConfig) {
        let (version, text) = (config.version, config::ensemble::text(config));
        self.run(
            &FileOp::WriteConfig { version, text, moves_client: true, is_last: false },
            Plant::None,
        );
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
    /// As the server's: also that it is no member any longer.
    pub(super) fn parse(&self) -> Result<Config, ConfigError> {
        let read = |path: &Path| Ok(self.files.get(&path.display().to_string()).cloned());
        let text = self.files.get(CONFIG_FILE).map(Vec::as_slice).unwrap_or_default();
        Config::parse(text, CONFIG_FILE, &read).map(|(config, _)| config)
    }

    /// Carries out an operation whole.
    pub(super) fn run(&mut self, op: &FileOp, plant: Plant) {
        (0..STEPS).for_each(|step| self.step(op, step, plant));
    }

    /// The process ends within an operation.
    pub(super) fn run_partly(&mut self, op: &FileOp, plant: Plant, prng: &mut Prng) {
        (0..prng.below(STEPS)).for_each(|step| self.step(op, step, plant));
    }

    /// The power is cut.
    pub(super) fn lose_power(&mut self, prng: &mut Prng) {
        let next = dynamic::next_name(CONFIG_FILE);
        if let Some(removed) = self.removed.take()
            && prng.one_in(2)
        {
            self.files.insert(next, removed);
        }
    }

    fn step(&mut self, op: &FileOp, step: u64, plant: Plant) {
        let is_skipped = plant == Plant::ConfigsForgotten;
        match (op, step) {
            (FileOp::WriteNextConfig { text }, 0) if !is_skipped => {
                let text = dynamic::dynamic_text(text, true);
                self.replace(dynamic::next_name(CONFIG_FILE), text.into_bytes());
            }
            (FileOp::WriteConfig { .. }, _) if is_skipped => {}
            (FileOp::WriteConfig { version, text, .. }, 0) => {
                let text = dynamic::dynamic_text(text, false);
                self.replace(dynamic::dynamic_name(CONFIG_FILE, *version), text.into_bytes());
            }
            (FileOp::WriteConfig { version, moves_client, .. }, 1) => {
                let name = dynamic::dynamic_name(CONFIG_FILE, *version);
                let old = self.files.get(CONFIG_FILE).map(Vec::as_slice).unwrap_or_default();
                let new = dynamic::static_text(old, &name, *moves_client);
                self.replace(CONFIG_FILE.to_owned(), new);
            }
            (FileOp::WriteConfig { is_last: true, .. }, 2) => {
                self.removed = self.files.remove(&dynamic::next_name(CONFIG_FILE));
            }
            _ => {}
        }
    }

    /// The directory is flushed with each file.
    fn replace(&mut self, name: String, content: Vec<u8>) {
        self.files.insert(name, content);
        self.removed = None;
    }
}
