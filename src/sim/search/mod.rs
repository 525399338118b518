//! The second oracle, for small histories: is there an order of what clients did that explains all
//! they were told? It knows nothing of the log nor of the first oracle ([`super::replay`]), which
//! takes the log's order for granted; what it knows is what clients saw, and when.
//!
//! An order explains a history if
//!
//! - every answer, stats included, is what a sequential tree makes of the requests in that order;
//! - writes and syncs come behind everything that any client had received when they were sent, and
//!   before everything that was sent when they had been answered (they are linearizable);
//! - a connection's requests keep their order, and reads come behind all that their session had
//!   seen when they were sent;
//! - a write without an answer is anywhere behind its sending, or nowhere;
//! - a watch left by a read fires at the first change behind it, once, and its event comes behind
//!   the answers that precede the change and before the others;
//! - zxids rise with the order.
//!
//! The search goes depth first over how much of each connection is explained, and remembers where
//! it has been, as Wing and Gong's does with Lowe's memory.

mod story;
#[cfg(test)]
mod tale;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use self::story::{Ask, Item, Op, OpId, Story, Told};
use self::tree::{Change, Tree, WatchOn};
use super::history::History;
use super::world::Failure;
use crate::model::{ErrorCode, EventType, Stat, Zxid};

/// States that a search visits at most.
const STATES_MAX: usize = 200_000;

/// How much zxids say of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zxids {
    /// The order of all answers.
    OfAll,
    /// The order of each connection's answers: whether values alone betray a bug.
    #[cfg(test)]
    OfEachConnection,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An order.
    Explained,
    /// There is none; this is where the longest attempts end.
    Contradiction(String),
    /// The history is too long, or has requests of other kinds.
    Undecided(String),
}

/// Judges a small history by all that clients saw.
pub(super) fn check(history: &History) -> Result<(), Failure> {
    match search(history, Zxids::OfAll) {
        Verdict::Explained => Ok(()),
        Verdict::Contradiction(why) => Err(Failure::new(format!("no order explains it: {why}"))),
        Verdict::Undecided(why) => Err(Failure::new(format!("the search gives up: {why}"))),
    }
}

/// Searches for an order.
pub(super) fn search(history: &History, zxids: Zxids) -> Verdict {
    let story = match Story::of(history) {
        Ok(story) => story,
        Err(verdict) => return verdict,
    };
    let mut visited = BTreeSet::new();
    let mut stack = vec![State::new(&story)];
    let mut furthest = (0, String::new());
    while let Some(state) = stack.pop() {
        if state.explains(&story) {
            return Verdict::Explained;
        }
        if STATES_MAX <= visited.len() {
            return Verdict::Undecided(format!("{STATES_MAX} states"));
        }
        if !visited.insert(state.clone()) {
            continue;
        }
        // Last in, first out: answered requests are tried before those without an answer.
        let unsure = state.unsure(&story).filter_map(|op| state.with(&story, op, zxids).ok());
        stack.extend(unsure);
        let (mut stuck, before) = (Vec::new(), stack.len());
        for op in state.told(&story) {
            match state.with(&story, op, zxids) {
                Ok(next) => stack.push(next),
                Err(why) => stuck.push(format!("{:?}: {why}", story.ops[op].ask)),
            }
        }
        let explained = 1 + state.places.iter().map(|place| place.explained).sum::<usize>();
        if before == stack.len() && furthest.0 < explained {
            furthest = (explained, stuck.join("; "));
        }
    }
    let (explained, stuck) = furthest;
    let explained = explained.saturating_sub(1);
    Verdict::Contradiction(format!("{explained} answers and events, then {stuck}"))
}

/// How far an order has come, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// Of each connection.
    places: Vec<Place>,
    tree: Tree,
    /// Zxids of writes without answers, known from what was read later.
    guessed: BTreeMap<OpId, Zxid>,
    /// The highest zxid of the answers explained so far.
    floor: Zxid,
}

/// How far the order has come with a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// How much of what it received is explained.
    explained: usize,
    /// How many of its writes without answers have happened.
    unsure: usize,
    watches: BTreeSet<(WatchOn, String)>,
}

impl State {
    fn new(story: &Story) -> Self {
        Self {
            places: vec![Place::default(); story.conns.len()],
            tree: Tree::default(),
            guessed: BTreeMap::new(),
            floor: Zxid::ZERO,
        }
    }

    fn explains(&self, story: &Story) -> bool {
        let mut all = self.places.iter().zip(&story.conns);
        all.all(|(place, conn)| place.explained == conn.items.len())
    }

    /// Writes without answers that may come next: the first of each connection with no answer due.
    fn unsure(&self, story: &Story) -> impl Iterator<Item = OpId> {
        let all = self.places.iter().zip(&story.conns);
        all.filter(|(place, conn)| conn.answers_end <= place.explained)
            .filter_map(|(place, conn)| conn.unsure.get(place.unsure).copied())
    }

    /// The requests whose answers come next.
    fn told(&self, story: &Story) -> impl Iterator<Item = OpId> {
        let all = self.places.iter().zip(&story.conns);
        all.filter_map(|(place, conn)| {
            conn.items.iter().skip(place.explained).find_map(|item| match item {
                Item::Told(op) => Some(*op),
                Item::Event(..) => None,
            })
        })
    }

