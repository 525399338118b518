//! Text of the four-letter words, in Apache's formats (`operations.md` part 2): agents read lines
//! by position and keys by name.

use std::fmt::Write;

use super::contract::Clock;
use super::ensemble::EnsembleReport;
use super::machine::Server;
use super::options::EnsembleOptions;
use super::shard::{ConnStats, Counts};
use crate::base::Instant;
use crate::config;
use crate::model::{EnsembleConfig, ServerAddress, SessionId};
use crate::session::SessionKind;
use crate::wire::opcode;
use crate::wire::word::Word;

/// What agents read as ZooKeeper's version; the feature level is 3.9's.
const VERSION: &str =
    concat!("3.9.5-ringkeeper-", env!("CARGO_PKG_VERSION"), ", built on 2026-11-24 00:00 UTC");

/// Apache's default trace mask; `stmk` is accepted and changes nothing.
const TRACE_MASK: &str = "306";

/// What Apache says instead of most answers while no quorum exists.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// The text of a word that is not made in slices.
pub(super) fn short(server: &Server, word: Word, counts: &Counts, clock: Clock) -> String {
    match word {
        Word::Ruok => "imok".to_owned(),
        Word::Isro if server.is_read_only() => "ro".to_owned(),
        Word::Isro => "rw".to_owned(),
        Word::Srvr => version(server) + &stat_tail(server, counts),
        Word::Mntr => mntr(server, counts, clock.now),
        Word::Conf => conf(server),
        Word::Crst => "Connection stats reset.\n".to_owned(),
        Word::Srst => "Server stats reset.\n".to_owned(),
        Word::Dirs => dirs(server),
        Word::Envi => envi(server),
        Word::Gtmk | Word::Stmk => TRACE_MASK.to_owned(),
        Word::Hash => hash(server),
        Word::Stat | Word::Cons | Word::Dump | Word::Wchs | Word::Wchc | Word::Wchp => {
            unreachable!("a telling makes its text")
        }
    }
}

/// What a member of an ensemble answers while it has no leader, in Apache's words.
pub(super) fn without_leader(server: &Server, word: Word) -> String {
    match word {
        Word::Ruok => "imok".to_owned(),
        Word::Isro => "null".to_owned(),
        Word::Envi => envi(server),
        Word::Gtmk | Word::Stmk => TRACE_MASK.to_owned(),
        // It alone has no end of line.
        Word::Hash => NOT_SERVING.to_owned(),
        _ => format!("{NOT_SERVING}\n"),
    }
}

fn version(server: &Server) -> String {
    let read_only = match server.is_read_only() {
        true => "READ-ONLY mode; serving only read-only clients\n",
        false => "",
    };
    format!("Zookeeper version: {VERSION}\n{read_only}")
}

/// What `stat` prints before its clients.
pub(super) fn stat_head(server: &Server) -> String {
    version(server) + "Clients:\n"
}

/// What `stat` and `srvr` print at the end.
pub(super) fn stat_tail(server: &Server, counts: &Counts) -> String {
    let mut text = String::new();
    let latency = &counts.latency;
    let (min, mean, max) = (latency.min_ms(), latency.mean_ms(), latency.max_ms());
    line(&mut text, format_args!("Latency min/avg/max: {min}/{}/{max}", decimal(mean)));
    line(&mut text, format_args!("Received: {}", counts.received));
    line(&mut text, format_args!("Sent: {}", counts.sent));
    line(&mut text, format_args!("Connections: {}", counts.conns));
    line(&mut text, format_args!("Outstanding: {}", server.pipeline.outstanding()));
    line(&mut text, format_args!("Zxid: {}", server.published()));
    line(&mut text, format_args!("Mode: {}", server.mode().unwrap_or_default()));
    line(&mut text, format_args!("Node count: {}", znode_count(server)));
    if let Some(leader) = server.ensemble_report().and_then(|report| report.leader) {
        let [last, min, max] = leader.sizes.last_min_max();
        line(&mut text, format_args!("Proposal sizes last/min/max: {last}/{min}/{max}"));
    }
    text
}

