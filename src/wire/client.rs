//! The client's side of the protocol, for the simulator, tools and tests: requests to bytes,
//! replies to values.

use bytes::{BufMut, Bytes, BytesMut};

use super::connect::{finish_frame, jute_frame};
use super::jute::{self, DecodeError, DecodeErrorKind, Reader};
use super::opcode;
use crate::model::request::{MultiReadKind, PathWatch, RawAcl, WatcherType};
use crate::model::{
    CreateKind, ErrorCode, EventType, ReadRequest, Request, WatchEvent, WriteRequest, Xid, Zxid,
};

/// The header of every reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's, or a special one.
    pub xid: Xid,
    /// What the server had applied, or the txn's.
    pub zxid: Zxid,
    /// Success or not.
    pub code: ErrorCode,
}

/// Reads the header of a reply frame.
pub fn decode_reply_header(reader: &mut Reader) -> Result<ReplyHeader, DecodeError> {
    Ok(ReplyHeader {
        xid: Xid(reader.i32("xid")?),
        zxid: Zxid(reader.i64("zxid")?),
        code: ErrorCode(reader.i32("err")?),
    })
}

/// Reads the body of a notification.
pub fn decode_event(reader: &mut Reader) -> Result<WatchEvent, DecodeError> {
    let event_type = match reader.i32("type")? {
        1 => EventType::NodeCreated,
        2 => EventType::NodeDeleted,
        3 => EventType::NodeDataChanged,
        4 => EventType::NodeChildrenChanged,
        other => return Err(reader.error("type", DecodeErrorKind::Unknown(other))),
    };
    reader.i32("state")?;
    Ok(WatchEvent { event_type, path: reader.some_str("path")? })
}

/// Appends a request frame.
pub fn encode_request(xid: Xid, request: &Request, buf: &mut BytesMut) {
    let frame = jute_frame(buf);
    buf.put_i32(xid.0);
    let at = buf.len();
    buf.put_i32(0);
    let number = body(request, buf);
    if let Some(room) = buf.get_mut(at..at + 4) {
        room.copy_from_slice(&number.to_be_bytes());
    }
    finish_frame(buf, frame);
}

