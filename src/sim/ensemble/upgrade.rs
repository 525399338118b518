//! Rolling upgrades: one server after the other is stopped as planned and starts again with other
//! settings and as another version of the program, while other faults go on.
//!
//! Versions differ in what they tell each other on the quorum port. A greeting that an older
//! server sends, or is sent, has nothing that it does not know.

use bytes::{Bytes, BytesMut};

use super::super::disk::Crash;
use super::super::world::Failure;
use super::network::End;
use super::{Event, World};
use crate::base::Prng;
use crate::server::Input;
use crate::wire::quorum::{LearnerInfo, LearnerPacket, PacketStream};

/// What a version of the program tells others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// No more than Apache's do.
    Unmarked,
    /// That it is a Ringkeeper.
    Marked,
    /// That it understands checksums, too.
    #[default]
    Checked,
}

impl Version {
    pub(super) fn any(prng: &mut Prng) -> Self {
        match prng.below(3) {
            0 => Self::Unmarked,
            1 => Self::Marked,
            _ => Self::Checked,
        }
    }
}

impl World {
    /// Stops the next server; when it has stopped it starts with other keys.
    pub(super) fn upgrade(&mut self, at: usize) -> Result<(), Failure> {
        if self.healed || self.members.len() <= at {
            self.upgrading = false;
            return Ok(());
        }
        self.after_micros(600_000, None, Event::Upgrade(at + 1));
        let ping_ms = 20 + self.prng.below(80);
        let detect_ms = 200 + self.prng.below(400);
        let (init_limit, sync_limit) = (4 + self.prng.below(3), 2 + self.prng.below(3));
        let version = match Version::any(&mut self.prng) {
            Version::Unmarked if self.members.iter().any(|it| it.is_uncounted) => Version::Marked,
            version => version,
        };
        let member = self.member(at);
        let config = &mut member.disk.config;
        config.set("ringkeeper.pingMillis", ping_ms);
        config.set("ringkeeper.detectMillis", detect_ms);
        config.set("initLimit", init_limit);
        config.set("syncLimit", sync_limit);
        member.next_version = version;
        self.step(at, Input::Stop)
    }

    /// A server has stopped as planned.
    pub(super) fn stopped(&mut self, at: usize) {
        let Self { prng, members, .. } = self;
        let Some(member) = members.get_mut(at) else { return };
        for op in std::mem::take(&mut member.in_flight).into_values() {
            member.disk.leave_in_flight(&op, Crash::Kill, prng);
        }
        self.report.planned_stops += 1;
        self.process_ends(at, 200_000);
    }

    /// The older of the versions at both ends.
    pub(super) fn version_between(&self, from: End) -> Version {
        let version = |end: End| self.members.get(end.member).map(|member| member.version);
        let ends = [Some(from), self.network.other(from)];
        ends.into_iter().flatten().filter_map(version).min().unwrap_or_default()
    }

    /// A greeting says no more than both ends know.
    pub(super) fn greeting(&self, from: End, bytes: Bytes) -> Bytes {
        let version = self.version_between(from);
        if version == Version::Checked || self.network.is_of_election(from) {
            return bytes;
        }
        let mut stream = PacketStream::default();
        stream.push(bytes.clone());
        let Ok(Some(packet)) = stream.next_packet() else { return bytes };
        let Ok(Some(mut greeting)) = LearnerPacket::decode(&packet) else { return bytes };
        let (LearnerPacket::FollowerInfo { info: Some(info), .. }
        | LearnerPacket::ObserverInfo { info: Some(info), .. }) = &mut greeting
        else {
            return bytes;
        };
        let is_ringkeeper = version == Version::Marked;
        *info = LearnerInfo { is_ringkeeper, has_checksums: false, ..*info };
        let mut older = BytesMut::new();
        greeting.encode(&mut older);
        older.extend_from_slice(&stream.take_rest());
        older.freeze()
    }
}
