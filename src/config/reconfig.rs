//! What a client's reconfiguration makes of the configuration in force, or the error that it is
//! answered with (`client-protocol.md` 4.4). Codes are those of Apache's server, which answers some
//! malformed texts with MARSHALLING_ERROR and others with BAD_ARGUMENTS.

use std::net::IpAddr;

use super::ensemble;
use super::properties;
use crate::limits::CONFIG_TEXT_BYTES_MAX;
use crate::model::{EnsembleConfig, ErrorCode, Member, QuorumRule, ReconfigRequest, ServerId};

/// What a new configuration may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconfigRules {
    /// `standaloneEnabled`: an ensemble has at least two voters.
    pub standalone_enabled: bool,
    /// `multiAddress.enabled`: a member may have several addresses.
    pub multi_address: bool,
}

/// The configuration that `request` asks for, with `version`.
///
/// # Errors
/// What the client is told. Whether the new voters are there is for the leader to say.
pub fn next(
    current: &EnsembleConfig,
    request: &ReconfigRequest,
    rules: ReconfigRules,
    version: i64,
) -> Result<EnsembleConfig, ErrorCode> {
    let mut config = match &request.new_members {
        Some(text) => whole(text, rules)?,
        None => changed(current, request)?,
    };
    config.version = version;
    let voters_min = if rules.standalone_enabled { 2 } else { 1 };
    if config.voters().count() < voters_min {
        return Err(refused("there are too few participants"));
    }
    let many = |member: &Member| !rules.multi_address && 1 < member.addresses.len();
    if config.members.values().any(many) {
        return Err(refused("multiAddress.enabled is not set"));
    }
    // Servers before 3.10 refuse the whole line.
    if config.members.values().any(|member| member.secure_client.is_some()) {
        return Err(refused("a member has a second client part"));
    }
    if CONFIG_TEXT_BYTES_MAX < ensemble::text(&config).len() {
        return Err(refused("the text is too long for a notification"));
    }
    Ok(config)
}

fn refused(why: &str) -> ErrorCode {
    tracing::warn!("a reconfiguration was refused: {why}");
    ErrorCode::BAD_ARGUMENTS
}

/// The whole list.
fn whole(text: &str, rules: ReconfigRules) -> Result<EnsembleConfig, ErrorCode> {
    let properties = properties::parse_text(&text.replace(',', "\n"));
    let mut voters = 0;
    let mut observers = 0;
    for property in &properties {
        let (key, value) = (property.key.as_str(), property.value.as_str());
        if key == "version" {
            i64::from_str_radix(value, 16).map_err(|_| ErrorCode::MARSHALLING_ERROR)?;
        } else if let Some(sid) = key.strip_prefix("server.") {
            sid.parse::<i64>().map_err(|_| ErrorCode::MARSHALLING_ERROR)?;
            let member = ensemble::member(value).map_err(|why| refused(&why))?;
            match member.learner_type {
                crate::model::LearnerType::Participant => voters += 1,
                crate::model::LearnerType::Observer => observers += 1,
            }
        } else if !ensemble::is_ensemble_key(key) {
            return Err(refused(&format!("{key} does not belong into a list of members")));
        }
    }
    match (voters, rules.standalone_enabled) {
        (0, false) => return Err(ErrorCode::MARSHALLING_ERROR),
        (0 | 1, true) if observers != 0 => return Err(ErrorCode::MARSHALLING_ERROR),
        (0, true) => return Err(refused("no participant is named")),
        _ => {}
    }
    ensemble::from_properties(&properties, "reconfig").map_err(|error| refused(&error.what))
}

/// The present one without those that go and with those that come.
fn changed(
    current: &EnsembleConfig,
    request: &ReconfigRequest,
) -> Result<EnsembleConfig, ErrorCode> {
    if current.quorum != QuorumRule::Majority {
        return Err(refused("with groups only a whole list can be given"));
    }
    let mut config = current.clone();
    for sid in items(request.leaving.as_deref(), ',') {
        let sid: i64 = sid.parse().map_err(|_| ErrorCode::MARSHALLING_ERROR)?;
        config.members.remove(&ServerId(sid));
    }
    for line in items(request.joining.as_deref(), ',') {
        let mut parts = items(Some(line), '=');
        let (Some(key), Some(value), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused("a joining server is server.N=..."));
        };
        let sid = key.rsplit('.').next().unwrap_or_default();
        let sid: i64 = sid.parse().map_err(|_| ErrorCode::MARSHALLING_ERROR)?;
        if sid < 0 {
            return Err(refused("a server has no negative number"));
        }
        let member = ensemble::member(value).map_err(|why| refused(&why))?;
        if member.client.is_none() {
            return Err(refused("a joining server's line names its client port"));
        }
        let mut others = config.members.iter().filter(|(other, _)| other.0 != sid);
        if let Some((other, _)) = others.find(|(_, other)| collide(&member, other)) {
            return Err(refused(&format!("server.{sid} has an address of server.{other}")));
        }
        config.members.insert(ServerId(sid), member);
    }
    Ok(config)
}

