"""Drives a ZooKeeper server through kazoo and prints a normalised transcript.

usage: kazoo_surface.py PORT
"""

import logging
import re
import sys
import threading

from kazoo.client import KazooClient
from kazoo.retry import KazooRetry
from kazoo.security import make_acl, make_digest_acl

HOSTS = f"127.0.0.1:{sys.argv[1]}"
logging.disable(logging.CRITICAL)


def client(**options):
    made = KazooClient(hosts=HOSTS, timeout=30, **options)
    made.start(timeout=60)
    return made


def stat(value):
    return (f"v {value.version},{value.cversion},{value.aversion} owned {value.ephemeralOwner != 0}"
            f" l {value.dataLength} n {value.numChildren}")


def show(label, call):
    try:
        result = call()
    except Exception as error:  # the transcript shows which
        print(f"{label}: {type(error).__name__}")
        return None
    if isinstance(result, tuple) and len(result) == 2 and hasattr(result[1], "czxid"):
        first = sorted(result[0]) if isinstance(result[0], list) else result[0]
        print(f"{label}: {first} {stat(result[1])}")
    elif hasattr(result, "czxid"):
        print(f"{label}: {stat(result)}")
    elif isinstance(result, list):
        print(f"{label}: {sorted(map(str, result))}")
    else:
        print(f"{label}: {result}")
    return result


class Events:
    """Collects watch events and waits for a number of them."""

    def __init__(self):
        self.events, self.changed = [], threading.Condition()

    def __call__(self, event):
        if event.type == "NONE":
            return  # of the session
        with self.changed:
            self.events.append(f"{event.type} {event.path}")
            self.changed.notify_all()

    def show(self, label, count):
        with self.changed:
            self.changed.wait_for(lambda: count <= len(self.events), timeout=60)
            print(f"{label}: {self.events}")


def data(zk):
    show("create", lambda: zk.create("/k", b"value"))
    show("create again", lambda: zk.create("/k", b"value"))
    show("create below nothing", lambda: zk.create("/none/x"))
    show("makepath", lambda: zk.create("/k/a/b/c", b"deep", makepath=True))
    show("create2", lambda: zk.create("/k/two", b"2", include_data=True))
    show("sequence", lambda: zk.create("/k/s-", sequence=True))
    show("ephemeral", lambda: zk.create("/k/e", ephemeral=True))
    show("below ephemeral", lambda: zk.create("/k/e/x"))
    show("get", lambda: zk.get("/k"))
    show("exists", lambda: zk.exists("/k/e"))
    show("exists not", lambda: zk.exists("/k/none"))
    show("children", lambda: zk.get_children("/k"))
    show("children with stat", lambda: zk.get_children("/k", include_data=True))
    show("set", lambda: zk.set("/k", b"new"))
    show("set with version", lambda: zk.set("/k", b"newer", version=1))
    show("set with wrong version", lambda: zk.set("/k", b"x", version=1))
    show("delete with children", lambda: zk.delete("/k"))
    show("delete with wrong version", lambda: zk.delete("/k/two", version=9))
    show("delete", lambda: zk.delete("/k/two"))
    show("delete nothing", lambda: zk.delete("/k/two"))
    show("sync", lambda: zk.sync("/k"))
    show("large value", lambda: len(zk.create("/k/large", b"x" * 1_000_000)))
    show("large value back", lambda: len(zk.get("/k/large")[0]))
    show("container", lambda: zk.create("/k/container", container=True)
         if "container" in KazooClient.create.__code__.co_varnames else None)


def transactions(zk):
    good = zk.transaction()
    good.create("/tx", b"1")
    good.set_data("/tx", b"2")
    good.check("/tx", 1)
    good.create("/tx/child")
    good.delete("/tx/child")
    print("transaction:", [stat(r) if hasattr(r, "czxid") else r for r in good.commit()])
    bad = zk.transaction()
    bad.create("/tx2")
    bad.check("/tx", 77)
    bad.delete("/tx")
    print("failed:", [type(r).__name__ for r in bad.commit()])
    show("nothing happened", lambda: zk.exists("/tx2"))


def watches(zk, other):
    events = Events()
    zk.exists("/w", watch=events)
    other.create("/w")
    events.show("created", 1)
    zk.get("/w", watch=events)
    zk.get_children("/w", watch=events)
    other.set("/w", b"x")
    other.create("/w/c")
    events.show("changed, child", 3)
    zk.get("/w/c", watch=events)
    zk.get_children("/w", watch=events)
    other.delete("/w/c")
    events.show("deleted, child", 5)
    other.set("/w", b"y")
    zk.sync("/w")
    events.show("one-shot", 5)


