//! A server that was itself stalled does not take others' silence for their death.

use super::leader::CloseReason;
use super::leader_tests::{Led, TIMING};
use super::learner::{Output, Reason};
use super::learner_tests::Following;
use crate::base::{Duration, Instant};

/// Longer than anybody may be silent.
const STALLED: Duration = Duration(2 * TIMING.sync_within.0);
const LATER: Instant = Instant(STALLED.0 + 1);

#[test]
fn a_leader_that_was_stalled_goes_on_hearing_its_learners() {
    let mut led = Led::established();
    led.leader.credit(STALLED);
    led.leader.timer(LATER, &mut led.out);
    assert_eq!(led.closed(2), None);
    let mut led = Led::established();
    led.leader.timer(LATER, &mut led.out);
    assert_eq!(led.closed(2), Some(&CloseReason::Silent));
}

#[test]
fn a_learner_that_was_stalled_goes_on_hearing_its_leader() {
    let mut following = Following::serving();
    following.learner.credit(STALLED);
    following.learner.timer(LATER, &mut following.out);
    assert_eq!(following.take(), []);
    let mut following = Following::serving();
    following.learner.timer(LATER, &mut following.out);
    assert_eq!(following.take(), [Output::GiveUp(Reason::Silent)]);
}
