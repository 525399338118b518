//! What a leader that is not established yet sends a learner: all of its log is history, whatever
//! it knows to be committed. A learner may have acknowledged more, and must not be without it for a
//! moment: its connection may end there.

use bytes::BytesMut;

use super::Ensemble;
use super::testing::{Following, SHORT};
use crate::config;
use crate::model::{EnsembleConfigs, ServerId, Zxid};
use crate::server::contract::{PeerInput, PeerLink, PeerPort};
use crate::wire::jute::Reader;
use crate::wire::quorum::{
    LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION, QuorumPacket,
};

const LEARNER: PeerLink = PeerLink(20);

/// A member that has logged three txns, knows the first to be committed, and is elected.
fn elected() -> Following {
    let mut member = Following::new();
    let lines = "server.1=h:1:2\nserver.2=g:1:2\nserver.3=i:1:2";
    let config = config::ensemble::parse(lines, "list").unwrap();
    member.ensemble.configs = EnsembleConfigs::settled(config);
    for _ in 0..3 {
        member.proposed(SHORT);
    }
    member.hears(&LeaderPacket::Commit { zxid: Zxid::new(1, 1) });
    member.write_all();
    member.step(Ensemble::end_role);
    assert_eq!(member.pipeline.tree().last_zxid(), Zxid::new(1, 1));
    member.step(Ensemble::lead);
    member
}

/// What a learner is told first whose log ends with `last_zxid`.
fn way_of(member: &mut Following, last_zxid: Zxid) -> LeaderPacket {
    let info = Some(LearnerInfo {
        sid: ServerId(2),
        protocol_version: PROTOCOL_VERSION,
        config_version: Some(0),
        is_ringkeeper: false,
        has_checksums: false,
    });
    let port = PeerPort::Quorum;
    let accepted = PeerInput::Accepted { port, link: LEARNER };
    member.step(|ensemble, cx| ensemble.on_peer(cx, accepted));
    for packet in [
        LearnerPacket::FollowerInfo { accepted_epoch: 1, info },
        LearnerPacket::AckEpoch { last_zxid, current_epoch: 1, cannot_cut: false },
    ] {
        let mut bytes = BytesMut::new();
        packet.encode(&mut bytes);
        let received = PeerInput::Received { link: LEARNER, bytes: bytes.freeze() };
        member.step(|ensemble, cx| ensemble.on_peer(cx, received));
        member.write_all();
    }
    member.read_all();
    // What is applied ahead is in the next turn.
    for _ in 0..2 {
        member.step(|_, _| ());
    }
    let said = member.said.remove(&LEARNER).unwrap_or_default().freeze();
    let mut reader = Reader::new(&said);
    let mut packet = || {
        let packet = QuorumPacket::decode(&mut reader).expect("a packet");
        LeaderPacket::decode(&packet).expect("it decodes").expect("it is known")
    };
    assert!(matches!(packet(), LeaderPacket::LeaderInfo { .. }));
    packet()
}

/// The log cannot be read.
#[test]
fn a_snapshot_has_all_of_the_log() {
    let mut member = elected();
    member.files.clear();
    let way = way_of(&mut member, Zxid::new(1, 2));
    assert_eq!(way, LeaderPacket::Snap { zxid: Zxid::new(1, 3) });
    assert_eq!(member.pipeline.committed_zxid(), Zxid::new(1, 1), "no quorum need have it");
}

/// None of the log is in memory.
#[test]
fn nothing_of_the_log_is_cut_off_a_learner() {
    for counter in 1..=3 {
        let mut member = elected();
        let way = way_of(&mut member, Zxid::new(1, counter));
        assert_eq!(way, LeaderPacket::Diff { zxid: Zxid::new(1, 3) }, "{counter}");
    }
}
