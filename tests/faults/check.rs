//! Reads everything back from every server, while no client writes, and judges it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use ringkeeper::client::requests::{delete, get};
use ringkeeper::client::{Client, Hello, replies};
use ringkeeper::model::{ErrorCode, Request};

use crate::clients::{Crowd, Leave, Outcome, WRITERS, names, numbers};
use crate::net::at;
use crate::servers::CLIENT_PORT;

/// A healed ensemble answers within this.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);
/// Of each writer, so many of the newest znodes outlive a check.
const KEPT: usize = 20;

/// What a server shows: of each writer, the creating zxid of each number; the owner of each
/// ephemeral.
#[derive(PartialEq, Eq)]
struct View {
    written: Vec<BTreeMap<u64, i64>>,
    ephemerals: BTreeMap<String, i64>,
}

/// Compares every server with what the clients know. `is_last`: every session that is over has had
/// the time to end. Then most of what was compared is deleted.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(sids: &[i64], crowd: &Crowd, is_last: bool) -> Result<(), String> {
    let mut first: Option<View> = None;
    for sid in sids {
        let of = |why: String| format!("server {sid}: {why}");
        let view = insist(|| look(*sid)).map_err(|error| of(error.to_string()))?;
        for (writer, written) in view.written.iter().enumerate() {
            judge(crowd, writer, written).map_err(|why| of(format!("writer {writer}: {why}")))?;
        }
        judge_ephemerals(crowd, &view.ephemerals, is_last).map_err(of)?;
        if first.as_ref().is_some_and(|first| first.written != view.written) {
            return Err(of(format!("it shows something else than server {}", sids[0])));
        }
        first.get_or_insert(view);
    }
    let Some(view) = first else { return Ok(()) };
    for writer in 0..WRITERS {
        let all: Vec<u64> = view.written[writer].keys().copied().collect();
        let keep = all.len().saturating_sub(KEPT);
        let Some(floor) = all.get(keep) else { continue };
        insist(|| clear(sids[0], writer, &all[..keep])).map_err(|error| error.to_string())?;
        let mut journal = crowd.journal(writer);
        journal.floor = *floor;
        journal.known = journal.known.split_off(floor);
    }
    Ok(())
}

/// Whether no server shows an ephemeral of a guest any more.
pub(crate) fn guests_are_gone(sids: &[i64]) -> bool {
    let shown = |sid: i64| names(&mut enter(sid)?, "/e");
    let is_none = |names: &[String]| !names.iter().any(|name| name.starts_with('g'));
    sids.iter().all(|sid| shown(*sid).is_ok_and(|(names, _)| is_none(&names)))
}

/// Tries until it succeeds, or fails with the last error.
fn insist<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

/// A session at a server, behind a sync.
fn enter(sid: i64) -> io::Result<Client> {
    let hello = Hello { timeout_ms: 5_000, ..Hello::default() };
    let mut client = Client::attach_within(at(sid, CLIENT_PORT), &hello, WITHIN / 2)?;
    match client.call(&Request::Sync { path: "/".into() })?.header.code {
        ErrorCode::OK => Ok(client),
        code => Err(io::Error::other(format!("a sync is answered with {code:?}"))),
    }
}

fn look(sid: i64) -> io::Result<View> {
    let mut client = enter(sid)?;
    let mut view = View { written: Vec::new(), ephemerals: BTreeMap::new() };
    for writer in 0..WRITERS {
        let path = format!("/w/{writer}");
        let (numbers, _) = numbers(&mut client, &path)?;
        for number in &numbers {
            client.send(&get(&format!("{path}/{number:010}"), false))?;
        }
        let mut written = BTreeMap::new();
        for number in numbers {
            let mut reply = client.receive()?;
            let shown = replies::data_and_stat(&mut reply.body).map_err(io::Error::other)?;
            if shown.0.as_deref() != Some(number.to_string().as_bytes()) {
                return Err(io::Error::other(format!("{path}/{number} holds {:?}", shown.0)));
            }
            written.insert(number, shown.1.czxid.0);
        }
        view.written.push(written);
    }
    for name in names(&mut client, "/e")?.0 {
        let mut reply = client.call(&get(&format!("/e/{name}"), false))?;
        // A session may have expired meanwhile.
        if reply.header.code == ErrorCode::OK {
            let shown = replies::data_and_stat(&mut reply.body).map_err(io::Error::other)?;
            view.ephemerals.insert(name, shown.1.ephemeral_owner);
        }
    }
    Ok(view)
}

fn judge(crowd: &Crowd, writer: usize, written: &BTreeMap<u64, i64>) -> Result<(), String> {
    let mut journal = crowd.journal(writer);
    let shown: BTreeSet<u64> = written.keys().copied().collect();
    journal.judge(&shown)?;
    // A session's writes took effect in the order in which it sent them.
    let zxids: Vec<(&u64, &i64)> = written.iter().collect();
    if let Some(pair) = zxids.windows(2).find(|pair| pair[1].1 <= pair[0].1) {
        return Err(format!("out of order: {pair:?}"));
    }
    // And none without those before it on the same connection.
    let mut missing: Option<(u64, u32)> = None;
    for (number, (connection, outcome)) in &journal.known {
        match (outcome, missing) {
            (Outcome::Unknown, _) => missing = Some((*number, *connection)),
            (Outcome::There, Some((earlier, same))) if same == *connection => {
                return Err(format!("{number} is there, {earlier} of the same connection is not"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn judge_ephemerals(
    crowd: &Crowd,
    shown: &BTreeMap<String, i64>,
    is_last: bool,
) -> Result<(), String> {
    for writer in 0..WRITERS {
        let owner = shown.get(&format!("w{writer}")).copied();
        let session = crowd.journal(writer).session;
        if owner != Some(session) {
            return Err(format!("the ephemeral of writer {writer} is {owner:x?}, not {session:x}"));
        }
    }
    let guests = crowd.guests();
    for name in shown.keys().filter(|name| name.starts_with('g')) {
        match guests.get(name) {
            Some(Leave::Silent) if !is_last => {}
            other => return Err(format!("ephemeral {name} is there: {other:?}")),
        }
    }
    Ok(())
}

/// Deletes znodes of a writer; those that are gone already as well.
fn clear(sid: i64, writer: usize, gone: &[u64]) -> io::Result<()> {
    let mut client = enter(sid)?;
    for number in gone {
        client.send(&delete(&format!("/w/{writer}/{number:010}")))?;
    }
    for number in gone {
        let code = client.receive()?.header.code;
        if code != ErrorCode::OK && code != ErrorCode::NO_NODE {
            return Err(io::Error::other(format!("deleting {number}: {code:?}")));
        }
    }
    Ok(())
}
