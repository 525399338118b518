//! [`Telling`]: a four-letter word being answered. It gathers what the shards report, a piece at a
//! time, then makes its text in slices. Each line tells of the moment in which it is made, as with
//! Apache's server, which prints such lists while they change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::contract::Clock;
use super::machine::Server;
use super::shard::{ConnStats, Counts, Scope, ShardReport};
use super::words::{self, line};
use crate::base::{Duration, Instant, Str, str_set};
use crate::model::SessionId;
use crate::session::SessionKind;
use crate::wire::word::Word;

/// A word and what is known of its answer.
#[derive(Debug)]
pub(super) struct Telling {
    word: Word,
    counts: Counts,
    /// Connections in the pieces in which they came.
    conns: VecDeque<Vec<(ConnStats, Option<SessionId>)>>,
    /// Watches by path, and by session: whichever the word prints.
    by_path: BTreeSet<(Str, SessionId)>,
    by_session: BTreeSet<(SessionId, Str)>,
    /// Sessions that watch something.
    watching: BTreeSet<SessionId>,
    paths: usize,
    /// Connections of `dump` by the second in which they expire.
    conn_sets: BTreeMap<u64, VecDeque<String>>,
    at: At,
}

/// Where a text that is made in slices has come to.
#[derive(Debug)]
enum At {
    Start,
    /// Lines of connections, paths or sessions.
    Lines,
    /// Paths of this text's group.
    Path(Str),
    Session(SessionId),
    /// `dump`: sessions of a kind up to this one.
    Expiring(SessionKind, Instant, SessionId),
    /// `dump` of a learner: sessions up to this one.
    Global(Option<SessionId>),
    /// `dump`: owners of ephemerals up to this one, and what is left of its paths.
    Owners(Option<SessionId>, Option<str_set::IntoIter>),
    /// `dump`: connections are being put into sets.
    Sorting,
    /// `dump`: lines of the set that comes first.
    Sets {
        in_set: bool,
    },
}

impl Telling {
    pub(super) fn new(word: Word) -> Self {
        Self {
            word,
            counts: Counts::default(),
            conns: VecDeque::new(),
            by_path: BTreeSet::new(),
            by_session: BTreeSet::new(),
            watching: BTreeSet::new(),
            paths: 0,
            conn_sets: BTreeMap::new(),
            at: At::Start,
        }
    }

    /// What shards must report for it; `None` if it tells of none.
    pub(super) const fn scope(&self) -> Option<Scope> {
        match self.word {
            Word::Srvr | Word::Mntr => Some(Scope { conns: false, watches: false }),
            Word::Stat | Word::Cons | Word::Dump => Some(Scope { conns: true, watches: false }),
            Word::Wchs | Word::Wchc | Word::Wchp => Some(Scope { conns: false, watches: true }),
            _ => None,
        }
    }

    /// Takes in a piece of what a shard reports.
    pub(super) fn gather(&mut self, mut report: ShardReport) {
        self.counts.add(&report.counts);
        if !report.conns.is_empty() {
            // They are taken from the end.
            report.conns.reverse();
            self.conns.push_back(report.conns);
        }
        for (path, session) in report.watches {
            match self.word {
                Word::Wchc => {
                    self.by_session.insert((session, path));
                }
                Word::Wchs => {
                    self.watching.insert(session);
                    self.by_path.insert((path, session));
                }
                _ => {
                    self.by_path.insert((path, session));
                }
            }
        }
    }

    /// Appends the next lines, at most about so many; whether the text is whole. Called once all
    /// shards have reported.
    pub(super) fn go_on(
        &mut self,
        server: &Server,
        clock: Clock,
        lines_max: usize,
        text: &mut String,
    ) -> bool {
        match self.word {
            Word::Cons => self.cons(lines_max, text),
            Word::Stat => self.stat(server, lines_max, text),
            Word::Dump => self.dump(server, clock, lines_max, text),
            Word::Wchs => self.wchs(lines_max, text),
            Word::Wchc => self.wchc(lines_max, text),
            Word::Wchp => self.wchp(lines_max, text),
            _ => {
                text.push_str(&words::short(server, self.word, &self.counts, clock));
                true
            }
        }
    }

