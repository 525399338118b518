//! The requests that programs and tests make most, as functions.

use bytes::Bytes;

use crate::base::Str;
use crate::model::request::{PathWatch, RawAcl};
use crate::model::{CreateKind, CreateRequest, Perms, ReadRequest, Request, WriteRequest};

/// create with the open ACL.
pub fn create(path: &str, data: &[u8], flags: i32) -> Request {
    let open =
        RawAcl { perms: Perms::ALL, scheme: Some("world".into()), id: Some("anyone".into()) };
    Request::Write(WriteRequest::Create(CreateRequest {
        kind: CreateKind::Create,
        path: path.into(),
        data: Some(Bytes::copy_from_slice(data)),
        acl: Some(vec![open]),
        flags,
    }))
}

/// setData of any version.
pub fn set(path: &str, data: &[u8]) -> Request {
    let data = Some(Bytes::copy_from_slice(data));
    Request::Write(WriteRequest::SetData { path: path.into(), data, version: -1 })
}

/// delete of any version.
pub fn delete(path: &str) -> Request {
    Request::Write(WriteRequest::Delete { path: path.into(), version: -1 })
}

/// getData.
pub fn get(path: &str, watch: bool) -> Request {
    Request::Read(ReadRequest::GetData(PathWatch { path: Str::from(path), watch }))
}

/// getChildren.
pub fn list(path: &str, watch: bool) -> Request {
    Request::Read(ReadRequest::GetChildren(PathWatch { path: Str::from(path), watch }))
}

/// exists.
pub fn exists(path: &str, watch: bool) -> Request {
    Request::Read(ReadRequest::Exists(PathWatch { path: Str::from(path), watch }))
}
