//! Golden bytes of `quorum-and-disk.md` 12.1, round trips, every truncation, every chunking, noise.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::base::Str;
use crate::limits::{AUTHINFO_BYTES_MAX, AUTHINFO_IDS_MAX, RECORD_BYTES_MAX};
use crate::model::{ServerId, SessionId, Xid};
use crate::wire::tests::hex;

const EPOCH_1: Zxid = Zxid(1 << 32);

fn from_learner(packet: &LearnerPacket) -> Bytes {
    let mut buf = BytesMut::new();
    packet.encode(&mut buf);
    buf.freeze()
}

fn from_leader(packet: &LeaderPacket) -> Bytes {
    let mut buf = BytesMut::new();
    packet.encode(&mut buf);
    buf.freeze()
}

fn all_from_learner() -> Vec<LearnerPacket> {
    let info = LearnerInfo {
        sid: ServerId(2),
        protocol_version: PROTOCOL_VERSION,
        config_version: Some(0x1_0000_0000),
        is_ringkeeper: true,
        has_checksums: true,
    };
    let touch = Touch { session: SessionId(0x0100_0012_b55f_0000), timeout_ms: 20_000 };
    let id = Id { scheme: "ip".into(), id: "127.0.0.1".into() };
    let request = ForwardedRequest {
        session: touch.session,
        cxid: Xid(7),
        opcode: 9,
        body: Bytes::from_static(b"\0\0\0\x02/a"),
        authinfo: Some(vec![id.clone(), id]),
    };
    vec![
        LearnerPacket::Request(ForwardedRequest { authinfo: None, ..request.clone() }),
        LearnerPacket::Request(ForwardedRequest { body: Bytes::new(), ..request.clone() }),
        LearnerPacket::Request(request),
        LearnerPacket::Ack { zxid: EPOCH_1 },
        LearnerPacket::Ping { zxid: EPOCH_1, touches: vec![] },
        LearnerPacket::Ping { zxid: EPOCH_1, touches: vec![touch, touch] },
        LearnerPacket::Revalidate(touch),
        LearnerPacket::FollowerInfo { accepted_epoch: 0, info: Some(info) },
        LearnerPacket::FollowerInfo { accepted_epoch: -1, info: None },
        LearnerPacket::ObserverInfo {
            accepted_epoch: 7,
            info: Some(LearnerInfo {
                config_version: None,
                is_ringkeeper: false,
                has_checksums: false,
                ..info
            }),
        },
        LearnerPacket::ObserverInfo {
            accepted_epoch: 7,
            info: Some(LearnerInfo { has_checksums: false, ..info }),
        },
        LearnerPacket::AckEpoch { last_zxid: Zxid(-1), current_epoch: -1, cannot_cut: false },
        LearnerPacket::AckEpoch { last_zxid: Zxid(7), current_epoch: 1, cannot_cut: true },
    ]
}

fn all_from_leader() -> Vec<LeaderPacket> {
    let zxid = Zxid(0x1_0000_0003);
    let txn = Bytes::from_static(b"header, record, digest");
    let designated_leader = ServerId(3);
    vec![
        LeaderPacket::Proposal { zxid, txn: txn.clone() },
        LeaderPacket::Commit { zxid },
        LeaderPacket::Ping { zxid },
        LeaderPacket::Revalidate { session: SessionId(-5), is_valid: true },
        LeaderPacket::Sync,
        LeaderPacket::Inform { zxid, txn: txn.clone() },
        LeaderPacket::CommitAndActivate { zxid, designated_leader },
        LeaderPacket::NewLeader { epoch: 1, config: Some(Str::from("version=0")) },
        LeaderPacket::NewLeader { epoch: 1, config: None },
        LeaderPacket::UpToDate,
        LeaderPacket::Diff { zxid },
        LeaderPacket::Trunc { zxid },
        LeaderPacket::Snap { zxid },
        LeaderPacket::leader_info(1, false, false),
        LeaderPacket::leader_info(2, true, false),
        LeaderPacket::leader_info(3, true, true),
        LeaderPacket::InformAndActivate { zxid, designated_leader, txn },
    ]
}

/// Both directions in one stream.
fn whole_stream() -> (Bytes, usize) {
    let learner = all_from_learner();
    let leader = all_from_leader();
    let count = learner.len() + leader.len();
    let mut bytes = BytesMut::new();
    learner.iter().for_each(|packet| packet.encode(&mut bytes));
    leader.iter().for_each(|packet| packet.encode(&mut bytes));
    (bytes.freeze(), count)
}

fn one(bytes: &Bytes) -> QuorumPacket {
    let mut stream = PacketStream::default();
    stream.push(bytes.clone());
    let packet = stream.next_packet().unwrap().unwrap();
    assert_eq!(stream.buffered(), 0);
    packet
}

