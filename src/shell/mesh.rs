//! How shards of one process reach each other: a mailbox for each, and what is published.
//!
//! Mailboxes are lock-free queues with a flag and a waker of their own: glommio's channels are
//! bounded and connect only while both ends run, and its mesh can deadlock when full. What a
//! mailbox may hold is bounded by the machines' own credit.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::task::Context;

use atomic_waker::AtomicWaker;
use crossbeam_queue::SegQueue;
use glommio::net::AcceptedTcpStream;

use super::listener::ConnCounts;
use crate::model::{ConnId, ShardId, Zxid};
use crate::server::{DialId, Mesh, Published};

/// What comes to a shard from the others.
pub(super) enum Letter {
    /// For its machine.
    Mesh(Mesh),
    /// A client that the home shard has accepted for it.
    Client {
        /// Its name.
        conn: ConnId,
        /// Its address.
        address: IpAddr,
        /// Its socket.
        stream: AcceptedTcpStream,
    },
    /// A dial of the home shard has ended.
    Dialled {
        /// Which.
        dial: DialId,
        /// The connection.
        stream: io::Result<TcpStream>,
    },
}

/// Everything that crosses between executors.
pub(super) struct Fabric {
    boxes: Vec<Mailbox>,
    published_zxid: AtomicI64,
    published_epoch: AtomicU32,
    published_flags: AtomicU32,
    /// Connections by address, over all shards.
    pub(super) counts: ConnCounts,
}

#[derive(Default)]
struct Mailbox {
    letters: SegQueue<Letter>,
    /// Somebody wants the shard to look.
    called: AtomicBool,
    waker: AtomicWaker,
    /// Connections that the shard has, or that are on their way to it.
    conns: AtomicUsize,
}

const FULL: u32 = 1;
const LOW_ON_DISK: u32 = 2;

impl Fabric {
    /// For `shards` shards that have nothing published yet but what recovery found.
    pub(super) fn new(shards: usize, published: Zxid) -> Self {
        Self {
            boxes: (0..shards).map(|_| Mailbox::default()).collect(),
            published_zxid: AtomicI64::new(published.0),
            published_epoch: AtomicU32::new(0),
            published_flags: AtomicU32::new(0),
            counts: ConnCounts::default(),
        }
    }

    fn mailbox(&self, shard: ShardId) -> &Mailbox {
        self.boxes.get(usize::from(shard.0)).expect("every shard has a mailbox")
    }

    /// Puts a letter where the shard finds it when it next looks.
    pub(super) fn post(&self, to: ShardId, letter: Letter) {
        self.mailbox(to).letters.push(letter);
    }

    /// Makes the shard look.
    pub(super) fn call(&self, shard: ShardId) {
        let mailbox = self.mailbox(shard);
        if !mailbox.called.swap(true, Ordering::AcqRel) {
            mailbox.waker.wake();
        }
    }

    /// The next letter for a shard, in the order of each sender.
    pub(super) fn next(&self, shard: ShardId) -> Option<Letter> {
        self.mailbox(shard).letters.pop()
    }

    /// Whether letters wait.
    pub(super) fn has_letters(&self, shard: ShardId) -> bool {
        !self.mailbox(shard).letters.is_empty()
    }

    /// Whether the shard was called since the last time; leaves the task's waker if it was not.
    pub(super) fn was_called(&self, shard: ShardId, context: &Context<'_>) -> bool {
        let mailbox = self.mailbox(shard);
        if mailbox.called.swap(false, Ordering::AcqRel) {
            return true;
        }
        mailbox.waker.register(context.waker());
        mailbox.called.swap(false, Ordering::AcqRel)
    }

    /// Stores what the pipeline publishes. Letters posted before are found by whoever sees it.
    pub(super) fn publish(&self, published: Published) {
        let full = if published.pipeline_full { FULL } else { 0 };
        let low = if published.low_on_disk { LOW_ON_DISK } else { 0 };
        self.published_flags.store(full | low, Ordering::Relaxed);
        self.published_zxid.store(published.zxid.0, Ordering::Release);
        self.published_epoch.store(published.epoch, Ordering::Release);
    }

    /// What is published now. Whoever sees an epoch sees a zxid that was published with it, or a
    /// later one.
    pub(super) fn published(&self) -> Published {
        let epoch = self.published_epoch.load(Ordering::Acquire);
        let zxid = Zxid(self.published_zxid.load(Ordering::Acquire));
        let flags = self.published_flags.load(Ordering::Relaxed);
        let (pipeline_full, low_on_disk) = (flags & FULL != 0, flags & LOW_ON_DISK != 0);
        Published { zxid, epoch, pipeline_full, low_on_disk }
    }

    /// The shard with the fewest connections; counts one more there.
    pub(super) fn place_client(&self) -> ShardId {
        let conns = |at: &usize| self.boxes.get(*at).map(|b| b.conns.load(Ordering::Relaxed));
        let at = (0..self.boxes.len()).min_by_key(conns).unwrap_or_default();
        let shard = ShardId(u16::try_from(at).expect("shards are few"));
        self.mailbox(shard).conns.fetch_add(1, Ordering::Relaxed);
        shard
    }

    /// A shard has lost a connection.
    pub(super) fn client_gone(&self, shard: ShardId) {
        self.mailbox(shard).conns.fetch_sub(1, Ordering::Relaxed);
    }
}
