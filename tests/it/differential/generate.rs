//! Random sequences: sessions come, authenticate, send, move, are dropped and closed.

use ringkeeper::base::Prng;
use ringkeeper::wire::opcode;

use super::answers::Answer;
use super::requests;
use super::script::{Frame, Hello, Password, SLOTS, Step, Whose};
use super::values::{Known, percent, pick, put_buffer, put_i32};

/// The slot whose session is the super user.
pub(super) const SUPER: usize = 0;

/// Makes one sequence.
#[derive(Debug)]
pub(super) struct Generator {
    prng: Prng,
    /// The longest run of requests sent without waiting.
    burst_max: u64,
    known: Known,
    /// Requests each slot sent, which are their xids too.
    counts: [u64; SLOTS],
    /// What follows a ping.
    then: Option<Step>,
    /// Whether a slot has a session that was not closed.
    has_session: [bool; SLOTS],
}

impl Generator {
    pub(super) fn new(seed: u64, burst_max: u64) -> Self {
        Self {
            prng: Prng::new(seed),
            burst_max,
            known: Known::default(),
            counts: [0; SLOTS],
            then: None,
            has_session: [false; SLOTS],
        }
    }

    /// The next step. `connected` says which slots have a connection.
    pub(super) fn next(&mut self, connected: [bool; SLOTS]) -> Step {
        if let Some(step) = self.then.take() {
            return step;
        }
        let step = self.random(connected);
        // A server that closes a connection may lose what it had not sent.
        match step {
            Step::Connect { slot, .. } | Step::Drop { slot, .. } if connected[slot] => {
                self.then = Some(step);
                self.counts[slot] += 1;
                Step::Send { slot, frames: vec![requests::ping(self.counts[slot])] }
            }
            _ => step,
        }
    }

    fn random(&mut self, connected: [bool; SLOTS]) -> Step {
        let slot = usize::try_from(self.prng.below(SLOTS as u64)).expect("few");
        match self.prng.below(1000) {
            0..=9 => return self.raw(),
            10..=39 => return self.connect(slot, connected[slot]),
            40..=49 => return Step::Drop { slot, half: percent(&mut self.prng, 50) },
            _ => {}
        }
        if !connected[slot] {
            return self.connect(slot, false);
        }
        let burst = match self.prng.below(4) {
            0 => 1,
            _ => 1 + self.prng.below(self.burst_max),
        };
        let mut frames: Vec<Frame> = Vec::new();
        for _ in 0..burst {
            let frame = self.frame(slot);
            if frame.goes_alone() {
                if frames.is_empty() {
                    frames.push(frame);
                }
                break;
            }
            let ends = frame.goes_last();
            frames.push(frame);
            if ends {
                break;
            }
        }
        Step::Send { slot, frames }
    }

    fn frame(&mut self, slot: usize) -> Frame {
        self.counts[slot] += 1;
        requests::frame(&mut self.prng, &self.known, self.counts[slot])
    }

    /// Learns from the answers of one server.
    pub(super) fn observe(&mut self, step: &Step, answers: &[Answer]) {
        let (slot, frames) = match step {
            Step::Connect { slot, behind, .. } => {
                if answers.first().is_some_and(|answer| answer.text.contains(" password right ")) {
                    self.has_session[*slot] = true;
                }
                (*slot, behind)
            }
            Step::Send { slot, frames } => (*slot, frames),
            Step::Drop { .. } | Step::Raw { .. } => return,
        };
        let replies = answers.iter().filter(|answer| answer.code == 0 && answer.is_reply());
        for answer in replies {
            if let Some(path) = &answer.path {
                self.known.created(path);
            }
        }
        let replies = answers.iter().filter(|answer| answer.is_reply());
        for (frame, answer) in frames.iter().zip(replies) {
            if let (Some(path), Some(version)) = (&frame.path, answer.version)
                && matches!(frame.opcode, opcode::SET_DATA | opcode::EXISTS | opcode::GET_DATA)
            {
                self.known.versions.insert(path.clone(), version);
            }
            if frame.opcode == opcode::CLOSE_SESSION && answer.code == 0 {
                self.has_session[slot] = false;
            }
        }
    }

