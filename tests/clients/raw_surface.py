"""Drives a ZooKeeper server over raw sockets and prints a normalised transcript.

usage: raw_surface.py PORT

One line per request: what was asked, what came back. Zxids are relative to the last write, times
and session ids are replaced, children are sorted, so that two servers that behave alike print the
same text. Standard library only.
"""

import socket
import struct
import sys

PORT = int(sys.argv[1])
OPEN = [(31, b"world", b"anyone")]


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def buf(value):
    return i32(-1) if value is None else i32(len(value)) + value


def vec(items):
    return i32(-1) if items is None else i32(len(items)) + b"".join(items)


def acl(entries):
    if entries is None:
        return i32(-1)
    return vec([i32(perms) + buf(scheme) + buf(name) for perms, scheme, name in entries])


class Body:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        part = self.data[self.at:self.at + count]
        self.at += count
        return part

    def i32(self):
        return struct.unpack(">i", self.take(4))[0]

    def i64(self):
        return struct.unpack(">q", self.take(8))[0]

    def buf(self):
        length = self.i32()
        return None if length < 0 else self.take(length)

    def stat(self, client):
        czxid, mzxid = self.i64(), self.i64()
        self.i64(), self.i64()
        version, cversion, aversion = self.i32(), self.i32(), self.i32()
        owner = self.i64()
        length, children, pzxid = self.i32(), self.i32(), self.i64()
        zxids = ",".join(client.relative(zxid) for zxid in (czxid, mzxid, pzxid))
        owner = "none" if owner == 0 else "own" if owner == client.session else "other"
        return f"[z {zxids} v {version},{cversion},{aversion} o {owner} l {length} n {children}]"


