//! Who the members of a simulated ensemble are, and how they change while faults go on: the list
//! that all start with, the administrator who asks for changes, the operator who looks after the
//! configuration files.
//!
//! Servers come as observers or voters, change their roles and ports, go and come again. So that
//! the healed ensemble can go on, whatever configuration is in force has a quorum without those
//! that may be lost for good.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::disk::Crash;
use super::super::world::Failure;
use super::faults::Fault;
use super::{CLIENTS, Event, Member, World};
use crate::base::{Duration, Prng};
use crate::config;
use crate::config::Ensemble;
use crate::model::{
    ClientAddress, EnsembleConfig, LearnerType, Member as ConfigMember, QuorumRule,
    ReconfigRequest, Request, ServerAddress, ServerId, WriteRequest,
};
use crate::server::Server;

/// How long after the faults the operator waits for members to find each other.
const OPERATOR_WAITS: Duration = Duration::from_millis(3_000);

/// What does not change with the members.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// Members come, go and change.
    pub(super) is_dynamic: bool,
    /// The list that all start with.
    pub(super) first: EnsembleConfig,
    /// The group of each server that may become a member, and its weight, in seeds with groups.
    groups: Option<BTreeMap<ServerId, (i64, u32)>>,
    /// While members change, only these may be lost at the end, or damaged.
    pub(super) doomed: Option<usize>,
    pub(super) fragile: Option<usize>,
}

/// The sid of a member.
pub(super) fn sid_of(at: usize) -> ServerId {
    ServerId(i64::try_from(at + 1).unwrap_or_default())
}

/// The member with this sid.
pub(super) fn at_of(sid: ServerId) -> usize {
    usize::try_from(sid.0 - 1).unwrap_or(usize::MAX)
}

/// A server's line, with the `nth` of its ports.
pub(super) fn line(at: usize, learner_type: LearnerType, nth: u16) -> ConfigMember {
    let address = ServerAddress {
        host: format!("s{at}"),
        quorum_port: 2 * nth + 1,
        election_port: 2 * nth + 2,
    };
    let client = ClientAddress { host: "0.0.0.0".to_owned(), port: 2181 + nth };
    ConfigMember {
        addresses: vec![address],
        learner_type,
        client: Some(client),
        secure_client: None,
    }
}

/// Up to three groups of servers, and weights up to three.
pub(super) fn groups(prng: &mut Prng, servers: usize) -> BTreeMap<ServerId, (i64, u32)> {
    let count = 1 + prng.below(3);
    let all = (0..servers).map(|at| {
        let group = i64::try_from(at as u64 % count).unwrap_or_default();
        let weight = u32::try_from(1 + prng.below(3)).unwrap_or_default();
        (sid_of(at), (group, weight))
    });
    all.collect()
}

impl Membership {
    /// An ensemble that starts with so many voters and observers.
    pub(super) fn new(
        voters: usize,
        observers: usize,
        groups: Option<BTreeMap<ServerId, (i64, u32)>>,
    ) -> Self {
        let members = (0..voters + observers).map(|at| {
            let learner_type = match at < voters {
                true => LearnerType::Participant,
                false => LearnerType::Observer,
            };
            (sid_of(at), line(at, learner_type, 0))
        });
        let mut membership = Self { groups, ..Self::default() };
        membership.first = membership.config(members.collect());
        membership
    }

    /// Lets the members change, and chooses which of so many servers may be lost.
    pub(super) fn change(&mut self, prng: &mut Prng, servers: usize) {
        self.is_dynamic = true;
        let mut any = || usize::try_from(prng.below(servers as u64)).ok();
        let (doomed, fragile) = (any(), any());
        self.doomed = doomed;
        if !self.can_spare_those(&self.first) {
            self.doomed = None;
        }
        self.fragile = fragile;
        if !self.can_spare_those(&self.first) {
            self.fragile = None;
        }
    }

    /// These members with the quorum rule of the seed.
    fn config(&self, members: BTreeMap<ServerId, ConfigMember>) -> EnsembleConfig {
        let mut config = EnsembleConfig { members, ..EnsembleConfig::default() };
        if let Some(all) = &self.groups {
            let voters = config.voters().filter_map(|sid| Some((sid, *all.get(&sid)?)));
            let (groups, weights) =
                voters.map(|(sid, (group, weight))| ((sid, group), (sid, weight))).unzip();
            config.quorum = QuorumRule::Hierarchical { groups, weights };
        }
        config
    }

