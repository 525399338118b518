//! Who keeps which connection, and that messages arrive whatever breaks.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::base::Prng;
use crate::model::{EnsembleConfig, LearnerType, Member, ServerAddress};

pub(super) const NOW: Instant = Instant(1_000_000_000);

pub(super) fn configs(count: i64) -> EnsembleConfigs {
    let member = |sid| Member {
        addresses: vec![ServerAddress {
            host: "127.0.0.1".into(),
            quorum_port: 1,
            election_port: port(sid),
        }],
        learner_type: LearnerType::Participant,
        client: None,
        secure_client: None,
    };
    let members = (1..=count).map(|sid| (ServerId(sid), member(sid))).collect();
    EnsembleConfigs::settled(EnsembleConfig { members, ..Default::default() })
}

fn port(sid: i64) -> u16 {
    3000 + u16::try_from(sid).expect("few servers")
}

pub(super) fn address(sid: i64) -> ElectionAddress {
    ElectionAddress { host: "127.0.0.1".into(), port: port(sid) }
}

/// Server 2 of three.
fn links() -> Links {
    Links::new(ServerId(2), address(2), &configs(3))
}

fn outputs(links: &mut Links) -> Vec<LinkOutput> {
    std::iter::from_fn(|| links.poll_output()).collect()
}

fn greeting(sid: i64) -> Bytes {
    let mut buf = BytesMut::new();
    let addresses = vec![address(77)];
    InitialMessage { sid: ServerId(sid), addresses }.encode(&mut buf);
    buf.freeze()
}

pub(super) fn frame(text: &str) -> Bytes {
    let mut frame = BytesMut::from(&u32::try_from(text.len()).expect("short").to_be_bytes()[..]);
    frame.extend_from_slice(text.as_bytes());
    frame.freeze()
}

fn dial(sid: i64, port: u16) -> LinkOutput {
    dial_one_of(sid, [port])
}

fn dial_one_of<const N: usize>(sid: i64, ports: [u16; N]) -> LinkOutput {
    let address = |port| ElectionAddress { host: "127.0.0.1".into(), port };
    LinkOutput::Dial { sid: ServerId(sid), addresses: ports.map(address).into() }
}

fn write(link: u64, bytes: Bytes) -> LinkOutput {
    LinkOutput::Write { link: LinkId(link), bytes }
}

fn close(link: u64) -> LinkOutput {
    LinkOutput::Close { link: LinkId(link) }
}

/// A connection from server 3, greeted.
fn connected_to_3() -> Links {
    let mut links = links();
    links.on_accepted(NOW, LinkId(1));
    links.on_bytes(NOW, LinkId(1), greeting(3));
    assert_eq!(outputs(&mut links), [LinkOutput::Connected(ServerId(3))]);
    links
}

/// 1.2, dialler, larger: kept; the greeting goes first, then what waits.
#[test]
fn a_dialled_smaller_server_is_kept() {
    let mut links = links();
    links.send(ServerId(1), frame("vote"));
    assert_eq!(outputs(&mut links), [dial(1, 3001)]);
    links.on_dialled(NOW, ServerId(1), LinkId(5));
    let greeting = links.greeting.clone();
    assert_eq!(outputs(&mut links), [LinkOutput::Connected(ServerId(1)), write(5, greeting)]);
    links.on_written(LinkId(5));
    assert_eq!(outputs(&mut links), [write(5, frame("vote"))]);
}

/// 1.2, dialler, smaller: the greeting, then closed; we are dialled back, else we try again.
#[test]
fn a_dialled_larger_server_dials_back() {
    let mut links = links();
    links.send(ServerId(3), frame("vote"));
    assert_eq!(outputs(&mut links), [dial(3, 3003)]);
    links.on_dialled(NOW, ServerId(3), LinkId(5));
    let bytes = links.greeting.clone();
    assert_eq!(outputs(&mut links), [LinkOutput::WriteAndClose { link: LinkId(5), bytes }]);
    links.send(ServerId(3), frame("newer"));
    assert_eq!(outputs(&mut links), [], "it has time to dial back");
    assert_eq!(links.next_timeout(), Some(NOW + ELECTION_DIAL_BACK_AFTER));
    links.on_accepted(NOW, LinkId(6));
    links.on_bytes(NOW, LinkId(6), greeting(3));
    assert_eq!(outputs(&mut links), [LinkOutput::Connected(ServerId(3)), write(6, frame("newer"))]);
    assert_eq!(links.next_timeout(), None);
}

