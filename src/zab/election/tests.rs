//! The claims of `quorum-and-disk.md` part 2, one test each.

use super::*;
use crate::model::{Member, QuorumRule, ServerAddress};

pub(super) const NOW: Instant = Instant(1_000_000_000);

pub(super) fn members(participants: i64, observers: i64) -> EnsembleConfig {
    let member = |sid: i64| Member {
        addresses: vec![ServerAddress { host: "h".into(), quorum_port: 1, election_port: 2 }],
        learner_type: [LearnerType::Participant, LearnerType::Observer]
            [usize::from(participants < sid)],
        client: None,
        secure_client: None,
    };
    let members = (1..=participants + observers).map(|sid| (ServerId(sid), member(sid)));
    EnsembleConfig { members: members.collect(), ..Default::default() }
}

/// A server of an ensemble of three voters and one observer (4), looking in round 1.
fn looking(me: i64, zxid: i64) -> Election {
    started(me, EnsembleConfigs::settled(members(3, 1)), Some(end(1, zxid)))
}

pub(super) fn started(me: i64, configs: EnsembleConfigs, durable: Option<HistoryEnd>) -> Election {
    let mut election = Election::new(ServerId(me), configs, true);
    election.look(NOW, durable);
    election
}

pub(super) fn end(current_epoch: u32, last_zxid: i64) -> HistoryEnd {
    HistoryEnd { current_epoch, last_zxid: Zxid(last_zxid) }
}

pub(super) fn vote(leader: i64, zxid: i64) -> Vote {
    Vote { peer_epoch: 1, zxid: Zxid(zxid), leader: ServerId(leader) }
}

pub(super) fn says(state: ServerState, vote: Vote, round: i64) -> Notification {
    Notification { state, vote, round, format_version: 2, config: None, proposed: None }
}

/// What was sent: to whom, in which state, which vote and round.
pub(super) fn sent(election: &mut Election) -> Vec<(i64, ServerState, Vote, i64)> {
    outputs(election)
        .into_iter()
        .filter_map(|output| match output {
            ElectionOutput::Send { to, notification: n } => Some((to.0, n.state, n.vote, n.round)),
            _ => None,
        })
        .collect()
}

pub(super) fn decided(election: &mut Election) -> Option<(ServerState, i64)> {
    outputs(election).into_iter().find_map(|output| match output {
        ElectionOutput::Decided(decision) => Some((decision.state, decision.vote.leader.0)),
        _ => None,
    })
}

pub(super) fn outputs(election: &mut Election) -> Vec<ElectionOutput> {
    std::iter::from_fn(|| election.poll_output()).collect()
}

pub(super) fn hear(election: &mut Election, from: i64, notification: &Notification) {
    election.on_notification(NOW, ServerId(from), notification);
}

use ServerState::{Following, Leading, Looking, Observing};

/// 2.1: the round grows at each entry; 2.3: the first vote goes to every voter.
#[test]
fn looking_begins_a_round_with_a_vote_for_oneself() {
    let mut election = looking(1, 7);
    let first = (Looking, vote(1, 7), 1);
    assert_eq!(
        sent(&mut election),
        [2, 3].map(|to| (to, first.0, first.1, first.2)),
        "observers are not told"
    );
    election.look(NOW, Some(end(1, 8)));
    assert_eq!(sent(&mut election), [2, 3].map(|to| (to, Looking, vote(1, 8), 2)));
}

/// 2.1: the votes of those that may not lead, or do not know what they knew.
#[test]
fn who_may_not_lead_does_not_vote_for_itself() {
    let mut observer = looking(4, 7);
    assert_eq!(sent(&mut observer)[0], (1, Looking, Vote::NONE, 1));
    let mut joiner = looking(9, 7);
    let leaderless = Vote { leader: ServerId::NONE, ..vote(0, 7) };
    assert_eq!(sent(&mut joiner)[0], (1, Looking, leaderless, 1));
    let mut wiped = started(2, EnsembleConfigs::settled(members(3, 0)), None);
    let unknown = Vote { peer_epoch: -1, zxid: Zxid(-1), leader: ServerId(2) };
    assert_eq!(sent(&mut wiped)[0], (1, Looking, unknown, 1));
}

