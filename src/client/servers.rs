//! Where servers are: `host:port,host:port/chroot`, as ZooKeeper's clients write it.

use std::fmt;
use std::str::FromStr;

use crate::model::path;

/// The port of a server that names none.
const PORT_DEFAULT: u16 = 2181;

/// A list of servers that are one service, and the znode that the client takes for its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// `host:port` each, resolved anew at every attempt; an IPv6 address is in brackets.
    pub addresses: Vec<String>,
    /// The path that is put before every path; empty for none.
    pub chroot: String,
}

/// A list of servers that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServersError {
    /// No server before the chroot.
    #[error("no server is named: write host:port,host:port/chroot")]
    Empty,
    /// What stands behind the last colon.
    #[error("{0:?} is not a port")]
    Port(String),
    /// What stands behind the servers.
    #[error("chroot {0:?} is not a path of a znode")]
    Chroot(String),
}

impl FromStr for Servers {
    type Err = ServersError;

    fn from_str(text: &str) -> Result<Self, ServersError> {
        let (list, chroot) = text.split_at(text.find('/').unwrap_or(text.len()));
        let chroot = if chroot == "/" { "" } else { chroot };
        if !chroot.is_empty() && !path::is_valid(chroot) {
            return Err(ServersError::Chroot(chroot.to_owned()));
        }
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        let addresses = names.map(with_port).collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(ServersError::Empty);
        }
        Ok(Self { addresses, chroot: chroot.to_owned() })
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.addresses.join(","), self.chroot)
    }
}

fn with_port(name: &str) -> Result<String, ServersError> {
    let bare_v6 = !name.contains(']') && 1 < name.matches(':').count();
    if bare_v6 {
        return Ok(format!("[{name}]:{PORT_DEFAULT}"));
    }
    match name.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match port.parse::<u16>() {
            Ok(1..) if !host.is_empty() => Ok(name.to_owned()),
            _ => Err(ServersError::Port(port.to_owned())),
        },
        _ => Ok(format!("{name}:{PORT_DEFAULT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_servers_are_read() {
        for (text, read) in [
            ("a", "a:2181"),
            ("a:1,b", "a:1,b:2181"),
            (" a:1 , b:2/c/d", "a:1,b:2/c/d"),
            ("a/", "a:2181"),
            ("::1", "[::1]:2181"),
            ("[::1]", "[::1]:2181"),
            ("[::1]:7/x", "[::1]:7/x"),
        ] {
            assert_eq!(text.parse::<Servers>().map(|servers| servers.to_string()), Ok(read.into()));
        }
        for (text, error) in [
            ("", ServersError::Empty),
            (",", ServersError::Empty),
            ("/a", ServersError::Empty),
            ("a:x", ServersError::Port("x".into())),
            ("a:0", ServersError::Port("0".into())),
            ("a:65536", ServersError::Port("65536".into())),
            (":7", ServersError::Port("7".into())),
            ("a/b/", ServersError::Chroot("/b/".into())),
            ("a//", ServersError::Chroot("//".into())),
        ] {
            assert_eq!(text.parse::<Servers>(), Err(error), "{text}");
        }
    }
}
