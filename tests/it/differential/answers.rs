//! Answers as text that two servers which behave alike print alike: sessions have numbers, times
//! are hidden, zxids count from the start of the sequence, lists without an order are sorted.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringkeeper::wire::jute::{DecodeError, Reader};
use ringkeeper::wire::opcode;

/// What makes the answers of one server comparable.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The last zxid before the sequence.
    pub(super) base: i64,
    /// Sessions by id, numbered as they came.
    pub(super) sessions: BTreeMap<i64, usize>,
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reply,
    Event,
    /// The answer to a handshake, or the end of a connection.
    Note,
}

/// One received frame, or an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) zxid: i64,
    pub(super) zxid_text: String,
    pub(super) code: i32,
    /// What a reply taught about its znode.
    pub(super) path: Option<Vec<u8>>,
    pub(super) version: Option<i32>,
    /// Names of children, or paths of ephemerals.
    pub(super) names: Vec<Vec<u8>>,
}

impl Answer {
    pub(super) fn note(text: String) -> Self {
        Self {
            kind: Kind::Note,
            text,
            zxid: 0,
            zxid_text: String::new(),
            code: 0,
            path: None,
            version: None,
            names: Vec::new(),
        }
    }

    pub(super) const fn is_event(&self) -> bool {
        matches!(self.kind, Kind::Event)
    }

    pub(super) const fn is_reply(&self) -> bool {
        matches!(self.kind, Kind::Reply)
    }
}

/// The header of a reply frame: xid, zxid, code.
pub(super) fn header(frame: &Bytes) -> Option<(i32, i64, i32)> {
    let mut reader = Reader::new(frame);
    Some((reader.i32("xid").ok()?, reader.i64("zxid").ok()?, reader.i32("err").ok()?))
}

/// Takes a frame apart that answers a request of `opcode`, or is an event.
pub(super) fn answer(names: &Names, opcode: i32, frame: &Bytes) -> Answer {
    let Some((xid, zxid, code)) = header(frame) else {
        return Answer::note(format!("no reply: {}", frame.escape_ascii()));
    };
    let mut printer = Printer {
        names,
        reader: Reader::new(&frame.slice(16..)),
        text: String::new(),
        path: None,
        version: None,
        lists: Vec::new(),
    };
    let kind = if xid == -1 { Kind::Event } else { Kind::Reply };
    let printed = match (code, kind) {
        (0, Kind::Event) => printer.event(),
        (0, _) => printer.body(opcode),
        _ => Ok(()),
    };
    if let Err(error) = printed {
        printer.text.push_str(&format!(" undecodable: {error}"));
    }
    let rest = printer.reader.remaining();
    if rest != 0 {
        let rest = printer.reader.take("rest", rest).unwrap_or_default();
        printer.text.push_str(&format!(" rest {}", rest.escape_ascii()));
    }
    let Printer { text, path, version, lists, .. } = printer;
    let zxid_text = names.zxid(zxid);
    let text = match kind {
        Kind::Event => format!("event at {zxid_text}{text}"),
        _ => format!("xid {xid} at {zxid_text} err {code}{text}"),
    };
    Answer { kind, text, zxid, zxid_text, code, path, version, names: lists }
}

impl Names {
    fn zxid(&self, zxid: i64) -> String {
        match zxid {
            0 | -1 => zxid.to_string(),
            other => format!("+{}", other.wrapping_sub(self.base)),
        }
    }

    pub(super) fn session(&self, id: i64) -> String {
        match (id, self.sessions.get(&id)) {
            (0, _) => "none".to_owned(),
            (_, Some(number)) => format!("session{number}"),
            _ => format!("{id:#x}"),
        }
    }
}

type Printed = Result<(), DecodeError>;

struct Printer<'a> {
    names: &'a Names,
    reader: Reader,
    text: String,
    path: Option<Vec<u8>>,
    version: Option<i32>,
    lists: Vec<Vec<u8>>,
}

