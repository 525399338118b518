//! The connections of the election port: who keeps which, what is sent again
//! (`quorum-and-disk.md` 1.1 to 1.3).
//!
//! Two servers share one connection, the one that the larger sid dialled:
//!
//! | | the other is larger | the other is smaller |
//! |---|---|---|
//! | we dialled it | say who we are, close, be dialled back; only close if it already did | keep |
//! | it dialled us | keep | close, also what we had; dial it |
//!
//! 1. At most one message waits for a server; a newer one takes its place.
//! 2. The last message to a server goes first over a new connection unless a newer one waits: it
//!    may not have arrived.
//! 3. One dial at a time for each server, to where it said that it is and where the configuration
//!    says so: either may be outdated, and somebody else may listen there, so that each dial begins
//!    with another of them until the server is heard of. A refused one is tried again after 1 ms,
//!    then ever more rarely; where we are to be dialled back, or have lost what the larger one had
//!    dialled, that gets time first, since a dial of ours would end the connection that it brings.
//! 4. Whatever arrives on one connection harms only that one (ZOOKEEPER-3016, ZOOKEEPER-3769).
//! 5. Connections that have not said who they are, and those of servers in no configuration, are
//!    bounded in number, the former also in time (ZOOKEEPER-3296).
//!
//! The driver resolves names anew for each dial, hands in what arrives and does what
//! [`Links::poll_output`] says. Knows nothing of votes.

#[cfg(test)]
mod far_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::base::{Duration, Instant};
use crate::limits::{
    ELECTION_DIAL_BACK_AFTER, ELECTION_DIAL_RETRY_AFTER, ELECTION_DIAL_RETRY_AFTER_MAX,
    ELECTION_GREETING_WITHIN, ELECTION_GREETINGS_MAX, ELECTION_STRANGERS_MAX,
};
use crate::model::{EnsembleConfigs, ServerId};
use crate::wire::vote::{ElectionAddress, ElectionStream, InitialMessage};

/// One connection of the election port. Assigned by the driver, ascending, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// All election connections of one server.
#[derive(Debug)]
pub struct Links {
    me: ServerId,
    /// Our initial message.
    greeting: Bytes,
    /// Where the members of the configurations are dialled.
    members: BTreeMap<ServerId, Vec<ElectionAddress>>,
    links: BTreeMap<LinkId, Link>,
    /// Members that were spoken to or came, and strangers that came.
    peers: BTreeMap<ServerId, Peer>,
    /// The sid for the next server that has none.
    next_nameless: i64,
    outputs: VecDeque<LinkOutput>,
}

/// What is asked of the driver, and what has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOutput {
    /// Connect to one of these, and say [`Links::on_dialled`] or [`Links::on_dial_failed`].
    Dial {
        /// Whom.
        sid: ServerId,
        /// Where, in the order in which they are to be tried.
        addresses: Vec<ElectionAddress>,
    },
    /// Write this with one send, and say [`Links::on_written`].
    Write {
        /// Where.
        link: LinkId,
        /// What.
        bytes: Bytes,
    },
    /// Write this, then close; nothing more is heard of the connection.
    WriteAndClose {
        /// Which.
        link: LinkId,
        /// What.
        bytes: Bytes,
    },
    /// Close it; nothing more is heard of it.
    Close {
        /// Which.
        link: LinkId,
    },
    /// There is a connection to this server.
    Connected(ServerId),
    /// There is none any more.
    Disconnected(ServerId),
    /// A notification's bytes have arrived.
    Received {
        /// From whom, as it said itself.
        from: ServerId,
        /// The notification.
        frame: Bytes,
    },
}

#[derive(Debug)]
struct Link {
    stream: ElectionStream,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Accepted; it has not said who it is.
    Greeting { deadline: Instant },
    /// In use for this server.
    Live { sid: ServerId, is_writing: bool },
}

#[derive(Debug)]
struct Peer {
    live: Option<LinkId>,
    /// What is to be sent next.
    waiting: Option<Bytes>,
    /// What was sent last.
    last: Option<Bytes>,
    /// Where it said that it can be dialled.
    addresses: Vec<ElectionAddress>,
    is_dialling: bool,
    /// Since it was last heard of.
    dials: usize,
    retry_at: Option<Instant>,
    retry_after: Duration,
    /// When a damaged message has last ended a connection.
    damaged_at: Option<Instant>,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            live: None,
            waiting: None,
            last: None,
            addresses: Vec::new(),
            is_dialling: false,
            dials: 0,
            retry_at: None,
            retry_after: ELECTION_DIAL_RETRY_AFTER,
            damaged_at: None,
        }
    }
}

