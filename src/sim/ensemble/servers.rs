//! The servers of an ensemble: their starts and ends, their turns, what they ask for.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::client::Client;
use super::super::disk::Crash;
use super::super::history;
use super::super::plant::Plant;
use super::super::shards::Shards;
use super::super::world::{Failure, SATELLITES_MAX, options_of};
use super::faults::Fault;
use super::membership::sid_of;
use super::upgrade::Version;
use super::{Event, HEARTBEAT, Member, READS_AFTER, World};
use crate::base::{Duration, FileFailure, FileOp, FileOpId, FilePart};
use crate::config::Ensemble;
use crate::model::{ClientAddress, ConnId, ExtendedTypes, Member as ConfigMember, ShardId, Zxid};
use crate::server::epochs::Epochs;
use crate::server::recent::RecentTxns;
use crate::server::recovery::{Recovered, Recovery, Refusal};
use crate::server::{
    EnsembleOptions, HistorySlices, Input, Machine, Output, Published, Server, ServerOptions,
};
use crate::tree::TreeOptions;
use crate::wire::vote::ElectionAddress;
use crate::zab::synchronization::History;

impl World {
    pub(super) fn start(&mut self, at: usize) -> Result<(), Failure> {
        if self.member(at).server.is_some() || self.member(at).is_dead {
            return Ok(());
        }
        let Some(mut told) = self.told_by_files(at)? else { return Ok(()) };
        let own = told.own().clone();
        self.misread(&mut told);
        let mut found = self.recover(at, None)?;
        if let Some(end) = self.end_forgotten(at)
            && let Ok(shorter) = self.recover(at, Some(end))?
        {
            found = Ok(shorter);
        }
        let mut recovered = match found {
            Ok(recovered) => recovered,
            Err(refusal) => {
                return Err(Failure::new(format!("server {at} refused: {refusal}")));
            }
        };
        match self.plant {
            Plant::EpochsForgotten => recovered.epochs = Epochs::default(),
            Plant::LossForgotten => recovered.lost = None,
            Plant::SessionForgotten => drop(recovered.sessions.pop()),
            Plant::HistoryGap => self.lose_recent(&mut recovered),
            _ => {}
        }
        let clock = self.clock(at);
        let seed = self.prng.next_u64();
        let options = self.options(told, &own);
        let published = Published { zxid: recovered.last_zxid, ..Published::default() };
        let satellites = u16::try_from(self.prng.below(SATELLITES_MAX)).unwrap_or_default();
        let (server, satellites) = Server::new(options, recovered, satellites, seed, clock);
        let stale = self.plant == Plant::StaleReplica;
        let member = self.member(at);
        member.server = Some(server);
        (member.ports, member.client_port) = (own.addresses, own.client);
        member.version = member.next_version;
        member.shards = Shards::new(satellites, published, stale);
        member.turn_waits = false;
        member.was_leading = false;
        member.seen = Zxid::ZERO;
        self.at(self.now + HEARTBEAT, Some(at), Event::Heartbeat(at));
        self.turn(at)
    }

    /// What a server is started with, `own` being its line.
    pub(super) fn options(&mut self, told: Ensemble, own: &ConfigMember) -> ServerOptions {
        let mut options = options_of(&mut self.prng);
        options.server_id = u8::try_from(told.me.0).unwrap_or_default();
        options.reconfig_enabled = self.membership.is_dynamic;
        options.auth.skip_acl = self.membership.is_dynamic;
        let address = own.addresses.first().expect("every member has an address");
        let (host, port) = (address.host.clone(), address.election_port);
        let everywhere = || ClientAddress { host: "0.0.0.0".to_owned(), port: 2181 };
        options.ensemble = Some(EnsembleOptions {
            me: told.me,
            configs: told.configs,
            election_address: ElectionAddress { host, port },
            tick: Duration::from_millis(500),
            init_limit: told.init_limit,
            sync_limit: told.sync_limit,
            ping_every: Duration::from_millis(told.ping_ms),
            detect: Duration::from_millis(told.detect_ms),
            connect_within: Duration::from_millis(told.connection_timeout_ms),
            adopts_configs: self.membership.is_dynamic,
            trusts_empty: !self.is_careful,
            local_sessions: self.local_sessions,
            read_only_after: self.reads_without_quorum.then_some(READS_AFTER),
            rules: told.rules,
            client: own.client.clone().unwrap_or_else(everywhere),
            history: self.history_slices(),
            zxids: self.zxids,
        });
        options
    }

