//! What a learner sends to its leader (or observer master).

use bytes::{BufMut, Bytes, BytesMut};

use super::greeting::{self, MARK};
use super::{QuorumPacket, epoch_of, packet_type, put_packet, zxid_of};
use crate::model::{Id, ServerId, SessionId, Xid, Zxid};
use crate::wire::jute::{self, DecodeError, Reader};

/// The version of the dialogue. Anything below selects one that went out of use with 3.4.
pub const PROTOCOL_VERSION: i32 = 0x10000;

/// A packet from a learner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LearnerPacket {
    /// 1: a client's write, sync or session request.
    Request(ForwardedRequest),
    /// 3: the txn and all before it are durable; or, with counter 0, the learner has the leader's
    /// history and epoch (once after NEWLEADER, once after UPTODATE).
    Ack {
        /// Of the txn, or the epoch's first.
        zxid: Zxid,
    },
    /// 5: the answer to a ping.
    Ping {
        /// As in the ping.
        zxid: Zxid,
        /// Sessions heard of since the last one.
        touches: Vec<Touch>,
    },
    /// 6: a client of this session has come to the learner.
    Revalidate(Touch),
    /// 11: the first packet of a participant, and of a server that would become one.
    FollowerInfo {
        /// The last epoch it promised.
        accepted_epoch: i32,
        /// `None` when the data are null; the leader then assigns a sid.
        info: Option<LearnerInfo>,
    },
    /// 16: the first packet of an observer.
    ObserverInfo {
        /// The last epoch it promised.
        accepted_epoch: i32,
        /// `None` when the data are null; the leader then assigns a sid.
        info: Option<LearnerInfo>,
    },
    /// 18: the new epoch is promised.
    AckEpoch {
        /// Last zxid of its log; -1 if its empty database is not trusted.
        last_zxid: Zxid,
        /// The epoch of its history; -1 if the epoch had been promised before, and this answer
        /// therefore counts no more.
        current_epoch: i32,
        /// Its log cannot be cut: what the leader does not have is to be replaced by a snapshot.
        /// Told only to a Ringkeeper, by a byte behind the epoch.
        cannot_cut: bool,
    },
}

/// A client's request on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedRequest {
    /// The client's session.
    pub session: SessionId,
    /// The client's number for it.
    pub cxid: Xid,
    /// The opcode.
    pub opcode: i32,
    /// The request's record without its header. For createSession the timeout; nothing for
    /// closeSession.
    pub body: Bytes,
    /// Identities of the client. Null makes Apache's leader refuse what needs permission.
    pub authinfo: Option<Vec<Id>>,
}

/// A session with its timeout, 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The session.
    pub session: SessionId,
    /// Its timeout, ms.
    pub timeout_ms: i32,
}

/// Who a learner is. Shorter forms leave out the later fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnerInfo {
    /// Its sid.
    pub sid: ServerId,
    /// [`PROTOCOL_VERSION`]; 1 if absent.
    pub protocol_version: i32,
    /// Version of its committed configuration, if it says so. A leader refuses a newer one than its
    /// own.
    pub config_version: Option<i64>,
    /// It is a Ringkeeper: four bytes behind the version, which servers of Apache's pass over. Its
    /// silence means more than that of a server that collects garbage.
    pub is_ringkeeper: bool,
    /// It understands checksums: behind the mark stands the CRC-32C of all that is before it. A
    /// Ringkeeper without them passes it over.
    pub has_checksums: bool,
}

impl LearnerPacket {
    /// What a received packet says; `None` if its type is none that learners send, which is to be
    /// ignored.
    pub fn decode(packet: &QuorumPacket) -> Result<Option<Self>, DecodeError> {
        let zxid = packet.zxid;
        Ok(Some(match packet.packet_type {
            packet_type::REQUEST => Self::Request(ForwardedRequest::decode(packet)?),
            packet_type::ACK => Self::Ack { zxid },
            packet_type::PING => Self::Ping { zxid, touches: touches(packet)? },
            packet_type::REVALIDATE => Self::Revalidate(Touch::decode(&mut packet.data_reader()?)?),
            packet_type::FOLLOWERINFO => Self::FollowerInfo {
                accepted_epoch: epoch_of(zxid),
                info: LearnerInfo::decode(packet)?,
            },
            packet_type::OBSERVERINFO => Self::ObserverInfo {
                accepted_epoch: epoch_of(zxid),
                info: LearnerInfo::decode(packet)?,
            },
            packet_type::ACKEPOCH => {
                let mut data = packet.data_reader()?;
                let current_epoch = data.i32("currentEpoch")?;
                let cannot_cut = data.remaining() != 0 && data.bool("cannotCut")?;
                Self::AckEpoch { last_zxid: zxid, current_epoch, cannot_cut }
            }
            _ => return Ok(None),
        }))
    }

    /// Whether this is the greeting of a learner that understands checksums.
    #[must_use]
    pub const fn has_checksums(&self) -> bool {
        matches!(
            self,
            Self::FollowerInfo { info: Some(LearnerInfo { has_checksums: true, .. }), .. }
                | Self::ObserverInfo { info: Some(LearnerInfo { has_checksums: true, .. }), .. }
        )
    }

