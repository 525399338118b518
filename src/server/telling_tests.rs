//! Four-letter words that are answered in slices.

use std::net::SocketAddr;

use bytes::Bytes;

use super::tests::{World, create, options};
use super::*;
use crate::base::Str;
use crate::model::request::PathWatch;
use crate::model::{ConnId, ReadRequest, Request, WriteRequest};

/// What the server says to a word, turn by turn.
fn word(world: &mut World, conn: ConnId, word: &'static str) -> Vec<String> {
    let mut out = Vec::new();
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    world.server.step(world.clock(), Input::Opened { conn, peer }, &mut out);
    let bytes = Bytes::from_static(word.as_bytes());
    world.server.step(world.clock(), Input::Received { conn, bytes }, &mut out);
    let mut texts = Vec::new();
    loop {
        world.server.turn_end(world.clock(), &mut out);
        let sent = out.drain(..).filter_map(|output| match output {
            Output::Send { bytes, .. } => Some(String::from_utf8(bytes.to_vec()).expect("text")),
            _ => None,
        });
        texts.push(sent.collect());
        if !world.server.wants_turn() {
            world.server.step(world.clock(), Input::Closed { conn }, &mut out);
            return texts;
        }
    }
}

#[test]
fn words_are_made_in_slices_and_say_the_same() {
    let said = |words: usize| {
        let slices = Slices { words, ..Slices::default() };
        let mut world = World::new(ServerOptions { slices, ..options() });
        for number in 1..=20 {
            let conn = world.connect(number, 10_000 + 100 * i32::try_from(number).expect("few"));
            let ephemeral = |at| {
                let mut create = create(&format!("/e{number}-{at}"), 0);
                if let Request::Write(WriteRequest::Create(create)) = &mut create {
                    create.flags = 1;
                }
                create
            };
            let watch = |path: &str| {
                let target = PathWatch { path: Str::from(path), watch: true };
                Request::Read(ReadRequest::Exists(target))
            };
            let own = watch(&format!("/own-{number}"));
            world.send(conn, &[ephemeral(0), ephemeral(1), watch("/all"), own]);
            world.settle();
        }
        let all = ["srvr", "stat", "cons", "dump", "wchs", "wchc", "wchp", "mntr"];
        let mut texts = Vec::new();
        for (number, name) in (100..).zip(all) {
            let turns = word(&mut world, ConnId(number), name);
            for text in &turns {
                let lines = text.lines().count();
                assert!(!tells_of_many(name) || lines <= 3 * words + 10, "{name}: {lines} lines");
            }
            texts.push(turns.concat());
        }
        texts
    };
    let whole = said(10_000);
    assert_eq!(whole, said(1));
    assert_eq!(whole, said(7));
    let [.., wchs, wchc, wchp, _] = whole.as_slice() else { panic!("eight words") };
    assert_eq!(wchs, "20 connections watching 21 paths\nTotal watches:40\n");
    assert_eq!((wchc.lines().count(), wchp.lines().count()), (20 + 40 + 1, 21 + 40 + 1));
}

/// Whether a word has a line for each of many things.
fn tells_of_many(word: &str) -> bool {
    !matches!(word, "srvr" | "mntr")
}
