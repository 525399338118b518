//! The text of an ensemble's configuration (`quorum-and-disk.md` 6.1): `server.N` lines in zoo.cfg,
//! the dynamic file, `/zookeeper/config`, NEWLEADER packets and election notifications.
//!
//! ```text
//! server.<sid>=<host>:<quorumPort>:<electionPort>[:participant|:observer][|...][;[<host>:]<port>]
//! group.<gid>=<sid>[:<sid>]...
//! weight.<sid>=<n>
//! version=<hex>
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv6Addr;

use super::ConfigError;
use super::properties::{self, Property};
use crate::limits::CONFIG_TEXT_BYTES_MAX;
use crate::model::{
    ClientAddress, EnsembleConfig, LearnerType, Member, QuorumRule, ServerAddress, ServerId,
};

/// Reads a text that holds nothing but a configuration, as it travels between servers and stands
/// in the dynamic file. `file` names it in errors.
pub fn parse(text: &str, file: &str) -> Result<EnsembleConfig, ConfigError> {
    if CONFIG_TEXT_BYTES_MAX < text.len() {
        let what = format!("{} bytes are more than {CONFIG_TEXT_BYTES_MAX}", text.len());
        return Err(ConfigError { file: file.to_owned(), line: 0, key: "server.".into(), what });
    }
    let properties = properties::parse_text(text);
    let stranger = properties.iter().find(|property| !is_ensemble_key(&property.key));
    match stranger {
        Some(property) => Err(error(file, property, "does not belong here; remove it")),
        None => from_properties(&properties, file),
    }
}

/// Whether a key is part of a configuration of an ensemble.
#[must_use]
pub fn is_ensemble_key(key: &str) -> bool {
    key == "version" || FAMILIES.iter().any(|family| key.starts_with(family))
}

/// Builds a configuration from its lines in a larger file; other keys are left alone.
pub fn from_properties(properties: &[Property], file: &str) -> Result<EnsembleConfig, ConfigError> {
    let mut config = EnsembleConfig::default();
    let mut groups = BTreeMap::new();
    let mut weights = BTreeMap::new();
    let mut grouped: Option<&Property> = None;
    for property in properties {
        let bad = |what: String| error(file, property, &what);
        if let Some(sid) = property.key.strip_prefix("server.") {
            let sid = server_id(sid).map_err(bad)?;
            config.members.insert(sid, member(&property.value).map_err(bad)?);
        } else if let Some(gid) = property.key.strip_prefix("group.") {
            let gid = gid.parse().map_err(|_| bad(format!("{gid:?} is not a group's number")))?;
            join_group(&mut groups, gid, &property.value).map_err(bad)?;
            grouped = Some(property);
        } else if let Some(sid) = property.key.strip_prefix("weight.") {
            let weight = property.value.parse();
            let weight = weight.map_err(|_| bad("write a weight from 0 to 4294967295".into()))?;
            weights.insert(server_id(sid).map_err(bad)?, weight);
            grouped = grouped.or(Some(property));
        } else if property.key == "version" {
            let version = i64::from_str_radix(&property.value, 16);
            config.version = version.map_err(|_| bad("write a hexadecimal number".into()))?;
        }
    }
    if config.voters().next().is_none() {
        let what = "no server.N line names a participant; write one for each voter".to_owned();
        return Err(ConfigError { file: file.to_owned(), line: 0, key: "server.".into(), what });
    }
    if let Some(property) = grouped {
        config.quorum =
            hierarchical(&config, groups, weights).map_err(|what| error(file, property, &what))?;
    }
    Ok(config)
}

/// The text of a configuration as Apache's servers generate it, without a newline at its end.
/// Members stand in the order of a Java hash table of their sids: ascending below 16.
#[must_use]
pub fn text(config: &EnsembleConfig) -> String {
    let mut text = String::new();
    for sid in java_order(config.members.keys().map(|sid| sid.0)) {
        if let Some(member) = config.members.get(&ServerId(sid)) {
            let _ = writeln!(text, "server.{sid}={}", member_text(member));
        }
    }
    if let QuorumRule::Hierarchical { groups, weights } = &config.quorum {
        let mut lists: BTreeMap<i64, String> = BTreeMap::new();
        for sid in java_order(groups.keys().map(|sid| sid.0)) {
            let Some(gid) = groups.get(&ServerId(sid)) else { continue };
            let list = lists.entry(*gid).or_default();
            let _ = write!(list, "{}{sid}", if list.is_empty() { "" } else { ":" });
        }
        for gid in java_order(lists.keys().copied()) {
            let _ = writeln!(text, "group.{gid}={}", lists.get(&gid).map_or("", String::as_str));
        }
        for sid in java_order(weights.keys().map(|sid| sid.0)) {
            let _ = writeln!(text, "weight.{sid}={}", config.weight(ServerId(sid)));
        }
    }
    let _ = write!(text, "version={:x}", config.version);
    text
}

