//! Servers far from one another: their connections come to rest, however long dials and messages
//! take.

use std::collections::BTreeMap;

use super::tests::{NOW, World, address, configs, frame};
use super::*;
use crate::base::Prng;

/// Servers far from one another: dials and messages take their time, and nothing is lost but what
/// the test breaks.
struct Far {
    prng: Prng,
    now: Instant,
    servers: Vec<Links>,
    /// Who is at which end of each connection.
    wires: Vec<[Option<usize>; 2]>,
    /// What happens when, in order.
    events: BTreeMap<(Instant, usize), Event>,
    sequence: usize,
    /// When the last thing that was sent to each end arrives: what is sent later comes later.
    arrived: Vec<[Instant; 2]>,
    /// The longest way.
    distance: Duration,
    /// When a connection was last dialled, made or lost.
    changed: Instant,
}

enum Event {
    Accepted { wire: usize, at: usize },
    Dialled { wire: usize, sid: ServerId },
    Bytes { wire: usize, side: usize, bytes: Bytes },
    Written { at: usize, link: LinkId },
    Closed { wire: usize, side: usize },
}

impl Far {
    fn new(seed: u64, count: i64) -> Self {
        let mut prng = Prng::new(seed);
        let all = configs(count);
        Self {
            distance: Duration(1 + prng.below(Duration::from_millis(100).0)),
            prng,
            now: NOW,
            servers: (1..=count).map(|sid| Links::new(ServerId(sid), address(sid), &all)).collect(),
            wires: Vec::new(),
            events: BTreeMap::new(),
            sequence: 0,
            arrived: Vec::new(),
            changed: NOW,
        }
    }

    /// The time from one server to another: half of the longest at least.
    fn way(&mut self) -> Duration {
        let half = self.distance.0 / 2;
        Duration(half + self.prng.below(half + 1))
    }

    fn happens(&mut self, at: Instant, event: Event) {
        self.events.insert((at, self.sequence), event);
        self.sequence += 1;
    }

    /// Something is under way to one end of a connection.
    fn send(&mut self, wire: usize, side: usize, event: Event) {
        let at = (self.now + self.way()).max(self.arrived[wire][side]);
        self.arrived[wire][side] = at;
        self.happens(at, event);
    }

    fn drain(&mut self, at: usize) {
        let place = |link: LinkId| (link.0 as usize / 2, link.0 as usize % 2);
        while let Some(output) = self.servers[at].poll_output() {
            match output {
                LinkOutput::Dial { sid, .. } => {
                    self.changed = self.now;
                    let (wire, to) = (self.wires.len(), World::at(sid));
                    self.wires.push([Some(at), Some(to)]);
                    let there = self.now + self.way();
                    let back = there + self.way();
                    self.arrived.push([back, there]);
                    self.happens(there, Event::Accepted { wire, at: to });
                    self.happens(back, Event::Dialled { wire, sid });
                }
                LinkOutput::Write { link, bytes } => {
                    let (wire, side) = place(link);
                    self.send(wire, 1 - side, Event::Bytes { wire, side: 1 - side, bytes });
                    self.happens(self.now, Event::Written { at, link });
                }
                LinkOutput::WriteAndClose { link, bytes } => {
                    let (wire, side) = place(link);
                    self.send(wire, 1 - side, Event::Bytes { wire, side: 1 - side, bytes });
                    self.close(wire, side);
                }
                LinkOutput::Close { link } => {
                    let (wire, side) = place(link);
                    self.close(wire, side);
                }
                LinkOutput::Connected(_) | LinkOutput::Disconnected(_) => self.changed = self.now,
                LinkOutput::Received { .. } => {}
            }
        }
    }

    fn close(&mut self, wire: usize, side: usize) {
        self.wires[wire][side] = None;
        self.send(wire, 1 - side, Event::Closed { wire, side: 1 - side });
    }

    fn on_event(&mut self, event: Event) {
        let now = self.now;
        let at = match event {
            Event::Accepted { wire, at } => {
                self.servers[at].on_accepted(now, World::end(wire, 1));
                at
            }
            Event::Dialled { wire, sid } => {
                let Some(at) = self.wires[wire][0] else { return };
                self.servers[at].on_dialled(now, sid, World::end(wire, 0));
                at
            }
            Event::Bytes { wire, side, bytes } => {
                let Some(at) = self.wires[wire][side] else { return };
                self.servers[at].on_bytes(now, World::end(wire, side), bytes);
                at
            }
            Event::Written { at, link } => {
                self.servers[at].on_written(link);
                at
            }
            Event::Closed { wire, side } => {
                let Some(at) = self.wires[wire][side].take() else { return };
                self.servers[at].on_closed(now, World::end(wire, side));
                at
            }
        };
        self.drain(at);
    }

    /// Goes on for so long.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let timer = self.servers.iter().filter_map(Links::next_timeout).min();
            let Some(next) = event.into_iter().chain(timer).min().filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            if event == Some(next) {
                let first = self.events.pop_first();
                first.into_iter().for_each(|(_, event)| self.on_event(event));
                continue;
            }
            for at in 0..self.servers.len() {
                self.servers[at].on_timeout(self.now);
                self.drain(at);
            }
        }
    }

    /// All connections break, and both ends of each notice at once.
    fn break_all(&mut self) {
        self.events.retain(|_, event| matches!(event, Event::Dialled { .. }));
        for wire in 0..self.wires.len() {
            for side in 0..2 {
                self.on_event(Event::Closed { wire, side });
            }
        }
    }

    fn is_whole(&self) -> bool {
        let sids = || (0_i64..).zip(&self.servers).map(|(at, links)| (ServerId(at + 1), links));
        sids().all(|(me, links)| sids().all(|(sid, _)| sid == me || links.is_connected(sid)))
    }
}

/// Where a dial takes longer than the first time of waiting, two servers do not end each other's
/// connection for ever.
#[test]
fn connections_come_to_rest_however_far_the_servers_are() {
    for seed in 0..500 {
        let mut far = Far::new(seed, 3);
        for from in 0..3 {
            (1..=3).for_each(|to| far.servers[from].send(ServerId(to), frame("vote")));
            far.drain(from);
        }
        for round in 0..3 {
            let begun = far.now;
            far.run(Duration::from_millis(10_000));
            let (distance, took) = (far.distance, far.changed.since(begun));
            assert!(far.is_whole(), "seed {seed}, round {round}: {distance:?} apart");
            assert!(
                took < Duration::from_millis(2_000),
                "seed {seed}, round {round}: {distance:?} apart, no rest for {took:?}"
            );
            far.break_all();
        }
    }
}
