//! rk when the connection breaks between a request's execution and its reply: what is not sent
//! again, and how recipes find out what was done.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use ringkeeper::wire::opcode;

use super::peer::Server;
use super::rk::{Running, clean, fails, ok, rk};

/// Passes connections on to a server, and can swallow the reply to a request.
struct Proxy {
    port: u16,
    /// The opcode of the next request whose reply is swallowed, and its connection cut; 0 for none.
    cut_at: Arc<AtomicI32>,
}

impl Proxy {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let cut_at = Arc::new(AtomicI32::new(0));
        let armed = Arc::clone(&cut_at);
        // Ends with the test process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let armed = Arc::clone(&armed);
                thread::spawn(move || pass_on(&client, server, &armed));
            }
        });
        Self { port, cut_at }
    }

    /// The next request with this opcode is executed, and its reply lost.
    fn cut_at(&self, opcode: i32) {
        self.cut_at.store(opcode, Ordering::SeqCst);
    }

    /// Whether a reply was swallowed since.
    fn has_cut(&self) -> bool {
        self.cut_at.load(Ordering::SeqCst) == 0
    }
}

fn pass_on(client: &TcpStream, server: u16, cut_at: &AtomicI32) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server))?;
    let is_cut = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ended = pass_replies(client, &server, &is_cut);
            let _gone = client.shutdown(Shutdown::Both);
            let _gone = server.shutdown(Shutdown::Both);
        });
        let _ended = pass_requests(client, &server, cut_at, &is_cut);
        if !is_cut.load(Ordering::SeqCst) {
            let _gone = server.shutdown(Shutdown::Both);
        }
    });
    Ok(())
}

fn pass_replies(
    mut client: &TcpStream,
    mut server: &TcpStream,
    cut: &AtomicBool,
) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        let len = server.read(&mut chunk)?;
        if len == 0 || cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        client.write_all(&chunk[..len])?;
    }
}

fn pass_requests(
    mut client: &TcpStream,
    mut server: &TcpStream,
    cut_at: &AtomicI32,
    cut: &AtomicBool,
) -> io::Result<()> {
    let mut is_handshake = true;
    loop {
        let mut len = [0; 4];
        client.read_exact(&mut len)?;
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        client.read_exact(&mut body)?;
        let opcode = body
            .get(4..8)
            .map_or(0, |word| i32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        let hit = !is_handshake
            && cut_at.compare_exchange(opcode, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        is_handshake = false;
        cut.fetch_or(hit, Ordering::SeqCst);
        server.write_all(&[&len[..], &body].concat())?;
    }
}

#[test]
fn writes_are_not_sent_again_and_reads_are() {
    let server = Server::start("");
    let proxy = Proxy::start(server.port);
    for (opcode, arguments) in [
        (opcode::CREATE, &["create", "/a", "x"][..]),
        (opcode::SET_DATA, &["set", "/a", "y"]),
        (opcode::MULTI, &["multi", "set /a z"]),
        (opcode::DELETE, &["rm", "/a"]),
    ] {
        proxy.cut_at(opcode);
        let errors = fails(proxy.port, 4, arguments);
        assert!(proxy.has_cut(), "{arguments:?}");
        assert!(errors.contains("connection lost, outcome unknown"), "{arguments:?}: {errors}");
    }
    fails(server.port, 1, &["get", "/a"]);
    ok(server.port, &["create", "/a", "once"]);
    for (opcode, arguments, expected) in [
        (opcode::GET_DATA, &["get", "/a"][..], "once"),
        (opcode::GET_CHILDREN2, &["ls", "/zookeeper"], "config\nquota\n"),
        (opcode::GET_CHILDREN, &["ls", "-R", "/a"], "/a\n"),
        (opcode::SYNC, &["sync"], ""),
        (opcode::GET_ACL, &["getacl", "/a"], "world:anyone:cdrwa\n"),
    ] {
        proxy.cut_at(opcode);
        assert_eq!(ok(proxy.port, arguments), expected);
        assert!(proxy.has_cut(), "{arguments:?}");
    }
    // Every znode was set once for each time it was asked.
    assert!(ok(server.port, &["stat", "/a"]).contains("dataVersion = 0\n"));
    clean(server);
}

#[test]
fn recipes_find_out_what_was_done() {
    let server = Server::start("");
    let proxy = Proxy::start(server.port);
    let port = server.port;
    ok(port, &["create", "/lock"]);
    proxy.cut_at(opcode::CREATE);
    let mut lock = Running::start(&mut rk(
        proxy.port,
        &["lock", "/lock", "--", "sh", "-c", "echo holds; read line"],
    ));
    assert_eq!(lock.until("holds"), "holds");
    assert!(proxy.has_cut());
    assert_eq!(ok(port, &["ls", "/lock"]).lines().count(), 1, "one znode, not two");
    lock.say("");
    assert_eq!(lock.end(), Some(0));

    ok(port, &["create", "/q"]);
    proxy.cut_at(opcode::MULTI);
    let put = ok(proxy.port, &["queue", "put", "/q", "entry"]);
    assert!(proxy.has_cut());
    assert_eq!(ok(port, &["ls", "/q"]).trim(), put.trim().trim_start_matches("/q/"));
    proxy.cut_at(opcode::MULTI);
    assert_eq!(ok(proxy.port, &["queue", "take", "/q"]), "entry");
    assert!(proxy.has_cut());
    assert_eq!(ok(port, &["ls", "/q"]), "");
    clean(server);
}
