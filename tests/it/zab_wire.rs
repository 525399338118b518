//! The machines of elections and of synchronization among real Apache ZooKeeper servers: one of
//! three voters is ours, over blocking sockets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ringkeeper::base;
use ringkeeper::config;
use ringkeeper::model::{EnsembleConfigs, ServerId, ServerState, Zxid};
use ringkeeper::wire::quorum::{
    LeaderPacket, LearnerInfo, LearnerPacket, PROTOCOL_VERSION, PacketStream,
};
use ringkeeper::wire::vote::{ElectionAddress, Notification};
use ringkeeper::zab::election::{Decision, Election, ElectionOutput};
use ringkeeper::zab::links::{LinkId, LinkOutput, Links};
use ringkeeper::zab::paxos::{Acceptor, Answer, DurableHistory, Epochs, HistoryEnd, Said};

use super::apache::{self, Java};
use super::client;
use super::peer::{self, WITHIN, within};
use super::snap_wire::Files;

/// Three voters by sid; the one called `ours` is this process.
struct Ensemble {
    jars: PathBuf,
    home: PathBuf,
    client_ports: BTreeMap<i64, u16>,
    servers: BTreeMap<i64, Child>,
    lines: String,
}

impl Ensemble {
    fn new(jars: PathBuf) -> Self {
        let home = peer::fresh_directory();
        let mut lines = String::new();
        let mut client_ports = BTreeMap::new();
        for sid in 1..=3 {
            let [quorum, election] = [(); 2].map(|()| peer::free_port());
            lines += &format!("server.{sid}=127.0.0.1:{quorum}:{election}\n");
            client_ports.insert(sid, peer::free_port());
        }
        Self { jars, home, client_ports, servers: BTreeMap::new(), lines }
    }

    fn configs(&self) -> EnsembleConfigs {
        let config = config::ensemble::parse(&self.lines, "zoo.cfg").expect("the lines are right");
        EnsembleConfigs::settled(config)
    }

    /// Starts one of Apache's servers.
    fn start(&mut self, sid: i64) {
        let home = self.home.join(sid.to_string());
        fs::create_dir_all(home.join("data")).expect("the directory is writable");
        fs::write(home.join("data/myid"), sid.to_string()).expect("the directory is writable");
        let extra = format!("initLimit=20\nsyncLimit=10\n{}", self.lines);
        peer::write_config(&home, self.client_ports[&sid], &extra);
        self.servers.insert(sid, Java::new(&self.jars).spawn(&home));
    }

    fn kill(&mut self, sid: i64) {
        if let Some(mut child) = self.servers.remove(&sid) {
            child.kill().expect("the child is ours");
            child.wait().expect("the child is ours");
        }
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for child in self.servers.values_mut() {
            let _ended = child.kill();
            let _status = child.wait();
        }
        peer::clean(&self.home);
    }
}

/// What the threads around the machines tell them.
enum Event {
    Accepted(TcpStream),
    Dialled(ServerId, Option<TcpStream>),
    Bytes(LinkId, Bytes),
    Closed(LinkId),
}

/// The election side of one server.
struct Voter {
    start: Instant,
    election: Election,
    links: Links,
    sockets: BTreeMap<LinkId, TcpStream>,
    next_link: u64,
    events: Receiver<Event>,
    sender: Sender<Event>,
    stops: Arc<AtomicBool>,
    listener: Option<thread::JoinHandle<()>>,
    decisions: Vec<Decision>,
}