/// What can be read as a packet when one bit is changed, with the bit.
fn with_one_changed_bit(sent: &Bytes) -> impl Iterator<Item = (usize, QuorumPacket)> {
    (0..8 * sent.len()).filter_map(|bit| {
        let mut damaged = sent.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut stream = PacketStream::default();
        stream.push(damaged.into());
        Some((bit, stream.next_packet().ok()??))
    })
}

#[test]
fn a_greeting_with_one_changed_bit_is_not_that_of_another_learner() {
    let greeting = &all_from_learner()[7];
    let mut passed = 0;
    for (bit, packet) in with_one_changed_bit(&from_learner(greeting)) {
        match LearnerPacket::decode(&packet) {
            Ok(Some(heard)) if heard == *greeting => {}
            Ok(Some(
                LearnerPacket::FollowerInfo { info: Some(heard), .. }
                | LearnerPacket::ObserverInfo { info: Some(heard), .. },
            )) => {
                assert!(!heard.is_ringkeeper, "bit {bit}: {packet:?}");
                passed += 1;
            }
            // A bit of the identities, which nobody reads, or another packet.
            Ok(_) | Err(_) => {}
        }
    }
    assert_eq!(passed, 32, "only a damaged mark hides the damage");
}

/// What is promised to a leader cannot be taken back.
#[test]
fn a_leaders_first_packet_with_one_changed_bit_asks_for_no_other_epoch() {
    let sent = from_leader(&LeaderPacket::leader_info(2, true, true));
    for (bit, packet) in with_one_changed_bit(&sent) {
        if let Ok(Some(LeaderPacket::LeaderInfo { epoch, .. })) = LeaderPacket::decode(&packet) {
            assert_eq!(epoch, 2, "bit {bit}: {packet:?}");
        }
    }
}

#[test]
fn packets_of_learners_are_golden() {
    let info = LearnerInfo {
        sid: ServerId(2),
        protocol_version: 0x10000,
        config_version: Some(0),
        is_ringkeeper: false,
        has_checksums: false,
    };
    for (packet, bytes) in [
        (
            LearnerPacket::FollowerInfo { accepted_epoch: 0, info: Some(info) },
            "0000000b 0000000000000000 00000014
             0000000000000002 00010000 0000000000000000 ffffffff",
        ),
        (
            LearnerPacket::FollowerInfo {
                accepted_epoch: 0,
                info: Some(LearnerInfo { is_ringkeeper: true, has_checksums: true, ..info }),
            },
            "0000000b 0000000000000000 0000001c
             0000000000000002 00010000 0000000000000000 524b5031 fcdee485 ffffffff",
        ),
        (
            LearnerPacket::AckEpoch { last_zxid: Zxid(0), current_epoch: 0, cannot_cut: false },
            "00000012 0000000000000000 00000004 00000000 ffffffff",
        ),
        (LearnerPacket::Ack { zxid: EPOCH_1 }, "00000003 0000000100000000 ffffffff ffffffff"),
        (
            LearnerPacket::Ping { zxid: EPOCH_1, touches: vec![] },
            "00000005 0000000100000000 00000000 ffffffff",
        ),
    ] {
        assert_eq!(from_learner(&packet), hex(bytes), "{packet:?}");
        assert_eq!(LearnerPacket::decode(&one(&hex(bytes))), Ok(Some(packet)));
    }
}

#[test]
fn packets_of_leaders_are_golden() {
    let zxid = Zxid(0x1_0000_0002);
    for (packet, bytes) in [
        (
            LeaderPacket::leader_info(1, false, false),
            "00000011 0000000100000000 00000004 00010000 ffffffff",
        ),
        (
            LeaderPacket::leader_info(1, true, false),
            "00000011 0000000100000000 00000008 00010000 524b5031 ffffffff",
        ),
        (
            LeaderPacket::leader_info(1, true, true),
            "00000011 0000000100000000 0000000c 00010000 524b5031 bd05b80a ffffffff",
        ),
        (
            LeaderPacket::NewLeader { epoch: 1, config: Some(Str::from("version=0")) },
            "0000000a 0000000100000000 00000009 76657273696f6e3d30 ffffffff",
        ),
        (LeaderPacket::UpToDate, "0000000c ffffffffffffffff ffffffff ffffffff"),
        (
            LeaderPacket::CommitAndActivate { zxid, designated_leader: ServerId(3) },
            "00000009 0000000100000002 00000008 0000000000000003 ffffffff",
        ),
        (LeaderPacket::Sync, "00000007 0000000000000000 ffffffff ffffffff"),
    ] {
        assert_eq!(from_leader(&packet), hex(bytes), "{packet:?}");
        assert_eq!(LeaderPacket::decode(&one(&hex(bytes))), Ok(Some(packet)));
    }
}

