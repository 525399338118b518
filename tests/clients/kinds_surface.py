"""Containers, TTL znodes and quotas over raw sockets; see raw_surface.py.

usage: kinds_surface.py PORT

Needs a server with enforceQuota=true, extendedTypesEnabled=true and a container check every 200 ms.
"""

import sys
import time

from raw_surface import Client, buf, i64, op_create, op_version, say, section

LIMITS, STATS = "zookeeper_limits", "zookeeper_stats"

# ms; what is looked at before it ends is looked at by then.
TTL = 8000
SESSION = 600000


def gone(client, path):
    """Waits until a znode is reaped."""
    for _ in range(2400):
        client.xid += 1
        client.send(3, buf(path.encode()) + b"\0", client.xid)
        line = client.receive()
        while line.startswith("event"):
            say(line)
            line = client.receive()
        if line.startswith("err -101"):
            say(f"reaped {path}")
            return
        time.sleep(0.05)
    say(f"still there: {path}")


def containers(client):
    section("containers")
    client.create("/c", opcode=19, flags=4)
    client.exists("/c")
    client.create("/unused", opcode=19, flags=4)
    client.create("/c/child")
    client.create("/cs-", opcode=19, flags=2)
    client.children("/", opcode=8)
    time.sleep(0.5)
    client.exists("/c")
    client.exists("/c", True)
    client.delete("/c/child")
    gone(client, "/c")
    time.sleep(0.5)
    client.exists("/unused")
    client.multi("containers", [(19, op_create(b"/mc", flags=4)), (1, op_create(b"/mp", flags=4)),
                                (1, op_create(b"/mc/x")), (1, op_create(b"/mp/x"))])
    client.multi("emptied", [(2, op_version(b"/mc/x", -1)), (2, op_version(b"/mp/x", -1))])
    gone(client, "/mc")
    gone(client, "/mp")


def ttls(client):
    section("ttl")
    for ttl, flags in ((0, 5), (-1, 5), (1 << 40, 5), ((1 << 40) - 1, 5), (1, 0), (1, 4), (5, 7)):
        client.create(f"/bad{ttl}-{flags}", opcode=21, flags=flags, ttl=ttl)
    client.create("/flag5", flags=5)
    client.create("/flag6", flags=6)
    client.create("/ts-", opcode=21, flags=6, ttl=10000000)
    client.create("/parent", opcode=21, flags=5, ttl=TTL)
    client.create("/parent/child")
    client.create("/t", opcode=21, flags=5, ttl=TTL)
    client.exists("/t")
    # What is younger is gone: its child keeps the other one.
    gone(client, "/t")
    client.exists("/parent")
    client.delete("/parent/child")
    gone(client, "/parent")
    client.multi("ttl", [(21, op_create(b"/mt", flags=5) + i64(TTL))])
    client.multi("ttl without its flag", [(21, op_create(b"/mt2") + i64(TTL))])
    client.multi("ttl of 0", [(21, op_create(b"/mt3", flags=5) + i64(0))])
    gone(client, "/mt")
    client.exists("/mt2")


def quota(client, root, limits):
    """Sets limits as the command line does."""
    path = "/zookeeper/quota"
    for name in root.split("/")[1:]:
        path += "/" + name
        client.create(path)
    client.create(f"{path}/{LIMITS}", limits)
    client.create(f"{path}/{STATS}", b"count=0,bytes=0")
    client.get(f"{path}/{STATS}")


def quotas(client):
    section("quotas")
    client.create("/q", b"12345")
    client.create("/q/a", b"1")
    quota(client, "/q", b"count=4,bytes=-1=;byteHardLimit=20;countHardLimit=5")
    stats = f"/zookeeper/quota/q/{STATS}"
    client.create("/q/b", b"22")
    client.get(stats)
    client.create("/q/c")
    client.create("/q/d")
    client.create("/q/e")
    client.get(stats)
    client.set("/q/a", b"x" * 13)
    client.set("/q/a", b"x" * 14)
    client.get(stats)
    client.set("/q/a", b"x")
    client.delete("/q/d")
    client.get(stats)
    client.exists(stats)
    client.multi("over the limit", [(1, op_create(b"/q/m1")), (1, op_create(b"/q/m2"))])
    client.get(stats)
    client.create("/q/e/too-much", b"x" * 30)
    section("nested quotas")
    client.create("/n")
    client.create("/n/inner")
    quota(client, "/n", b"count=10,bytes=10")
    quota(client, "/n/inner", b"count=10,bytes=10")
    client.create("/n/inner/x", b"123")
    client.create("/n/y", b"1234")
    client.get(f"/zookeeper/quota/n/{STATS}")
    client.get(f"/zookeeper/quota/n/inner/{STATS}")
    client.set("/n/y", b"x" * 50)
    client.create("/n/z-", flags=3)
    client.get(f"/zookeeper/quota/n/{STATS}")
    client.delete(f"/zookeeper/quota/n/{LIMITS}")
    client.create("/n/w", b"1234")
    client.get(f"/zookeeper/quota/n/{STATS}")
    section("lowered limits")
    client.set(f"/zookeeper/quota/q/{LIMITS}", b"count=1,bytes=1=;byteHardLimit=1;countHardLimit=1")
    client.set("/q/a", b"")
    client.delete("/q/a")
    client.get(stats)


def restart(client):
    section("restart")
    client.create("/rc", opcode=19, flags=4)
    client.create("/rc/child")
    client.create("/re", flags=1)
    client.create("/rt", opcode=21, flags=5, ttl=TTL)
    client.create("/rq")
    client.create("/rq/a", b"12345")
    quota(client, "/rq", b"count=3,bytes=-1=;countHardLimit=3")
    print("RESTART", flush=True)
    sys.stdin.readline()
    again = Client("again", session=client.session, password=client.password, seen=Client.base,
                   timeout=SESSION)
    say(f"the same session: {again.session == client.session}")
    gone(again, "/rt")
    again.exists("/rc")
    again.exists("/re")
    again.delete("/rc/child")
    gone(again, "/rc")
    again.get(f"/zookeeper/quota/rq/{STATS}")
    again.create("/rq/b", b"1")
    again.create("/rq/c")
    again.get(f"/zookeeper/quota/rq/{STATS}")


def main():
    client = Client("a", timeout=SESSION)
    containers(client)
    ttls(client)
    quotas(client)
    restart(client)


main()
