//! Between two Ringkeepers one ACK and one COMMIT stand for all txns before them; Apache's servers
//! are told of each.

use super::leader_tests::{Led, zxid};
use super::learner::Output;
use super::learner_tests::Following;
use crate::model::Zxid;
use crate::wire::quorum::{LeaderPacket, LearnerPacket};

#[test]
fn a_leader_tells_ringkeepers_only_the_last_commit() {
    let told_commits = |of_ringkeepers: bool| -> Vec<Zxid> {
        let mut led = Led { of_ringkeepers, ..Led::new() }.establish();
        (1..=3).for_each(|counter| led.propose(counter));
        led.flushed(3);
        led.acks(2, zxid(3));
        let commits = led.said(2).into_iter().filter_map(|packet| match packet {
            LeaderPacket::Commit { zxid } => Some(zxid),
            _ => None,
        });
        commits.collect()
    };
    assert_eq!(told_commits(false), [zxid(1), zxid(2), zxid(3)]);
    assert_eq!(told_commits(true), [zxid(3)]);
}

#[test]
fn a_learner_acknowledges_only_the_last_txn_to_a_ringkeeper() {
    let acknowledged = |is_ringkeeper: bool| -> Vec<Zxid> {
        let mut following = Following::serving_under(is_ringkeeper);
        (1..=3).for_each(|counter| following.proposed(zxid(counter)));
        following.learner.flushed(zxid(3), &mut following.out);
        let acks = following.take().into_iter().filter_map(|output| match output {
            Output::Send(LearnerPacket::Ack { zxid }) => Some(zxid),
            _ => None,
        });
        acks.collect()
    };
    assert_eq!(acknowledged(false), [zxid(1), zxid(2), zxid(3)]);
    assert_eq!(acknowledged(true), [zxid(3)]);
}