    fn next_conn(&mut self) -> Option<(ConnStats, Option<SessionId>)> {
        while let Some(piece) = self.conns.front_mut() {
            if let Some(conn) = piece.pop() {
                return Some(conn);
            }
            self.conns.pop_front();
        }
        None
    }

    fn cons(&mut self, lines_max: usize, text: &mut String) -> bool {
        for _ in 0..lines_max {
            let Some((stats, session)) = self.next_conn() else {
                text.push('\n');
                return true;
            };
            text.push_str(&words::conn(&stats, session));
        }
        false
    }

    fn stat(&mut self, server: &Server, lines_max: usize, text: &mut String) -> bool {
        if matches!(self.at, At::Start) {
            self.at = At::Lines;
            text.push_str(&words::stat_head(server));
        }
        for _ in 0..lines_max {
            let Some((stats, _)) = self.next_conn() else {
                text.push('\n');
                text.push_str(&words::stat_tail(server, &self.counts));
                return true;
            };
            line(text, format_args!("{})", words::conn_start(&stats)));
        }
        false
    }

    fn wchs(&mut self, lines_max: usize, text: &mut String) -> bool {
        for _ in 0..lines_max {
            let Some((path, _)) = self.by_path.pop_first() else {
                let (sessions, paths) = (self.watching.len(), self.paths);
                let total = self.counts.data_watches;
                line(text, format_args!("{sessions} connections watching {paths} paths"));
                line(text, format_args!("Total watches:{total}"));
                return true;
            };
            if !matches!(&self.at, At::Path(same) if *same == path) {
                self.paths += 1;
                self.at = At::Path(path);
            }
        }
        false
    }

    fn wchp(&mut self, lines_max: usize, text: &mut String) -> bool {
        for _ in 0..lines_max {
            let Some((path, session)) = self.by_path.pop_first() else {
                text.push('\n');
                return true;
            };
            if !matches!(&self.at, At::Path(same) if *same == path) {
                line(text, format_args!("{path}"));
                self.at = At::Path(path);
            }
            line(text, format_args!("\t{session}"));
        }
        false
    }

    fn wchc(&mut self, lines_max: usize, text: &mut String) -> bool {
        for _ in 0..lines_max {
            let Some((session, path)) = self.by_session.pop_first() else {
                text.push('\n');
                return true;
            };
            if !matches!(self.at, At::Session(same) if same == session) {
                line(text, format_args!("{session}"));
                self.at = At::Session(session);
            }
            line(text, format_args!("\t{path}"));
        }
        false
    }

    fn dump(&mut self, server: &Server, clock: Clock, lines_max: usize, text: &mut String) -> bool {
        for _ in 0..lines_max {
            let next = match std::mem::replace(&mut self.at, At::Start) {
                At::Expiring(kind, at, id) => dump_session(server, clock, (kind, at, id), text),
                At::Global(id) => dump_global(server, id, text),
                At::Owners(owner, paths) => dump_ephemeral(server, owner, paths, text),
                At::Sorting => self.sort_conn(text),
                At::Sets { in_set } => match self.dump_conn(clock, in_set, text) {
                    Some(next) => next,
                    None => return true,
                },
                _ => {
                    text.push_str("SessionTracker dump:\n");
                    match server.has_local_sessions() {
                        true => begin_sets(server, SessionKind::Local, "Local ", text),
                        false => begin_global(server, text),
                    }
                }
            };
            self.at = next;
        }
        false
    }

