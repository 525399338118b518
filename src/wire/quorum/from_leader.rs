//! What a leader (or observer master) sends to a learner.

use bytes::{BufMut, Bytes, BytesMut};

use super::from_learner::PROTOCOL_VERSION;
use super::greeting::{self, MARK};
use super::{QuorumPacket, epoch_of, packet_type, put_packet, zxid_of};
use crate::base::Str;
use crate::model::{ServerId, SessionId, Zxid};
use crate::wire::jute::{self, DecodeError};

/// A packet from a leader. "Txn bytes" are header, record and digest as the log has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderPacket {
    /// 2: log this txn.
    Proposal {
        /// Of the txn.
        zxid: Zxid,
        /// Txn bytes.
        txn: Bytes,
    },
    /// 4: the txn is committed.
    Commit {
        /// Of the txn.
        zxid: Zxid,
    },
    /// 5: are you there?
    Ping {
        /// The last zxid proposed.
        zxid: Zxid,
    },
    /// 6: the answer to a revalidation.
    Revalidate {
        /// Whose.
        session: SessionId,
        /// The session lives, and the learner owns it.
        is_valid: bool,
    },
    /// 7: the answer to the learner's oldest sync.
    Sync,
    /// 8, to observers: a committed txn.
    Inform {
        /// Of the txn.
        zxid: Zxid,
        /// Txn bytes.
        txn: Bytes,
    },
    /// 9: a reconfiguration is committed and takes effect.
    CommitAndActivate {
        /// Of the txn.
        zxid: Zxid,
        /// Who leads from there on.
        designated_leader: ServerId,
    },
    /// 10: this was the history up to the new epoch.
    NewLeader {
        /// The new epoch.
        epoch: i32,
        /// Text of the leader's last seen configuration.
        config: Option<Str>,
    },
    /// 12: a quorum has the history; serve.
    UpToDate,
    /// 13: the learner's log is a prefix of the leader's history; txns follow.
    Diff {
        /// The leader's last zxid, or the learner's own if nothing follows. Informational.
        zxid: Zxid,
    },
    /// 14: cut the log behind this txn; txns may follow.
    Trunc {
        /// The last one to keep.
        zxid: Zxid,
    },
    /// 15: a snapshot follows as raw bytes.
    Snap {
        /// The last zxid that it contains.
        zxid: Zxid,
    },
    /// 17: promise this epoch.
    LeaderInfo {
        /// The new epoch.
        epoch: i32,
        /// [`PROTOCOL_VERSION`].
        protocol_version: i32,
        /// The leader is a Ringkeeper, and knows that the learner is one.
        is_ringkeeper: bool,
        /// Behind the mark stands the CRC-32C of all that is before it: the learner understands
        /// checksums, and what it promises here cannot be taken back.
        has_checksum: bool,
    },
    /// 19, to observers: a committed reconfiguration.
    InformAndActivate {
        /// Of the txn.
        zxid: Zxid,
        /// Who leads from there on.
        designated_leader: ServerId,
        /// Txn bytes.
        txn: Bytes,
    },
}

impl LeaderPacket {
    /// What a received packet says; `None` if its type is none that leaders send, which is to be
    /// ignored.
    pub fn decode(packet: &QuorumPacket) -> Result<Option<Self>, DecodeError> {
        let zxid = packet.zxid;
        Ok(Some(match packet.packet_type {
            packet_type::PROPOSAL => Self::Proposal { zxid, txn: rest(packet)? },
            packet_type::COMMIT => Self::Commit { zxid },
            packet_type::PING => Self::Ping { zxid },
            packet_type::REVALIDATE => {
                let mut reader = packet.data_reader()?;
                let session = SessionId(reader.i64("sessionId")?);
                Self::Revalidate { session, is_valid: reader.bool("valid")? }
            }
            packet_type::SYNC => Self::Sync,
            packet_type::INFORM => Self::Inform { zxid, txn: rest(packet)? },
            packet_type::COMMITANDACTIVATE => {
                let designated_leader = ServerId(packet.data_reader()?.i64("designatedLeader")?);
                Self::CommitAndActivate { zxid, designated_leader }
            }
            packet_type::NEWLEADER => {
                // ZooKeeper: Learner.syncWithLeader takes data of less than two bytes for none.
                let config = packet.data.clone().filter(|data| 1 < data.len());
                let config = config.map(Str::from_utf8_lossy);
                Self::NewLeader { epoch: epoch_of(zxid), config }
            }
            packet_type::UPTODATE => Self::UpToDate,
            packet_type::DIFF => Self::Diff { zxid },
            packet_type::TRUNC => Self::Trunc { zxid },
            packet_type::SNAP => Self::Snap { zxid },
            packet_type::LEADERINFO => {
                let mut reader = packet.data_reader()?;
                let protocol_version = reader.i32("protocolVersion")?;
                let has_mark = MARK.len() <= reader.remaining();
                let is_ringkeeper = has_mark && reader.take("mark", MARK.len())? == MARK;
                let has_checksum = is_ringkeeper && greeting::check_crc(packet, &mut reader)?;
                let epoch = epoch_of(zxid);
                Self::LeaderInfo { epoch, protocol_version, is_ringkeeper, has_checksum }
            }
            packet_type::INFORMANDACTIVATE => {
                let mut reader = packet.data_reader()?;
                let designated_leader = ServerId(reader.i64("designatedLeader")?);
                let txn = reader.take("txn", reader.remaining())?;
                Self::InformAndActivate { zxid, designated_leader, txn }
            }
            _ => return Ok(None),
        }))
    }

