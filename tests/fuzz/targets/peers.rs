//! What comes from other servers: votes on the election port, packets on the quorum port.

use bytes::{Bytes, BytesMut};
use ringkeeper::base::Str;
use ringkeeper::model::{Id, ServerId, ServerState, SessionId, Vote, Xid, Zxid};
use ringkeeper::wire::quorum::{
    ForwardedRequest, LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION, PacketStream,
    QuorumPacket, Touch,
};
use ringkeeper::wire::vote::{ElectionAddress, ElectionStream, InitialMessage, Notification};

use super::{Target, pieces};

/// The shortest identity or address is a few bytes long, and takes two strings' place in memory,
/// twice while the vector grows. What is cut in pieces of one byte is held with a handle for each.
const BYTES_PER_BYTE: usize = 96;

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "votes", run: votes, seeds: elections, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "vote", run: vote, seeds: notifications, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "learner", run: of_learner, seeds: of_learners, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "leader", run: of_leader, seeds: of_leaders, bytes_per_byte: BYTES_PER_BYTE },
];

/// What a connection to the election port gave.
#[derive(Debug, PartialEq, Eq)]
struct Election {
    initial: Option<InitialMessage>,
    frames: Vec<Bytes>,
    is_over: bool,
}

/// An accepted connection in pieces of a length that its first byte says gives what it gives whole.
fn votes(input: &[u8]) {
    let Some((len, stream)) = input.split_first() else { return };
    let whole = election_of(pieces(stream, stream.len()));
    let cut = election_of(pieces(stream, usize::from(*len)));
    assert_eq!(whole, cut);
}

fn election_of(stream: impl Iterator<Item = Bytes>) -> Election {
    let mut connection = ElectionStream::default();
    let mut found = Election { initial: None, frames: Vec::new(), is_over: false };
    for piece in stream {
        connection.push(piece);
        if found.initial.is_none() {
            match connection.next_initial() {
                Ok(initial) => found.initial = initial,
                Err(_) => found.is_over = true,
            }
        }
        while found.initial.is_some() && !found.is_over {
            match connection.next_frame() {
                Ok(Some(frame)) => found.frames.push(frame),
                Ok(None) => break,
                Err(_) => found.is_over = true,
            }
        }
        if found.is_over {
            break;
        }
    }
    found
}

/// One notification, in any of the forms in use.
fn vote(input: &[u8]) {
    let Ok(found) = Notification::decode(&Bytes::copy_from_slice(input)) else { return };
    let mut buf = BytesMut::new();
    found.encode(&mut buf);
    let again = Notification::decode(&buf.freeze().slice(4..)).expect("the encoder writes them");
    let text = |notification: &Notification| notification.config.clone().unwrap_or_default();
    assert_eq!((again.state, again.vote, again.round), (found.state, found.vote, found.round));
    assert_eq!(text(&again), text(&found));
    assert_eq!(again.proposed, found.proposed);
}

fn notifications() -> Vec<Vec<u8>> {
    let notification = |config: Option<&str>| Notification {
        state: ServerState::Looking,
        vote: Vote { peer_epoch: 1, zxid: Zxid(0x1_0000_0007), leader: ServerId(3) },
        round: 2,
        format_version: 2,
        config: config.map(Str::from),
        proposed: config.filter(|text| text.contains("version")).map(Str::from),
    };
    let config = "server.1=127.0.0.1:2888:3888:participant\nversion=100000000";
    let bytes = |config| {
        let mut buf = BytesMut::new();
        notification(config).encode(&mut buf);
        buf.split_off(4).to_vec()
    };
    let long = bytes(Some(config));
    // Those of earlier versions are the front of it.
    let older = [28, 40].map(|len| long.get(..len).unwrap_or_default().to_vec());
    [long.clone(), bytes(None)].into_iter().chain(older).collect()
}

fn elections() -> Vec<Vec<u8>> {
    let with = |initial: &dyn Fn(&mut BytesMut)| {
        let mut stream = BytesMut::from(&[5][..]);
        initial(&mut stream);
        for frame in notifications() {
            let len = i32::try_from(frame.len()).unwrap_or_default();
            stream.extend_from_slice(&len.to_be_bytes());
            stream.extend_from_slice(&frame);
        }
        stream.to_vec()
    };
    let address = |host: &str| ElectionAddress { host: host.to_owned(), port: 3888 };
    let current = |host: &'static str| {
        let message = InitialMessage { sid: ServerId(3), addresses: vec![address(host)] };
        with(&move |buf| message.encode(buf))
    };
    // Version 2 has several addresses; before versions there was the sid alone.
    let several = with(&|buf| {
        buf.extend_from_slice(&(-65535_i64).to_be_bytes());
        buf.extend_from_slice(&3_i64.to_be_bytes());
        let text = b"127.0.0.1:3888|[::1]:3889";
        buf.extend_from_slice(&i32::try_from(text.len()).unwrap_or_default().to_be_bytes());
        buf.extend_from_slice(text);
    });
    let bare = with(&|buf| buf.extend_from_slice(&3_i64.to_be_bytes()));
    vec![current("127.0.0.1"), current("::1"), several, bare]
}

/// The packets of a connection in pieces of a length that its first byte says, the same as whole,
/// and whether the connection went wrong.
fn packets(input: &[u8]) -> (Vec<QuorumPacket>, bool) {
    let Some((len, stream)) = input.split_first() else { return (Vec::new(), false) };
    let whole = packets_of(pieces(stream, stream.len()), stream.len());
    let cut = packets_of(pieces(stream, usize::from(*len)), stream.len());
    assert_eq!(whole, cut);
    whole
}

