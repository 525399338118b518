//! Request frames: header, then a body by opcode (`client-protocol.md` parts 3, 4 and 6). Bytes
//! behind a complete record are ignored, as Apache ignores them.

use bytes::Bytes;

use super::jute::{DecodeError, DecodeErrorKind, Reader};
use super::opcode;
use crate::base::Str;
use crate::model::request::{MultiReadKind, PathWatch, SetWatches, WatcherSelection, WatcherType};
use crate::model::{CreateKind, CreateRequest, ReadRequest, ReconfigRequest, Request};
use crate::model::{WriteRequest, Xid, Zxid};

/// A frame taken apart.
#[derive(Clone, Debug)]
pub struct RequestFrame {
    /// The client's number for it.
    pub xid: Xid,
    /// As received.
    pub opcode: i32,
    /// What is asked, or why it cannot be told.
    pub request: Result<Request, RequestFault>,
}

/// Why a frame with a header is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// No such opcode: answered with UNIMPLEMENTED, then the connection is closed.
    Unknown,
    /// An opcode that only servers may use: answered with UNIMPLEMENTED.
    Refused,
    /// The body does not decode: answered with MARSHALLING_ERROR.
    Undecodable(DecodeError),
}

/// The field that a multi must not have null, in its own way.
const ACL: &str = "acl";

impl RequestFault {
    /// Whether Apache finds the fault only while it makes the txn, which then consumes a zxid: a
    /// null path in a create or delete, and in a multi everything but a null ACL.
    #[must_use]
    pub fn consumes_zxid(&self, opcode: i32) -> bool {
        match self {
            Self::Undecodable(error) => {
                let is_null = matches!(error.kind, DecodeErrorKind::Null);
                match opcode {
                    opcode::MULTI => !(is_null && error.field == ACL),
                    _ => opcode::is_write(opcode) && is_null,
                }
            }
            Self::Unknown | Self::Refused => false,
        }
    }
}

/// Reads a request frame. An error means that not even the header is there.
pub fn decode(frame: &Bytes) -> Result<RequestFrame, DecodeError> {
    match decode_some(frame, usize::MAX)? {
        Decoded::Whole(frame) => Ok(frame),
        Decoded::Part(_) => unreachable!("a frame has fewer ops than that"),
    }
}

/// What was read of a request frame.
#[derive(Debug)]
pub enum Decoded {
    /// All of it.
    Whole(RequestFrame),
    /// A multi that has more ops than were to be read at once.
    Part(MultiDecoder),
}

/// The same, but of a multi at most so many ops at once.
pub fn decode_some(frame: &Bytes, ops_max: usize) -> Result<Decoded, DecodeError> {
    let mut reader = Reader::new(frame);
    let xid = Xid(reader.i32("xid")?);
    let opcode = reader.i32("type")?;
    let request = match opcode {
        opcode::DELETE_CONTAINER => Err(RequestFault::Refused),
        opcode::MULTI => return Ok(MultiDecoder::new(xid, reader).go_on(ops_max)),
        _ => judge(opcode, &mut reader),
    };
    Ok(Decoded::Whole(RequestFrame { xid, opcode, request }))
}

/// Reads the body of a request without its header, as one server forwards it to another; of a multi
/// with [`MultiDecoder::of_body`].
pub fn decode_body(opcode: i32, bytes: &Bytes) -> Result<Request, RequestFault> {
    judge(opcode, &mut Reader::new(bytes))
}

fn judge(opcode: i32, reader: &mut Reader) -> Result<Request, RequestFault> {
    match body(opcode, reader) {
        Ok(Some(request)) => Ok(request),
        Ok(None) => Err(RequestFault::Unknown),
        Err(error) => Err(RequestFault::Undecodable(error)),
    }
}