impl Links {
    /// No connections yet. `address` is our own election address, for being dialled back.
    #[must_use]
    pub fn new(me: ServerId, address: ElectionAddress, configs: &EnsembleConfigs) -> Self {
        let mut links = Self {
            me,
            greeting: greeting(me, address),
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            next_nameless: -1,
            outputs: VecDeque::new(),
        };
        links.set_configs(configs);
        links
    }

    /// Our own election address is another one from now on.
    pub fn set_address(&mut self, address: ElectionAddress) {
        self.greeting = greeting(self.me, address);
    }

    /// Whom to dial where: the committed configuration decides, the pending one adds servers.
    pub fn set_configs(&mut self, configs: &EnsembleConfigs) {
        let before = std::mem::take(&mut self.members);
        let both = configs.last_seen.members.iter().chain(&configs.committed.members);
        for (sid, member) in both.filter(|(sid, _)| **sid != self.me) {
            let addresses = member.addresses.iter().map(|address| ElectionAddress {
                host: address.host.clone(),
                port: address.election_port,
            });
            self.members.insert(*sid, addresses.collect());
        }
        // Where a server has moved, or was none of the members for a while, it is not found at the
        // address that it once came with.
        for (sid, addresses) in &self.members {
            if let Some(peer) = self.peers.get_mut(sid)
                && before.get(sid) != Some(addresses)
            {
                peer.addresses.clear();
            }
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// When [`Links::on_timeout`] is to be called.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let greetings = self.links.values().filter_map(|link| match link.phase {
            Phase::Greeting { deadline } => Some(deadline),
            Phase::Live { .. } => None,
        });
        greetings.chain(self.peers.values().filter_map(|peer| peer.retry_at)).min()
    }

    /// Whether there is a connection to a server.
    #[must_use]
    pub fn is_connected(&self, sid: ServerId) -> bool {
        self.peers.get(&sid).is_some_and(|peer| peer.live.is_some())
    }

    /// Sends a notification with its length; without a connection one is made first.
    pub fn send(&mut self, to: ServerId, frame: Bytes) {
        if to == self.me || !(self.members.contains_key(&to) || self.peers.contains_key(&to)) {
            return;
        }
        self.peers.entry(to).or_default().waiting = Some(frame);
        self.maybe_write(to);
        self.maybe_dial(to);
    }

    /// A connection was accepted.
    pub fn on_accepted(&mut self, now: Instant, link: LinkId) {
        let is_greeting = |link: &Link| matches!(link.phase, Phase::Greeting { .. });
        let mut greeting = self.links.iter().filter(|(_, link)| is_greeting(link));
        let oldest = greeting.next().map(|(link, _)| *link);
        if ELECTION_GREETINGS_MAX <= greeting.count() + 1 {
            oldest.into_iter().for_each(|oldest| self.close(oldest));
        }
        let phase = Phase::Greeting { deadline: now + ELECTION_GREETING_WITHIN };
        self.links.insert(link, Link { stream: ElectionStream::default(), phase });
    }

    /// A dial has brought a connection.
    pub fn on_dialled(&mut self, now: Instant, sid: ServerId, link: LinkId) {
        let me = self.me;
        let greeting = self.greeting.clone();
        let Some(peer) = self.peers.get_mut(&sid) else {
            self.outputs.push_back(LinkOutput::Close { link });
            return;
        };
        peer.is_dialling = false;
        if me < sid && peer.live.is_some() {
            // It was faster. Our greeting would end the connection that it has brought.
            self.outputs.push_back(LinkOutput::Close { link });
            return;
        }
        if me < sid {
            self.outputs.push_back(LinkOutput::WriteAndClose { link, bytes: greeting });
            peer.await_dial_back(now);
            return;
        }
        self.install(sid, link, ElectionStream::default(), true);
        self.outputs.push_back(LinkOutput::Write { link, bytes: greeting });
    }

    /// A dial has brought nothing.
    pub fn on_dial_failed(&mut self, now: Instant, sid: ServerId) {
        let is_member = self.members.contains_key(&sid);
        let Some(peer) = self.peers.get_mut(&sid) else { return };
        peer.is_dialling = false;
        if peer.live.is_none() {
            peer.retry_later(now);
        }
        if !is_member && peer.live.is_none() {
            self.peers.remove(&sid);
        }
    }

    /// Bytes have arrived.
    pub fn on_bytes(&mut self, now: Instant, link: LinkId, chunk: Bytes) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.stream.push(chunk);
        if let Phase::Greeting { .. } = state.phase {
            match state.stream.next_initial() {
                Ok(None) => return,
                Ok(Some(initial)) => self.on_initial(link, initial),
                Err(_) => return self.close(link),
            }
        }
        self.take_frames(now, link);
    }

    /// A write has completed.
    pub fn on_written(&mut self, link: LinkId) {
        let Some(Link { phase: Phase::Live { sid, is_writing }, .. }) = self.links.get_mut(&link)
        else {
            return;
        };
        *is_writing = false;
        let sid = *sid;
        self.maybe_write(sid);
    }

    /// A connection has ended, or failed.
    pub fn on_closed(&mut self, now: Instant, link: LinkId) {
        if let Some(Link { phase: Phase::Live { sid, .. }, .. }) = self.links.remove(&link) {
            self.lose(now, sid);
        }
    }

    /// A message of this server was damaged on its way. What a member said last comes again over
    /// another connection: whether there will be one. Where every message is damaged, that is tried
    /// once a second.
    pub fn on_damaged(&mut self, now: Instant, sid: ServerId) -> bool {
        let Some(peer) = self.peers.get_mut(&sid) else { return false };
        let is_often =
            peer.damaged_at.is_some_and(|at| now.since(at) < ELECTION_DIAL_RETRY_AFTER_MAX);
        let Some(link) = peer.live.filter(|_| !is_often) else { return false };
        peer.damaged_at = Some(now);
        self.close(link);
        self.lose(now, sid);
        true
    }

    /// A timer has fired.
    pub fn on_timeout(&mut self, now: Instant) {
        let is_late =
            |link: &Link| matches!(link.phase, Phase::Greeting { deadline } if deadline <= now);
        let late: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| is_late(link)).map(|(link, _)| *link).collect();
        late.into_iter().for_each(|link| self.close(link));
        let due =
            self.peers.iter_mut().filter(|(_, peer)| peer.retry_at.is_some_and(|at| at <= now));
        let due: Vec<ServerId> = due
            .map(|(sid, peer)| {
                peer.retry_at = None;
                *sid
            })
            .collect();
        due.into_iter().for_each(|sid| self.maybe_dial(sid));
    }

    /// An accepted connection says who it is.
    fn on_initial(&mut self, link: LinkId, initial: InitialMessage) {
        let mut sid = initial.sid;
        if sid == InitialMessage::NO_SID {
            sid = ServerId(self.next_nameless);
            self.next_nameless -= 1;
        }
        let is_known = self.members.contains_key(&sid) || self.peers.contains_key(&sid);
        if sid == self.me || (!is_known && ELECTION_STRANGERS_MAX <= self.stranger_count()) {
            return self.close(link);
        }
        let peer = self.peers.entry(sid).or_default();
        peer.addresses = initial.addresses;
        peer.heard();
        if self.me < sid {
            let Some(Link { stream, .. }) = self.links.remove(&link) else { return };
            return self.install(sid, link, stream, false);
        }
        // It may still count on a connection that we believe to be up: both start afresh.
        peer.retry_at = None;
        let old = peer.live.take();
        self.close(link);
        if let Some(old) = old {
            self.close(old);
            self.outputs.push_back(LinkOutput::Disconnected(sid));
        }
        self.maybe_dial(sid);
        // A stranger that cannot be dialled back is none to keep.
        let is_dialled = self.peers.get(&sid).is_some_and(|peer| peer.is_dialling);
        if !is_dialled && !self.members.contains_key(&sid) {
            self.peers.remove(&sid);
        }
    }

    fn stranger_count(&self) -> usize {
        self.peers.keys().filter(|sid| !self.members.contains_key(sid)).count()
    }

    /// Makes a connection the one in use; the one before is closed.
    fn install(&mut self, sid: ServerId, link: LinkId, stream: ElectionStream, is_writing: bool) {
        self.links.insert(link, Link { stream, phase: Phase::Live { sid, is_writing } });
        let peer = self.peers.entry(sid).or_default();
        let old = peer.live.replace(link);
        peer.retry_at = None;
        if peer.waiting.is_none() {
            peer.waiting = peer.last.take();
        }
        match old {
            Some(old) => self.close(old),
            None => self.outputs.push_back(LinkOutput::Connected(sid)),
        }
        self.maybe_write(sid);
    }

    fn take_frames(&mut self, now: Instant, link: LinkId) {
        loop {
            let Some(Link { stream, phase: Phase::Live { sid, .. } }) = self.links.get_mut(&link)
            else {
                return;
            };
            let sid = *sid;
            match stream.next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if let Some(peer) = self.peers.get_mut(&sid) {
                        peer.heard();
                    }
                    self.outputs.push_back(LinkOutput::Received { from: sid, frame });
                }
                Err(_) => {
                    self.close(link);
                    return self.lose(now, sid);
                }
            }
        }
    }

    fn close(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.outputs.push_back(LinkOutput::Close { link });
    }

    /// The connection in use is gone. A member's is made again, so that it is there when an
    /// election begins: first by the larger sid, whose connection it is. A dial of the smaller one
    /// that crosses it would end what it brings.
    fn lose(&mut self, now: Instant, sid: ServerId) {
        self.outputs.push_back(LinkOutput::Disconnected(sid));
        if !self.members.contains_key(&sid) {
            self.peers.remove(&sid);
        } else if let Some(peer) = self.peers.get_mut(&sid) {
            peer.live = None;
            match self.me < sid {
                true => peer.await_dial_back(now),
                false => peer.retry_later(now),
            }
        }
    }

    fn maybe_write(&mut self, sid: ServerId) {
        let Some(peer) = self.peers.get_mut(&sid) else { return };
        let Some(link) = peer.live else { return };
        let state = self.links.get_mut(&link).map(|link| &mut link.phase);
        let Some(Phase::Live { is_writing, .. }) = state else { return };
        if *is_writing {
            return;
        }
        if let Some(bytes) = peer.waiting.take() {
            *is_writing = true;
            peer.last = Some(bytes.clone());
            self.outputs.push_back(LinkOutput::Write { link, bytes });
        }
    }

    fn maybe_dial(&mut self, sid: ServerId) {
        let Some(peer) = self.peers.get_mut(&sid) else { return };
        if peer.live.is_some() || peer.is_dialling || peer.retry_at.is_some() {
            return;
        }
        let mut addresses = peer.addresses.clone();
        let configured = self.members.get(&sid).into_iter().flatten();
        addresses.extend(configured.filter(|it| !peer.addresses.contains(it)).cloned());
        let Some(first) = peer.dials.checked_rem(addresses.len()) else { return };
        addresses.rotate_left(first);
        peer.dials += 1;
        peer.is_dialling = true;
        self.outputs.push_back(LinkOutput::Dial { sid, addresses });
    }
}

/// Our initial message.
fn greeting(me: ServerId, address: ElectionAddress) -> Bytes {
    let mut greeting = BytesMut::new();
    InitialMessage { sid: me, addresses: vec![address] }.encode(&mut greeting);
    greeting.freeze()
}

impl Peer {
    /// It is there. That somebody accepts a connection does not say so.
    const fn heard(&mut self) {
        self.dials = 0;
        self.retry_after = ELECTION_DIAL_RETRY_AFTER;
    }

    /// It is larger, and is given time to dial us.
    fn await_dial_back(&mut self, now: Instant) {
        self.retry_after = self.retry_after.max(ELECTION_DIAL_BACK_AFTER);
        self.retry_later(now);
    }

    /// The next dial waits longer than the one before.
    fn retry_later(&mut self, now: Instant) {
        self.retry_at = Some(now + self.retry_after);
        self.retry_after = Duration(2 * self.retry_after.0).min(ELECTION_DIAL_RETRY_AFTER_MAX);
    }
}