impl Voter {
    fn new(sid: ServerId, configs: &EnsembleConfigs) -> Self {
        let port = configs.committed.members[&sid].addresses[0].election_port;
        let (sender, events) = channel();
        let stops = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        listener.set_nonblocking(true).expect("sockets can be");
        let (accepted, stopped) = (sender.clone(), stops.clone());
        let listener = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).expect("sockets can be");
                        let _taken = accepted.send(Event::Accepted(stream));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        let address = ElectionAddress { host: "127.0.0.1".to_owned(), port };
        Self {
            start: Instant::now(),
            election: Election::new(sid, configs.clone(), false),
            links: Links::new(sid, address, configs),
            sockets: BTreeMap::new(),
            next_link: 0,
            events,
            sender,
            stops,
            listener: Some(listener),
            decisions: Vec::new(),
        }
    }

    fn now(&self) -> base::Instant {
        let elapsed = self.start.elapsed().as_nanos();
        base::Instant(u64::try_from(elapsed).expect("tests are short"))
    }

    /// Holds an election.
    fn elect(&mut self, durable: Option<HistoryEnd>) -> Decision {
        self.decisions.clear();
        self.election.look(self.now(), durable);
        self.run_until("an election", |voter| voter.decisions.first().copied())
    }

    /// Holds elections until one brings a server that leads, as a follower does.
    fn find_leader(
        &mut self,
        configs: &EnsembleConfigs,
        durable: HistoryEnd,
    ) -> (Decision, Learner) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let decision = self.elect(Some(durable));
            assert_eq!(decision.state, ServerState::Following, "the other two are ahead");
            for _ in 0..5 {
                if let Some(learner) = Learner::connect(configs, decision.vote.leader) {
                    return (decision, learner);
                }
                self.run_for(Duration::from_millis(100));
            }
            assert!(Instant::now() < deadline, "no server leads");
        }
    }

    /// Answers others for a while.
    fn run_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.run_until("time passes", |_| (end <= Instant::now()).then_some(()));
    }

    fn run_until<T>(&mut self, what: &str, done: impl Fn(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + WITHIN;
        loop {
            self.drain();
            if let Some(done) = done(self) {
                return done;
            }
            assert!(Instant::now() < deadline, "{what} takes too long");
            let next = self.links.next_timeout().into_iter().chain(self.election.next_timeout());
            let wait = next.min().map_or(20, |next| next.since(self.now()).as_millis() + 1);
            match self.events.recv_timeout(Duration::from_millis(wait.min(20))) {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.now();
                    self.links.on_timeout(now);
                    self.election.on_timeout(now);
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender"),
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Accepted(stream) => {
                let link = self.adopt(stream);
                self.links.on_accepted(now, link);
            }
            Event::Dialled(sid, Some(stream)) => {
                let link = self.adopt(stream);
                self.links.on_dialled(now, sid, link);
            }
            Event::Dialled(sid, None) => self.links.on_dial_failed(now, sid),
            Event::Bytes(link, bytes) => self.links.on_bytes(now, link, bytes),
            Event::Closed(link) => self.links.on_closed(now, link),
        }
    }

    /// Reads from a connection until it ends.
    fn adopt(&mut self, stream: TcpStream) -> LinkId {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        let mut reader = stream.try_clone().expect("descriptors are left");
        let sender = self.sender.clone();
        thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buf) {
                let _taken = sender.send(Event::Bytes(link, Bytes::copy_from_slice(&buf[..count])));
            }
            let _taken = sender.send(Event::Closed(link));
        });
        self.sockets.insert(link, stream);
        link
    }

    fn drain(&mut self) {
        loop {
            if let Some(output) = self.links.poll_output() {
                self.obey(output);
            } else if let Some(output) = self.election.poll_output() {
                match output {
                    ElectionOutput::Send { to, notification } => {
                        let mut frame = BytesMut::new();
                        notification.encode(&mut frame);
                        self.links.send(to, frame.freeze());
                    }
                    ElectionOutput::Decided(decision) => self.decisions.push(decision),
                    ElectionOutput::Adopted(_) => panic!("reconfiguration is off"),
                }
            } else {
                return;
            }
        }
    }

    fn obey(&mut self, output: LinkOutput) {
        let now = self.now();
        match output {
            LinkOutput::Dial { sid, addresses } => {
                let sender = self.sender.clone();
                let address = SocketAddr::from(([127, 0, 0, 1], addresses[0].port));
                thread::spawn(move || {
                    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2));
                    let _taken = sender.send(Event::Dialled(sid, stream.ok()));
                });
            }
            LinkOutput::Write { link, bytes } => {
                self.write(link, &bytes);
                self.links.on_written(link);
            }
            LinkOutput::WriteAndClose { link, bytes } => {
                self.write(link, &bytes);
                self.close(link);
            }
            LinkOutput::Close { link } => self.close(link),
            LinkOutput::Connected(sid) => self.election.on_connected(sid),
            LinkOutput::Disconnected(sid) => self.election.on_disconnected(now, sid),
            LinkOutput::Received { from, frame } => {
                let notification = Notification::decode(&frame).expect("Apache's are well formed");
                self.election.on_notification(now, from, &notification);
            }
        }
    }

    fn write(&mut self, link: LinkId, bytes: &[u8]) {
        if let Some(stream) = self.sockets.get_mut(&link) {
            // A failure shows as the end of the connection.
            let _sent = stream.write_all(bytes);
        }
    }

    fn close(&mut self, link: LinkId) {
        if let Some(stream) = self.sockets.remove(&link) {
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Voter {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        self.listener.take().into_iter().for_each(|listener| {
            let _ended = listener.join();
        });
        let links: Vec<LinkId> = self.sockets.keys().copied().collect();
        links.into_iter().for_each(|link| self.close(link));
    }
}

/// A connection to a leader's quorum port.
struct Learner {
    stream: TcpStream,
    packets: PacketStream,
}

impl Learner {
    /// `None` if the server does not lead.
    fn connect(configs: &EnsembleConfigs, leader: ServerId) -> Option<Self> {
        let port = configs.committed.members[&leader].addresses[0].quorum_port;
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(WITHIN)).expect("sockets have time-outs");
        Some(Self { stream, packets: PacketStream::default() })
    }

    fn send(&mut self, packet: &LearnerPacket) {
        let mut buf = BytesMut::new();
        packet.encode(&mut buf);
        self.stream.write_all(&buf).expect("the leader takes it");
    }

    fn receive_bytes(&mut self) {
        let mut buf = [0; 4096];
        let count = self.stream.read(&mut buf).expect("the leader answers in time");
        assert_ne!(count, 0, "the leader has closed the connection");
        self.packets.push(Bytes::copy_from_slice(&buf[..count]));
    }

    /// The next packet; pings are answered on the way.
    fn receive(&mut self) -> LeaderPacket {
        let deadline = Instant::now() + WITHIN;
        loop {
            assert!(Instant::now() < deadline, "the leader sends nothing but pings");
            let Some(packet) = self.packets.next_packet().expect("packets are well formed") else {
                self.receive_bytes();
                continue;
            };
            let packet = LeaderPacket::decode(&packet).expect("data are well formed");
            match packet.expect("a leader's packet") {
                LeaderPacket::Ping { zxid } => {
                    self.send(&LearnerPacket::Ping { zxid, touches: Vec::new() });
                }
                packet => return packet,
            }
        }
    }

    /// Receives the snapshot behind a SNAP packet as a server of ours does.
    fn receive_snapshot(&mut self, zxid: Zxid) {
        let mut files = Files::default();
        let mut rest = self.packets.take_rest();
        let leftover = files.receive(zxid, || {
            if rest.is_empty() {
                self.receive_bytes();
                return self.packets.take_rest();
            }
            std::mem::take(&mut rest)
        });
        self.packets.push(leftover);
        let recovered = files.recover();
        assert_eq!((recovered.installed, recovered.last_zxid), (Some(zxid), zxid));
        let config = recovered.tree.get("/zookeeper/config").and_then(|znode| znode.data());
        let config = String::from_utf8_lossy(config.expect("it has data")).into_owned();
        assert!(config.contains("server.2=127.0.0.1:"), "{config}");
    }

    /// Discovery and synchronization as our acceptor answers them; the leader's epoch.
    fn synchronize(&mut self, me: ServerId, configs: &EnsembleConfigs) -> u32 {
        let info = LearnerInfo {
            sid: me,
            protocol_version: PROTOCOL_VERSION,
            config_version: Some(0),
            is_ringkeeper: true,
            has_checksums: true,
        };
        self.send(&LearnerPacket::FollowerInfo { accepted_epoch: 0, info: Some(info) });
        let LeaderPacket::LeaderInfo { epoch, protocol_version, .. } = self.receive() else {
            panic!("LEADERINFO comes first");
        };
        assert_eq!(protocol_version, PROTOCOL_VERSION);
        let mut acceptor = Acceptor::new(Epochs::default());
        let epoch = u32::try_from(epoch).expect("epochs are not negative");
        let answer = acceptor.on_leader_info(epoch);
        assert_eq!(answer, Answer::Store(Epochs { accepted: epoch, current: 0 }));
        let Said::Promised(promise) = acceptor.on_stored() else { panic!("a promise was stored") };
        let current_epoch = promise.current_epoch().map_or(-1, |epoch| epoch as i32);
        self.send(&LearnerPacket::AckEpoch {
            last_zxid: Zxid::ZERO,
            current_epoch,
            cannot_cut: false,
        });
        match self.receive() {
            LeaderPacket::Snap { zxid } => self.receive_snapshot(zxid),
            LeaderPacket::Diff { .. } => {}
            other => panic!("an empty learner is not sent {other:?}"),
        }
        let config = loop {
            match self.receive() {
                LeaderPacket::Proposal { .. } | LeaderPacket::Commit { .. } => {}
                LeaderPacket::NewLeader { epoch: said, config } => {
                    assert_eq!(u32::try_from(said), Ok(epoch));
                    break config.expect("NEWLEADER carries the configuration");
                }
                other => panic!("not before NEWLEADER: {other:?}"),
            }
        };
        let parsed = config::ensemble::parse(&config, "NEWLEADER").expect("Apache's text");
        assert_eq!(parsed.voters().collect::<Vec<_>>(), configs.voters());
        assert_eq!(config::ensemble::text(&parsed), *config, "the same text, byte for byte");
        acceptor.on_history(DurableHistory { epoch });
        let Said::Accepted(accept) = acceptor.on_stored() else { panic!("an epoch was stored") };
        let ack = LearnerPacket::Ack { zxid: Zxid::new(accept.epoch(), 0) };
        self.send(&ack);
        assert_eq!(self.receive(), LeaderPacket::UpToDate);
        self.send(&ack);
        epoch
    }
}

