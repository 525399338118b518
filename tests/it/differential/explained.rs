//! Differences that are meant (`src/docs/differences.md`): one rule each, which allows exactly it.

use std::collections::BTreeMap;

use ringkeeper::wire::opcode;

use super::answers::Answer;
use super::script::Frame;

/// How often each rule was needed.
pub(super) type Used = BTreeMap<&'static str, u64>;

/// Whether two answers to a request are the same but for differences that are meant.
pub(super) fn are_alike(
    request: Option<&Frame>,
    theirs: &Answer,
    ours: &Answer,
    used: &mut Used,
) -> bool {
    if theirs.text == ours.text {
        return true;
    }
    let rule = RULES.iter().find(|(_, allows)| allows(request, theirs, ours));
    if let Some((name, _)) = rule {
        *used.entry(name).or_default() += 1;
    }
    rule.is_some()
}

type Rule = fn(Option<&Frame>, &Answer, &Answer) -> bool;

const RULES: &[(&str, Rule)] = &[
    ("a body behind an error", no_body_behind_an_error),
    ("characters beyond U+FFFF in answers", supplementary_characters),
    ("a null path echoed by sync", null_path_in_sync),
    ("a null path in a watch request", null_path_in_watch_request),
    ("a null path in a create with wrong flags", null_path_in_create),
    ("the number of all children of an empty path", all_children_of_empty_path),
];

/// Apache leaks what it had encoded before it failed.
fn no_body_behind_an_error(_: Option<&Frame>, theirs: &Answer, ours: &Answer) -> bool {
    theirs.code != 0 && theirs.text.split(" rest ").next() == Some(&ours.text)
}

/// Apache writes each half of a surrogate pair as if it were a character, which is no UTF-8, and
/// reads such text back, out of a multi or from its files, as two U+FFFD.
fn supplementary_characters(_: Option<&Frame>, theirs: &Answer, ours: &Answer) -> bool {
    const PAIR: &str = "\\xed\\xa0\\xbd\\xed\\xb8\\x80";
    const READ_BACK: &str = "\\xef\\xbf\\xbd\\xef\\xbf\\xbd";
    const CHARACTER: &str = "\\xf0\\x9f\\x98\\x80";
    let meant = |text: &str| text.replace(PAIR, CHARACTER).replace(READ_BACK, CHARACTER);
    ours.text.contains(CHARACTER) && meant(&theirs.text) == meant(&ours.text)
}

/// The C client cannot read a null string.
fn null_path_in_sync(request: Option<&Frame>, theirs: &Answer, ours: &Answer) -> bool {
    has_null_path(request, &[opcode::SYNC])
        && theirs.text.strip_suffix(" null") == ours.text.strip_suffix(" \"\"")
}

/// Apache keeps a watch that nothing can fire.
fn null_path_in_watch_request(request: Option<&Frame>, theirs: &Answer, ours: &Answer) -> bool {
    let opcodes = [opcode::ADD_WATCH, opcode::CHECK_WATCHES, opcode::REMOVE_WATCHES];
    has_null_path(request, &opcodes)
        && matches!(theirs.code, 0 | -121)
        && ours.code == -5
        && theirs.zxid_text == ours.zxid_text
}

/// Apache looks at the flags first.
fn null_path_in_create(request: Option<&Frame>, theirs: &Answer, ours: &Answer) -> bool {
    let opcodes = [opcode::CREATE, opcode::CREATE2, opcode::CREATE_CONTAINER, opcode::CREATE_TTL];
    has_null_path(request, &opcodes)
        && matches!(theirs.code, -8 | -6)
        && ours.code == -5
        && theirs.zxid_text == ours.zxid_text
}

/// Apache counts the root among its own descendants if it is called by its empty name.
fn all_children_of_empty_path(request: Option<&Frame>, theirs: &Answer, ours: &Answer) -> bool {
    let number = |answer: &Answer| answer.text.rsplit(' ').next().and_then(|n| n.parse().ok());
    let is_empty = |request: &Frame| {
        request.opcode == opcode::GET_ALL_CHILDREN_NUMBER && request.body.starts_with(&[0; 4])
    };
    request.is_some_and(is_empty)
        && (theirs.code, &theirs.zxid_text) == (0, &ours.zxid_text)
        && number(theirs) == number(ours).map(|ours: i32| ours + 1)
}

fn has_null_path(request: Option<&Frame>, opcodes: &[i32]) -> bool {
    request.is_some_and(|request| {
        opcodes.contains(&request.opcode) && request.body.starts_with(&[0xff; 4])
    })
}
