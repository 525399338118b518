//! Apache ZooKeeper and this server side by side: steps are done to both, answers compared.

use std::io;
use std::path::{Path, PathBuf};

use ringkeeper::wire::opcode;

use super::answers::Answer;
use super::explained::{self, Used};
use super::generate::{Generator, SUPER, auth};
use super::requests::plain;
use super::script::{Frame, Hello, SLOTS, Step, Whose};
use super::side::Side;
use super::values::{put_buffer, put_i32};
use crate::apache::Apache;
use crate::peer::{self, Server};

/// Znodes that are read or deleted in one go.
const CHUNK: usize = 40;

/// Both servers. They stay for many sequences.
pub(super) struct Pair {
    jars: PathBuf,
    settings: String,
    ours_only: String,
    burst_max: u64,
    apache: Apache,
    ours: Server,
}

/// Where the answers went apart.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) step: String,
    /// What each of Apache's answers is to; events are to nothing.
    pub(super) requests: Vec<String>,
    pub(super) theirs: Vec<String>,
    pub(super) ours: Vec<String>,
}

impl Difference {
    pub(super) fn describe(&self) -> String {
        let at = self.theirs.iter().zip(&self.ours).take_while(|(a, b)| a == b).count();
        let shown = |lines: &[String]| {
            let from = at.saturating_sub(2);
            let lines = lines.iter().enumerate().skip(from).take(5);
            let mark = |n| if n == at { "=> " } else { "   " };
            lines.map(|(n, line)| format!("    {}{line}\n", mark(n))).collect::<String>()
        };
        let (theirs, ours) = (shown(&self.theirs), shown(&self.ours));
        let request = self.requests.get(at).map_or("", String::as_str);
        format!("{}\n  {request}\n  Apache:\n{theirs}  ours:\n{ours}", self.step)
    }
}

/// What a sequence came to.
pub(super) struct Run {
    /// Everything that was done, the step with the difference last.
    pub(super) steps: Vec<Step>,
    pub(super) requests: usize,
    pub(super) difference: Option<Difference>,
    pub(super) used: Used,
}

impl Drop for Pair {
    fn drop(&mut self) {
        peer::clean(&self.ours.home);
    }
}

impl Pair {
    /// Starts both with `settings`, ours with more.
    pub(super) fn start(jars: &Path, settings: &str, ours_only: &str, burst_max: u64) -> Self {
        Self {
            jars: jars.to_owned(),
            settings: settings.to_owned(),
            ours_only: ours_only.to_owned(),
            burst_max,
            apache: Apache::start(jars, settings),
            ours: Server::start(&format!("{settings}\n{ours_only}")),
        }
    }

    /// Fresh servers instead of these.
    pub(super) fn restart(&mut self) {
        let fresh = Self::start(&self.jars, &self.settings, &self.ours_only, self.burst_max);
        *self = fresh;
    }

    /// A random sequence of at least so many requests.
    pub(super) fn random(&self, seed: u64, requests: usize) -> Run {
        let mut play = Play::new(self);
        let mut generator = Generator::new(seed, self.burst_max);
        while play.run.requests < requests && play.run.difference.is_none() {
            let step = generator.next(std::array::from_fn(|slot| play.apache.is_connected(slot)));
            let answers = play.step(step.clone());
            generator.observe(&step, &answers);
        }
        if play.run.difference.is_none() {
            play.clean_up();
        }
        play.run
    }

    /// A sequence that is known, and the end of all it leaves behind. `None`: no difference;
    /// otherwise the servers are no longer alike and must be started anew.
    pub(super) fn replay(&self, steps: &[Step]) -> Option<Run> {
        let mut play = Play::new(self);
        for step in steps {
            play.step(step.clone());
            if play.run.difference.is_some() {
                return Some(play.run);
            }
        }
        play.clean_up();
        play.run.difference.is_some().then_some(play.run)
    }
}

/// A sequence under way.
struct Play {
    apache: Side,
    ours: Side,
    run: Run,
    xid: i32,
}

impl Play {
    fn new(pair: &Pair) -> Self {
        let side = |port| Side::new(port).expect("the servers serve");
        let run = Run { steps: Vec::new(), requests: 0, difference: None, used: Used::default() };
        let (apache, ours) = (side(pair.apache.port), side(pair.ours.port));
        Self { apache, ours, run, xid: 1_000_000 }
    }

