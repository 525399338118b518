"""What the audit log tells of, over raw sockets; see raw_surface.py.

usage: audit_surface.py PORT

Needs a server with audit.enable=true, extendedTypesEnabled=true and a container check every 200 ms.
Its audit log is what is compared.
"""

from raw_surface import OPEN, Client, buf, i64, op_create, op_set, op_version, say, section


def creates(client):
    section("creates")
    for opcode in (1, 15):
        for flags in range(7):
            client.create(f"/c{opcode}-{flags}-", flags=flags, opcode=opcode)
    client.create("/container", flags=4, opcode=19)
    client.create("/container", flags=4, opcode=19)
    client.create("/container-", flags=2, opcode=19)
    for flags in (0, 5, 6):
        client.create(f"/t-{flags}-", flags=flags, opcode=21, ttl=1_000_000)
    client.create("/t-0", flags=5, opcode=21, ttl=0)
    client.create("/container")
    client.create("/none/x", flags=1)
    client.create("/none/x", flags=2, opcode=15)
    client.create("/no slash at end/")
    client.create("no slash")
    client.create("/a b=c,d")
    client.create("/\u00fc")
    client.create("/null data", data=None)
    client.create("/no acl", entries=[])
    client.create("/null acl", entries=None)
    client.create("/bad acl", entries=[(31, b"nope", b"x")])


def changes(client):
    section("changes")
    client.set("/container", b"1")
    client.set("/container", b"1", version=7)
    client.set("/none")
    client.set("bad")
    for perms in (1, 31, 0, -1, 32, 22):
        client.set_acl("/container", [(perms, b"world", b"anyone")])
    client.set_acl("/container", OPEN)
    client.set_acl("/container", [(31, b"ip", b"127.0.0.1")], version=99)
    client.set_acl("/none", OPEN)
    client.set_acl("/container", [])
    client.set_acl("/container", [(31, b"nope", b"x")])
    client.set_acl("/container", [(31, b"auth", b"")])
    client.delete("/container", version=99)
    client.delete("/container")
    client.delete("/container")
    client.delete("/")
    client.delete("bad")


def multis(client):
    section("multis")
    client.multi("good", [(1, op_create(b"/m")), (15, op_create(b"/m/2", flags=1)),
                          (19, op_create(b"/m/c", flags=4)), (1, op_create(b"/m/four", flags=4)),
                          (5, op_set(b"/m", b"x", -1)), (13, op_version(b"/m", -1)),
                          (2, op_version(b"/m/2", -1))])
    client.multi("failed", [(1, op_create(b"/f")), (13, op_version(b"/m", 77)),
                            (2, op_version(b"/m", -1))])
    client.multi("failed at once", [(2, op_version(b"/none", -1))])
    client.multi("empty", [])
    client.multi("checks", [(13, op_version(b"/m", -1))])
    client.multi("failed check", [(13, op_version(b"/none", -1))])


def others(client):
    section("others")
    client.exists("/m")
    client.children("/m")
    client.call("sync", 9, buf(b"/"), lambda b: b.buf())
    client.call("ping", 11, xid=-2)
    client.call("reconfig", 16, buf(b"server.2=a:1:2") + buf(b"") + buf(b"") + i64(-1))


def reaped(client):
    section("reaped")
    client.create("/r", flags=4, opcode=19)
    client.create("/r/child")
    watcher = Client("watcher")
    watcher.exists("/r", True)
    client.delete("/r/child")
    say(watcher.receive())


def users():
    section("users")
    client = Client("u")
    client.auth(b"digest", b"user:secret")
    client.create("/u", entries=[(31, b"auth", b"")])
    client.set_acl("/u", [(31, b"auth", b"")])
    other = Client("other")
    other.set("/u")
    other.delete("/u")
    other.auth(b"digest", b"u=v:secret")
    other.set("/u")
    boss = Client("boss")
    boss.auth(b"digest", b"super:secret")
    boss.set("/u")
    boss.delete("/u")


def sessions():
    section("sessions")
    client = Client("owner")
    client.auth(b"digest", b"user:secret")
    for name in ("a", "b", "c"):
        client.create(f"/e-{name}", flags=1)
    client.delete("/e-b")
    client.call("closeSession", -11)
    client.closed()
    client = Client("gone", timeout=4000)
    client.create("/e-d", flags=1)
    client.sock.close()
    watcher = Client("watcher")
    watcher.exists("/e-d", True)
    watcher.sock.settimeout(30)
    say(watcher.receive())


def main():
    client = Client("a")
    creates(client)
    changes(client)
    multis(client)
    others(client)
    reaped(client)
    users()
    sessions()


if __name__ == "__main__":
    main()
