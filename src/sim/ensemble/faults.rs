//! The faults of an ensemble: which kinds there are, how one of them begins, and how all end.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use super::super::disk::Crash;
use super::super::world::Failure;
use super::membership::sid_of;
use super::upgrade::Version;
use super::{Event, World};
use crate::base::{Duration, FileDir, Prng};
use crate::model::ServerId;
use crate::server::{PeerInput, PeerPort};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed, also at any disk operation; it starts again.
    Kill,
    /// The power of one server is cut, also at any disk operation; it starts again.
    PowerCut,
    /// The power of all servers is cut at once.
    Blackout,
    /// One server is cut off from all others.
    Alone,
    /// The servers fall into two groups that do not see each other.
    Halves,
    /// Two groups, and one server that sees both.
    Bridge,
    /// Each server sees its two neighbours only.
    Ring,
    /// Two servers do not see each other; all others see both.
    Pair,
    /// One direction between two servers is cut.
    OneWay,
    /// A server is cut off and comes back, again and again.
    Flapping,
    /// What is sent to one server arrives seconds late.
    Clogged,
    /// A connection between two servers breaks.
    CutLink,
    /// A client's connection breaks.
    CutClient,
    /// A process is stopped for a while and goes on.
    Pause,
    /// Disk operations of one server take a hundred times as long.
    SlowDisk,
    /// Nothing new finds space on one server's disk.
    FullDisk,
    /// One server after the other is stopped as planned and starts with other settings, as another
    /// version of the program.
    Upgrade,
    /// A durable write or a flush fails, and what it should have written is lost.
    FailedFlush,
    /// A part of a leader's log cannot be read when a learner needs it.
    UnreadLog,
    /// A log cannot be cut as a leader wants it.
    NotCut,
    /// Bytes of one server's log or snapshots change while it is down.
    BitRot,
    /// One server's disk is lost; where it is known that it was not empty (`db.autocreate=false`).
    LostDisk,
    /// A server's clocks run fast or slow, and its wall clock is wrong.
    Drift,
    /// Somebody connects to a port of the ensemble and sends what is no protocol.
    Stranger,
    /// A bit of what passes between two servers is changed.
    Corruption,
    /// A minority does not come back at the end.
    Death,
    /// Members come, go, change their roles and ports, while other faults are made.
    Reconfiguration,
}

impl Fault {
    /// All of them; first those that begin at any time, then those that need an occasion.
    pub const ALL: [Self; 27] = [
        Self::Kill,
        Self::PowerCut,
        Self::Blackout,
        Self::Alone,
        Self::Halves,
        Self::Bridge,
        Self::Ring,
        Self::Pair,
        Self::OneWay,
        Self::Flapping,
        Self::Clogged,
        Self::CutLink,
        Self::CutClient,
        Self::Pause,
        Self::SlowDisk,
        Self::FullDisk,
        Self::Stranger,
        Self::Corruption,
        Self::Upgrade,
        Self::FailedFlush,
        Self::UnreadLog,
        Self::NotCut,
        Self::BitRot,
        Self::LostDisk,
        Self::Drift,
        Self::Death,
        Self::Reconfiguration,
    ];
    const AT_ANY_TIME: usize = 19;
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What one seed makes of the faults that begin at any time: all of them now and then, or few kinds
/// over and over, or far more often. Few kinds bring about what many disturb.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    kinds: Vec<Fault>,
    /// From one fault to the next, at most.
    within_micros: u64,
}

impl Swarm {
    pub(super) fn any(prng: &mut Prng) -> Self {
        let mut kinds = Fault::ALL.to_vec();
        kinds.truncate(Fault::AT_ANY_TIME);
        if prng.one_in(3) {
            let left = 2 + prng.below(4);
            while left < kinds.len() as u64 {
                let nth = usize::try_from(prng.below(kinds.len() as u64)).unwrap_or_default();
                kinds.swap_remove(nth);
            }
        }
        let within_micros = match prng.below(6) {
            0 => 50_000,
            1 => 1_500_000,
            _ => 300_000,
        };
        Self { kinds, within_micros }
    }
}

/// How often each kind was made.
pub type Injected = BTreeMap<Fault, u64>;

impl World {
    /// Whether a fault may be made; it is counted if so.
    pub(super) fn inject(&mut self, fault: Fault) -> bool {
        let may = !self.healed && !self.without.contains(&fault);
        if may {
            tracing::info!(us = self.now.0 / 1_000, %fault, "a fault is made");
            *self.report.injected.entry(fault).or_default() += 1;
        }
        may
    }

