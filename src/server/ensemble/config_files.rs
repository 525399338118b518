//! Configurations on their way to the disk, one after the other, so that what is there after a
//! crash is never older than what this server has said.

use std::collections::VecDeque;

use crate::base::{FileOp, FileOpId, FileOps};
use crate::config;
use crate::model::EnsembleConfig;

/// What is written, and what waits for that.
#[derive(Debug, Default)]
pub(super) struct ConfigFiles {
    waiting: VecDeque<FileOp>,
    under_way: Option<(FileOpId, bool)>,
}

impl ConfigFiles {
    /// A configuration was proposed.
    pub(super) fn propose(&mut self, config: &EnsembleConfig, ops: &mut FileOps) {
        self.waiting.push_back(FileOp::WriteNextConfig { text: config::ensemble::text(config) });
        self.go_on(ops);
    }

    /// A configuration is in force. `moves_client`: it says where clients connect. `is_last`: none
    /// was proposed since.
    pub(super) fn commit(
        &mut self,
        config: &EnsembleConfig,
        moves_client: bool,
        is_last: bool,
        ops: &mut FileOps,
    ) {
        let (version, text) = (config.version, config::ensemble::text(config));
        self.waiting.push_back(FileOp::WriteConfig { version, text, moves_client, is_last });
        self.go_on(ops);
    }

    /// An operation has ended; whether it was one of these.
    pub(super) fn on_done(&mut self, id: FileOpId, ops: &mut FileOps) -> bool {
        let is_mine = self.under_way.take_if(|(under_way, _)| *under_way == id).is_some();
        if is_mine {
            self.go_on(ops);
        }
        is_mine
    }

    /// Everything is on disk.
    pub(super) const fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }

    /// A proposed configuration is not yet on disk.
    pub(super) fn is_proposing(&self) -> bool {
        let is_next = |op: &FileOp| matches!(op, FileOp::WriteNextConfig { .. });
        self.under_way.is_some_and(|(_, is_next)| is_next) || self.waiting.iter().any(is_next)
    }

    fn go_on(&mut self, ops: &mut FileOps) {
        if self.under_way.is_none()
            && let Some(op) = self.waiting.pop_front()
        {
            let is_next = matches!(op, FileOp::WriteNextConfig { .. });
            self.under_way = Some((ops.ask(op), is_next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_written_after_the_other() {
        let (mut files, mut ops) = (ConfigFiles::default(), FileOps::default());
        let config = EnsembleConfig { version: 7, ..EnsembleConfig::default() };
        files.propose(&config, &mut ops);
        files.commit(&config, true, true, &mut ops);
        assert!(files.is_proposing() && !files.is_idle());
        let first = ops.take();
        assert!(matches!(&first[..], [(_, FileOp::WriteNextConfig { .. })]), "{first:?}");
        assert!(!files.on_done(FileOpId(99), &mut ops));
        assert!(files.on_done(first[0].0, &mut ops));
        assert!(!files.is_proposing() && !files.is_idle());
        let second = ops.take();
        assert!(matches!(&second[..], [(_, FileOp::WriteConfig { version: 7, .. })]), "{second:?}");
        assert!(files.on_done(second[0].0, &mut ops));
        assert!(files.is_idle());
    }
}