/// A dial that ends when the larger one has dialled us does no harm to what that has brought.
#[test]
fn a_dial_that_was_overtaken_says_nothing() {
    let mut links = links();
    links.send(ServerId(3), frame("vote"));
    links.on_accepted(NOW, LinkId(1));
    links.on_bytes(NOW, LinkId(1), greeting(3));
    outputs(&mut links);
    links.on_dialled(NOW, ServerId(3), LinkId(5));
    assert_eq!(outputs(&mut links), [close(5)]);
    assert!(links.is_connected(ServerId(3)));
    assert_eq!(links.next_timeout(), None);
}

/// A lost connection is made again by the larger one at once, and by the smaller one only if that
/// does not come.
#[test]
fn a_lost_connection_is_dialled_by_the_larger_one_first() {
    let mut links = connected_to_3();
    links.send(ServerId(1), frame("vote"));
    links.on_dialled(NOW, ServerId(1), LinkId(2));
    links.on_bytes(NOW, LinkId(2), frame("vote"));
    links.on_closed(NOW, LinkId(1));
    links.on_closed(NOW, LinkId(2));
    outputs(&mut links);
    links.on_timeout(NOW + ELECTION_DIAL_RETRY_AFTER);
    assert_eq!(outputs(&mut links), [dial(1, port(1))]);
    links.send(ServerId(3), frame("vote"));
    assert_eq!(outputs(&mut links), [], "it has time to dial");
    links.on_timeout(NOW + ELECTION_DIAL_BACK_AFTER);
    assert_eq!(outputs(&mut links), [dial_one_of(3, [port(77), port(3)])]);
}

/// A server that was removed and is added elsewhere is dialled there, not where it once said.
#[test]
fn who_comes_again_elsewhere_is_found() {
    let mut links = links();
    links.on_accepted(NOW, LinkId(1));
    links.on_bytes(NOW, LinkId(1), greeting(1));
    assert_eq!(outputs(&mut links), [close(1), dial_one_of(1, [port(77), port(1)])]);
    links.on_dial_failed(NOW, ServerId(1));
    let mut others = configs(3);
    others.committed.members.remove(&ServerId(1));
    links.set_configs(&EnsembleConfigs::settled(others.committed));
    links.set_configs(&configs(3));
    links.send(ServerId(1), frame("vote"));
    links.on_timeout(NOW + ELECTION_DIAL_RETRY_AFTER_MAX);
    assert_eq!(outputs(&mut links), [dial(1, port(1))]);
}

/// A server moves behind the connection on which it said where it is: it is not looked for only
/// there.
#[test]
fn who_said_where_it_was_is_found_where_it_is() {
    let mut links = connected_to_3();
    links.on_closed(NOW, LinkId(1));
    outputs(&mut links);
    let (said, configured) = (port(77), port(3));
    for ports in [[said, configured], [configured, said], [said, configured]] {
        links.on_timeout(NOW + ELECTION_DIAL_RETRY_AFTER_MAX);
        assert_eq!(outputs(&mut links), [dial_one_of(3, ports)]);
        links.on_dial_failed(NOW, ServerId(3));
    }
}

/// Somebody else listens where a server said that it was, and lets it go at once.
#[test]
fn a_wrong_listener_does_not_hide_the_configured_address() {
    let mut links = links();
    links.on_accepted(NOW, LinkId(1));
    links.on_bytes(NOW, LinkId(1), greeting(1));
    let (said, configured) = (port(77), port(1));
    assert_eq!(outputs(&mut links), [close(1), dial_one_of(1, [said, configured])]);
    links.on_dialled(NOW, ServerId(1), LinkId(2));
    links.on_closed(NOW, LinkId(2));
    outputs(&mut links);
    links.on_timeout(NOW + ELECTION_DIAL_RETRY_AFTER_MAX);
    assert_eq!(outputs(&mut links), [dial_one_of(1, [configured, said])]);
    links.on_dialled(NOW, ServerId(1), LinkId(3));
    links.on_bytes(NOW, LinkId(3), frame("vote"));
    links.on_closed(NOW, LinkId(3));
    outputs(&mut links);
    links.on_timeout(NOW + ELECTION_DIAL_RETRY_AFTER_MAX);
    assert_eq!(outputs(&mut links), [dial_one_of(1, [said, configured])], "it was heard of");
}