/// Parts of a list, trimmed, without empty ones.
fn items(list: Option<&str>, separator: char) -> impl Iterator<Item = &str> {
    let parts = list.unwrap_or_default().split(separator).map(str::trim);
    parts.filter(|part| !part.is_empty())
}

/// Whether two members name one place. Wildcard and loopback addresses are of each machine.
fn collide(one: &Member, other: &Member) -> bool {
    let others = places(other);
    places(one).iter().any(|place| others.contains(place))
}

fn places(member: &Member) -> Vec<(&str, u16)> {
    let ports = member.addresses.iter().flat_map(|address| {
        let host = address.host.as_str();
        [(host, address.quorum_port), (host, address.election_port)]
    });
    let client = member.client.iter().map(|client| (client.host.as_str(), client.port));
    ports.chain(client).filter(|(host, _)| !is_everywhere(host)).collect()
}

fn is_everywhere(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: ReconfigRules = ReconfigRules { standalone_enabled: true, multi_address: false };
    const ALONE: ReconfigRules = ReconfigRules { standalone_enabled: false, ..RULES };

    fn current() -> EnsembleConfig {
        let text = "server.1=a:1:2;3\nserver.2=b:1:2:observer;3\nserver.3=c:1:2;3\nversion=a";
        ensemble::parse(text, "f").unwrap()
    }

    fn request(joining: &str, leaving: &str) -> ReconfigRequest {
        let text = |text: &str| (!text.is_empty()).then(|| text.into());
        ReconfigRequest {
            joining: text(joining),
            leaving: text(leaving),
            new_members: None,
            from_config: -1,
        }
    }

    fn whole_list(list: &str) -> ReconfigRequest {
        ReconfigRequest { new_members: Some(list.into()), ..request("", "") }
    }

    fn made(request: &ReconfigRequest, rules: ReconfigRules) -> Result<String, ErrorCode> {
        next(&current(), request, rules, 0x2a).map(|config| ensemble::text(&config))
    }

    #[test]
    fn servers_come_go_and_change() {
        let changed =
            made(&request("server.4=d:1:2:participant;9, server.2=b:1:2;3", "1,,7"), RULES);
        assert_eq!(
            changed.unwrap(),
            "server.2=b:1:2:participant;0.0.0.0:3\nserver.3=c:1:2:participant;0.0.0.0:3\n\
             server.4=d:1:2:participant;0.0.0.0:9\nversion=2a"
        );
        // The same place may be named again by the server that has it.
        assert!(made(&request("server.1=a:1:2;9", ""), RULES).is_ok());
        assert!(made(&request("", ""), RULES).is_ok());
        assert!(made(&request("", "1"), ALONE).is_ok(), "one voter is an ensemble when told so");
        let whole = made(&whole_list("server.8=h:1:2,server.9=i:1:2;5\nversion=5"), RULES);
        assert_eq!(
            whole.unwrap(),
            "server.8=h:1:2:participant\nserver.9=i:1:2:participant;0.0.0.0:5\nversion=2a"
        );
    }

    #[test]
    fn what_is_refused_is_refused_with_apaches_codes() {
        let bad = Err(ErrorCode::BAD_ARGUMENTS);
        let marshalling = Err(ErrorCode::MARSHALLING_ERROR);
        for (joining, leaving, code) in [
            ("server.4=d:1:2", "", &bad),
            ("server.4=d:1;3", "", &bad),
            ("server.4", "", &bad),
            ("server.4=d:1:2;3=4", "", &bad),
            ("server.4=d:1:2;3;4", "", &bad),
            ("server.4=d:1:2|e:1:2;3", "", &bad),
            ("server.4=a:1:9;7", "", &bad),
            ("server.4=d:1:1;7", "", &bad),
            ("server.-4=d:1:2;7", "", &bad),
            ("", "1", &bad),
            ("server.x=d:1:2;3", "", &marshalling),
            ("", "x", &marshalling),
        ] {
            assert_eq!(&made(&request(joining, leaving), RULES), code, "{joining} {leaving}");
        }
        assert_eq!(made(&request("", "1,3"), ALONE), bad);
        for (list, rules, code) in [
            ("", RULES, &bad),
            ("", ALONE, &marshalling),
            ("server.1=a:1:2", RULES, &bad),
            ("server.1=a:1:2:observer", RULES, &marshalling),
            ("server.1=a:1:2,server.2=b:1:2:observer", RULES, &marshalling),
            ("server.x=a:1:2", RULES, &marshalling),
            ("server.1=a:1", RULES, &bad),
            ("version=g", RULES, &marshalling),
            ("clientPort=1", RULES, &bad),
        ] {
            assert_eq!(&made(&whole_list(list), rules), code, "{list}");
        }
        let grouped = "server.1=a:1:2\nserver.3=c:1:2\ngroup.1=1\ngroup.2=3";
        let grouped = ensemble::parse(grouped, "f").unwrap();
        assert!(next(&grouped, &request("", ""), RULES, 1).is_err());
        assert!(next(&grouped, &whole_list("server.1=a:1:2,server.2=b:1:2"), RULES, 1).is_ok());
    }
}
