//! The library's blocking client, on servers of this machine.

use std::io;

pub(crate) use ringkeeper::client::requests::{create, delete, exists, get, list, set};
pub(crate) use ringkeeper::client::{Client, Hello, word};
use ringkeeper::model::{SessionId, Zxid};

/// A connection with a new session.
pub(crate) fn connect(port: u16) -> io::Result<Client> {
    Client::connect(("127.0.0.1", port))
}

/// A connection with a new session that lives however long its client is silent.
pub(crate) fn connect_for_long(port: u16) -> io::Result<Client> {
    let hello = Hello { timeout_ms: 600_000, ..Hello::default() };
    Client::attach(("127.0.0.1", port), &hello)
}

/// A connection that asks for an existing session.
pub(crate) fn attach(
    port: u16,
    session: SessionId,
    password: [u8; 16],
    seen: Zxid,
) -> io::Result<Client> {
    let hello = Hello { session, password, last_zxid_seen: seen, ..Hello::default() };
    Client::attach(("127.0.0.1", port), &hello)
}
