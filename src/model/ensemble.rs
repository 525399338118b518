//! The ensemble: who its members are, where they listen, and what each may do.
//!
//! Text of a configuration is read and written by `config::ensemble`; quorums are in
//! [`quorum`](super::quorum).

use std::collections::BTreeMap;
use std::fmt;

use super::QuorumRule;

/// A server's number (sid), as its `myid` file and the `server.N` lines give it. Signed as on the
/// wire: connections of servers without a number get negative ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub i64);

impl ServerId {
    /// What a server that may not lead writes into its vote for itself.
    pub const NONE: Self = Self(i64::MIN);
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Whether new sessions are local: known to the server alone that they began at, and in no txn
/// (`localSessionsEnabled`, `localSessionsUpgradingEnabled`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalSessions {
    /// Every session is global.
    #[default]
    Off,
    /// They are, and cannot own ephemerals.
    WithoutEphemerals,
    /// They are, until they want to own an ephemeral.
    Upgradable,
}

/// What a member of a configuration is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LearnerType {
    /// It votes.
    #[default]
    Participant,
    /// It hears of what was decided.
    Observer,
}

/// One place where a member listens for the other servers. The host is a name or an IP address
/// (IPv6 without brackets), resolved anew before each connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerAddress {
    /// Name or address.
    pub host: String,
    /// Where a leader listens for learners.
    pub quorum_port: u16,
    /// Where elections are held.
    pub election_port: u16,
}

/// Where a member listens for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// Name or address; `0.0.0.0` when the line gives a port alone.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// At least one, sorted; more than one needs `multiAddress.enabled` on every server.
    pub addresses: Vec<ServerAddress>,
    /// Voter or observer.
    pub learner_type: LearnerType,
    /// The client address if the `server.N` line has one; not the one of `clientPort`.
    pub client: Option<ClientAddress>,
    /// The TLS client address of the line. Only servers of 3.10 and later understand it; earlier
    /// ones refuse the whole line.
    pub secure_client: Option<ClientAddress>,
}

/// One configuration: members, quorum rule and version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnsembleConfig {
    /// All members by sid.
    pub members: BTreeMap<ServerId, Member>,
    /// Which sets of voters may decide.
    pub quorum: QuorumRule,
    /// The zxid of the reconfiguration that made it; 0 for a static list.
    pub version: i64,
}

impl EnsembleConfig {
    /// Servers that vote, ascending.
    pub fn voters(&self) -> impl Iterator<Item = ServerId> + '_ {
        let members = self.members.iter();
        members.filter(|(_, member)| member.learner_type == LearnerType::Participant).map(|m| *m.0)
    }

    /// Whether a server votes.
    #[must_use]
    pub fn is_voter(&self, sid: ServerId) -> bool {
        let member = self.members.get(&sid);
        member.is_some_and(|member| member.learner_type == LearnerType::Participant)
    }
}