/// The path that a request begins with, from the front of its frame.
#[must_use]
pub fn leading_path(front: &Bytes) -> Option<crate::base::Str> {
    let mut reader = Reader::new(front);
    reader.i32("xid").ok()?;
    match reader.i32("type").ok()? {
        opcode::AUTH | opcode::SASL | opcode::SET_WATCHES | opcode::SET_WATCHES2 => return None,
        opcode::MULTI | opcode::MULTI_READ => {
            multi_header(&mut reader).ok()??;
        }
        _ => {}
    }
    reader.str("path").ok()?
}

fn body(number: i32, reader: &mut Reader) -> Result<Option<Request>, DecodeError> {
    let request = match number {
        opcode::CREATE
        | opcode::CREATE2
        | opcode::CREATE_CONTAINER
        | opcode::CREATE_TTL
        | opcode::DELETE
        | opcode::SET_DATA => {
            let mut null_path = None;
            let write = shared_write(number, reader, &mut null_path)?;
            // A null path of a setData is an invalid path like others.
            match null_path {
                Some(error) if number != opcode::SET_DATA => return Err(error),
                _ => Request::Write(write),
            }
        }
        opcode::SET_ACL => Request::Write(WriteRequest::SetAcl {
            path: reader.str("path")?.unwrap_or_default(),
            acl: reader.raw_acls()?,
            version: reader.i32("version")?,
        }),
        opcode::CLOSE_SESSION => Request::Write(WriteRequest::CloseSession),
        opcode::EXISTS => Request::Read(ReadRequest::Exists(path_watch(reader)?)),
        opcode::GET_DATA => Request::Read(ReadRequest::GetData(path_watch(reader)?)),
        opcode::GET_CHILDREN => Request::Read(ReadRequest::GetChildren(path_watch(reader)?)),
        opcode::GET_CHILDREN2 => Request::Read(ReadRequest::GetChildren2(path_watch(reader)?)),
        opcode::GET_ACL => Request::Read(ReadRequest::GetAcl { path: reader.some_str("path")? }),
        opcode::SYNC => Request::Sync { path: reader.str("path")?.unwrap_or_default() },
        opcode::PING => Request::Ping,
        opcode::RECONFIG => {
            let request = ReconfigRequest {
                joining: reader.str("joiningServers")?,
                leaving: reader.str("leavingServers")?,
                new_members: reader.str("newMembers")?,
                from_config: reader.i64("curConfigId")?,
            };
            Request::Write(WriteRequest::Reconfig(request))
        }
        opcode::CHECK_WATCHES => Request::Read(ReadRequest::CheckWatches(selection(reader)?)),
        opcode::REMOVE_WATCHES => Request::Read(ReadRequest::RemoveWatches(selection(reader)?)),
        opcode::MULTI_READ => Request::Read(ReadRequest::MultiRead(multi_read(reader)?)),
        opcode::AUTH => {
            reader.i32("type")?;
            Request::Auth { scheme: reader.str("scheme")?, auth: reader.buffer("auth")? }
        }
        opcode::SASL => Request::Sasl { token: reader.buffer("token")? },
        opcode::SET_WATCHES | opcode::SET_WATCHES2 => {
            let has_persistent = number == opcode::SET_WATCHES2;
            Request::Read(ReadRequest::SetWatches(set_watches(reader, has_persistent)?))
        }
        opcode::GET_EPHEMERALS => {
            Request::Read(ReadRequest::GetEphemerals { prefix: reader.str("prefixPath")? })
        }
        opcode::GET_ALL_CHILDREN_NUMBER => {
            Request::Read(ReadRequest::GetAllChildrenNumber { path: reader.some_str("path")? })
        }
        opcode::ADD_WATCH => Request::Read(add_watch(reader)?),
        opcode::WHO_AM_I => Request::WhoAmI,
        _ => return Ok(None),
    };
    Ok(Some(request))
}

