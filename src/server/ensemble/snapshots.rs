//! Snapshots that a leader sends to learners, made of the tree while it changes, at a pace that
//! leaves disk and cores to everybody else.

use std::collections::BTreeMap;

use super::history::snapshot_bytes;
use super::{Context, Ensemble, Role};
use crate::base::{Duration, Instant};
use crate::limits;
use crate::model::Zxid;
use crate::server::contract::PeerLink;
use crate::server::snap_send::{Pace, SnapshotSender};
use crate::wire::quorum::LeaderPacket;
use crate::zab::leader::LinkId;

/// The learners that get a snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    of: BTreeMap<LinkId, Sending>,
    /// Learners whose snapshot begins with a whole txn once everything up to the zxid is applied.
    wanting: Vec<(LinkId, Zxid)>,
}

/// A snapshot on its way to a learner.
#[derive(Debug)]
struct Sending {
    sender: SnapshotSender,
    pace: Pace,
    /// More of it was due when it was last looked at.
    is_due: bool,
}

impl Snapshots {
    /// This learner is to get one with everything up to `upto`.
    pub(super) fn want(&mut self, link: LinkId, upto: Zxid) {
        self.wanting.push((link, upto));
    }

    /// When more of one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.of.values().map(|sending| sending.pace.due()).min()
    }
}

impl Ensemble {
    fn snapshots(&mut self) -> Option<&mut Snapshots> {
        self.leading().map(|leading| &mut leading.snapshots)
    }

    /// Begins the snapshots that are wanted, and sends the next bytes of those under way to the
    /// learners whose sockets take them.
    pub(super) fn send_snapshots(&mut self, cx: &mut Context<'_>) {
        let served_epoch = self.served_epoch;
        let Some(leading) = self.leading() else { return };
        let established = leading.established();
        let snapshots = &mut leading.snapshots;
        let applied = cx.pipeline.tree().last_zxid();
        let is_behind = |(_, upto): &(LinkId, Zxid)| applied < *upto;
        if established.is_none() && snapshots.wanting.iter().any(is_behind) {
            cx.pipeline.apply_ahead();
        }
        if !cx.pipeline.is_applying() {
            let (later, now) =
                std::mem::take(&mut snapshots.wanting).into_iter().partition(is_behind);
            snapshots.wanting = later;
            for (link, _) in now {
                let within = Duration(self.timing.establish_within.0 / 4);
                let pace = Pace::new(cx.clock.now, snapshot_bytes(cx), within);
                let sender = cx.pipeline.begin_snapshot_for_learner();
                let mut zxid = sender.zxid();
                if let Some(leading) = self.leading() {
                    let epoch = established.unwrap_or(served_epoch);
                    zxid = leading.leader.snapshot_zxid(link, zxid, epoch);
                    leading.snapshots.of.insert(link, Sending { sender, pace, is_due: true });
                }
                self.tell_learner(cx, link, &LeaderPacket::Snap { zxid });
            }
        }
        let Some(snapshots) = self.snapshots() else { return };
        for link in snapshots.of.keys().copied().collect::<Vec<_>>() {
            self.send_snapshot(cx, link);
        }
    }

    fn send_snapshot(&mut self, cx: &mut Context<'_>, link: LinkId) {
        if limits::SNAPSHOT_UNSENT_BYTES_MAX <= self.peers.unsent_bytes(PeerLink(link.0)) {
            return;
        }
        let Some(snapshots) = self.snapshots() else { return };
        let Some(sending) = snapshots.of.get_mut(&link) else { return };
        sending.is_due = sending.pace.is_due(cx.clock.now);
        if !sending.is_due {
            return;
        }
        let Some(mut sending) = snapshots.of.remove(&link) else { return };
        let (tree, bytes_max) = (cx.pipeline.tree_mut(), limits::SNAPSHOT_SENT_BYTES_PER_TURN);
        match sending.sender.next_chunk(tree, bytes_max) {
            Some(chunk) => {
                if !self.peers.raw(PeerLink(link.0), &chunk) {
                    sending.sender.end(cx.pipeline.tree_mut());
                    return self.drop_learner(cx, link);
                }
                sending.pace.sent(cx.clock.now, chunk.len());
                sending.is_due = sending.pace.is_due(cx.clock.now);
                if let Some(snapshots) = self.snapshots() {
                    snapshots.of.insert(link, sending);
                }
            }
            None => {
                let zxid = sending.sender.zxid();
                sending.sender.end(cx.pipeline.tree_mut());
                self.peers.raw_ends(PeerLink(link.0));
                let mut out = Vec::new();
                if let Some(leading) = self.leading() {
                    leading.leader.snapshot_sent(link, zxid, &mut out);
                }
                self.leader_outputs(cx, out);
            }
        }
    }

    /// Whether a snapshot can go on without any other input.
    pub(super) fn has_snapshot_to_send(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        leading.snapshots.of.iter().any(|(link, sending)| {
            let unsent = self.peers.unsent_bytes(PeerLink(link.0));
            sending.is_due && unsent < limits::SNAPSHOT_UNSENT_BYTES_MAX
        })
    }

    /// The role ends, or the learner is gone: changes of the tree need not be remembered.
    pub(super) fn end_snapshots(&mut self, cx: &mut Context<'_>, of: Option<LinkId>) {
        let Some(snapshots) = self.snapshots() else { return };
        snapshots.wanting.retain(|(link, _)| of.is_some_and(|gone| gone != *link));
        for (link, sending) in std::mem::take(&mut snapshots.of) {
            if of.is_none_or(|gone| gone == link) {
                sending.sender.end(cx.pipeline.tree_mut());
            } else {
                snapshots.of.insert(link, sending);
            }
        }
    }
}