    /// One fault, or the end of those that last; then the next one.
    pub(super) fn fault(&mut self) -> Result<(), Failure> {
        if self.healed {
            return Ok(());
        }
        self.after_micros(self.swarm.within_micros, None, Event::Fault);
        let (one, other) = (self.any_member(), self.any_member());
        if self.prng.one_in(3) {
            self.end_lasting();
            return Ok(());
        }
        let nth = self.below(self.swarm.kinds.len());
        let Some(fault) = self.swarm.kinds.get(nth).copied() else { return Ok(()) };
        let lasts = Duration::from_millis(self.prng.below(1_500));
        if !self.inject(fault) {
            return Ok(());
        }
        let count = self.members.len();
        let until = self.now + lasts;
        match fault {
            Fault::Kill => self.crash(one, Crash::Kill),
            Fault::PowerCut => self.crash(one, Crash::PowerCut),
            Fault::Blackout => self.black_out(),
            Fault::Alone => self.cut_off(one),
            Fault::Halves => {
                let side = self.prng.next_u64();
                self.cut_where(|a, b| (side >> a) & 1 != (side >> b) & 1);
            }
            Fault::Bridge => {
                let side = self.prng.next_u64();
                let parted = |a: usize, b: usize| (side >> a) & 1 != (side >> b) & 1;
                self.cut_where(|a, b| a != one && b != one && parted(a, b));
            }
            Fault::Ring => self.cut_where(|a, b| {
                let apart = a.abs_diff(b);
                apart != 1 && apart + 1 != count
            }),
            Fault::Pair => {
                self.cut_where(|a, b| (a, b) == (one, other) || (b, a) == (one, other));
            }
            Fault::OneWay => self.cut_where(|a, b| (a, b) == (one, other)),
            Fault::Flapping => self.flap(one, 10),
            Fault::Clogged => self.network.clog(one, until),
            Fault::CutLink => self.cut_link(one)?,
            Fault::CutClient => self.cut_client()?,
            // Never until an earlier time: what waits for the end of a pause would be overtaken.
            Fault::Pause => {
                let member = self.member(one);
                member.paused_until = member.paused_until.max(until);
            }
            Fault::SlowDisk => {
                let dir = match self.prng.below(3) {
                    0 => None,
                    1 => Some(FileDir::Data),
                    _ => Some(FileDir::Log),
                };
                let member = self.member(one);
                (member.slow_until, member.slow_dir) = (until, dir);
            }
            Fault::FullDisk => {
                self.history.disk_was_full = true;
                self.member(one).full_until = until;
            }
            Fault::Stranger => self.stranger(one)?,
            Fault::Corruption => {
                let port = if self.prng.one_in(4) { PeerPort::Election } else { PeerPort::Quorum };
                self.corrupts = Some(port);
            }
            Fault::Upgrade => {
                if !std::mem::replace(&mut self.upgrading, true) {
                    self.upgrade(0)?;
                }
            }
            // Made elsewhere.
            Fault::FailedFlush
            | Fault::UnreadLog
            | Fault::NotCut
            | Fault::BitRot
            | Fault::LostDisk
            | Fault::Drift
            | Fault::Death
            | Fault::Reconfiguration => {}
        }
        Ok(())
    }

