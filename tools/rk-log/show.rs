//! Txns, znodes and sessions as one line of text or one JSON object each.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringkeeper::base::{Str, StrList};
use ringkeeper::model::{
    Acl, CreateTxn, CreateTxnKind, EphemeralOwner, ExtendedTypes, Perms, StatPersisted, Txn,
    TxnBody,
};
use serde_json::{Map, Value, json};

use super::filter::DataMode;
use super::time::rfc3339;

/// Every name that [`type_name`] gives.
pub(crate) const TYPE_NAMES: &[&str] = &[
    "createSession",
    "closeSession",
    "error",
    "create",
    "create2",
    "createContainer",
    "createTTL",
    "delete",
    "deleteContainer",
    "setData",
    "reconfig",
    "setACL",
    "check",
    "multi",
];

/// The type of a txn, as Apache's tools name it.
pub(crate) const fn type_name(body: &TxnBody) -> &'static str {
    match body {
        TxnBody::CreateSession { .. } => "createSession",
        TxnBody::CloseSession { .. } => "closeSession",
        TxnBody::Error(_) => "error",
        TxnBody::Create(create) => match create.kind {
            CreateTxnKind::Create { .. } => "create",
            CreateTxnKind::Create2 { .. } => "create2",
            CreateTxnKind::Container => "createContainer",
            CreateTxnKind::Ttl { .. } => "createTTL",
        },
        TxnBody::Delete { .. } => "delete",
        TxnBody::DeleteContainer { .. } => "deleteContainer",
        TxnBody::SetData { .. } => "setData",
        TxnBody::Reconfig { .. } => "reconfig",
        TxnBody::SetAcl { .. } => "setACL",
        TxnBody::Check { .. } => "check",
        TxnBody::Multi(_) => "multi",
    }
}

/// The znodes that a txn names; those of a multi's operations are asked one by one.
pub(crate) fn paths_of(body: &TxnBody) -> impl Iterator<Item = Str> {
    let one = match body {
        TxnBody::Create(CreateTxn { path, .. })
        | TxnBody::Delete { path }
        | TxnBody::DeleteContainer { path }
        | TxnBody::SetData { path, .. }
        | TxnBody::Reconfig { path, .. }
        | TxnBody::SetAcl { path, .. }
        | TxnBody::Check { path, .. } => Some(path),
        _ => None,
    };
    let many = match body {
        TxnBody::CloseSession { paths: Some(paths) } => paths.clone(),
        _ => StrList::default(),
    };
    one.cloned().into_iter().chain(many)
}

/// A txn as text: first what Apache's log formatter prints first, then name and value pairs.
pub(crate) fn txn_text(txn: &Txn, data: DataMode) -> String {
    let header = &txn.header;
    let mut line = format!(
        "{} session {} cxid 0x{:x} zxid {} ",
        rfc3339(header.time_ms),
        header.session,
        header.cxid.0,
        header.zxid
    );
    body_text(&txn.body, data, &mut line);
    if let Some(digest) = txn.digest {
        line += &format!(" digest=0x{digest:x}");
    }
    line
}

fn body_text(body: &TxnBody, data: DataMode, line: &mut String) {
    line.push_str(type_name(body));
    for path in paths_of(body) {
        line.push(' ');
        line.push_str(&quoted(&path));
    }
    match body {
        TxnBody::CreateSession { timeout_ms } => *line += &format!(" timeout={timeout_ms}"),
        TxnBody::CloseSession { paths } => {
            *line += &format!(" ephemerals={}", paths.as_ref().map_or(0, StrList::len));
        }
        TxnBody::Error(code) => *line += &format!(" code={} {}", code.0, code.name()),
        TxnBody::Create(create) => {
            *line += &data_text(create.data.as_deref(), data);
            *line += &format!(" acl={}", acl_text(&create.acl));
            match create.kind {
                CreateTxnKind::Create { ephemeral } | CreateTxnKind::Create2 { ephemeral } => {
                    *line += &format!(" ephemeral={ephemeral}");
                }
                CreateTxnKind::Container => {}
                CreateTxnKind::Ttl { ttl_ms } => *line += &format!(" ttl={ttl_ms}"),
            }
            *line += &format!(" parentCversion={}", create.parent_cversion);
        }
        TxnBody::SetData { data: bytes, version, .. }
        | TxnBody::Reconfig { data: bytes, version, .. } => {
            *line += &data_text(bytes.as_deref(), data);
            *line += &format!(" version={version}");
        }
        TxnBody::SetAcl { acl, version, .. } => {
            *line += &format!(" acl={} aversion={version}", acl_text(acl));
        }
        TxnBody::Check { version, .. } => *line += &format!(" version={version}"),
        TxnBody::Delete { .. } | TxnBody::DeleteContainer { .. } => {}
        TxnBody::Multi(bodies) => {
            for (at, body) in bodies.iter().enumerate() {
                line.push_str(if at == 0 { " " } else { "; " });
                body_text(body, data, line);
            }
        }
    }
}

