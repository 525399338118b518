//! From known keys to typed values.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::keys::Key;
use super::membership::{Membership, ReadFile};
use super::properties::Property;
use super::{Config, ConfigError, ConfigWarning, Pin};
use crate::limits::{FRAME_BYTES_HARD_MAX, FRAME_BYTES_MAX_DEFAULT, SHARDS_MAX};
use crate::model::ClientAddress;

/// The properties of one file, by the usual spelling of their keys.
pub(super) struct Values<'a> {
    pub(super) file: &'a str,
    pub(super) known: Vec<(&'static Key, Property)>,
}

impl<'a> Values<'a> {
    pub(super) const fn new(file: &'a str, known: Vec<(&'static Key, Property)>) -> Self {
        Self { file, known }
    }

    pub(super) fn into_config(
        self,
        membership: Membership,
        read: ReadFile<'_>,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Config, ConfigError> {
        let defaults = Config::default();
        let data_dir = self.text("dataDir").map(PathBuf::from);
        let data_dir = data_dir.ok_or_else(|| self.missing("dataDir", "where data is kept"))?;
        let tick_time_ms: u32 = self.number("tickTime", defaults.tick_time_ms)?;
        if tick_time_ms == 0 {
            return Err(self.wrong("tickTime", "must not be 0; the usual value is 2000"));
        }
        let ticks = |count| i32::try_from(tick_time_ms.saturating_mul(count)).unwrap_or(i32::MAX);
        let (min, max) = (
            self.bound("minSessionTimeout", ticks(2))?,
            self.bound("maxSessionTimeout", ticks(20))?,
        );
        if max < min {
            let what = format!("{min} is above maxSessionTimeout, which is {max}");
            return Err(self.wrong("minSessionTimeout", &what));
        }
        let (client_port_address, client_port) = self.client_address(membership.client)?;
        if !matches!(self.text("electionAlg"), None | Some("3")) {
            return Err(self.wrong("electionAlg", "only 3 is supported"));
        }
        let ensemble = membership.ensemble.map(|found| self.ensemble(found, read)).transpose()?;
        let snap_retain_count = self.snap_retain_count(&defaults, warnings)?;
        Ok(Config {
            data_log_dir: self.text("dataLogDir").map_or_else(|| data_dir.clone(), PathBuf::from),
            data_dir,
            client_port,
            client_port_address,
            client_port_listen_backlog: self
                .number("clientPortListenBacklog", defaults.client_port_listen_backlog)?,
            tick_time_ms,
            min_session_timeout_ms: min,
            max_session_timeout_ms: max,
            max_client_cnxns: self.number("maxClientCnxns", defaults.max_client_cnxns)?,
            max_cnxns: self.number("maxCnxns", defaults.max_cnxns)?,
            words_whitelist: self
                .text("4lw.commands.whitelist")
                .map_or_else(|| defaults.words_whitelist.clone(), str::to_owned),
            snap_count: self.number("snapCount", defaults.snap_count)?.max(2),
            snap_size_limit_kb: u64::try_from(
                self.number("snapSizeLimitInKb", defaults.snap_size_limit_kb.cast_signed())?,
            )
            .unwrap_or(0),
            pre_alloc_size_kb: self.number("preAllocSize", defaults.pre_alloc_size_kb)?,
            snap_retain_count,
            jute_maxbuffer: self.jute_maxbuffer()?,
            jute_maxbuffer_extrasize: self
                .number("jute.maxbuffer.extrasize", self.jute_maxbuffer()?)?
                .max(1024),
            large_request_threshold: self.large_request_threshold()?,
            large_request_max_bytes: self
                .number("largeRequestMaxBytes", defaults.large_request_max_bytes)?,
            throttle: self.throttle()?,
            global_outstanding_limit: self
                .number("globalOutstandingLimit", defaults.global_outstanding_limit)?,
            extended_types_enabled: self.lenient_true("extendedTypesEnabled", false),
            emulate_353_ttl_nodes: self.lenient_true("emulate353TTLNodes", false),
            container_check_interval_ms: self
                .number("znode.container.checkIntervalMs", defaults.container_check_interval_ms)?
                .max(1),
            container_max_per_minute: self
                .number("znode.container.maxPerMinute", defaults.container_max_per_minute)?
                .max(1),
            container_max_never_used_interval_ms: self.number(
                "znode.container.maxNeverUsedIntervalMs",
                defaults.container_max_never_used_interval_ms,
            )?,
            enforce_quota: self.lenient_true("enforceQuota", false),
            audit_enable: self.lenient_true("audit.enable", false),
            digest_enabled: self.lenient_true("digest.enabled", true),
            skip_acl: self.text("skipACL") == Some("yes"),
            eager_acl_check: self.lenient_true("enableEagerACLCheck", false),
            super_digest: self.text("DigestAuthenticationProvider.superDigest").map(str::to_owned),
            digest_auth_enabled: self.lenient_true("DigestAuthenticationProvider.enabled", true),
            digest_algorithm: self.digest_algorithm()?,
            enforced_auth_schemes: self.enforced_auth_schemes()?,
            ensemble_auth_names: self.ensemble_auth_names()?,
            reconfig_enabled: self.boolean("reconfigEnabled", false)?,
            has_dynamic_file: self.text("dynamicConfigFile").is_some(),
            read_only_mode_enabled: self.lenient_true("readonlymode.enabled", false),
            fsync_warning_threshold_ms: self
                .number("fsync.warningthresholdms", defaults.fsync_warning_threshold_ms)?,
            client_tcp_keep_alive: self.lenient_true("clientTcpKeepAlive", false),
            sessionless_timeout_ms: self
                .number("nio.sessionlessCnxnTimeout", defaults.sessionless_timeout_ms)?,
            shards: self.shards(&defaults)?,
            pin: self.pin()?,
            spin_micros: self.spin_micros()?,
            io_memory_kb: self.io_memory_kb(&defaults)?,
            direct_io: self.lenient_true("ringkeeper.directIo", true),
            ensemble,
        })
    }

    /// Where clients connect: host (`None` is every address) and port. The client part of this
    /// server's `server.N` line holds, and must not contradict `clientPort`.
    fn client_address(
        &self,
        line: Option<ClientAddress>,
    ) -> Result<(Option<String>, u16), ConfigError> {
        let has_port = self.text("clientPort").is_some();
        let address = self.text("clientPortAddress");
        if !has_port && address.is_some() {
            return Err(self.wrong("clientPortAddress", "needs clientPort"));
        }
        let port = self.number("clientPort", 0)?;
        match line {
            None if !has_port => {
                Err(self.missing("clientPort", "the port for clients, usually 2181"))
            }
            None => Ok((address.map(str::to_owned), port)),
            Some(line) if has_port && line.port != port => {
                let what = format!("the server.N line names port {} for clients", line.port);
                Err(self.wrong("clientPort", &what))
            }
            Some(line) if differ(address, &line.host) => {
                let what = format!("the server.N line names {} for clients", line.host);
                Err(self.wrong("clientPortAddress", &what))
            }
            Some(line) => Ok((Some(line.host), line.port)),
        }
    }

    fn snap_retain_count(
        &self,
        defaults: &Config,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<usize, ConfigError> {
        let count = self.number("autopurge.snapRetainCount", defaults.snap_retain_count)?;
        if count < 3 {
            let text = format!("{}: autopurge.snapRetainCount: raised to 3", self.file);
            warnings.push(ConfigWarning(text));
        }
        Ok(count.max(3))
    }

    fn shards(&self, defaults: &Config) -> Result<u16, ConfigError> {
        let count = self.number("ringkeeper.shards", defaults.shards)?;
        match self.text("ringkeeper.shards") {
            Some(_) if !(1..=SHARDS_MAX).contains(&count) => {
                Err(self.wrong("ringkeeper.shards", &format!("must be in 1..={SHARDS_MAX}")))
            }
            _ => Ok(count),
        }
    }

    fn jute_maxbuffer(&self) -> Result<usize, ConfigError> {
        let bytes = self.number("jute.maxbuffer", FRAME_BYTES_MAX_DEFAULT)?;
        if FRAME_BYTES_HARD_MAX < bytes {
            let what = format!("must be at most {FRAME_BYTES_HARD_MAX}");
            return Err(self.wrong("jute.maxbuffer", &what));
        }
        Ok(bytes)
    }

    /// -1 and 0 switch it off.
    fn large_request_threshold(&self) -> Result<Option<usize>, ConfigError> {
        let threshold: i64 = self.number("largeRequestThreshold", -1)?;
        Ok(usize::try_from(threshold).ok().filter(|threshold| *threshold != 0))
    }

    fn pin(&self) -> Result<Pin, ConfigError> {
        match self.text("ringkeeper.pin") {
            None | Some("auto") => Ok(Pin::Auto),
            Some("off") => Ok(Pin::Off),
            Some(list) => {
                let cores: Result<Vec<usize>, _> =
                    list.split(',').map(|core| core.trim().parse()).collect();
                let cores = cores.map_err(|_| {
                    self.wrong("ringkeeper.pin", "must be auto, off, or cores such as 0,2,4")
                })?;
                Ok(Pin::Cores(cores))
            }
        }
    }

    fn spin_micros(&self) -> Result<Option<u64>, ConfigError> {
        if self.text("ringkeeper.spinMicros").is_none() {
            return Ok(None);
        }
        let micros = self.number("ringkeeper.spinMicros", 0)?;
        if micros <= 1_000 {
            Ok(Some(micros))
        } else {
            Err(self.wrong("ringkeeper.spinMicros", "must be in 0..=1000"))
        }
    }

    fn io_memory_kb(&self, defaults: &Config) -> Result<u32, ConfigError> {
        let kb = self.number("ringkeeper.ioMemoryKb", defaults.io_memory_kb)?;
        if (512..=16_384).contains(&kb) {
            Ok(kb)
        } else {
            Err(self.wrong("ringkeeper.ioMemoryKb", "must be in 512..=16384"))
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Property> {
        let found = self.known.iter().rev().find(|(key, _)| key.names.first() == Some(&name));
        found.map(|(_, property)| property)
    }

    /// Every property of a family of keys.
    pub(super) fn family(&self, prefix: &str) -> impl Iterator<Item = &Property> {
        let of_it = move |(key, _): &&(&Key, Property)| key.names.first() == Some(&prefix);
        self.known.iter().filter(of_it).map(|(_, property)| property)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|property| property.value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| {
            self.wrong(name, &format!("{text:?} is not a number in the range of this key"))
        })
    }

    /// -1 is the default.
    fn bound(&self, name: &str, default: i32) -> Result<i32, ConfigError> {
        match self.number(name, -1)? {
            -1 => Ok(default),
            given if 0 < given => Ok(given),
            _ => Err(self.wrong(name, "must be positive, or -1 for the default")),
        }
    }

    /// Apache's parser knows these: anything but `true` or `false` is refused.
    pub(super) fn boolean(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        match self.text(name) {
            None => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    /// Apache reads these as Java properties: all but `true` is false.
    pub(super) fn lenient_true(&self, name: &str, default: bool) -> bool {
        self.text(name).map_or(default, |text| text.eq_ignore_ascii_case("true"))
    }

    pub(super) fn wrong(&self, name: &str, what: &str) -> ConfigError {
        match self.get(name) {
            Some(property) => self.wrong_property(property, what),
            None => self.wrong_property(
                &Property { line: 0, key: name.to_owned(), value: String::new() },
                what,
            ),
        }
    }

    pub(super) fn warning(&self, name: &str, what: &str) -> ConfigWarning {
        ConfigWarning(self.wrong(name, what).to_string())
    }

    pub(super) fn wrong_property(&self, property: &Property, what: &str) -> ConfigError {
        ConfigError {
            file: self.file.to_owned(),
            line: property.line,
            key: property.key.clone(),
            what: what.to_owned(),
        }
    }

    pub(super) fn missing(&self, name: &str, meaning: &str) -> ConfigError {
        let what = format!("is missing; write {name}=..., {meaning}");
        ConfigError { file: self.file.to_owned(), line: 0, key: name.to_owned(), what }
    }
}

/// Whether two hosts are certainly not one: names may stand for any address.
fn differ(address: Option<&str>, other: &str) -> bool {
    let address = address.and_then(|address| address.parse::<IpAddr>().ok());
    match (address, other.parse::<IpAddr>()) {
        (Some(address), Ok(other)) => !address.is_unspecified() && address != other,
        _ => false,
    }
}
