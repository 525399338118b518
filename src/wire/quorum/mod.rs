//! Packets of the quorum port (`quorum-and-disk.md` part 3): what a learner and its leader say to
//! each other. The two directions are two types, so that neither can be sent the wrong way.
//!
//! ```text
//! offset  size
//!      0     4  type
//!      4     8  zxid
//!     12     4  length of data, -1 for null
//!     16     n  data
//!   16+n     4  count of authinfo, -1 for null; then scheme and id of each, as strings
//! ```
//!
//! Between two Ringkeepers a packet of a type of ours follows what one turn has sent: the CRC-32C
//! of all packets before it ([`QuorumPacket::checksum`]). Servers of Apache's are never sent one.
//!
//! Packets follow each other with nothing between them; only behind a SNAP packet stand raw bytes:
//! the body of one of Apache's snapshots and the string `BenWasHere`.

mod from_leader;
mod from_learner;
mod greeting;
mod stream;

#[cfg(test)]
mod tests;

pub use from_leader::LeaderPacket;
pub use from_learner::{ForwardedRequest, LearnerInfo, LearnerPacket, PROTOCOL_VERSION, Touch};
pub use stream::PacketStream;

use bytes::{BufMut, Bytes, BytesMut};

use super::jute::{self, DecodeError, DecodeErrorKind, Reader};
use crate::limits::AUTHINFO_IDS_MAX;
use crate::model::{Id, Zxid};

/// The packet types in Apache's numbering.
mod packet_type {
    pub(super) const REQUEST: i32 = 1;
    pub(super) const PROPOSAL: i32 = 2;
    pub(super) const ACK: i32 = 3;
    pub(super) const COMMIT: i32 = 4;
    pub(super) const PING: i32 = 5;
    pub(super) const REVALIDATE: i32 = 6;
    pub(super) const SYNC: i32 = 7;
    pub(super) const INFORM: i32 = 8;
    pub(super) const COMMITANDACTIVATE: i32 = 9;
    pub(super) const NEWLEADER: i32 = 10;
    pub(super) const FOLLOWERINFO: i32 = 11;
    pub(super) const UPTODATE: i32 = 12;
    pub(super) const DIFF: i32 = 13;
    pub(super) const TRUNC: i32 = 14;
    pub(super) const SNAP: i32 = 15;
    pub(super) const OBSERVERINFO: i32 = 16;
    pub(super) const LEADERINFO: i32 = 17;
    pub(super) const ACKEPOCH: i32 = 18;
    pub(super) const INFORMANDACTIVATE: i32 = 19;
    /// Ours; the checksum stands in the place of the zxid.
    pub(super) const CHECKSUM: i32 = 0x524b;
}

/// A packet whose type is known and whose data are not yet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumPacket {
    /// One of the numbers 1 to 19; others are to be ignored.
    pub packet_type: i32,
    /// A txn's zxid, an epoch in the high half, or a constant.
    pub zxid: Zxid,
    /// `None` is null on the wire.
    pub data: Option<Bytes>,
    /// Identities of the client whose request this is, the first [`AUTHINFO_IDS_MAX`].
    pub authinfo: Option<Vec<Id>>,
}

impl QuorumPacket {
    /// Reads one packet; the reader stands behind it afterwards.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let packet_type = reader.i32("type")?;
        let zxid = Zxid(reader.i64("zxid")?);
        let data = reader.buffer("data")?;
        let mut authinfo = reader.vector("authinfo", |reader| {
            let scheme = reader.str("authinfo.scheme")?.unwrap_or_default();
            Ok(Id { scheme, id: reader.str("authinfo.id")?.unwrap_or_default() })
        })?;
        if let Some(ids) = &mut authinfo {
            ids.truncate(AUTHINFO_IDS_MAX);
        }
        Ok(Self { packet_type, zxid, data, authinfo })
    }

    /// If this is a checksum: what the CRC-32C of all packets before it must be.
    #[must_use]
    pub fn checksum(&self) -> Option<i64> {
        (self.packet_type == packet_type::CHECKSUM).then_some(self.zxid.0)
    }

    /// A reader over the data of a packet that must have some.
    fn data_reader(&self) -> Result<Reader, DecodeError> {
        let null = DecodeError { at: DATA_AT, field: "data", kind: DecodeErrorKind::Null };
        self.data.as_ref().map(Reader::new).ok_or(null)
    }
}

/// Length of the packet that is a checksum: type, zxid, and two that are null.
pub const CHECKSUM_BYTES: usize = 4 + 8 + 4 + 4;

/// Appends the checksum of everything before.
pub fn put_checksum(buf: &mut BytesMut, crc: u32) {
    put_packet(buf, packet_type::CHECKSUM, Zxid(i64::from(crc)), None);
}

/// Offset of the length of data.
const DATA_AT: usize = 12;

/// Most bytes of data in front of a txn or a request: of INFORMANDACTIVATE 8.
const DATA_HEAD_BYTES_MAX: usize = ForwardedRequest::HEAD_BYTES;

/// A packet without authinfo.
fn put_packet(buf: &mut BytesMut, packet_type: i32, zxid: Zxid, data: Option<&[u8]>) {
    buf.put_i32(packet_type);
    buf.put_i64(zxid.0);
    jute::put_buffer(buf, data);
    buf.put_i32(-1);
}

/// The epoch that a packet has in the high half of its zxid. -1 comes from a server of Apache's
/// whose empty database is not trusted.
const fn epoch_of(zxid: Zxid) -> i32 {
    (zxid.0 >> 32) as i32
}

/// The inverse of [`epoch_of`], with counter 0.
const fn zxid_of(epoch: i32) -> Zxid {
    Zxid((epoch as i64) << 32)
}