/// A txn as JSON, with where it was found.
pub(crate) fn txn_json(txn: &Txn, data: DataMode, file: &str, offset: u64) -> Value {
    let header = &txn.header;
    let mut object = json!({
        "file": file,
        "offset": offset,
        "time": rfc3339(header.time_ms),
        "timeMs": header.time_ms,
        "session": header.session.to_string(),
        "cxid": header.cxid.0,
        "zxid": header.zxid.to_string(),
    });
    if let Some(object) = object.as_object_mut() {
        object.append(&mut body_json(&txn.body, data));
        let digest = txn.digest.map(|digest| format!("0x{digest:x}"));
        object.insert("digest".into(), digest.into());
    }
    object
}

fn body_json(body: &TxnBody, data: DataMode) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
    put("type", type_name(body).into());
    match body {
        TxnBody::CloseSession { paths } => {
            let paths = paths.as_ref();
            put(
                "paths",
                json!(paths.map(|paths| {
                    paths.iter().map(|path| path.to_string()).collect::<Vec<_>>()
                })),
            );
        }
        other => {
            if let Some(path) = paths_of(other).next() {
                put("path", path.as_str().into());
            }
        }
    }
    match body {
        TxnBody::CreateSession { timeout_ms } => put("timeoutMs", (*timeout_ms).into()),
        TxnBody::Error(code) => {
            put("code", code.0.into());
            put("error", code.name().into());
        }
        TxnBody::Create(create) => {
            put("acl", acl_json(&create.acl));
            put("parentCversion", create.parent_cversion.into());
            match create.kind {
                CreateTxnKind::Create { ephemeral } | CreateTxnKind::Create2 { ephemeral } => {
                    put("ephemeral", ephemeral.into());
                }
                CreateTxnKind::Container => {}
                CreateTxnKind::Ttl { ttl_ms } => put("ttlMs", ttl_ms.into()),
            }
            put_data(create.data.as_deref(), data, &mut put);
        }
        TxnBody::SetData { data: bytes, version, .. }
        | TxnBody::Reconfig { data: bytes, version, .. } => {
            put("version", (*version).into());
            put_data(bytes.as_deref(), data, &mut put);
        }
        TxnBody::SetAcl { acl, version, .. } => {
            put("acl", acl_json(acl));
            put("aversion", (*version).into());
        }
        TxnBody::Check { version, .. } => put("version", (*version).into()),
        TxnBody::Multi(bodies) => {
            put("ops", bodies.iter().map(|body| Value::from(body_json(body, data))).collect());
        }
        TxnBody::CloseSession { .. } | TxnBody::Delete { .. } | TxnBody::DeleteContainer { .. } => {
        }
    }
    object
}

/// A znode of a snapshot as text.
pub(crate) fn znode_text(
    path: &str,
    bytes: Option<&[u8]>,
    acl: &[Acl],
    stat: &StatPersisted,
    data: DataMode,
) -> String {
    let mut line = format!("znode {}", quoted(path));
    line += &data_text(bytes, data);
    let StatPersisted { czxid, mzxid, pzxid, ctime, mtime, version, cversion, aversion, .. } = stat;
    let (ctime, mtime) = (rfc3339(*ctime), rfc3339(*mtime));
    // Writing to a string cannot fail.
    let _written = write!(
        line,
        " acl={} {} czxid={czxid} mzxid={mzxid} pzxid={pzxid} ctime={ctime} mtime={mtime} \
         version={version} cversion={cversion} aversion={aversion}",
        acl_text(acl),
        owner_text(stat)
    );
    line
}