    /// A handshake; most of them good.
    fn connect(&mut self, slot: usize, is_connected: bool) -> Step {
        let own = self.has_session[slot];
        let mut hello = Hello::plain(if own { Whose::Own } else { Whose::New });
        if own && is_connected && percent(&mut self.prng, 30) {
            // Two handshakes for one session in a row.
            hello.timeout_ms = pick(&mut self.prng, &[1_000_000, 5_000_000, i32::MAX, 61_000]);
        }
        if percent(&mut self.prng, 30) {
            self.vary(&mut hello, own, is_connected);
        }
        let mut behind = Vec::new();
        if percent(&mut self.prng, 60) {
            let credentials = match slot {
                SUPER => "super:secret",
                _ => pick(&mut self.prng, &["u:p", "v:q"]),
            };
            behind.push(auth(credentials));
        } else if percent(&mut self.prng, 20) {
            for _ in 0..self.prng.below(4) {
                let frame = self.frame(slot);
                if frame.goes_alone() {
                    continue;
                }
                let ends = frame.goes_last();
                behind.push(frame);
                if ends {
                    break;
                }
            }
        }
        Step::Connect { slot, hello, behind }
    }

    fn vary(&mut self, hello: &mut Hello, own: bool, is_connected: bool) {
        match self.prng.below(10) {
            0 => hello.version = pick(&mut self.prng, &[1, -1, i32::MAX, i32::MIN]),
            1 => hello.read_only = None,
            2 => hello.read_only = Some(pick(&mut self.prng, &[1, 2, 255])),
            3 => hello.timeout_ms = pick(&mut self.prng, &[0, -1, 1, i32::MIN, 4000, i32::MAX]),
            4 => hello.seen = Some(pick(&mut self.prng, &[1 << 20, 1 << 40, i64::MAX / 2])),
            5 => hello.seen = Some(pick(&mut self.prng, &[0, -1])),
            6 if !own => {
                let passwords = [None, Some(Vec::new()), Some(vec![1; 3]), Some(vec![9; 40])];
                let at = usize::try_from(self.prng.below(4)).expect("few");
                hello.password = Password::Raw(passwords[at].clone());
            }
            // With a connection of the session on the server, see `differences.md`.
            6 if !is_connected => {
                let passwords = [None, Some(Vec::new()), Some(vec![1; 16]), Some(vec![9; 40])];
                let at = usize::try_from(self.prng.below(4)).expect("few");
                hello.password = Password::Raw(passwords[at].clone());
            }
            7 => {
                let id = pick(&mut self.prng, &[1, -1, 0x7777, i64::MIN, i64::MAX]);
                hello.whose = Whose::Unknown(id);
            }
            8 => {
                hello.whose = Whose::Unknown(0x1234_5678);
                hello.password = Password::Raw(Some(vec![5; 16]));
            }
            _ => {}
        }
    }

    /// Connections of no client: words, garbage, nothing. Both servers close every one of them.
    fn raw(&mut self) -> Step {
        let raw: &[(&[u8], bool)] = &[
            (b"ruok", false),
            (b"ruok\n", false),
            (b"isro", false),
            (b"ruok", true),
            (b"crst", false),
            (b"srst", false),
            (b"GET / HTTP/1.1\r\n\r\n", false),
            (b"ruoX", false),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", false),
            (b"\xff\xff\xff\xff", false),
            (b"\x80\x00\x00\x00", false),
            (b"\x7f\xff\xff\xff", false),
            (b"\x00\x10\x00\x00", false),
            (b"\x00\x00\x00\x00", false),
            (b"\x00\x00\x00\x04abcd", false),
            (b"\x00\x00\x00\x08\xff\xff\xff\xfe\x00\x00\x00\x0b", false),
            (b"\x00\x00\x00\x1c0000000000000000000000000000\xff\xff\xff\xfe", false),
            (b"", true),
            (b"\x00", true),
            (b"\x00\x00\x00\x2d", true),
            (b"\x00\x00\x00\x2d\x00\x00\x00\x00", true),
        ];
        let (bytes, half_close) = pick(&mut self.prng, raw);
        Step::Raw { bytes: bytes.to_vec(), half_close }
    }
}

/// An auth packet of the scheme digest, as clients send it after each handshake.
pub(super) fn auth(credentials: &str) -> Frame {
    let mut body = Vec::new();
    put_i32(&mut body, 0);
    put_buffer(&mut body, Some(b"digest"));
    put_buffer(&mut body, Some(credentials.as_bytes()));
    requests::plain(-4, opcode::AUTH, body, credentials.as_bytes())
}
