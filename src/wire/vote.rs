//! The election port (`quorum-and-disk.md` part 1): the message that opens a connection, frames,
//! and notifications.
//!
//! ```text
//! initial message                        notification
//! offset  size                           offset  size
//!      0     8  version or sid                0     4  state
//!      8     8  sid                           4     8  leader
//!     16     4  length, 1 to 2048            12     8  zxid
//!     20     n  host:port[|host:port]...     20     8  round
//!                                            28     8  epoch of the vote
//!                                            36     4  format version, 2
//!                                            40     4  length of the configuration
//!                                            44     n  the committed configuration as text
//!                                          44+n     4  length of the proposed one, 0: none
//!                                          48+n     m  the proposed configuration as text
//!                                        48+n+m     4  mark, "RKV1"
//!                                        52+n+m     4  CRC-32C of all before
//! ```
//!
//! What stands behind the committed configuration is ours: Apache's servers do not read it.

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::ReceiveBuffer;
use super::jute::{self, DecodeError, DecodeErrorKind, Reader};
use crate::base::Str;
use crate::limits::{ELECTION_ADDRESSES_BYTES_MAX, ELECTION_FRAME_BYTES_MAX};
use crate::model::{ServerId, ServerState, Vote, Zxid};

/// First message of the side that dialled; nothing answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMessage {
    /// Who dialled. [`InitialMessage::NO_SID`] from an observer without a number.
    pub sid: ServerId,
    /// Where its election port can be dialled, wildcards left out. None: as configured.
    pub addresses: Vec<ElectionAddress>,
}

/// Where an election port can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionAddress {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// The vote of a server, and what the server is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What it is doing.
    pub state: ServerState,
    /// Its vote, or the leader that it has.
    pub vote: Vote,
    /// The round of the election in which it cast the vote.
    pub round: i64,
    /// Version of the format: 2 since 3.5. Votes of version 0 are compared in another way.
    pub format_version: i32,
    /// Text of its committed configuration.
    pub config: Option<Str>,
    /// Text of the configuration that is proposed and counts beside it; only servers of ours tell.
    pub proposed: Option<Str>,
}

/// Cuts the bytes that arrive on the election port: on an accepted connection first one initial
/// message, then notifications; on a dialled one only those.
#[derive(Debug, Default)]
pub struct ElectionStream {
    buffer: ReceiveBuffer,
}

impl InitialMessage {
    /// The sid of an observer that has none.
    pub const NO_SID: ServerId = ServerId(i64::MAX);

    /// Appends the message in version 1, with the first address: the one that every server
    /// understands (ZOOKEEPER-3720). Write it with one send: Apache's servers read it with one.
    pub fn encode(&self, buf: &mut BytesMut) {
        buf.put_i64(VERSION_1);
        buf.put_i64(self.sid.0);
        let address = self.addresses.first().map(ElectionAddress::to_text).unwrap_or_default();
        jute::put_str(buf, &address);
    }

    fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let first = reader.i64("protocolVersion")?;
        if 0 <= first {
            return Ok(Self { sid: ServerId(first), addresses: Vec::new() });
        }
        let sid = ServerId(reader.i64("sid")?);
        let text = reader.some_str("addresses")?;
        let malformed = DecodeError { at: 20, field: "addresses", kind: DecodeErrorKind::Text };
        let addresses = text.split('|').map(ElectionAddress::parse);
        let addresses = addresses.collect::<Option<Vec<_>>>().ok_or(malformed)?;
        let addresses = addresses.into_iter().filter(|address| !address.is_wildcard()).collect();
        Ok(Self { sid, addresses })
    }
}

impl ElectionAddress {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once("]:")?,
            None => text.split_once(':')?,
        };
        let host = Some(host).filter(|host| !host.is_empty())?.to_owned();
        Some(Self { host, port: port.parse().ok()? })
    }

    fn to_text(&self) -> String {
        let Self { host, port } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// An address that says "here", which leads nowhere from elsewhere.
    fn is_wildcard(&self) -> bool {
        self.host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified())
    }
}

impl ElectionStream {
    /// Takes the next chunk of the stream.
    pub fn push(&mut self, chunk: Bytes) {
        self.buffer.push(chunk);
    }

    /// The initial message; `None` until it has arrived. After an error the connection is closed.
    pub fn next_initial(&mut self) -> Result<Option<InitialMessage>, DecodeError> {
        let Some(first) = self.buffer.peek(0).map(i64::from_be_bytes) else { return Ok(None) };
        let len = match first {
            0.. => 8,
            VERSION_1 | VERSION_2 => {
                let Some(len) = self.buffer.peek(16).map(i32::from_be_bytes) else {
                    return Ok(None);
                };
                20 + in_range("addresses", 16, len, ELECTION_ADDRESSES_BYTES_MAX)?
            }
            _ => {
                let kind = DecodeErrorKind::Unknown(first as i32);
                return Err(DecodeError { at: 0, field: "protocolVersion", kind });
            }
        };
        if self.buffer.len() < len {
            return Ok(None);
        }
        InitialMessage::decode(&self.buffer.split_to(len)).map(Some)
    }