/// The writes that may also stand in a multi. A null path counts only once everything behind it
/// has decoded: it goes to `null_path`.
fn shared_write(
    number: i32,
    reader: &mut Reader,
    null_path: &mut Option<DecodeError>,
) -> Result<WriteRequest, DecodeError> {
    let null = reader.error("path", DecodeErrorKind::Null);
    let path = reader.str("path")?;
    if path.is_none() {
        null_path.get_or_insert(null);
    }
    let path = path.unwrap_or_default();
    Ok(match number {
        opcode::DELETE => WriteRequest::Delete { path, version: reader.i32("version")? },
        opcode::SET_DATA => WriteRequest::SetData {
            path,
            data: reader.buffer("data")?,
            version: reader.i32("version")?,
        },
        opcode::CHECK => WriteRequest::Check { path, version: reader.i32("version")? },
        _ => WriteRequest::Create(create(number, path, reader)?),
    })
}

fn create(number: i32, path: Str, reader: &mut Reader) -> Result<CreateRequest, DecodeError> {
    let data = reader.buffer("data")?;
    let acl = reader.raw_acls()?;
    let flags = reader.i32("flags")?;
    let kind = match number {
        opcode::CREATE => CreateKind::Create,
        opcode::CREATE2 => CreateKind::Create2,
        opcode::CREATE_CONTAINER => CreateKind::Container,
        opcode::CREATE_TTL => CreateKind::Ttl { ttl_ms: reader.i64("ttl")? },
        other => return Err(reader.error("type", DecodeErrorKind::Unknown(other))),
    };
    Ok(CreateRequest { kind, path, data, acl, flags })
}

/// A multi of which some ops are read: repeated {header, op}, then a header that is done. Ops that
/// no multi may hold, flags that are no create mode, a TTL mode without a TTL, and a null ACL make
/// the whole request undecodable.
#[derive(Debug)]
pub struct MultiDecoder {
    xid: Xid,
    reader: Reader,
    requests: Vec<WriteRequest>,
    null_path: Option<DecodeError>,
    /// A read, which may not stand beside writes.
    read: Option<DecodeError>,
}

impl MultiDecoder {
    const fn new(xid: Xid, reader: Reader) -> Self {
        Self { xid, reader, requests: Vec::new(), null_path: None, read: None }
    }

    /// Of a body without its header, as one server forwards it to another.
    #[must_use]
    pub fn of_body(bytes: &Bytes) -> Self {
        Self::new(Xid(0), Reader::new(bytes))
    }

    /// Reads at most so many ops more.
    #[must_use]
    pub fn go_on(mut self, ops_max: usize) -> Decoded {
        let request = match self.ops(ops_max) {
            Ok(None) => {
                self.make_room();
                return Decoded::Part(self);
            }
            Ok(Some(requests)) => Ok(Request::Write(WriteRequest::Multi(requests))),
            Err(error) => Err(RequestFault::Undecodable(error)),
        };
        Decoded::Whole(RequestFrame { xid: self.xid, opcode: opcode::MULTI, request })
    }

    /// Room for the rest, if it is like what was read: what is there is not moved again and again.
    fn make_room(&mut self) {
        let read = self.reader.read().max(1);
        let more = self.reader.remaining() * self.requests.len() / read;
        self.requests.reserve(more + more / 16);
    }

    /// The same; all ops once the last one is read.
    fn ops(&mut self, ops_max: usize) -> Result<Option<Vec<WriteRequest>>, DecodeError> {
        let Self { reader, requests, null_path, read, .. } = self;
        for _ in 0..ops_max {
            let Some(number) = multi_header(reader)? else {
                return match read.or(*null_path) {
                    Some(error) => Err(error),
                    None => Ok(Some(std::mem::take(requests))),
                };
            };
            let is_read = matches!(number, opcode::GET_DATA | opcode::GET_CHILDREN);
            let is_write = matches!(
                number,
                opcode::CREATE
                    | opcode::CREATE2
                    | opcode::CREATE_CONTAINER
                    | opcode::CREATE_TTL
                    | opcode::DELETE
                    | opcode::SET_DATA
                    | opcode::CHECK
            );
            if is_read {
                reader.str("path")?;
                reader.bool("watch")?;
                read.get_or_insert_with(|| reader.error("type", DecodeErrorKind::Unknown(number)));
            } else if is_write {
                let request = shared_write(number, reader, null_path)?;
                if let WriteRequest::Create(create) = &request {
                    check_create_in_multi(create, reader)?;
                }
                requests.push(request);
            } else {
                return Err(reader.error("type", DecodeErrorKind::Unknown(number)));
            }
            if read.is_some() && !requests.is_empty() {
                return Err(reader.error("type", DecodeErrorKind::Unknown(number)));
            }
        }
        Ok(None)
    }
}