class Client:
    base = 0  # the last zxid of a write anywhere

    def __init__(self, name, session=0, password=b"\0" * 16, seen=0, timeout=30000, hello=None):
        self.name, self.xid = name, 0
        self.sock = socket.create_connection(("127.0.0.1", PORT), timeout=60)
        if hello is None:
            hello = i32(0) + i64(seen) + i32(timeout) + i64(session) + buf(password) + b"\0"
        self.raw(i32(len(hello)) + hello)
        frame = self.frame()
        if frame is None:
            self.session = None
            return
        body = Body(frame)
        body.i32()
        self.timeout, self.session, self.password = body.i32(), body.i64(), body.buf()
        self.hello_bytes = len(frame)

    def raw(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass  # closed: shows at the next frame

    def read(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                return None
            data += part
        return data

    def frame(self):
        try:
            head = self.read(4)
            return None if head is None else self.read(struct.unpack(">i", head)[0])
        except OSError:
            return None

    def relative(self, zxid):
        if zxid in (0, -1):
            return str(zxid)
        return "base" if zxid == Client.base else f"base{zxid - Client.base:+d}"

    def send(self, opcode, body=b"", xid=None):
        if xid is None:
            self.xid += 1
            xid = self.xid
        self.raw(i32(8 + len(body)) + i32(xid) + i32(opcode) + body)

    def receive(self, decode=None):
        """One frame as text."""
        frame = self.frame()
        if frame is None:
            return "closed"
        body = Body(frame)
        xid, zxid, code = body.i32(), body.i64(), body.i32()
        text = self.relative(zxid)
        if xid == -1:
            kind, state, path = body.i32(), body.i32(), body.buf()
            return f"event {kind} state {state} {path.decode()} at {text}"
        if zxid > Client.base:
            Client.base = zxid
            text = f"new{zxid - self.before:+d}" if self.before else "new"
        self.before = Client.base
        if code != 0:
            return f"err {code} at {text}"
        return f"ok at {text} {decode(body) if decode else ''}".rstrip()

    before = 0

    def call(self, label, opcode, body=b"", decode=None, xid=None):
        self.before = Client.base
        self.send(opcode, body, xid)
        lines = []
        while True:
            line = self.receive(decode)
            lines.append(line)
            if not line.startswith("event"):
                break
        say(f"{self.name} {label}: {' | '.join(lines)}")
        return lines

    # Requests by name.
    def create(self, path, data=b"", entries=OPEN, flags=0, opcode=1, ttl=None):
        body = buf(path.encode() if path is not None else None)
        body += buf(data) + acl(entries) + i32(flags)
        if ttl is not None:
            body += i64(ttl)
        decode = (lambda b: b.buf().decode()) if opcode == 1 else (
            lambda b: b.buf().decode() + " " + b.stat(self))
        return self.call(f"create{opcode} {path} flags {flags}", opcode, body, decode)

    def delete(self, path, version=-1):
        self.call(f"delete {path} v{version}", 2, buf(path.encode()) + i32(version))

    def exists(self, path, watch=False):
        self.call(f"exists {path} {watch}", 3, buf(path.encode()) + bytes([watch]),
                  lambda b: b.stat(self))

    def get(self, path, watch=False):
        self.call(f"get {path} {watch}", 4, buf(path.encode()) + bytes([watch]),
                  lambda b: f"{b.buf()} {b.stat(self)}")

    def set(self, path, data=b"x", version=-1):
        self.call(f"set {path} v{version}", 5, buf(path.encode()) + buf(data) + i32(version),
                  lambda b: b.stat(self))

    def get_acl(self, path):
        def decode(body):
            entries = [(body.i32(), body.buf().decode(), body.buf().decode())
                       for _ in range(body.i32())]
            return f"{entries} {body.stat(self)}"
        self.call(f"getACL {path}", 6, buf(path.encode()), decode)

    def set_acl(self, path, entries, version=-1):
        self.call(f"setACL {path} {entries} v{version}", 7,
                  buf(path.encode()) + acl(entries) + i32(version), lambda b: b.stat(self))

    def children(self, path, watch=False, opcode=8):
        def decode(body):
            names = sorted(body.buf().decode() for _ in range(body.i32()))
            return f"{names} {body.stat(self) if opcode == 12 else ''}"
        self.call(f"children{opcode} {path} {watch}", opcode, buf(path.encode()) + bytes([watch]),
                  decode)

    def multi(self, label, ops, end=True):
        body = b"".join(i32(op) + b"\0" + i32(-1) + data for op, data in ops)
        if end:
            body += i32(-1) + b"\1" + i32(-1)

        def decode(body):
            results = []
            while True:
                kind, done, code = body.i32(), body.take(1), body.i32()
                if done == b"\1":
                    return str(results)
                if kind == -1:
                    results.append(("error", code, body.i32()))
                elif kind == 1:
                    results.append((kind, body.buf().decode()))
                elif kind == 15:
                    results.append((kind, body.buf().decode(), body.stat(self)))
                elif kind == 5:
                    results.append((kind, body.stat(self)))
                else:
                    results.append((kind,))
        self.call(f"multi {label}", 14, body, decode)

    def auth(self, scheme, data):
        self.call(f"auth {scheme}", 100, i32(0) + buf(scheme) + buf(data), xid=-4)

    def closed(self):
        self.sock.settimeout(5)
        try:
            say(f"{self.name} then: {'closed' if self.sock.recv(1) == b'' else 'more bytes'}")
        except ConnectionResetError:
            say(f"{self.name} then: closed")
        except socket.timeout:
            say(f"{self.name} then: open")


def say(text):
    print(text)


def section(title):
    say(f"== {title}")


def op_create(path, data=b"", flags=0, entries=OPEN):
    return buf(path) + buf(data) + acl(entries) + i32(flags)


def op_version(path, version):
    return buf(path) + i32(version)


def op_set(path, data, version):
    return buf(path) + buf(data) + i32(version)


def handshakes():
    section("handshakes")
    old = Client("old", hello=i32(0) + i64(0) + i32(10000) + i64(0) + buf(b"\0" * 16))
    say(f"44 bytes: answered with {old.hello_bytes}, timeout {old.timeout}")
    for timeout in (-1, 0, 1, 5000, 10**9):
        client = Client("t", timeout=timeout)
        say(f"timeout {timeout}: {client.timeout}, {client.hello_bytes} bytes")
    client = Client("null", password=None)
    say(f"null password: {client.timeout}")
    wrong = Client("wrong", session=client.session, password=b"7" * 16)
    say(f"wrong password: {wrong.timeout} {wrong.session} {wrong.password}")
    wrong.closed()
    wrong = Client("unknown", session=0x1234567, password=b"7" * 16)
    say(f"unknown session: {wrong.timeout} {wrong.session}")
    live = Client("live")
    again = Client("again", session=live.session, password=live.password, timeout=6000)
    say(f"renewed: {again.session == live.session} {again.timeout}")
    live.closed()
    again.call("ping", 11, xid=-2)
    future = Client("future", seen=1 << 60)
    say(f"future: {future.session}")


def basics(a):
    section("create")
    a.create("/r", b"data")
    a.create("/r", b"data")
    for path in ("", "x", "x/y", "/", "/r/", "/r//x", "/r/.", "/r/..", "/r/...", "/r/a..b",
                 "/r/\x01", "/r/\x7f", "/r/\u00a0", "/r/\ud7ff", "/r/\ue000", "/r/\uffef",
                 "/r/\ufff0", "/r/\U0001f600", "/missing/x", "/r/\0"):
        a.create(path)
    a.create(None)
    for flags in (-1, 4, 5, 6, 7):
        a.create(f"/r/f{flags}", flags=flags)
    a.create("/r/two", b"2", opcode=15)
    a.create("/r/null", None)
    a.create("/r/empty", b"")
    for path in ("/r/null", "/r/empty", "/r/two", "/r", "/", "", "/r/", "/zookeeper",
                 "/zookeeper/quota"):
        a.get(path)
    for entries in (None, [], [(31, b"world", b"someone")], [(31, None, b"anyone")],
                    [(31, b"digest", b"u:h")], [(31, b"digest", b"u:")],
                    [(31, b"digest", b"a:b:c")], [(31, b"ip", b"10.0.0.1/8")],
                    [(31, b"ip", b"10.0.0.1/")], [(31, b"ip", b"::1")], [(31, b"nope", b"x")],
                    [(31, b"super", b"")], [(31, b"auth", b"")], [(31, b"auth", None)],
                    [(31, b"world", b"anyone")] * 2, [(255, b"world", b"anyone")]):
        a.create("/r/acl", entries=entries)
        a.get_acl("/r/acl")
        a.delete("/r/acl")
    section("precedence of create's errors")
    a.create("/r/nobody", entries=[(1, b"world", b"anyone")])
    a.create("/r/nobody/x")
    a.create("/r/nobody/x", entries=[])
    a.create("/r/nobody/..")
    a.create("/missing/x", entries=[])
    a.create("/r/eph", flags=1)
    a.create("/r/eph/x")
    a.create("/r/eph/..")
    a.create("/r/two")
    section("sequence")
    a.create("/s")
    a.create("/s/", flags=2)
    a.create("/s/plain")
    a.create("/s/plain")
    a.create("/s/q-", flags=3)
    a.delete("/s/plain")
    a.create("/s/q-", flags=2, opcode=15)
    a.create("/s", flags=2)
    a.children("/s")
    a.children("/s", opcode=12)
    section("delete")
    a.delete("/r")
    a.delete("/r/two", 5)
    a.delete("/r/two", -2)
    a.delete("/r/two", 0)
    a.delete("/r/two")
    for path in ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "x", "x/y", "",
                 "/r/", "/r/nobody/x", "/r/\0"):
        a.delete(path)
    section("set")
    a.set("/r", b"1", 0)
    a.set("/r", b"1", 0)
    a.set("/r", None)
    a.get("/r")
    for path in ("/missing", "x", "", "/r/"):
        a.set(path)
    a.set("/r/nobody")
    section("reads")
    for path in ("/r", "/missing", "/r/nobody", "/r/\0", "x"):
        a.exists(path)
    for path in ("/missing", "/r/eph", "x"):
        a.children(path)
        a.get_acl(path)
    a.call("sync", 9, buf(b"/nowhere"), lambda b: b.buf().decode())
    a.call("getAllChildrenNumber /s", 104, buf(b"/s"), lambda b: b.i32())
    a.call("getAllChildrenNumber /missing", 104, buf(b"/missing"))
    ephemerals = lambda b: sorted(b.buf().decode() for _ in range(b.i32()))
    for prefix in (None, b"", b"/", b"/r", b"/r/e", b"/x"):
        a.call(f"getEphemerals {prefix}", 103, buf(prefix), ephemerals)
    section("setACL")
    a.set_acl("/s", OPEN, 1)
    a.set_acl("/s", OPEN, 0)
    a.set_acl("/s", [])
    a.set_acl("/missing", [])
    a.set_acl("/missing", OPEN)
    a.set_acl("/r/nobody", OPEN)
    a.set_acl("x", OPEN)
    a.exists("/s")


def multis(a):
    section("multi")
    a.create("/m")
    a.multi("empty", [])
    a.multi("good", [(1, op_create(b"/m/a", b"1")), (15, op_create(b"/m/b", b"22")),
                     (13, op_version(b"/m/a", 0)), (5, op_set(b"/m/a", b"333", 0)),
                     (2, op_version(b"/m/b", 0)), (1, op_create(b"/m/s-", b"", 2))])
    a.exists("/m")
    ops = [(1, op_create(b"/m/x")), (5, op_set(b"/m/a", b"x", -1)), (13, op_version(b"/m/a", 1))]
    bad = (13, op_version(b"/m/a", 77))
    for at in range(4):
        a.multi(f"failing at {at}", ops[:at] + [bad] + ops[at:])
    a.exists("/m")
    a.multi("parent, child, both away", [
        (1, op_create(b"/m/p")), (1, op_create(b"/m/p/c")), (2, op_version(b"/m/p/c", -1)),
        (2, op_version(b"/m/p", -1)), (1, op_create(b"/m/p"))])
    a.multi("sequence twice", [(1, op_create(b"/m/q-", b"", 2)), (1, op_create(b"/m/q-", b"", 2))])
    a.multi("sequence refused", [(1, op_create(b"/m/q-", b"", 2)), bad])
    a.create("/m/q-", flags=2)
    a.multi("getData in it", [(4, buf(b"/m") + b"\0")])
    a.multi("ttl flag", [(1, op_create(b"/m/t", b"", 5))])
    a.multi("no end", [(2, op_version(b"/m/a", -1))], end=False)
    a.multi("missing, exists", [(2, op_version(b"/m/none", -1)), (1, op_create(b"/m/a"))])
    a.multi("bad path", [(1, op_create(b"/m/a/"))])
    section("multiRead")

    def decode(body):
        results = []
        while True:
            kind, done, code = body.i32(), body.take(1), body.i32()
            if done == b"\1":
                return results
            if kind == -1:
                results.append(("error", code, body.i32()))
            elif kind == 4:
                results.append((body.buf(), body.stat(a)))
            else:
                results.append(sorted(body.buf() for _ in range(body.i32())))

    def read(ops):
        body = b"".join(i32(op) + b"\0" + i32(-1) + buf(path) + b"\0" for op, path in ops)
        a.call(f"multiRead {ops}", 22, body + i32(-1) + b"\1" + i32(-1), decode)
    read([])
    read([(4, b"/m/a"), (8, b"/m"), (4, b"/none"), (8, b"/none")])
    read([(3, b"/m")])


def watches(a, b):
    section("one-shot watches")
    a.create("/w")
    b.exists("/w/n", True)
    b.children("/w", True)
    b.get("/w", True)
    a.create("/w/n")
    b.exists("/w/n")
    a.set("/w")
    b.exists("/w/n", True)
    b.children("/w/n", True)
    a.delete("/w/n")
    b.exists("/w")
    section("own watches")
    a.get("/w", True)
    a.set("/w")
    a.children("/w", True)
    a.create("/w/n")
    a.exists("/w/n", True)
    a.multi("delete and create", [(2, op_version(b"/w/n", -1)), (1, op_create(b"/w/n"))])
    section("persistent watches")
    b.call("addWatch /w recursive", 106, buf(b"/w") + i32(1), lambda r: r.i32())
    b.call("addWatch /w persistent", 106, buf(b"/w") + i32(0), lambda r: r.i32())
    b.call("addWatch bad mode", 106, buf(b"/w") + i32(2))
    a.set("/w")
    a.create("/w/deep")
    a.create("/w/deep/er")
    a.set_acl("/w", OPEN)
    a.delete("/w/deep/er")
    b.exists("/w")
    for kind in (1, 2, 3, 4, 5, 6):
        b.call(f"checkWatches {kind}", 17, buf(b"/w") + i32(kind))
    b.call("removeWatches 5", 18, buf(b"/w") + i32(5))
    b.call("removeWatches 5", 18, buf(b"/w") + i32(5))
    a.set("/w/deep")
    a.set("/w")
    b.exists("/w")
    b.call("removeWatches 3", 18, buf(b"/w") + i32(3))
    a.set("/w")
    b.exists("/w")
    section("setWatches")
    base = Client.base
    a.set("/w/n")
    a.create("/w/new")
    paths = lambda names: vec([buf(name) for name in names])
    b.call("setWatches", 101, i64(base) + paths([b"/w/n", b"/w/deep", b"/gone"])
           + paths([b"/w/new", b"/w/later"]) + paths([b"/w", b"/w/deep", b"/gone"]))
    a.set("/w/deep")
    a.create("/w/later")
    a.create("/w/deep/x")
    b.exists("/w")
    b.call("setWatches2", 105, i64(base) + paths([]) + paths([]) + paths([]) + paths([b"/w"])
           + paths([b"/"]))
    a.set("/w/n")
    b.exists("/w")
    b.call("setWatches null", 101, i64(base) + i32(-1) + paths([]) + paths([]))


def permissions(a, b):
    section("permissions")
    a.create("/p")
    for perms in (1, 2, 4, 8, 16):
        path = f"/p/{perms}"
        a.create(path, entries=[(31 - perms, b"world", b"anyone")])
        b.get(path)
        b.exists(path)
        b.children(path)
        b.get_acl(path)
        b.set(path)
        b.create(f"{path}/c")
        b.delete(f"{path}/c")
        b.multi("check", [(13, op_version(path.encode(), -1))])
        b.call("getAllChildrenNumber", 104, buf(path.encode()), lambda r: r.i32())
        b.set_acl(path, [(31 - perms, b"world", b"anyone")])
    section("auth")
    a.create("/p/auth", entries=[(31, b"auth", b"")])
    a.auth(b"digest", b"u:p")
    a.auth(b"ip", b"whatever")
    infos = lambda r: sorted((r.buf(), r.buf()) for _ in range(r.i32()))
    a.call("whoAmI", 107, b"", infos)
    a.create("/p/auth", b"secret", entries=[(31, b"auth", b"")])
    a.get_acl("/p/auth")
    a.get("/p/auth")
    b.get("/p/auth")
    b.get_acl("/p/auth")
    a.set_acl("/p/auth", [(1, b"world", b"anyone"), (31, b"auth", b"")])
    b.get_acl("/p/auth")
    b.exists("/p/auth", True)
    a.set_acl("/p/auth", [(31, b"auth", b"")])
    a.set("/p/auth")
    b.exists("/p")
    a.create("/p/ip", entries=[(31, b"ip", b"127.0.0.0/8")])
    b.get("/p/ip")
    a.create("/p/ip2", entries=[(31, b"ip", b"10.0.0.0/8")])
    b.get("/p/ip2")
    for scheme, data in ((b"world", b"anyone"), (b"nope", b"x"), (b"digest", None)):
        client = Client("auth")
        client.auth(scheme, data)
        client.closed()
    client = Client("nocolon")
    client.auth(b"digest", b"abc")
    client.call("whoAmI", 107, b"", infos)
    client = Client("sasl")
    client.call("sasl", 102, buf(b"token"), lambda r: r.buf())


def odd():
    section("odd requests")
    a = Client("odd")
    a.call("ping", 11, xid=-2)
    a.call("ping with xid 5", 11, xid=5)
    a.call("exists with xid 0", 3, buf(b"/") + b"\0", xid=0)
    a.call("exists with xid -77", 3, buf(b"/") + b"\0", xid=-77)
    a.call("trailing bytes", 3, buf(b"/") + b"\0" + b"more")
    for opcode in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14, 15, 17, 18, 19, 21, 22, 101, 104, 105, 106):
        a.call(f"empty body of {opcode}", opcode)
    a.call("string too long", 3, i32(0x7fffffff))
    a.call("negative length", 3, i32(-2))
    a.call("null path", 3, i32(-1) + b"\0")
    a.call("delete null", 2, i32(-1) + i32(-1))
    a.call("set null", 5, i32(-1) + buf(b"x") + i32(-1))
    a.call("setACL null", 7, i32(-1) + acl(OPEN) + i32(-1))
    a.call("sync null", 9, i32(-1))
    a.multi("null path", [(1, op_create(None))])
    a.multi("null path in check", [(13, op_version(None, 0))])
    for opcode in (0, -1, 10, 13, 23, 99, 108, 999):
        client = Client("unknown")
        client.call(f"opcode {opcode}", opcode)
        client.closed()
    for name, data in (("short frame", i32(4) + i32(1)), ("empty frame", i32(0)),
                       ("negative frame", i32(-5)), ("too long", i32(1 << 25))):
        client = Client(name)
        client.raw(data)
        client.closed()
    client = Client("reconfig")
    client.call("reconfig", 16, buf(None) * 3 + i64(-1))
    section("pipelining")
    client = Client("pipe")
    client.create("/pipe", b"0")
    for number in range(3):
        client.send(5, buf(b"/pipe") + buf(str(number).encode()) + i32(-1))
        client.send(4, buf(b"/pipe") + b"\0")
    for number in range(3):
        client.receive()
        say(f"pipe get: {client.receive(lambda r: r.buf())}")
    section("closing")
    client = Client("closer")
    client.create("/close-e", flags=1)
    watcher = Client("watcher")
    watcher.exists("/close-e", True)
    client.exists("/close-e", True)
    client.call("closeSession", -11)
    client.closed()
    watcher.exists("/close-e")
    gone = Client("gone", session=client.session, password=client.password)
    say(f"renewing a closed session: {gone.timeout}")


def main():
    first = Client("first")
    first.create("/t-", flags=3)
    handshakes()
    a, b = Client("a"), Client("b")
    a.create("/warm")
    basics(a)
    multis(a)
    watches(a, b)
    permissions(a, b)
    odd()


if __name__ == "__main__":
    main()