    /// Appends the packet.
    pub fn encode(&self, buf: &mut BytesMut) {
        match self {
            Self::Request(request) => request.encode(buf),
            Self::Ack { zxid } => put_packet(buf, packet_type::ACK, *zxid, None),
            Self::Ping { zxid, touches } => {
                // Without touches an empty buffer, never null: Apache's leader wraps it unchecked.
                let mut data = BytesMut::with_capacity(touches.len() * Touch::BYTES);
                touches.iter().for_each(|touch| touch.encode(&mut data));
                put_packet(buf, packet_type::PING, *zxid, Some(&data));
            }
            Self::Revalidate(touch) => {
                let mut data = BytesMut::with_capacity(Touch::BYTES);
                touch.encode(&mut data);
                put_packet(buf, packet_type::REVALIDATE, Zxid(-1), Some(&data));
            }
            Self::FollowerInfo { accepted_epoch, info } => {
                put_info(buf, packet_type::FOLLOWERINFO, *accepted_epoch, info.as_ref());
            }
            Self::ObserverInfo { accepted_epoch, info } => {
                put_info(buf, packet_type::OBSERVERINFO, *accepted_epoch, info.as_ref());
            }
            Self::AckEpoch { last_zxid, current_epoch, cannot_cut } => {
                let [a, b, c, d] = current_epoch.to_be_bytes();
                let data: &[u8] = if *cannot_cut { &[a, b, c, d, 1] } else { &[a, b, c, d] };
                put_packet(buf, packet_type::ACKEPOCH, *last_zxid, Some(data));
            }
        }
    }
}

impl ForwardedRequest {
    /// Bytes of data in front of the body.
    pub(super) const HEAD_BYTES: usize = 16;

    fn decode(packet: &QuorumPacket) -> Result<Self, DecodeError> {
        let mut reader = packet.data_reader()?;
        let session = SessionId(reader.i64("sessionId")?);
        let cxid = Xid(reader.i32("cxid")?);
        let opcode = reader.i32("type")?;
        let body = reader.take("request", reader.remaining())?;
        Ok(Self { session, cxid, opcode, body, authinfo: packet.authinfo.clone() })
    }

    fn encode(&self, buf: &mut BytesMut) {
        buf.put_i32(packet_type::REQUEST);
        buf.put_i64(-1);
        jute::put_len(buf, Self::HEAD_BYTES + self.body.len());
        buf.put_i64(self.session.0);
        buf.put_i32(self.cxid.0);
        buf.put_i32(self.opcode);
        buf.put_slice(&self.body);
        let Some(authinfo) = &self.authinfo else {
            buf.put_i32(-1);
            return;
        };
        jute::put_len(buf, authinfo.len());
        for id in authinfo {
            jute::put_str(buf, &id.scheme);
            jute::put_str(buf, &id.id);
        }
    }
}

impl Touch {
    /// On the wire.
    const BYTES: usize = 12;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let session = SessionId(reader.i64("sessionId")?);
        Ok(Self { session, timeout_ms: reader.i32("timeout")? })
    }

    fn encode(self, buf: &mut BytesMut) {
        buf.put_i64(self.session.0);
        buf.put_i32(self.timeout_ms);
    }
}

impl LearnerInfo {
    /// What a greeting says of its sender; nothing when the data are null.
    fn decode(packet: &QuorumPacket) -> Result<Option<Self>, DecodeError> {
        let Some(data) = &packet.data else { return Ok(None) };
        let mut reader = Reader::new(data);
        let sid = ServerId(reader.i64("serverid")?);
        let has_protocol = 4 <= reader.remaining();
        let protocol_version = if has_protocol { reader.i32("protocolVersion")? } else { 1 };
        let has_config = has_protocol && 8 <= reader.remaining();
        let config_version = if has_config { Some(reader.i64("configVersion")?) } else { None };
        let has_mark = has_config && MARK.len() <= reader.remaining();
        let is_ringkeeper = has_mark && reader.take("mark", MARK.len())? == MARK;
        let has_checksums = is_ringkeeper && greeting::check_crc(packet, &mut reader)?;
        Ok(Some(Self { sid, protocol_version, config_version, is_ringkeeper, has_checksums }))
    }
}

/// All sessions in the data of a ping; there is no count.
fn touches(packet: &QuorumPacket) -> Result<Vec<Touch>, DecodeError> {
    let mut touches = Vec::new();
    let Some(data) = &packet.data else { return Ok(touches) };
    let mut reader = Reader::new(data);
    while reader.remaining() != 0 {
        touches.push(Touch::decode(&mut reader)?);
    }
    Ok(touches)
}

fn put_info(buf: &mut BytesMut, packet_type: i32, epoch: i32, info: Option<&LearnerInfo>) {
    let mut data = BytesMut::with_capacity(28);
    if let Some(info) = info {
        data.put_i64(info.sid.0);
        data.put_i32(info.protocol_version);
        if let Some(version) = info.config_version {
            data.put_i64(version);
            if info.is_ringkeeper {
                data.put_slice(MARK);
                if info.has_checksums {
                    greeting::put_crc(&mut data, packet_type, zxid_of(epoch));
                }
            }
        }
    }
    put_packet(buf, packet_type, zxid_of(epoch), info.map(|_| &*data));
}