fn body(request: &Request, buf: &mut BytesMut) -> i32 {
    match request {
        Request::Write(WriteRequest::Multi(requests)) => {
            for request in requests {
                let at = buf.len();
                buf.put_slice(&[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
                let number = write(request, buf);
                if let Some(room) = buf.get_mut(at..at + 4) {
                    room.copy_from_slice(&number.to_be_bytes());
                }
            }
            super::response::multi_end(buf);
            opcode::MULTI
        }
        Request::Write(request) => write(request, buf),
        Request::Read(request) => read(request, buf),
        Request::Sync { path } => {
            jute::put_str(buf, path);
            opcode::SYNC
        }
        Request::Ping => opcode::PING,
        Request::Auth { scheme, auth } => {
            buf.put_i32(0);
            jute::put_buffer(buf, scheme.as_ref().map(|scheme| scheme.as_bytes().as_ref()));
            jute::put_buffer(buf, auth.as_deref());
            opcode::AUTH
        }
        Request::Sasl { token } => {
            jute::put_buffer(buf, token.as_deref());
            opcode::SASL
        }
        Request::WhoAmI => opcode::WHO_AM_I,
    }
}

fn write(request: &WriteRequest, buf: &mut BytesMut) -> i32 {
    match request {
        WriteRequest::Create(create) => {
            jute::put_str(buf, &create.path);
            jute::put_buffer(buf, create.data.as_deref());
            put_raw_acls(buf, create.acl.as_deref());
            buf.put_i32(create.flags);
            match create.kind {
                CreateKind::Create => opcode::CREATE,
                CreateKind::Create2 => opcode::CREATE2,
                CreateKind::Container => opcode::CREATE_CONTAINER,
                CreateKind::Ttl { ttl_ms } => {
                    buf.put_i64(ttl_ms);
                    opcode::CREATE_TTL
                }
            }
        }
        WriteRequest::Delete { path, version } => {
            jute::put_str(buf, path);
            buf.put_i32(*version);
            opcode::DELETE
        }
        WriteRequest::SetData { path, data, version } => {
            jute::put_str(buf, path);
            jute::put_buffer(buf, data.as_deref());
            buf.put_i32(*version);
            opcode::SET_DATA
        }
        WriteRequest::SetAcl { path, acl, version } => {
            jute::put_str(buf, path);
            put_raw_acls(buf, acl.as_deref());
            buf.put_i32(*version);
            opcode::SET_ACL
        }
        WriteRequest::Check { path, version } => {
            jute::put_str(buf, path);
            buf.put_i32(*version);
            opcode::CHECK
        }
        WriteRequest::Multi(_) => opcode::MULTI,
        WriteRequest::Reconfig(request) => {
            for text in [&request.joining, &request.leaving, &request.new_members] {
                jute::put_buffer(buf, text.as_ref().map(|text| text.as_bytes().as_ref()));
            }
            buf.put_i64(request.from_config);
            opcode::RECONFIG
        }
        WriteRequest::CloseSession => opcode::CLOSE_SESSION,
    }
}

fn read(request: &ReadRequest, buf: &mut BytesMut) -> i32 {
    match request {
        ReadRequest::Exists(target) => put_target(buf, target, opcode::EXISTS),
        ReadRequest::GetData(target) => put_target(buf, target, opcode::GET_DATA),
        ReadRequest::GetChildren(target) => put_target(buf, target, opcode::GET_CHILDREN),
        ReadRequest::GetChildren2(target) => put_target(buf, target, opcode::GET_CHILDREN2),
        ReadRequest::GetAcl { path } => {
            jute::put_str(buf, path);
            opcode::GET_ACL
        }
        ReadRequest::CheckWatches(selection) | ReadRequest::RemoveWatches(selection) => {
            jute::put_str(buf, &selection.path);
            buf.put_i32(match selection.watcher_type {
                WatcherType::Children => 1,
                WatcherType::Data => 2,
                WatcherType::Any => 3,
                WatcherType::Persistent => 4,
                WatcherType::PersistentRecursive => 5,
            });
            match request {
                ReadRequest::CheckWatches(_) => opcode::CHECK_WATCHES,
                _ => opcode::REMOVE_WATCHES,
            }
        }
        ReadRequest::MultiRead(items) => {
            for (kind, path) in items {
                let number = match kind {
                    MultiReadKind::GetData => opcode::GET_DATA,
                    MultiReadKind::GetChildren => opcode::GET_CHILDREN,
                };
                buf.put_i32(number);
                buf.put_slice(&[0, 0xff, 0xff, 0xff, 0xff]);
                put_target(buf, &PathWatch { path: path.clone(), watch: false }, number);
            }
            super::response::multi_end(buf);
            opcode::MULTI_READ
        }
        ReadRequest::SetWatches(set) => {
            buf.put_i64(set.relative_zxid.0);
            let mut put = |paths| jute::put_strings(buf, paths);
            put(&set.data);
            put(&set.exist);
            put(&set.child);
            if set.persistent.is_empty() && set.persistent_recursive.is_empty() {
                return opcode::SET_WATCHES;
            }
            put(&set.persistent);
            put(&set.persistent_recursive);
            opcode::SET_WATCHES2
        }
        ReadRequest::GetEphemerals { prefix } => {
            jute::put_buffer(buf, prefix.as_ref().map(|prefix| prefix.as_bytes().as_ref()));
            opcode::GET_EPHEMERALS
        }
        ReadRequest::GetAllChildrenNumber { path } => {
            jute::put_str(buf, path);
            opcode::GET_ALL_CHILDREN_NUMBER
        }
        ReadRequest::AddWatch { path, recursive } => {
            jute::put_str(buf, path);
            buf.put_i32(i32::from(*recursive));
            opcode::ADD_WATCH
        }
    }
}

fn put_target(buf: &mut BytesMut, target: &PathWatch, number: i32) -> i32 {
    jute::put_str(buf, &target.path);
    jute::put_bool(buf, target.watch);
    number
}

fn put_raw_acls(buf: &mut BytesMut, acls: Option<&[RawAcl]>) {
    let Some(acls) = acls else {
        buf.put_i32(-1);
        return;
    };
    jute::put_len(buf, acls.len());
    for acl in acls {
        buf.put_i32(acl.perms.0);
        jute::put_buffer(buf, acl.scheme.as_ref().map(|scheme| scheme.as_bytes().as_ref()));
        jute::put_buffer(buf, acl.id.as_ref().map(|id| id.as_bytes().as_ref()));
    }
}

/// Takes the replies apart that a client received: helps those who only want the frames.
pub fn frame_body(frame: &Bytes) -> Result<(ReplyHeader, Reader), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = decode_reply_header(&mut reader)?;
    Ok((header, reader))
}
