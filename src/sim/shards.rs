//! The satellites of the simulated server: their mailboxes, and when they look into them.

use std::collections::{BTreeSet, VecDeque};

use crate::base::Instant;
use crate::model::ShardId;
use crate::server::{Clock, Input, Machine, Mesh, Output, Published, Satellite};
use crate::tree::{Tree, ZnodeRef};

use super::world::Failure;

/// All satellites of one incarnation of the server.
pub(super) struct Shards {
    all: Vec<Remote>,
    /// What the home shard last published.
    pub(super) published: Published,
    /// The planted bug: satellites see what was published one publication ago.
    stale: Option<Published>,
}

struct Remote {
    machine: Satellite,
    mailbox: VecDeque<Mesh>,
    inputs: Vec<Input>,
    /// A turn is already on its way.
    called: bool,
}

impl Remote {
    /// Whether it has taken in all that made `tree` what it is: a configuration comes into force
    /// without a txn, and replicas are given a tree with it.
    fn has_followed(&self, tree: &Tree) -> bool {
        self.machine.tree().last_zxid() == tree.last_zxid()
            && self.mailbox.is_empty()
            && !self.machine.wants_turn()
    }
}

impl Shards {
    /// Satellites that start at `published`.
    pub(super) fn new(machines: Vec<Satellite>, published: Published, stale: bool) -> Self {
        let remote = |machine| Remote {
            machine,
            mailbox: VecDeque::new(),
            inputs: Vec::new(),
            called: false,
        };
        let all = machines.into_iter().map(remote).collect();
        Self { all, published, stale: stale.then_some(published) }
    }

    /// Those of a server that is down.
    pub(super) fn none() -> Self {
        Self::new(Vec::new(), Published::default(), false)
    }

    fn remote(&mut self, shard: ShardId) -> Option<&mut Remote> {
        self.all.get_mut(usize::from(shard.0).checked_sub(1)?)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.all.len()).expect("satellites are few")
    }

    /// The home shard publishes.
    pub(super) fn publish(&mut self, published: Published) {
        if let Some(stale) = &mut self.stale {
            *stale = self.published;
        }
        self.published = published;
    }

    /// Puts a message into a mailbox.
    pub(super) fn post(&mut self, shard: ShardId, mesh: Mesh) {
        if let Some(remote) = self.remote(shard) {
            remote.mailbox.push_back(mesh);
        }
    }

    /// Something happened on a shard's connections; seen at its next turn.
    pub(super) fn input(&mut self, shard: ShardId, input: Input) {
        if let Some(remote) = self.remote(shard) {
            remote.inputs.push(input);
        }
    }

    /// Whether a turn must be arranged for a shard that was called.
    pub(super) fn call(&mut self, shard: ShardId) -> bool {
        self.remote(shard).is_some_and(|remote| !std::mem::replace(&mut remote.called, true))
    }

    /// Shards that have mail nobody called them for, or a timer that is due.
    pub(super) fn waiting(&self, now: Instant) -> Vec<ShardId> {
        let has_news = |remote: &&Remote| {
            !remote.mailbox.is_empty() || remote.machine.next_timer().is_some_and(|due| due <= now)
        };
        self.all.iter().filter(has_news).map(|remote| remote.machine.id()).collect()
    }

    /// A shard's turn: what is published is read first, then the mail is taken.
    pub(super) fn turn(&mut self, shard: ShardId, clock: Clock) -> Vec<Output> {
        let published = self.stale.unwrap_or(self.published);
        let mut out = Vec::new();
        let Some(remote) = self.remote(shard) else { return out };
        remote.called = false;
        for mesh in std::mem::take(&mut remote.mailbox) {
            remote.machine.step(clock, Input::Mesh(mesh), &mut out);
        }
        remote.machine.step(clock, Input::Published(published), &mut out);
        for input in std::mem::take(&mut remote.inputs) {
            remote.machine.step(clock, input, &mut out);
        }
        remote.machine.step(clock, Input::Timer, &mut out);
        remote.machine.turn_end(clock, &mut out);
        out
    }

    /// Whether a shard left work over at its last turn.
    pub(super) fn wants_turn(&mut self, shard: ShardId) -> bool {
        self.remote(shard).is_some_and(|remote| remote.machine.wants_turn())
    }

    /// Whether every replica is where `tree` is.
    pub(super) fn have_followed(&self, tree: &Tree) -> bool {
        self.all.iter().all(|remote| remote.has_followed(tree))
    }

    /// Every replica that has followed as far as `tree` is the same as `tree`.
    pub(super) fn check(&self, tree: &Tree) -> Result<(), Failure> {
        for remote in &self.all {
            let replica = remote.machine.tree();
            let comparable = tree.is_whole() && replica.is_whole();
            if comparable
                && remote.has_followed(tree)
                && let Some(place) = difference(replica, tree, "/")
            {
                let id = remote.machine.id().0;
                return Err(Failure::new(format!("the replica of shard {id} differs at {place}")));
            }
        }
        Ok(())
    }
}

/// Where two trees differ, below `path`; the order of children is nobody's business.
pub(super) fn difference(left: &Tree, right: &Tree, path: &str) -> Option<String> {
    let (Some(a), Some(b)) = (left.get(path), right.get(path)) else { return Some(path.into()) };
    let names = |znode: &ZnodeRef<'_>| -> BTreeSet<String> {
        znode.children().map(str::to_owned).collect()
    };
    let children = names(&a);
    let base = if path == "/" { "" } else { path };
    let is_same = a.persisted() == b.persisted()
        && a.data() == b.data()
        && a.acl() == b.acl()
        && a.child_count() == b.child_count()
        && children == names(&b);
    if !is_same {
        return Some(format!("{path}: {:?} and {:?}", a.persisted(), b.persisted()));
    }
    children.iter().find_map(|name| difference(left, right, &format!("{base}/{name}")))
}
