"""A request that is longer than the server takes, through kazoo.

usage: too_long.py PORT

Needs a server with jute.maxbuffer=2000.
"""

import logging
import sys

from kazoo.client import KazooClient

logging.disable(logging.CRITICAL)
states = []
client = KazooClient(hosts=f"127.0.0.1:{sys.argv[1]}")
client.start()
client.add_listener(states.append)
try:
    print("too long:", client.create("/long", b"x" * 3000))
except Exception as error:  # the transcript shows which
    print("too long:", type(error).__name__)
print("the same connection:", not states)
print("short:", client.create("/short"))
client.stop()
