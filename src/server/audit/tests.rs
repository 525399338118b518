//! Tests of the audit log's lines; `tests/it/audit.rs` compares them with Apache's.

use super::*;
use crate::model::{CreateKind, CreateTxn, CreateTxnKind, Perms, ReconfigRequest};

fn create(path: &str, flags: i32) -> WriteRequest {
    let (kind, path) = (CreateKind::Create, path.into());
    WriteRequest::Create(CreateRequest { kind, path, data: None, acl: None, flags })
}

fn created(path: &str) -> TxnBody {
    let kind = CreateTxnKind::Create { ephemeral: false };
    let (path, acl) = (path.into(), Vec::new());
    TxnBody::Create(CreateTxn { kind, path, data: None, acl, parent_cversion: 1 })
}

fn lines(request: Result<WriteRequest, ErrorCode>, body: &TxnBody) -> Vec<String> {
    let me = Identities::of_peer("10.1.2.3".parse().unwrap());
    let entry = Entry::of(SessionId(7), &me, &request, body);
    assert_eq!(entry.who.0, "session=0x7\tuser=10.1.2.3\tip=10.1.2.3");
    let lines = entry.lines.iter();
    lines.map(|Line(line)| line.strip_prefix("operation=").expect("the start").into()).collect()
}

#[test]
fn control_characters_do_not_begin_a_line() {
    let path = "/a\nsession=0x1\tuser=\u{1b}\u{85}";
    assert_eq!(
        lines(Ok(create(path, 0)), &TxnBody::Error(ErrorCode::BAD_ARGUMENTS)),
        ["create\tznode=/a\\nsession=0x1\\tuser=\\u{1b}\\u{85}\tznode_type=persistent\t\
          result=failure"]
    );
}

#[test]
fn unknown_modes_are_left_out() {
    assert_eq!(
        lines(Ok(create("/a", 7)), &TxnBody::Error(ErrorCode::BAD_ARGUMENTS)),
        ["create\tznode=/a\tresult=failure"]
    );
}

#[test]
fn members_of_a_multi_have_their_final_paths() {
    let multi = WriteRequest::Multi(vec![
        create("/s-", 2),
        WriteRequest::Check { path: "/".into(), version: -1 },
        create("/t", 5),
    ]);
    let check = TxnBody::Check { path: "/".into(), version: 0 };
    let body = TxnBody::Multi(vec![created("/s-0000000001"), check, created("/t")]);
    assert_eq!(
        lines(Ok(multi.clone()), &body),
        [
            "create\tznode=/s-0000000001\tznode_type=persistent_sequential\tresult=success",
            "create\tznode=/t\tznode_type=persistent_with_ttl\tresult=success",
        ]
    );
    let failed = TxnBody::Error(ErrorCode::BAD_ARGUMENTS);
    assert_eq!(lines(Ok(multi), &failed), ["multiOperation\tresult=failure"]);
}

#[test]
fn entries_of_an_acl_are_kept_apart() {
    let entry = |perms, scheme: Option<&str>, id: &str| RawAcl {
        perms: Perms(perms),
        scheme: scheme.map(Into::into),
        id: Some(id.into()),
    };
    let entries = vec![
        entry(1, Some("world"), "anyone"),
        entry(-1, Some("ip"), "10.0.0.0/8"),
        entry(0, None, "x\ty"),
    ];
    let set = WriteRequest::SetAcl { path: "/a".into(), acl: Some(entries), version: -1 };
    assert_eq!(
        lines(Ok(set), &TxnBody::Error(ErrorCode::INVALID_ACL)),
        ["setAcl\tznode=/a\tacl=world:anyone:r,ip:10.0.0.0/8:cdrwa,:x\\ty:\tresult=failure"]
    );
}

#[test]
fn only_what_changes_something_is_told_of() {
    let closed = TxnBody::CloseSession { paths: None };
    assert_eq!(lines(Ok(WriteRequest::CloseSession), &closed), [""; 0]);
    let error = ErrorCode::MARSHALLING_ERROR;
    assert_eq!(lines(Err(error), &TxnBody::Error(error)), [""; 0]);
    let error = TxnBody::Error(ErrorCode::RECONFIG_DISABLED);
    let reconfig = WriteRequest::Reconfig(ReconfigRequest::default());
    assert_eq!(lines(Ok(reconfig), &error), ["reconfig\tresult=failure"]);
}