const FAMILIES: [&str; 3] = ["server.", "group.", "weight."];

fn error(file: &str, property: &Property, what: &str) -> ConfigError {
    ConfigError {
        file: file.to_owned(),
        line: property.line,
        key: property.key.clone(),
        what: what.to_owned(),
    }
}

fn server_id(text: &str) -> Result<ServerId, String> {
    match text.parse() {
        Ok(sid) if 0 <= sid => Ok(ServerId(sid)),
        _ => Err(format!("{text:?} is not a server's number")),
    }
}

fn join_group(groups: &mut BTreeMap<ServerId, i64>, gid: i64, list: &str) -> Result<(), String> {
    for sid in list.split(':') {
        let sid = server_id(sid)?;
        if groups.insert(sid, gid).is_some() {
            return Err(format!("server {sid} is in more than one group"));
        }
    }
    Ok(())
}

/// Every voter is in a group; voters weigh 1 unless told otherwise.
fn hierarchical(
    config: &EnsembleConfig,
    groups: BTreeMap<ServerId, i64>,
    mut weights: BTreeMap<ServerId, u32>,
) -> Result<QuorumRule, String> {
    for sid in config.voters() {
        if !groups.contains_key(&sid) {
            return Err(format!("server {sid} is in no group; add it to a group.N line"));
        }
        weights.entry(sid).or_insert(1);
    }
    match groups.keys().find(|sid| !weights.contains_key(sid)) {
        Some(sid) => Err(format!("server {sid} of a group is no participant and has no weight")),
        None => Ok(QuorumRule::Hierarchical { groups, weights }),
    }
}

/// One `server.N` value.
pub(super) fn member(value: &str) -> Result<Member, String> {
    let mut parts = value.split(';');
    let mut addresses = Vec::new();
    let mut learner_type = None;
    for part in parts.next().unwrap_or_default().split('|') {
        let (address, named) = server_address(part)?;
        if named.is_some() && learner_type.is_some_and(|earlier| Some(earlier) != named) {
            return Err("all addresses of a server have one role".to_owned());
        }
        learner_type = learner_type.or(named);
        addresses.push(address);
    }
    addresses.sort();
    addresses.dedup();
    let client = parts.next().map_or(Ok(None), client_address)?;
    let secure_client = parts.next().map_or(Ok(None), client_address)?;
    if parts.next().is_some() {
        return Err(FORM.to_owned());
    }
    Ok(Member { addresses, learner_type: learner_type.unwrap_or_default(), client, secure_client })
}

const FORM: &str =
    "write host:quorumPort:electionPort[:participant|:observer][;[clientHost:]clientPort]";

fn server_address(text: &str) -> Result<(ServerAddress, Option<LearnerType>), String> {
    let (host, rest) = host_and_rest(text)?;
    let mut fields = rest.split(':');
    let (Some(quorum), Some(election)) = (fields.next(), fields.next()) else {
        return Err(FORM.to_owned());
    };
    let learner_type = match fields.next().map(|role| role.trim().to_lowercase()) {
        None => None,
        Some(role) if role == "participant" => Some(LearnerType::Participant),
        Some(role) if role == "observer" => Some(LearnerType::Observer),
        Some(role) => return Err(format!("role {role:?} is neither participant nor observer")),
    };
    if fields.next().is_some() || host.is_empty() {
        return Err(FORM.to_owned());
    }
    let (quorum_port, election_port) = (port(quorum)?, port(election)?);
    if quorum_port == election_port {
        return Err(format!("quorum and election port are both {quorum_port}; they must differ"));
    }
    Ok((ServerAddress { host: normal_host(host), quorum_port, election_port }, learner_type))
}

/// `None` for an empty part, which leaves room for the one behind it.
fn client_address(text: &str) -> Result<Option<ClientAddress>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('[') || text.contains(':') {
        let (host, number) = host_and_rest(text)?;
        return Ok(Some(ClientAddress { host: normal_host(host), port: port(number)? }));
    }
    Ok(Some(ClientAddress { host: "0.0.0.0".to_owned(), port: port(text)? }))
}

