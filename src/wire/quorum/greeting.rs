//! What two Ringkeepers say of themselves in the first packet of each direction, behind what
//! Apache's servers read: a mark, and the CRC-32C of the packet's type, zxid and data before it.
//! Other packets are covered by what stands behind them; these are heard before anything does.

use bytes::{BufMut, BytesMut};

use super::QuorumPacket;
use crate::model::Zxid;
use crate::wire::jute::{DecodeError, DecodeErrorKind, Reader};

/// What marks a Ringkeeper. Apache's servers pass over what stands behind the fields they know.
pub(super) const MARK: &[u8] = b"RKP1";

/// Whether a checksum stands where the reader of a packet's data is. It must be right.
pub(super) fn check_crc(packet: &QuorumPacket, reader: &mut Reader) -> Result<bool, DecodeError> {
    let data = packet.data.as_deref().unwrap_or_default();
    if reader.remaining() < size_of::<u32>() {
        return Ok(false);
    }
    let at = data.len() - reader.remaining();
    let crc = crc(packet.packet_type, packet.zxid, &data[..at]);
    match reader.i32("checksum")? == crc.cast_signed() {
        true => Ok(true),
        false => Err(DecodeError { at, field: "checksum", kind: DecodeErrorKind::Damaged }),
    }
}

/// Appends the checksum of a packet with these data.
pub(super) fn put_crc(data: &mut BytesMut, packet_type: i32, zxid: Zxid) {
    let crc = crc(packet_type, zxid, data);
    data.put_u32(crc);
}

fn crc(packet_type: i32, zxid: Zxid, data: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&packet_type.to_be_bytes());
    let crc = crc32c::crc32c_append(crc, &zxid.0.to_be_bytes());
    crc32c::crc32c_append(crc, data)
}