/// Apache counts the root twice, since it keeps it under two names.
fn znode_count(server: &Server) -> u64 {
    server.tree().znode_count() as u64 + 1
}

fn mntr(server: &Server, counts: &Counts, now: Instant) -> String {
    let mode = server.mode().unwrap_or_default();
    let mut text = format!("zk_version\t{VERSION}\nzk_server_state\t{mode}\n");
    let ensemble = server.ensemble_report();
    if let Some(report) = &ensemble {
        mntr_of_member(&mut text, report, now);
    }
    let (latency, tree) = (&counts.latency, server.tree());
    line(&mut text, format_args!("zk_avg_latency\t{}", decimal(latency.mean_ms())));
    for (key, value) in [
        ("min_latency", latency.min_ms()),
        ("max_latency", latency.max_ms()),
        ("packets_received", counts.received),
        ("packets_sent", counts.sent),
        ("num_alive_connections", counts.conns as u64),
        ("outstanding_requests", server.pipeline.outstanding() as u64),
        ("znode_count", znode_count(server)),
        ("watch_count", (counts.data_watches + counts.child_watches) as u64),
        ("ephemerals_count", tree.ephemerals_count() as u64),
        ("approximate_data_size", tree.data_bytes()),
        ("open_file_descriptor_count", server.open_files.0),
        ("max_file_descriptor_count", server.open_files.1),
        ("uptime", now.since(server.serving_since()).as_millis()),
        ("global_sessions", server.sessions().count(SessionKind::Global) as u64),
        ("local_sessions", server.sessions().count(SessionKind::Local) as u64),
        ("fsync_threshold_exceed_count", server.pipeline.slow_flush_count()),
    ] {
        line(&mut text, format_args!("zk_{key}\t{value}"));
    }
    let drop_probability = decimal(server.pipeline.drop_probability());
    line(&mut text, format_args!("zk_connection_drop_probability\t{drop_probability}"));
    text
}

/// What a member of an ensemble has in addition. Apache prints the state of the peer and an
/// observer's master in this place, and everything else anywhere.
fn mntr_of_member(text: &mut String, report: &EnsembleReport, now: Instant) {
    line(text, format_args!("zk_peer_state\t{}", report.peer_state));
    if let Some(master) = report.observer_master {
        line(text, format_args!("zk_observer_master_id\t{master}"));
    }
    line(text, format_args!("zk_quorum_size\t{}", report.quorum_size));
    let Some(leader) = &report.leader else { return };
    for (key, value) in [
        ("learners", leader.learners),
        // Its name before 3.6.
        ("followers", leader.learners),
        ("synced_followers", leader.followers),
        ("synced_non_voting_followers", leader.followers_without_vote),
        ("synced_observers", leader.observers),
        ("pending_syncs", leader.pending_syncs),
    ] {
        line(text, format_args!("zk_{key}\t{value}"));
    }
    line(text, format_args!("zk_leader_uptime\t{}", now.since(report.since).as_millis()));
    let [last, min, max] = leader.sizes.last_min_max();
    for (key, value) in [("last", last), ("min", min), ("max", max)] {
        line(text, format_args!("zk_{key}_proposal_size\t{value}"));
    }
    for (sid, lag) in &leader.lags {
        line(text, format_args!("zk_ringkeeper_lag_txns_{sid}\t{lag}"));
    }
}

/// A connection's line of `cons`.
pub(super) fn conn(stats: &ConnStats, session: Option<SessionId>) -> String {
    let mut text = conn_start(stats);
    if let Some(session) = session {
        conn_session(&mut text, stats, session);
    }
    text.push_str(")\n");
    text
}

/// ` /address:port[interest](queued=...`, without the closing parenthesis.
pub(super) fn conn_start(stats: &ConnStats) -> String {
    let ConnStats { peer, queued, received, sent, .. } = stats;
    let interest = u8::from(stats.timeout_ms != 0);
    format!(" /{peer}[{interest}](queued={queued},recved={received},sent={sent}")
}