    pub(super) fn black_out(&mut self) {
        (0..self.members.len()).for_each(|at| self.crash(at, Crash::PowerCut));
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.prng.below(count as u64)).unwrap_or_default()
    }

    pub(super) fn any_member(&mut self) -> usize {
        self.below(self.members.len())
    }

    fn cut_where(&mut self, is_cut: impl Fn(usize, usize) -> bool) {
        for a in 0..self.members.len() {
            for b in (0..self.members.len()).filter(|b| *b != a) {
                if is_cut(a, b) {
                    self.network.cut(a, b);
                }
            }
        }
    }

    fn cut_off(&mut self, one: usize) {
        self.cut_where(|a, b| a == one || b == one);
    }

    /// Cuts a server off or brings it back, `left` times more.
    pub(super) fn flap(&mut self, one: usize, left: u64) {
        if left.is_multiple_of(2) {
            self.cut_off(one);
        } else {
            self.network.heal();
        }
        if left != 0 && !self.healed {
            self.after_micros(200_000, None, Event::Flap(one, left - 1));
        }
    }

    fn cut_link(&mut self, one: usize) -> Result<(), Failure> {
        let ends = self.network.ends_of(one);
        let nth = self.below(ends.len());
        let Some(end) = ends.get(nth).copied() else { return Ok(()) };
        let other = self.network.other(end);
        self.network.forget(end);
        self.peer(one, PeerInput::Closed { link: end.link })?;
        match other {
            Some(other) => self.peer(other.member, PeerInput::Closed { link: other.link }),
            None => Ok(()),
        }
    }

    fn cut_client(&mut self) -> Result<(), Failure> {
        let nth = self.below(self.conns.len());
        match self.conns.keys().nth(nth).copied() {
            Some(conn) => self.client_closed(conn),
            None => Ok(()),
        }
    }

    /// Bytes that begin like a protocol, or do not.
    fn stranger(&mut self, one: usize) -> Result<(), Failure> {
        let port = if self.prng.one_in(2) { PeerPort::Election } else { PeerPort::Quorum };
        let link = self.network.stranger();
        let start = match self.prng.below(4) {
            0 => (-65_536_i64).to_be_bytes().to_vec(),
            1 => (-65_535_i64).to_be_bytes().to_vec(),
            2 => vec![0, 0, 0, 11, 0, 0, 0],
            _ => Vec::new(),
        };
        let random = self.prng.below(100);
        let bytes = start.into_iter().chain((0..random).map(|_| {
            let byte = self.prng.next_u64() as u8;
            if byte < 128 { 0 } else { byte }
        }));
        let bytes = Bytes::from(bytes.collect::<Vec<u8>>());
        self.peer(one, PeerInput::Accepted { port, link })?;
        self.peer(one, PeerInput::Received { link, bytes })?;
        if self.prng.one_in(2) {
            self.peer(one, PeerInput::Closed { link })?;
        }
        Ok(())
    }

    /// Ends what lasts: partitions, slow and full disks. A pause ends by itself.
    fn end_lasting(&mut self) {
        self.network.heal();
        for member in &mut self.members {
            member.slow_until = self.now;
            member.full_until = self.now;
        }
    }

    /// Whether all know each other for Ringkeepers. Elsewhere one whose log cannot be cut where a
    /// leader wants it cannot say so, and counts as one that has lost its history.
    fn all_are_known(&self) -> bool {
        let is_known = |version| version != Version::Unmarked;
        self.members.iter().all(|member| is_known(member.version) && is_known(member.next_version))
    }

    /// Whether the others are a quorum without what this server has; of one server at a time, and
    /// where no other may be one too many.
    pub(super) fn can_spare(&self, at: usize) -> bool {
        let others = match self.membership.is_dynamic {
            true => self.membership.fragile == Some(at),
            false => self.membership.first.is_quorum(|sid| sid != sid_of(at)),
        };
        others && self.all_are_known() && self.members.iter().all(|member| !member.is_uncounted)
    }

    /// The disk of a server that is down loses something.
    pub(super) fn damage(&mut self, at: usize) {
        let is_lost = self.is_careful && self.prng.one_in(3);
        if is_lost && self.inject(Fault::LostDisk) {
            let member = self.member(at);
            member.disk.lose();
            member.log.clear();
            member.is_uncounted = true;
        } else if !is_lost && self.inject(Fault::BitRot) {
            let Self { prng, members, .. } = self;
            if let Some(member) = members.get_mut(at) {
                member.is_uncounted = member.disk.rot(prng);
            }
        }
    }

    /// The faults are over. All servers start again, but for a minority in some seeds.
    pub(super) fn heal(&mut self) -> Result<(), Failure> {
        let all_are_known = self.all_are_known();
        for at in 0..self.members.len() {
            let stays = |sid: ServerId| {
                let member = self.members.iter().find(|member| member.sid == sid);
                sid != sid_of(at) && member.is_some_and(|it| !it.is_dead && !it.is_uncounted)
            };
            let may_die = match self.membership.is_dynamic {
                true => self.membership.doomed == Some(at),
                false => self.membership.first.is_quorum(stays),
            };
            if may_die && all_are_known && self.prng.one_in(6) && self.inject(Fault::Death) {
                self.crash(at, Crash::Kill);
                self.member(at).is_dead = true;
            }
        }
        self.healed = true;
        self.end_lasting();
        self.operate();
        for at in 0..self.members.len() {
            self.start(at)?;
        }
        Ok(())
    }
}
