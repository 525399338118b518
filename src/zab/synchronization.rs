//! How a learner comes to the leader's history: DIFF, TRUNC or SNAP (`quorum-and-disk.md` 4.1 for
//! what is legal; among that we choose by cost).
//!
//! Let p be the learner's last zxid, and f the last txn of the leader's history at or before p.
//!
//! | p | the learner's log | way |
//! |---|---|---|
//! | unknown (-1), or before what our log reaches | may be anything | SNAP |
//! | f itself | is a prefix of the history | DIFF, what follows f |
//! | the beginning of an epoch (counter 0) | ends with f | DIFF, what follows f |
//! | no txn of the history, in f's epoch | is the history up to f, and more | TRUNC(f), the rest |
//! | no txn of the history, in a later epoch | has parted from it somewhere | SNAP |
//!
//! A server tells the beginning of an epoch only when that was established, so that its leader's
//! history is part of ours. The history may start with one, of an Apache leader's snapshot, but
//! no log has it: Apache's servers would cut behind the next txn. Txns of epoch 0 are those of a
//! server that was alone: no leader vouches for their order, and none is cut off behind another.
//!
//! The zxid is looked up in the history, never compared with its bounds (ZOOKEEPER-1154,
//! ZOOKEEPER-2846), and the log that answers is without gaps (ZOOKEEPER-2418). A DIFF that costs
//! more than the tree is not sent: both cost what their bytes do, and the files of a log may reach
//! back further than is worth it.
//!
//! The stream is then: the opening packet; each committed txn as PROPOSAL and COMMIT; NEWLEADER;
//! what is not committed as PROPOSAL alone; live traffic; UPTODATE. Proposals behind NEWLEADER,
//! since followers up to 3.9.2 cannot take the COMMIT of an earlier one (ZOOKEEPER-4394).

use crate::limits::DIFF_BYTES_ALWAYS;
use crate::model::Zxid;
use crate::wire::quorum::LeaderPacket;

/// What a leader can say of its own log. Without gaps: every txn of the history behind `start` is
/// in it.
pub trait History {
    /// The zxid of the last txn before the log's first: of the oldest snapshot from which the log
    /// goes on, zero if the log goes back to the beginning.
    fn start(&self) -> Zxid;

    /// The last txn.
    fn last(&self) -> Zxid;

    /// The last txn at or before `zxid`; `start` if the log's first is later. Asked only for zxids
    /// from `start` on.
    fn floor(&self, zxid: Zxid) -> Zxid;

    /// Bytes of the log behind a txn.
    fn bytes_after(&self, zxid: Zxid) -> u64;
}

/// How a learner is brought to the leader's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPlan {
    /// How it begins.
    pub way: SyncWay,
    /// The txns behind this one follow.
    pub after: Zxid,
}

/// The three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncWay {
    /// The learner's log is a prefix: txns are appended.
    Diff,
    /// It is cut behind the plan's `after` first.
    Trunc,
    /// It is replaced by a snapshot of the leader's tree, which contains everything up to the
    /// plan's `after`, the leader's last.
    Snap,
}

impl SyncPlan {
    /// The plan for a learner whose log ends with `learner_last`. `snapshot_bytes` is about the
    /// size of the leader's tree on the wire.
    #[must_use]
    pub fn choose(history: &impl History, learner_last: Zxid, snapshot_bytes: u64) -> Self {
        let snap = Self { way: SyncWay::Snap, after: history.last() };
        // Nothing in front of the start is known, and what is behind `last` is no history yet.
        if learner_last.min(history.last()) < history.start() {
            return snap;
        }
        let floor = history.floor(learner_last);
        assert!(history.start() <= floor && floor <= learner_last, "floor is at or before");
        let diff_bytes = history.bytes_after(floor);
        if snapshot_bytes.max(DIFF_BYTES_ALWAYS) < diff_bytes {
            return snap;
        }
        if floor == learner_last || learner_last.counter() == 0 {
            Self { way: SyncWay::Diff, after: floor }
        } else if floor.epoch() == learner_last.epoch()
            && floor.epoch() != 0
            && floor.counter() != 0
        {
            Self { way: SyncWay::Trunc, after: floor }
        } else {
            snap
        }
    }

