//! Layer 0: ZooKeeper's words as types. Knows nothing of bytes on a wire, time source or files.

pub mod acl;
pub mod code;
pub mod digest;
pub mod ensemble;
pub mod event;
pub mod ids;
pub mod path;
pub mod quorum;
pub mod request;
pub mod stat;
pub mod txn;
pub mod vote;
pub mod zxid;

pub use acl::{Acl, Id, Perms};
pub use code::ErrorCode;
pub use digest::DigestAlgorithm;
pub use ensemble::{
    ClientAddress, EnsembleConfig, LearnerType, LocalSessions, Member, ServerAddress, ServerId,
};
pub use event::{EventType, WatchEvent};
pub use ids::{ConnId, Generation, SessionId, ShardId, Xid};
pub use quorum::{EnsembleConfigs, QuorumRule};
pub use request::{CreateKind, CreateRequest, ReadRequest, ReconfigRequest, Request, WriteRequest};
pub use stat::{EphemeralOwner, ExtendedTypes, Stat, StatPersisted};
pub use txn::{CreateTxn, CreateTxnKind, Txn, TxnBody, TxnHeader};
pub use vote::{ServerState, Vote};
pub use zxid::Zxid;
