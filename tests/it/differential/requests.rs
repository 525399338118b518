//! Random requests: every opcode, most of them well formed, some of them spoilt.

use ringkeeper::base::Prng;
use ringkeeper::wire::opcode;

use super::script::Frame;
use super::values::{self, Known, percent, pick, put_buffer, put_i32};

/// A body under construction.
#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    zxid_at: Option<usize>,
    path: Option<Vec<u8>>,
    label: String,
}

/// Opcodes and how often each is chosen.
const WEIGHTS: &[(i32, u64)] = &[
    (opcode::CREATE, 140),
    (opcode::CREATE2, 50),
    (opcode::CREATE_CONTAINER, 20),
    (opcode::CREATE_TTL, 30),
    (opcode::DELETE, 90),
    (opcode::EXISTS, 70),
    (opcode::GET_DATA, 80),
    (opcode::SET_DATA, 90),
    (opcode::GET_ACL, 40),
    (opcode::SET_ACL, 35),
    (opcode::GET_CHILDREN, 40),
    (opcode::GET_CHILDREN2, 40),
    (opcode::SYNC, 20),
    (opcode::PING, 20),
    (opcode::MULTI, 90),
    (opcode::MULTI_READ, 30),
    (opcode::RECONFIG, 6),
    (opcode::CHECK_WATCHES, 30),
    (opcode::REMOVE_WATCHES, 30),
    (opcode::SET_WATCHES, 25),
    (opcode::SET_WATCHES2, 25),
    (opcode::GET_EPHEMERALS, 15),
    (opcode::GET_ALL_CHILDREN_NUMBER, 20),
    (opcode::ADD_WATCH, 45),
    (opcode::WHO_AM_I, 12),
    (opcode::AUTH, 12),
    (opcode::SASL, 4),
    (opcode::CLOSE_SESSION, 8),
    (UNKNOWN, 6),
];

/// Stands for opcodes that are none: answered, then the connection is closed.
const UNKNOWN: i32 = i32::MIN;
const UNKNOWN_OPCODES: &[i32] =
    &[0, -1, 10, opcode::CHECK, 23, 50, 99, 108, 999, -2, -12, i32::MIN, i32::MAX];

/// Spoils a request once in so many.
const SPOILT_ONE_IN: u64 = 16;

/// A request for the connection that sent `count` requests before.
pub(super) fn frame(prng: &mut Prng, known: &Known, count: u64) -> Frame {
    loop {
        let opcode = choose(prng);
        let mut body = body(prng, known, opcode);
        if prng.one_in(SPOILT_ONE_IN) && !is_delicate(&body.bytes) {
            spoil(prng, &mut body);
        }
        let is_null_token = opcode == opcode::SASL && body.bytes.starts_with(&[0xff; 4]);
        if may_end_apache(opcode, &body.bytes) || is_null_token {
            continue;
        }
        let xid = match prng.below(60) {
            0 => pick(prng, &[0, -3, -8, i32::MIN, i32::MAX, -4]),
            _ if opcode == opcode::PING && percent(prng, 70) => -2,
            _ => i32::try_from(count).expect("sequences are short"),
        };
        let label = format!("{} xid {xid} {}", name(opcode), body.label);
        let Body { bytes, zxid_at, path, .. } = body;
        return Frame { xid, opcode, body: bytes, zxid_at, path, label };
    }
}

/// A well-formed request.
pub(super) fn plain(xid: i32, opcode: i32, body: Vec<u8>, path: &[u8]) -> Frame {
    let label = format!("{} xid {xid} \"{}\"", name(opcode), path.escape_ascii());
    Frame { xid, opcode, body, zxid_at: None, path: Some(path.to_vec()), label }
}

/// A ping, after which nothing that was sent before it is on its way.
pub(super) fn ping(xid: u64) -> Frame {
    let xid = i32::try_from(xid).expect("sequences are short");
    plain(xid, opcode::PING, Vec::new(), b"")
}

pub(super) fn name(opcode: i32) -> String {
    format!("{}({opcode})", opcode::short_name(opcode))
}