/// 2.1: votes compare by epoch, then zxid, then sid, each signed.
#[test]
fn votes_are_ordered_by_epoch_zxid_and_sid() {
    let other =
        |peer_epoch, zxid, leader| Vote { peer_epoch, zxid: Zxid(zxid), leader: ServerId(leader) };
    let ascending = [
        Vote::NONE,
        other(-1, -1, 9),
        other(0, 9, 1),
        other(1, 2, 3),
        other(1, 3, 2),
        other(1, 3, 4),
        other(2, -5, 1),
    ];
    assert!(ascending.is_sorted());
}

/// 2.3: a better vote of the round is adopted and told to all; a worse one is only counted.
#[test]
fn a_better_vote_is_adopted() {
    let mut election = looking(1, 7);
    sent(&mut election);
    hear(&mut election, 2, &says(Looking, vote(2, 6), 1));
    assert_eq!(sent(&mut election), []);
    hear(&mut election, 2, &says(Looking, vote(3, 7), 1));
    assert_eq!(sent(&mut election), [2, 3].map(|to| (to, Looking, vote(3, 7), 1)));
}

/// 2.3: a later round is joined with the better of the vote and one's own; the earlier round's
/// votes are forgotten.
#[test]
fn a_later_round_is_joined() {
    let mut election = looking(2, 7);
    election.on_connected(ServerId(1));
    hear(&mut election, 3, &says(Looking, vote(3, 9), 1));
    sent(&mut election);
    hear(&mut election, 1, &says(Looking, vote(1, 5), 4));
    assert_eq!(election.round(), 4);
    assert_eq!(sent(&mut election), [1, 3].map(|to| (to, Looking, vote(2, 7), 4)));
    assert!(!election.received.contains(ServerId(3)));
}

/// 2.3 and 2.4: an earlier round's vote is not counted, and answered with the present proposal.
#[test]
fn an_earlier_round_is_answered_and_dropped() {
    let mut election = looking(1, 7);
    election.on_connected(ServerId(2));
    hear(&mut election, 3, &says(Looking, vote(2, 9), 5));
    sent(&mut election);
    hear(&mut election, 2, &says(Looking, vote(3, 99), 4));
    assert_eq!(sent(&mut election), [(2, Looking, vote(2, 9), 5)]);
    assert!(!election.received.contains(ServerId(2)));
}

/// 2.3: votes from or for servers that are voters of no configuration do not count.
#[test]
fn strangers_are_neither_counted_nor_elected() {
    let mut election = looking(1, 7);
    sent(&mut election);
    hear(&mut election, 2, &says(Looking, vote(9, 99), 1));
    hear(&mut election, 2, &says(Looking, vote(4, 99), 1));
    hear(&mut election, 2, &says(Leading, vote(9, 99), 1));
    assert_eq!(sent(&mut election), []);
    assert_eq!(election.proposal, vote(1, 7));
}

/// 2.1: a candidate of weight 0 never wins.
#[test]
fn a_server_without_weight_is_never_elected() {
    let mut config = members(3, 0);
    config.quorum = QuorumRule::Hierarchical {
        groups: (1..4).map(|sid| (ServerId(sid), 1)).collect(),
        weights: [(1, 1), (2, 1), (3, 0)].map(|(sid, weight)| (ServerId(sid), weight)).into(),
    };
    let mut election = started(1, EnsembleConfigs::settled(config), Some(end(1, 7)));
    hear(&mut election, 3, &says(Looking, vote(3, 99), 1));
    assert_eq!(election.proposal, vote(1, 7));
    hear(&mut election, 3, &says(Looking, vote(3, 99), 2));
    assert_eq!((election.proposal, election.round), (vote(1, 7), 2));
}

/// 2.1: while a configuration is pending, a quorum of both is needed, and voters of both count.
#[test]
fn both_configurations_elect() {
    let last_seen = EnsembleConfig { version: 9, ..members(5, 0) };
    let configs = EnsembleConfigs { committed: members(3, 2), last_seen };
    let mut election = started(1, configs, Some(end(1, 7)));
    assert_eq!(sent(&mut election).len(), 4);
    hear(&mut election, 2, &says(Looking, vote(5, 7), 1));
    hear(&mut election, 5, &says(Looking, vote(5, 7), 1));
    assert_eq!(decided(&mut election), Some((Following, 5)));
}