fn packets_of(stream: impl Iterator<Item = Bytes>, len: usize) -> (Vec<QuorumPacket>, bool) {
    let mut connection = PacketStream::default();
    let mut found = Vec::new();
    for piece in stream {
        connection.push(piece);
        loop {
            match connection.next_packet() {
                Ok(Some(packet)) => found.push(packet),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
        assert!(connection.buffered() <= len);
    }
    (found, false)
}

fn of_learner(input: &[u8]) {
    for packet in packets(input).0 {
        let Ok(Some(found)) = LearnerPacket::decode(&packet) else { continue };
        let again = through_the_wire(|buf| found.encode(buf));
        let again = LearnerPacket::decode(&again).expect("the encoder writes them");
        assert_eq!(again, Some(found));
    }
}

fn of_leader(input: &[u8]) {
    for packet in packets(input).0 {
        let Ok(Some(found)) = LeaderPacket::decode(&packet) else { continue };
        let again = through_the_wire(|buf| found.encode(buf));
        assert_eq!(LeaderPacket::decode(&again), Ok(Some(found)));
    }
}

fn through_the_wire(encode: impl FnOnce(&mut BytesMut)) -> QuorumPacket {
    let mut buf = BytesMut::new();
    encode(&mut buf);
    let mut connection = PacketStream::default();
    connection.push(buf.freeze());
    let packet = connection.next_packet().expect("the encoder writes packets");
    assert_eq!(connection.buffered(), 0, "and nothing behind them");
    packet.expect("whole ones")
}

fn stream(encode: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut buf = BytesMut::from(&[7][..]);
    encode(&mut buf);
    buf.to_vec()
}

fn of_learners() -> Vec<Vec<u8>> {
    let touch = Touch { session: SessionId(0x0100_0000_0000_0001), timeout_ms: 10_000 };
    let info = LearnerInfo {
        sid: ServerId(2),
        protocol_version: PROTOCOL_VERSION,
        config_version: Some(0x1_0000_0000),
        is_ringkeeper: true,
        has_checksums: false,
    };
    let shorter = LearnerInfo { config_version: None, is_ringkeeper: false, ..info };
    let request = |authinfo| {
        LearnerPacket::Request(ForwardedRequest {
            session: touch.session,
            cxid: Xid(4),
            opcode: 5,
            body: Bytes::from_static(b"\0\0\0\x02/a\0\0\0\x01x\xff\xff\xff\xff"),
            authinfo,
        })
    };
    let id = Id { scheme: Str::from_static("ip"), id: Str::from_static("127.0.0.1") };
    let all = [
        request(None),
        request(Some(vec![id.clone(), id])),
        LearnerPacket::Ack { zxid: Zxid(0x1_0000_0002) },
        LearnerPacket::Ping { zxid: Zxid(3), touches: vec![touch, touch] },
        LearnerPacket::Revalidate(touch),
        LearnerPacket::FollowerInfo { accepted_epoch: 1, info: Some(info) },
        LearnerPacket::ObserverInfo { accepted_epoch: -1, info: Some(shorter) },
        LearnerPacket::FollowerInfo { accepted_epoch: 0, info: None },
        LearnerPacket::AckEpoch { last_zxid: Zxid(9), current_epoch: 1, cannot_cut: true },
    ];
    let mut seeds: Vec<_> = all.iter().map(|packet| stream(|buf| packet.encode(buf))).collect();
    seeds.push(stream(|buf| all.iter().for_each(|packet| packet.encode(buf))));
    seeds
}

fn of_leaders() -> Vec<Vec<u8>> {
    let (zxid, txn) = (Zxid(0x1_0000_0002), Bytes::from_static(&[7; 60]));
    let designated_leader = ServerId(2);
    let config = Some(Str::from_static("server.1=127.0.0.1:2888:3888\nversion=0"));
    let all = [
        LeaderPacket::Proposal { zxid, txn: txn.clone() },
        LeaderPacket::Commit { zxid },
        LeaderPacket::Ping { zxid },
        LeaderPacket::Revalidate { session: SessionId(5), is_valid: true },
        LeaderPacket::Sync,
        LeaderPacket::Inform { zxid, txn: txn.clone() },
        LeaderPacket::CommitAndActivate { zxid, designated_leader },
        LeaderPacket::NewLeader { epoch: 1, config },
        LeaderPacket::UpToDate,
        LeaderPacket::Diff { zxid },
        LeaderPacket::Trunc { zxid },
        LeaderPacket::Snap { zxid },
        LeaderPacket::leader_info(2, true, true),
        LeaderPacket::InformAndActivate { zxid, designated_leader, txn },
    ];
    let mut seeds: Vec<_> = all.iter().map(|packet| stream(|buf| packet.encode(buf))).collect();
    seeds.push(stream(|buf| all.iter().for_each(|packet| packet.encode(buf))));
    seeds
}

/// Seeds are what they are meant to be, so that mutations start behind the first checks.
#[test]
fn seeds_decode() {
    for (seeds, count) in [(of_learners(), 9), (of_leaders(), 14)] {
        let last = seeds.last().expect("there are some");
        let (found, is_wrong) = packets(last);
        assert_eq!((found.len(), is_wrong), (count, false));
    }
    for seed in elections() {
        let found = election_of(pieces(&seed[1..], 1));
        assert!(found.initial.is_some() && !found.is_over, "{found:?}");
        assert_eq!(found.frames.len(), notifications().len());
    }
}
