//! Elections while a configuration is proposed that some have in their histories and some have not.

use super::tests::{NOW, decided, end, hear, members, outputs, says, sent, started, vote};
use super::*;
use crate::model::ServerState::{Following, Looking};

/// Three voters are in force; with a fourth the configuration of txn 8 is proposed.
fn proposed() -> EnsembleConfig {
    EnsembleConfig { version: 8, ..members(4, 0) }
}

/// What a server says that has the proposal in its history.
fn says_with_proposal(vote: Vote) -> Notification {
    let text = config::ensemble::text(&proposed());
    Notification { proposed: Some(text.as_str().into()), ..says(Looking, vote, 1) }
}

#[test]
fn whoever_has_it_in_its_history_tells_of_it() {
    let committed = members(3, 0);
    let with = EnsembleConfigs { committed: committed.clone(), last_seen: proposed() };
    for (configs, tells) in [(with, true), (EnsembleConfigs::settled(committed), false)] {
        let mut election = started(2, configs, Some(end(1, 8)));
        let mut told = 0;
        for output in outputs(&mut election) {
            let ElectionOutput::Send { notification, .. } = output else { continue };
            let expected = says_with_proposal(vote(2, 8)).proposed.filter(|_| tells);
            assert_eq!(notification.proposed, expected);
            told += 1;
        }
        assert_eq!(told, if tells { 3 } else { 2 });
    }
}

/// The fourth is ahead of all, and nobody with the proposal in its history may be elected without
/// it; whoever has never heard of the proposal is needed for the quorum of the one in force.
#[test]
fn a_voter_of_a_proposal_that_only_others_have_is_elected() {
    for (from, adopts, expected) in
        [(2, true, Some((Following, 4))), (9, true, None), (2, false, None)]
    {
        let configs = EnsembleConfigs::settled(members(3, 0));
        let mut election = Election::new(ServerId(1), configs, adopts);
        election.look(NOW, Some(end(1, 7)));
        outputs(&mut election);
        hear(&mut election, from, &says_with_proposal(vote(from, 6)));
        outputs(&mut election);
        hear(&mut election, 4, &says(Looking, vote(4, 9), 1));
        hear(&mut election, 2, &says(Looking, vote(4, 9), 1));
        hear(&mut election, 3, &says(Looking, vote(4, 9), 1));
        assert_eq!(decided(&mut election), expected, "told by {from}");
        let address = election.heard.as_ref().map(|heard| heard.members.contains_key(&ServerId(4)));
        assert_eq!(address, expected.map(|_| true), "where it is");
    }
}

#[test]
fn no_quorum_of_a_proposal_that_only_others_have_is_asked() {
    let mut election = started(1, EnsembleConfigs::settled(members(3, 0)), Some(end(1, 7)));
    let larger = EnsembleConfig { version: 8, ..members(9, 0) };
    let text = config::ensemble::text(&larger);
    let told =
        Notification { proposed: Some(text.as_str().into()), ..says(Looking, vote(2, 6), 1) };
    hear(&mut election, 2, &told);
    assert!(election.heard.is_some());
    assert_eq!(decided(&mut election), None);
    hear(&mut election, 3, &says(Looking, vote(1, 7), 1));
    assert_eq!(decided(&mut election), Some((ServerState::Leading, 1)), "two of three");
}

/// It is a joining server as well, and may not know that it is a voter.
#[test]
fn a_voter_of_a_proposal_that_only_others_have_is_told_the_result() {
    let mut election = started(1, EnsembleConfigs::settled(members(3, 0)), Some(end(1, 7)));
    hear(&mut election, 2, &says_with_proposal(vote(2, 6)));
    let nobody = Vote { leader: ServerId::NONE, ..vote(0, 5) };
    hear(&mut election, 4, &says(Looking, nobody, 1));
    sent(&mut election);
    hear(&mut election, 3, &says(Looking, vote(1, 7), 1));
    let to_4 = sent(&mut election).into_iter().filter(|(to, ..)| *to == 4);
    assert_eq!(to_4.collect::<Vec<_>>(), [(4, ServerState::Leading, vote(1, 7), 1)]);
    hear(&mut election, 4, &says(Looking, nobody, 1));
    assert_eq!(sent(&mut election), [(4, ServerState::Leading, vote(1, 7), 1)]);
}

#[test]
fn a_proposal_is_forgotten_when_a_later_configuration_counts() {
    let mut election = started(1, EnsembleConfigs::settled(members(3, 0)), Some(end(1, 7)));
    hear(&mut election, 2, &says_with_proposal(vote(2, 8)));
    assert!(election.heard.is_some());
    election.set_configs(EnsembleConfigs::settled(EnsembleConfig { version: 8, ..members(3, 0) }));
    assert_eq!(election.heard, None);
    hear(&mut election, 2, &says_with_proposal(vote(2, 8)));
    assert_eq!(election.heard, None);
}

/// An observer by its old list, which the list in force does not know any more, speaks for its
/// history: it may be a voter of the proposed one.
#[test]
fn who_is_no_observer_by_the_list_that_it_adopts_speaks_for_its_history() {
    let mut election = started(4, EnsembleConfigs::settled(members(3, 1)), Some(end(1, 9)));
    assert!(sent(&mut election).iter().all(|(_, _, vote, _)| *vote == Vote::NONE));
    let text = config::ensemble::text(&EnsembleConfig { version: 5, ..members(3, 0) });
    let newer = Notification { config: Some(text.as_str().into()), ..says(Looking, vote(2, 6), 1) };
    hear(&mut election, 2, &newer);
    let nobody = Vote { leader: ServerId::NONE, ..vote(0, 9) };
    assert!(sent(&mut election).iter().all(|(_, _, vote, _)| *vote == nobody));
}