/// 2.3: a proposed configuration that the others never heard of does not keep a server away from
/// their leader, but it leads nobody by their word.
#[test]
fn a_leader_is_joined_by_the_word_of_one_configuration() {
    let last_seen = EnsembleConfig { version: 9, ..members(2, 0) };
    let configs = EnsembleConfigs { committed: members(5, 0), last_seen };
    let mut election = started(2, configs.clone(), Some(end(1, 7)));
    hear(&mut election, 3, &says(Following, vote(5, 5), 4));
    hear(&mut election, 4, &says(Following, vote(5, 5), 4));
    assert_eq!(decided(&mut election), None, "the leader has not spoken");
    hear(&mut election, 5, &says(Leading, vote(5, 5), 4));
    assert_eq!(decided(&mut election), Some((Following, 5)), "server 1 need not follow");
    let mut election = started(2, configs, Some(end(1, 7)));
    for from in [3, 4, 5] {
        hear(&mut election, from, &says(Following, vote(2, 7), 1));
    }
    assert_eq!(decided(&mut election), None, "both are asked who is to lead");
}

/// 2.3 and 9.3: a server that lost its database neither votes nor hears votes; it joins.
#[test]
fn a_wiped_server_only_joins() {
    let mut wiped = started(1, EnsembleConfigs::settled(members(3, 0)), None);
    for from in [2, 3] {
        hear(&mut wiped, from, &says(Looking, vote(3, 7), 1));
    }
    // Not even those who elected it before make it lead.
    for from in [2, 3] {
        hear(&mut wiped, from, &says(Following, vote(1, 7), 1));
    }
    assert_eq!(decided(&mut wiped), None);
    let mut election = looking(2, 7);
    sent(&mut election);
    let unknown = Vote { peer_epoch: -1, zxid: Zxid(-1), leader: ServerId(3) };
    hear(&mut election, 3, &says(Looking, unknown, 5));
    assert_eq!((election.round, sent(&mut election).len()), (1, 0));
    hear(&mut wiped, 2, &says(Following, vote(3, 7), 4));
    hear(&mut wiped, 3, &says(Leading, vote(3, 7), 4));
    assert_eq!(decided(&mut wiped), Some((Following, 3)));
}

/// The final wait ends at once when nobody with a connection is left to be heard.
#[test]
fn the_wait_ends_when_all_connected_voters_have_voted() {
    let mut election = looking(2, 7);
    election.on_connected(ServerId(1));
    election.on_connected(ServerId(3));
    hear(&mut election, 1, &says(Looking, vote(2, 7), 1));
    assert_eq!(decided(&mut election), None);
    assert_eq!(election.next_timeout(), Some(NOW + ELECTION_QUIET));
    hear(&mut election, 3, &says(Looking, vote(2, 7), 1));
    assert_eq!(decided(&mut election), Some((Leading, 2)));
    assert_eq!(election.next_timeout(), None);
}

/// It ends, too, when a connection does, and after a few milliseconds in any case.
#[test]
fn the_wait_ends_with_a_connection_or_after_a_while() {
    for by_timeout in [false, true] {
        let mut election = looking(2, 7);
        election.on_connected(ServerId(3));
        hear(&mut election, 1, &says(Looking, vote(2, 7), 1));
        // What brings nothing new does not prolong it.
        election.on_notification(NOW + Duration(1), ServerId(1), &says(Looking, vote(2, 7), 1));
        assert_eq!(decided(&mut election), None);
        if by_timeout {
            election.on_timeout(NOW + ELECTION_QUIET);
        } else {
            election.on_disconnected(NOW, ServerId(3));
        }
        assert_eq!(decided(&mut election), Some((Leading, 2)));
    }
}

/// 2.3, drain: a better vote during the final wait starts the counting again.
#[test]
fn a_better_vote_during_the_wait_is_adopted() {
    let mut election = looking(2, 7);
    election.on_connected(ServerId(3));
    hear(&mut election, 1, &says(Looking, vote(2, 7), 1));
    hear(&mut election, 3, &says(Looking, vote(3, 8), 1));
    election.on_timeout(NOW + ELECTION_QUIET);
    // Two agree: this server and the better one. The third has not changed its vote yet.
    assert_eq!(decided(&mut election), Some((Following, 3)));
}

