//! The keys of an ensemble: who its members are, which of them this server is, and how long they
//! wait for one another.
//!
//! As in Apache's server, a list with one voter is no ensemble unless `standaloneEnabled=false`;
//! the lines of such a list only tell where clients connect.

use std::path::Path;

use super::dynamic;
use super::ensemble;
use super::properties::{self, Property};
use super::reconfig::ReconfigRules;
use super::values::Values;
use super::{ConfigError, ConfigWarning};
use crate::limits;
use crate::model::{
    ClientAddress, EnsembleConfig, EnsembleConfigs, LearnerType, LocalSessions, Member, ServerId,
};

/// Reads a file that the configuration names: `myid` and the dynamic files. `None` if there is no
/// such file; an error says why it cannot be read.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> Result<Option<Vec<u8>>, String>;

/// What a member of an ensemble is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensemble {
    /// This server, by the file `myid`: from 1 to 255, and one of the members.
    pub me: ServerId,
    /// The members, and those of a reconfiguration that was under way.
    pub configs: EnsembleConfigs,
    /// `initLimit`, ticks.
    pub init_limit: u64,
    /// `syncLimit`, ticks.
    pub sync_limit: u64,
    /// `cnxTimeout`.
    pub connection_timeout_ms: u64,
    /// `quorumListenOnAllIPs`.
    pub listens_on_all_ips: bool,
    /// `db.autocreate`: an empty database is what it seems to be, and this server may vote with it.
    pub trusts_empty: bool,
    /// `electionPortBindRetry`: how often a port is tried, a second apart; 0 is for ever.
    pub bind_tries: u32,
    /// `tcpKeepAlive`: the kernel probes connections to other members that are silent.
    pub tcp_keep_alive: bool,
    /// `localSessionsEnabled` and `localSessionsUpgradingEnabled`.
    pub local_sessions: LocalSessions,
    /// What a reconfiguration may make.
    pub rules: ReconfigRules,
    /// `ringkeeper.pingMillis`.
    pub ping_ms: u64,
    /// `ringkeeper.detectMillis`.
    pub detect_ms: u64,
    /// `ringkeeper.epochTxns`: after so many txns the next epoch is due.
    pub epoch_txns: u32,
}

impl Ensemble {
    /// This server's own line.
    #[must_use]
    pub fn own(&self) -> &Member {
        self.configs.committed.members.get(&self.me).expect("parsing has looked for it")
    }

    /// Whether this server hears of what was decided and does not vote.
    #[must_use]
    pub fn is_observer(&self) -> bool {
        self.own().learner_type == LearnerType::Observer
    }
}

/// What the lines say of this server.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// The list and this server's place in it; `None` when standalone.
    pub(super) ensemble: Option<(EnsembleConfig, ServerId)>,
    /// Where its own line wants its clients.
    pub(super) client: Option<ClientAddress>,
}

