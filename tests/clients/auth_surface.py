"""Authentication keys over raw sockets; see raw_surface.py.

usage: auth_surface.py PORT

Needs a server with enforce.auth.enabled=true, enforce.auth.schemes=digest, the ensemble provider
with ensembleAuthName=red,blue, digestAlg=SHA-256 and reconfigEnabled=true.
"""

import sys

from raw_surface import Client, buf, i32, i64, say, section


def enforced():
    section("enforced")
    ops = [("ping", 11, b""), ("exists", 3, buf(b"/") + b"\0"), ("closeSession", -11, b""),
           ("create", 1, buf(b"/x") + buf(b"") + i32(0) + i32(0)), ("undecodable", 4, b"\0"),
           ("setWatches", 101, i64(0) + i32(0) * 3), ("unknown", 999, b""), ("whoAmI", 107, b"")]
    for label, opcode, body in ops:
        client = Client("nobody")
        client.call(label, opcode, body)
        client.closed()
    client = Client("sasl")
    client.call("token", 102, buf(b""), lambda b: b.buf())
    client.call("exists", 3, buf(b"/") + b"\0")
    client.closed()


def ensembles():
    section("ensembles")
    for name in (b"red", b"blue", b"green", b"", None, b"RED"):
        client = Client("seeker")
        client.auth(b"ensemble", name)
        client.auth(b"digest", b"u:p")
        client.exists("/")


def digests():
    section("digests")
    client = Client("known")
    client.auth(b"digest", b"u:p")
    client.create("/d", entries=[(31, b"auth", b"")])
    client.get_acl("/d")
    other = Client("other")
    other.auth(b"digest", b"u:q")
    other.get("/d")
    again = Client("again")
    again.auth(b"digest", b"u:p")
    again.get("/d")
    boss = Client("boss")
    boss.auth(b"digest", b"super:secret")
    boss.get("/d")
    boss.call("reconfig", 16, buf(b"server.2=a:1:2") + buf(b"") + buf(b"") + i64(-1))
    boss.call("reconfig null", 16, buf(None) + buf(None) + buf(None) + i64(-1))


def addresses():
    section("addresses")
    client = Client("ip")
    client.auth(b"digest", b"u:p")
    for number, entry in enumerate([
            b"127.0.0.1", b"127.0.0.1/32", b"127.0.0.0/8", b"127.0.0.0/0", b"10.0.0.0/8",
            b"127.0.0.1/33", b"127.0.0.1/-1", b"127.0.0.1/", b"127.0.0.1/8/9", b"127.0.0.1/+8",
            b"0127.0.0.1", b"127.0.0.256", b"127.0.0", b"127.0.0.1.", b"127.0.0.+1", b"",
            b"::1", b"::1/128", b"::/0", b"::/129", b"fe80::/10", b"::ffff:127.0.0.1", b"1::2::3",
            b"1:2:3:4:5:6:7:8", b"1:2:3:4:5:6:7", b"1:2:3:4:5:6:7::", b"1:2:3:4:5:6:7:8::",
            b"::12345", b"::g", b":1", b"1:", b":", b"::", b":::", b"fe80::1%eth0", b"::+1",
            b"::-1", b"127.0.0.1 ", b"/8", b"127.0.0.1/08", b"::1/0", b"0:0:0:0:0:0:0:1"]):
        path = f"/ip{number}"
        client.create(path, entries=[(31, b"ip", entry)])
        client.get(path)


def main():
    enforced()
    ensembles()
    digests()
    addresses()


if __name__ == "__main__":
    sys.exit(main())
