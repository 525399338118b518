//! The clients of an ensemble, which go from server to server.

use std::net::SocketAddr;

use bytes::Bytes;

use super::super::world::Failure;
use super::servers::last_txn;
use super::{CLIENTS, Event, World};
use crate::base::Duration;
use crate::model::{ConnId, ShardId};
use crate::server::Input;

impl World {
    /// A message on a stream: behind everything sent before on the same stream.
    pub(super) fn stream(&mut self, conn: ConnId, to_server: bool, event: Event) {
        let earliest = self.streams.get(&(conn, to_server)).copied().unwrap_or_default();
        let at = self.now + Duration::from_micros(1 + self.prng.below(300));
        let at = at.max(earliest);
        self.streams.insert((conn, to_server), at);
        self.at(at, None, event);
    }

    pub(super) fn act(&mut self, number: usize) -> Result<(), Failure> {
        if self.healed && self.prng.one_in(60) {
            // It stops, so that the ensemble can settle.
            return Ok(());
        }
        self.after_micros(8_000, None, Event::Act(number));
        let Some(conn) = self.client(number).conn else { return self.connect(number) };
        let Some((member, _)) = self.conns.get(&conn).copied() else { return Ok(()) };
        self.history.seen = self.member(member).seen;
        let Self { clients, prng, history, .. } = self;
        let bytes = clients.get_mut(number).and_then(|it| it.act(prng, CLIENTS, history));
        if let Some(bytes) = bytes {
            self.send(conn, &bytes);
        }
        Ok(())
    }

    pub(super) fn connect(&mut self, number: usize) -> Result<(), Failure> {
        let member = self.any_member();
        let now = self.now;
        let there = self.member(member);
        if there.server.is_none() || now < there.paused_until {
            return Ok(());
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let reads = self.reads_without_quorum && self.prng.one_in(2);
        let hello = self.plant.tamper_hello(self.client(number).connect_for(conn, reads));
        self.conns.insert(conn, (member, number));
        let shards = u64::from(self.member(member).shards.count()) + 1;
        let home = ShardId(u16::try_from(self.prng.below(shards)).unwrap_or_default());
        self.member(member).homes.insert(conn, home);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1000));
        self.conn_input(member, conn, Input::Opened { conn, peer })?;
        self.send(conn, &hello);
        Ok(())
    }

    /// The network cuts the stream where it likes.
    pub(super) fn send(&mut self, conn: ConnId, bytes: &Bytes) {
        let cut = usize::try_from(self.prng.below(bytes.len() as u64)).unwrap_or_default();
        for part in [bytes.slice(..cut), bytes.slice(cut..)] {
            if !part.is_empty() {
                self.stream(conn, true, Event::ToServer(conn, part));
            }
        }
    }

    /// Bytes of a client arrive at its server.
    pub(super) fn received(&mut self, conn: ConnId, bytes: Bytes) -> Result<(), Failure> {
        match self.conns.get(&conn).copied() {
            Some((member, _)) => self.conn_input(member, conn, Input::Received { conn, bytes }),
            None => Ok(()),
        }
    }

    /// Bytes of a server arrive at a client.
    pub(super) fn receive(&mut self, conn: ConnId, bytes: Bytes) -> Result<(), Failure> {
        let Some((member, client)) = self.conns.get(&conn).copied() else { return Ok(()) };
        let Self { clients, history, members, before_epochs, .. } = self;
        let (Some(client), Some(member)) = (clients.get_mut(client), members.get_mut(member))
        else {
            return Ok(());
        };
        history.seen = member.seen;
        client.receive(bytes, history, |zxid| last_txn(before_epochs, zxid))?;
        member.seen = history.seen;
        Ok(())
    }

    /// A client's connection is gone; both ends are told.
    pub(super) fn client_closed(&mut self, conn: ConnId) -> Result<(), Failure> {
        let Some((member, client)) = self.conns.remove(&conn) else { return Ok(()) };
        self.client(client).disconnected();
        self.conn_input(member, conn, Input::Closed { conn })
    }
}
