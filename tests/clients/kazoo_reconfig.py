"""Changes the members of an ensemble of one through kazoo, and prints a normalised transcript.

usage: kazoo_reconfig.py PORT
"""

import logging
import re
import sys

from kazoo.client import KazooClient

logging.disable(logging.CRITICAL)
zk = KazooClient(hosts=f"127.0.0.1:{sys.argv[1]}", timeout=30)
zk.start(timeout=60)


def text(data):
    """Without the ports of the server itself and without the version."""
    shown = re.sub(r"server\.1=\S+", "server.1=...", data.decode())
    return re.sub(r"version=\w+", "version=...", shown).split("\n")


def version():
    return int(re.search(r"version=(\w+)", zk.get("/zookeeper/config")[0].decode())[1], 16)


def change(label, joining=None, leaving=None, new_members=None, from_config=-1):
    before = version()
    try:
        data, stat = zk.reconfig(joining, leaving, new_members, from_config)
        print(f"{label}: {text(data)} {stat.dataLength == len(data)} {before < version()}")
    except Exception as error:  # the transcript shows which
        print(f"{label}: {type(error).__name__} {before == version()}")
    print(f"{label}, shown: {text(zk.get('/zookeeper/config')[0])}")


own = zk.get("/zookeeper/config")[0].decode().split("\n")[0]
change("joins", joining="server.2=127.0.0.1:1001:1002:observer;127.0.0.1:1003")
change("two join",
       joining="server.3=127.0.0.1:1011:1012:observer;1013,"
               "server.4=127.0.0.1:1021:1022:observer;1023")
change("leaves", leaving="2")
change("joins and leaves", joining="server.5=127.0.0.1:1031:1032:observer;1033", leaving="3,4")
change("another version", leaving="5", from_config=version() + 1)
change("that version", leaving="5", from_config=version())
change("whole list", new_members=own + ",server.6=127.0.0.1:1041:1042:observer;1043")
change("whole list and more", joining="server.7=127.0.0.1:1051:1052:observer;1053",
       new_members=own)
change("no quorum", joining="server.7=127.0.0.1:1051:1052:participant;1053")
change("nobody is left", leaving="1")
change("not there", leaving="99")
change("wrong", joining="server.x=127.0.0.1")
change("nothing")
change("whole list again", new_members=own)
zk.stop()