/// 1.2, acceptor, larger: what there was and the new connection are closed, and it is dialled where
/// it says, or as configured.
#[test]
fn a_smaller_server_that_dials_is_dialled_back() {
    let mut links = links();
    links.send(ServerId(1), frame("vote"));
    links.on_dialled(NOW, ServerId(1), LinkId(5));
    outputs(&mut links);
    links.on_accepted(NOW, LinkId(6));
    links.on_bytes(NOW, LinkId(6), greeting(1));
    assert_eq!(
        outputs(&mut links),
        [close(6), close(5), LinkOutput::Disconnected(ServerId(1)), dial_one_of(1, [3077, 3001])]
    );
    let mut links = self::links();
    links.on_accepted(NOW, LinkId(6));
    links.on_bytes(NOW, LinkId(6), Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(outputs(&mut links), [close(6), dial(1, 3001)]);
}

/// 1.2, acceptor, smaller: kept, in place of the one before.
#[test]
fn a_larger_server_that_dials_is_kept() {
    let mut links = connected_to_3();
    links.on_accepted(NOW, LinkId(2));
    links.on_bytes(NOW, LinkId(2), greeting(3));
    assert_eq!(outputs(&mut links), [close(1)]);
    links.send(ServerId(3), frame("vote"));
    assert_eq!(outputs(&mut links), [write(2, frame("vote"))]);
}

/// 1.2: our own sid is never used.
#[test]
fn our_own_sid_is_refused() {
    let mut links = links();
    links.on_accepted(NOW, LinkId(1));
    links.on_bytes(NOW, LinkId(1), greeting(2));
    assert_eq!(outputs(&mut links), [close(1)]);
}

/// 1.1: observers without a sid get negative ones, which are smaller than any.
#[test]
fn nameless_observers_get_sids_of_their_own() {
    let mut links = links();
    for link in [1, 2] {
        links.on_accepted(NOW, LinkId(link));
        links.on_bytes(NOW, LinkId(link), greeting(i64::MAX));
    }
    assert_eq!(outputs(&mut links), [close(1), dial(-1, 3077), close(2), dial(-2, 3077)]);
    links.on_dial_failed(NOW, ServerId(-1));
    assert!(!links.peers.contains_key(&ServerId(-1)), "and are forgotten");
}

/// 1.3: at most one message waits, the newest.
#[test]
fn a_newer_message_takes_the_place_of_one_that_waits() {
    let mut links = connected_to_3();
    for text in ["one", "two", "three"] {
        links.send(ServerId(3), frame(text));
    }
    assert_eq!(outputs(&mut links), [write(1, frame("one"))]);
    links.on_written(LinkId(1));
    assert_eq!(outputs(&mut links), [write(1, frame("three"))]);
    links.on_written(LinkId(1));
    assert_eq!(outputs(&mut links), []);
}

/// 1.3: the last message goes again over a new connection, unless a newer one waits.
#[test]
fn the_last_message_is_sent_again() {
    for newer in [None, Some("newer")] {
        let mut links = connected_to_3();
        links.send(ServerId(3), frame("last"));
        links.on_written(LinkId(1));
        links.on_closed(NOW, LinkId(1));
        newer.into_iter().for_each(|text| links.send(ServerId(3), frame(text)));
        outputs(&mut links);
        links.on_accepted(NOW, LinkId(2));
        links.on_bytes(NOW, LinkId(2), greeting(3));
        let expected = frame(newer.unwrap_or("last"));
        assert!(outputs(&mut links).contains(&write(2, expected)));
    }
}

/// A dial that is refused is repeated, ever more rarely.
#[test]
fn refused_dials_are_repeated_ever_more_rarely() {
    let mut links = links();
    links.send(ServerId(1), frame("vote"));
    let mut now = NOW;
    let mut after = ELECTION_DIAL_RETRY_AFTER;
    for _ in 0..15 {
        assert_eq!(outputs(&mut links), [dial(1, 3001)]);
        links.on_dial_failed(now, ServerId(1));
        assert_eq!(links.next_timeout(), Some(now + after));
        now = now + after;
        links.on_timeout(now);
        after = Duration(2 * after.0).min(ELECTION_DIAL_RETRY_AFTER_MAX);
    }
    assert_eq!(after, ELECTION_DIAL_RETRY_AFTER_MAX);
}

/// Garbage ends one connection, before and after the greeting.
#[test]
fn garbage_harms_only_its_own_connection() {
    let mut links = connected_to_3();
    links.on_accepted(NOW, LinkId(2));
    links.on_bytes(NOW, LinkId(2), Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"));
    assert!(links.is_connected(ServerId(3)));
    outputs(&mut links);
    links.on_accepted(NOW, LinkId(3));
    links.on_bytes(NOW, LinkId(3), Bytes::from_static(&[0xff; 64]));
    assert_eq!(outputs(&mut links), [close(3)]);
    links.on_bytes(NOW, LinkId(1), [&frame("vote")[..], &[0xff; 4]].concat().into());
    let expected = LinkOutput::Received { from: ServerId(3), frame: Bytes::from_static(b"vote") };
    assert_eq!(outputs(&mut links), [expected, close(1), LinkOutput::Disconnected(ServerId(3))]);
}

/// It may have been said only once.
#[test]
fn what_was_damaged_on_its_way_is_asked_for_by_another_connection() {
    let mut links = connected_to_3();
    links.send(ServerId(3), frame("vote"));
    assert_eq!(outputs(&mut links), [write(1, frame("vote"))]);
    links.on_written(LinkId(1));
    assert!(links.on_damaged(NOW, ServerId(3)));
    assert_eq!(outputs(&mut links), [close(1), LinkOutput::Disconnected(ServerId(3))]);
    links.on_accepted(NOW, LinkId(2));
    links.on_bytes(NOW, LinkId(2), greeting(3));
    let again = [LinkOutput::Connected(ServerId(3)), write(2, frame("vote"))];
    assert_eq!(outputs(&mut links), again, "so does the other side");
    let soon = NOW + Duration(ELECTION_DIAL_RETRY_AFTER_MAX.0 - 1);
    for (at, sid) in [(soon, 3), (NOW, 9)] {
        assert!(!links.on_damaged(at, ServerId(sid)));
        assert_eq!(outputs(&mut links), [], "server {sid}");
    }
    assert!(links.on_damaged(NOW + ELECTION_DIAL_RETRY_AFTER_MAX, ServerId(3)));
}

/// Connections that say nothing are bounded in number and time.
#[test]
fn silent_connections_are_bounded() {
    let mut links = links();
    for link in 0..1_000 {
        links.on_accepted(NOW, LinkId(link));
    }
    assert!(links.links.len() <= ELECTION_GREETINGS_MAX);
    let closed = outputs(&mut links).len();
    assert_eq!(closed, 1_000 - links.links.len());
    assert!(links.links.contains_key(&LinkId(999)), "the newest stays");
    links.on_timeout(NOW + ELECTION_GREETING_WITHIN);
    assert!(links.links.is_empty());
}

/// Servers of no configuration are bounded, members are not among them.
#[test]
fn strangers_are_bounded() {
    let mut links = links();
    for sid in 100..1_000u64 {
        links.on_accepted(NOW, LinkId(sid));
        links.on_bytes(NOW, LinkId(sid), greeting(i64::try_from(sid).expect("small")));
    }
    assert_eq!(links.peers.len(), ELECTION_STRANGERS_MAX);
    links.on_accepted(NOW, LinkId(1));
    links.on_bytes(NOW, LinkId(1), greeting(3));
    assert!(links.is_connected(ServerId(3)));
    links.on_closed(NOW, LinkId(100));
    assert_eq!(links.peers.len(), ELECTION_STRANGERS_MAX);
}

/// Smaller ones are dialled back; who says no address cannot be.
#[test]
fn strangers_without_an_address_are_not_kept() {
    let mut links = Links::new(ServerId(500), address(500), &configs(3));
    for sid in 100..300i64 {
        let bytes = Bytes::copy_from_slice(&sid.to_be_bytes());
        links.on_accepted(NOW, LinkId(sid.cast_unsigned()));
        links.on_bytes(NOW, LinkId(sid.cast_unsigned()), bytes);
    }
    assert_eq!(links.peers.keys().filter(|sid| 100 <= sid.0).count(), 0);
}

/// Servers and the connections between them; bytes arrive in pieces, connections break.
pub(super) struct World {
    prng: Prng,
    now: Instant,
    servers: Vec<Links>,
    /// Both ends of each connection, who is at which, and what is on its way to each.
    wires: Vec<Wire>,
    dials: VecDeque<(usize, ServerId)>,
    received: Vec<Vec<Option<Bytes>>>,
    is_healed: bool,
}

struct Wire {
    ends: [Option<usize>; 2],
    on_the_way: [VecDeque<Bytes>; 2],
}

impl World {
    fn new(seed: u64, count: usize) -> Self {
        let voters = i64::try_from(count).expect("few servers");
        let all = configs(voters);
        let server = |sid| Links::new(ServerId(sid), address(sid), &all);
        Self {
            prng: Prng::new(seed),
            now: NOW,
            servers: (1..=voters).map(server).collect(),
            wires: Vec::new(),
            dials: VecDeque::new(),
            received: vec![vec![None; count]; count],
            is_healed: false,
        }
    }

    pub(super) fn at(sid: ServerId) -> usize {
        usize::try_from(sid.0 - 1).expect("a member")
    }

    /// A connection's two ends are called 2n and 2n + 1.
    pub(super) fn end(wire: usize, side: usize) -> LinkId {
        LinkId(2 * wire as u64 + side as u64)
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.servers[at].poll_output() {
            match output {
                LinkOutput::Dial { sid, addresses } => {
                    assert_eq!(addresses, [address(sid.0)]);
                    self.dials.push_back((at, sid));
                }
                LinkOutput::Write { link, bytes } => self.write(link, bytes, false),
                LinkOutput::WriteAndClose { link, bytes } => self.write(link, bytes, true),
                LinkOutput::Close { link } => {
                    self.wires[link.0 as usize / 2].ends[link.0 as usize % 2] = None
                }
                LinkOutput::Connected(_) | LinkOutput::Disconnected(_) => {}
                LinkOutput::Received { from, frame } => {
                    self.received[at][Self::at(from)] = Some(frame);
                }
            }
        }
    }

    fn write(&mut self, link: LinkId, bytes: Bytes, closes: bool) {
        let (wire, side) = (link.0 as usize / 2, link.0 as usize % 2);
        let cut = self.prng.below(bytes.len() as u64 + 1) as usize;
        let other = &mut self.wires[wire].on_the_way[1 - side];
        other.extend([bytes.slice(..cut), bytes.slice(cut..)]);
        if closes {
            self.wires[wire].ends[side] = None;
        }
    }

    /// One thing happens somewhere.
    fn step(&mut self) {
        let wire = self.prng.below(self.wires.len() as u64 + 1) as usize;
        match self.prng.below(4) {
            0 => self.finish_dial(),
            1 if self.is_quiet() || (!self.is_healed && self.prng.one_in(10)) => self.fire_timer(),
            1 | 2 if wire < self.wires.len() => self.deliver(wire),
            _ if !self.is_healed && self.prng.one_in(10) && wire < self.wires.len() => {
                self.wires[wire].on_the_way.iter_mut().for_each(VecDeque::clear);
                let ends = std::mem::take(&mut self.wires[wire].ends);
                (0..2).for_each(|side| self.tell_closed(wire, side, ends[side]));
            }
            _ => {
                for at in 0..self.servers.len() {
                    self.acknowledge_writes(at);
                }
            }
        }
    }

    fn finish_dial(&mut self) {
        let Some((from, sid)) = self.dials.pop_front() else { return };
        if !self.is_healed && self.prng.one_in(3) {
            self.servers[from].on_dial_failed(self.now, sid);
            return self.drain(from);
        }
        let to = Self::at(sid);
        let wire = self.wires.len();
        self.wires.push(Wire { ends: [Some(from), Some(to)], on_the_way: Default::default() });
        self.servers[to].on_accepted(self.now, Self::end(wire, 1));
        self.servers[from].on_dialled(self.now, sid, Self::end(wire, 0));
        self.drain(to);
        self.drain(from);
    }

    fn deliver(&mut self, wire: usize) {
        for side in 0..2 {
            let Some(at) = self.wires[wire].ends[side] else { continue };
            if let Some(bytes) = self.wires[wire].on_the_way[side].pop_front() {
                self.servers[at].on_bytes(self.now, Self::end(wire, side), bytes);
                self.drain(at);
            } else if self.wires[wire].ends[1 - side].is_none() {
                self.wires[wire].ends[side] = None;
                self.tell_closed(wire, side, Some(at));
            }
        }
    }

    fn tell_closed(&mut self, wire: usize, side: usize, at: Option<usize>) {
        let Some(at) = at else { return };
        self.servers[at].on_closed(self.now, Self::end(wire, side));
        self.drain(at);
    }

    fn acknowledge_writes(&mut self, at: usize) {
        let writing = self.servers[at].links.iter().filter_map(|(link, state)| match state.phase {
            Phase::Live { is_writing: true, .. } => Some(*link),
            _ => None,
        });
        for link in writing.collect::<Vec<_>>() {
            self.servers[at].on_written(link);
        }
        self.drain(at);
    }

    fn fire_timer(&mut self) {
        let timers = self.servers.iter().filter_map(Links::next_timeout);
        let Some(next) = timers.min() else { return };
        self.now = self.now.max(next);
        for at in 0..self.servers.len() {
            self.servers[at].on_timeout(self.now);
            self.drain(at);
        }
    }

    /// Nothing is on its way: without faults, timers are longer than anything else takes.
    fn is_quiet(&self) -> bool {
        let rests = |wire: &Wire| {
            (0..2).all(|side| {
                let is_heard = wire.on_the_way[side].is_empty() && wire.ends[1 - side].is_some();
                wire.ends[side].is_none() || is_heard
            })
        };
        self.dials.is_empty() && self.wires.iter().all(rests)
    }

    fn send_to_all(&mut self, text: &str) {
        for from in 0..self.servers.len() {
            for to in 0..self.servers.len() {
                let text = format!("{text} of {from}");
                let to = ServerId(i64::try_from(to + 1).expect("few servers"));
                self.servers[from].send(to, frame(&text));
            }
            self.drain(from);
        }
    }

    /// Everybody has everybody's last message, over one connection for each pair that the larger
    /// sid has dialled.
    fn is_settled(&self, text: &str) -> bool {
        let count = self.servers.len();
        let mut pairs = BTreeSet::new();
        for wire in self.wires.iter().filter(|wire| wire.ends.iter().any(Option::is_some)) {
            let [Some(from), Some(to)] = wire.ends else { return false };
            if from < to || !pairs.insert((from, to)) {
                return false;
            }
        }
        let has_all = |to: usize| {
            (0..count).filter(|from| *from != to).all(|from| {
                let expected = format!("{text} of {from}");
                self.received[to][from].as_deref() == Some(expected.as_bytes())
            })
        };
        pairs.len() == count * (count - 1) / 2 && (0..count).all(has_all)
    }
}

#[test]
fn every_pair_ends_with_one_connection_and_the_last_message() {
    for seed in 0..200 {
        for count in [2, 3, 5] {
            let mut world = World::new(seed, count);
            for round in 0..10 {
                world.send_to_all(&format!("message {round}"));
                (0..100).for_each(|_| world.step());
            }
            world.is_healed = true;
            world.send_to_all("last message");
            let mut steps = 0;
            while !world.is_settled("last message") {
                steps += 1;
                assert!(steps < 100_000, "seed {seed}, {count} servers");
                world.step();
            }
        }
    }
}
