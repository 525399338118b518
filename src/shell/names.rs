//! Names of other servers. Each dial looks its names up anew, since addresses come and go with
//! machines; what a name meant last is remembered for when that fails or takes too long. A resolver
//! whose first server is down answers after 5 s, as long as a whole dial takes by default, and a
//! leader that has only been restarted is where it was.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::PeerAddress;

/// What names meant when they were last looked up.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
}

/// How a name is looked up; the port is part of what is found.
pub(super) type LookUp = fn(&PeerAddress) -> io::Result<Vec<SocketAddr>>;

impl Names {
    /// The addresses that a name stands for. If they are not found after `patience` it is what they
    /// were before, and if nothing is known of that, what is found by `deadline`. A look-up that
    /// comes to its end later is remembered all the same; it keeps `token` until then.
    pub(super) fn addresses(
        self: &Arc<Self>,
        address: &PeerAddress,
        patience: Duration,
        deadline: Instant,
        look_up: LookUp,
        token: Arc<()>,
    ) -> io::Result<Vec<SocketAddr>> {
        let (tell, told) = mpsc::sync_channel(1);
        let (names, asked) = (Arc::clone(self), address.clone());
        thread::Builder::new().name("look-up".to_owned()).spawn(move || {
            let found = look_up(&asked);
            if let Some(found) = found.as_ref().ok().filter(|found| !found.is_empty()) {
                names.known().insert(asked.host, found.clone());
            }
            // Who asked may have given up.
            let _ = tell.send(found);
            drop(token);
        })?;
        let mut found = told.recv_timeout(patience);
        if let Ok(Ok(found)) = found {
            return Ok(found);
        }
        if let Some(known) = self.known().get(&address.host) {
            tracing::debug!(host = address.host, "a name is not found, and taken for what it was");
            let at = |known: &SocketAddr| {
                let mut known = *known;
                known.set_port(address.port);
                known
            };
            return Ok(known.iter().map(at).collect());
        }
        if found.is_err() {
            found = told.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<SocketAddr>>> {
        self.known.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn at(host: &str) -> PeerAddress {
        PeerAddress { host: host.to_owned(), port: 7 }
    }

    fn ask(names: &Arc<Names>, patience: Duration, look_up: LookUp) -> io::Result<String> {
        let deadline = Instant::now() + patience + LONG;
        let found = names.addresses(&at("a"), patience, deadline, look_up, Arc::default())?;
        Ok(found.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_name_is_what_it_was_only_while_it_is_not_found() {
        let names = Arc::new(Names::default());
        let fails: LookUp = |_| Err(io::ErrorKind::NotFound.into());
        let error = ask(&names, LONG, fails).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "nothing is known of it");
        let one: LookUp = |_| Ok(vec!["10.0.0.1:5".parse().unwrap()]);
        assert_eq!(ask(&names, LONG, one).unwrap(), "10.0.0.1:5");
        assert_eq!(ask(&names, LONG, fails).unwrap(), "10.0.0.1:7", "at the port that is dialled");
        let two: LookUp = |_| Ok(vec!["10.0.0.2:7".parse().unwrap()]);
        assert_eq!(ask(&names, LONG, two).unwrap(), "10.0.0.2:7", "it is looked up each time");
        assert_eq!(ask(&names, LONG, |_| Ok(Vec::new())).unwrap(), "", "it means nothing now");
        assert_eq!(ask(&names, LONG, fails).unwrap(), "10.0.0.2:7");
    }

    #[test]
    fn a_look_up_that_takes_too_long_is_remembered_for_the_next() {
        let names = Arc::new(Names::default());
        let slow: LookUp = |_| {
            thread::sleep(Duration::from_millis(50));
            Ok(vec!["10.0.0.1:7".parse().unwrap()])
        };
        let now = Instant::now();
        let late = names.addresses(&at("a"), Duration::ZERO, now, slow, Arc::default());
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        while names.known().is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        let hangs: LookUp = |_| {
            thread::sleep(Duration::from_secs(2));
            Err(io::ErrorKind::NotFound.into())
        };
        assert_eq!(ask(&names, Duration::ZERO, hangs).unwrap(), "10.0.0.1:7");
    }
}