#[test]
fn every_packet_comes_back_in_its_own_direction_only() {
    for packet in all_from_learner() {
        let raw = one(&from_learner(&packet));
        assert_eq!(LearnerPacket::decode(&raw), Ok(Some(packet)));
    }
    for packet in all_from_leader() {
        let raw = one(&from_leader(&packet));
        assert_eq!(LeaderPacket::decode(&raw), Ok(Some(packet)));
    }
    let both = [packet_type::PING, packet_type::REVALIDATE];
    for packet_type in (-1..22).filter(|number| !both.contains(number)) {
        let data = Some(Bytes::from_static(&[0; 20]));
        let raw = QuorumPacket { packet_type, zxid: Zxid(0), data, authinfo: None };
        let learner = LearnerPacket::decode(&raw).unwrap().is_some();
        let leader = LeaderPacket::decode(&raw).unwrap().is_some();
        assert!(!(learner && leader), "{packet_type}");
        assert_eq!(learner || leader, (1..20).contains(&packet_type), "{packet_type}");
    }
}

#[test]
fn learners_may_leave_out_what_came_later() {
    for (data, expected) in [
        ("0000000000000002", Some((1, None))),
        ("0000000000000002 00010000", Some((0x10000, None))),
        ("0000000000000002 00010000 000000", Some((0x10000, None))),
        ("0000000000000002 00010000 0000000000000005", Some((0x10000, Some(5)))),
        ("00000000000002", None),
    ] {
        let data = Some(hex(data));
        let packet_type = packet_type::FOLLOWERINFO;
        let raw = QuorumPacket { packet_type, zxid: Zxid(0), data, authinfo: None };
        let found = LearnerPacket::decode(&raw).ok().flatten().map(|packet| match packet {
            LearnerPacket::FollowerInfo { info: Some(info), .. } => {
                (info.protocol_version, info.config_version)
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(found, expected);
    }
}

#[test]
fn data_that_are_cut_name_their_field() {
    let cut = |packet: QuorumPacket, len: usize| {
        let data = packet.data.clone().map(|data| data.slice(..len.min(data.len())));
        QuorumPacket { data, ..packet }
    };
    for packet in all_from_learner() {
        let raw = one(&from_learner(&packet));
        let whole = raw.data.as_ref().map_or(0, Bytes::len);
        for len in 0..whole {
            // It is an error or a shorter form, and no panic.
            let _ = LearnerPacket::decode(&cut(raw.clone(), len));
        }
    }
    let raw = one(&from_learner(&all_from_learner()[2]));
    let error = LearnerPacket::decode(&cut(raw, 13)).unwrap_err();
    assert_eq!((error.at, error.field), (12, "type"));
    let raw =
        one(&from_leader(&LeaderPacket::Revalidate { session: SessionId(1), is_valid: false }));
    assert_eq!(LeaderPacket::decode(&cut(raw.clone(), 8)).unwrap_err().field, "valid");
    let null = LeaderPacket::decode(&QuorumPacket { data: None, ..raw }).unwrap_err();
    assert_eq!(null.kind, DecodeErrorKind::Null);
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let (bytes, count) = whole_stream();
    for cut in 0..=bytes.len() {
        let mut stream = PacketStream::default();
        let mut found = 0;
        for part in [bytes.slice(..cut), bytes.slice(cut..)] {
            stream.push(part);
            while stream.next_packet().unwrap().is_some() {
                found += 1;
            }
        }
        assert_eq!((found, stream.buffered()), (count, 0), "cut at {cut}");
    }
}

#[test]
fn bytes_behind_a_snap_packet_are_handed_over_and_back() {
    let snap = from_leader(&LeaderPacket::Snap { zxid: EPOCH_1 });
    let uptodate = from_leader(&LeaderPacket::UpToDate);
    let mut stream = PacketStream::default();
    stream.push([&snap[..], b"a snapshot", &uptodate[..5]].concat().into());
    let first = stream.next_packet().unwrap().unwrap();
    assert_eq!(LeaderPacket::decode(&first), Ok(Some(LeaderPacket::Snap { zxid: EPOCH_1 })));
    let mut rest = stream.take_rest();
    rest.advance(b"a snapshot".len());
    stream.push(rest);
    stream.push(uptodate.slice(5..));
    let next = stream.next_packet().unwrap().unwrap();
    assert_eq!(LeaderPacket::decode(&next), Ok(Some(LeaderPacket::UpToDate)));
}

#[test]
fn lengths_are_bounded_before_anything_is_kept() {
    let head = |len: i32| {
        let mut bytes = BytesMut::new();
        bytes.put_i32(packet_type::PROPOSAL);
        bytes.put_i64(1);
        bytes.put_i32(len);
        bytes.freeze()
    };
    let result = |bytes: Bytes| {
        let mut stream = PacketStream::default();
        stream.push(bytes);
        stream.next_packet().map(|packet| packet.is_some())
    };
    let max = i32::try_from(RECORD_BYTES_MAX + DATA_HEAD_BYTES_MAX).unwrap();
    assert_eq!(result(head(max)), Ok(false));
    for len in [max + 1, -2, i32::MIN, i32::MAX] {
        let error = result(head(len)).unwrap_err();
        assert_eq!((error.at, error.kind), (12, DecodeErrorKind::Length(len)));
    }
    let with_authinfo = |words: &[i32]| {
        let mut bytes = BytesMut::from(&head(-1)[..]);
        words.iter().for_each(|word| bytes.put_i32(*word));
        bytes.freeze()
    };
    assert_eq!(result(with_authinfo(&[-7])), Ok(true));
    assert_eq!(result(with_authinfo(&[1, -1, -1])), Ok(true));
    assert_eq!(result(with_authinfo(&[i32::MAX])), Ok(false));
    assert_eq!(result(with_authinfo(&[1, -2])).unwrap_err().at, 20);
    assert_eq!(result(with_authinfo(&[1, 5 << 20])).unwrap_err().at, 20);
    // Apache's servers forward as many as their clients have proved.
    let mut words = vec![-1; 1 + 2 * (AUTHINFO_IDS_MAX + 1)];
    words[0] = i32::try_from(AUTHINFO_IDS_MAX + 1).unwrap();
    let packet = QuorumPacket::decode(&mut Reader::new(&with_authinfo(&words))).unwrap();
    assert_eq!(packet.authinfo.unwrap().len(), AUTHINFO_IDS_MAX);
    words.resize(AUTHINFO_BYTES_MAX / 4 + 2, -1);
    words[0] = i32::MAX;
    assert_eq!(result(with_authinfo(&words)).unwrap_err().at, 16);
}

/// What the settings allow a txn and a request passes between servers, with what stands in front.
#[test]
fn packets_hold_the_longest_txn_and_the_longest_request() {
    let longest = Bytes::from(vec![b'x'; 2 * RECORD_BYTES_MAX]);
    let mut bytes = BytesMut::new();
    LeaderPacket::InformAndActivate {
        zxid: Zxid::new(1, 1),
        designated_leader: ServerId(1),
        txn: longest.clone(),
    }
    .encode(&mut bytes);
    let request = ForwardedRequest {
        session: SessionId(1),
        cxid: Xid(1),
        opcode: 1,
        body: longest.clone(),
        authinfo: None,
    };
    LearnerPacket::Request(request).encode(&mut bytes);
    let bytes = bytes.freeze();
    let mut stream = PacketStream::new(longest.len());
    stream.push(bytes.clone());
    assert!(stream.next_packet().unwrap().is_some());
    assert!(stream.next_packet().unwrap().is_some());
    // The first one has 8 bytes in front of the txn, the second one 16.
    let mut stream = PacketStream::new(longest.len() - 8);
    stream.push(bytes);
    assert!(stream.next_packet().unwrap().is_some());
    let error = stream.next_packet().unwrap_err();
    assert!(matches!(error.kind, DecodeErrorKind::Length(_)), "{error}");
}

/// The txn log's batches hold such bytes, and are sent as they are.
#[test]
fn proposals_follow_each_other_without_framing() {
    let bytes = "00000002 0000000100000001 00000003 747831 ffffffff
        00000002 0000000100000002 00000003 747832 ffffffff";
    let mut stream = PacketStream::default();
    stream.push(hex(bytes));
    for counter in 1..3 {
        let packet = stream.next_packet().unwrap().unwrap();
        let txn = Bytes::from(format!("tx{counter}"));
        let expected = LeaderPacket::Proposal { zxid: Zxid::new(1, counter), txn };
        assert_eq!(LeaderPacket::decode(&packet), Ok(Some(expected)));
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks_are_packets_or_an_error(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20),
    ) {
        let mut stream = PacketStream::default();
        for chunk in chunks {
            stream.push(chunk.into());
            while let Ok(Some(packet)) = stream.next_packet() {
                let _ = LearnerPacket::decode(&packet);
                let _ = LeaderPacket::decode(&packet);
            }
        }
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..900, flip in 1u8..) {
        let (bytes, _) = whole_stream();
        let mut bytes = bytes.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let mut stream = PacketStream::default();
        stream.push(bytes.into());
        while let Ok(Some(packet)) = stream.next_packet() {
            let _ = LearnerPacket::decode(&packet);
            let _ = LeaderPacket::decode(&packet);
        }
    }
}
