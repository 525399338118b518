//! `enableEagerACLCheck`: which writes a leader and a follower refuse before they become txns, and
//! how, as Apache ZooKeeper's do.

use std::thread;

use ringkeeper::client::requests::delete;
use ringkeeper::model::request::RawAcl;
use ringkeeper::model::{CreateKind, CreateRequest, Perms, Request, WriteRequest};

use super::apache::{self, Java};
use super::client::{self, set};
use super::ensemble::{Ensemble, Program};
use super::peer;

fn acl(perms: Perms, scheme: &str, id: &str) -> Option<Vec<RawAcl>> {
    Some(vec![RawAcl { perms, scheme: Some(scheme.into()), id: Some(id.into()) }])
}

fn create(kind: CreateKind, path: &str, acl: Option<Vec<RawAcl>>) -> WriteRequest {
    let flags = if kind == CreateKind::Container { 4 } else { 0 };
    WriteRequest::Create(CreateRequest { kind, path: path.into(), data: None, acl, flags })
}

/// Every write that may be refused, at a leader or follower: the code, and whether it took a zxid.
fn transcript(ensemble: &Ensemble, sid: i64) -> Vec<String> {
    let anyone = || acl(Perms::ALL, "world", "anyone");
    let reading = || acl(Perms::READ, "world", "anyone");
    let path = format!("/closed-{sid}");
    let closed = path.as_str();
    let below = format!("{closed}/child");
    let set_acl = |path: &str, acl| WriteRequest::SetAcl { path: path.into(), acl, version: -1 };
    let check = WriteRequest::Check { path: "/".into(), version: -1 };
    let mut client = client::connect_for_long(ensemble.ports[&sid]).expect("it serves");
    let mut writes = vec![
        create(CreateKind::Create, closed, anyone()),
        create(CreateKind::Create, &below, anyone()),
        set_acl(closed, reading()),
    ];
    for kind in [CreateKind::Create, CreateKind::Create2, CreateKind::Container] {
        writes.push(create(kind, &format!("{closed}/other"), anyone()));
        writes.push(create(kind, "/wrong", acl(Perms::ALL, "digest", "no colon")));
        writes.push(create(kind, "/nowhere/at/all", anyone()));
    }
    let plain = [delete(&below), set(closed, b"x"), set("/nowhere", b"x"), set(&below, b"x")];
    writes.extend(plain.into_iter().filter_map(|request| match request {
        Request::Write(write) => Some(write),
        _ => None,
    }));
    writes.extend([
        set_acl(closed, anyone()),
        set_acl(closed, acl(Perms::ALL, "ip", "no address")),
        WriteRequest::Multi(vec![check, create(CreateKind::Create, &below, anyone())]),
    ]);
    let tell = |write: WriteRequest| {
        let text = format!("{write:?}").replace(closed, "/closed");
        let reply = client.call(&Request::Write(write)).expect("it is answered");
        format!("{text}: {:?}, a zxid: {}", reply.header.code, reply.header.zxid.0 != 0)
    };
    writes.into_iter().map(tell).collect()
}

fn both(program: &Program) -> Vec<String> {
    let mut ensemble = Ensemble::new(3);
    for sid in 1..=3 {
        ensemble.start(sid, program, "enableEagerACLCheck=true");
    }
    ensemble.all_serve();
    let leader = ensemble.leader();
    let follower = (1..=3).find(|sid| *sid != leader).expect("there are three");
    let said = [leader, follower].map(|sid| transcript(&ensemble, sid)).concat();
    let home = ensemble.home.clone();
    drop(ensemble);
    peer::clean(&home);
    said
}

#[test]
fn eager_checks_refuse_what_apaches_refuse() {
    let ours = both(&Program::Ours);
    let early = ours.iter().filter(|line| line.ends_with("false")).count();
    assert_eq!(early, 16, "{ours:#?}");
    let Some(jars) = apache::jars() else {
        let test = "eager_checks_refuse_what_apaches_refuse";
        return apache::skip(test, "no java or no Apache ZooKeeper to compare with");
    };
    let theirs = thread::spawn(move || both(&Program::Apache(Java::new(&jars))));
    apache::assert_same("eager", &ours, &theirs.join().expect("it does not panic"));
}
