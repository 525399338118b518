//! Layer 1: `zoo.cfg` as text in, typed configuration or a located error out. Reads no files and
//! no environment.
//!
//! Known keys are one table ([`keys`]); `properties` is the syntax of the file. A key may be spelt
//! as Apache's documentation or as Apache's parser spells it, and those that Apache takes from
//! `-D` flags only are taken from the file as well.

pub mod dynamic;
pub mod ensemble;
pub mod keys;
mod membership;
#[cfg(test)]
mod membership_tests;
pub mod properties;
pub mod reconfig;
mod security;
mod throttle;
mod values;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use membership::{Ensemble, ReadFile};

use keys::Status;
use properties::Property;
use values::Values;

use crate::model::{DigestAlgorithm, ExtendedTypes};

/// The configuration of one server.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each field is the key of its name in the key table")]
pub struct Config {
    pub data_dir: PathBuf,
    pub data_log_dir: PathBuf,
    pub client_port: u16,
    /// `None`: every address.
    pub client_port_address: Option<String>,
    /// -1: as long as usual.
    pub client_port_listen_backlog: i32,
    pub tick_time_ms: u32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub max_client_cnxns: usize,
    pub max_cnxns: usize,
    /// `*` or names.
    pub words_whitelist: String,
    pub snap_count: u64,
    pub snap_size_limit_kb: u64,
    pub pre_alloc_size_kb: u64,
    pub snap_retain_count: usize,
    pub jute_maxbuffer: usize,
    /// Added to `jute_maxbuffer` for what the server itself makes.
    pub jute_maxbuffer_extrasize: usize,
    pub global_outstanding_limit: usize,
    /// `None`: off.
    pub large_request_threshold: Option<usize>,
    pub large_request_max_bytes: usize,
    pub throttle: Throttle,
    pub extended_types_enabled: bool,
    /// `emulate353TTLNodes`.
    pub emulate_353_ttl_nodes: bool,
    pub container_check_interval_ms: u64,
    pub container_max_per_minute: u64,
    pub container_max_never_used_interval_ms: i64,
    pub enforce_quota: bool,
    pub audit_enable: bool,
    pub digest_enabled: bool,
    pub skip_acl: bool,
    /// `enableEagerACLCheck`.
    pub eager_acl_check: bool,
    pub super_digest: Option<String>,
    pub digest_auth_enabled: bool,
    pub digest_algorithm: DigestAlgorithm,
    /// Those of `enforce.auth.schemes` if `enforce.auth.enabled`; else none.
    pub enforced_auth_schemes: Vec<String>,
    /// `ensembleAuthName` if the provider is listed as an `authProvider.`; `None` without it.
    pub ensemble_auth_names: Option<Vec<String>>,
    pub reconfig_enabled: bool,
    /// `dynamicConfigFile` names the file of the ensemble's members.
    pub has_dynamic_file: bool,
    pub read_only_mode_enabled: bool,
    pub fsync_warning_threshold_ms: u64,
    pub client_tcp_keep_alive: bool,
    pub sessionless_timeout_ms: u32,
    /// `ringkeeper.shards`; 0 is one for each core of the process, up to four.
    pub shards: u16,
    /// `ringkeeper.pin`.
    pub pin: Pin,
    /// `ringkeeper.spinMicros`: how long a shard with a core of its own looks before it sleeps.
    pub spin_micros: Option<u64>,
    /// `ringkeeper.ioMemoryKb`.
    pub io_memory_kb: u32,
    /// `ringkeeper.directIo`: whether log writes go past the page cache where the file system can.
    pub direct_io: bool,
    /// `None`: standalone.
    pub ensemble: Option<Ensemble>,
}

/// `connection_throttle_*`, `request_throttle_*`, `request_stale_*` and `throttled_op_wait_time`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each field is the key of its name in the key table")]
pub struct Throttle {
    pub tokens: u64,
    pub fill_time_ms: u64,
    pub fill_count: u64,
    pub freeze_time_ms: i64,
    pub drop_increase: f64,
    pub drop_decrease: f64,
    pub decrease_ratio: f64,
    pub weight_enabled: bool,
    pub global_session_weight: u64,
    pub renew_session_weight: u64,
    pub local_session_weight: u64,
    pub max_requests: usize,
    pub drop_stale: bool,
    pub stale_latency_check: bool,
    pub throttled_op_wait_time_ms: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            tokens: 0,
            fill_time_ms: 1,
            fill_count: 1,
            freeze_time_ms: -1,
            drop_increase: 0.02,
            drop_decrease: 0.002,
            decrease_ratio: 0.0,
            weight_enabled: false,
            global_session_weight: 3,
            renew_session_weight: 2,
            local_session_weight: 1,
            max_requests: 0,
            drop_stale: true,
            stale_latency_check: false,
            throttled_op_wait_time_ms: 0,
        }
    }
}

/// Where the shards' executors run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Each on a core of its own if the process has as many, else anywhere.
    Auto,
    /// Anywhere.
    Off,
    /// Shard by shard on these cores.
    Cores(Vec<usize>),
}

/// What an operator should hear although the server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning(pub String);

/// A configuration that the server does not start with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {key}: {what}", at_line(*.line))]
pub struct ConfigError {
    /// The file's name as given.
    pub file: String,
    /// Line of the key, from 1; 0 if a key is missing.
    pub line: usize,
    /// The key.
    pub key: String,
    /// What is wrong and what to write instead.
    pub what: String,
}

/// Behind a file's name; nothing where no line is meant.
fn at_line(line: usize) -> String {
    if line == 0 { String::new() } else { format!(":{line}") }
}