/// A znode of a snapshot as JSON. Versions and owner are as stored.
pub(crate) fn znode_json(
    path: &str,
    bytes: Option<&[u8]>,
    acl: &[Acl],
    stat: &StatPersisted,
    data: DataMode,
) -> Value {
    let mut object = json!({
        "path": path,
        "acl": acl_json(acl),
        "czxid": stat.czxid.to_string(),
        "mzxid": stat.mzxid.to_string(),
        "pzxid": stat.pzxid.to_string(),
        "ctime": rfc3339(stat.ctime),
        "ctimeMs": stat.ctime,
        "mtime": rfc3339(stat.mtime),
        "mtimeMs": stat.mtime,
        "version": stat.version,
        "cversion": stat.cversion,
        "aversion": stat.aversion,
        "ephemeralOwner": format!("0x{:x}", stat.ephemeral_owner),
        "kind": owner_text(stat).split('=').next(),
    });
    if let Some(object) = object.as_object_mut() {
        let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
        put_data(bytes, data, &mut put);
    }
    object
}

fn owner_text(stat: &StatPersisted) -> String {
    match EphemeralOwner::of(stat.ephemeral_owner, ExtendedTypes::On) {
        EphemeralOwner::Persistent => "persistent".to_owned(),
        EphemeralOwner::Container => "container".to_owned(),
        EphemeralOwner::Ttl(ttl_ms) => format!("ttl={ttl_ms}"),
        EphemeralOwner::Session(session) => format!("ephemeral={session}"),
    }
}

/// A path as it is, or in quotes with escapes if it would not be one word.
pub(crate) fn quoted(path: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"';
    if !path.is_empty() && path.chars().all(is_plain) {
        return path.to_owned();
    }
    format!("{path:?}")
}

fn data_text(bytes: Option<&[u8]>, mode: DataMode) -> String {
    let Some(bytes) = bytes else { return " data=null".to_owned() };
    match mode {
        DataMode::None => format!(" bytes={}", bytes.len()),
        DataMode::Text => match std::str::from_utf8(bytes) {
            Ok(text) => format!(" data={text:?}"),
            Err(_) => format!(" data=\"{}\"", bytes.escape_ascii()),
        },
        DataMode::Base64 => format!(" data={}", STANDARD.encode(bytes)),
    }
}

fn put_data(bytes: Option<&[u8]>, mode: DataMode, put: &mut impl FnMut(&str, Value)) {
    put("dataBytes", bytes.map(<[u8]>::len).into());
    let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    match (mode, bytes, text) {
        (DataMode::None, ..) => {}
        (_, None, _) => put("data", Value::Null),
        (DataMode::Text, _, Some(text)) => put("data", text.into()),
        (_, Some(bytes), _) => put("dataBase64", STANDARD.encode(bytes).into()),
    }
}

fn acl_text(acl: &[Acl]) -> String {
    let entries: Vec<String> = acl.iter().map(acl_entry).collect();
    format!("[{}]", entries.join(","))
}

fn acl_json(acl: &[Acl]) -> Value {
    let entry = |acl: &Acl| {
        json!({
            "scheme": acl.id.scheme.as_str(),
            "id": acl.id.id.as_str(),
            "perms": perms_text(acl.perms),
        })
    };
    acl.iter().map(entry).collect()
}

/// scheme:id:perms, as zkCli takes it.
fn acl_entry(acl: &Acl) -> String {
    let id = format!("{}:{}:{}", acl.id.scheme, acl.id.id, perms_text(acl.perms));
    quoted(&id)
}

/// The letters that zkCli prints, and what bits have no letter as a number.
fn perms_text(perms: Perms) -> String {
    let mut text = perms.letters();
    let rest = perms.0 & !Perms::ALL.0;
    if rest != 0 {
        text += &format!("+0x{rest:x}");
    }
    text
}