impl Printer<'_> {
    fn event(&mut self) -> Printed {
        let (kind, state) = (self.reader.i32("type")?, self.reader.i32("state")?);
        self.text.push_str(&format!(" type {kind} state {state}"));
        self.buffer()
    }

    fn body(&mut self, opcode: i32) -> Printed {
        match opcode {
            opcode::CREATE => self.path(),
            opcode::CREATE2 | opcode::CREATE_CONTAINER | opcode::CREATE_TTL => {
                self.path()?;
                self.stat()
            }
            opcode::SYNC => self.buffer(),
            opcode::EXISTS | opcode::SET_DATA | opcode::SET_ACL => self.stat(),
            opcode::GET_DATA => {
                self.buffer()?;
                self.stat()
            }
            opcode::GET_ACL => {
                self.acl()?;
                self.stat()
            }
            opcode::GET_CHILDREN | opcode::GET_EPHEMERALS => self.strings(1),
            opcode::GET_CHILDREN2 => {
                self.strings(1)?;
                self.stat()
            }
            opcode::WHO_AM_I => self.strings(2),
            opcode::GET_ALL_CHILDREN_NUMBER | opcode::ADD_WATCH => {
                let number = self.reader.i32("number")?;
                self.text.push_str(&format!(" {number}"));
                Ok(())
            }
            opcode::SASL => self.buffer(),
            opcode::MULTI | opcode::MULTI_READ => self.results(),
            _ => Ok(()),
        }
    }

    fn results(&mut self) -> Printed {
        loop {
            let kind = self.reader.i32("type")?;
            let done = self.reader.take("done", 1)?;
            let code = self.reader.i32("err")?;
            self.text.push_str(&format!(" {{{kind} {} {code}", done.escape_ascii()));
            if done.first() != Some(&0) {
                self.text.push('}');
                return Ok(());
            }
            if kind == -1 {
                let code = self.reader.i32("code")?;
                self.text.push_str(&format!(" {code}"));
            } else {
                self.body(kind)?;
            }
            self.text.push('}');
        }
    }

    fn path(&mut self) -> Printed {
        let bytes = self.raw()?;
        self.text.push_str(&shown(bytes.as_deref()));
        self.path = bytes.map(|bytes| bytes.to_vec());
        Ok(())
    }

    fn raw(&mut self) -> Result<Option<Bytes>, DecodeError> {
        self.reader.buffer("buffer")
    }

    fn buffer(&mut self) -> Printed {
        let bytes = self.raw()?;
        self.text.push_str(&shown(bytes.as_deref()));
        Ok(())
    }

    /// A vector of records of `fields` strings, in no order.
    fn strings(&mut self, fields: usize) -> Printed {
        let count = self.reader.i32("count")?;
        let mut records = Vec::new();
        for _ in 0..count {
            let mut record = String::new();
            for _ in 0..fields {
                let string = self.raw()?;
                record.push_str(&shown(string.as_deref()));
                self.lists.push(string.unwrap_or_default().to_vec());
            }
            records.push(record);
        }
        records.sort_unstable();
        self.text.push_str(&format!(" {count} [{}]", records.join(",")));
        Ok(())
    }

    /// Entries of one scheme and one set of permissions that stand together came from one `auth`
    /// entry, which stands for a set: they are sorted.
    fn acl(&mut self) -> Printed {
        let count = self.reader.i32("count")?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let perms = self.reader.i32("perms")?;
            let scheme = shown(self.raw()?.as_deref());
            entries.push((perms, scheme, shown(self.raw()?.as_deref())));
        }
        for run in entries.chunk_by_mut(|a, b| (a.0, &a.1) == (b.0, &b.1)) {
            run.sort_unstable();
        }
        self.text.push_str(&format!(" acl {count}"));
        for (perms, scheme, id) in entries {
            self.text.push_str(&format!(" ({perms}{scheme}{id})"));
        }
        Ok(())
    }

    fn stat(&mut self) -> Printed {
        let stat = self.reader.stat()?;
        let zxid = |zxid| self.names.zxid(zxid);
        let time = |time| if time == 0 { "0" } else { "t" };
        let text = format!(
            " <c{} m{} p{} {}{} v{} cv{} av{} owner {} len {} children {}>",
            zxid(stat.czxid.0),
            zxid(stat.mzxid.0),
            zxid(stat.pzxid.0),
            time(stat.ctime),
            time(stat.mtime),
            stat.version,
            stat.cversion,
            stat.aversion,
            self.names.session(stat.ephemeral_owner),
            stat.data_length,
            stat.num_children
        );
        self.text.push_str(&text);
        self.version = Some(stat.version);
        Ok(())
    }
}

/// Long values are shortened to their length, a sum, and their ends.
fn shown(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => " null".to_owned(),
        Some(bytes) if 200 < bytes.len() => {
            let sum = sum_of(bytes);
            format!(" {} bytes {sum:x} \"{}...\"", bytes.len(), bytes[..40].escape_ascii())
        }
        Some(bytes) => format!(" \"{}\"", bytes.escape_ascii()),
    }
}

fn sum_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}
