//! Drives a ZooKeeper server through the Rust client of crates.io and prints a normalised
//! transcript.
//!
//! usage: rust_surface PORT

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use zookeeper_client::{
    Acl, Acls, AddWatchMode, AuthId, Client, CreateMode, EnsembleUpdate, LockOptions, LockPrefix,
    MultiReadResult, MultiWriteResult, Permission, PersistentWatcher, SessionState, Stat,
};

fn stat(stat: &Stat) -> String {
    let owned = if stat.ephemeral_owner == 0 { "" } else { " owned" };
    format!(
        "v {},{},{}{owned} l {} n {}",
        stat.version, stat.cversion, stat.aversion, stat.data_length, stat.num_children
    )
}

fn say(label: &str, what: impl Debug) {
    println!("{label}: {what:?}");
}

/// Shows a result; stats are normalised.
fn show<T, E: Debug>(label: &str, result: Result<T, E>, text: impl FnOnce(T) -> String) {
    match result {
        Ok(value) => println!("{label}: {}", text(value)),
        Err(error) => println!("{label}: {error:?}"),
    }
}

fn sorted(mut names: Vec<String>) -> String {
    names.sort();
    format!("{names:?}")
}

async fn events(label: &str, watcher: &mut PersistentWatcher, count: usize) {
    let mut seen = Vec::new();
    for _ in 0..count {
        let event = watcher.changed().await;
        seen.push(format!("{:?} {}", event.event_type, event.path));
    }
    say(label, seen);
}

async fn znodes(zk: &Client) {
    let open = Acls::anyone_all();
    for (name, mode) in [
        ("/persistent-", CreateMode::Persistent),
        ("/sequential-", CreateMode::PersistentSequential),
        ("/ephemeral-", CreateMode::Ephemeral),
        ("/both-", CreateMode::EphemeralSequential),
        ("/container-", CreateMode::Container),
    ] {
        let made = zk.create(name, b"data", &mode.with_acls(open)).await;
        show(name, made, |(made, sequence)| format!("{} {sequence}", stat(&made)));
    }
    let persistent = CreateMode::Persistent.with_acls(open);
    let ttl = CreateMode::Persistent.with_acls(open).with_ttl(Duration::from_secs(60));
    show("ttl", zk.create("/ttl", b"", &ttl).await, |(made, _)| stat(&made));
    show("again", zk.create("/ttl", b"", &persistent).await, |(made, _)| stat(&made));
    show("orphan", zk.create("/no/x", b"", &persistent).await, |(made, _)| stat(&made));
    let below = zk.create("/ephemeral-/x", b"", &persistent).await;
    show("below an ephemeral", below, |(made, _)| stat(&made));
    show("mkdir", zk.mkdir("/deep/er/still", &persistent).await, |()| String::new());
    let text = |(data, read): (Vec<u8>, Stat)| {
        format!("{:?} {}", String::from_utf8_lossy(&data), stat(&read))
    };
    show("get", zk.get_data("/persistent-").await, text);
    show("get nothing", zk.get_data("/none").await, text);
    show("set", zk.set_data("/persistent-", b"more", Some(0)).await, |set| stat(&set));
    show("set, wrong version", zk.set_data("/persistent-", b"x", Some(0)).await, |set| stat(&set));
    show("stat", zk.check_stat("/deep").await, |found| format!("{:?}", found.as_ref().map(stat)));
    show("no stat", zk.check_stat("/none").await, |found| format!("{:?}", found.is_some()));
    show("list", zk.list_children("/").await, sorted);
    let children = zk.get_children("/deep").await;
    show("children", children, |(names, read)| sorted(names) + &stat(&read));
    show("descendants", zk.count_descendants_number("/").await, |count| count.to_string());
    show("ephemerals", zk.list_ephemerals("/").await, sorted);
    show("sync", zk.sync("/").await, |()| String::new());
    show("delete with children", zk.delete("/deep", None).await, |()| String::new());
    show("delete, wrong version", zk.delete("/ttl", Some(9)).await, |()| String::new());
    show("delete", zk.delete("/ttl", Some(0)).await, |()| String::new());
    show("config", zk.get_config().await, |(config, _)| format!("{config:?}"));
    let reconfig = zk.update_ensemble(EnsembleUpdate::New { ensemble: ["x"].into_iter() }, None);
    show("reconfig", reconfig.await, text);
    let large = zk.create("/large", &vec![7; 1_000_000], &persistent).await;
    show("large", large, |(made, _)| stat(&made));
    show("large back", zk.get_data("/large").await, |(data, _)| data.len().to_string());
}

