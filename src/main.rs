//! The server program: reads its arguments and configuration, runs the shell, and turns the
//! outcome into an exit code.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ringkeeper::apache::Compression;
use ringkeeper::auth::AuthConfig;
use ringkeeper::base::Duration;
use ringkeeper::config::{Config, Ensemble, Throttle};
use ringkeeper::limits;
use ringkeeper::model::ClientAddress;
use ringkeeper::server::audit;
use ringkeeper::server::export::Sections;
use ringkeeper::server::{
    ConnectionThrottleConfig, EnsembleOptions, HistorySlices, LargeRequests, Reaping,
    RequestThrottle, ServerOptions, SessionWeights, Slices, WordsAllowed,
};
use ringkeeper::shell::{self, ExportSettings, Outcome, PeerSettings, Settings, StartError};
use ringkeeper::trial::{self, Trial, TrialError};
use ringkeeper::wire::vote::ElectionAddress;
use ringkeeper::zab::leader::EpochZxids;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

#[cfg(test)]
mod settings_tests;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: ringkeeper [zoo.cfg] | PORT DATADIR [tickTime] [maxClientCnxns]
       ringkeeper export DATADIR|zoo.cfg OUT
       ringkeeper trial [--servers N] [--data-dir DIR] [--port PORT]
without arguments it serves on 127.0.0.1:2181 from ./data";

/// Writes an Apache data directory (dataDir of a server of Apache's) from this server's own, which
/// is only read. The server must be stopped.
#[derive(Debug, Parser)]
#[command(name = "ringkeeper export")]
struct ExportArguments {
    /// dataDir, or the configuration file that names dataDir and dataLogDir.
    source: PathBuf,
    /// The directory to make; if it is there, it must be empty.
    out: PathBuf,
    /// Compresses the snapshot.
    #[arg(long, value_enum)]
    compression: Option<CompressionArgument>,
    /// The version of Apache ZooKeeper that is to read it: 3.9 expects one more section.
    #[arg(long, value_enum, default_value = "3.9")]
    apache: ApacheArgument,
    /// For servers with zookeeper.digest.enabled=false, which do not start on a digest.
    #[arg(long)]
    no_digest: bool,
}