    /// The packet that opens the stream to a leader's history that ends with `last`.
    #[must_use]
    pub const fn opening(self, last: Zxid) -> LeaderPacket {
        match self.way {
            SyncWay::Diff => LeaderPacket::Diff { zxid: last },
            SyncWay::Trunc => LeaderPacket::Trunc { zxid: self.after },
            SyncWay::Snap => LeaderPacket::Snap { zxid: self.after },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    /// A log with one byte for each txn, of which the first ones are in a snapshot only.
    struct Log {
        txns: Vec<Zxid>,
        hidden: usize,
        txn_bytes: u64,
    }

    impl Log {
        fn all(&self) -> impl Iterator<Item = Zxid> + '_ {
            std::iter::once(Zxid::ZERO).chain(self.txns.iter().copied())
        }
    }

    impl History for Log {
        fn start(&self) -> Zxid {
            self.all().nth(self.hidden).unwrap()
        }

        fn last(&self) -> Zxid {
            self.all().last().unwrap()
        }

        fn floor(&self, zxid: Zxid) -> Zxid {
            self.all().skip(self.hidden).filter(|txn| *txn <= zxid).last().unwrap()
        }

        fn bytes_after(&self, zxid: Zxid) -> u64 {
            self.all().filter(|txn| zxid < *txn).count() as u64 * self.txn_bytes
        }
    }

    fn zxid(epoch: u32, counter: u32) -> Zxid {
        Zxid::new(epoch, counter)
    }

    fn log(txns: &[(u32, u32)], hidden: usize) -> Log {
        let txns = txns.iter().map(|(epoch, counter)| zxid(*epoch, *counter)).collect();
        Log { txns, hidden, txn_bytes: 1 }
    }

    #[test]
    fn the_way_follows_from_where_the_logs_part() {
        use SyncWay::{Diff, Snap, Trunc};
        let txns = [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (3, 1), (3, 2)];
        let whole = log(&txns, 0);
        let short = log(&txns, 3);
        let joined = log(&[(5, 0)], 1);
        for (history, last, way, after) in [
            (&whole, zxid(3, 2), Diff, zxid(3, 2)),
            (&whole, zxid(1, 2), Diff, zxid(1, 2)),
            (&whole, Zxid::ZERO, Diff, Zxid::ZERO),
            (&short, Zxid::ZERO, Snap, zxid(3, 2)),
            (&short, zxid(0, 2), Snap, zxid(3, 2)),
            (&short, zxid(1, 1), Diff, zxid(1, 1)),
            (&whole, Zxid(-1), Snap, zxid(3, 2)),
            (&whole, zxid(1, 4), Trunc, zxid(1, 3)),
            (&whole, zxid(3, 9), Trunc, zxid(3, 2)),
            (&short, zxid(1, 9), Trunc, zxid(1, 3)),
            (&whole, zxid(2, 1), Snap, zxid(3, 2)),
            (&whole, zxid(4, 1), Snap, zxid(3, 2)),
            (&whole, zxid(0, 3), Snap, zxid(3, 2)),
            (&whole, zxid(1, 0), Diff, zxid(0, 2)),
            (&whole, zxid(2, 0), Diff, zxid(1, 3)),
            (&whole, zxid(3, 0), Diff, zxid(1, 3)),
            (&whole, zxid(4, 0), Diff, zxid(3, 2)),
            (&short, zxid(1, 0), Snap, zxid(3, 2)),
            (&joined, zxid(5, 3), Snap, zxid(5, 0)),
            (&joined, zxid(5, 0), Diff, zxid(5, 0)),
        ] {
            let plan = SyncPlan::choose(history, last, 0);
            assert_eq!(plan, SyncPlan { way, after }, "a learner at {last}");
        }
    }

    #[test]
    fn a_diff_that_costs_more_than_the_tree_is_not_sent() {
        let big = Log { txn_bytes: DIFF_BYTES_ALWAYS / 2, ..log(&[(1, 1), (1, 2), (1, 3)], 0) };
        let way = |last, snapshot_bytes| SyncPlan::choose(&big, last, snapshot_bytes).way;
        assert_eq!(way(Zxid::ZERO, 0), SyncWay::Snap);
        assert_eq!(way(Zxid::ZERO, 2 * DIFF_BYTES_ALWAYS), SyncWay::Diff);
        assert_eq!(way(zxid(1, 1), 0), SyncWay::Diff);
    }

    #[test]
    fn the_opening_packet_says_the_way() {
        let (after, last) = (zxid(1, 1), zxid(1, 2));
        for (way, packet) in [
            (SyncWay::Diff, LeaderPacket::Diff { zxid: last }),
            (SyncWay::Trunc, LeaderPacket::Trunc { zxid: after }),
            (SyncWay::Snap, LeaderPacket::Snap { zxid: after }),
        ] {
            assert_eq!(SyncPlan { way, after }.opening(last), packet);
        }
    }

    #[derive(Clone, Default)]
    struct Server {
        current: u32,
        txns: Vec<Zxid>,
        /// It knows that its epoch was established, and may tell its beginning as its last zxid.
        knows_epoch: bool,
    }

    impl Server {
        fn end(&self) -> (u32, Zxid) {
            (self.current, self.txns.last().copied().unwrap_or_default())
        }
    }

    /// Histories as elections, broken synchronizations and broken broadcasts leave them.
    struct Ensemble {
        prng: Prng,
        servers: Vec<Server>,
        epoch: u32,
    }

    impl Ensemble {
        fn some_servers(&mut self, at_least: usize) -> Vec<usize> {
            let mut all: Vec<usize> = (0..self.servers.len()).collect();
            let count = at_least + self.prng.below((all.len() - at_least + 1) as u64) as usize;
            while count < all.len() {
                all.remove(self.prng.below(all.len() as u64) as usize);
            }
            all
        }

        /// A leader that a quorum elects, and those of the quorum.
        fn elect(&mut self) -> (usize, Vec<usize>) {
            let quorum = self.some_servers(self.servers.len() / 2 + 1);
            let leader = quorum.iter().copied().max_by_key(|at| (self.servers[*at].end(), *at));
            (leader.unwrap(), quorum)
        }

        /// One epoch: some accept its history; if a quorum does, some take some of its txns.
        fn live(&mut self) {
            let (leader, quorum) = self.elect();
            self.epoch += 1;
            let epoch = self.epoch;
            let followers = self.some_servers(0);
            let followers = followers.into_iter().filter(|at| quorum.contains(at));
            let mut accepted: Vec<usize> = followers.chain([leader]).collect();
            accepted.sort_unstable();
            accepted.dedup();
            let history = self.servers[leader].txns.clone();
            let is_established = self.servers.len() / 2 < accepted.len();
            let count = if is_established { self.prng.below(4) } else { 0 };
            for at in accepted {
                let lag = if at == leader { 0 } else { self.prng.below(count + 1) };
                let txns = (1..=count - lag).map(|counter| zxid(epoch, counter as u32));
                let txns = history.iter().copied().chain(txns).collect();
                let knows_epoch = is_established && self.prng.one_in(2);
                self.servers[at] = Server { current: epoch, txns, knows_epoch };
            }
        }
    }

    #[test]
    fn after_the_plan_the_learner_has_the_leaders_history() {
        let mut ways = [0; 3];
        for seed in 0..20_000 {
            let mut prng = Prng::new(seed);
            let count = 3 + 2 * prng.below(2) as usize;
            let mut ensemble = Ensemble { prng, servers: vec![Server::default(); count], epoch: 0 };
            for _ in 0..8 {
                ensemble.live();
                let (leader, _) = ensemble.elect();
                let leader = ensemble.servers[leader].clone();
                let at = ensemble.prng.below(count as u64) as usize;
                let learner = ensemble.servers[at].clone();
                if leader.end() < learner.end() {
                    continue;
                }
                let hidden = ensemble.prng.below(leader.txns.len() as u64 + 1) as usize;
                let hidden = if ensemble.prng.one_in(2) { 0 } else { hidden };
                let last = learner.txns.last().copied().unwrap_or_default();
                let beginning = zxid(learner.current, 0);
                let is_told = learner.knows_epoch && last < beginning;
                let told = if is_told { beginning } else { last };
                let history = Log { txns: leader.txns.clone(), hidden, txn_bytes: 1 };
                let plan = SyncPlan::choose(&history, told, 0);
                ways[plan.way as usize] += 1;
                let mut result = learner.txns.clone();
                match plan.way {
                    SyncWay::Snap => result.clone_from(&leader.txns),
                    SyncWay::Trunc => {
                        assert!(result.contains(&plan.after), "seed {seed}: {plan:?}");
                        result.retain(|txn| *txn <= plan.after);
                    }
                    SyncWay::Diff => {}
                }
                result.extend(leader.txns.iter().filter(|txn| plan.after < **txn));
                assert_eq!(result, leader.txns, "seed {seed}: {told} and {plan:?}");
            }
        }
        assert!(ways.iter().all(|count| 1_000 < *count), "DIFF, TRUNC, SNAP: {ways:?}");
    }
}