async fn multis(zk: &Client) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let result = |result: &MultiWriteResult| match result {
        MultiWriteResult::Create { path, stat: made } => format!("{path} {}", stat(made)),
        MultiWriteResult::SetData { stat: set } => stat(set),
        other => format!("{other:?}"),
    };
    let mut writer = zk.new_multi_writer();
    writer.add_create("/m", b"1", &options).expect("it is valid");
    writer.add_check_version("/m", 0).expect("it is valid");
    writer.add_set_data("/m", b"2", Some(0)).expect("it is valid");
    writer.add_create("/m/x", b"1", &options).expect("it is valid");
    writer.add_delete("/m/x", None).expect("it is valid");
    show("multi", writer.commit().await, |results| {
        format!("{:?}", results.iter().map(result).collect::<Vec<_>>())
    });
    writer.add_create("/m2", b"1", &options).expect("it is valid");
    writer.add_check_version("/m", 7).expect("it is valid");
    show("failing", writer.commit().await, |results| format!("{}", results.len()));
    let mut checked = zk.new_check_writer("/m", Some(5)).expect("it is valid");
    checked.add_delete("/m", None).expect("it is valid");
    show("check first", checked.commit().await, |results| format!("{}", results.len()));
    let mut reader = zk.new_multi_reader();
    reader.add_get_data("/m").expect("it is valid");
    reader.add_get_children("/").expect("it is valid");
    reader.add_get_data("/m2").expect("it is valid");
    for read in reader.commit().await.expect("it is answered") {
        match read {
            MultiReadResult::Data { data, stat: read } => say("read", (data, stat(&read))),
            MultiReadResult::Children { children } => say("read", sorted(children)),
            MultiReadResult::Error { err } => say("read", err),
            other => say("read", other),
        }
    }
}

async fn watches(zk: &Client, other: &Client) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let (_, exists) = zk.check_and_watch_stat("/w").await.expect("it is answered");
    other.create("/w", b"", &options).await.expect("it is new");
    say("created", exists.changed().await.event_type);
    let (_, _, data) = zk.get_and_watch_data("/w").await.expect("it is there");
    let (_, _, children) = zk.get_and_watch_children("/w").await.expect("it is there");
    let (_, list) = zk.list_and_watch_children("/w").await.expect("it is there");
    other.set_data("/w", b"x", None).await.expect("it is there");
    other.create("/w/a", b"", &options).await.expect("it is new");
    say("changed", data.changed().await.event_type);
    say("child", children.changed().await.event_type);
    say("list", list.changed().await.event_type);
    let mut persistent = zk.watch("/w", AddWatchMode::Persistent).await.expect("it is answered");
    let mut recursive =
        zk.watch("/w", AddWatchMode::PersistentRecursive).await.expect("it is answered");
    for _ in 0..2 {
        other.create("/w/b", b"", &options).await.expect("it is new");
        other.set_data("/w/b", b"", None).await.expect("it is there");
        other.delete("/w/b", None).await.expect("it is there");
        other.set_data("/w", b"", None).await.expect("it is there");
    }
    events("persistent", &mut persistent, 6).await;
    events("recursive", &mut recursive, 8).await;
    // Dropping a watcher removes the watch.
    drop(persistent);
    drop(recursive);
    let (_, _, last) = zk.get_and_watch_data("/w").await.expect("it is there");
    other.set_data("/w", b"", None).await.expect("it is there");
    say("last", last.changed().await.event_type);
}

async fn acls(zk: &Client, other: &Client) {
    show("acl", zk.get_acl("/w").await, |(acl, read)| format!("{acl:?} {}", stat(&read)));
    zk.auth("digest", b"user:secret").await.expect("digests are believed");
    show("who am i", zk.list_auth_users().await, |who| {
        sorted(who.iter().map(|who| format!("{}:{}", who.scheme(), who.user())).collect())
    });
    let mine = CreateMode::Persistent.with_acls(Acls::creator_all());
    show("mine", zk.create("/mine", b"s", &mine).await, |(made, _)| stat(&made));
    show("not others'", other.get_data("/mine").await, |(data, _)| format!("{data:?}"));
    let acl = [
        Acl::new(Permission::ALL, AuthId::authed()),
        Acl::new(Permission::READ, AuthId::new("ip", "127.0.0.0/8")),
    ];
    let wrong = zk.set_acl("/mine", &acl, Some(4)).await;
    show("set acl, wrong version", wrong, |set| stat(&set));
    show("set acl", zk.set_acl("/mine", &acl, Some(0)).await, |set| stat(&set));
    show("readable", other.get_data("/mine").await, |(data, _)| format!("{data:?}"));
    show("masked", other.get_acl("/mine").await, |(acl, _)| format!("{acl:?}"));
    let invalid = [Acl::new(Permission::ALL, AuthId::new("nope", "x"))];
    show("invalid", zk.set_acl("/mine", &invalid, None).await, |set| stat(&set));
    let stranger = Client::connect(&address()).await.expect("it serves");
    show("refused auth", stranger.auth("nope", b"").await, |()| String::new());
}

