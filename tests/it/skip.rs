//! Tests that lack what they need say so, and fail where nothing may be lacking.

use std::env;
use std::io::Write;

/// Says which program or file is missing. With `CI` set, as `.ci/run` sets it, that is a failure.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(env::var_os("CI").is_none(), "{test}: {why}, and CI must have it");
    say(test, why, "; .ci/run has it, or fails");
}

/// Says which right is missing: not every machine's kernel grants root all of them.
pub(crate) fn skip_without_right(test: &str, why: &str) {
    say(test, why, "");
}

fn say(test: &str, why: &str, rest: &str) {
    // Not by `eprintln`, which is shown of failing tests only.
    let _told = writeln!(std::io::stderr(), "SKIPPED {test}: {why}{rest}");
}