fn choose(prng: &mut Prng) -> i32 {
    let total = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut left = prng.below(total);
    for (opcode, weight) in WEIGHTS {
        if left < *weight {
            return match *opcode {
                UNKNOWN => pick(prng, UNKNOWN_OPCODES),
                known => known,
            };
        }
        left -= weight;
    }
    opcode::PING
}

fn body(prng: &mut Prng, known: &Known, opcode: i32) -> Body {
    let mut body = Body::default();
    match opcode {
        opcode::CREATE
        | opcode::CREATE2
        | opcode::CREATE_CONTAINER
        | opcode::CREATE_TTL
        | opcode::DELETE
        | opcode::SET_DATA
        | opcode::CHECK => body.op(prng, known, opcode),
        opcode::SET_ACL => {
            body.path(prng, known);
            let acl = values::acl(prng);
            body.label.push_str(&format!(" acl {}", acl.escape_ascii()));
            body.bytes.extend_from_slice(&acl);
            body.version(prng, known);
        }
        opcode::EXISTS | opcode::GET_DATA | opcode::GET_CHILDREN | opcode::GET_CHILDREN2 => {
            body.path(prng, known);
            body.byte(pick(prng, &[0, 1, 1, 1, 2]));
        }
        opcode::GET_ACL | opcode::SYNC | opcode::GET_ALL_CHILDREN_NUMBER => {
            body.path(prng, known);
        }
        opcode::GET_EPHEMERALS => match prng.below(5) {
            0 => body.string(pick(prng, &[None, Some(b"" as &[u8]), Some(b" \t"), Some(b"/")])),
            1 => body.string(Some(pick(prng, &[b"/a" as &[u8], b"/a/", b"a", b"/b"]))),
            _ => body.path(prng, known),
        },
        opcode::CHECK_WATCHES | opcode::REMOVE_WATCHES => {
            body.path(prng, known);
            body.int(pick(prng, &[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 0, 6, -1]));
        }
        opcode::ADD_WATCH => {
            body.path(prng, known);
            body.int(pick(prng, &[0, 1, 0, 1, 0, 1, 2, -1]));
        }
        opcode::SET_WATCHES | opcode::SET_WATCHES2 => {
            body.zxid_at = Some(0);
            let zxid = pick(prng, &[0, 5, 50, 200, -20, i64::MAX / 2, 100]);
            body.label.push_str(&format!(" since {zxid}"));
            body.bytes.extend_from_slice(&i64::to_be_bytes(zxid));
            for _ in 0..if opcode == opcode::SET_WATCHES { 3 } else { 5 } {
                body.paths(prng, known);
            }
        }
        opcode::MULTI => body.multi(prng, known),
        opcode::MULTI_READ => body.multi_read(prng, known),
        opcode::AUTH => body.auth(prng),
        opcode::SASL => {
            body.string(Some(pick(prng, &[b"" as &[u8], b"token"])));
        }
        opcode::RECONFIG => {
            for _ in 0..3 {
                body.string(pick(prng, &[None, Some(b"" as &[u8]), Some(b"server.1=a:1:2")]));
            }
            body.bytes.extend_from_slice(&(-1_i64).to_be_bytes());
        }
        opcode::PING | opcode::WHO_AM_I | opcode::CLOSE_SESSION => {}
        _ => body.path(prng, known),
    }
    if prng.one_in(30) {
        let extra = usize::try_from(prng.below(9)).expect("small");
        body.bytes.extend_from_slice(&b"trailing!"[..extra]);
        body.label.push_str(&format!(" and {extra} bytes"));
    }
    body
}

impl Body {
    fn int(&mut self, value: i32) {
        put_i32(&mut self.bytes, value);
        self.label.push_str(&format!(" {value}"));
    }

    fn byte(&mut self, value: u8) {
        self.bytes.push(value);
        self.label.push_str(&format!(" {value}"));
    }

    fn string(&mut self, value: Option<&[u8]>) {
        put_buffer(&mut self.bytes, value);
        let text = value.map_or("null".to_owned(), |bytes| match bytes.len() {
            0..100 => format!("\"{}\"", bytes.escape_ascii()),
            len => format!("{len} bytes"),
        });
        self.label.push_str(&format!(" {text}"));
    }