/// `host:rest`, the host in brackets if it has colons of its own.
fn host_and_rest(text: &str) -> Result<(&str, &str), String> {
    let split = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once("]:"),
        None => text.split_once(':'),
    };
    split.ok_or_else(|| FORM.to_owned())
}

/// An IPv6 address as Java prints it, eight groups in full and IPv4 in its own form; anything else
/// as it stands.
fn normal_host(host: &str) -> String {
    let Ok(address) = host.parse::<Ipv6Addr>() else { return host.to_owned() };
    if let Some(address) = address.to_ipv4_mapped() {
        return address.to_string();
    }
    address.segments().map(|group| format!("{group:x}")).join(":")
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is not a port"))
}

fn member_text(member: &Member) -> String {
    let addresses: Vec<String> = member
        .addresses
        .iter()
        .map(|a| format!("{}:{}:{}", bracketed(&a.host), a.quorum_port, a.election_port))
        .collect();
    let role = match member.learner_type {
        LearnerType::Participant => "participant",
        LearnerType::Observer => "observer",
    };
    let mut text = format!("{}:{role}", addresses.join("|"));
    let client =
        |address: &ClientAddress| format!(";{}:{}", bracketed(&address.host), address.port);
    text.push_str(&member.client.as_ref().map(client).unwrap_or_default());
    if let Some(secure) = &member.secure_client {
        text.push_str(if member.client.is_none() { ";" } else { "" });
        text.push_str(&client(secure));
    }
    text
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The order in which Java's `HashMap<Long, _>` yields these keys; equal places by number.
fn java_order(keys: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut keys: Vec<i64> = keys.collect();
    let mut slots = 16;
    while slots * 3 / 4 < keys.len() {
        slots *= 2;
    }
    keys.sort_by_key(|key| {
        let bits = key.cast_unsigned();
        let folded = (bits ^ (bits >> 32)) & 0xffff_ffff;
        (((folded ^ (folded >> 16)) as usize) & (slots - 1), *key)
    });
    keys
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> EnsembleConfig {
        parse(text, "zoo.cfg.dynamic").unwrap()
    }

    /// Texts that Apache 3.9 generates for themselves.
    const GENERATED: [&str; 5] = [
        "server.1=127.0.0.1:2888:3888:participant\nserver.2=127.0.0.1:2889:3889:participant\n\
         server.3=127.0.0.1:2890:3890:participant\nversion=0",
        "server.1=zoo1:2888:3888:participant;0.0.0.0:2181\n\
         server.2=zoo2:2888:3888:observer;10.0.0.2:2181\nversion=10000002a",
        "server.16=a:1:2:participant\nserver.3=b:1:2:participant\n\
         server.5=c:1:2:observer\nversion=7",
        "server.1=[0:0:0:0:0:0:0:1]:2888:3888:participant;[0:0:0:0:0:0:0:0]:2181\n\
         version=100000000",
        "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:participant\n\
         group.1=1\ngroup.2=2:3\nweight.1=1\nweight.2=4\nweight.3=0\nversion=0",
    ];

    #[test]
    fn generated_texts_come_back_byte_for_byte() {
        for generated in GENERATED {
            assert_eq!(text(&parsed(generated)), generated);
        }
    }

    #[test]
    fn members_are_read_as_apache_reads_them() {
        let config = parsed(
            "# comment\nserver.2 = h2:2888:3888:OBSERVER ;2181\n\
             server.1: h1:2888:3888|h0:2889:3889:participant;;9999\nversion=1f\n",
        );
        assert_eq!(config.version, 0x1f);
        assert_eq!(config.voters().collect::<Vec<_>>(), [ServerId(1)]);
        let ipv6 = parsed("server.1=[fe80::AB]:1:2;[::ffff:10.0.0.1]:3\nversion=0");
        assert_eq!(
            text(&ipv6),
            "server.1=[fe80:0:0:0:0:0:0:ab]:1:2:participant;10.0.0.1:3\nversion=0"
        );
        let [first, second] = [1, 2].map(|sid| config.members[&ServerId(sid)].clone());
        assert_eq!(first.addresses[0].host, "h0");
        assert_eq!(first.client, None);
        assert_eq!(first.secure_client.unwrap().port, 9999);
        assert_eq!(second.learner_type, LearnerType::Observer);
        assert_eq!(second.client.unwrap().host, "0.0.0.0");
        assert_eq!(
            text(&config),
            "server.1=h0:2889:3889|h1:2888:3888:participant;;0.0.0.0:9999\n\
             server.2=h2:2888:3888:observer;0.0.0.0:2181\nversion=1f"
        );
    }

    #[test]
    fn what_cannot_be_read_names_line_and_key() {
        const VOTER: &str = "server.1=a:1:2\n";
        for (line, key, what) in [
            ("tickTime=2000", "tickTime", "does not belong"),
            ("server.x=a:1:2", "server.x", "not a server's number"),
            ("server.-2=a:1:2", "server.-2", "not a server's number"),
            ("server.2=a:1", "server.2", "write host:quorumPort"),
            ("server.2=a", "server.2", "write host:quorumPort"),
            ("server.2=", "server.2", "write host:quorumPort"),
            ("server.2=:1:2", "server.2", "write host:quorumPort"),
            ("server.2=a:1:2:participant:3", "server.2", "write host:quorumPort"),
            ("server.2=a:1:2;3;4;5", "server.2", "write host:quorumPort"),
            ("server.2=[::1:1:2", "server.2", "write host:quorumPort"),
            ("server.2=a:1:1", "server.2", "must differ"),
            ("server.2=a:1:70000", "server.2", "not a port"),
            ("server.2=a:1:2;x", "server.2", "not a port"),
            ("server.2=a:1:2:leader", "server.2", "neither participant"),
            ("server.2=a:1:2:observer|b:1:2:participant", "server.2", "one role"),
            ("group.1=2", "group.1", "server 1 is in no group"),
            ("group.1=1:1", "group.1", "more than one group"),
            ("group.1=1:5", "group.1", "server 5 of a group"),
            ("group.a=1", "group.a", "not a group's number"),
            ("weight.1=-1", "weight.1", "write a weight"),
            ("weight.1=1", "weight.1", "server 1 is in no group"),
            ("version=0x10", "version", "hexadecimal"),
        ] {
            let error = parse(&format!("{VOTER}{line}\n"), "f").unwrap_err();
            assert_eq!((error.line, error.key.as_str()), (2, key), "{line}: {error}");
            assert!(error.what.contains(what), "{line}: {error}");
        }
        let long = parse(&"#".repeat(CONFIG_TEXT_BYTES_MAX + 1), "f").unwrap_err();
        assert!(long.what.contains("bytes are more"), "{long}");
        let observers = parse("server.1=a:1:2:observer", "f").unwrap_err();
        assert!(observers.what.contains("names a participant"), "{observers}");
    }

    #[test]
    fn members_stand_in_the_order_of_a_java_hash_table() {
        assert_eq!(java_order([20, 3, 17, 1, 16].into_iter()), [16, 1, 17, 3, 20]);
        // Twelve entries fit into 16 places, thirteen do not.
        assert_eq!(java_order([16].into_iter().chain(1..12)).first(), Some(&16));
        assert_eq!(java_order([16].into_iter().chain(1..13)).last(), Some(&16));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\n]{0,200}") {
            let _ = parse(&text, "f");
        }

        #[test]
        fn what_is_generated_is_read_back(
            sids in proptest::collection::btree_set(0i64..300, 1..20),
            grouped: bool,
            version: i64,
        ) {
            let mut config = EnsembleConfig { version: version & i64::MAX, ..Default::default() };
            for sid in &sids {
                let address = |port| ServerAddress {
                    host: format!("h{port}"), quorum_port: port, election_port: port + 1,
                };
                let addresses = (0..1 + sid % 3).map(|n| address(2000 + n as u16)).collect();
                let observes = sid % 2 == 1 && 1 < sids.len() && sids.first() != Some(sid);
                let member = Member {
                    addresses,
                    learner_type: [LearnerType::Participant, LearnerType::Observer]
                        [usize::from(observes)],
                    client: (sid % 5 == 0).then(|| ClientAddress { host: "a".into(), port: 1 }),
                    secure_client: None,
                };
                config.members.insert(ServerId(*sid), member);
            }
            if grouped {
                let voters: Vec<_> = config.voters().collect();
                config.quorum = QuorumRule::Hierarchical {
                    groups: voters.iter().map(|sid| (*sid, sid.0 % 3)).collect(),
                    weights: voters.iter().map(|sid| (*sid, (sid.0 % 4) as u32)).collect(),
                };
            }
            prop_assert_eq!(parse(&text(&config), "f").unwrap(), config);
        }
    }
}
