//! Tests of connections between servers: drivers on 127.0.0.1 whose machines follow a script.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::Socket;

use super::driver::Outcome;
use super::{PeerSettings, driver_tests, listener, peers};
use crate::base;
use crate::server::{
    DialId, Input, Output, PeerAddress, PeerInput, PeerLink, PeerOutput, PeerPort,
};

/// Drives a script without files until it says that it has stopped.
fn drive(
    peers: Vec<(PeerPort, Socket)>,
    script: impl FnMut(&Input, &mut Vec<Output>) + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let outcome = driver_tests::drive(peers, None, script);
        assert!(matches!(outcome, Ok(Outcome::Stopped)), "{outcome:?}");
    })
}

/// Both ports on 127.0.0.1, wherever there is room.
fn ports() -> (Vec<(PeerPort, Socket)>, Vec<u16>) {
    let any = PeerAddress { host: "127.0.0.1".to_owned(), port: 0 };
    let listen = vec![(PeerPort::Election, any.clone()), (PeerPort::Quorum, any)];
    let settings = PeerSettings { listen, bind_tries: 1, on_all_ips: false, tcp_keep_alive: true };
    let bound = peers::bind(&settings).unwrap();
    let port = |socket: &Socket| socket.local_addr().unwrap().as_socket().unwrap().port();
    let numbers = bound.iter().map(|(_, socket)| port(socket)).collect();
    (bound, numbers)
}

fn at(host: &str, port: u16) -> PeerAddress {
    PeerAddress { host: host.to_owned(), port }
}

fn dial(dial: u64, addresses: Vec<PeerAddress>, ms: u64) -> Output {
    let (dial, within) = (DialId(dial), base::Duration::from_millis(ms));
    Output::Peer(PeerOutput::Dial { dial, addresses, within })
}

fn send(link: PeerLink, bytes: Bytes) -> Output {
    Output::Peer(PeerOutput::Send { link, bytes })
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect()
}

/// A port that has as many connections waiting as it takes, so that dialling it hangs.
fn silent_port() -> (Socket, Vec<Socket>, u16) {
    let socket = listener::listen("127.0.0.1:0".parse().unwrap(), 0, false).unwrap();
    let address = socket.local_addr().unwrap();
    let waiting = (0..4).map(|_| {
        let dialler = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        dialler.set_nonblocking(true).unwrap();
        let _under_way = dialler.connect(&address);
        dialler
    });
    let waiting = waiting.collect();
    (socket, waiting, address.as_socket().unwrap().port())
}

