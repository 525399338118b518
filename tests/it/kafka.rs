//! A Kafka broker that keeps its metadata here, while servers of the ensemble are killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ringkeeper::client::{Client, requests};
use ringkeeper::model::ErrorCode;

use super::apache::{jars_of, skip};
use super::clients::script;
use super::ensemble::{Ensemble, Program};
use super::peer::{self, within};

/// The broker's own znode, below the root that its configuration names.
const BROKER: &str = "/kafka/brokers/ids/1";
const STEPS: [&str; 6] =
    ["topics", "settings", "partitions", "credentials", "records", "deletions"];

/// A broker; it ends with the test.
struct Broker(Child);

impl Broker {
    fn start(jars: &Path, ensemble: &Ensemble, port: u16) -> Self {
        let home = ensemble.home.join("kafka");
        fs::create_dir_all(&home).expect("the directory is writable");
        let servers: Vec<String> =
            ensemble.ports.values().map(|port| format!("127.0.0.1:{port}")).collect();
        let settings = format!(
            "broker.id=1\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\n\
             zookeeper.connect={}/kafka\nzookeeper.session.timeout.ms=30000\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             group.initial.rebalance.delay.ms=0\n",
            home.join("data").display(),
            servers.join(",")
        );
        fs::write(home.join("server.properties"), settings).expect("the directory is writable");
        let log = File::create(home.join("log")).expect("the directory is writable");
        let child = Command::new("java")
            .args(["-Xmx384m", "-cp", &format!("{}/*", jars.display()), "kafka.Kafka"])
            .arg(home.join("server.properties"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self(child.expect("java was found"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// The session to which the broker's znode belongs.
fn owner(ensemble: &Ensemble) -> i64 {
    within("the broker to register", || {
        let port = *ensemble.ports.values().next()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut reply =
            Client::connect(address).ok()?.call(&requests::exists(BROKER, false)).ok()?;
        (reply.header.code == ErrorCode::OK).then_some(())?;
        Some(reply.body.stat().expect("it decodes").ephemeral_owner)
    })
}

/// All that the broker does with its metadata.
fn works(jars: &Path, broker: &str, prefix: &str) {
    let output = Command::new("java")
        .args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"])
        .arg(format!("{}/*", jars.display()))
        .arg(script("KafkaSurface.java"))
        .args([broker, prefix])
        .stdin(Stdio::null())
        .output()
        .expect("java was found");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said.lines().collect::<Vec<_>>(), STEPS, "{prefix}: {errors}");
}

#[test]
fn a_kafka_broker_notices_nothing_when_servers_are_killed() {
    let Some(jars) = jars_of("kafka") else {
        return skip("Kafka", "no java or no jars of Kafka");
    };
    let mut ensemble = Ensemble::ours(3, "");
    ensemble.all_serve();
    let port = peer::free_port();
    let mut broker = Broker::start(&jars, &ensemble, port);
    let session = owner(&ensemble);
    let address = format!("127.0.0.1:{port}");
    works(&jars, &address, "before");
    let leader = ensemble.leader();
    let followers = ensemble.servers.keys().copied().filter(|sid| *sid != leader);
    for sid in followers.chain([leader]).collect::<Vec<_>>() {
        ensemble.kill(sid);
        ensemble.leader();
        ensemble.run(sid, &Program::Ours);
        ensemble.all_serve();
    }
    assert_eq!(owner(&ensemble), session, "the broker's session is the one that it was");
    works(&jars, &address, "after");
    assert!(broker.0.try_wait().expect("the child is ours").is_none(), "the broker runs");
    assert_eq!(owner(&ensemble), session, "the broker's session is the one that it was");
}
