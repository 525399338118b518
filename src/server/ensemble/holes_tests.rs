//! What an Apache leader keeps in memory for DIFF can have holes. A learner that meets one asks for
//! everything when it comes again, and no longer when it has followed a leader.

use super::testing::{Following, LINK, SHORT};
use super::{Ensemble, Role};
use crate::base::Duration;
use crate::model::Zxid;
use crate::wire::jute::Reader;
use crate::wire::quorum::{LeaderPacket, LearnerPacket, QuorumPacket};

/// What the member tells an Apache leader of the end of its log.
fn told_apache(member: &mut Following, epoch: i32) -> Zxid {
    member.learns(Duration::default());
    member.said.clear();
    member.hears(&LeaderPacket::leader_info(epoch, false, false));
    member.write_all();
    let said = member.said.remove(&LINK).expect("it promises").freeze();
    let packet = QuorumPacket::decode(&mut Reader::new(&said)).expect("a packet");
    match LearnerPacket::decode(&packet).expect("it decodes") {
        Some(LearnerPacket::AckEpoch { last_zxid, .. }) => last_zxid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn after_a_hole_everything_is_asked_for_until_a_leader_is_followed() {
    let mut member = Following::new();
    for _ in 0..3 {
        member.proposed(SHORT);
    }
    member.write_all();
    member.step(Ensemble::end_role);
    let last = Zxid::new(1, 3);
    assert_eq!(told_apache(&mut member, 2), last);
    member.hears(&LeaderPacket::Diff { zxid: Zxid::new(1, 6) });
    member.sent += 1;
    member.proposed(SHORT);
    assert!(!matches!(member.ensemble.role, Role::Learning(_)), "{:?}", member.ensemble.role);
    for epoch in [3, 4] {
        assert_eq!(told_apache(&mut member, epoch), Zxid(-1));
        member.step(Ensemble::end_role);
    }
    member.learns(Duration::default());
    member.is_led_in(5);
    member.step(Ensemble::end_role);
    assert_eq!(told_apache(&mut member, 6), last);
}
