"""The four-letter words, normalised; see raw_surface.py.

usage: words_surface.py PORT

Numbers, ids, addresses and dates are replaced, lines of a list are sorted, and of what depends on
the platform only the names are printed.
"""

import re
import socket
import struct
import time

from raw_surface import PORT, Client, buf, i32, say, section

NEEDED = """version server_state avg_latency min_latency max_latency packets_received packets_sent
num_alive_connections outstanding_requests znode_count watch_count ephemerals_count
approximate_data_size uptime global_sessions local_sessions connection_drop_probability
open_file_descriptor_count max_file_descriptor_count""".split()


def ask(data):
    with socket.create_connection(("127.0.0.1", PORT), timeout=60) as sock:
        sock.sendall(data)
        text = b""
        while True:
            part = sock.recv(65536)
            if not part:
                return text.decode()
            text += part


def normal(text):
    text = re.sub(r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d [A-Z]+ \d{4}", "DATE", text)
    text = re.sub(r"/127\.0\.0\.1:\d+", "/PEER", text)
    text = re.sub(r"0x[0-9a-f]+", "HEX", text)
    text = re.sub(r"version: .*", "version: V", text)
    text = re.sub(r"\[\d\]", "[I]", text)
    return re.sub(r"\d+(\.\d+)?", "N", text)


def word(name, order=False):
    section(name)
    text = normal(ask(name.encode()))
    lines = text.split("\n")
    for line in sorted(lines) if order else lines:
        say(f"|{line}|")


def main():
    client = Client("a", timeout=600000)
    client.create("/e", flags=1)
    client.create("/w", b"some data")
    client.create("/w/below", b"some more")
    client.create("/w/gone", b"none")
    client.delete("/w/gone")
    client.get("/w", True)
    client.exists("/later", True)
    client.children("/", True)
    client.children("/w", True)
    client.call("addWatch", 106, buf(b"/persistent") + i32(0))
    client.call("addWatch", 106, buf(b"/recursive") + i32(1))
    time.sleep(0.1)
    for name in ("ruok", "isro", "srvr", "crst", "srst", "dirs", "wchs", "gtmk", "hash"):
        word(name)
    for name in ("stat", "cons", "wchc", "wchp"):
        word(name, True)
    section("ruok with more behind it")
    say(ask(b"ruok\r\n"))
    section("stmk")
    say(ask(b"stmk" + struct.pack(">q", 306)))
    section("conf")
    for line in ask(b"conf").split("\n"):
        key, _, value = line.partition("=")
        shown = key in ("secureClientPort", "tickTime", "maxClientCnxns", "minSessionTimeout",
                        "maxSessionTimeout", "clientPortListenBacklog", "serverId")
        say(f"{key}={value if shown else bool(value)}")
    section("envi")
    for line in ask(b"envi").split("\n"):
        say(line.partition("=")[0])
    section("mntr")
    found = dict(line.split("\t") for line in ask(b"mntr").splitlines())
    for key in NEEDED:
        say(f"zk_{key}: {normal(found.get('zk_' + key, 'missing'))[:1]}")
    section("what they count")
    for key in ("znode_count", "ephemerals_count", "approximate_data_size", "watch_count",
                "global_sessions", "local_sessions"):
        say(f"zk_{key}: {found.get('zk_' + key)}")
    say(ask(b"wchs"))
    say(re.search(r"Zxid: .*\nMode: .*\nNode count: .*\n", ask(b"srvr"))[0])
    section("dump")
    text = normal(ask(b"dump"))
    # Buckets differ in number, and empty ones are shown by some.
    say("\n".join(sorted(set(line for line in text.split("\n") if "expire at" not in line))))
    section("a session that ends")
    client.call("closeSession", -11)
    client.closed()
    word("wchp")


if __name__ == "__main__":
    main()
