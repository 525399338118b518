//! One of the two servers, as seen by the clients of a sequence.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use ringkeeper::model::SessionId;
use ringkeeper::wire::connect::session_password;
use ringkeeper::wire::jute::Reader;
use ringkeeper::wire::opcode;

use super::answers::{self, Answer, Names};
use super::requests::plain;
use super::script::{Frame, Hello, Password, SLOTS, Step, Whose};
use super::values::put_buffer;

/// An answer that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(10);
const FRAME_BYTES_MAX: usize = 16 << 20;

/// A server and the connections to it.
#[derive(Debug)]
pub(super) struct Side {
    port: u16,
    names: Names,
    /// Zxids of closed sessions: their ephemerals go in no order.
    closes: BTreeSet<i64>,
    conns: [Option<TcpStream>; SLOTS],
    sessions: [i64; SLOTS],
    /// The connection that a handshake took a session from, and the one being opened.
    displaced: Option<TcpStream>,
    opening: Option<TcpStream>,
}

impl Side {
    /// A server on which nobody is. Zxids count from where it stands now.
    pub(super) fn new(port: u16) -> io::Result<Self> {
        let names = Names::default();
        let mut side = Self {
            port,
            names,
            closes: BTreeSet::new(),
            conns: Default::default(),
            sessions: [0; SLOTS],
            displaced: None,
            opening: None,
        };
        let connect =
            Step::Connect { slot: 0, hello: Hello::plain(Whose::New), behind: Vec::new() };
        side.begin(&connect)?;
        side.finish(&connect);
        let close = plain(1, opcode::CLOSE_SESSION, Vec::new(), b"");
        let close = Step::Send { slot: 0, frames: vec![close] };
        side.begin(&close)?;
        let answered = side.finish(&close);
        let zxid = answered.first().map_or(0, |answer| answer.zxid);
        let names = Names { base: zxid, sessions: BTreeMap::new() };
        Ok(Self {
            port,
            names,
            closes: BTreeSet::new(),
            conns: Default::default(),
            sessions: [0; SLOTS],
            displaced: None,
            opening: None,
        })
    }

    /// Whether a slot has a connection that was not seen to end.
    pub(super) const fn is_connected(&self, slot: usize) -> bool {
        self.conns[slot].is_some()
    }

    /// Whether a slot has a session that was not closed.
    pub(super) const fn has_session(&self, slot: usize) -> bool {
        self.sessions[slot] != 0
    }

