"""A kazoo client of a server without a quorum: argument 1 is the servers, 2 a file to make when
reads were served. Then it waits for a quorum, and writes."""
import sys
import time

from kazoo.client import KazooClient, KazooState, KeeperState
from kazoo.exceptions import NotReadOnlyCallError

servers, told = sys.argv[1:]
client = KazooClient(hosts=servers, read_only=True, timeout=10)
client.start(timeout=60)
assert client.client_state == KeeperState.CONNECTED_RO, client.client_state
assert client.get("/a")[0] == b"here"
assert "a" in client.get_children("/")
for write in (
    lambda: client.set("/a", b"there"),
    lambda: client.create("/new"),
    lambda: client.delete("/a"),
    lambda: client.sync("/"),
):
    try:
        write()
    except NotReadOnlyCallError:
        continue
    raise AssertionError("a write was done")
assert client.get("/a")[0] == b"here"
open(told, "w").close()

deadline = time.time() + 80
while client.client_state != KeeperState.CONNECTED:
    assert time.time() < deadline, client.client_state
    time.sleep(0.05)
assert client.state == KazooState.CONNECTED
client.retry(client.set, "/a", b"there")
client.create("/mine", ephemeral=True)
assert client.get("/a")[0] == b"there"
client.stop()
