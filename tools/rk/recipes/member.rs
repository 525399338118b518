//! An ephemeral sequential znode that stands for this process, and its turn among the others.
//!
//! Names are those of Apache Curator, `_c_UUID-lock-0000000001`, so that both exclude each other.

use std::time::Instant;

use ringkeeper::model::{Acl, ErrorCode};

use super::{sequence, still_unknown, unique, wait_for_change};
use crate::failure::{Failure, Outcome};
use crate::inputs::Inputs;
use crate::zk::{Kind, NewZnode, Zk, join};

/// This process among others below a folder.
pub(crate) struct Member<'a> {
    zk: &'a Zk,
    inputs: &'a Inputs,
    folder: &'a str,
    /// What the names of all members have before the number.
    label: &'static str,
    prefix: String,
    /// Its znode.
    pub(crate) path: String,
}

impl<'a> Member<'a> {
    /// Creates the znode, and the folder if it is missing.
    pub(crate) fn join(
        zk: &'a Zk,
        inputs: &'a Inputs,
        folder: &'a str,
        label: &'static str,
        data: &[u8],
    ) -> Result<Self, Failure> {
        let prefix = format!("_c_{}-{label}", unique());
        let path = join(folder, &prefix);
        let mut member = Self { zk, inputs, folder, label, prefix, path };
        let new = NewZnode {
            path: &member.path,
            data,
            acl: &[Acl::open()],
            kind: Kind::Ephemeral,
            sequential: true,
        };
        let created = loop {
            match zk.create(&new) {
                Ok(path) => break path,
                // It is a container: it may vanish again before we are in it.
                Err(failure) if failure.is(ErrorCode::NO_NODE) => {
                    zk.ensure(folder, new.acl, Kind::Container)?;
                }
                Err(Failure::Unknown(_)) => {
                    if let Some(name) = member.names().map_err(still_unknown)?.own {
                        break join(folder, &name);
                    }
                }
                Err(failure) => return Err(failure),
            }
        };
        member.path = created;
        Ok(member)
    }

    /// Waits until no other member came before this one.
    pub(crate) fn wait_turn(&self, until: Option<Instant>) -> Outcome {
        loop {
            let names = self.names()?;
            if names.own.is_none() {
                return Err(Failure::Unknown(format!("somebody has deleted {}", self.path)));
            }
            let Some(before) = names.before else { return Ok(()) };
            // Only the one before is watched: its end wakes nobody else.
            if self.zk.exists(&join(self.folder, &before), true)?.is_some() {
                wait_for_change(self.inputs, until)?;
            }
        }
    }

    fn names(&self) -> Result<Names, Failure> {
        // Another server may be behind the one that took the create.
        self.zk.sync(self.folder)?;
        let (children, _) = match self.zk.children(self.folder, false) {
            Err(failure) if failure.is(ErrorCode::NO_NODE) => return Ok(Names::default()),
            children => children?,
        };
        Ok(Names::of(&children, self.label, &self.prefix))
    }
}

/// Members in the order of their numbers, as far as one member cares.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    /// Its own.
    own: Option<String>,
    /// The one before.
    before: Option<String>,
}

impl Names {
    fn of(children: &[String], label: &str, prefix: &str) -> Self {
        let mut members = in_order(children, label);
        match members.iter().position(|name| name.starts_with(prefix)) {
            Some(at) => {
                let before = at.checked_sub(1).map(|at| members.swap_remove(at).to_owned());
                let own = members.into_iter().find(|name| name.starts_with(prefix));
                Self { own: own.map(ToOwned::to_owned), before }
            }
            None => Self::default(),
        }
    }
}

/// The names that have `label`, by number.
pub(crate) fn in_order<'a>(children: &'a [String], label: &str) -> Vec<&'a str> {
    let mut members: Vec<(i64, &str)> = children
        .iter()
        .filter(|name| name.contains(label))
        .filter_map(|name| Some((sequence(name)?, name.as_str())))
        .collect();
    members.sort_unstable();
    members.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_waits_for_the_one_before() {
        let children: Vec<String> =
            ["_c_z-lock-0000000001", "_c_a-lock-0000000003", "other", "_c_m-lock-0000000002"]
                .map(str::to_owned)
                .to_vec();
        let names = |prefix| Names::of(&children, "lock-", prefix);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(names("_c_z-"), Names { own: some("_c_z-lock-0000000001"), before: None });
        assert_eq!(
            names("_c_a-"),
            Names { own: some("_c_a-lock-0000000003"), before: some("_c_m-lock-0000000002") }
        );
        assert_eq!(names("_c_q-"), Names::default());
    }
}
