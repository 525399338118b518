//! Names of other servers. Each dial looks its names up anew, since addresses come and go with
//! machines; what a name meant last is remembered for when that fails or takes too long. A resolver
//! whose first server is down answers after 5 s, as long as a whole dial takes by default, and a
//! leader that has only been restarted is where it was.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::PeerAddress;

/// What names meant when they were last looked up.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<BTreeMap<String, Known>>,
    ended: Condvar,
}

/// What is known of one name.
#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// A thread is looking it up: there is never a second one.
    is_asked: bool,
    /// How many look-ups have ended, and how the last of them failed.
    ended: u64,
    failure: Option<io::ErrorKind>,
}

/// How a name is looked up; the port is part of what is found.
pub(super) type LookUp = fn(&PeerAddress) -> io::Result<Vec<SocketAddr>>;

impl Names {
    /// The addresses that a name stands for. If they are not found in half of the time it is what
    /// they were before, and if nothing is known of that, what is found in all of it. A look-up
    /// that comes to its end later is remembered all the same.
    pub(super) fn addresses(
        self: &Arc<Self>,
        address: &PeerAddress,
        within: Duration,
        look_up: LookUp,
    ) -> io::Result<Vec<SocketAddr>> {
        let since = Instant::now();
        let mut known = self.known.lock().expect("no holder panics");
        let of_it = known.entry(address.host.clone()).or_default();
        let before = of_it.ended;
        if !of_it.is_asked {
            let (names, asked) = (Arc::clone(self), address.clone());
            let thread = thread::Builder::new().name("look-up".to_owned());
            thread.spawn(move || names.told(&asked.host, look_up(&asked)))?;
            of_it.is_asked = true;
        }
        loop {
            let of_it = known.entry(address.host.clone()).or_default();
            let has_ended = of_it.ended != before;
            let waited = since.elapsed();
            let is_late = within / 2 <= waited;
            if has_ended && of_it.failure.is_none() || is_late && !of_it.addresses.is_empty() {
                return Ok(at(address.port, &of_it.addresses));
            }
            if has_ended {
                if of_it.addresses.is_empty() {
                    return Err(of_it.failure.unwrap_or(io::ErrorKind::NotFound).into());
                }
                tracing::debug!(
                    host = address.host,
                    "a name is not found, and taken for what it was"
                );
                return Ok(at(address.port, &of_it.addresses));
            }
            let Some(left) = within.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(io::ErrorKind::TimedOut.into());
            };
            let half = (within / 2).saturating_sub(waited);
            let next = if half.is_zero() { left } else { half };
            known = self.ended.wait_timeout(known, next).expect("no holder panics").0;
        }
    }

    /// A look-up has ended.
    fn told(&self, host: &str, found: io::Result<Vec<SocketAddr>>) {
        let mut known = self.known.lock().expect("no holder panics");
        let of_it = known.entry(host.to_owned()).or_default();
        of_it.is_asked = false;
        of_it.ended += 1;
        of_it.failure = match found {
            Ok(found) => {
                of_it.addresses = found;
                None
            }
            Err(error) => Some(error.kind()),
        };
        self.ended.notify_all();
    }
}

/// At the port that is dialled.
fn at(port: u16, addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let with_port = |address: &SocketAddr| {
        let mut address = *address;
        address.set_port(port);
        address
    };
    addresses.iter().map(with_port).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn ask(names: &Arc<Names>, within: Duration, look_up: LookUp) -> io::Result<String> {
        let address = PeerAddress { host: "a".to_owned(), port: 7 };
        let found = names.addresses(&address, within, look_up)?;
        Ok(found.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_name_is_what_it_was_only_while_it_is_not_found() {
        let names = Arc::new(Names::default());
        let fails: LookUp = |_| Err(io::ErrorKind::NotFound.into());
        let error = ask(&names, LONG, fails).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "nothing is known of it");
        let one: LookUp = |_| Ok(vec!["10.0.0.1:5".parse().unwrap()]);
        assert_eq!(ask(&names, LONG, one).unwrap(), "10.0.0.1:7", "at the port that is dialled");
        assert_eq!(ask(&names, LONG, fails).unwrap(), "10.0.0.1:7");
        let two: LookUp = |_| Ok(vec!["10.0.0.2:7".parse().unwrap()]);
        assert_eq!(ask(&names, LONG, two).unwrap(), "10.0.0.2:7", "it is looked up each time");
    }

    /// A second look-up of the same name is not begun, and what the first finds is kept.
    #[test]
    fn a_look_up_that_takes_too_long_is_remembered_for_the_next() {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        static MAY_END: AtomicBool = AtomicBool::new(false);
        let names = Arc::new(Names::default());
        let slow: LookUp = |_| {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            while !MAY_END.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(vec!["10.0.0.1:7".parse().unwrap()])
        };
        for _ in 0..5 {
            let late = ask(&names, Duration::from_millis(20), slow);
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        assert!(BEGUN.load(Ordering::SeqCst) <= 1, "it may not have begun yet");
        MAY_END.store(true, Ordering::SeqCst);
        assert_eq!(ask(&names, LONG, slow).unwrap(), "10.0.0.1:7");
        MAY_END.store(false, Ordering::SeqCst);
        assert_eq!(ask(&names, Duration::from_millis(20), slow).unwrap(), "10.0.0.1:7");
        MAY_END.store(true, Ordering::SeqCst);
    }
}
