//! [`Preparing`]: a txn that is made in slices: the end of a session, or a multi. From the first
//! slice on it has its zxid, and no other txn is made until it is whole, so nothing can change what
//! it is judged by.

use super::audit;
use super::prep::{Made, MultiPrep, Prep};
use super::stream::Origin;
use crate::auth::Identities;
use crate::base::Str;
use crate::base::str_list::StrListMut;
use crate::model::{ErrorCode, Request, TxnBody, TxnHeader, WriteRequest};
use crate::wire::request::{Decoded, MultiDecoder};
use crate::wire::txn::encoded_bytes;

/// One txn.
#[derive(Debug)]
pub(super) struct Preparing {
    pub(super) header: TxnHeader,
    /// `None`: the server's own, or of a client of another server.
    pub(super) origin: Option<Origin>,
    pub(super) audit: Option<audit::Entry>,
    /// Whether the session may own ephemerals, or how it is refused.
    pub(super) may_own: Result<(), ErrorCode>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    /// Deletes the ephemerals of the header's session, those in flight included.
    Close {
        paths: StrListMut,
        /// What was found up to this path.
        to: Str,
    },
    /// A multi of which some ops are yet to be read, so many at once.
    Undecoded {
        rest: Option<MultiDecoder>,
        identities: Identities,
        ops_max: usize,
    },
    Multi(MultiPrep),
}

impl Preparing {
    /// The end of the header's session. Without an origin it expired, or is another server's.
    pub(super) fn close(
        header: TxnHeader,
        origin: Option<Origin>,
        audit: Option<audit::Entry>,
    ) -> Self {
        let work = Work::Close { paths: StrListMut::default(), to: Str::default() };
        Self { header, origin, audit, may_own: Ok(()), work }
    }

    /// A multi. `audits`: the audit log will tell of it.
    pub(super) fn multi(
        (header, origin): (TxnHeader, Option<Origin>),
        requests: Vec<WriteRequest>,
        identities: Identities,
        may_own: Result<(), ErrorCode>,
        audits: bool,
    ) -> Self {
        let audit = audits.then(|| audit::Entry::begin(header.session, &identities));
        let multi = MultiPrep::new(requests, identities);
        Self { header, origin, audit, may_own, work: Work::Multi(multi) }
    }

    /// A multi that a learner has passed on, and how many ops are read at once.
    pub(super) fn undecoded(
        (header, identities): (TxnHeader, Identities),
        (rest, ops_max): (MultiDecoder, usize),
        may_own: Result<(), ErrorCode>,
    ) -> Self {
        let work = Work::Undecoded { rest: Some(rest), identities, ops_max };
        Self { header, origin: None, audit: None, may_own, work }
    }

    /// Goes on; the txn once it is made. `left` says how many ephemerals may still be found, or ops
    /// judged.
    pub(super) fn go_on(&mut self, prep: &mut Prep<'_>, left: &mut usize) -> Option<Made> {
        match &mut self.work {
            Work::Close { paths, to } => {
                while *left != 0 {
                    let next = prep.overlay.next_ephemeral(prep.tree, self.header.session, to);
                    let Some(path) = next else {
                        let body = close_body(std::mem::take(paths), prep.txn_bytes_max);
                        return Some(body.into());
                    };
                    prep.overlay.stage_delete(prep.tree, self.header.zxid, &path);
                    paths.push(&path);
                    *to = path;
                    *left -= 1;
                }
                None
            }
            Work::Undecoded { rest, identities, ops_max } => match rest.take()?.go_on(*ops_max) {
                Decoded::Part(decoder) => {
                    *rest = Some(decoder);
                    None
                }
                Decoded::Whole(frame) => match frame.request {
                    Ok(Request::Write(WriteRequest::Multi(requests))) => {
                        let multi = MultiPrep::new(requests, std::mem::take(identities));
                        self.work = Work::Multi(multi);
                        self.go_on(prep, left)
                    }
                    _ => Some(TxnBody::Error(ErrorCode::MARSHALLING_ERROR).into()),
                },
            },
            Work::Multi(multi) => {
                let audit = &mut self.audit;
                let granted = |request: &WriteRequest, body: &TxnBody| {
                    if let Some(entry) = audit.as_mut() {
                        entry.granted(request, body);
                    }
                };
                let made = prep.multi(&self.header, multi, granted, left)?;
                if let Some(entry) = audit.as_mut().filter(|_| multi.has_failed()) {
                    entry.multi_failed();
                }
                Some(made)
            }
        }
    }
}

/// The txn. The list is left out if with it the txn would be too long to be read anywhere
/// (ZOOKEEPER-4306): whoever applies it deletes what its own tree says, which is the same.
fn close_body(paths: StrListMut, txn_bytes_max: usize) -> TxnBody {
    let body = TxnBody::CloseSession { paths: Some(paths.freeze()) };
    match encoded_bytes(&body, Some(0)) <= txn_bytes_max {
        true => body,
        false => TxnBody::CloseSession { paths: Some(Default::default()) },
    }
}
