//! What passes between the servers of an ensemble.

use bytes::{Bytes, BytesMut};

use super::super::plant::Plant;
use super::super::world::Failure;
use super::network::{End, Parcel};
use super::upgrade::Version;
use super::{Event, Member, World, tamper};
use crate::base::Duration;
use crate::server::{DialId, Input, PeerAddress, PeerInput, PeerOutput, PeerPort};

impl World {
    pub(super) fn peer(&mut self, at: usize, input: PeerInput) -> Result<(), Failure> {
        self.step(at, Input::Peer(input))
    }

    pub(super) fn peer_output(&mut self, at: usize, output: PeerOutput) {
        match output {
            PeerOutput::Dial { dial, addresses, .. } => {
                self.after_micros(500, Some(at), Event::Dial(at, dial, addresses));
            }
            PeerOutput::Send { link, bytes } => {
                let end = End { member: at, link };
                let sent = bytes.len();
                let bytes = self.greeting(end, bytes);
                let bytes = match self.plant {
                    // The checksum is that of the damaged packets.
                    Plant::ChecksumIgnored => {
                        let damaged = self.corrupt(end, bytes);
                        self.tamper(end, damaged)
                    }
                    _ => {
                        let sent = self.tamper(end, bytes);
                        self.corrupt(end, sent)
                    }
                };
                if !bytes.is_empty() {
                    self.post(end, Parcel::Bytes(bytes));
                }
                self.after_micros(100, Some(at), Event::Took(end, sent));
            }
            PeerOutput::Close { link } => {
                let end = End { member: at, link };
                self.close(end);
                self.after_micros(300, Some(at), Event::Closed(end));
            }
            // What is on its way arrives all the same.
            PeerOutput::PauseReading { .. } => self.report.pauses += 1,
            PeerOutput::ResumeReading { .. } => {}
            PeerOutput::Listen { addresses } => self.member(at).ports = addresses,
        }
    }

    /// Damages a bit if it is time; only once on a connection, since a damaged greeting may hide
    /// that checksums are understood. What nobody notices is let be: greetings of the election port
    /// and lengths of votes, and what older versions tell each other.
    fn corrupt(&mut self, from: End, bytes: Bytes) -> Bytes {
        let of_votes = self.network.is_of_election(from);
        let port = if of_votes { PeerPort::Election } else { PeerPort::Quorum };
        let is_planted = !of_votes && self.plant == Plant::ChecksumIgnored && self.prng.one_in(100);
        let is_time = self.corrupts == Some(port) || is_planted;
        let is_noticed = if of_votes { tamper::is_vote(&bytes) } else { !bytes.is_empty() };
        if !is_time
            || !is_noticed
            || self.version_between(from) != Version::Checked
            || !self.network.damage(from)
        {
            return bytes;
        }
        self.corrupts = None;
        let mut bytes = BytesMut::from(&*bytes);
        let first = if of_votes { tamper::VOTE_AT } else { 0 };
        let below = self.prng.below((bytes.len() - first) as u64);
        let at = first + usize::try_from(below).unwrap_or_default();
        let bit = self.prng.below(8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        bytes.freeze()
    }

    pub(super) fn post(&mut self, from: End, parcel: Parcel) {
        if let Some(to) = self.network.post(from, parcel) {
            self.arrange(to);
        }
    }

    /// One end is closed; the other hears of it behind what was sent before.
    pub(super) fn close(&mut self, end: End) {
        if let Some(other) = self.network.close(end) {
            self.arrange(other);
        }
    }

    /// Something is on its way to this end.
    fn arrange(&mut self, to: End) {
        let clogged = self.network.clogged_until(to.member);
        let micros = 1 + self.prng.below(300);
        let at = self.now.max(clogged) + Duration::from_micros(micros);
        self.at(at, Some(to.member), Event::Arrives(to));
    }

    pub(super) fn dial(
        &mut self,
        at: usize,
        dial: DialId,
        addresses: &[PeerAddress],
    ) -> Result<(), Failure> {
        let mut found = Vec::new();
        for address in addresses {
            let to = address.host.strip_prefix('s').and_then(|host| host.parse::<usize>().ok());
            let Some((to, member)) = to.and_then(|to| Some((to, self.members.get(to)?))) else {
                return Err(Failure::new(format!("server {at} dials {addresses:?}")));
            };
            found.push((to, member.server.as_ref().and_then(|_| member.port(address.port))));
        }
        let is_cut = |to: usize| self.network.is_cut(at, to) || self.network.is_cut(to, at);
        let open = found.iter().find(|(to, port)| port.is_some() && !is_cut(*to));
        let Some((to, Some(port))) = open.copied() else {
            if found.into_iter().any(|(to, _)| is_cut(to)) {
                // Nobody answers; the dial ends when the system gives up.
                let until = self.now + Duration::from_millis(1_000);
                self.at(until, Some(at), Event::Dial(at, dial, addresses.to_vec()));
                return Ok(());
            }
            return self.peer(at, PeerInput::DialFailed { dial });
        };
        let (near, far) = self.network.connect(at, to, port);
        // The system accepts also for a process that is stopped.
        self.at(self.now, Some(to), Event::Accepted(far, port));
        self.peer(at, PeerInput::Dialled { dial, link: near.link })
    }

    pub(super) fn arrives(&mut self, end: End) -> Result<(), Failure> {
        match self.network.arrive(end) {
            // It is sent again until it comes through.
            Err(()) => {
                self.after_micros(20_000, Some(end.member), Event::Arrives(end));
                Ok(())
            }
            Ok(None) => Ok(()),
            Ok(Some(Parcel::Bytes(bytes))) => {
                self.peer(end.member, PeerInput::Received { link: end.link, bytes })
            }
            Ok(Some(Parcel::Close)) => {
                self.network.forget(end);
                self.peer(end.member, PeerInput::Closed { link: end.link })
            }
        }
    }
}

impl Member {
    /// What listens at a port of this server.
    fn port(&self, number: u16) -> Option<PeerPort> {
        self.ports.iter().find_map(|address| match number {
            _ if number == address.quorum_port => Some(PeerPort::Quorum),
            _ if number == address.election_port => Some(PeerPort::Election),
            _ => None,
        })
    }
}