async fn locks(zk: &Client, other: &Client) {
    let open = Acls::anyone_all();
    let parents = CreateMode::Persistent.with_acls(open);
    let options = || {
        LockOptions::new(open).with_ancestor_options(parents.clone()).expect("persistent parents")
    };
    let prefix = || LockPrefix::new_curator("/locks", "lock-").expect("it is valid");
    let held = zk.lock(prefix(), b"one", options()).await.expect("it is free");
    let waiting = tokio::spawn({
        let other = other.clone();
        async move {
            let prefix = LockPrefix::new_curator("/locks", "lock-").expect("it is valid");
            let lock = other.lock(prefix, b"two", Acls::anyone_all()).await.expect("in the end");
            lock.lock_path().len()
        }
    });
    while zk.list_children("/locks").await.map_or(0, |names| names.len()) != 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let options = CreateMode::Persistent.with_acls(open);
    let made = held.create("/under-lock", b"", &options).await;
    show("under the lock", made, |(made, _)| stat(&made));
    drop(held);
    say("handed over", waiting.await.is_ok());
}

async fn sessions(zk: &Client) {
    let holder = Client::connector()
        .with_session_timeout(Duration::from_secs(20))
        .with_detached()
        .connect(&address())
        .await
        .expect("it serves");
    say("timeout", holder.session_timeout());
    let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    holder.create("/held", b"", &options).await.expect("it is new");
    let session = holder.session().clone();
    drop(holder.into_session());
    let moved = Client::connector().with_session(session).connect(&address()).await;
    let moved = moved.expect("the session goes on");
    let (_, gone) = zk.check_and_watch_stat("/held").await.expect("it is answered");
    show("moved", moved.get_data("/held").await, |(_, read)| stat(&read));
    let below = moved.clone().chroot("/w").expect("it is valid");
    show("in a chroot", below.list_children("/").await, sorted);
    drop((moved, below));
    say("closed", gone.changed().await.event_type);
}

async fn pipeline(zk: &Client) {
    let options = CreateMode::PersistentSequential.with_acls(Acls::anyone_all());
    // The calls are in order when they are made.
    let calls: Vec<_> = (0..500).map(|_| zk.create("/w/p-", b"", &options)).collect();
    let mut numbers = Vec::new();
    for call in calls {
        numbers.push(call.await.expect("it is answered").1.into_i64());
    }
    say("pipelined, in order", (numbers.is_sorted(), numbers.len()));
}

/// The server dies and comes back.
async fn restart(zk: &Client, other: &Client) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    zk.create("/r", b"", &options).await.expect("it is new");
    zk.create("/r/e", b"", &ephemeral).await.expect("it is new");
    let session = zk.session_id();
    let (_, _, data) = zk.get_and_watch_data("/r").await.expect("it is there");
    let (_, _, children) = zk.get_and_watch_children("/r").await.expect("it is there");
    let (_, exists) = zk.check_and_watch_stat("/r/none").await.expect("it is answered");
    let mut recursive =
        zk.watch("/r", AddWatchMode::PersistentRecursive).await.expect("it is answered");
    println!("RESTART");
    io::stdin().read_line(&mut String::new()).expect("it is told");
    while other.check_stat("/").await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while zk.state() != SessionState::SyncConnected || zk.check_stat("/").await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    say("the same session", zk.session_id() == session);
    show("ephemeral", other.get_data("/r/e").await, |(_, read)| stat(&read));
    show("auth replayed", zk.get_data("/mine").await, |(data, _)| format!("{data:?}"));
    other.set_data("/r", b"x", None).await.expect("it is there");
    say("data", data.changed().await.event_type);
    other.create("/r/none", b"", &options).await.expect("it is new");
    say("exists", exists.changed().await.event_type);
    say("children", children.changed().await.event_type);
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let event = recursive.changed().await;
        // The client tells of lost connections, too.
        if !event.path.is_empty() {
            kinds.push(format!("{:?} {}", event.event_type, event.path));
        }
    }
    say("recursive", kinds);
}

fn address() -> String {
    format!("127.0.0.1:{}", std::env::args().nth(1).expect("usage: rust_surface PORT"))
}

/// A session that outlives a server's restart on a busy machine.
async fn connect() -> Client {
    let connector = Client::connector().with_session_timeout(Duration::from_secs(40));
    connector.connect(&address()).await.expect("it serves")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let zk = connect().await;
    let other = connect().await;
    znodes(&zk).await;
    multis(&zk).await;
    watches(&zk, &other).await;
    acls(&zk, &other).await;
    locks(&zk, &other).await;
    sessions(&zk).await;
    pipeline(&zk).await;
    restart(&zk, &other).await;
}