    fn path(&mut self, prng: &mut Prng, known: &Known) {
        let path = values::path(prng, known);
        self.string(path.as_deref());
        self.path = path;
    }

    fn paths(&mut self, prng: &mut Prng, known: &Known) {
        let count = match prng.below(40) {
            0 => pick(prng, &[-1, -2, i32::MIN, i32::MAX, 1000]),
            _ => i32::try_from(prng.below(4)).expect("small"),
        };
        self.int(count);
        for _ in 0..count.clamp(0, 3) {
            self.path(prng, known);
        }
    }

    fn version(&mut self, prng: &mut Prng, known: &Known) {
        let version = values::version(prng, known, self.path.as_deref());
        self.int(version);
    }

    /// One of the writes that may also stand in a multi.
    fn op(&mut self, prng: &mut Prng, known: &Known, opcode: i32) {
        self.path(prng, known);
        match opcode {
            opcode::DELETE | opcode::CHECK => self.version(prng, known),
            opcode::SET_DATA => {
                let data = values::data(prng, self.path.as_deref());
                self.string(data.as_deref());
                self.version(prng, known);
            }
            _ => {
                let data = values::data(prng, self.path.as_deref());
                self.string(data.as_deref());
                let acl = values::acl(prng);
                self.label.push_str(&format!(" acl {}", acl.escape_ascii()));
                self.bytes.extend_from_slice(&acl);
                let of_ttl = opcode == opcode::CREATE_TTL;
                let mut flags = values::flags(prng, of_ttl);
                if opcode == opcode::CREATE_CONTAINER && matches!(flags, 1 | 3) {
                    // Until it is applied, Apache takes it for ephemeral and refuses children.
                    flags -= 1;
                }
                let is_quota = |path: &Vec<u8>| path.starts_with(b"/zookeeper/quota");
                if matches!(flags, 1 | 3) && self.path.as_ref().is_some_and(is_quota) {
                    // The end of a session deletes in no order, which counts for a quota.
                    flags -= 1;
                }
                self.int(flags);
                if of_ttl {
                    let ttl = values::ttl(prng);
                    // Accepted by Apache, which then cannot apply it and ends.
                    let ttl = if matches!(flags, 5 | 6) { ttl } else { ttl.max(0) };
                    self.bytes.extend_from_slice(&ttl.to_be_bytes());
                    self.label.push_str(&format!(" ttl {ttl}"));
                }
            }
        }
    }

    fn multi(&mut self, prng: &mut Prng, known: &Known) {
        let careless = percent(prng, 15);
        for _ in 0..prng.below(6) {
            let mut opcode = pick(
                prng,
                &[
                    opcode::CREATE,
                    opcode::CREATE,
                    opcode::CREATE2,
                    opcode::CREATE_CONTAINER,
                    opcode::CREATE_TTL,
                    opcode::DELETE,
                    opcode::SET_DATA,
                    opcode::SET_DATA,
                    opcode::CHECK,
                ],
            );
            if careless && prng.one_in(6) {
                let wrong = [opcode::SET_ACL, opcode::GET_DATA, opcode::MULTI, 20, -1, 0, 99];
                opcode = pick(prng, &wrong);
            }
            self.multi_header(opcode, 0);
            self.label.push_str(&format!(" {{{}", name(opcode)));
            self.op(prng, known, opcode);
            self.label.push('}');
        }
        self.multi_end(prng, careless);
    }

    fn multi_read(&mut self, prng: &mut Prng, known: &Known) {
        let careless = percent(prng, 15);
        for _ in 0..prng.below(5) {
            let mut opcode = pick(prng, &[opcode::GET_DATA, opcode::GET_CHILDREN]);
            if careless && prng.one_in(4) {
                opcode = pick(prng, &[opcode::GET_CHILDREN2, opcode::CREATE, opcode::EXISTS, 0]);
            }
            self.multi_header(opcode, 0);
            self.label.push_str(&format!(" {{{}", name(opcode)));
            self.path(prng, known);
            self.byte(pick(prng, &[0, 1]));
            self.label.push('}');
        }
        self.multi_end(prng, careless);
    }