    /// The next notification's bytes; `None` until they have arrived. After an error the connection
    /// is closed, whereas a notification that does not decode is ignored.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(len) = self.buffer.peek(0).map(i32::from_be_bytes) else { return Ok(None) };
        let len = in_range("length", 0, len, ELECTION_FRAME_BYTES_MAX)?;
        if self.buffer.len() < 4 + len {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(4 + len);
        Ok(Some(frame.split_off(4)))
    }
}

impl Notification {
    /// The format version that we send.
    pub const FORMAT_VERSION: i32 = 2;

    /// Reads a frame's bytes in any of the forms in use since 3.3. With the mark behind it, nothing
    /// is believed that its checksum does not fit.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let is_marked = is_marked(frame)?;
        let mut reader = Reader::new(frame);
        let number = reader.i32("state")?;
        let leader = ServerId(reader.i64("leader")?);
        let zxid = Zxid(reader.i64("zxid")?);
        let round = reader.i64("electionEpoch")?;
        let mut peer_epoch = zxid.0 >> 32;
        let mut format_version = 0;
        if frame.len() != BYTES_WITHOUT_EPOCH {
            peer_epoch = reader.i64("peerEpoch")?;
            // ZooKeeper: FastLeaderElection, the last word of the 40-byte form is not looked at.
            if frame.len() != BYTES_WITHOUT_CONFIG {
                format_version = reader.i32("version")?;
            }
        }
        let mut config = None;
        if 1 < format_version {
            let len = reader.i32("configLength")?;
            let bad = reader.error("configLength", DecodeErrorKind::Length(len));
            let len = usize::try_from(len).map_err(|_| bad)?;
            config = Some(Str::from_utf8_lossy(reader.take("config", len)?));
        }
        let mut proposed = None;
        if is_marked {
            let text = reader.some_str("proposed")?;
            proposed = Some(text).filter(|text| !text.is_empty());
        }
        let unknown = DecodeError { at: 0, field: "state", kind: DecodeErrorKind::Unknown(number) };
        let state = ServerState::from_number(number).ok_or(unknown)?;
        let vote = Vote { peer_epoch, zxid, leader };
        Ok(Self { state, vote, round, format_version, config, proposed })
    }

    /// Appends the frame with its length, in the form of version 2 whatever `format_version` says.
    /// A proposed configuration that makes it too long is left out.
    pub fn encode(&self, buf: &mut BytesMut) {
        let config = self.config.as_deref().unwrap_or_default();
        let without = BYTES_WITHOUT_CONFIG + 4 + config.len() + 4 + BYTES_OF_MARK;
        let fits = |text: &&str| without + text.len() <= ELECTION_FRAME_BYTES_MAX;
        let proposed = self.proposed.as_deref().filter(fits).unwrap_or_default();
        jute::put_len(buf, without + proposed.len());
        let start = buf.len();
        buf.put_i32(self.state.number());
        buf.put_i64(self.vote.leader.0);
        buf.put_i64(self.vote.zxid.0);
        buf.put_i64(self.round);
        buf.put_i64(self.vote.peer_epoch);
        buf.put_i32(Self::FORMAT_VERSION);
        jute::put_str(buf, config);
        jute::put_str(buf, proposed);
        buf.put_slice(MARK);
        buf.put_u32(crc32c::crc32c(&buf[start..]));
    }
}

/// Whether a frame ends with our mark and its checksum. One that does not fit is an error.
fn is_marked(frame: &[u8]) -> Result<bool, DecodeError> {
    let Some((checked, crc)) = frame.split_last_chunk::<4>() else { return Ok(false) };
    if frame.len() < BYTES_WITHOUT_CONFIG + 8 + BYTES_OF_MARK || !checked.ends_with(MARK) {
        return Ok(false);
    }
    if crc32c::crc32c(checked) != u32::from_be_bytes(*crc) {
        let kind = DecodeErrorKind::Damaged;
        return Err(DecodeError { at: checked.len(), field: "checksum", kind });
    }
    Ok(true)
}

/// What tells that a checksum follows.
const MARK: &[u8; 4] = b"RKV1";

/// The mark with the checksum.
const BYTES_OF_MARK: usize = MARK.len() + 4;

const VERSION_1: i64 = -65536;
const VERSION_2: i64 = -65535;

/// The form before 3.3.3, in which the epoch is that of the zxid.
const BYTES_WITHOUT_EPOCH: usize = 28;