/// A port where nobody listens, and nobody else will.
fn refusing_port() -> (Socket, u16) {
    let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[test]
fn two_servers_talk_over_both_ports() {
    const BYTES: usize = 3 << 20;
    let (bound, numbers) = ports();
    let mut accepted = Vec::new();
    let mut closed = 0;
    let echo = drive(bound, move |input, out| match input {
        Input::Peer(PeerInput::Accepted { port, .. }) => accepted.push(*port),
        Input::Peer(PeerInput::Received { link, bytes }) => out.push(send(*link, bytes.clone())),
        Input::Peer(PeerInput::Closed { .. }) => {
            closed += 1;
            if closed == 2 {
                accepted.sort();
                assert_eq!(accepted, [PeerPort::Election, PeerPort::Quorum]);
                out.push(Output::Stopped);
            }
        }
        _ => {}
    });

    #[derive(Default)]
    struct Talk {
        sent: usize,
        received: Vec<u8>,
        closed: bool,
    }
    let mut talks: BTreeMap<PeerLink, Talk> = BTreeMap::new();
    let mut has_dialled = false;
    let mut quiet = 0;
    let mut over = 0;
    let caller = drive(Vec::new(), move |input, out| {
        if !has_dialled {
            has_dialled = true;
            for (at_port, number) in (0..).zip(&numbers) {
                out.push(dial(at_port, vec![at("localhost", *number)], 5_000));
            }
        }
        match input {
            Input::Peer(PeerInput::Dialled { link, .. }) => {
                assert!(talks.insert(*link, Talk::default()).is_none());
                out.push(Output::Peer(PeerOutput::PauseReading { link: *link }));
                let mut bytes = Bytes::from(pattern(BYTES));
                let mut len = 1;
                while !bytes.is_empty() {
                    out.push(send(*link, bytes.split_to(len.min(bytes.len()))));
                    len = len * 3 % 100_003;
                }
            }
            Input::Peer(PeerInput::Sent { link, bytes }) => {
                talks.get_mut(link).unwrap().sent += bytes;
            }
            Input::Peer(PeerInput::Received { link, bytes }) => {
                let talk = talks.get_mut(link).unwrap();
                talk.received.extend_from_slice(bytes);
                if quiet < 20 {
                    assert!(talk.received.len() <= 64 << 10, "reading is paused");
                }
                if talk.received.len() == BYTES {
                    assert!(talk.received == pattern(BYTES) && talk.sent == BYTES);
                    out.push(Output::Peer(PeerOutput::Close { link: *link }));
                }
            }
            Input::Peer(PeerInput::Closed { link }) => {
                let talk = talks.get_mut(link).unwrap();
                assert_eq!((talk.received.len(), talk.closed), (BYTES, false));
                talk.closed = true;
            }
            Input::Peer(other) => panic!("{other:?}"),
            Input::Timer if talks.len() == 2 && quiet < 20 => {
                quiet += 1;
                if quiet == 20 {
                    let resume = |link: &PeerLink| PeerOutput::ResumeReading { link: *link };
                    out.extend(talks.keys().map(resume).map(Output::Peer));
                }
            }
            Input::Timer if talks.len() == 2 && talks.values().all(|talk| talk.closed) => {
                over += 1;
                if over == 20 {
                    out.push(Output::Stopped);
                }
            }
            _ => {}
        }
    });
    caller.join().unwrap();
    echo.join().unwrap();
}

#[test]
fn dials_end_once_and_in_time() {
    let (_silence, _waiting, silent) = silent_port();
    let (_refusal, refused) = refusing_port();
    let listening = StdListener::bind("127.0.0.1:0").unwrap();
    let good = listening.local_addr().unwrap().port();
    let cases = [
        (vec![], 1_000, false),
        (vec![at("127.0.0.1", refused)], 8_000, false),
        (vec![at("no-such-host.invalid", good)], 8_000, false),
        // No route leads a stream there, whatever the network looks like.
        (vec![at("255.255.255.255", 2888)], 8_000, false),
        (vec![at("127.0.0.1", silent)], 500, false),
        (vec![at("127.0.0.1", good)], 0, false),
        (vec![at("127.0.0.1", good)], 8_000, true),
        (
            vec![at("no-such-host.invalid", 1), at("127.0.0.1", refused), at("127.0.0.1", good)],
            8_000,
            true,
        ),
        (vec![at("127.0.0.1", silent), at("127.0.0.1", good)], 8_000, true),
    ];
    let expected: Vec<Option<bool>> = cases.iter().map(|(_, _, is_made)| Some(*is_made)).collect();
    let mut ends: Vec<Option<bool>> = vec![None; cases.len()];
    let started = Instant::now();
    let mut cases = Some(cases);
    let mut over = 0;
    let caller = drive(Vec::new(), move |input, out| {
        for (number, (addresses, within, _)) in (0..).zip(cases.take().into_iter().flatten()) {
            out.push(dial(number, addresses, within));
        }
        match input {
            Input::Peer(PeerInput::Dialled { dial, .. }) => {
                assert_eq!(ends[dial.0 as usize].replace(true), None);
            }
            Input::Peer(PeerInput::DialFailed { dial }) => {
                assert_eq!(ends[dial.0 as usize].replace(false), None, "{dial:?}");
            }
            // All have ended, and what comes too late has come.
            Input::Timer if ends.iter().all(Option::is_some) => {
                over += 1;
                if over == 30 {
                    assert_eq!(ends, expected);
                    out.push(Output::Stopped);
                }
            }
            Input::Timer => assert!(started.elapsed() < Duration::from_secs(60), "{ends:?}"),
            _ => {}
        }
    });
    caller.join().unwrap();
}

#[test]
fn what_was_handed_over_goes_out_before_the_end() {
    let listening = StdListener::bind("127.0.0.1:0").unwrap();
    let number = listening.local_addr().unwrap().port();
    let mut begun = None;
    let mut ended = 0;
    let caller = drive(Vec::new(), move |input, out| {
        if begun.is_none() {
            begun = Some(Instant::now());
            out.push(dial(0, vec![at("127.0.0.1", number)], 60_000));
            out.push(dial(1, vec![at("127.0.0.1", number)], 60_000));
        }
        match input {
            Input::Peer(PeerInput::Dialled { dial, link }) => {
                // The first fits into the socket; of the second most waits for a reader.
                let len = if dial.0 == 0 { 100_000 } else { 64 << 20 };
                out.push(send(*link, Bytes::from(pattern(len))));
                out.push(Output::Peer(PeerOutput::Close { link: *link }));
                if dial.0 == 1 {
                    begun = Some(Instant::now());
                }
            }
            Input::Peer(PeerInput::Closed { .. }) => {
                ended += 1;
                let waited = begun.unwrap().elapsed();
                if ended == 2 {
                    assert!(Duration::from_millis(900) < waited, "{waited:?}");
                    assert!(waited < Duration::from_secs(60), "{waited:?}");
                    out.push(Output::Stopped);
                }
            }
            _ => {}
        }
    });
    let streams: Vec<StdStream> = (0..2).map(|_| listening.accept().unwrap().0).collect();
    caller.join().unwrap();
    let received = streams.into_iter().map(|mut stream| {
        let mut bytes = Vec::new();
        let _reset = stream.read_to_end(&mut bytes);
        assert!(bytes == pattern(bytes.len()), "in order");
        bytes.len()
    });
    let mut received: Vec<usize> = received.collect();
    received.sort_unstable();
    assert_eq!(received[0], 100_000);
    assert!(received[1] < 64 << 20, "nobody read while it was open");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = StdListener::bind("127.0.0.1:0").unwrap();
    let address = at("127.0.0.1", taken.local_addr().unwrap().port());
    let listen = |address| PeerSettings {
        listen: vec![(PeerPort::Quorum, address)],
        bind_tries: 1,
        on_all_ips: false,
        tcp_keep_alive: false,
    };
    let error = peers::bind(&listen(address)).unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:") && error.contains("1 tries"), "{error}");
    let error = peers::bind(&listen(at("no-such-host.invalid", 1))).unwrap_err().to_string();
    assert!(error.contains("no-such-host.invalid"), "{error}");
    let everywhere = peers::bind(&listen(at("::", 0))).unwrap();
    let port = everywhere[0].1.local_addr().unwrap().as_socket().unwrap().port();
    assert!(StdStream::connect(("127.0.0.1", port)).is_ok());
}

#[test]
fn a_name_is_looked_up_when_its_turn_comes() {
    let (_silent, _waiting, silent) = silent_port();
    let there = StdListener::bind("127.0.0.1:0").unwrap();
    let port = there.local_addr().unwrap().port();
    let asked = RefCell::new(Vec::new());
    let look_up = |address: &PeerAddress, patience: Duration| {
        assert!(patience < Duration::from_secs(8), "others have their part of the time");
        asked.borrow_mut().push(address.host.clone());
        let ports = match address.host.as_str() {
            "nowhere" => return Err(io::ErrorKind::NotFound.into()),
            "both" => vec![silent, port],
            _ => vec![address.port],
        };
        Ok(ports.into_iter().map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect())
    };
    let connect = |addresses: &[PeerAddress]| {
        let deadline = Instant::now() + Duration::from_secs(8);
        let made = peers::connect(addresses, deadline, false, look_up);
        (made.map(|stream| stream.peer_addr().unwrap().port()), asked.take())
    };
    let (made, asked) = connect(&[at("hangs", 1), at("127.0.0.1", port)]);
    assert_eq!((made.unwrap(), asked), (port, Vec::new()), "an address is no name");
    // An address that does not answer leaves time for the names, and theirs for each other.
    let (made, asked) = connect(&[at("nowhere", 1), at("both", 1), at("127.0.0.1", silent)]);
    assert_eq!((made.unwrap(), asked.join(" ")), (port, "nowhere both".to_owned()));
    let (made, _) = connect(&[at("nowhere", 1)]);
    assert_eq!(made.unwrap_err().kind(), io::ErrorKind::NotFound);
}
