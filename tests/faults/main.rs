//! Ensembles of real processes under faults of processes, networks, disks and power, each server in
//! a network namespace and on a drive with a volatile cache: nothing acknowledged is lost.
//!
//! `RINGKEEPER_FAULTS` sets how many faults each ensemble meets, `RINGKEEPER_FAULTS_SEED` which;
//! `cargo test --test faults -- --nocapture` tells of each.

/// Reads everything back and judges it.
mod check;
/// Writers, readers, guests.
mod clients;
/// ext4 on a drive.
mod disk;
/// A drive with a volatile cache.
mod drive;
/// The faults by name.
mod fault;
/// Does them.
mod nemesis;
/// Network namespaces.
mod net;
/// The ensemble.
mod servers;
/// What a machine cannot do.
#[path = "../it/skip.rs"]
#[allow(dead_code, reason = "programs are what other tests lack")]
mod skip;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use check::{WITHIN, check, guests_are_gone};
use clients::{Crowd, within};
use fault::{Deck, Fault};
use nemesis::Nemesis;
use servers::Servers;

/// One ensemble has the machine at a time.
static MACHINE: Mutex<()> = Mutex::new(());

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// One ensemble, its clients, what is done to it.
struct Run {
    servers: Servers,
    crowd: Crowd,
    nemesis: Nemesis,
    /// From the end of the faults until all servers serve and all writers write.
    recoveries: Vec<Duration>,
}

impl Run {
    /// Ends with the logs of all servers if something is wrong.
    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{:?}\n{}", self.nemesis.counts, self.servers.logs());
    }

    /// Servers end by themselves only where their disk has failed.
    fn see_who_ended(&mut self) {
        for (sid, status) in self.servers.ended() {
            if !self.nemesis.may_end.contains(&sid) {
                self.fail(&format!("server {sid} ended by itself: {status}"));
            }
        }
    }

    /// One fault, often a second one while it lasts; then everything is healed and looked at.
    fn round(&mut self, faults: &[Fault]) {
        for fault in faults {
            self.nemesis.inject(*fault, &mut self.servers);
            std::thread::sleep(self.nemesis.time(50, 900));
        }
        self.see_who_ended();
        self.nemesis.heal(&mut self.servers);
        let healed = Instant::now();
        let before = self.crowd.progress();
        let goes_on = within(WITHIN, || {
            let now = self.crowd.progress();
            let all_write = before.iter().zip(&now).all(|(before, now)| before + 3 < *now);
            all_write && self.servers.sids().iter().all(|sid| !self.servers.mode(*sid).is_empty())
        });
        self.see_who_ended();
        self.recoveries.push(healed.elapsed());
        if !goes_on {
            let modes = self.servers.sids().into_iter().map(|sid| self.servers.mode(sid));
            let modes: Vec<String> = modes.collect();
            let now = self.crowd.progress();
            self.fail(&format!("not healed in {WITHIN:?}: {modes:?}, {before:?} to {now:?}"));
        }
        self.nemesis.hang_up();
        self.look(false);
    }

    fn look(&self, is_last: bool) {
        self.crowd.hold();
        let checked = check(&self.servers.sids(), &self.crowd, is_last);
        if let Err(why) = checked {
            self.fail(&why);
        }
        if let Some(failure) = self.crowd.failures().first() {
            self.fail(failure);
        }
        for sid in self.servers.sids() {
            if self.servers.log(sid).contains("panicked") {
                self.fail(&format!("server {sid} panicked"));
            }
        }
        self.crowd.release();
    }
}

/// An ensemble of `count` under `faults` drawn from `kinds`.
fn run(test: &str, count: i64, kinds: Vec<Fault>, faults: u64) {
    let _machine = MACHINE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seed = number("RINGKEEPER_FAULTS_SEED").unwrap_or(1);
    let home =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}", std::process::id()));
    let _old = fs::remove_dir_all(&home);
    let servers = match Servers::new(&home, count) {
        Ok(servers) => servers,
        Err(why) => return skip::skip_without_right(test, &why.to_string()),
    };
    // Servers find each other silent after 300 ms: other work on this machine must not delay them.
    // SAFETY: it changes the priority of this thread and of what it will start.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -15) };
    // Where sessions share the processors evenly, the one above counts within a session only.
    let _as_it_is = fs::write("/proc/self/autogroup", "-15");
    let all_serve = || servers.sids().iter().all(|sid| !servers.mode(*sid).is_empty());
    assert!(within(WITHIN, all_serve), "they serve: {}", servers.logs());
    let crowd = Crowd::new(count, seed);
    let mut run = Run { servers, crowd, nemesis: Nemesis::new(seed), recoveries: Vec::new() };
    let mut deck = Deck::new(kinds.clone());
    let (begun, mut done) = (Instant::now(), 0);
    while done < faults {
        let mut now = vec![deck.draw(&mut run.nemesis.prng)];
        if run.nemesis.prng.one_in(3) {
            now.push(deck.draw(&mut run.nemesis.prng));
        }
        let began = Instant::now();
        run.round(&now);
        done += now.len() as u64;
        let recovery = run.recoveries.last().map(Duration::as_millis).unwrap_or_default();
        let took = began.elapsed().as_millis();
        eprintln!("{done}: {now:?}, healed in {recovery} ms, all in {took} ms");
    }
    // The sessions of guests who left without a word get their time.
    run.crowd.hold();
    // The look tells of those that stay.
    let _are_gone = within(WITHIN, || guests_are_gone(&run.servers.sids()));
    run.look(true);
    let flushes: u64 = run.servers.disks.values().map(|disk| disk.drive.flushes()).sum();
    let written: u64 = run.crowd.progress().iter().sum();
    run.recoveries.sort();
    let at = |part: usize| run.recoveries[(run.recoveries.len() - 1) * part / 100].as_millis();
    eprintln!(
        "{count} servers, seed {seed}, {done} faults in {:?}: {:?}\n{written} writes acknowledged \
         and read back, {} reads behind a sync, {flushes} flushes, {} sectors lost by drives\n\
         healed: p50 {} ms, p90 {} ms, longest {} ms",
        begun.elapsed(),
        run.nemesis.counts,
        run.crowd.reads(),
        run.nemesis.sectors_lost,
        at(50),
        at(90),
        at(100),
    );
    if kinds.len() as u64 <= faults {
        let missing: Vec<&Fault> =
            kinds.iter().filter(|kind| !run.nemesis.counts.contains_key(kind)).collect();
        assert!(missing.is_empty(), "never made: {missing:?}");
    }
    assert!(done * 20 < written, "there was load: {written} writes");
    run.crowd.end();
    drop(run.servers);
    let _gone = fs::remove_dir_all(&home);
}

#[test]
fn three_servers_lose_nothing_acknowledged() {
    let kinds = Fault::for_ensemble(3);
    let faults = number("RINGKEEPER_FAULTS").unwrap_or(kinds.len() as u64);
    run("three_servers_lose_nothing_acknowledged", 3, kinds, faults);
}

#[test]
fn five_servers_lose_nothing_acknowledged() {
    let name = "five_servers_lose_nothing_acknowledged";
    match number("RINGKEEPER_FAULTS") {
        Some(faults) => run(name, 5, Fault::for_ensemble(5), faults),
        None => {
            // Where five are more than three.
            let kinds = vec![
                Fault::KillLeader,
                Fault::KillMinority,
                Fault::PauseLeader,
                Fault::Halves,
                Fault::Bridge,
                Fault::Ring,
                Fault::OneWay,
                Fault::Blackout,
            ];
            let faults = kinds.len() as u64;
            run(name, 5, kinds, faults);
        }
    }
}
