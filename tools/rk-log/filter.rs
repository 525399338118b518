//! What a dump shows, by path, session, type, zxid and time.

use clap::{Args, ValueEnum};
use ringkeeper::model::{StatPersisted, Txn, TxnBody};

use super::show;
use super::time::{Range, parse_id, parse_id_range, parse_time_range};

/// Everything given must hold.
#[derive(Args)]
pub(crate) struct Filter {
    /// Only what touches this znode or one below it; each operation of a multi is looked at.
    #[arg(long = "path", id = "znode", value_parser = parse_path)]
    path: Option<String>,
    /// With --path: only the znode itself.
    #[arg(long, requires = "znode")]
    exact: bool,
    /// Only txns of this session; in a snapshot, the session and its ephemerals.
    #[arg(long, value_parser = parse_id)]
    session: Option<i64>,
    /// Only txns of these types, named as the dump names them; each operation of a multi is looked
    /// at.
    #[arg(long = "type", value_delimiter = ',', value_parser = parse_type)]
    types: Vec<String>,
    /// Only these zxids; in a snapshot, of the last change. Either end may be left out.
    #[arg(long, value_name = "FROM..TO", value_parser = parse_id_range)]
    zxid: Option<Range>,
    /// Only these times, as 2026-01-31T12:00:00Z or in milliseconds since 1970.
    #[arg(long, value_name = "FROM..TO", value_parser = parse_time_range,
        allow_hyphen_values = true)]
    time: Option<Range>,
    /// How data is shown.
    #[arg(long, default_value = "none")]
    pub(crate) data: DataMode,
}

/// How data is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DataMode {
    /// Only its length.
    None,
    /// As text; what is not UTF-8 as escapes, in JSON as base64.
    Text,
    /// As base64.
    Base64,
}

impl Filter {
    /// Whether a txn is shown.
    pub(crate) fn admits(&self, txn: &Txn) -> bool {
        let Txn { header, body, .. } = txn;
        self.admits_place(header.zxid.0, header.time_ms)
            && self.session.is_none_or(|session| header.session.0 == session)
            && (self.types.is_empty() || any(body, |body| self.names(body)))
            && (self.path.is_none() || any(body, |body| self.touches(body)))
    }

    /// Whether a znode of a snapshot is shown.
    pub(crate) fn admits_znode(&self, path: &str, stat: &StatPersisted) -> bool {
        self.types.is_empty()
            && self.admits_place(stat.mzxid.0, stat.mtime)
            && self.session.is_none_or(|session| stat.ephemeral_owner == session)
            && self.admits_path(path)
    }

    /// Whether a session of a snapshot is shown.
    pub(crate) fn admits_session(&self, id: i64) -> bool {
        let by_session = self.session.is_none_or(|session| id == session);
        let others = self.path.is_none() && self.zxid.is_none() && self.time.is_none();
        by_session && others && self.types.is_empty()
    }

    fn admits_place(&self, zxid: i64, time_ms: i64) -> bool {
        self.zxid.is_none_or(|range| range.holds(zxid))
            && self.time.is_none_or(|range| range.holds(time_ms))
    }

    fn names(&self, body: &TxnBody) -> bool {
        self.types.iter().any(|name| *name == show::type_name(body))
    }

    fn touches(&self, body: &TxnBody) -> bool {
        show::paths_of(body).any(|path| self.admits_path(&path))
    }

    fn admits_path(&self, path: &str) -> bool {
        let Some(wanted) = &self.path else { return true };
        let below = || {
            let rest = path.strip_prefix(wanted.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path == wanted || (!self.exact && below())
    }
}

/// Whether it holds for the txn or for one of a multi's operations.
fn any(body: &TxnBody, holds: impl Fn(&TxnBody) -> bool) -> bool {
    match body {
        TxnBody::Multi(bodies) => holds(body) || bodies.iter().any(holds),
        single => holds(single),
    }
}

fn parse_path(text: &str) -> Result<String, String> {
    match text {
        "/" => Ok(text.to_owned()),
        _ if text.starts_with('/') => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(format!("{text:?} is no path: it must begin with /")),
    }
}

fn parse_type(text: &str) -> Result<String, String> {
    if show::TYPE_NAMES.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is none of {}", show::TYPE_NAMES.join(", ")))
}
