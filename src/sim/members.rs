//! The oracle for changes of an ensemble's members: what a request makes of a list of lines,
//! written without the server's rules, and whether its txn and its answer are that.

use std::collections::{BTreeMap, BTreeSet};

use super::history::Answer;
use crate::model::{ErrorCode, ReconfigRequest, Txn, TxnBody};
use crate::wire::jute::Reader;

/// Refusals that depend on what the log does not tell: who followed, what else was under way.
const REFUSALS: [ErrorCode; 4] = [
    ErrorCode::NEW_CONFIG_NO_QUORUM,
    ErrorCode::RECONFIG_IN_PROGRESS,
    ErrorCode::BAD_VERSION,
    ErrorCode::BAD_ARGUMENTS,
];

/// Judges the txn that a request became. `proposed` are the texts of all configurations that were
/// ever proposed: one of those before must have been the one that was changed.
pub(super) fn judge(
    proposed: &BTreeMap<i64, String>,
    request: &ReconfigRequest,
    txn: &Txn,
    answer: Option<&Answer>,
) -> Result<(), String> {
    let code = match &txn.body {
        TxnBody::Error(code) if REFUSALS.contains(code) => *code,
        TxnBody::Reconfig { path, data: Some(data), .. } if path == "/zookeeper/config" => {
            let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
            is_made(proposed, request, txn.header.zxid.0, text)?;
            ErrorCode::OK
        }
        other => return Err(format!("{request:?} became {other:?}")),
    };
    let Some(answer) = answer else { return Ok(()) };
    let data = match &txn.body {
        TxnBody::Reconfig { data, .. } => data.clone(),
        _ => None,
    };
    let told = match answer.code {
        ErrorCode::OK => Reader::new(&answer.body).buffer("data"),
        _ => Ok(None),
    };
    match answer.code == code && told.as_ref() == Ok(&data) {
        true => Ok(()),
        false => Err(format!("{request:?} was answered {answer:?}, not {code:?} with {data:?}")),
    }
}

/// Whether a configuration is what the request makes of one that was there.
fn is_made(
    proposed: &BTreeMap<i64, String>,
    request: &ReconfigRequest,
    version: i64,
    text: &str,
) -> Result<(), String> {
    if !text.ends_with(&format!("\nversion={version:x}")) {
        return Err(format!("the configuration of {version:x} has another version: {text}"));
    }
    let mut before = proposed.range(..version);
    let is_base = |(base, lines): (&i64, &String)| {
        (request.from_config == -1 || request.from_config == *base)
            && changed(lines, request) == lines_of(text)
    };
    match before.any(is_base) {
        true => Ok(()),
        false => Err(format!("{request:?} made {text:?} of none of {proposed:?}")),
    }
}

/// The lines but the version's.
fn lines_of(text: &str) -> BTreeSet<&str> {
    text.lines().filter(|line| !line.starts_with("version=")).collect()
}

fn changed<'a>(text: &'a str, request: &'a ReconfigRequest) -> BTreeSet<&'a str> {
    let items = |list: &'a Option<crate::base::Str>| {
        list.as_deref().unwrap_or_default().split(',').filter(|item| !item.is_empty())
    };
    if request.new_members.is_some() {
        return items(&request.new_members).collect();
    }
    let mut lines = lines_of(text);
    for sid in items(&request.leaving) {
        lines.retain(|line| !line.starts_with(&format!("server.{sid}=")));
    }
    for line in items(&request.joining) {
        let key = line.split('=').next().unwrap_or_default();
        lines.retain(|old| !old.starts_with(&format!("{key}=")));
        lines.insert(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SessionId, TxnHeader, Xid, Zxid};
    use bytes::Bytes;

    fn judged(request: (&str, &str, i64), version: i64, text: &str) -> bool {
        let proposed = [(1, "server.1=a\nserver.2=b\nversion=1"), (9, "server.1=a\nversion=9")];
        let proposed = proposed.map(|(version, text)| (version, text.to_owned())).into();
        let (joining, leaving, from_config) = request;
        let (joining, leaving) = (Some(joining.into()), Some(leaving.into()));
        let request = ReconfigRequest { joining, leaving, new_members: None, from_config };
        let header =
            TxnHeader { session: SessionId(1), cxid: Xid(1), zxid: Zxid(version), time_ms: 0 };
        let data = Some(Bytes::copy_from_slice(text.as_bytes()));
        let body = TxnBody::Reconfig { path: "/zookeeper/config".into(), data, version: -1 };
        judge(&proposed, &request, &Txn { header, body, digest: None }, None).is_ok()
    }

    #[test]
    fn a_configuration_is_what_was_asked_for() {
        let new = "server.2=c\nserver.3=d\nversion=f";
        assert!(judged(("server.2=c,server.3=d", "1", -1), 15, new));
        assert!(judged(("server.2=c,server.3=d", "1", 1), 15, new));
        assert!(!judged(("server.2=c,server.3=d", "1", 2), 15, new), "of another one");
        assert!(!judged(("server.2=c,server.3=d", "1", -1), 14, new), "another version");
        assert!(!judged(("server.2=c", "1", -1), 15, new), "a server that nobody named");
        assert!(!judged(("server.2=c,server.3=d", "", -1), 15, new), "one is gone");
        assert!(!judged(("server.9=c", "", -1), 8, "server.1=a\nserver.9=c\nversion=8"));
    }
}
