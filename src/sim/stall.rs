//! Stalls: a server, or one shard of it, is not run for a while (SIGSTOP, a paused virtual machine,
//! a thread that waits for memory). The kernel goes on: it takes connections and bytes of clients
//! and completes what it was asked, and all of that is there when the server is run again. Clients
//! that hear nothing for two thirds of their timeout dial again.
//!
//! The judge: no session expires whose client is alive, whatever the clocks say.

use std::collections::BTreeSet;

use super::client::Client;
use super::history;
use super::plant::Plant;
use super::world::Failure;
use crate::base::{Duration, FileOp, Instant, Prng};
use crate::model::{ConnId, SessionId, ShardId, TxnBody, Xid};
use crate::wire;

/// One of so many clients that leave a connection has died, and another comes in its place.
const CLIENT_RESTARTS: u64 = 4;
/// One of so many seeds has stalls.
const SEEDS_PER_STALLED: u64 = 3;
/// Stalls of such a seed, at most.
const STALLS_MAX: u64 = 3;
/// The longest is this short one, doubled so often.
const SHORTEST_MS: u64 = 120;
const DOUBLINGS_MAX: u64 = 10;
/// Timeouts that clients of such a seed ask for.
const TIMEOUT_MS_MIN: u64 = 1_000;
const TIMEOUT_MS_MAX: u64 = 10_000;

/// The stalls of a seed.
pub(super) struct Stalls {
    /// A stream of its own: seeds without stalls do what they did before there were any.
    prng: Prng,
    /// Those to come, the next one last.
    plan: Vec<(Instant, Duration)>,
    under_way: Option<Stall>,
    /// What clients ask for, ms; `None` in a seed without stalls.
    timeout_ms: Option<u64>,
    /// How long all of them took.
    pub(super) total: Duration,
    /// When each client last heard something, or dialled.
    heard: Vec<Instant>,
    /// Connections that clients have left; what they sent before still arrives.
    left: BTreeSet<ConnId>,
}

#[derive(Clone, Copy, Debug)]
struct Stall {
    /// `None`: all shards.
    shard: Option<ShardId>,
    until: Instant,
    /// The planted bug: the server runs and only does not hear its clients, so that nothing tells
    /// it of the stall.
    is_unnoticed: bool,
}

impl Stalls {
    pub(super) fn new(seed: u64, plant: Plant, clients: usize, run_for: Duration) -> Self {
        let mut prng = Prng::new(seed ^ 0x57a1_1ed0);
        let has_stalls = match plant {
            Plant::None => prng.one_in(SEEDS_PER_STALLED),
            other => other == Plant::StallUncredited,
        };
        let mut plan = Vec::new();
        if has_stalls {
            for _ in 0..=prng.below(STALLS_MAX) {
                let at = Instant(prng.below(run_for.0));
                let len = (SHORTEST_MS << prng.below(DOUBLINGS_MAX + 1)) + prng.below(SHORTEST_MS);
                plan.push((at, Duration::from_millis(len)));
            }
            plan.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        }
        let timeout_ms = TIMEOUT_MS_MIN + prng.below(TIMEOUT_MS_MAX - TIMEOUT_MS_MIN);
        Self {
            prng,
            plan,
            under_way: None,
            timeout_ms: has_stalls.then_some(timeout_ms),
            total: Duration::from_millis(0),
            heard: vec![Instant::default(); clients],
            left: BTreeSet::new(),
        }
    }

    /// There are none: clients that have nothing to ask do not ping, and would be missed.
    pub(super) fn clear(&mut self) {
        self.plan.clear();
        self.timeout_ms = None;
    }

    /// The timeout that clients ask for, ms, if it is not the usual one.
    pub(super) fn timeout_ms(&self) -> Option<i32> {
        self.timeout_ms.and_then(|ms| i32::try_from(ms).ok())
    }

    /// Time has come to `now`: one stall may end, the next begin. Whether one began.
    pub(super) fn tick(&mut self, now: Instant, satellites: u16, plant: Plant) -> bool {
        if self.under_way.is_some_and(|stall| stall.until <= now) {
            self.under_way = None;
        }
        let Some((at, len)) = self.plan.last().copied() else { return false };
        // Stalls take time that the plan does not know of.
        if self.under_way.is_some() || now < at + self.total {
            return false;
        }
        self.plan.pop();
        self.total = Duration(self.total.0 + len.0);
        let is_unnoticed = plant == Plant::StallUncredited;
        let shard = self.prng.below(u64::from(satellites) + 1);
        let of_one = self.prng.one_in(2) && !is_unnoticed;
        let shard = of_one.then(|| ShardId(u16::try_from(shard).unwrap_or_default()));
        self.under_way = Some(Stall { shard, until: now + len, is_unnoticed });
        true
    }

    /// Until when nothing happens on this shard; `of_client`: what its clients do.
    pub(super) fn until(&self, shard: ShardId, of_client: bool) -> Option<Instant> {
        let stall = self.under_way.filter(|stall| of_client || !stall.is_unnoticed)?;
        stall.shard.is_none_or(|stalled| stalled == shard).then_some(stall.until)
    }

    /// Whether anything is stalled.
    pub(super) const fn is_stalled(&self) -> bool {
        self.under_way.is_some()
    }

    /// A client has heard something, or dials.
    pub(super) fn heard(&mut self, client: usize, now: Instant) {
        if let Some(heard) = self.heard.get_mut(client) {
            *heard = now;
        }
    }

    /// Whether a client has waited for so long that it dials again.
    pub(super) fn gives_up(&self, client: usize, now: Instant) -> bool {
        let heard = self.heard.get(client).copied().unwrap_or_default();
        self.timeout_ms
            .is_some_and(|ms| Duration::from_millis(ms.saturating_mul(2) / 3) < now.since(heard))
    }

    /// A client leaves a connection; whether it starts anew, without its session.
    pub(super) fn leave(&mut self, conn: ConnId) -> bool {
        self.left.insert(conn);
        self.prng.one_in(CLIENT_RESTARTS)
    }

    /// Whether its client has left a connection.
    pub(super) fn has_left(&self, conn: ConnId) -> bool {
        self.left.contains(&conn)
    }

    /// The process ended, and every connection with it.
    pub(super) fn crashed(&mut self) {
        self.under_way = None;
        self.left.clear();
    }
}

/// Judges the ends of sessions that nobody asked for in a write to the log; how many there are.
pub(super) fn judge_expiries(op: &FileOp, clients: &[Client]) -> Result<u64, Failure> {
    let mut expired = 0;
    for (zxid, txn) in history::records(op) {
        let txn = wire::txn::decode(&txn).map_err(Failure::because)?;
        if !matches!(txn.body, TxnBody::CloseSession { .. }) || txn.header.cxid != Xid(0) {
            continue;
        }
        let session = txn.header.session;
        if clients.iter().any(|client| client.session() == session && session != SessionId(0)) {
            return Err(Failure::new(format!(
                "session {session} expires at {zxid}, and its client is alive"
            )));
        }
        expired += 1;
    }
    Ok(expired)
}