    /// LEADERINFO in the only version of the dialogue that we speak.
    #[must_use]
    pub const fn leader_info(epoch: i32, is_ringkeeper: bool, has_checksum: bool) -> Self {
        let protocol_version = PROTOCOL_VERSION;
        Self::LeaderInfo { epoch, protocol_version, is_ringkeeper, has_checksum }
    }

    /// Appends the packet.
    pub fn encode(&self, buf: &mut BytesMut) {
        match self {
            Self::Proposal { zxid, txn } => {
                put_packet(buf, packet_type::PROPOSAL, *zxid, Some(txn))
            }
            Self::Commit { zxid } => put_packet(buf, packet_type::COMMIT, *zxid, None),
            Self::Ping { zxid } => put_packet(buf, packet_type::PING, *zxid, None),
            Self::Revalidate { session, is_valid } => {
                let mut data = BytesMut::with_capacity(9);
                data.put_i64(session.0);
                jute::put_bool(&mut data, *is_valid);
                put_packet(buf, packet_type::REVALIDATE, Zxid(-1), Some(&data));
            }
            Self::Sync => put_packet(buf, packet_type::SYNC, Zxid(0), None),
            Self::Inform { zxid, txn } => put_packet(buf, packet_type::INFORM, *zxid, Some(txn)),
            Self::CommitAndActivate { zxid, designated_leader } => {
                let data = designated_leader.0.to_be_bytes();
                put_packet(buf, packet_type::COMMITANDACTIVATE, *zxid, Some(&data));
            }
            Self::NewLeader { epoch, config } => {
                let data = config.as_ref().map(|text| &**text.as_bytes());
                put_packet(buf, packet_type::NEWLEADER, zxid_of(*epoch), data);
            }
            Self::UpToDate => put_packet(buf, packet_type::UPTODATE, Zxid(-1), None),
            Self::Diff { zxid } => put_packet(buf, packet_type::DIFF, *zxid, None),
            Self::Trunc { zxid } => put_packet(buf, packet_type::TRUNC, *zxid, None),
            Self::Snap { zxid } => put_packet(buf, packet_type::SNAP, *zxid, None),
            Self::LeaderInfo { epoch, protocol_version, is_ringkeeper, has_checksum } => {
                let (kind, zxid) = (packet_type::LEADERINFO, zxid_of(*epoch));
                let mut data = BytesMut::with_capacity(12);
                data.put_i32(*protocol_version);
                if *is_ringkeeper {
                    data.put_slice(MARK);
                    if *has_checksum {
                        greeting::put_crc(&mut data, kind, zxid);
                    }
                }
                put_packet(buf, kind, zxid, Some(&data));
            }
            Self::InformAndActivate { zxid, designated_leader, txn } => {
                let mut data = BytesMut::with_capacity(8 + txn.len());
                data.put_i64(designated_leader.0);
                data.put_slice(txn);
                put_packet(buf, packet_type::INFORMANDACTIVATE, *zxid, Some(&data));
            }
        }
    }
}

/// All data of a packet that must have some.
fn rest(packet: &QuorumPacket) -> Result<Bytes, DecodeError> {
    let mut reader = packet.data_reader()?;
    reader.take("txn", reader.remaining())
}