impl Values<'_> {
    /// Reads the list of members and finds this server in it.
    pub(super) fn membership(
        &self,
        read: ReadFile<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Membership, ConfigError> {
        let allows_alone = self.boolean("standaloneEnabled", true)?;
        let Some(config) = self.members(read)? else {
            return if allows_alone {
                Ok(Membership::default())
            } else {
                Err(self.wrong("standaloneEnabled", "false needs server.N lines"))
            };
        };
        let mut members = config.members.iter();
        let many = members.find(|(_, member)| 1 < member.addresses.len());
        if let (Some((sid, _)), false) = (many, self.boolean("multiAddress.enabled", false)?) {
            let what =
                format!("server.{sid} has several addresses; write multiAddress.enabled=true");
            return Err(self.wrong("multiAddress.enabled", &what));
        }
        let voters = config.voters().count();
        let observers = config.members.len() - voters;
        let mut warn = |key: &str, what: &str| warnings.push(self.warning(key, what));
        let is_alone = voters == 1 && allows_alone;
        if is_alone && observers != 0 {
            let what = "one participant is a standalone server, which has no observers; write \
                        another server.N, or standaloneEnabled=false";
            return Err(self.wrong("server.", what));
        } else if is_alone {
            warn("server.", "only one server is named: it is standalone, the line is ignored");
        } else if voters <= 2 {
            warn("server.", "no failure of a server is tolerated: that needs at least 3 servers");
        } else if voters.is_multiple_of(2) {
            warn(
                "server.",
                "consider an odd number of servers: one less tolerates as many failures",
            );
        }
        let me = self.myid(read)?;
        let own = me.and_then(|me| config.members.get(&me));
        let client = own.and_then(|own| own.client.clone());
        let ensemble = match (me, own) {
            _ if is_alone => None,
            (Some(me), Some(own)) => {
                if own.secure_client.is_some() {
                    let what = "a port for TLS (the last part) is not built yet; leave it out";
                    let key = format!("server.{me}");
                    let line = self.family("server.").find(|line| line.key == key);
                    return Err(line.map_or_else(
                        || self.wrong(&key, what),
                        |line| self.wrong_property(line, what),
                    ));
                }
                self.check_peer_type(own.learner_type, warnings)?;
                Some((config, me))
            }
            (Some(me), None) => {
                return Err(self.wrong("myid", &format!("{me}: there is no server.{me} line")));
            }
            (None, _) => {
                let file = self.myid_file();
                let what = format!("{file} is missing; write this server's number into it");
                return Err(self.wrong("myid", &what));
            }
        };
        Ok(Membership { ensemble, client })
    }

    /// The list, from this file or from the dynamic one; `None` if this file has none.
    fn members(&self, read: ReadFile<'_>) -> Result<Option<EnsembleConfig>, ConfigError> {
        let own: Vec<Property> = ["server.", "group.", "weight."]
            .iter()
            .flat_map(|prefix| self.family(prefix).cloned())
            .collect();
        let Some(dynamic) = self.text("dynamicConfigFile") else {
            if own.is_empty() {
                return Ok(None);
            }
            let own: Vec<Property> = own.into_iter().chain(self.get("version").cloned()).collect();
            return ensemble::from_properties(&own, self.file).map(Some);
        };
        if let Some(property) = own.first() {
            let what = format!("belongs into {dynamic}, which dynamicConfigFile names");
            return Err(self.wrong_property(property, &what));
        }
        let Some(text) = self.read(read, "dynamicConfigFile", dynamic)? else {
            return Err(self.wrong("dynamicConfigFile", &format!("there is no file {dynamic}")));
        };
        let mut properties = properties::parse(&text);
        for Property { line, key, .. } in &properties {
            if key == "version" || !ensemble::is_ensemble_key(key) {
                let what = "does not belong here; remove it".to_owned();
                let (file, line, key) = (dynamic.to_owned(), *line, key.clone());
                return Err(ConfigError { file, line, key, what });
            }
        }
        // The version is the suffix of the file's name.
        let suffix = dynamic.rsplit_once('.').map(|(_, suffix)| suffix);
        if let Some(value) = suffix.filter(|suffix| i64::from_str_radix(suffix, 16).is_ok()) {
            let (key, value) = ("version".to_owned(), value.to_owned());
            properties.push(Property { line: 0, key, value });
        }
        ensemble::from_properties(&properties, dynamic).map(Some)
    }

    fn read(
        &self,
        read: ReadFile<'_>,
        key: &str,
        file: &str,
    ) -> Result<Option<Vec<u8>>, ConfigError> {
        read(Path::new(file)).map_err(|error| self.wrong(key, &format!("{file}: {error}")))
    }

    fn myid_file(&self) -> String {
        let data_dir = self.text("dataDir").unwrap_or_default();
        Path::new(data_dir).join("myid").display().to_string()
    }

    /// The first line of `myid`; `None` if there is no such file.
    fn myid(&self, read: ReadFile<'_>) -> Result<Option<ServerId>, ConfigError> {
        let file = self.myid_file();
        let Some(text) = self.read(read, "myid", &file)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&text);
        let text = text.lines().next().unwrap_or_default().trim();
        // TTL znodes are told from others by the number above.
        let max = if self.lenient_true("extendedTypesEnabled", false) { 254 } else { 255 };
        let what = match text.parse() {
            Ok(me) if (1..=max).contains(&me) => return Ok(Some(ServerId(me))),
            Ok(me) => format!("{file}: {me} is not in 1..={max}"),
            Err(_) if text.is_empty() => format!("{file} is empty; write this server's number"),
            Err(_) => format!("{file}: {text:?} is not a number"),
        };
        Err(self.wrong("myid", &what))
    }

    fn check_peer_type(
        &self,
        line: LearnerType,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<(), ConfigError> {
        let named = match self.text("peerType").map(str::to_lowercase).as_deref() {
            None | Some("participant") => LearnerType::Participant,
            Some("observer") => LearnerType::Observer,
            Some(_) => return Err(self.wrong("peerType", "must be participant or observer")),
        };
        if named != line {
            let what = "the role in the server.N line is another one, and holds";
            warnings.push(self.warning("peerType", what));
        }
        if line == LearnerType::Observer && !self.boolean("syncEnabled", true)? {
            let what = "false: an observer without a log is not built yet; remove the key";
            return Err(self.wrong("syncEnabled", what));
        }
        Ok(())
    }

    /// The rest of the keys.
    pub(super) fn ensemble(
        &self,
        (committed, me): (EnsembleConfig, ServerId),
        read: ReadFile<'_>,
    ) -> Result<Ensemble, ConfigError> {
        // One that is not newer was left behind.
        let newer = self.last_seen(read)?.filter(|next| committed.version < next.version);
        let last_seen = newer.unwrap_or_else(|| committed.clone());
        let ping_ms = self.positive("ringkeeper.pingMillis", Some(50))?;
        let detect_ms = self.positive("ringkeeper.detectMillis", Some(300))?;
        if detect_ms < 2 * ping_ms {
            let what = format!("must be at least twice ringkeeper.pingMillis, which is {ping_ms}");
            return Err(self.wrong("ringkeeper.detectMillis", &what));
        }
        let epoch_txns = self.number("ringkeeper.epochTxns", limits::RENEW_AT)?;
        if !(1..=limits::RENEW_AT).contains(&epoch_txns) {
            let what = format!("must be from 1 to {}", limits::RENEW_AT);
            return Err(self.wrong("ringkeeper.epochTxns", &what));
        }
        Ok(Ensemble {
            me,
            configs: EnsembleConfigs { committed, last_seen },
            init_limit: self.positive("initLimit", None)?,
            sync_limit: self.positive("syncLimit", None)?,
            rules: ReconfigRules {
                standalone_enabled: self.boolean("standaloneEnabled", true)?,
                multi_address: self.boolean("multiAddress.enabled", false)?,
            },
            connection_timeout_ms: self.positive("cnxTimeout", Some(5000))?,
            listens_on_all_ips: self.boolean("quorumListenOnAllIPs", false)?,
            trusts_empty: self.boolean("db.autocreate", true)?,
            bind_tries: self.number("electionPortBindRetry", 3)?,
            tcp_keep_alive: self.lenient_true("tcpKeepAlive", false),
            local_sessions: self.local_sessions()?,
            ping_ms,
            detect_ms,
            epoch_txns,
        })
    }

    fn local_sessions(&self) -> Result<LocalSessions, ConfigError> {
        let upgrading = self.boolean("localSessionsUpgradingEnabled", false)?;
        Ok(match (self.boolean("localSessionsEnabled", false)?, upgrading) {
            (false, _) => LocalSessions::Off,
            (true, false) => LocalSessions::WithoutEphemerals,
            (true, true) => LocalSessions::Upgradable,
        })
    }

    /// The configuration that was last proposed, while it is not in force. Also without a dynamic
    /// file, unlike Apache's server: a proposal may have been acknowledged before there was one.
    fn last_seen(&self, read: ReadFile<'_>) -> Result<Option<EnsembleConfig>, ConfigError> {
        if !self.boolean("reconfigEnabled", false)? {
            return Ok(None);
        }
        let next = dynamic::next_name(self.file);
        let Some(text) = self.read(read, "dynamicConfigFile", &next)? else { return Ok(None) };
        let text: String = text.into_iter().map(char::from).collect();
        ensemble::parse(&text, &next).map(Some)
    }

    fn positive(&self, name: &str, default: Option<u64>) -> Result<u64, ConfigError> {
        match (self.text(name), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(name, "in ticks; an ensemble needs it")),
            (Some(_), _) => match self.number::<u32>(name, 0)? {
                0 => Err(self.wrong(name, "must be above 0")),
                number => Ok(u64::from(number)),
            },
        }
    }
}