/// Starts an ensemble on this machine, for trying out, and stops it on Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "ringkeeper trial")]
struct TrialArguments {
    /// How many servers.
    #[arg(long, default_value_t = 3)]
    servers: u16,
    /// Where their configurations, data and logs are put, each in a directory of its own.
    #[arg(long, default_value = "trial")]
    data_dir: PathBuf,
    /// The first server's client port; the others' follow.
    #[arg(long, default_value_t = 2181)]
    port: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CompressionArgument {
    Gz,
    Snappy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ApacheArgument {
    #[value(name = "3.9")]
    V3_9,
    #[value(name = "3.8")]
    V3_8,
}

/// Connections that may wait to be accepted, unless the configuration says how many.
const LISTEN_BACKLOG: i32 = 1024;

/// Lines of diagnostics that may wait for the terminal; more are dropped and counted.
const LOG_LINES_MAX: usize = 16_384;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag] = arguments.as_slice() {
        match flag.as_str() {
            "--help" | "-h" => return tell(USAGE),
            "--version" | "-V" => return tell(concat!("ringkeeper ", env!("CARGO_PKG_VERSION"))),
            _ => {}
        }
    }
    use_small_pages();
    let _guards = start_logging();
    // A shard that panics must not leave a server that is half alive.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
    if arguments.first().is_some_and(|first| first == "export") {
        return export(ExportArguments::parse_from(arguments));
    }
    if arguments.first().is_some_and(|first| first == "trial") {
        return try_out(TrialArguments::parse_from(arguments));
    }
    let file = Some(&arguments).filter(|it| it.len() == 1).and_then(|it| it.first());
    let settings = match configure(&arguments).and_then(|config| settings(&config, file)) {
        Ok(settings) => settings,
        Err(text) => {
            tracing::error!("{text}");
            return ExitCode::from(2);
        }
    };
    match shell::run(&settings) {
        Ok(Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(Outcome::Halted(halt)) => {
            tracing::error!("{halt}");
            ExitCode::FAILURE
        }
        Ok(Outcome::NotRecovered(error)) => failed(&error),
        Err(error) => {
            if let Some(user) = &settings.server.audit_user {
                audit::server_start(user, false);
            }
            failed(&error)
        }
    }
}

/// The first touch of a huge page takes the kernel some milliseconds where the machine is virtual,
/// and whoever touched it keeps everybody else waiting (`src/docs/performance.md`).
fn use_small_pages() {
    // SAFETY: sets a flag of this process; no pointer is passed. A kernel that does not know it
    // refuses, and then pages are what they were.
    let _known = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
}

/// Lines go through queues to threads. Of diagnostics, those that find their queue full are
/// dropped; the audit log has no gaps, so what is told of waits instead, and `RUST_LOG` does not
/// count.
fn start_logging() -> [WorkerGuard; 2] {
    let queue = |lossy| {
        let queue = NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES_MAX).lossy(lossy);
        queue.finish(std::io::stderr())
    };
    let ((diagnostics, guard), (audit, audit_guard)) = (queue(true), queue(false));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let no_audit = format!("{}=off", audit::TARGET).parse().expect("it is a directive");
    let only_audit = Targets::new().with_target(audit::TARGET, LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(
            fmt::layer()
                .with_writer(diagnostics)
                .with_target(false)
                .with_filter(filter.add_directive(no_audit)),
        )
        .with(fmt::layer().with_writer(audit).with_filter(only_audit))
        .init();
    [guard, audit_guard]
}

fn failed(error: &StartError) -> ExitCode {
    tracing::error!("{error}");
    match error {
        StartError::Directory(_) | StartError::Refused(_) | StartError::NotImported(_) => {
            ExitCode::from(3)
        }
        StartError::PeerPort(_) => ExitCode::from(14),
        StartError::Machine(_) | StartError::Port(_) => ExitCode::FAILURE,
    }
}

fn try_out(arguments: TrialArguments) -> ExitCode {
    let TrialArguments { servers, data_dir, port } = arguments;
    let ended = std::env::current_exe()
        .map_err(|error| TrialError::Io { what: "the program itself".to_owned(), error })
        .and_then(|program| {
            trial::run(Trial { servers, data_dir, port, program }, &mut std::io::stdout())
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                TrialError::Arguments(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn export(arguments: ExportArguments) -> ExitCode {
    let source = if arguments.source.is_dir() {
        let dir = arguments.source;
        Ok(Config { data_log_dir: dir.clone(), data_dir: dir, ..Config::default() })
    } else {
        configure(&[arguments.source.display().to_string()])
    };
    let config = match source {
        Ok(config) => config,
        Err(text) => {
            tracing::error!("{text}");
            return ExitCode::from(2);
        }
    };
    let extended_types = config.extended_types();
    let exported = shell::export(&ExportSettings {
        data_dir: config.data_dir,
        log_dir: config.data_log_dir,
        out: arguments.out,
        compression: match arguments.compression {
            None => Compression::None,
            Some(CompressionArgument::Gz) => Compression::Gzip,
            Some(CompressionArgument::Snappy) => Compression::Snappy,
        },
        sections: Sections {
            digest: !arguments.no_digest,
            last_zxid: arguments.apache == ApacheArgument::V3_9,
        },
        extended_types,
    });
    match exported {
        Ok(exported) => {
            println!(
                "{}: zxid {}, {} znodes, {} sessions, digest {:x}",
                exported.file.display(),
                exported.zxid,
                exported.znode_count,
                exported.session_count,
                exported.digest
            );
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// Prints what was asked for.
fn tell(text: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn configure(arguments: &[String]) -> Result<Config, String> {
    match arguments {
        [] => Ok(Config::default()),
        [file] => {
            let text = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
            let (config, warnings) = Config::parse(&text, file, &shell::read_if_there)
                .map_err(|error| error.to_string())?;
            for warning in warnings {
                tracing::warn!("{}", warning.0);
            }
            Ok(config)
        }
        [port, data_dir, rest @ ..] if rest.len() <= 2 => {
            let number = |text: &String| {
                text.parse::<u32>().map_err(|_| format!("{text:?} is not a number\n{USAGE}"))
            };
            let port = port.parse().map_err(|_| format!("{port:?} is not a port\n{USAGE}"))?;
            let tick = rest.first().map(number).transpose()?;
            let conns = rest.get(1).map(number).transpose()?.map(|count| count as usize);
            Ok(Config::short_form(port, PathBuf::from(data_dir), tick, conns))
        }
        _ => Err(USAGE.to_owned()),
    }
}

/// `file` is where the configuration was read from.
fn settings(config: &Config, file: Option<&String>) -> Result<Settings, String> {
    let changes = config.ensemble.is_some() && config.reconfig_enabled;
    let words = config.words_whitelist.split(',').map(|word| word.trim().to_owned());
    let mut words: Vec<String> = words.collect();
    if config.read_only_mode_enabled {
        words.push("isro".to_owned());
    }
    let all = words.iter().any(|word| word == "*");
    Ok(Settings {
        listen: listen_address(config)?,
        listen_backlog: match config.client_port_listen_backlog {
            -1 => LISTEN_BACKLOG,
            backlog => backlog,
        },
        tcp_keep_alive: config.client_tcp_keep_alive,
        conns_per_address_max: config.max_client_cnxns,
        conns_max: config.max_cnxns,
        data_dir: config.data_dir.clone(),
        log_dir: config.data_log_dir.clone(),
        shards: config.shards,
        pin: config.pin.clone(),
        spin: config.spin_micros.map(std::time::Duration::from_micros),
        io_memory_bytes: config.io_memory_kb as usize * 1024,
        direct_io: config.direct_io,
        config_file: file.filter(|_| changes).map(PathBuf::from),
        backs_up_config: changes && !config.has_dynamic_file,
        peers: config.ensemble.as_ref().map(peers),
        server: ServerOptions {
            tick_ms: config.tick_time_ms,
            session_timeout_ms_min: config.min_session_timeout_ms,
            session_timeout_ms_max: config.max_session_timeout_ms,
            frame_bytes_max: config.jute_maxbuffer,
            txn_bytes_max: config.jute_maxbuffer.saturating_add(config.jute_maxbuffer_extrasize),
            outstanding_requests_max: config.global_outstanding_limit,
            large_requests: LargeRequests {
                threshold: config.large_request_threshold,
                bytes_max: config.large_request_max_bytes,
            },
            request_throttle: RequestThrottle {
                requests_max: config.throttle.max_requests,
                drops_stale: config.throttle.max_requests != 0
                    && config.throttle.drop_stale
                    && config.throttle.stale_latency_check,
                op_wait: Duration::from_millis(config.throttle.throttled_op_wait_time_ms),
            },
            connection_throttle: connection_throttle(&config.throttle),
            auth: AuthConfig {
                super_digest: config.super_digest.clone(),
                digest_enabled: config.digest_auth_enabled,
                digest_algorithm: config.digest_algorithm,
                skip_acl: config.skip_acl,
                eager: config.eager_acl_check,
                ensemble_names: config.ensemble_auth_names.clone(),
                enforced_schemes: config.enforced_auth_schemes.clone(),
            },
            audit_user: config.audit_enable.then(user_name),
            words_allowed: if all { WordsAllowed::All } else { WordsAllowed::Listed(words) },
            reconfig_enabled: config.reconfig_enabled,
            fsync_warning_threshold: Duration::from_millis(config.fsync_warning_threshold_ms),
            extended_types: config.extended_types(),
            enforce_quotas: config.enforce_quota,
            reaping: Reaping {
                every: Duration::from_millis(config.container_check_interval_ms),
                spacing: Duration::from_millis(60_000 / config.container_max_per_minute),
                never_used_ms: config.container_max_never_used_interval_ms,
            },
            digests: config.digest_enabled,
            snap_txn_count: config.snap_count,
            snap_log_bytes: kib(config.snap_size_limit_kb),
            snap_retain_count: config.snap_retain_count,
            segment_bytes: kib(config.pre_alloc_size_kb),
            inflight_bytes_max: limits::PIPELINE_INFLIGHT_BYTES_MAX,
            sessionless_timeout: Duration::from_millis(u64::from(config.sessionless_timeout_ms)),
            server_id: config.ensemble.as_ref().map_or(1, server_id),
            ensemble: config.ensemble.as_ref().map(|ensemble| ensemble_options(config, ensemble)),
            environment: environment(),
            conf_text: conf_text(config),
            slices: Slices::default(),
        },
    })
}

/// So many KiB in bytes, and no more than can be added up with others.
fn kib(count: u64) -> u64 {
    count.saturating_mul(1024).min(i64::MAX.cast_unsigned())
}

/// The top byte of session ids.
fn server_id(ensemble: &Ensemble) -> u8 {
    u8::try_from(ensemble.me.0).expect("parsing has seen to its range")
}

fn peers(ensemble: &Ensemble) -> PeerSettings {
    let on_all_ips = ensemble.listens_on_all_ips;
    PeerSettings {
        listen: PeerSettings::ports(&ensemble.own().addresses, on_all_ips),
        bind_tries: ensemble.bind_tries,
        on_all_ips,
        tcp_keep_alive: ensemble.tcp_keep_alive,
    }
}

fn ensemble_options(config: &Config, ensemble: &Ensemble) -> EnsembleOptions {
    let own = ensemble.own().addresses.first().expect("every member has an address");
    EnsembleOptions {
        me: ensemble.me,
        configs: ensemble.configs.clone(),
        election_address: ElectionAddress { host: own.host.clone(), port: own.election_port },
        tick: Duration::from_millis(u64::from(config.tick_time_ms)),
        init_limit: ensemble.init_limit,
        sync_limit: ensemble.sync_limit,
        ping_every: Duration::from_millis(ensemble.ping_ms),
        detect: Duration::from_millis(ensemble.detect_ms),
        connect_within: Duration::from_millis(ensemble.connection_timeout_ms),
        adopts_configs: config.reconfig_enabled,
        trusts_empty: ensemble.trusts_empty,
        local_sessions: ensemble.local_sessions,
        read_only_after: config.read_only_mode_enabled.then(|| {
            let tick = Duration::from_millis(u64::from(config.tick_time_ms));
            tick.max(limits::READ_ONLY_AFTER_MIN)
        }),
        rules: ensemble.rules,
        client: ClientAddress {
            host: config.client_port_address.clone().unwrap_or_else(|| "0.0.0.0".to_owned()),
            port: config.client_port,
        },
        history: HistorySlices::default(),
        zxids: EpochZxids::renewed_at(ensemble.epoch_txns),
    }
}

fn connection_throttle(keys: &Throttle) -> ConnectionThrottleConfig {
    ConnectionThrottleConfig {
        tokens: keys.tokens,
        fill_time_ms: keys.fill_time_ms,
        fill_count: keys.fill_count,
        freeze_time_ms: keys.freeze_time_ms,
        drop_increase: keys.drop_increase,
        drop_decrease: keys.drop_decrease,
        decrease_ratio: keys.decrease_ratio,
        weights: keys.weight_enabled.then_some(SessionWeights {
            global: keys.global_session_weight,
            renew: keys.renew_session_weight,
            local: keys.local_session_weight,
        }),
    }
}

fn listen_address(config: &Config) -> Result<SocketAddr, String> {
    let host = config.client_port_address.as_deref().unwrap_or("0.0.0.0");
    shell::listen_address(host, config.client_port)
        .map_err(|error| format!("clientPortAddress: {host}: {error}"))
}

/// The name of the user that this process runs as, or the number of one that has no name.
fn user_name() -> String {
    let uid = std::fs::metadata("/proc/self").map(|process| process.uid());
    let uid = uid.unwrap_or_default().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut accounts = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let name = accounts.find(|fields| fields.get(2) == Some(&uid.as_str()));
    name.and_then(|fields| fields.first().map(|name| (*name).to_owned())).unwrap_or(uid)
}

/// What the word `envi` tells of this machine.
fn environment() -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let variable = |name: &str| std::env::var(name).ok();
    let directory = std::env::current_dir().ok().map(|path| path.display().to_string());
    [
        ("host.name", read("/proc/sys/kernel/hostname")),
        ("java.io.tmpdir", Some(std::env::temp_dir().display().to_string())),
        ("os.name", Some("Linux".to_owned())),
        ("os.arch", Some(std::env::consts::ARCH.replace("x86_64", "amd64"))),
        ("os.version", read("/proc/sys/kernel/osrelease")),
        ("user.name", Some(user_name())),
        ("user.home", variable("HOME")),
        ("user.dir", directory),
    ]
    .into_iter()
    .filter_map(|(key, value)| value.map(|value| (key, value)))
    .collect()
}

/// What the word `conf` prints; the directory sizes are not part of the configuration.
fn conf_text(config: &Config) -> String {
    let absolute = |path: &PathBuf| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        path.join("version-2").display().to_string()
    };
    [
        format!("clientPort={}", config.client_port),
        "secureClientPort=-1".to_owned(),
        format!("dataDir={}", absolute(&config.data_dir)),
        "dataDirSize=0".to_owned(),
        format!("dataLogDir={}", absolute(&config.data_log_dir)),
        "dataLogSize=0".to_owned(),
        format!("tickTime={}", config.tick_time_ms),
        format!("maxClientCnxns={}", config.max_client_cnxns),
        format!("minSessionTimeout={}", config.min_session_timeout_ms),
        format!("maxSessionTimeout={}", config.max_session_timeout_ms),
        format!("clientPortListenBacklog={}", config.client_port_listen_backlog),
        format!("serverId={}", config.ensemble.as_ref().map_or(0, server_id)),
    ]
    .map(|line| line + "\n")
    .concat()
}