/// 2.3: OBSERVING notifications are dropped.
#[test]
fn observers_are_not_counted() {
    let mut election = looking(1, 7);
    sent(&mut election);
    hear(&mut election, 2, &says(Observing, vote(3, 99), 1));
    assert_eq!(sent(&mut election), []);
    assert!(!election.received.contains(ServerId(2)) && !election.outside.contains(ServerId(2)));
}

/// 2.2 and 2.3: votes of the round for a leader count whatever zxid they tell, once it leads.
#[test]
fn a_leader_of_this_round_is_joined_when_it_leads() {
    let mut election = looking(1, 7);
    hear(&mut election, 2, &says(Following, vote(3, 8), 1));
    assert_eq!(decided(&mut election), None);
    hear(&mut election, 3, &says(Leading, vote(3, 9), 1));
    assert_eq!(decided(&mut election), Some((Following, 3)));
    assert_eq!(election.current.vote, vote(3, 9));
}

/// 2.3, leaderOK: servers that still follow a crashed leader do not elect it again.
#[test]
fn a_leader_that_does_not_lead_is_not_joined() {
    let mut election = looking(1, 7);
    for from in [2, 3] {
        hear(&mut election, from, &says(Following, vote(3, 8), 5));
    }
    assert_eq!(decided(&mut election), None);
}

/// 2.3, leaderOK: a server leads by the votes of others only in the round that they mean.
#[test]
fn one_leads_by_the_votes_of_followers_only_in_their_round() {
    for (round, expected) in [(5, None), (1, Some((Leading, 1)))] {
        let mut election = looking(1, 7);
        for from in [2, 3] {
            hear(&mut election, from, &says(Following, vote(1, 7), round));
        }
        assert_eq!(decided(&mut election), expected, "round {round}");
    }
}

/// 2.3: an established ensemble is joined whatever its round, and its round is taken over.
#[test]
fn a_leader_of_another_round_is_joined_by_its_quorum() {
    let mut election = looking(1, 7);
    election.look(NOW, Some(end(1, 7)));
    hear(&mut election, 3, &says(Leading, vote(3, 9), 1));
    assert_eq!(decided(&mut election), None);
    hear(&mut election, 2, &says(Following, vote(3, 8), 6));
    assert_eq!(decided(&mut election), Some((Following, 3)));
    assert_eq!(election.round(), 6);
}

/// 2.2: outside the round the epoch must agree, unless one of the two has no version.
#[test]
fn epochs_are_compared_between_votes_with_versions() {
    let newer = |version| Notification {
        format_version: version,
        ..says(Following, Vote { peer_epoch: 2, ..vote(3, 8) }, 6)
    };
    for (version, expected) in [(2, None), (1, None), (0, Some((Following, 3)))] {
        let mut election = looking(1, 7);
        hear(&mut election, 3, &says(Leading, vote(3, 9), 6));
        hear(&mut election, 2, &newer(version));
        assert_eq!(decided(&mut election), expected, "version {version}");
    }
    // Votes of the round are kept without version: a leader is all they need to agree on.
    let mut election = looking(1, 7);
    hear(&mut election, 3, &says(Leading, vote(3, 9), 1));
    hear(&mut election, 2, &Notification { round: 1, ..newer(2) });
    assert_eq!(decided(&mut election), Some((Following, 3)));
}

/// 2.4, first row: who does not vote and looks is answered at once in every state, with what is
/// known by then, and told what changes. Who looks no more needs no answer.
#[test]
fn observers_and_joiners_are_answered_at_once() {
    let mut election = looking(1, 7);
    for from in [2, 3] {
        let state = if from == 3 { Leading } else { Following };
        hear(&mut election, from, &says(state, vote(3, 9), 6));
    }
    election.on_established(2);
    sent(&mut election);
    let joined = Vote { peer_epoch: 2, ..vote(3, 9) };
    for from in [4, 77] {
        hear(&mut election, from, &says(Looking, Vote::NONE, 1));
        assert_eq!(sent(&mut election), [(from, Following, joined, 6)]);
        hear(&mut election, from, &says(Observing, joined, 6));
        assert_eq!(sent(&mut election), []);
    }
    election.look(NOW, Some(end(2, 9)));
    sent(&mut election);
    let own = Vote { peer_epoch: 2, ..vote(1, 9) };
    for from in [4, 77] {
        hear(&mut election, from, &says(Looking, Vote::NONE, 9));
        assert_eq!(sent(&mut election), [(from, Looking, own, 7)]);
    }
    hear(&mut election, 77, &says(Following, joined, 6));
    let better = Vote { peer_epoch: 2, ..vote(3, 12) };
    hear(&mut election, 3, &says(Looking, better, 7));
    let mut expected = [2, 3, 4].map(|to| (to, Looking, better, 7)).to_vec();
    expected.push((4, Following, better, 7));
    assert_eq!(sent(&mut election), expected);
}

