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
        (WriteKind::Multi, Outcome::Multi(outcomes)) => multi(buf, &delta.body, outcomes),
        (WriteKind::Delete | WriteKind::Close, _) => {}
        (kind, outcome) => unreachable!("{kind:?} cannot have come to {outcome:?}"),
    });
}

/// `client-protocol.md` 6.2. The failure of one op shows as an error for every op.
fn multi(buf: &mut BytesMut, body: &TxnBody, outcomes: &[Outcome]) {
    let TxnBody::Multi(bodies) = body else {
        unreachable!("only a multi comes to several outcomes")
    };
    assert_eq!(bodies.len(), outcomes.len(), "one outcome per op");
    if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_))) {
        let code = |outcome: &Outcome| match outcome {
            Outcome::Failed(code) => *code,
            _ => ErrorCode::OK,
        };
        response::multi_failed(buf, outcomes.iter().map(code));
        return;
    }
    let results = bodies.iter().zip(outcomes).map(|(body, outcome)| result(body, outcome));
    response::multi(buf, results);
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