/// The form before 3.4.6; later ones append the configuration.
const BYTES_WITHOUT_CONFIG: usize = 40;

/// A length from 1 to `max`.
fn in_range(field: &'static str, at: usize, len: i32, max: usize) -> Result<usize, DecodeError> {
    let range = usize::try_from(len).ok().filter(|len| (1..=max).contains(len));
    range.ok_or(DecodeError { at, field, kind: DecodeErrorKind::Length(len) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::tests::hex;

    const INITIAL: &str = "ffffffffffff0000 0000000000000003 0000000f
        3132372e302e302e313a3334303033";
    const NOTIFICATION: &str = "00000002 0000000000000003 0000000100000007 0000000000000002
        0000000000000001 00000002 00000009 76657273696f6e3d30";
    const OURS: &str = "00000009 76657273696f6e3d39 524b5631";

    fn initial(bytes: &Bytes) -> Result<Option<InitialMessage>, DecodeError> {
        let mut stream = ElectionStream::default();
        stream.push(bytes.clone());
        stream.next_initial()
    }

    fn address(host: &str, port: u16) -> ElectionAddress {
        ElectionAddress { host: host.to_owned(), port }
    }

    fn notification() -> Notification {
        Notification {
            state: ServerState::Leading,
            vote: Vote { peer_epoch: 1, zxid: Zxid(0x1_0000_0007), leader: ServerId(3) },
            round: 2,
            format_version: 2,
            config: Some("version=0".into()),
            proposed: Some("version=9".into()),
        }
    }

    #[test]
    fn initial_messages_are_golden() {
        let message =
            InitialMessage { sid: ServerId(3), addresses: vec![address("127.0.0.1", 34003)] };
        let mut buf = BytesMut::new();
        message.encode(&mut buf);
        assert_eq!(buf.freeze(), hex(INITIAL));
        assert_eq!(initial(&hex(INITIAL)), Ok(Some(message)));
    }

    #[test]
    fn initial_messages_have_three_forms() {
        let bare = initial(&hex("0000000000000005")).unwrap().unwrap();
        assert_eq!((bare.sid, bare.addresses.len()), (ServerId(5), 0));
        let text = b"0.0.0.0:1|[::1]:2|[::]:3|host:4";
        let mut bytes = BytesMut::new();
        bytes.put_i64(VERSION_2);
        bytes.put_i64(i64::MAX);
        jute::put_buffer(&mut bytes, Some(text));
        let several = initial(&bytes.freeze()).unwrap().unwrap();
        assert_eq!(several.sid, InitialMessage::NO_SID);
        assert_eq!(several.addresses, [address("::1", 2), address("host", 4)]);
        assert_eq!(several.addresses[0].to_text(), "[::1]:2");
    }

    #[test]
    fn wrong_initial_messages_name_their_field() {
        let with = |version: i64, len: i32, text: &[u8]| {
            let mut bytes = BytesMut::new();
            bytes.put_i64(version);
            bytes.put_i64(1);
            bytes.put_i32(len);
            bytes.put_slice(text);
            initial(&bytes.freeze()).map_err(|error| error.field)
        };
        assert_eq!(with(-1, 1, b"x"), Err("protocolVersion"));
        assert_eq!(with(i64::MIN, 1, b"x"), Err("protocolVersion"));
        for len in [0, -1, 2049, i32::MIN] {
            assert_eq!(with(VERSION_1, len, b""), Err("addresses"));
        }
        assert_eq!(with(VERSION_1, 2048, b"x"), Ok(None));
        for text in ["x", "x:", ":1", "x:99999", "[x:1", "x:1|", "a:1:2"] {
            let len = i32::try_from(text.len()).unwrap();
            assert_eq!(with(VERSION_1, len, text.as_bytes()), Err("addresses"), "{text}");
        }
    }

    #[test]
    fn notifications_are_golden() {
        let mut buf = BytesMut::new();
        notification().encode(&mut buf);
        let mut stream = ElectionStream::default();
        stream.push(buf.freeze());
        let frame = stream.next_frame().unwrap().unwrap();
        let (checked, crc) = frame.split_last_chunk::<4>().unwrap();
        assert_eq!(checked, [&hex(NOTIFICATION)[..], &hex(OURS)].concat());
        assert_eq!(u32::from_be_bytes(*crc), crc32c::crc32c(checked));
        assert_eq!(Notification::decode(&frame), Ok(notification()));
    }

    #[test]
    fn one_changed_bit_behind_a_mark_is_an_error_and_without_it_nothing_is_checked() {
        let mut buf = BytesMut::new();
        notification().encode(&mut buf);
        let good = buf.split_off(4).freeze();
        let mark = good.len() - BYTES_OF_MARK..good.len() - 4;
        for bit in 0..8 * good.len() {
            let mut bad = BytesMut::from(&good[..]);
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = Notification::decode(&bad.freeze());
            match mark.contains(&(bit / 8)) {
                true => assert_eq!(found, Ok(Notification { proposed: None, ..notification() })),
                false => assert!(found.is_err(), "bit {bit}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_proposed_configuration_that_makes_it_too_long_is_left_out() {
        let without = 44 + 9 + 4 + BYTES_OF_MARK;
        for (len, fits) in [(524_288 - without, true), (524_288 - without + 1, false)] {
            let long = Str::from("x".repeat(len).as_str());
            let mut buf = BytesMut::new();
            Notification { proposed: Some(long), ..notification() }.encode(&mut buf);
            let mut stream = ElectionStream::default();
            stream.push(buf.freeze());
            let frame = stream.next_frame().unwrap().unwrap();
            assert_eq!(Notification::decode(&frame).unwrap().proposed.is_some(), fits);
        }
    }

    #[test]
    fn notifications_of_all_versions_are_read() {
        let bytes = hex(NOTIFICATION);
        let mut long = bytes.to_vec();
        for (len, epoch, version, config) in
            [(28, 1, 0, false), (40, 1, 0, false), (53, 1, 2, true)]
        {
            let found = Notification::decode(&bytes.slice(..len)).unwrap();
            assert_eq!((found.vote.peer_epoch, found.format_version), (epoch, version));
            assert_eq!(found.config.is_some(), config);
        }
        // Version 1 has no configuration, whatever follows.
        long[39] = 1;
        let found = Notification::decode(&Bytes::from(long.clone())).unwrap();
        assert_eq!((found.format_version, found.config), (1, None));
        // Of 28 bytes the epoch is the zxid's, with its sign.
        long[12..20].copy_from_slice(&i64::MIN.to_be_bytes());
        let old = Notification::decode(&Bytes::from(long).slice(..28)).unwrap();
        assert_eq!(old.vote.peer_epoch, i64::MIN >> 32);
    }

    #[test]
    fn other_lengths_and_states_are_errors() {
        let bytes = hex(NOTIFICATION);
        for len in (0..bytes.len()).filter(|len| ![28, 40].contains(len)) {
            assert!(Notification::decode(&bytes.slice(..len)).is_err(), "{len} bytes");
        }
        for (at, value, field) in [(3, 4, "state"), (0, 0x80, "state"), (40, 0x80, "configLength")]
        {
            let mut wrong = bytes.to_vec();
            wrong[at] = value;
            assert_eq!(Notification::decode(&wrong.into()).unwrap_err().field, field);
        }
    }

    #[test]
    fn frames_are_bounded() {
        for (len, fine) in [(0, false), (-1, false), (524_288, true), (524_289, false)] {
            let mut stream = ElectionStream::default();
            stream.push(Bytes::copy_from_slice(&i32::to_be_bytes(len)));
            assert_eq!(stream.next_frame().is_ok(), fine, "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_connection_is_the_same_connection(cuts in any::<[usize; 3]>()) {
            let mut bytes = BytesMut::from(&hex(INITIAL)[..]);
            notification().encode(&mut bytes);
            notification().encode(&mut bytes);
            let bytes = bytes.freeze();
            let mut cuts = cuts.map(|cut| cut % (bytes.len() + 1));
            cuts.sort_unstable();
            let mut stream = ElectionStream::default();
            let (mut start, mut greeted, mut found) = (0, false, 0);
            for end in cuts.into_iter().chain([bytes.len()]) {
                stream.push(bytes.slice(start..end));
                start = end;
                greeted |= !greeted && stream.next_initial().unwrap().is_some();
                while greeted && let Some(frame) = stream.next_frame().unwrap() {
                    prop_assert_eq!(Notification::decode(&frame), Ok(notification()));
                    found += 1;
                }
            }
            prop_assert_eq!(found, 2);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = Notification::decode(&bytes);
            let _ = initial(&bytes);
            let mut stream = ElectionStream::default();
            stream.push(bytes);
            while let Ok(Some(frame)) = stream.next_frame() {
                let _ = Notification::decode(&frame);
            }
        }

        #[test]
        fn notifications_come_back(
            state in 0..4,
            vote: [i64; 3],
            round: i64,
            config in ".{0,40}",
            proposed in proptest::option::of(".{1,40}"),
        ) {
            let notification = Notification {
                state: ServerState::from_number(state).unwrap(),
                vote: Vote { peer_epoch: vote[0], zxid: Zxid(vote[1]), leader: ServerId(vote[2]) },
                round,
                format_version: 2,
                config: Some(config.as_str().into()),
                proposed: proposed.as_deref().map(Str::from),
            };
            let mut buf = BytesMut::new();
            notification.encode(&mut buf);
            prop_assert_eq!(Notification::decode(&buf.freeze().slice(4..)), Ok(notification));
        }
    }
}