def acls(zk, other):
    show("acl", lambda: zk.get_acls("/w")[0])
    zk.add_auth("digest", "user:secret")
    mine = make_digest_acl("user", "secret", all=True)
    show("with digest", lambda: zk.create("/locked", b"s", acl=[mine]))
    show("own", lambda: zk.get("/locked"))
    show("not own", lambda: other.get("/locked"))
    show("not own, children", lambda: other.get_children("/locked"))
    show("not own, set", lambda: other.set("/locked", b"x"))
    everybody = make_acl("world", "anyone", read=True)
    show("set acl", lambda: zk.set_acls("/locked", [mine, everybody]))
    show("now readable", lambda: other.get("/locked"))
    show("masked", lambda: [acl.id.id for acl in other.get_acls("/locked")[0]])
    show("auth scheme", lambda: zk.create("/auth", acl=[make_acl("auth", "", all=True)]))
    show("invalid", lambda: zk.create("/invalid", acl=[make_acl("nope", "x", all=True)]))
    authed = client(auth_data=[("digest", "user:secret")])
    show("another of the same user", lambda: authed.get("/locked"))
    authed.stop()


def sessions(zk):
    owner = client()
    owner.create("/mine", ephemeral=True)
    show("while it lives", lambda: zk.exists("/mine"))
    gone = Events()
    zk.exists("/mine", watch=gone)
    owner.stop()
    gone.show("when it ends", 1)
    # The connection breaks, the session goes on.
    owner = client()
    session = owner.client_id[0]
    owner.create("/mine", ephemeral=True)
    states, again = [], threading.Event()

    def listener(state):
        states.append(state)
        if state == "CONNECTED":
            again.set()
    owner.add_listener(listener)
    owner._connection._socket.shutdown(2)
    again.wait(10)
    print("reconnected:", states, owner.client_id[0] == session)
    show("still there", lambda: owner.exists("/mine"))
    owner.stop()


def recipes(zk):
    lock = zk.Lock("/lock", "me")
    with lock:
        show("contenders", lock.contenders)
    counter = zk.Counter("/counter")
    for _ in range(5):
        counter += 1
    print("counter:", counter.value)
    queue = zk.Queue("/queue")
    for item in (b"a", b"b", b"c"):
        queue.put(item)
    print("queue:", [queue.get() for _ in range(3)])
    chosen = []
    zk.Election("/election", "me").run(lambda: chosen.append("leader"))
    print("election:", chosen)
    many = [zk.create_async("/lock/many-", sequence=True) for _ in range(200)]
    print("pipelined:", len({request.get(timeout=60) for request in many}))


def administration(zk):
    # Ours is another release of the same version.
    show("version", lambda: zk.server_version()[:2])
    show("ruok", zk.command)
    show("isro", lambda: zk.command(b"isro"))
    show("mode", lambda: re.search("Mode: .*", zk.command(b"srvr"))[0])
    show("unknown word", lambda: zk.command(b"nope"))
    member = "server.2=127.0.0.1:1001:1002:observer;1003"
    show("reconfig", lambda: zk.reconfig(member, None, None))
    show("reconfig to a list", lambda: zk.reconfig(None, None, member, from_config=7))
    show("reconfig of nobody", lambda: zk.reconfig(None, None, None))


def hosts(zk):
    """The list of servers is another one from the next connection on."""
    moving = client()
    session = moving.client_id[0]
    moving.create("/moving", ephemeral=True)
    show("another root", lambda: moving.set_hosts(f"{HOSTS}/root"))
    show("another list", lambda: moving.set_hosts(f"localhost:{sys.argv[1]}"))
    states, again = [], threading.Event()

    def listener(state):
        states.append(state)
        if state == "CONNECTED":
            again.set()
    moving.add_listener(listener)
    moving._connection._socket.shutdown(2)
    again.wait(10)
    print("moved:", states, moving.client_id[0] == session, moving.hosts[0][0])
    show("of a session that moved", lambda: zk.exists("/moving"))
    moving.stop()


def restart(zk, other):
    """The server dies and comes back: the session and what belongs to it go on."""
    events = Events()
    zk.create("/restart", b"before", makepath=True)
    zk.create("/restart/mine", ephemeral=True)
    zk.get("/restart", watch=events)
    zk.get_children("/restart", watch=events)
    zk.exists("/restart/later", watch=events)
    session, states = zk.client_id[0], []
    zk.add_listener(states.append)
    print("RESTART", flush=True)
    sys.stdin.readline()
    again = KazooRetry(max_tries=-1, delay=0.1, backoff=1, max_delay=0.2)
    again(zk.sync, "/restart")
    show("ephemeral", lambda: again(other.exists, "/restart/mine"))
    print("states:", states, "the same session:", zk.client_id[0] == session)
    show("auth replayed", lambda: zk.get("/locked"))
    # kazoo has forgotten its watches with the connection, and does not set them again.
    show("set", lambda: other.set("/restart", b"after"))
    show("created", lambda: other.create("/restart/later"))
    zk.sync("/restart")
    events.show("of the connection that broke", 0)
    zk.get("/restart", watch=events)
    other.set("/restart", b"again")
    events.show("set again", 1)


def main():
    zk, other = client(), client()
    data(zk)
    transactions(zk)
    watches(zk, other)
    acls(zk, other)
    sessions(zk)
    recipes(zk)
    administration(zk)
    hosts(zk)
    restart(zk, other)
    zk.stop()
    other.stop()


if __name__ == "__main__":
    main()
