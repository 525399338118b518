//! The reply to a write, from what its txn did.

use bytes::BytesMut;

use crate::model::{CreateTxnKind, ErrorCode, TxnBody, Xid};
use crate::tree::Outcome;
use crate::wire::response::{self, MultiResult};

use super::conn::WriteKind;
use crate::server::stream::Delta;

/// Appends the reply to the write that became `delta`.
pub(super) fn write(out: &mut BytesMut, kind: WriteKind, xid: Xid, delta: &Delta) {
    let zxid = delta.header.zxid;
    let outcome = &delta.applied.outcome;
    if let Outcome::Failed(code) = outcome {
        response::reply(out, xid, zxid, *code, |_| {});
        return;
    }
    response::reply(out, xid, zxid, ErrorCode::OK, |buf| match (kind, outcome) {
        (WriteKind::Create, Outcome::Created { path, .. }) => response::path(buf, path),
        (WriteKind::CreateStat, Outcome::Created { path, stat }) => {
            response::path_and_stat(buf, path, stat);
        }
        (WriteKind::Stat, Outcome::Set(stat)) => response::stat(buf, stat),
        (WriteKind::Config, Outcome::Set(stat)) => {
            let text = match &delta.body {
                TxnBody::Reconfig { data, .. } => data.as_deref(),
                _ => None,
            };
            response::data_and_stat(buf, text, stat);
        }
        (WriteKind::Multi, Outcome::Multi(outcomes)) => {
            let failed = has_failed(outcomes);
            for (body, outcome) in ops(&delta.body, outcomes) {
                op(buf, body, outcome, failed);
            }
            response::multi_end(buf);
        }
        (WriteKind::Delete | WriteKind::Close, _) => {}
        (kind, outcome) => unreachable!("{kind:?} cannot have come to {outcome:?}"),
    });
}

/// The ops of a multi with their outcomes.
pub(super) fn ops<'a>(
    body: &'a TxnBody,
    outcomes: &'a [Outcome],
) -> impl Iterator<Item = (&'a TxnBody, &'a Outcome)> {
    let TxnBody::Multi(bodies) = body else {
        unreachable!("only a multi comes to several outcomes")
    };
    assert_eq!(bodies.len(), outcomes.len(), "one outcome per op");
    bodies.iter().zip(outcomes)
}

/// Whether a multi failed.
pub(super) fn has_failed(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_)))
}

/// Appends the result of one op of a multi (`client-protocol.md` 6.2): the failure of one shows as
/// an error for every one.
pub(super) fn op(buf: &mut BytesMut, body: &TxnBody, outcome: &Outcome, failed: bool) {
    match outcome {
        Outcome::Failed(code) => response::multi_error(buf, *code),
        _ if failed => response::multi_error(buf, ErrorCode::OK),
        _ => response::multi_result(buf, &result(body, outcome)),
    }
}

fn result(body: &TxnBody, outcome: &Outcome) -> MultiResult {
    match (body, outcome) {
        (TxnBody::Create(create), Outcome::Created { path, stat }) => match create.kind {
            CreateTxnKind::Create { .. } => MultiResult::Create { path: path.clone() },
            _ => MultiResult::Create2 { path: path.clone(), stat: *stat },
        },
        (TxnBody::SetData { .. }, Outcome::Set(stat)) => MultiResult::SetData(*stat),
        (TxnBody::Check { .. }, _) => MultiResult::Check,
        (TxnBody::Delete { .. }, _) => MultiResult::Delete,
        (body, outcome) => unreachable!("{body:?} cannot have come to {outcome:?}"),
    }
}