/// Two servers would answer each other without end if each answered whatever the other says: a
/// voter and an observer; an observer and one that is an observer in the other's list only; a voter
/// and one that votes in its own list only.
#[test]
fn no_two_servers_answer_each_other_without_end() {
    let of = |participants, observers| EnsembleConfigs::settled(members(participants, observers));
    let pairs = [
        ((1, of(3, 1)), (4, of(3, 1))),
        ((4, of(3, 2)), (5, of(4, 1))),
        ((4, of(3, 1)), (5, of(4, 1))),
        ((1, of(3, 0)), (4, of(4, 0))),
    ];
    for ((one_sid, one_configs), (other_sid, other_configs)) in pairs {
        for (round_of_one, round_of_other) in [(1, 1), (1, 5), (5, 1)] {
            for state in [Looking, Following, Leading, Observing] {
                let mut one = started(one_sid, one_configs.clone(), Some(end(1, 7)));
                let mut other = started(other_sid, other_configs.clone(), Some(end(1, 7)));
                (one.round, other.round) = (round_of_one, round_of_other);
                (other.state, other.current.state) = (state, state);
                other.tell(ServerId(one_sid));
                one.tell_all();
                let mut messages = 0;
                loop {
                    let to_one = told(&mut other, one_sid);
                    let to_other = told(&mut one, other_sid);
                    if to_one.is_empty() && to_other.is_empty() {
                        break;
                    }
                    messages += to_one.len() + to_other.len();
                    assert!(messages < 15, "{one_sid} {other_sid} {state:?} {round_of_one}");
                    to_one.iter().for_each(|it| hear(&mut one, other_sid, it));
                    to_other.iter().for_each(|it| hear(&mut other, one_sid, it));
                }
            }
        }
    }
}

/// An observer of Apache's answers each earlier round of a voter.
#[test]
fn who_answers_each_answer_is_not_answered_without_end() {
    let mut voter = looking(1, 7);
    sent(&mut voter);
    let asks = says(Looking, Vote::NONE, 5);
    hear(&mut voter, 4, &asks);
    assert_eq!(sent(&mut voter).len(), 1, "the first time");
    hear(&mut voter, 4, &asks);
    assert_eq!(sent(&mut voter), [], "it knows");
    hear(&mut voter, 4, &says(Observing, vote(3, 9), 5));
    hear(&mut voter, 4, &asks);
    assert_eq!(sent(&mut voter).len(), 1, "it had a leader meanwhile");
    let earlier = says(Looking, Vote::NONE, 0);
    hear(&mut voter, 4, &earlier);
    assert_eq!(sent(&mut voter).len(), 1, "it is in an earlier round");
}

/// Who asks while nobody knows anything is told once somebody does.
#[test]
fn who_asked_before_the_voter_looked_is_told() {
    let mut voter = Election::new(ServerId(1), EnsembleConfigs::settled(members(3, 1)), true);
    hear(&mut voter, 4, &says(Looking, Vote::NONE, 1));
    assert_eq!(sent(&mut voter), []);
    voter.look(NOW, Some(end(1, 7)));
    assert_eq!(sent(&mut voter), [2, 3, 4].map(|to| (to, Looking, vote(1, 7), 1)));
}

/// A server without a vote in a later round does not answer, and repeats itself soon.
#[test]
fn who_has_no_vote_repeats_its_later_round_soon() {
    let mut observer = looking(4, 7);
    observer.round = 5;
    observer.resend_at = Some(NOW + ELECTION_RESEND_AFTER_MAX);
    sent(&mut observer);
    hear(&mut observer, 1, &says(Looking, vote(1, 7), 1));
    assert_eq!(sent(&mut observer), []);
    assert_eq!(observer.next_timeout(), Some(NOW + ELECTION_RESEND_AFTER));
}

