//! rk on a terminal: line editing, completion, history, events at the prompt, ctrl-c.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::peer::{Server, WITHIN};
use super::rk::{clean, ok, rk};

/// Nothing on the terminal takes longer.
const PATIENCE: Duration = WITHIN;

/// The shell in a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not yet looked at.
    shown: String,
}

impl Terminal {
    fn start(server: &Server) -> Self {
        let (mut master, mut slave) = (-1, -1);
        let (none, no_modes, no_size) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: writes two descriptors to variables that live long enough.
        let opened = unsafe { libc::openpty(&mut master, &mut slave, none, no_modes, no_size) };
        assert_eq!(opened, 0, "a terminal can be had");
        // SAFETY: the descriptors are open and nobody else's.
        let (master, slave) =
            unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let another = || Stdio::from(slave.try_clone().expect("descriptors are left"));
        let mut command = rk(server.port, &[]);
        command
            .env("TERM", "xterm")
            .env("RK_HISTORY", server.home.join("history"))
            .stdin(another())
            .stdout(another())
            .stderr(another());
        // SAFETY: only calls that are allowed between fork and exec. Ctrl-c works by its own
        // terminal.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().expect("the program was built");
        let keyboard = File::from(master);
        let mut from = keyboard.try_clone().expect("descriptors are left");
        let (to, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut chunk) {
                if to.send(chunk[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, shown: String::new() }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// Waits until `text` is shown; what was shown before it is forgotten.
    fn until(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let chunk = self.screen.recv_timeout(left);
            let chunk = chunk.unwrap_or_else(|_| panic!("{text:?} is shown: {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    fn prompt(&mut self) {
        self.until("> ");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

#[test]
fn the_shell_is_at_home_on_a_terminal() {
    let server = Server::start("");
    let mut terminal = Terminal::start(&server);
    terminal.prompt();
    terminal.press("create /some-znode 'a \\x1b b'\r");
    terminal.until("/some-znode\r\n");
    terminal.prompt();
    // A name that the shell would read as two words.
    terminal.press("create '/two words' both\r");
    terminal.until("/two words\r\n");
    terminal.prompt();
    terminal.press("get /tw\t");
    terminal.until("get '/two words'");
    terminal.press("\r");
    terminal.until("both\r\n");
    terminal.prompt();
    // A path is completed from the server, and what could steer the terminal is not sent to it.
    terminal.press("get /so\t");
    terminal.until("get /some-znode");
    terminal.press("\r");
    terminal.until("a \\\\x1b b");
    terminal.prompt();
    terminal.press("unw\t/some-znode\r");
    terminal.until("no such watch on /some-znode (NO_WATCHER)");
    terminal.prompt();
    // An event comes while the prompt waits.
    terminal.press("watch /some-znode\r");
    terminal.prompt();
    ok(server.port, &["set", "/some-znode", "b"]);
    terminal.until("NodeDataChanged /some-znode");
    // The line before the last one.
    terminal.press("\x1b[A\x1b[A\x1b[A\r");
    terminal.until("b\r\n");
    terminal.prompt();
    terminal.press("addauth digest ann:secret\r");
    terminal.prompt();
    terminal.press("rm -r /some-znode\r");
    terminal.until("1 znodes? [y/N] ");
    terminal.press("y\r");
    terminal.until("NodeDeleted /some-znode");
    terminal.prompt();
    // ctrl-c ends what runs, not the shell; ctrl-d ends the shell.
    terminal.press("lock /lock -- sh -c 'echo runs; exec sleep 60'\r");
    terminal.until("runs\r\n");
    terminal.press("\x03");
    terminal.prompt();
    terminal.press("whoami\r");
    terminal.until("digest: ann");
    terminal.prompt();
    terminal.press("\x04");
    let status = terminal.child.wait().expect("the child is ours");
    assert!(status.success(), "{status}");
    let history = std::fs::read_to_string(server.home.join("history")).expect("it was written");
    assert!(history.contains("get /some-znode"), "{history}");
    assert!(!history.contains("secret"), "{history}");
    clean(server);
}