    /// Sends what a step sends.
    pub(super) fn begin(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Connect { slot, hello, behind } => {
                let mut stream = self.dial()?;
                let mut bytes = self.hello(*slot, hello);
                for frame in behind {
                    bytes.extend_from_slice(&frame.bytes(self.names.base));
                }
                stream.write_all(&bytes)?;
                self.opening = Some(stream);
            }
            Step::Send { slot, frames } => {
                let bytes: Vec<u8> =
                    frames.iter().flat_map(|frame| frame.bytes(self.names.base)).collect();
                if let Some(stream) = &mut self.conns[*slot] {
                    // A server that closed shows when the answers are read.
                    let _sent = stream.write_all(&bytes);
                }
            }
            Step::Drop { slot, half: true } => {
                if let Some(stream) = &self.conns[*slot] {
                    let _shut = stream.shutdown(Shutdown::Write);
                }
            }
            Step::Drop { slot, half: false } => self.conns[*slot] = None,
            Step::Raw { bytes, half_close } => {
                let mut stream = self.dial()?;
                let _sent = stream.write_all(bytes);
                if *half_close {
                    let _shut = stream.shutdown(Shutdown::Write);
                }
                self.opening = Some(stream);
            }
        }
        Ok(())
    }

    /// Reads what a step is answered with.
    pub(super) fn finish(&mut self, step: &Step) -> Vec<Answer> {
        let mut answers = match step {
            Step::Connect { slot, hello, behind } => self.opened(*slot, hello, behind),
            Step::Send { slot, frames } => self.answered(*slot, frames),
            Step::Drop { slot, .. } => match self.conns[*slot].take() {
                Some(stream) => self.rest_of(stream),
                None => Vec::new(),
            },
            Step::Raw { .. } => self.opening.take().map(until_closed).into_iter().collect(),
        };
        let closes = &self.closes;
        let unordered = |answer: &Answer| answer.is_event() && closes.contains(&answer.zxid);
        let alike = |a: &Answer, b: &Answer| unordered(a) && unordered(b) && a.zxid == b.zxid;
        for run in answers.chunk_by_mut(alike) {
            if 1 < run.len() {
                run.sort_by(|a, b| a.text.cmp(&b.text));
            }
        }
        answers
    }

    fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn hello(&self, slot: usize, hello: &Hello) -> Vec<u8> {
        let session = match hello.whose {
            Whose::New => 0,
            Whose::Own => self.sessions[slot],
            Whose::Unknown(id) => id,
        };
        let seen = hello.seen.map_or(0, |seen| self.names.base.wrapping_add(seen));
        let mut body = Vec::new();
        body.extend_from_slice(&hello.version.to_be_bytes());
        body.extend_from_slice(&seen.to_be_bytes());
        body.extend_from_slice(&hello.timeout_ms.to_be_bytes());
        body.extend_from_slice(&session.to_be_bytes());
        match &hello.password {
            Password::Right if session == 0 => put_buffer(&mut body, Some(&[0; 16])),
            Password::Right => put_buffer(&mut body, Some(&session_password(SessionId(session)))),
            Password::Raw(bytes) => put_buffer(&mut body, bytes.as_deref()),
        }
        body.extend(hello.read_only);
        let mut frame = Vec::new();
        put_buffer(&mut frame, Some(&body));
        frame
    }

    /// The answer to a handshake, to what was sent behind it, and the end of the connection that
    /// had the session before.
    fn opened(&mut self, slot: usize, hello: &Hello, behind: &[Frame]) -> Vec<Answer> {
        let Some(mut stream) = self.opening.take() else { return Vec::new() };
        let frame = match read_frame(&mut stream) {
            Ok(frame) => frame,
            Err(error) => return vec![Answer::note(ended(&error))],
        };
        let mut answers = vec![Answer::note(self.welcome(&frame))];
        let session = session_of(&frame);
        if session == 0 {
            answers.push(until_closed(stream));
            return answers;
        }
        let held = self.conns[slot].replace(stream);
        if hello.whose == Whose::Own {
            self.displaced = held;
        }
        self.sessions[slot] = session;
        answers.extend(self.answered(slot, behind));
        if let Some(stream) = self.displaced.take() {
            answers.extend(self.rest_of(stream));
        }
        answers
    }

    fn welcome(&mut self, frame: &Bytes) -> String {
        let mut reader = Reader::new(frame);
        let mut parts = || {
            let (version, timeout) = (reader.i32("version")?, reader.i32("timeout")?);
            let (session, password) = (reader.i64("session")?, reader.buffer("password")?);
            let rest = reader.take("rest", reader.remaining())?;
            Ok::<_, ringkeeper::wire::jute::DecodeError>((
                version, timeout, session, password, rest,
            ))
        };
        let Ok((version, timeout, session, password, rest)) = parts() else {
            return format!("no ConnectResponse: {}", frame.escape_ascii());
        };
        let number = self.names.sessions.len();
        self.names.sessions.entry(session).or_insert(number);
        let password = match password {
            Some(bytes) if *bytes == session_password(SessionId(session)) => "right".to_owned(),
            other => format!("{other:?}"),
        };
        let session = self.names.session(session);
        let rest = rest.escape_ascii();
        format!("version {version} timeout {timeout} {session} password {password} rest {rest}")
    }

    fn answered(&mut self, slot: usize, frames: &[Frame]) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut waiting = frames.iter();
        let mut next = waiting.next();
        while let Some(request) = next {
            let Some(stream) = &mut self.conns[slot] else {
                answers.push(Answer::note("no connection".to_owned()));
                break;
            };
            let frame = match read_frame(stream) {
                Ok(frame) => frame,
                Err(error) => {
                    answers.push(Answer::note(ended(&error)));
                    self.conns[slot] = None;
                    break;
                }
            };
            let answer = answers::answer(&self.names, request.opcode, &frame);
            if answer.is_reply() {
                if request.opcode == opcode::CLOSE_SESSION && answer.code == 0 {
                    self.closes.insert(answer.zxid);
                    self.sessions[slot] = 0;
                }
                next = waiting.next();
            }
            let closes = answer.is_reply() && closes_behind(request, &answer);
            answers.push(answer);
            if closes && let Some(stream) = self.conns[slot].take() {
                answers.extend(self.rest_of(stream));
                break;
            }
        }
        answers
    }

    /// Events that still came, and the end.
    fn rest_of(&self, mut stream: TcpStream) -> Vec<Answer> {
        let mut answers = Vec::new();
        loop {
            match read_frame(&mut stream) {
                Ok(frame) => answers.push(answers::answer(&self.names, 0, &frame)),
                Err(error) => {
                    answers.push(Answer::note(ended(&error)));
                    return answers;
                }
            }
        }
    }
}

/// Whether the server closes the connection behind this reply.
const fn closes_behind(request: &Frame, answer: &Answer) -> bool {
    match request.opcode {
        opcode::CLOSE_SESSION => true,
        opcode::AUTH => answer.code == -115,
        _ => answer.code == -6 && answer.zxid == -1,
    }
}

fn session_of(frame: &Bytes) -> i64 {
    let bytes = frame.get(8..16).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, i64::from_be_bytes)
}

/// Everything up to the end of a connection.
fn until_closed(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let end = match stream.read_to_end(&mut bytes) {
        Ok(_) => "closed".to_owned(),
        Err(error) => ended(&error),
    };
    Answer::note(format!("\"{}\" {end}", bytes.escape_ascii()))
}

/// A connection's end is the same with and without a reset.
fn ended(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "closed".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer".to_owned(),
        _ => error.to_string(),
    }
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = usize::try_from(i32::from_be_bytes(len)).map_err(io::Error::other)?;
    if FRAME_BYTES_MAX < len {
        return Err(io::Error::other(format!("a frame of {len} bytes is announced")));
    }
    let mut frame = vec![0; len];
    stream.read_exact(&mut frame)?;
    Ok(Bytes::from(frame))
}