fn told(election: &mut Election, whom: i64) -> Vec<Notification> {
    let to_it = |output| match output {
        ElectionOutput::Send { to, notification } if to == ServerId(whom) => Some(notification),
        _ => None,
    };
    outputs(election).into_iter().filter_map(to_it).collect()
}

/// A voter of the proposed configuration that does not know of it votes for nobody, in a later
/// round: the others join that, or it would never hear them.
#[test]
fn the_round_of_one_who_votes_for_nobody_is_joined() {
    let mut election = looking(1, 7);
    sent(&mut election);
    hear(&mut election, 3, &says(Looking, Vote { leader: ServerId::NONE, ..vote(1, 99) }, 5));
    assert_eq!(sent(&mut election), [2, 3].map(|to| (to, Looking, vote(1, 7), 5)));
    assert!(!election.received.contains(ServerId(3)), "it is not counted");
    hear(&mut election, 3, &says(Looking, vote(1, 7), 5));
    election.on_timeout(NOW + ELECTION_QUIET);
    assert_eq!(decided(&mut election), Some((Leading, 1)));
}

/// Nobody can be elected without its vote, and its history is ahead of all who may lead now.
#[test]
fn a_voter_of_the_proposed_configuration_only_stands_for_itself_by_turns() {
    let proposed = EnsembleConfig { version: 1, ..members(2, 0) };
    let configs = EnsembleConfigs { committed: members(1, 0), last_seen: proposed };
    let mut election = started(2, configs.clone(), Some(end(1, 9)));
    let nobody = Vote { leader: ServerId::NONE, ..vote(0, 9) };
    assert_eq!(sent(&mut election), [(1, Looking, nobody, 1)]);
    hear(&mut election, 1, &says(Looking, vote(1, 7), 1));
    let mut turns = Vec::new();
    for _ in 0..9 {
        election.on_timeout(election.next_timeout().expect("it looks on"));
        turns.extend(sent(&mut election).into_iter().map(|(_, _, vote, round)| (vote, round)));
    }
    let turn = |vote, round, times| std::iter::repeat_n((vote, round), times);
    let all = turn(nobody, 1, 1).chain(turn(vote(2, 9), 2, 2)).chain(turn(nobody, 3, 2));
    assert!(turns.iter().copied().take(5).eq(all), "{turns:?}");

    let mut election = started(2, configs.clone(), Some(end(1, 9)));
    while election.round() == 1 {
        election.on_timeout(election.next_timeout().expect("it looks on"));
    }
    let mut other = started(1, configs, Some(end(1, 7)));
    hear(&mut other, 2, &says(Looking, vote(2, 9), 2));
    assert_eq!(decided(&mut other), Some((Following, 2)));
    hear(&mut election, 1, &says(Looking, vote(2, 9), 2));
    assert_eq!(decided(&mut election), Some((Leading, 2)));
}

/// 2.4: a server that has a leader tells it to voters that look, with the epoch established since
/// and the round of the election, and says nothing to others.
#[test]
fn who_has_a_leader_tells_those_who_look() {
    let mut election = looking(3, 7);
    hear(&mut election, 2, &says(Looking, vote(3, 7), 1));
    assert_eq!(decided(&mut election), Some((Leading, 3)));
    hear(&mut election, 1, &says(Looking, vote(1, 5), 9));
    assert_eq!(sent(&mut election), [(1, Leading, vote(3, 7), 1)]);
    election.on_established(2);
    hear(&mut election, 1, &says(Looking, vote(1, 5), 9));
    assert_eq!(sent(&mut election)[0].2.peer_epoch, 2);
    for state in [Following, Leading, Observing] {
        hear(&mut election, 1, &says(state, vote(1, 5), 9));
        assert_eq!(sent(&mut election), []);
    }
}

