//! What a leader that is not established yet sends a learner: all of its log is history, whatever
//! it knows to be committed. A learner may have acknowledged more, and must not be without it for a
//! moment: its connection may end there.

use bytes::{Bytes, BytesMut};

use super::Ensemble;
use super::testing::{Following, SHORT};
use crate::config;
use crate::model::{EnsembleConfigs, ServerId, SessionId, Xid, Zxid};
use crate::server::contract::{PeerInput, PeerLink, PeerPort};
use crate::wire::jute::Reader;
use crate::wire::opcode;
use crate::wire::quorum::{
    ForwardedRequest, LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION, QuorumPacket,
};
use crate::zab::leader::LinkId;

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

fn hears(member: &mut Following, link: PeerLink, packet: &LearnerPacket) {
    let mut bytes = BytesMut::new();
    packet.encode(&mut bytes);
    let received = PeerInput::Received { link, bytes: bytes.freeze() };
    member.step(|ensemble, cx| ensemble.on_peer(cx, received));
    member.write_all();
}

/// A learner comes whose log ends with `last_zxid`.
fn is_greeted(member: &mut Following, link: PeerLink, sid: i64, last_zxid: Zxid) {
    let info = Some(LearnerInfo {
        sid: ServerId(sid),
        protocol_version: PROTOCOL_VERSION,
        config_version: Some(0),
        is_ringkeeper: false,
        has_checksums: false,
    });
    let accepted = PeerInput::Accepted { port: PeerPort::Quorum, link };
    member.step(|ensemble, cx| ensemble.on_peer(cx, accepted));
    hears(member, link, &LearnerPacket::FollowerInfo { accepted_epoch: 1, info });
    let promise = LearnerPacket::AckEpoch { last_zxid, current_epoch: 1, cannot_cut: false };
    hears(member, link, &promise);
    member.read_all();
    // What is applied ahead is in the next turn.
    for _ in 0..2 {
        member.step(|_, _| ());
    }
}

/// What a learner is told first whose log ends with `last_zxid`.
fn way_of(member: &mut Following, last_zxid: Zxid) -> LeaderPacket {
    is_greeted(member, LEARNER, 2, last_zxid);
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

/// A leader has more in its log than is committed, and none of that in memory.
#[test]
fn who_lacks_nothing_leaves_no_look_up_behind() {
    let mut member = elected();
    let last = Zxid::new(1, 3);
    way_of(&mut member, last);
    hears(&mut member, LEARNER, &LearnerPacket::Ack { zxid: Zxid::new(2, 0) });
    assert_eq!(member.ensemble.mode(), Some("leader"));
    let request = ForwardedRequest {
        session: SessionId(9),
        cxid: Xid(1),
        opcode: opcode::CREATE_SESSION,
        body: Bytes::from_static(&[0, 0, 0, 9]),
        authinfo: None,
    };
    member.step(|_, cx| cx.pipeline.submit_forwarded(cx.clock, LinkId(LEARNER.0), request));
    member.write_all();
    assert!(last < member.pipeline.last_logged() && member.pipeline.committed_zxid() == last);
    is_greeted(&mut member, PeerLink(21), 3, last);
    assert!(member.said.contains_key(&PeerLink(21)));
    assert!(!member.ensemble.has_history_to_send());
}