/// We are the smallest of three: Apache's servers dial us back, and one of them is elected; we
/// agree, are synchronized, and agree again when that one is killed.
#[test]
fn our_voter_agrees_with_apaches_and_is_synchronized() {
    let Some(jars) = apache::jars() else {
        return apache::skip("an ensemble with Apache's", "no java or no Apache ZooKeeper");
    };
    let mut ensemble = Ensemble::new(jars);
    let configs = ensemble.configs();
    let me = ServerId(1);
    ensemble.start(2);
    ensemble.start(3);
    let mut voter = Voter::new(me, &configs);
    let (decision, mut learner) = voter.find_leader(&configs, HistoryEnd::default());
    let leader = decision.vote.leader;
    let other = ServerId(5 - leader.0);
    let epoch = learner.synchronize(me, &configs);
    voter.election.on_established(epoch);
    // A session and a create reach us as proposals, and our ACKs count like any other's.
    let port = ensemble.client_ports[&leader.0];
    let creates = thread::spawn(move || {
        // The leader accepts connections before it serves sessions.
        let mut client = within("a session", || client::connect(port).ok());
        client.call(&client::create("/a", b"data", 0)).expect("the create is answered");
    });
    let mut last = Zxid::new(epoch, 0);
    let mut committed = Vec::new();
    while committed.len() < 2 {
        match learner.receive() {
            LeaderPacket::Proposal { zxid, txn } => {
                assert_eq!(zxid, last.next(), "proposals are contiguous");
                assert_eq!(txn.get(12..20), Some(&zxid.0.to_be_bytes()[..]), "the txn's own zxid");
                last = zxid;
                learner.send(&LearnerPacket::Ack { zxid });
            }
            LeaderPacket::Commit { zxid } => committed.push(zxid),
            other => panic!("not in broadcast: {other:?}"),
        }
    }
    assert_eq!(committed, [1, 2].map(|counter| Zxid::new(epoch, counter)));
    creates.join().expect("the client does not panic");

    // The other one has what we have, and a session more.
    within("the other server has it", || {
        let mut client = client::connect(ensemble.client_ports[&other.0]).ok()?;
        let reply = client.call(&client::exists("/a", false)).ok()?;
        (reply.header.code.0 == 0).then_some(())
    });

    drop(learner);
    ensemble.kill(leader.0);
    // What both said of it before may still be heard when an election begins.
    let history = HistoryEnd { current_epoch: epoch, last_zxid: last };
    within("the other to be elected", || {
        voter.run_for(Duration::from_millis(200));
        let decision = voter.elect(Some(history));
        assert_eq!(decision.state, ServerState::Following);
        (decision.vote.leader == other).then_some(())
    });
}

/// We are the largest and late: an ensemble is joined whose leader is smaller, even without any
/// knowledge of our own.
#[test]
fn our_voter_joins_the_leader_that_apaches_follow() {
    let Some(jars) = apache::jars() else {
        return apache::skip("joining Apache's", "no java or no Apache ZooKeeper");
    };
    let mut ensemble = Ensemble::new(jars);
    let configs = ensemble.configs();
    ensemble.start(1);
    ensemble.start(2);
    within("Apache's two servers have a leader", || {
        let answer = peer::word(ensemble.client_ports[&2], "srvr");
        answer.contains("Mode: leader").then_some(())
    });
    for durable in [Some(HistoryEnd::default()), None] {
        let mut voter = Voter::new(ServerId(3), &configs);
        let decision = voter.elect(durable);
        assert_eq!((decision.state, decision.vote.leader), (ServerState::Following, ServerId(2)));
        voter.run_for(Duration::from_millis(100));
    }
}