/// Who asks while an epoch begins hears from some servers of the one before, from others of the
/// next, and would repeat itself only after a while.
#[test]
fn who_asked_before_the_epoch_began_is_told_of_it() {
    let mut election = looking(1, 7);
    hear(&mut election, 3, &says(Looking, vote(3, 7), 1));
    hear(&mut election, 2, &says(Looking, vote(3, 7), 1));
    assert_eq!(decided(&mut election), Some((Following, 3)));
    election.on_connected(ServerId(2));
    hear(&mut election, 4, &says(Looking, Vote::NONE, 1));
    hear(&mut election, 2, &says(Looking, vote(2, 7), 2));
    assert_eq!(sent(&mut election), [4, 2].map(|to| (to, Following, vote(3, 7), 1)));
    election.on_established(2);
    let now = Vote { peer_epoch: 2, ..vote(3, 7) };
    assert_eq!(sent(&mut election), [2, 4].map(|to| (to, Following, now, 1)));
    election.on_established(2);
    assert_eq!(sent(&mut election), []);
    hear(&mut election, 4, &says(Observing, now, 1));
    election.on_disconnected(NOW, ServerId(2));
    election.on_established(3);
    assert_eq!(sent(&mut election), []);
}

/// 2.3: an observer runs the same election and observes whom the voters elect.
#[test]
fn an_observer_finds_the_leader() {
    let mut election = looking(4, 7);
    hear(&mut election, 2, &says(Looking, vote(3, 9), 3));
    hear(&mut election, 3, &says(Looking, vote(3, 9), 3));
    assert_eq!(decided(&mut election), Some((Observing, 3)));
}

/// One voter alone is a quorum.
#[test]
fn a_single_voter_elects_itself() {
    let mut election = started(1, EnsembleConfigs::settled(members(1, 0)), Some(end(0, 0)));
    assert_eq!(decided(&mut election), Some((Leading, 1)));
}

/// The vote is repeated, ever more rarely; messages do not put it off.
#[test]
fn votes_are_repeated_ever_more_rarely() {
    let mut election = looking(1, 7);
    sent(&mut election);
    let mut now = NOW;
    let mut after = ELECTION_RESEND_AFTER;
    for _ in 0..12 {
        hear(&mut election, 2, &says(Looking, vote(1, 5), 1));
        assert_eq!(election.next_timeout(), Some(now + after));
        now = now + after;
        election.on_timeout(now);
        assert_eq!(sent(&mut election).len(), 2);
        after = Duration(2 * after.0).min(ELECTION_RESEND_AFTER_MAX);
    }
    assert_eq!(after, ELECTION_RESEND_AFTER_MAX);
}

/// 2.4, gossip: a newer configuration is adopted while looking; the election starts again if its
/// members differ.
#[test]
fn newer_configurations_are_adopted() {
    let carrying = |participants, version| {
        let config = EnsembleConfig { version, ..members(participants, 1) };
        let text = Str::from(config::ensemble::text(&config).as_str());
        Notification { config: Some(text), ..says(Looking, vote(2, 6), 1) }
    };
    let mut election = looking(1, 7);
    outputs(&mut election);
    hear(&mut election, 2, &carrying(5, 0));
    assert_eq!(outputs(&mut election), [], "not newer");
    hear(&mut election, 2, &carrying(3, 8));
    let found = outputs(&mut election);
    assert!(matches!(found[..], [ElectionOutput::Adopted(_)]), "the members are the same");
    assert_eq!(election.round(), 1);
    hear(&mut election, 2, &carrying(5, 9));
    let found = outputs(&mut election);
    assert_eq!((found.len(), election.round()), (5, 2), "adopted, and sent to four others");
    assert_eq!(election.configs().committed.version, 9);
}

/// 2.4, gossip: without `reconfigEnabled`, or with text that does not parse, nothing is adopted and
/// the vote counts.
#[test]
fn configurations_are_not_adopted_without_reconfiguration() {
    let newer = EnsembleConfig { version: 9, ..members(5, 0) };
    let text = config::ensemble::text(&newer);
    for (adopts, text) in [(false, text.as_str()), (true, "nonsense")] {
        let configs = EnsembleConfigs::settled(members(3, 0));
        let mut election = Election::new(ServerId(1), configs, adopts);
        election.look(NOW, Some(end(1, 7)));
        let notification =
            Notification { config: Some(text.into()), ..says(Looking, vote(1, 7), 1) };
        hear(&mut election, 2, &notification);
        assert_eq!(decided(&mut election), Some((Leading, 1)));
        assert_eq!((election.round(), election.configs().committed.version), (1, 0));
    }
}

