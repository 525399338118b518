//! Shortening a sequence that shows a difference, by leaving parts out as long as it still does.

use std::time::{Duration, Instant};

use super::pair::{Difference, Pair};
use super::script::Step;

/// How long is tried.
const PATIENCE: Duration = Duration::from_secs(40);

/// The shortest sequence found, and its difference, as text.
pub(super) fn shrink(pair: &mut Pair, steps: Vec<Step>) -> String {
    let deadline = Instant::now() + PATIENCE;
    pair.restart();
    let Some((mut best, mut shown)) = attempt(pair, &steps) else {
        return "it does not show on fresh servers".to_owned();
    };
    let mut size = best.len().div_ceil(2);
    while 0 < size {
        let mut at = 0;
        while at < best.len() && Instant::now() < deadline {
            let end = best.len().min(at + size);
            let fewer: Vec<Step> =
                best.iter().enumerate().filter(|(n, _)| !(at..end).contains(n)).map(copy).collect();
            match attempt(pair, &fewer) {
                Some((steps, difference)) => (best, shown) = (steps, difference),
                None => at = end,
            }
        }
        size /= 2;
    }
    for at in 0..best.len() {
        shorten(pair, &mut best, &mut shown, at, deadline);
    }
    let steps = best.iter().map(|step| format!("  {}\n", step.describe())).collect::<String>();
    format!("{steps}{}", shown.describe())
}

/// Leaves single requests of one step out.
fn shorten(
    pair: &mut Pair,
    best: &mut Vec<Step>,
    shown: &mut Difference,
    at: usize,
    deadline: Instant,
) {
    let mut from = 0;
    while Instant::now() < deadline {
        let mut fewer = best.clone();
        let Some(Step::Send { frames, .. } | Step::Connect { behind: frames, .. }) =
            fewer.get_mut(at)
        else {
            return;
        };
        if frames.len() <= from || frames.len() == 1 {
            return;
        }
        frames.remove(from);
        match attempt(pair, &fewer) {
            Some((steps, difference)) => (*best, *shown) = (steps, difference),
            None => from += 1,
        }
    }
}

fn copy((_, step): (usize, &Step)) -> Step {
    step.clone()
}

/// The steps up to the difference, if there is one. Servers that differ are started anew.
fn attempt(pair: &mut Pair, steps: &[Step]) -> Option<(Vec<Step>, Difference)> {
    let run = pair.replay(steps)?;
    pair.restart();
    run.difference.map(|difference| (run.steps, difference))
}
