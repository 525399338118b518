//! [`Server`]: the commit pipeline and its home shard as one machine.
//!
//! The home shard reads the pipeline's own tree, so a commit is interleaved with it: the reads that
//! the writer sent before its write run first, then the txn is applied, then the shard hears the
//! delta. Between two inputs the tree is at `published`.

use crate::base::{FileOps, Instant};
use crate::limits;
use crate::model::{ShardId, Zxid};

use super::contract::{Clock, Halt, Input, Machine, Output};
use super::options::ServerOptions;
use super::pipeline::Pipeline;
use super::recovery::Recovered;
use super::shard::{Ask, Shard, Surroundings};
use super::words;

/// One server without its I/O. Made from what recovery found; driven as
/// [`contract`](super::contract) says.
pub struct Server {
    pub(super) pipeline: Pipeline,
    pub(super) shard: Shard,
    ops: FileOps,
    /// Requests of the shard that the pipeline has not heard.
    asks: Vec<Ask>,
    published: Zxid,
    stopping: Option<Stopping>,
    pub(super) started: Instant,
    pub(super) options: ServerOptions,
}

/// How far a planned stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// Waits for what is in flight.
    Draining,
    /// Replies are out; the end of the log is being attested and connections close.
    Closing { deadline: Instant },
    /// `Stopped` was said.
    Done,
}

impl Server {
    /// A server that goes on where `recovered` ends. `seed` is entropy: log nonces and the
    /// randomised snapshot interval come from it.
    #[must_use]
    pub fn new(options: ServerOptions, recovered: Recovered, seed: u64, clock: Clock) -> Self {
        let mut ops = FileOps::default();
        let published = recovered.last_zxid;
        let shard = Shard::new(ShardId(0), &options);
        let pipeline = Pipeline::new(options.clone(), recovered, seed, clock, &mut ops);
        Self {
            pipeline,
            shard,
            ops,
            asks: Vec::new(),
            published,
            stopping: None,
            started: clock.now,
            options,
        }
    }

    /// Last zxid that clients of this server can see.
    #[must_use]
    pub const fn published(&self) -> Zxid {
        self.published
    }

    /// The tree as clients see it, for checks by the simulator.
    #[must_use]
    pub const fn tree(&self) -> &crate::tree::Tree {
        self.pipeline.tree()
    }

    fn dispatch(&mut self, clock: Clock, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Opened { conn, peer } => self.shard.opened(conn, peer, clock),
            Input::Received { conn, bytes } => {
                let around = surroundings(&self.pipeline, clock);
                self.shard.received(conn, bytes, around, &mut self.asks);
            }
            Input::Sent { conn, bytes } => self.shard.sent(conn, bytes),
            Input::Closed { conn } => self.shard.closed(conn, &mut self.asks),
            Input::FileDone { id, result } => {
                match self.pipeline.on_file_done(id, result, &mut self.ops) {
                    Ok(()) => self.commit(clock, out),
                    Err(failure) => out.push(Output::Halt(Halt::LogFailed(failure))),
                }
            }
            Input::Timer => {
                let shard = &self.shard;
                self.pipeline.expire(clock, |session| shard.has_unread(session));
                self.pipeline.on_timer(clock.now, &mut self.ops);
                self.shard.on_timer(clock.now);
            }
            Input::Stop => {
                self.shard.stop_accepting();
                self.stopping.get_or_insert(Stopping::Draining);
            }
        }
    }

    /// Applies what has become durable, one txn at a time, and publishes it.
    fn commit(&mut self, clock: Clock, out: &mut Vec<Output>) {
        while let Some(origin) = self.pipeline.next_commit() {
            if let Some(origin) = origin {
                self.shard.before_delta(origin, surroundings(&self.pipeline, clock));
            }
            let commit = self.pipeline.apply_next(clock.now);
            self.shard.on_delta(&commit.delta, surroundings(&self.pipeline, clock));
            if let Some(notice) = commit.notice {
                self.shard.on_notice(notice);
            }
        }
        let applied = self.pipeline.tree().last_zxid();
        if self.published < applied {
            self.published = applied;
            out.push(Output::Publish(applied));
        }
    }

    /// Lets the pipeline hear what the shard asked, in order.
    fn hear(&mut self, clock: Clock) {
        let mut notices = Vec::new();
        for ask in std::mem::take(&mut self.asks) {
            match ask {
                Ask::Attach(attach) => self.pipeline.attach(clock, &attach, &mut notices),
                Ask::Submit(submit) => self.pipeline.submit(clock, submit),
                Ask::Touch(session) => self.pipeline.touch(session, clock.now),
                Ask::Detach(session, generation) => self.pipeline.detach(session, generation),
                Ask::Word(conn, word) => {
                    let text = words::answer(self, word, clock);
                    self.shard.answer_word(conn, &text);
                }
            }
            for notice in notices.drain(..) {
                self.shard.on_notice(notice);
            }
        }
    }

    fn go_on_stopping(&mut self, now: Instant, out: &mut Vec<Output>) {
        match self.stopping {
            Some(Stopping::Draining) if self.pipeline.outstanding() == 0 => {
                self.shard.close_all();
                self.pipeline.attest_now(&mut self.ops);
                let deadline = now + limits::STOP_WAITS_FOR_CLIENTS;
                self.stopping = Some(Stopping::Closing { deadline });
            }
            Some(Stopping::Closing { deadline }) => {
                let closed = self.shard.is_empty() || deadline <= now;
                if closed && self.pipeline.is_settled() {
                    self.stopping = Some(Stopping::Done);
                    out.push(Output::Stopped);
                }
            }
            _ => {}
        }
    }

    fn hand_over_ops(&mut self, out: &mut Vec<Output>) {
        out.extend(self.ops.take().into_iter().map(|(id, op)| Output::File { id, op }));
    }
}

impl Machine for Server {
    fn step(&mut self, clock: Clock, input: Input, out: &mut Vec<Output>) {
        // A timer that comes late means that the process was stalled or stopped, and clients could
        // not be heard meanwhile.
        if let Some(due) = self.pipeline.next_timer() {
            let late = clock.now.since(due);
            if limits::STALL_NOTICED_AFTER < late {
                self.pipeline.credit(late);
            }
        }
        self.dispatch(clock, input, out);
        self.hear(clock);
        self.hand_over_ops(out);
    }

    fn turn_end(&mut self, clock: Clock, out: &mut Vec<Output>) {
        // Twice: answers that the pipeline gave to what the first pass took in go out in the same
        // turn.
        for _ in 0..2 {
            let around = surroundings(&self.pipeline, clock);
            self.shard.turn_end(around, &mut self.asks, out);
            self.hear(clock);
        }
        self.pipeline.turn_end(clock, &mut self.ops);
        self.go_on_stopping(clock.now, out);
        self.hand_over_ops(out);
    }

    fn next_timer(&self) -> Option<Instant> {
        let stop = match self.stopping {
            Some(Stopping::Closing { deadline }) => Some(deadline),
            _ => None,
        };
        [self.pipeline.next_timer(), self.shard.next_timer(), stop].into_iter().flatten().min()
    }
}

fn surroundings(pipeline: &Pipeline, clock: Clock) -> Surroundings<'_> {
    Surroundings {
        now: clock.now,
        view: pipeline.tree(),
        pipeline_full: pipeline.is_full(),
        low_on_disk: pipeline.is_low_on_disk(),
    }
}
