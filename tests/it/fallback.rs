//! A damaged snapshot costs nothing but time: the one before and the log behind it are as good.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ringkeeper::model::ErrorCode;

use super::client::{self, Client, create, get, set};
use super::peer::{self, Server, WITHIN, within};

/// Whole snapshots of a server, oldest first.
fn snapshots(home: &Path) -> Vec<PathBuf> {
    let own = home.join("data/ringkeeper");
    let files = fs::read_dir(own).expect("the directory is there").flatten();
    let mut found: Vec<PathBuf> = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|zxid| zxid.len() == 16))
        .filter(|path| path.file_stem().is_some_and(|stem| stem == "snapshot"))
        .collect();
    found.sort();
    found
}

/// Writes until `enough`, from `next` on; the last value written.
fn write_until(client: &mut Client, next: u32, enough: &dyn Fn() -> bool) -> u32 {
    let deadline = Instant::now() + WITHIN;
    let mut value = next;
    loop {
        for _ in 0..50 {
            value += 1;
            assert_eq!(client.code(&set("/a", value.to_string().as_bytes())), ErrorCode::OK);
        }
        if enough() {
            return value;
        }
        assert!(Instant::now() < deadline, "snapshots are taken and purged");
    }
}

fn value(client: &mut Client) -> u32 {
    let mut reply = client.call(&get("/a", false)).expect("the server serves");
    let data = reply.body.buffer("data").expect("it decodes").expect("it has data");
    std::str::from_utf8(&data).expect("text").parse().expect("a number")
}

fn damage(snapshot: &Path) {
    let mut bytes = fs::read(snapshot).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(snapshot, bytes).expect("it can be written");
}

#[test]
fn a_damaged_newest_snapshot_gives_way_to_the_one_before() {
    let server = Server::start("snapCount=100\npreAllocSize=1024");
    let mut client = client::connect_for_long(server.port).expect("the server serves");
    assert_eq!(client.code(&create("/a", b"0", 0)), ErrorCode::OK);
    let home = server.home.clone();
    let written = write_until(&mut client, 0, &|| 3 <= snapshots(&home).len());
    let (home, port) = server.kill();
    let damaged = snapshots(&home).pop().expect("there are some");
    damage(&damaged);

    let server = Server::start_in(home.clone(), port);
    let name = damaged.file_name().expect("it has one").to_string_lossy().into_owned();
    within("the damage to be named", || {
        server.log().contains(&format!("{name} is not used")).then_some(())
    });
    let mut client = client::connect_for_long(port).expect("the server serves");
    assert_eq!(value(&mut client), written);
    // Once enough newer ones are there, the damaged one and those that nobody read go.
    let written = write_until(&mut client, written, &|| {
        let now = snapshots(&home);
        !now.contains(&damaged) && now.len() <= 4
    });
    let (home, port) = server.kill();
    let server = Server::start_in(home.clone(), port);
    let mut client = client::connect_for_long(port).expect("the server serves");
    assert_eq!(value(&mut client), written);

    drop(server);
    peer::clean(&home);
}