    fn multi_end(&mut self, prng: &mut Prng, careless: bool) {
        match (careless, prng.below(4)) {
            (true, 0) => self.label.push_str(" without an end"),
            (true, 1) => self.multi_header(opcode::CREATE, 7),
            _ => self.multi_header(-1, 1),
        }
    }

    fn multi_header(&mut self, opcode: i32, done: u8) {
        put_i32(&mut self.bytes, opcode);
        self.bytes.push(done);
        put_i32(&mut self.bytes, -1);
    }

    fn auth(&mut self, prng: &mut Prng) {
        self.int(pick(prng, &[0, 0, 0, 7]));
        let (scheme, auth): (Option<&[u8]>, Option<&[u8]>) = match prng.below(20) {
            0..=5 => (Some(b"digest"), Some(b"u:p")),
            6..=9 => (Some(b"digest"), Some(b"v:q")),
            10 => (Some(b"digest"), Some(b"super:secret")),
            11 => (Some(b"digest"), Some(b"super:wrong")),
            12 => (Some(b"digest"), Some(pick(prng, &[b"abc" as &[u8], b"", b":", b"a:b:c"]))),
            13..=14 => (Some(b"ip"), Some(b"")),
            15 => (Some(b"digest"), Some(b"\xc3\xbc\xff:p")),
            16 => (Some(b"digest"), None),
            17 => (Some(b"world"), Some(b"anyone")),
            18 => (None, Some(b"u:p")),
            _ => {
                let schemes: &[&[u8]] = &[b"auth", b"nonsense", b"x509", b"sasl", b"super", b""];
                (Some(pick(prng, schemes)), Some(b"u:p"))
            }
        };
        self.string(scheme);
        self.string(auth);
    }
}

/// Cuts, changes or lengthens a body.
fn spoil(prng: &mut Prng, body: &mut Body) {
    let len = body.bytes.len() as u64;
    match prng.below(4) {
        0 | 1 => {
            let keep = usize::try_from(prng.below(len.max(1))).expect("small");
            body.bytes.truncate(keep);
            body.label.push_str(&format!(" cut to {keep}"));
        }
        2 => {
            let at = usize::try_from(prng.below(len)).expect("small");
            if let Some(byte) = body.bytes.get_mut(at) {
                *byte = pick(prng, &[0, 1, 0xff, 0x7f, 0x80, b'/']);
                body.label.push_str(&format!(" byte {at} is {byte}"));
            }
        }
        _ => {
            let value = pick(prng, &[-1_i32, -2, i32::MIN, i32::MAX, 1 << 20, 1 << 22, 0]);
            let at = usize::try_from(prng.below(len)).expect("small");
            let at = if percent(prng, 50) { 0 } else { at };
            if let Some(room) = body.bytes.get_mut(at..at + 4) {
                room.copy_from_slice(&value.to_be_bytes());
                body.label.push_str(&format!(" int at {at} is {value}"));
            }
        }
    }
    body.path = None;
}

/// Spoiling these could make what ends an Apache server.
fn is_delicate(bytes: &[u8]) -> bool {
    let holds = |word: &[u8]| bytes.windows(word.len()).any(|part| part == word);
    holds(b"zookeeper_") || holds(b"/quota")
}

/// A create with a TTL opcode, without a TTL flag and with a negative TTL is logged by Apache and
/// ends it when applied (`client-protocol.md` part 14).
fn may_end_apache(opcode: i32, bytes: &[u8]) -> bool {
    use ringkeeper::model::{CreateKind, Request, WriteRequest};
    let mut frame = vec![0; 4];
    put_i32(&mut frame, opcode);
    frame.extend_from_slice(bytes);
    let decoded = ringkeeper::wire::request::decode(&frame.into());
    let bad = |write: &WriteRequest| {
        matches!(write, WriteRequest::Create(create)
            if matches!(create.kind, CreateKind::Ttl { ttl_ms } if ttl_ms < 0)
                && !matches!(create.flags, 5 | 6))
    };
    match decoded.map(|frame| frame.request) {
        Ok(Ok(Request::Write(WriteRequest::Multi(writes)))) => writes.iter().any(bad),
        Ok(Ok(Request::Write(write))) => bad(&write),
        _ => false,
    }
}