/// Nothing is heard before the first election.
#[test]
fn a_server_that_does_not_look_yet_is_silent() {
    let configs = EnsembleConfigs::settled(members(3, 1));
    let mut election = Election::new(ServerId(1), configs, true);
    hear(&mut election, 2, &says(Leading, vote(2, 7), 1));
    hear(&mut election, 4, &says(Looking, vote(2, 7), 1));
    assert_eq!((outputs(&mut election).len(), election.next_timeout()), (0, None));
}

/// A server whose role has ended neither leads nor follows: it says nothing until it looks, and
/// then counts what it heard meanwhile, as those who voted do not repeat themselves for long.
#[test]
fn a_server_that_rests_is_silent_and_counts_later_what_it_hears() {
    let mut election = looking(2, 7);
    hear(&mut election, 1, &says(Looking, vote(2, 7), 1));
    assert_eq!(decided(&mut election), Some((Leading, 2)));
    election.rest();
    hear(&mut election, 3, &says(Looking, vote(3, 7), 2));
    hear(&mut election, 1, &says(Following, vote(2, 7), 1));
    assert_eq!((outputs(&mut election).len(), election.next_timeout()), (0, None));
    election.look(NOW, Some(end(1, 7)));
    assert_eq!(decided(&mut election), Some((Following, 3)));
}

/// A voter may notice earlier that the leader is gone: its vote counts when this one looks, too,
/// for as long as it would not be repeated.
#[test]
fn votes_of_those_who_noticed_earlier_are_kept_for_a_while() {
    for (waited, expected) in [(Duration(0), Some((Following, 3))), (ELECTION_RESEND_AFTER, None)] {
        let mut election = looking(2, 7);
        hear(&mut election, 3, &says(Looking, vote(2, 7), 1));
        assert_eq!(decided(&mut election), Some((Leading, 2)));
        hear(&mut election, 1, &says(Looking, vote(3, 7), 2));
        hear(&mut election, 3, &says(Looking, vote(3, 7), 2));
        hear(&mut election, 1, &says(Following, vote(3, 7), 2));
        outputs(&mut election);
        election.look(NOW + waited, Some(end(1, 7)));
        assert_eq!(decided(&mut election), expected);
    }
}

/// Timing is ours: a server that was elected by those who have gone on to a later round does not
/// wait for them.
#[test]
fn a_leader_knows_when_no_quorum_is_left_to_follow_it() {
    let alone = |_: ServerId| false;
    let elected = |connected: &[i64]| {
        let mut election = looking(3, 7);
        for sid in connected {
            election.on_connected(ServerId(*sid));
            hear(&mut election, *sid, &says(Looking, vote(3, 7), 1));
        }
        election.on_timeout(NOW + Duration::from_millis(500));
        assert_eq!(decided(&mut election), Some((Leading, 3)));
        election
    };
    let mut election = elected(&[1, 2]);
    assert!(!election.is_deserted(alone));
    // A vote of this round may be one that came late.
    for sid in [1, 2] {
        hear(&mut election, sid, &says(Looking, vote(3, 7), 1));
    }
    assert!(!election.is_deserted(alone));
    hear(&mut election, 2, &says(Looking, vote(2, 7), 2));
    assert!(!election.is_deserted(alone), "1 may follow");
    hear(&mut election, 1, &says(Looking, vote(1, 7), 2));
    assert!(election.is_deserted(alone));
    assert!(election.is_deserted(|sid| sid == ServerId(1)), "whoever joined has gone as well");
    // They follow after all.
    hear(&mut election, 1, &says(Following, vote(3, 7), 1));
    assert!(!election.is_deserted(alone));
    // One has gone, the other cannot be reached, unless it has joined.
    let mut election = elected(&[1, 2]);
    hear(&mut election, 2, &says(Looking, vote(2, 7), 2));
    election.on_disconnected(NOW, ServerId(1));
    assert!(election.is_deserted(alone));
    assert!(!election.is_deserted(|sid| sid == ServerId(1)));
    // Who follows is not deserted, nor who was appointed.
    let mut election = looking(3, 7);
    election.appoint(ServerId(3), Zxid(7));
    for sid in [1, 2] {
        hear(&mut election, sid, &says(Looking, vote(sid, 7), 2));
    }
    assert!(!election.is_deserted(alone));
}
