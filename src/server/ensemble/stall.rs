//! A stall of this server: other servers could not be heard meanwhile, and are not to blame for it.

use super::{Ensemble, Role};
use crate::base::Duration;

impl Ensemble {
    /// Nobody could be heard for this long. What others sent is read before they are judged again,
    /// so that a machine that is short of processor time does not end roles for nothing.
    pub(crate) fn credit(&mut self, stalled: Duration) {
        match &mut self.role {
            Role::Leading(leading) => leading.leader.credit(stalled),
            Role::Learning(learning) => learning.credit(stalled),
            Role::Settling | Role::Looking => {}
        }
    }
}