fn conn_session(text: &mut String, stats: &ConnStats, session: SessionId) {
    let op = stats.last_opcode.map_or("NA", opcode::short_name);
    let (established, to) = (stats.established_ms, stats.timeout_ms);
    put(text, format_args!(",sid={session},lop={op},est={established},to={to}"));
    if let Some(xid) = stats.last_xid {
        put(text, format_args!(",lcxid=0x{:x}", xid.0));
    }
    let (zxid, response) = (stats.last_zxid, stats.last_response.as_millis());
    let latency = &stats.latency;
    put(
        text,
        format_args!(
            ",lzxid={zxid},lresp={response},llat={},minlat={},avglat={:.0},maxlat={}",
            stats.last_latency_ms,
            latency.min_ms(),
            latency.mean_ms(),
            latency.max_ms()
        ),
    );
}

fn dirs(server: &Server) -> String {
    let log_bytes = server.pipeline.log_bytes();
    format!("datadir_size: {}\nlogdir_size: {log_bytes}\n", server.pipeline.snapshot_bytes())
}

/// The configuration was printed at start; the sizes are of now, and so is a member's port, which a
/// reconfiguration may have changed.
fn conf(server: &Server) -> String {
    let (data, log) = (server.pipeline.snapshot_bytes(), server.pipeline.log_bytes());
    let sizes = [("dataDirSize=0\n", data), ("dataLogSize=0\n", log)];
    let text = sizes.into_iter().fold(server.options.conf_text.clone(), |text, (line, bytes)| {
        text.replace(line, &line.replace('0', &bytes.to_string()))
    });
    let ensemble = server.options.ensemble.as_ref().zip(server.config());
    let Some((ensemble, config)) = ensemble else { return text };
    let port = server.client_port().unwrap_or_default();
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    let text = format!("clientPort={port}\n{rest}{}", conf_of_member(ensemble, config));
    match server.is_read_only() {
        true => text,
        false => text + "membership: \n" + &config::ensemble::text(config),
    }
}

/// What a member of an ensemble has in addition.
fn conf_of_member(ensemble: &EnsembleOptions, config: &EnsembleConfig) -> String {
    let own = config.members.get(&ensemble.me);
    let ports = |port: fn(&ServerAddress) -> u16| {
        let addresses = own.map(|own| own.addresses.as_slice()).unwrap_or_default();
        addresses.iter().map(|address| port(address).to_string()).collect::<Vec<_>>().join("|")
    };
    let mut text = String::new();
    line(&mut text, format_args!("initLimit={}", ensemble.init_limit));
    line(&mut text, format_args!("syncLimit={}", ensemble.sync_limit));
    line(&mut text, format_args!("electionAlg=3"));
    line(&mut text, format_args!("electionPort={}", ports(|address| address.election_port)));
    line(&mut text, format_args!("quorumPort={}", ports(|address| address.quorum_port)));
    line(&mut text, format_args!("peerType={}", u8::from(!config.is_voter(ensemble.me))));
    text
}

/// Digests of the tree at every 128th zxid.
fn hash(server: &Server) -> String {
    let mut text = String::new();
    for (zxid, digest) in server.pipeline.digest_log() {
        line(&mut text, format_args!("{:x}: {digest}", zxid.0));
    }
    text
}

/// As Java prints dates, in UTC.
pub(super) fn date(at: Instant, clock: Clock) -> String {
    let ahead = i64::try_from(at.since(clock.now).as_millis()).unwrap_or_default();
    let behind = i64::try_from(clock.now.since(at).as_millis()).unwrap_or_default();
    let seconds = (clock.wall.0 + ahead - behind).div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let weekday = usize::try_from(days.rem_euclid(7)).ok().and_then(|at| weekdays.get(at));
    let (year, month, day) = civil(days);
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.get(3 * month - 3..3 * month).unwrap_or_default();
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let weekday = weekday.copied().unwrap_or_default();
    format!("{weekday} {month} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}")
}

/// Year, month from 1, and day of a day counted from 1970-01-01, in the Gregorian calendar.
fn civil(days: i64) -> (i64, usize, i64) {
    // Years begin in March here, so that the leap day comes last; eras have 400 of them.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, usize::try_from(month).unwrap_or(1), day)
}

