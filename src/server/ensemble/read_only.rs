//! Reads without a quorum (`readonlymode.enabled`): a member that has looked for a leader for a
//! while lets clients in who have said that they only want to read. They see what its log holds,
//! which may be old, and which the next leader may cut off at its end.

use super::{Context, Effect, Ensemble, Role};
use crate::base::Instant;
use crate::server::stream::Service;

impl Ensemble {
    /// When clients were let in the last time.
    pub(crate) const fn serving_since(&self) -> Instant {
        self.serving_since
    }

    /// When reads are served unless a leader is found before.
    pub(super) fn reads_from(&self) -> Option<Instant> {
        // Nothing is told of a history that is lost.
        let may = self.lost.is_none() && !self.stopping;
        let is_looking = matches!(self.role, Role::Looking) && self.service == Service::Nothing;
        let since = self.grace_since.filter(|_| may && is_looking)?;
        Some(since + self.options.read_only_after?)
    }

    pub(super) fn serve_reads(&mut self, cx: &mut Context<'_>) {
        let now = cx.clock.now;
        if self.reads_from().is_none_or(|from| now < from) {
            return;
        }
        tracing::warn!(zxid = %cx.pipeline.tree().last_zxid(), "no leader is found: clients may \
            read what is here");
        cx.pipeline.serve_reads();
        self.service = Service::ReadOnly;
        self.serving_since = now;
        self.effects.push_back(Effect::Serve(Service::ReadOnly));
    }

    /// A leader is found: clients come again when it is followed.
    pub(super) fn end_reads(&mut self, cx: &mut Context<'_>) {
        self.grace_since = None;
        if self.service == Service::ReadOnly {
            cx.pipeline.idle(cx.clock.now);
            self.suspend();
        }
    }
}
