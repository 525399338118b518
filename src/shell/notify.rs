//! [`Notify`]: lets one task of an executor wait for another.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A flag that one task waits for. Setting it before the wait is not lost.
#[derive(Debug, Default)]
pub(super) struct Notify {
    set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Notify {
    /// Sets the flag and wakes whoever waits.
    pub(super) fn notify(&self) {
        self.set.set(true);
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
    }

    /// Waits for the flag and clears it.
    pub(super) async fn notified(&self) {
        poll_fn(|context| match self.take_or_wait(context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Clears the flag and says whether it was set; leaves the task's waker if it was not.
    pub(super) fn take_or_wait(&self, context: &Context<'_>) -> bool {
        if self.set.replace(false) {
            return true;
        }
        *self.waiter.borrow_mut() = Some(context.waker().clone());
        false
    }
}
