//! Reply and notification packets (`client-protocol.md` parts 3, 4.2, 6.2 and 7.5). Strings and
//! vectors in replies are never null: the C and Go clients cannot read that.

use bytes::{BufMut, BytesMut};

use super::connect::{finish_frame, jute_frame};
use super::jute::{put_acls, put_bool, put_buffer, put_len, put_stat, put_str};
use super::opcode;
use crate::base::Str;
use crate::model::{Acl, ErrorCode, Stat, WatchEvent, Xid, Zxid};

/// Appends a reply with its frame length. `body` is called only for success.
pub fn reply(
    buf: &mut BytesMut,
    xid: Xid,
    zxid: Zxid,
    code: ErrorCode,
    body: impl FnOnce(&mut BytesMut),
) {
    let frame = jute_frame(buf);
    buf.put_i32(xid.0);
    buf.put_i64(zxid.0);
    buf.put_i32(code.0);
    let header = buf.len();
    if code == ErrorCode::OK {
        body(buf);
    }
    // No frame is as long.
    if i32::try_from(buf.len() - frame - 4).is_err() {
        buf.truncate(header - 4);
        buf.put_i32(ErrorCode::SYSTEM_ERROR.0);
    }
    finish_frame(buf, frame);
}

/// Begins a successful reply in an empty buffer; its body is appended in pieces.
pub fn open(buf: &mut BytesMut, xid: Xid, zxid: Zxid) {
    buf.put_i32(0);
    buf.put_i32(xid.0);
    buf.put_i64(zxid.0);
    buf.put_i32(ErrorCode::OK.0);
}

/// Ends what [`open`] began in `first`, once it is known how many bytes all pieces have together.
/// False if no frame is as long.
pub fn close(first: &mut BytesMut, bytes: usize) -> bool {
    let length = bytes.checked_sub(4).and_then(|bytes| i32::try_from(bytes).ok());
    length.is_some_and(|length| put_at(first, 0, length))
}

/// Begins a successful reply whose body starts with a vector of strings, in an empty buffer. The
/// strings are appended in pieces.
pub fn open_strings(buf: &mut BytesMut, xid: Xid, zxid: Zxid) {
    open(buf, xid, zxid);
    buf.put_i32(0);
}

/// Says in what [`open_strings`] began how many strings there are; [`close`] is yet to come. False
/// if there are more than a vector can have.
pub fn count_strings(first: &mut BytesMut, count: usize) -> bool {
    i32::try_from(count).is_ok_and(|count| put_at(first, 20, count))
}

fn put_at(buf: &mut BytesMut, at: usize, number: i32) -> bool {
    let Some(room) = buf.get_mut(at..at + 4) else { return false };
    room.copy_from_slice(&number.to_be_bytes());
    true
}

/// Appends a notification with its frame length. The state is always SyncConnected.
pub fn event(buf: &mut BytesMut, zxid: Zxid, event: &WatchEvent) {
    const SYNC_CONNECTED: i32 = 3;
    reply(buf, Xid::NOTIFICATION, zxid, ErrorCode::OK, |buf| {
        buf.put_i32(event.event_type as i32);
        buf.put_i32(SYNC_CONNECTED);
        put_str(buf, &event.path);
    });
}

/// A path.
pub fn path(buf: &mut BytesMut, path: &str) {
    put_str(buf, path);
}

/// A path and a stat.
pub fn path_and_stat(buf: &mut BytesMut, path: &str, stat: &Stat) {
    put_str(buf, path);
    put_stat(buf, stat);
}

/// A stat.
pub fn stat(buf: &mut BytesMut, stat: &Stat) {
    put_stat(buf, stat);
}

/// Data, null or not, and a stat.
pub fn data_and_stat(buf: &mut BytesMut, data: Option<&[u8]>, stat: &Stat) {
    put_buffer(buf, data);
    put_stat(buf, stat);
}

