//! A reconfiguration on its way to the log: asked for by a client, judged by the ensemble's part,
//! written down as proposed, and only then a txn like others. Nothing else is prepared meanwhile.

use super::{Duty, Pipeline};
use crate::auth::Identities;
use crate::config;
use crate::model::{
    EnsembleConfig, ErrorCode, ReconfigRequest, TxnBody, TxnHeader, WriteRequest, Zxid,
};
use crate::server::audit;
use crate::server::stream::Origin;

/// One reconfiguration.
#[derive(Debug)]
pub(super) struct Reconfiguring {
    header: TxnHeader,
    request: ReconfigRequest,
    identities: Identities,
    origin: Option<Origin>,
    /// What was made of it, once it is judged.
    judged: Option<(EnsembleConfig, TxnBody)>,
}

impl Pipeline {
    /// A client asks for a reconfiguration.
    pub(super) fn begin_reconfig(
        &mut self,
        header: TxnHeader,
        request: ReconfigRequest,
        identities: Identities,
        origin: Option<Origin>,
    ) {
        let asked = Reconfiguring { header, request, identities, origin, judged: None };
        if !self.options.reconfig_enabled {
            self.log_asked(asked, TxnBody::Error(ErrorCode::RECONFIG_DISABLED));
        } else if self.duty != Duty::Leading {
            self.log_asked(asked, TxnBody::Error(ErrorCode::UNIMPLEMENTED));
        } else {
            self.reconfiguring = Some(asked);
        }
    }

    /// What was asked for and is not judged, with the zxid that it will have.
    pub(crate) fn reconfig_asked(&self) -> Option<(ReconfigRequest, Zxid)> {
        let asked = self.reconfiguring.as_ref().filter(|asked| asked.judged.is_none())?;
        Some((asked.request.clone(), asked.header.zxid))
    }

    /// What the ensemble's part makes of it. The configuration, if the client may write it: to be
    /// written down, then [`Pipeline::log_reconfig`].
    pub(crate) fn judge_reconfig(
        &mut self,
        judged: Result<EnsembleConfig, ErrorCode>,
    ) -> Option<EnsembleConfig> {
        let mut asked = self.reconfiguring.take()?;
        let body = judged.and_then(|config| {
            let text = config::ensemble::text(&config);
            let (header, identities) = (asked.header, &asked.identities);
            let body = self.prep(Ok(())).reconfigure(&header, &text, identities)?;
            Ok((config, body))
        });
        match body {
            Ok((config, body)) => {
                asked.judged = Some((config.clone(), body));
                self.reconfiguring = Some(asked);
                Some(config)
            }
            Err(code) => {
                self.log_asked(asked, TxnBody::Error(code));
                None
            }
        }
    }

    /// The configuration is on disk as proposed: its txn may be in the log.
    pub(crate) fn log_reconfig(&mut self) {
        let Some(mut asked) = self.reconfiguring.take() else { return };
        let Some((config, body)) = asked.judged.take() else {
            self.reconfiguring = Some(asked);
            return;
        };
        self.log_asked(asked, body);
        if let Some(proposal) = self.member.proposals.last_mut() {
            proposal.config = Some(config);
        }
    }

    fn log_asked(&mut self, asked: Reconfiguring, body: TxnBody) {
        let Reconfiguring { header, request, identities, origin, .. } = asked;
        let request = Ok(WriteRequest::Reconfig(request));
        // Of a learner's client the learner tells.
        let audit = self.options.audit_user.is_some() && origin.is_some();
        let audit = audit.then(|| audit::Entry::of(header.session, &identities, &request, &body));
        self.log_txn(header, body, origin, None);
        if let Some(logged) = self.in_flight.back_mut() {
            logged.audit = audit;
        }
    }
}