    fn sort_conn(&mut self, text: &mut String) -> At {
        if let Some((stats, session)) = self.next_conn() {
            let timeout = u64::try_from(stats.timeout_ms).unwrap_or_default();
            let expires = stats.last_response + Duration::from_millis(timeout);
            let session = session.unwrap_or_default();
            let conn = format!("\tip: /{} sessionId: {session}", stats.peer);
            self.conn_sets.entry(expires.as_millis() / 1_000 + 1).or_default().push_back(conn);
            return At::Sorting;
        }
        let counts = (self.conn_sets.len(), self.counts.conns);
        line(text, format_args!("Connections Sets ({})/({}):", counts.0, counts.1));
        At::Sets { in_set: false }
    }

    fn dump_conn(&mut self, clock: Clock, in_set: bool, text: &mut String) -> Option<At> {
        let mut set = self.conn_sets.first_entry()?;
        if !in_set {
            let (expires, count) = (Instant(*set.key() * 1_000_000_000), set.get().len());
            let date = words::date(expires, clock);
            line(text, format_args!("{count} expire at {date}:"));
        }
        if let Some(conn) = set.get_mut().pop_front() {
            line(text, format_args!("{conn}"));
            return Some(At::Sets { in_set: true });
        }
        set.remove();
        Some(At::Sets { in_set: false })
    }
}

fn begin_sets(server: &Server, kind: SessionKind, name: &str, text: &mut String) -> At {
    let sessions = server.sessions();
    let counts = (sessions.expiry_count(kind), sessions.count(kind));
    line(text, format_args!("{name}Session Sets ({})/({}):", counts.0, counts.1));
    At::Expiring(kind, Instant::default(), SessionId(i64::MIN))
}

fn begin_global(server: &Server, text: &mut String) -> At {
    if server.is_learner() {
        let count = server.sessions().count(SessionKind::Global);
        line(text, format_args!("Global Sessions({count}):"));
        return At::Global(None);
    }
    let name = if server.has_local_sessions() { "Global " } else { "" };
    begin_sets(server, SessionKind::Global, name, text)
}

fn dump_session(
    server: &Server,
    clock: Clock,
    (kind, at, id): (SessionKind, Instant, SessionId),
    text: &mut String,
) -> At {
    let Some((expires, next, together)) = server.sessions().expiring_behind(kind, at, id) else {
        return match kind {
            SessionKind::Local => begin_global(server, text),
            SessionKind::Global => begin_ephemerals(server, text),
        };
    };
    if expires != at || id == SessionId(i64::MIN) {
        line(text, format_args!("{together} expire at {}:", words::date(expires, clock)));
    }
    line(text, format_args!("\t{next}"));
    At::Expiring(kind, expires, next)
}

/// A learner does not decide when sessions expire.
fn dump_global(server: &Server, behind: Option<SessionId>, text: &mut String) -> At {
    let Some((id, timeout_ms)) = server.sessions().behind(behind) else {
        return begin_ephemerals(server, text);
    };
    line(text, format_args!("{id}\t{timeout_ms}ms"));
    At::Global(Some(id))
}

fn begin_ephemerals(server: &Server, text: &mut String) -> At {
    text.push_str("ephemeral nodes dump:\n");
    let owners = server.tree().ephemeral_session_count();
    line(text, format_args!("Sessions with Ephemerals ({owners}):"));
    At::Owners(None, None)
}

fn dump_ephemeral(
    server: &Server,
    owner: Option<SessionId>,
    paths: Option<str_set::IntoIter>,
    text: &mut String,
) -> At {
    let mut paths = paths;
    if let Some(path) = paths.as_mut().and_then(Iterator::next) {
        line(text, format_args!("\t{path}"));
        return At::Owners(owner, paths);
    }
    match server.tree().ephemeral_session_behind(owner) {
        Some(next) => {
            line(text, format_args!("{next}:"));
            At::Owners(Some(next), Some(server.tree().ephemerals_now(next).into_iter()))
        }
        None => {
            text.push_str("Connections dump:\n");
            At::Sorting
        }
    }
}