/// An ACL and a stat.
pub fn acl_and_stat(buf: &mut BytesMut, acl: &[Acl], stat: &Stat) {
    put_acls(buf, acl);
    put_stat(buf, stat);
}

/// Names of children.
pub fn children<'a>(buf: &mut BytesMut, names: impl Iterator<Item = &'a str>) {
    strings(buf, names);
}

/// Names of children and the parent's stat.
pub fn children_and_stat<'a>(
    buf: &mut BytesMut,
    names: impl Iterator<Item = &'a str>,
    stat: &Stat,
) {
    strings(buf, names);
    put_stat(buf, stat);
}

/// A vector of strings.
pub fn strings<'a>(buf: &mut BytesMut, strings: impl Iterator<Item = &'a str>) {
    let at = buf.len();
    buf.put_i32(0);
    let mut count = 0_i32;
    for string in strings {
        put_str(buf, string);
        count += 1;
    }
    if let Some(room) = buf.get_mut(at..at + 4) {
        room.copy_from_slice(&count.to_be_bytes());
    }
}

/// An integer.
pub fn int(buf: &mut BytesMut, value: i32) {
    buf.put_i32(value);
}

/// A buffer.
pub fn buffer(buf: &mut BytesMut, value: Option<&[u8]>) {
    put_buffer(buf, value);
}

/// The answer to whoAmI: (scheme, user) each.
pub fn client_infos(buf: &mut BytesMut, infos: &[(Str, Str)]) {
    put_len(buf, infos.len());
    for (scheme, user) in infos {
        put_str(buf, scheme);
        put_str(buf, user);
    }
}

/// The result of one op of a multi that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiResult {
    /// Type 1.
    Create {
        /// Final path.
        path: Str,
    },
    /// Type 15, for every create that is not a plain one.
    Create2 {
        /// Final path.
        path: Str,
        /// As of that op.
        stat: Stat,
    },
    /// Type 2.
    Delete,
    /// Type 5.
    SetData(Stat),
    /// Type 13.
    Check,
}

/// One result of a multi that succeeded; [`multi_end`] follows the last.
pub fn multi_result(buf: &mut BytesMut, result: &MultiResult) {
    match result {
        MultiResult::Create { path } => {
            multi_header(buf, opcode::CREATE, ErrorCode::OK);
            put_str(buf, path);
        }
        MultiResult::Create2 { path, stat } => {
            multi_header(buf, opcode::CREATE2, ErrorCode::OK);
            path_and_stat(buf, path, stat);
        }
        MultiResult::Delete => multi_header(buf, opcode::DELETE, ErrorCode::OK),
        MultiResult::SetData(stat) => {
            multi_header(buf, opcode::SET_DATA, ErrorCode::OK);
            put_stat(buf, stat);
        }
        MultiResult::Check => multi_header(buf, opcode::CHECK, ErrorCode::OK),
    }
}

/// The end of a multi's or multiRead's body.
pub fn multi_end(buf: &mut BytesMut) {
    buf.put_i32(-1);
    put_bool(buf, true);
    buf.put_i32(-1);
}

/// One op of a multi of which an op failed, or one item of a multiRead that failed.
pub fn multi_error(buf: &mut BytesMut, code: ErrorCode) {
    multi_header(buf, -1, code);
    buf.put_i32(code.0);
}

/// One getData of a multiRead.
pub fn multi_read_data(buf: &mut BytesMut, data: Option<&[u8]>, stat: &Stat) {
    multi_header(buf, opcode::GET_DATA, ErrorCode::OK);
    data_and_stat(buf, data, stat);
}

/// One getChildren of a multiRead; so many names follow.
pub fn multi_read_children(buf: &mut BytesMut, names: usize) {
    multi_header(buf, opcode::GET_CHILDREN, ErrorCode::OK);
    put_len(buf, names);
}

fn multi_header(buf: &mut BytesMut, number: i32, code: ErrorCode) {
    buf.put_i32(number);
    put_bool(buf, false);
    buf.put_i32(code.0);
}