    pub(super) fn step(&mut self, at: usize, input: Input) -> Result<(), Failure> {
        let span = self.span(at).entered();
        let clock = self.clock(at);
        let is_new = matches!(input, Input::Recovered(_));
        let mut outputs = Vec::new();
        let Some(server) = self.server(at) else { return Ok(()) };
        let before = committed_of(server);
        server.step(clock, input, &mut outputs);
        if !is_new {
            self.applied(at, before)?;
        }
        self.carry_out(at, outputs)?;
        drop(span);
        self.turn(at)
    }

    /// What a server says in a replay begins with who it is, and when in microseconds.
    fn span(&self, at: usize) -> tracing::Span {
        tracing::info_span!("server", sid = sid_of(at).0, us = self.now.0 / 1_000)
    }

    pub(super) fn turn(&mut self, at: usize) -> Result<(), Failure> {
        let _span = self.span(at).entered();
        let clock = self.clock(at);
        let mut outputs = Vec::new();
        let Some(server) = self.server(at) else { return Ok(()) };
        let before = committed_of(server);
        server.turn_end(clock, &mut outputs);
        let after = committed_of(server);
        let wants_turn = server.wants_turn();
        let leads = server.mode() == Some("leader");
        self.applied(at, before)?;
        let member = self.member(at);
        let led_before = std::mem::replace(&mut member.was_leading, leads);
        let began = leads && !led_before;
        let (led, epoch) = if began { (0, after.epoch()) } else { member.epochs_led };
        let is_next = leads && epoch < after.epoch();
        let led = led + u64::from(is_next);
        member.epochs_led = (led, after.epoch());
        let waits = wants_turn && !std::mem::replace(&mut member.turn_waits, true);
        self.report.leaders += u64::from(began);
        self.report.renewals += u64::from(is_next && 1 < led);
        if waits {
            self.after_micros(50, Some(at), Event::Turn(at));
        }
        self.carry_out(at, outputs)
    }