impl Default for Config {
    /// What `ringkeeper` without arguments serves: 127.0.0.1:2181 from `./data`.
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            data_log_dir: PathBuf::from("data"),
            client_port: 2181,
            client_port_address: Some("127.0.0.1".to_owned()),
            client_port_listen_backlog: -1,
            tick_time_ms: 3000,
            min_session_timeout_ms: 6000,
            max_session_timeout_ms: 60_000,
            max_client_cnxns: 60,
            max_cnxns: 0,
            words_whitelist: "srvr".to_owned(),
            snap_count: 100_000,
            snap_size_limit_kb: 4_194_304,
            pre_alloc_size_kb: 65_536,
            snap_retain_count: 3,
            jute_maxbuffer: crate::limits::FRAME_BYTES_MAX_DEFAULT,
            jute_maxbuffer_extrasize: crate::limits::FRAME_BYTES_MAX_DEFAULT,
            global_outstanding_limit: 1000,
            large_request_threshold: None,
            large_request_max_bytes: 100 << 20,
            throttle: Throttle::default(),
            extended_types_enabled: false,
            emulate_353_ttl_nodes: false,
            container_check_interval_ms: 60_000,
            container_max_per_minute: 10_000,
            container_max_never_used_interval_ms: 0,
            enforce_quota: false,
            audit_enable: false,
            digest_enabled: true,
            skip_acl: false,
            eager_acl_check: false,
            super_digest: None,
            digest_auth_enabled: true,
            digest_algorithm: DigestAlgorithm::Sha1,
            enforced_auth_schemes: Vec::new(),
            ensemble_auth_names: None,
            reconfig_enabled: false,
            has_dynamic_file: false,
            read_only_mode_enabled: false,
            fsync_warning_threshold_ms: 1000,
            client_tcp_keep_alive: false,
            sessionless_timeout_ms: 10_000,
            shards: 0,
            pin: Pin::Auto,
            spin_micros: None,
            io_memory_kb: 1024,
            direct_io: true,
            ensemble: None,
        }
    }
}

impl Config {
    /// Reads the text of a configuration file called `file`, and with `read` the files that it
    /// names.
    pub fn parse(
        text: &[u8],
        file: &str,
        read: ReadFile<'_>,
    ) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        let mut warnings = Vec::new();
        let mut known: Vec<(&'static keys::Key, Property)> = Vec::new();
        for mut property in properties::parse(text) {
            if let Some(bare) = property.key.strip_prefix("zookeeper.") {
                let text = format!(
                    "{file}:{}: {}: write it without `zookeeper.`",
                    property.line, property.key
                );
                property.key = bare.to_owned();
                warnings.push(ConfigWarning(text));
            }
            match keys::find(&property.key) {
                Some(key) => known.push((key, property)),
                None => warnings.push(unknown(file, &property)),
            }
        }
        let values = Values::new(file, known);
        let membership = values.membership(read, &mut warnings)?;
        for (key, property) in &values.known {
            let status = match membership.ensemble {
                Some(_) => key.in_ensemble,
                None => key.alone,
            };
            judge(file, status, property, &mut warnings)?;
        }
        let config = values.into_config(membership, read, &mut warnings)?;
        Ok((config, warnings))
    }

    /// What the two keys of TTL znodes mean together.
    #[must_use]
    pub const fn extended_types(&self) -> ExtendedTypes {
        match (self.extended_types_enabled, self.emulate_353_ttl_nodes) {
            (false, _) => ExtendedTypes::Off,
            (true, false) => ExtendedTypes::On,
            (true, true) => ExtendedTypes::Emulate353,
        }
    }

    /// `ringkeeper PORT DATADIR [tickTime] [maxClientCnxns]`: as Apache's short form, every address
    /// and no limit per address unless given.
    #[must_use]
    pub fn short_form(
        port: u16,
        data_dir: PathBuf,
        tick_time_ms: Option<u32>,
        max_client_cnxns: Option<usize>,
    ) -> Self {
        let tick_time_ms = tick_time_ms.unwrap_or(3000).max(1);
        let ticks =
            |count: u32| i32::try_from(tick_time_ms.saturating_mul(count)).unwrap_or(i32::MAX);
        Self {
            data_log_dir: data_dir.clone(),
            data_dir,
            client_port: port,
            client_port_address: None,
            tick_time_ms,
            min_session_timeout_ms: ticks(2),
            max_session_timeout_ms: ticks(20),
            max_client_cnxns: max_client_cnxns.unwrap_or(0),
            ..Self::default()
        }
    }
}

/// Keys that do nothing are named; keys of features that are not built are refused when they
/// switch the feature on.
fn judge(
    file: &str,
    status: Status,
    property: &Property,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<(), ConfigError> {
    match status {
        Status::Used => Ok(()),
        Status::NoEffect(why) => {
            let Property { line, key, .. } = property;
            warnings.push(ConfigWarning(format!("{file}:{line}: {key}: has no effect: {why}")));
            Ok(())
        }
        Status::NotBuilt { feature, switches_on } if switches_on(&property.value) => {
            Err(ConfigError {
                file: file.to_owned(),
                line: property.line,
                key: property.key.clone(),
                what: format!("{feature} is not built yet; remove the key or switch it off"),
            })
        }
        Status::NotBuilt { .. } => Ok(()),
    }
}

fn unknown(file: &str, property: &Property) -> ConfigWarning {
    let Property { line, key, .. } = property;
    let nearest = keys::nearest(key);
    let hint = nearest.map(|nearest| format!(", did you mean {nearest}?")).unwrap_or_default();
    ConfigWarning(format!("{file}:{line}: {key}: unknown key, ignored{hint}"))
}