    /// The order goes on with this request.
    fn with(&self, story: &Story, id: OpId, zxids: Zxids) -> Result<Self, String> {
        let op = &story.ops[id];
        let mut behind = self.places.iter().zip(&op.behind);
        if behind.any(|(place, behind)| place.explained < *behind) {
            return Err("it was sent when more had been received".to_owned());
        }
        let mut next = self.clone();
        if op.ask.is_write() {
            next.write(story, id)?;
        } else if let Some(told) = &op.told {
            next.read(story, op, told)?;
        }
        let place = &mut next.places[op.conn];
        let Some(told) = &op.told else {
            place.unsure += 1;
            return Ok(next);
        };
        match story.conns[op.conn].items.get(place.explained) {
            Some(Item::Told(due)) if *due == id => place.explained += 1,
            other => return Err(format!("{other:?} came before its answer")),
        }
        if zxids == Zxids::OfAll && !matches!(op.ask, Ask::Nothing) {
            if told.zxid < self.floor || (op.ask.is_write() && told.zxid == self.floor) {
                return Err(format!("its zxid is {}, {} was before it", told.zxid, self.floor));
            }
            next.floor = told.zxid;
        }
        Ok(next)
    }

    fn write(&mut self, story: &Story, id: OpId) -> Result<(), String> {
        let op = &story.ops[id];
        let done = self.tree.write(id, &op.ask);
        for conn in 0..self.places.len() {
            self.notify(story, conn, id, &done.changes)?;
        }
        let Some(told) = &op.told else { return Ok(()) };
        same("its code", &told.code, &done.code)?;
        if let Some(path) = &told.path {
            same("its path", path, &done.path)?;
        }
        match &told.stat {
            Some(stat) => self.shows(story, &done.path, stat),
            None => Ok(()),
        }
    }

    /// A connection's watches that fire: their events come next, or nothing comes any more.
    fn notify(
        &mut self,
        story: &Story,
        conn: usize,
        by: OpId,
        changes: &[Change],
    ) -> Result<(), String> {
        let place = &mut self.places[conn];
        let mut due: BTreeSet<(EventType, &str)> = BTreeSet::new();
        for change in changes {
            if place.watches.remove(&(change.on, change.path.clone())) {
                due.insert((change.event, &change.path));
            }
        }
        while !due.is_empty() {
            let place = &mut self.places[conn];
            match story.conns[conn].items.get(place.explained) {
                None => return Ok(()),
                Some(Item::Event(zxid, event))
                    if due.remove(&(event.event_type, event.path.as_str())) =>
                {
                    place.explained += 1;
                    self.has_zxid(story, by, *zxid)?;
                }
                Some(other) => return Err(format!("{due:?} is due, but {other:?} came")),
            }
        }
        Ok(())
    }

    fn read(&mut self, story: &Story, op: &Op, told: &Told) -> Result<(), String> {
        let (path, watch, on) = match &op.ask {
            Ask::Nothing => return Ok(()),
            Ask::Sync { path } => {
                same("its code", &told.code, &ErrorCode::OK)?;
                return same("its path", &told.path.as_ref(), &Some(path));
            }
            Ask::Exists { path, watch } | Ask::Data { path, watch } => {
                (path, *watch, WatchOn::Data)
            }
            Ask::Children { path, watch } => (path, *watch, WatchOn::Children),
            other => return Err(format!("{other:?} is no read")),
        };
        let node = self.tree.get(path);
        let code = if node.is_some() { ErrorCode::OK } else { ErrorCode::NO_NODE };
        same("its code", &told.code, &code)?;
        if let Some(node) = node {
            match op.ask {
                Ask::Data { .. } => same("its data", &told.data, &node.data)?,
                Ask::Children { .. } => {
                    same("its children", &told.children, &self.tree.children(path))?;
                }
                _ => {}
            }
        }
        if watch && (code == ErrorCode::OK || matches!(op.ask, Ask::Exists { .. })) {
            self.places[op.conn].watches.insert((on, path.clone()));
        }
        match &told.stat {
            Some(stat) => self.shows(story, path, stat),
            None => Ok(()),
        }
    }

    /// Whether a stat is that of the znode at this path.
    fn shows(&mut self, story: &Story, path: &str, stat: &Stat) -> Result<(), String> {
        let Some(node) = self.tree.get(path).cloned() else {
            return Err(format!("a stat of {path}, which is not there"));
        };
        let length = node.data.as_ref().map_or(0, |data| data.len());
        let count = self.tree.children(path).len();
        let expected = Stat {
            version: node.version,
            cversion: node.births + node.deaths,
            aversion: 0,
            ephemeral_owner: 0,
            data_length: i32::try_from(length).unwrap_or(i32::MAX),
            num_children: i32::try_from(count).unwrap_or(i32::MAX),
            // Times are compared among answers; zxids here behind.
            ..*stat
        };
        same("its stat", stat, &expected)?;
        self.has_zxid(story, node.created, stat.czxid)?;
        self.has_zxid(story, node.modified, stat.mzxid)?;
        self.has_zxid(story, node.children_changed, stat.pzxid)
    }

    /// Whether a write can have this zxid; of one without an answer, it has it from now on.
    fn has_zxid(&mut self, story: &Story, id: OpId, zxid: Zxid) -> Result<(), String> {
        if let Some(told) = &story.ops[id].told {
            return same("a zxid", &zxid, &told.zxid);
        }
        let anothers = self.guessed.iter().any(|(other, it)| *it == zxid && *other != id);
        if anothers || story.answered.contains_key(&zxid) {
            return Err(format!("{zxid} is another write's"));
        }
        same("a zxid", &zxid, self.guessed.entry(id).or_insert(zxid))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: &T, must: &T) -> Result<(), String> {
    match is == must {
        true => Ok(()),
        false => Err(format!("{what} is {is:?}, not {must:?}")),
    }
}