    /// What a server takes for committed in its course, and applies, is; while it has a leader it
    /// applies nothing else.
    pub(super) fn applied(&mut self, at: usize, before: Zxid) -> Result<(), Failure> {
        let Some(member) = self.members.get(at) else { return Ok(()) };
        let Some(server) = &member.server else { return Ok(()) };
        let (applied, committed) = (server.tree().last_zxid(), server.committed());
        let has_leader = server.mode().is_some_and(|mode| mode != "read-only");
        if has_leader && committed < applied {
            let text = format!("server {at} shows {applied}, and {committed} is committed");
            return Err(Failure::new(text));
        }
        let after = committed_of(server);
        if before < after {
            let behind = (std::ops::Bound::Excluded(before), std::ops::Bound::Included(after));
            self.committed.extend(member.log.range(behind));
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self, at: usize, outputs: Vec<Output>) -> Result<(), Failure> {
        let incarnation = self.member(at).incarnation;
        for output in outputs {
            if self.member(at).incarnation != incarnation {
                // The server that asked for it is dead.
                return Ok(());
            }
            match output {
                Output::Send { conn, bytes } => {
                    let sent = bytes.len();
                    let client = self.conns.get(&conn).and_then(|(_, at)| self.clients.get(*at));
                    let greeted = client.is_some_and(Client::is_attached);
                    let bytes = self.plant.tamper(bytes, greeted, &mut self.prng);
                    self.stream(conn, false, Event::ToClient(conn, bytes));
                    self.after_micros(100, Some(at), Event::Sent(at, conn, sent));
                }
                Output::Close { conn } | Output::Abort { conn } => {
                    self.stream(conn, false, Event::ServerClosed(conn));
                }
                Output::File { id, op } => self.file(at, id, op)?,
                Output::Peer(output) => self.peer_output(at, output),
                Output::Recover { keep_until } => {
                    self.after_micros(20_000, Some(at), Event::Recovered(at, keep_until));
                }
                // It is started again as after any other end.
                Output::Halt(_) if self.member(at).disk_failed => self.crash(at, Crash::Kill),
                Output::Halt(halt) => {
                    return Err(Failure::new(format!("server {at} halts: {halt}")));
                }
                Output::Read { id, part } => {
                    self.after_micros(1_000, Some(at), Event::FileRead(at, id, part));
                }
                Output::Mesh { to: ShardId(0), message, .. } => {
                    let micros = Duration::from_micros(1 + self.prng.below(300));
                    let soon = self.now + micros;
                    let member = self.member(at);
                    let earliest = member.mesh.entry(message.sender()).or_default();
                    *earliest = soon.max(*earliest);
                    let when = *earliest;
                    self.at(when, Some(at), Event::Mesh(at, message));
                }
                Output::Mesh { to, message, urgent } => {
                    self.member(at).shards.post(to, message);
                    if urgent {
                        self.call(at, to);
                    }
                    // It may look between the message and the publication.
                    if self.prng.one_in(4) {
                        self.shard_turn(at, to)?;
                    }
                }
                Output::Publish(published) => {
                    self.begins(published);
                    self.member(at).shards.publish(published);
                }
                Output::Stopped => self.stopped(at),
                Output::Listen(address) => self.member(at).client_port = Some(address),
                Output::PauseReading { .. } | Output::ResumeReading { .. } => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, at: usize, id: FileOpId, op: FileOp) -> Result<(), Failure> {
        self.history.logged(&op)?;
        self.log(at, &op)?;
        let now = self.now;
        let member = self.member(at);
        let is_there = member.slow_dir.is_none_or(|dir| dir == op.dir());
        let is_slow = now < member.slow_until && is_there;
        let is_config = matches!(op, FileOp::WriteNextConfig { .. });
        member.in_flight.insert(id, op);
        // Who must agree is changing: what a crash leaves of that, few faults happen to meet.
        if is_config && self.prng.one_in(8) {
            let micros = self.prng.below(4_000);
            self.after_micros(micros, None, Event::Blackout);
        }
        let slow = is_slow || self.prng.one_in(200);
        self.after_micros(if slow { 50_000 } else { 400 }, Some(at), Event::FileDone(at, id));
        if self.plant == Plant::AckBeforeFlush {
            self.step(at, Input::FileDone { id, result: Ok(()) })?;
        }
        if self.prng.one_in(2_000) {
            let (fault, crash) = match self.prng.one_in(2) {
                true => (Fault::Kill, Crash::Kill),
                false => (Fault::PowerCut, Crash::PowerCut),
            };
            if self.inject(fault) {
                self.crash(at, crash);
            }
        }
        Ok(())
    }

    /// The txns that are being logged. A txn has the same ones before it in every log (the paper's
    /// prefix property), whatever becomes of the servers that had it.
    fn log(&mut self, at: usize, op: &FileOp) -> Result<(), Failure> {
        let Self { members, before, .. } = self;
        let Some(member) = members.get_mut(at) else { return Ok(()) };
        let mut last = member.log.last().copied().unwrap_or(Zxid::ZERO);
        for (zxid, _) in history::records(op) {
            if zxid <= last {
                continue;
            }
            let known = *before.entry(zxid).or_insert(last);
            if known != last {
                let text =
                    format!("{zxid} stands behind {known}, and behind {last} at server {at}");
                return Err(Failure::new(text));
            }
            member.log.insert(zxid);
            last = zxid;
        }
        Ok(())
    }

    /// Whoever serves in an epoch of which it has no txn has all that is before it, and no more.
    fn begins(&mut self, Published { zxid, epoch, .. }: Published) {
        if zxid.epoch() < epoch {
            let last = last_txn(&self.before_epochs, zxid);
            self.before_epochs.entry(epoch).or_insert(last);
        }
    }

    /// The last txn that a running server has applied.
    pub(super) fn last_applied(&self, member: &Member) -> Option<Zxid> {
        Some(last_txn(&self.before_epochs, member.server.as_ref()?.tree().last_zxid()))
    }

    /// The log of a server with this zxid.
    fn log_upto(&self, zxid: Zxid) -> BTreeSet<Zxid> {
        let last = last_txn(&self.before_epochs, zxid);
        let log = std::iter::successors(Some(last), |zxid| self.before.get(zxid).copied());
        log.take_while(|zxid| *zxid != Zxid::ZERO).collect()
    }

    pub(super) fn file_done(&mut self, at: usize, id: FileOpId) -> Result<(), Failure> {
        let now = self.now;
        let member = self.member(at);
        let Some(op) = member.in_flight.remove(&id) else { return Ok(()) };
        let is_full = now < member.full_until && member.disk.grows(&op);
        let is_flush = matches!(op, FileOp::Write { durable: true, .. } | FileOp::Flush { .. });
        let fails =
            is_full || is_flush && self.prng.one_in(3_000) && self.inject(Fault::FailedFlush);
        let member = self.member(at);
        let result = match fails {
            true => {
                member.disk_failed = true;
                member.disk.fail(&op);
                Err(FileFailure {
                    no_space: is_full,
                    no_descriptor: false,
                    text: "simulated".to_owned(),
                })
            }
            false => member.disk.run(&op),
        };
        if self.plant == Plant::AckBeforeFlush {
            return Ok(());
        }
        self.step(at, Input::FileDone { id, result })
    }

    /// Something was read of a leader's log, for a learner.
    pub(super) fn file_read(
        &mut self,
        at: usize,
        id: FileOpId,
        part: &FilePart,
    ) -> Result<(), Failure> {
        self.report.log_reads += 1;
        let result = match self.prng.one_in(100) && self.inject(Fault::UnreadLog) {
            true if self.prng.one_in(2) => Err(FileFailure {
                no_space: false,
                no_descriptor: false,
                text: "simulated".to_owned(),
            }),
            // As if the file were gone, or not what it was.
            true => Ok(Bytes::new()),
            false => Ok(self.member(at).disk.read(&part.file, part.offset, part.len)),
        };
        self.step(at, Input::FileRead { id, result })
    }

    /// How much of the log a leader sends at once: often so little that a learner's history takes
    /// many turns and more is committed meanwhile.
    fn history_slices(&mut self) -> HistorySlices {
        match self.prng.one_in(3) {
            true => HistorySlices::default(),
            false => HistorySlices {
                bytes_per_turn: 1 << self.prng.below(16),
                news_bytes_max: 1 << self.prng.below(16),
            },
        }
    }

    /// The planted bug of a memory that says that it reaches further back than it does: what comes
    /// from the files ends too early.
    fn lose_recent(&self, recovered: &mut Recovered) {
        let last = recovered.last_zxid;
        let start = recovered.recent.committed(last).start();
        let mut recent = RecentTxns::new(start, self.recent_bytes_max);
        let count = recovered.recent.between(start, last).map_or(0, Iterator::count);
        let txns = recovered.recent.between(start, last).into_iter().flatten();
        for (zxid, txn) in txns.skip(count.div_ceil(2)) {
            recent.push_copy(*zxid, txn);
        }
        recovered.recent = recent;
    }

    pub(super) fn crash(&mut self, at: usize, crash: Crash) {
        let Self { prng, members, .. } = self;
        let Some(member) = members.get_mut(at) else { return };
        for op in std::mem::take(&mut member.in_flight).into_values() {
            member.disk.leave_in_flight(&op, crash, prng);
        }
        member.disk.crash(crash, prng);
        if self.can_spare(at) && self.prng.one_in(6) {
            self.damage(at);
        }
        self.process_ends(at, 600_000);
    }

    /// The process is gone, and starts again within some time.
    pub(super) fn process_ends(&mut self, at: usize, starts_within_micros: u64) {
        let now = self.now;
        let Some(member) = self.members.get_mut(at) else { return };
        member.incarnation += 1;
        member.server = None;
        member.shards = Shards::none();
        member.mesh.clear();
        member.homes.clear();
        member.disk_failed = false;
        member.paused_until = now;
        let gone: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, (member, _))| *member == at)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in gone {
            if let Some((_, client)) = self.conns.remove(&conn) {
                self.client(client).disconnected();
            }
        }
        for end in self.network.ends_of(at) {
            self.close(end);
        }
        self.after_micros(starts_within_micros, None, Event::Start(at));
    }

    /// Recovery as the shell does it; a cut may be refused.
    pub(super) fn recover(
        &mut self,
        at: usize,
        keep_until: Option<Zxid>,
    ) -> Result<Result<Recovered, Refusal>, Failure> {
        let seed = self.prng.next_u64();
        let recent_bytes_max = self.recent_bytes_max;
        let options = TreeOptions { extended_types: ExtendedTypes::Off, digests: true };
        let mut recovery =
            Recovery::new(options, seed).keeping_recent(recent_bytes_max).repaired_by_a_leader();
        if self.is_careful {
            recovery = recovery.losing_what_is_empty();
        }
        if let Some(keep) = keep_until {
            recovery = recovery.keep_until(keep);
        }
        let mut notes = Vec::new();
        let member = self.member(at);
        let recovered = match member.disk.recover(recovery, &mut notes) {
            Ok(recovered) => recovered,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(note) = notes.first().filter(|_| !member.is_uncounted) {
            return Err(Failure::new(format!("server {at} had to fall back: {note}")));
        }
        let last = recovered.last_zxid;
        if last != Zxid::ZERO && !member.log.contains(&last) {
            // A leader's snapshot is in place.
            self.report.snapshots += 1;
            let log = self.log_upto(last);
            let member = self.member(at);
            // A power cut can bring back what was removed, and with that a server's own history.
            (member.log, member.is_uncounted) = (log, !notes.is_empty());
        }
        self.member(at).log.retain(|zxid| *zxid <= last);
        Ok(Ok(recovered))
    }

    /// The second recovery of a running server.
    pub(super) fn recover_again(
        &mut self,
        at: usize,
        keep_until: Option<Zxid>,
    ) -> Result<(), Failure> {
        // A leader that does not know a Ringkeeper does not count it then.
        let is_known = self.members.iter().all(|member| member.version != Version::Unmarked);
        if keep_until.is_some() && is_known && self.prng.one_in(4) && self.inject(Fault::NotCut) {
            return self.step(at, Input::NotCut);
        }
        let kept = self.cut_where_told(at, keep_until);
        match self.recover(at, kept)? {
            Ok(recovered) => {
                self.report.truncations += u64::from(keep_until.is_some());
                self.step(at, Input::Recovered(Box::new(recovered)))
            }
            Err(Refusal::Cut { .. }) => self.step(at, Input::NotCut),
            Err(refusal) => Err(Failure::new(format!("server {at} refused: {refusal}"))),
        }
    }

    // Shards.

    /// Something happened on a client's connection.
    pub(super) fn conn_input(
        &mut self,
        at: usize,
        conn: ConnId,
        input: Input,
    ) -> Result<(), Failure> {
        match self.member(at).homes.get(&conn).copied().unwrap_or_default() {
            ShardId(0) => self.step(at, input),
            shard => {
                self.member(at).shards.input(shard, input);
                self.call(at, shard);
                Ok(())
            }
        }
    }

    /// Wakes a satellite, which takes its time.
    pub(super) fn call(&mut self, at: usize, shard: ShardId) {
        if self.member(at).shards.call(shard) {
            let slow = self.prng.one_in(20);
            let within = if slow { 20_000 } else { 200 };
            self.after_micros(within, Some(at), Event::ShardTurn(at, shard));
        }
    }

    pub(super) fn shard_turn(&mut self, at: usize, shard: ShardId) -> Result<(), Failure> {
        let clock = self.clock(at);
        let outputs = self.member(at).shards.turn(shard, clock);
        if self.member(at).shards.wants_turn(shard) {
            self.call(at, shard);
        }
        self.carry_out(at, outputs)
    }

    /// The shell's look at the clock.
    pub(super) fn heartbeat(&mut self, at: usize) -> Result<(), Failure> {
        self.at(self.now + HEARTBEAT, Some(at), Event::Heartbeat(at));
        let now = self.clock(at).now;
        for shard in self.member(at).shards.waiting(now) {
            self.call(at, shard);
        }
        let due = self.server(at).and_then(|server| server.next_timer());
        match due.is_some_and(|due| due <= now) {
            true => self.step(at, Input::Timer),
            false => Ok(()),
        }
    }
}

/// The last txn in the tree of a server with this zxid. One that is taken for Apache's may have
/// been given the beginning of an established epoch, which is no txn. `before` are the last txns
/// before the epochs.
pub(super) fn last_txn(before: &BTreeMap<u32, Zxid>, zxid: Zxid) -> Zxid {
    match zxid.counter() {
        0 => before.get(&zxid.epoch()).copied().unwrap_or(Zxid::ZERO),
        _ => zxid,
    }
}

/// How much of a server's tree it knows to be committed.
fn committed_of(server: &Server) -> Zxid {
    server.committed().min(server.tree().last_zxid())
}