/// Apache's lines; those that tell of a JVM have nothing to tell.
fn envi(server: &Server) -> String {
    let mut text = format!("Environment:\nzookeeper.version={VERSION}\n");
    let known = &server.options.environment;
    for key in [
        "host.name",
        "java.version",
        "java.vendor",
        "java.home",
        "java.class.path",
        "java.library.path",
        "java.io.tmpdir",
        "java.compiler",
        "os.name",
        "os.arch",
        "os.version",
        "user.name",
        "user.home",
        "user.dir",
        "os.memory.free",
        "os.memory.max",
        "os.memory.total",
    ] {
        let value = known.iter().find(|(name, _)| *name == key);
        let value = value.map_or("<NA>", |(_, value)| value.as_str());
        line(&mut text, format_args!("{key}={value}"));
    }
    text
}

/// At least one place behind the point and at most four, as Apache prints means.
fn decimal(value: f64) -> String {
    let rounded = format!("{value:.4}");
    let trimmed = rounded.trim_end_matches('0');
    if trimmed.ends_with('.') { format!("{trimmed}0") } else { trimmed.to_owned() }
}

/// Appends a line.
pub(super) fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    put(text, arguments);
    text.push('\n');
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("strings take everything");
}

#[cfg(test)]
mod tests {
    use super::{Clock, EnsembleOptions, Instant, conf_of_member, date, decimal};
    use crate::base::{Duration, WallMs};
    use crate::config::ensemble;
    use crate::config::reconfig::ReconfigRules;
    use crate::model::{ClientAddress, EnsembleConfigs, LocalSessions, ServerId};
    use crate::server::HistorySlices;
    use crate::wire::vote::ElectionAddress;
    use crate::zab::leader::EpochZxids;

    #[test]
    fn a_member_prints_its_ensemble_as_apache_does() {
        let members = "server.1=h1:2888:3888:participant\n\
                       server.2=h2:2889:3889:observer;0.0.0.0:2182\nversion=1f";
        let config = ensemble::parse(members, "zoo.cfg").unwrap();
        let options = EnsembleOptions {
            me: ServerId(2),
            configs: EnsembleConfigs::settled(config.clone()),
            election_address: ElectionAddress { host: "h2".to_owned(), port: 3889 },
            tick: Duration::from_millis(2000),
            init_limit: 10,
            sync_limit: 5,
            ping_every: Duration::from_millis(50),
            detect: Duration::from_millis(300),
            connect_within: Duration::from_millis(5000),
            adopts_configs: false,
            trusts_empty: true,
            local_sessions: LocalSessions::Off,
            read_only_after: None,
            rules: ReconfigRules { standalone_enabled: true, multi_address: false },
            client: ClientAddress { host: "c".to_owned(), port: 2181 },
            history: HistorySlices::default(),
            zxids: EpochZxids::default(),
        };
        let expected = "initLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=3889\n\
                        quorumPort=2889\npeerType=1\n";
        assert_eq!(conf_of_member(&options, &config), expected);
    }

    #[test]
    fn dates_are_printed_as_java_prints_them() {
        for (seconds, text) in [
            (0, "Thu Jan 01 00:00:00 UTC 1970"),
            (951_827_696, "Tue Feb 29 12:34:56 UTC 2000"),
            (1_794_906_190, "Tue Nov 17 09:03:10 UTC 2026"),
            (4_107_542_399, "Sun Feb 28 23:59:59 UTC 2100"),
            (4_107_542_400, "Mon Mar 01 00:00:00 UTC 2100"),
        ] {
            let now = Instant(5_000_000_000);
            let clock = Clock { now, wall: WallMs(seconds * 1_000) };
            assert_eq!(date(now, clock), text);
        }
    }

    #[test]
    fn means_are_printed_as_apache_prints_them() {
        for (value, text) in [(0.0, "0.0"), (2.2558, "2.2558"), (1.5, "1.5"), (10.0, "10.0")] {
            assert_eq!(decimal(value), text);
        }
    }
}