fn check_create_in_multi(create: &CreateRequest, reader: &Reader) -> Result<(), DecodeError> {
    let flags = create.flags;
    match create.kind {
        CreateKind::Ttl { .. } => Ok(()),
        _ if !(0..=6).contains(&flags) => {
            Err(reader.error("flags", DecodeErrorKind::Unknown(flags)))
        }
        _ if create.acl.is_none() => Err(reader.error(ACL, DecodeErrorKind::Null)),
        _ if 4 < flags => Err(reader.error("flags", DecodeErrorKind::Unknown(flags))),
        _ => Ok(()),
    }
}

fn multi_read(reader: &mut Reader) -> Result<Vec<(MultiReadKind, Str)>, DecodeError> {
    let mut items = Vec::new();
    while let Some(number) = multi_header(reader)? {
        let kind = match number {
            opcode::GET_DATA => MultiReadKind::GetData,
            opcode::GET_CHILDREN => MultiReadKind::GetChildren,
            other => return Err(reader.error("type", DecodeErrorKind::Unknown(other))),
        };
        items.push((kind, path_watch(reader)?.path));
    }
    Ok(items)
}

/// {type, done, err}; `None` when done.
fn multi_header(reader: &mut Reader) -> Result<Option<i32>, DecodeError> {
    let number = reader.i32("type")?;
    let done = reader.bool("done")?;
    reader.i32("err")?;
    Ok((!done).then_some(number))
}

fn path_watch(reader: &mut Reader) -> Result<PathWatch, DecodeError> {
    Ok(PathWatch { path: reader.some_str("path")?, watch: reader.bool("watch")? })
}

fn selection(reader: &mut Reader) -> Result<WatcherSelection, DecodeError> {
    let path = reader.some_str("path")?;
    let watcher_type = match reader.i32("type")? {
        1 => WatcherType::Children,
        2 => WatcherType::Data,
        3 => WatcherType::Any,
        4 => WatcherType::Persistent,
        5 => WatcherType::PersistentRecursive,
        other => return Err(reader.error("type", DecodeErrorKind::Unknown(other))),
    };
    Ok(WatcherSelection { path, watcher_type })
}

fn add_watch(reader: &mut Reader) -> Result<ReadRequest, DecodeError> {
    let path = reader.some_str("path")?;
    match reader.i32("mode")? {
        0 => Ok(ReadRequest::AddWatch { path, recursive: false }),
        1 => Ok(ReadRequest::AddWatch { path, recursive: true }),
        other => Err(reader.error("mode", DecodeErrorKind::Unknown(other))),
    }
}

/// A null list or path is found by Apache only when its turn comes, after the watches before it
/// were set. A null path in the persistent lists leaves a watch that nothing can fire.
fn set_watches(reader: &mut Reader, has_persistent: bool) -> Result<SetWatches, DecodeError> {
    let mut set =
        SetWatches { relative_zxid: Zxid(reader.i64("relativeZxid")?), ..Default::default() };
    let mut lists = vec![
        ("dataWatches", &mut set.data, false),
        ("existWatches", &mut set.exist, false),
        ("childWatches", &mut set.child, false),
    ];
    if has_persistent {
        lists.push(("persistentWatches", &mut set.persistent, true));
        lists.push(("persistentRecursiveWatches", &mut set.persistent_recursive, true));
    }
    for (field, to, skips_null) in lists {
        let strings = reader.strings(field, skips_null)?;
        if !set.cut_short {
            set.cut_short = strings.as_ref().is_none_or(|(_, has_null)| *has_null && !skips_null);
            *to = strings.map(|(strings, _)| strings).unwrap_or_default();
        }
    }
    Ok(set)
}