    /// Does a step to both; Apache's answers.
    fn step(&mut self, step: Step) -> Vec<Answer> {
        let begun = self.begin(&step);
        let theirs = self.apache.finish(&step);
        let ours = self.ours.finish(&step);
        self.run.requests += step.requests();
        let frames: &[Frame] = match &step {
            Step::Send { frames, .. } | Step::Connect { behind: frames, .. } => frames,
            _ => &[],
        };
        let same = begun.is_ok() && self.are_alike(frames, &theirs, &ours);
        if !same {
            let text = |answers: &[Answer]| {
                answers.iter().map(|answer| answer.text.clone()).collect::<Vec<String>>()
            };
            let mut labels = frames.iter().map(|frame| frame.label.clone());
            let request = |answer: &Answer| match answer.is_reply() {
                true => labels.next().unwrap_or_default(),
                false if answer.is_event() => String::new(),
                false => labels.clone().next().unwrap_or_default(),
            };
            let requests = theirs.iter().map(request).collect();
            let (theirs, ours, step) = (text(&theirs), text(&ours), step.title());
            self.run.difference = Some(Difference { step, requests, theirs, ours });
        }
        self.run.steps.push(step);
        theirs
    }

    fn begin(&mut self, step: &Step) -> io::Result<()> {
        self.apache.begin(step)?;
        self.ours.begin(step)
    }

    fn are_alike(&mut self, frames: &[Frame], theirs: &[Answer], ours: &[Answer]) -> bool {
        let mut requests = frames.iter();
        theirs.len() == ours.len()
            && theirs.iter().zip(ours).all(|(theirs, ours)| {
                let request = if theirs.is_reply() { requests.next() } else { None };
                explained::are_alike(request, theirs, ours, &mut self.run.used)
            })
    }

    fn send(&mut self, slot: usize, opcode: i32, body: Vec<u8>, path: &[u8]) -> Vec<Answer> {
        let frames = vec![self.plain(opcode, body, path)];
        self.step(Step::Send { slot, frames })
    }

    /// Hears what each connection was still sent, ends every session, compares all znodes, and
    /// puts both trees back as they were.
    fn clean_up(&mut self) {
        for slot in 0..SLOTS {
            if self.apache.is_connected(slot) {
                self.send(slot, opcode::PING, Vec::new(), b"");
            }
            let whose = if self.apache.has_session(slot) { Whose::Own } else { Whose::New };
            let credentials = if slot == SUPER { "super:secret" } else { "u:p" };
            let (hello, behind) = (Hello::plain(whose), vec![auth(credentials)]);
            self.step(Step::Connect { slot, hello, behind });
            if slot != SUPER {
                self.send(slot, opcode::CLOSE_SESSION, Vec::new(), b"");
            }
        }
        let mut paths: Vec<Vec<u8>> = Vec::new();
        let mut level = vec![b"/".to_vec()];
        while !level.is_empty() {
            let mut below = Vec::new();
            for some in level.chunks(CHUNK) {
                let mut frames = Vec::new();
                for path in some {
                    for opcode in [opcode::GET_DATA, opcode::GET_ACL, opcode::GET_CHILDREN2] {
                        let mut body = named(path);
                        body.push(0);
                        frames.push(self.plain(opcode, body, path));
                    }
                }
                let answers = self.step(Step::Send { slot: SUPER, frames });
                for (path, answers) in some.iter().zip(answers.chunks(3)) {
                    for name in answers.iter().flat_map(|answer| &answer.names) {
                        let lead = if path == b"/" { b"".as_slice() } else { path };
                        below.push([lead, b"/", name].concat());
                    }
                }
            }
            paths.append(&mut level);
            level = below;
        }
        paths.reverse();
        for some in paths.chunks(CHUNK) {
            let frames = some.iter().flat_map(|path| self.restore(path)).collect();
            self.step(Step::Send { slot: SUPER, frames });
        }
        self.send(SUPER, opcode::CLOSE_SESSION, Vec::new(), b"");
    }

    fn plain(&mut self, opcode: i32, body: Vec<u8>, path: &[u8]) -> Frame {
        self.xid += 1;
        plain(self.xid, opcode, body, path)
    }

    /// What deletes a znode, or gives those that are always there back what they had.
    fn restore(&mut self, path: &[u8]) -> Vec<Frame> {
        let perms = match path {
            b"/" | b"/zookeeper" | b"/zookeeper/quota" => 31,
            b"/zookeeper/config" => 1,
            _ => {
                let mut body = named(path);
                put_i32(&mut body, -1);
                return vec![self.plain(opcode::DELETE, body, path)];
            }
        };
        let mut acl = named(path);
        for number in [1, perms] {
            put_i32(&mut acl, number);
        }
        put_buffer(&mut acl, Some(b"world"));
        put_buffer(&mut acl, Some(b"anyone"));
        put_i32(&mut acl, -1);
        let mut data = named(path);
        put_buffer(&mut data, Some(b""));
        put_i32(&mut data, -1);
        vec![self.plain(opcode::SET_ACL, acl, path), self.plain(opcode::SET_DATA, data, path)]
    }
}

/// A body that begins with a path.
fn named(path: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    put_buffer(&mut body, Some(path));
    body
}