    /// Whether the others are a quorum when those are gone that may go.
    fn can_spare_those(&self, config: &EnsembleConfig) -> bool {
        let spared = [self.doomed, self.fragile];
        config.is_quorum(|sid| !spared.contains(&Some(at_of(sid))))
    }

    /// `zoo.cfg` with this list.
    fn zoo_cfg(&self, config: &EnsembleConfig) -> String {
        let mut text = "dataDir=/d\ntickTime=500\ninitLimit=4\nsyncLimit=2\ncnxTimeout=1000\n\
                        standaloneEnabled=false\n"
            .to_owned();
        if self.is_dynamic {
            text += "reconfigEnabled=true\nskipACL=yes\n";
        }
        for line in config::ensemble::text(config).lines() {
            if !line.starts_with("version=") {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// A list with this server in it. Its own weight must not make it a quorum in its own eyes.
    fn with_itself(
        &self,
        config: &EnsembleConfig,
        at: usize,
        learner_type: LearnerType,
    ) -> EnsembleConfig {
        let mut members = config.members.clone();
        let learner_type = match self.groups {
            None => learner_type,
            Some(_) => LearnerType::Observer,
        };
        members.entry(sid_of(at)).or_insert_with(|| line(at, learner_type, 0));
        self.config(members)
    }
}

impl World {
    /// The operator writes what a server starts with: the first members and itself.
    pub(super) fn install(&mut self, at: usize) {
        let membership = &self.membership;
        let list = membership.with_itself(&membership.first, at, LearnerType::Participant);
        let text = membership.zoo_cfg(&list);
        self.member(at).disk.config.write(sid_of(at), &text);
    }

    /// What a server's files tell it. One that was removed does not start (`None`), until the
    /// operator writes a list of the present members and itself.
    pub(super) fn told_by_files(&mut self, at: usize) -> Result<Option<Ensemble>, Failure> {
        let mut parsed = self.member(at).disk.config.parse();
        if parsed.is_err() && self.membership.is_dynamic {
            if !self.healed && self.prng.one_in(2) {
                self.after_micros(600_000, None, Event::Start(at));
                return Ok(None);
            }
            let learner_type = match self.prng.one_in(2) {
                true => LearnerType::Participant,
                false => LearnerType::Observer,
            };
            let list = self.membership.with_itself(&self.in_force(), at, learner_type);
            let text = self.membership.zoo_cfg(&list);
            self.member(at).disk.config.write(sid_of(at), &text);
            parsed = self.member(at).disk.config.parse();
        }
        let config = parsed.map_err(Failure::because)?;
        let ensemble = config.ensemble.ok_or_else(|| Failure::new(format!("{at} is alone")))?;
        Ok(Some(ensemble))
    }

    /// The last configuration that some server has in force.
    pub(super) fn in_force(&self) -> EnsembleConfig {
        let first = self.membership.first.clone();
        if !self.membership.is_dynamic {
            return first;
        }
        let known = self.members.iter().flat_map(|member| [written(member), shown(member)]);
        known.flatten().chain([first]).max_by_key(|config| config.version).unwrap_or_default()
    }

    /// Asks for a change now and then, one at a time.
    pub(super) fn administer(&mut self) -> Result<(), Failure> {
        if self.healed {
            return Ok(());
        }
        self.after_micros(400_000, None, Event::Administer);
        let Some(conn) = self.client(CLIENTS).conn else { return self.connect(CLIENTS) };
        let Some((member, _)) = self.conns.get(&conn).copied() else { return Ok(()) };
        let Some(request) = self.wanted() else { return Ok(()) };
        if self.client(CLIENTS).is_idle() && self.inject(Fault::Reconfiguration) {
            self.history.seen = self.member(member).seen;
            let Self { clients, history, .. } = self;
            let request = Request::Write(WriteRequest::Reconfig(request));
            let bytes = clients.get_mut(CLIENTS).and_then(|it| it.ask(request, history));
            if let Some(bytes) = bytes {
                self.send(conn, &bytes);
            }
        }
        Ok(())
    }

    /// What is asked for: one or two servers come, go or change.
    fn wanted(&mut self) -> Option<ReconfigRequest> {
        let current = self.in_force();
        let mut next = current.members.clone();
        for _ in 0..=self.prng.below(2) {
            let at = self.any_member();
            let (role, what) = (self.prng.below(2), self.prng.below(4));
            let role = if role == 0 { LearnerType::Participant } else { LearnerType::Observer };
            match next.get_mut(&sid_of(at)) {
                None => {
                    next.insert(sid_of(at), line(at, role, 0));
                }
                Some(_) if what == 0 => {
                    next.remove(&sid_of(at));
                }
                Some(member) if what == 1 => {
                    let nth = u16::try_from(self.prng.below(3)).unwrap_or_default();
                    *member = line(at, member.learner_type, nth);
                }
                Some(member) => member.learner_type = role,
            }
        }
        let next = self.membership.config(next);
        if !self.membership.can_spare_those(&next) {
            return None;
        }
        let must_name = self.membership.doomed.or(self.membership.fragile).is_some();
        let from_config = match must_name || self.prng.one_in(2) {
            true => current.version,
            false => -1,
        };
        // A server that shows no version yet shows it soon.
        if from_config == 0 {
            return None;
        }
        let text = config::ensemble::text(&next);
        let lines = text.lines().filter(|line| !line.starts_with("version="));
        if self.membership.groups.is_some() || self.prng.one_in(4) {
            let list: Vec<&str> = lines.collect();
            let new_members = Some(list.join(",").as_str().into());
            return Some(ReconfigRequest {
                joining: None,
                leaving: None,
                new_members,
                from_config,
            });
        }
        let before = config::ensemble::text(&current);
        let joining: Vec<&str> =
            lines.filter(|line| !before.lines().any(|it| it == *line)).collect();
        let gone = current.members.keys().filter(|sid| !next.members.contains_key(sid));
        let leaving: Vec<String> = gone.map(ToString::to_string).collect();
        Some(ReconfigRequest {
            joining: Some(joining.join(",").as_str().into()),
            leaving: Some(leaving.join(",").as_str().into()),
            new_members: None,
            from_config,
        })
    }

    /// When the faults are over: looks for members that do not find the others, again and again.
    pub(super) fn operate(&mut self) {
        if self.membership.is_dynamic {
            self.at(self.now + OPERATOR_WAITS, None, Event::Operate);
        }
    }

    /// Members whose lists are so old that nobody is where they look get the present list, as the
    /// operator of an ensemble of Apache's does it.
    pub(super) fn repair(&mut self) {
        self.after_micros(2_000_000, None, Event::Operate);
        let config = self.in_force();
        for at in 0..self.members.len() {
            let member = self.member(at);
            // The list of one that was removed may not name it: its next start would fail.
            let is_outdated = written(member).is_none_or(|own| own.version < config.version);
            let serves = member.server.as_ref().is_some_and(serves);
            if config.members.contains_key(&sid_of(at)) && is_outdated && !serves && !member.is_dead
            {
                self.crash(at, Crash::Kill);
                self.member(at).disk.config.take_over(&config);
                self.report.repaired_lists += 1;
            }
        }
    }

    /// Members that serve know the configuration in force and listen where it says.
    pub(super) fn judge_members(&self, config: &EnsembleConfig) -> Result<(), Failure> {
        for (at, member) in self.members.iter().enumerate() {
            let Some(own) = config.members.get(&sid_of(at)).filter(|_| !member.is_dead) else {
                continue;
            };
            let known = shown(member);
            if self.membership.is_dynamic && known.as_ref() != Some(config) {
                return Err(Failure::new(format!("server {at} shows {known:?}, not {config:?}")));
            }
            if own.addresses != member.ports || own.client != member.client_port {
                let (ports, client) = (&member.ports, &member.client_port);
                return Err(Failure::new(format!(
                    "server {at} listens at {ports:?} and {client:?}, not where {own:?} says"
                )));
            }
        }
        Ok(())
    }
}

/// The configuration in force by a server's files.
fn written(member: &Member) -> Option<EnsembleConfig> {
    let config = member.disk.config.parse().ok()?;
    Some(config.ensemble?.configs.committed)
}

/// Whether clients can write there.
fn serves(server: &Server) -> bool {
    server.mode().is_some_and(|mode| mode != "read-only")
}

/// The configuration that a server with a leader shows. One without may have what was never
/// committed in its tree.
fn shown(member: &Member) -> Option<EnsembleConfig> {
    let server = member.server.as_ref().filter(|server| serves(server))?;
    let text = std::str::from_utf8(server.tree().config()?).ok()?;
    config::ensemble::parse(text, "/zookeeper/config").ok()
}
