//! The one integration binary. Each module says in a sentence what it shows.

/// Apache ZooKeeper's servers as child processes.
mod apache;
/// The audit log's lines, beside Apache ZooKeeper's.
mod audit;
/// A follower far behind gets what it lacks from the files of its leader's log.
mod catchup;
/// A blocking client over the library's codec, for the tests below.
mod client;
/// Real Python, C and Java clients see on this server what Apache ZooKeeper shows them.
mod clients;
/// Members whose disk has lost something.
mod damage;
/// Random sequences of requests: the same answers as Apache ZooKeeper's, byte by byte.
mod differential;
/// Which writes eager ACL checks refuse, and how.
mod eager;
/// Ensembles of real processes, with Apache ZooKeeper servers among them.
mod ensemble;
/// A damaged snapshot gives way to the one before it.
mod fallback;
/// What ends or misleads Apache ZooKeeper does neither here.
mod hazards;
/// A Kafka broker that keeps its metadata here, while servers of the ensemble are killed.
mod kafka;
/// Limits that operators set, and what happens at them.
mod limits;
/// Sessions that only one server knows of, beside Apache ZooKeeper's.
mod local_sessions;
/// From Apache ZooKeeper to this server and back, with real servers.
mod migration;
/// What the members of an ensemble tell their operator, beside Apache ZooKeeper's.
mod operator;
/// Starting and ending servers of this package.
mod peer;
/// Real processes: killed under load, stopped, misconfigured, started twice.
mod process;
/// Requests and replies byte by byte on a real server.
mod protocol;
/// What servers without a quorum still serve.
mod read_only;
/// Members come, go and change: of ours, and together with Apache ZooKeeper's servers.
mod reconfig;
/// The client for people and scripts: commands, recipes, shell.
mod rk;
/// That client when replies are lost.
mod rk_cuts;
/// rk-log on the files of real servers: whole, damaged and in use.
mod rk_log;
/// rk-log on Apache's files, damaged in every way.
mod rk_log_apache;
/// rk-log on the directories of ensembles: histories that a leader replaced, and epochs.
mod rk_log_members;
/// Who belongs to an ensemble, asked and changed with that client.
mod rk_members;
/// Recipes and shell of that client, and the same transcript on Apache ZooKeeper.
mod rk_recipes;
/// That client on a terminal.
mod rk_terminal;
/// Zxids run out under load: the next epoch begins, in place or with an election.
mod rollover;
/// What the shell needs of glommio.
mod runtime;
/// Sessions outlive stops, restarts and a server that does not read.
mod sessions;
/// A server on several shards: order, storms of handshakes, a busy shard.
mod shards;
/// The server where the machine is hostile: slow, full, without rights, without features.
mod shell;
/// Tests that lack what they need.
mod skip;
/// What a leader sends a learner that is too far behind: Apache's server reads ours.
mod snap_wire;
/// The shape of the source tree: layers, documentation, words.
mod tidy;
/// The programs beside the server, on real servers.
mod tools;
/// An ensemble on one machine, for trying out.
mod trial;
/// Elections and synchronization among real Apache ZooKeeper servers.
mod zab_wire;
