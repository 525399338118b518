"""Drives a ZooKeeper server through kazoo's recipes and asynchronous calls; see kazoo_surface.py.

usage: kazoo_recipes.py PORT
"""

import datetime
import sys
import threading
import time

from kazoo.exceptions import LockTimeout
from kazoo.recipe.cache import TreeCache
from kazoo.recipe.lease import MultiNonBlockingLease, NonBlockingLease
from kazoo.recipe.partitioner import SetPartitioner
from kazoo.recipe.watchers import PatientChildrenWatch
from kazoo.retry import KazooRetry

from kazoo_surface import client, show


def eventually(label, holds):
    for _ in range(2400):
        if holds():
            print(f"{label}: True")
            return
        time.sleep(0.025)
    print(f"{label}: never")


def in_thread(call):
    """Runs a call in a thread; the result is asked for by calling what is returned."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()

    def result():
        thread.join(20)
        return results[0] if results else "never"
    return result


def locks(one, two):
    mine, theirs = one.Lock("/locks/plain", "one"), two.Lock("/locks/plain", "two")
    show("acquire", mine.acquire)
    show("held, not blocking", lambda: theirs.acquire(blocking=False))
    try:
        theirs.acquire(timeout=0.1)
    except LockTimeout:
        print("held: LockTimeout")
    waiting = in_thread(lambda: theirs.acquire(timeout=60))
    eventually("two contenders", lambda: len(mine.contenders()) == 2)
    show("contenders", mine.contenders)
    mine.release()
    print("handed over:", waiting())
    theirs.release()
    readers = [zk.ReadLock("/locks/rw") for zk in (one, two)]
    writer = two.WriteLock("/locks/rw")
    print("two readers:", [lock.acquire(timeout=60) for lock in readers])
    show("a writer beside readers", lambda: writer.acquire(blocking=False))
    for lock in readers:
        lock.release()
    show("a writer alone", lambda: writer.acquire(timeout=60))
    show("a reader beside a writer", lambda: readers[0].acquire(blocking=False))
    writer.release()
    semaphores = [zk.Semaphore("/locks/semaphore", max_leases=2) for zk in (one, two, one)]
    print("leases:", [one.acquire(blocking=False) for one in semaphores])
    semaphores[0].release()
    show("after release", lambda: semaphores[2].acquire(timeout=60))
    show("holders", lambda: len(semaphores[1].lease_holders()))


def elections(one, two):
    first, second = one.Election("/election", "one"), two.Election("/election", "two")
    led, leave = threading.Event(), threading.Event()

    def lead():
        led.set()
        leave.wait(20)
    done = in_thread(lambda: first.run(lead))
    led.wait(20)
    order = []
    behind = in_thread(lambda: second.run(lambda: order.append("two")))
    eventually("two contenders", lambda: len(first.contenders()) == 2)
    show("contenders", second.contenders)
    print("waits:", order)
    leave.set()
    print("first ends:", done())
    print("second leads:", behind(), order)


def queues(one, two):
    queue = one.Queue("/queue")
    for item, priority in ((b"late", 900), (b"soon", 1), (b"plain", 100)):
        queue.put(item, priority=priority)
    print("length:", len(queue))
    print("by priority:", [two.Queue("/queue").get() for _ in range(4)])
    source, sink = one.LockingQueue("/locking"), two.LockingQueue("/locking")
    source.put(b"low", priority=200)
    source.put_all([b"one", b"two"], priority=10)
    show("locked item", lambda: sink.get(timeout=60))
    show("holds the lock", sink.holds_lock)
    show("another item for another", lambda: source.get(timeout=60))
    show("consume", sink.consume)
    show("release", source.release)
    print("the rest:", [(sink.get(timeout=60), sink.consume()) for _ in range(2)])


def barriers(one, two):
    barrier = one.Barrier("/barrier")
    barrier.create()
    show("stands", lambda: two.Barrier("/barrier").wait(timeout=0.1))
    waiting = in_thread(lambda: two.Barrier("/barrier").wait(timeout=60))
    show("remove", barrier.remove)
    print("falls:", waiting())

    def through(zk):
        double = zk.DoubleBarrier("/double", 2)
        double.enter()
        double.leave()
        return double.participating
    both = [in_thread(lambda zk=zk: through(zk)) for zk in (one, two)]
    print("double barrier:", [each() for each in both])


def counters(one, two):
    def add(zk):
        counter = zk.Counter("/counter", default=100)
        for _ in range(20):
            counter += 1
    both = [in_thread(lambda zk=zk: add(zk)) for zk in (one, two, one)]
    print("threads end:", [each() for each in both])
    print("counter:", one.Counter("/counter", default=100).value)
    floats = one.Counter("/float", default=1.5)
    floats -= 1.0
    print("float:", floats.value)


def parties(one, two):
    party, shallow = one.Party("/party", "one"), two.ShallowParty("/shallow", "two")
    party.join()
    two.Party("/party", "two").join()
    shallow.join()
    print("party:", sorted(party), len(party), "one" in party)
    print("shallow:", list(shallow))
    party.leave()
    eventually("left", lambda: sorted(party) == ["two"])


def watchers(one, two):
    data, children = [], []
    two.create("/watched", b"0")

    @one.DataWatch("/watched")
    def on_data(value, stat, event):
        data.append((value, event and event.type))

    @one.ChildrenWatch("/watched", send_event=True)
    def on_children(names, event):
        children.append((sorted(names), event and event.type))
    for number in (1, 2):
        two.set("/watched", b"%d" % number)
        eventually("data", lambda: len(data) == number + 1)
        two.create(f"/watched/{number}")
        eventually("children", lambda: len(children) == number + 1)
    print("data watch:", data)
    print("children watch:", children)
    patient = PatientChildrenWatch(one, "/watched", time_boundary=0.2).start()
    print("patient:", sorted(patient.get(timeout=60)[0]))
    cache = TreeCache(one, "/watched")
    cache.start()
    eventually("tree cache", lambda: cache.get_children("/watched") == {"1", "2"})
    two.create("/watched/1/deep", b"d")
    eventually("sees below", lambda: cache.get_data("/watched/1/deep") is not None)
    two.delete("/watched/1/deep")
    eventually("sees deletions", lambda: cache.get_data("/watched/1/deep") is None)
    cache.close()


def leases(one, two):
    hour = datetime.timedelta(hours=1)
    print("lease:", bool(NonBlockingLease(one, "/lease", hour, identifier="one")))
    print("taken:", bool(NonBlockingLease(two, "/lease", hour, identifier="two")))
    print("renewed:", bool(NonBlockingLease(one, "/lease", hour, identifier="one")))
    many = [bool(MultiNonBlockingLease(one, 2, "/leases", hour, identifier=str(number)))
            for number in range(3)]
    print("two of three:", many)


def partitions(one, two):
    both = [SetPartitioner(zk, "/partitions", set("abcd"), identifier=name, time_boundary=0.5)
            for zk, name in ((one, "one"), (two, "two"))]

    def acquired():
        for each in both:
            if each.release:
                each.release_set()
            elif not each.acquired:
                each.wait_for_acquire(0.1)
        return all(each.acquired for each in both) and sum(len(list(each)) for each in both) == 4
    eventually("partitioned", acquired)
    print("shares:", [sorted(each) for each in both])
    for each in both:
        each.finish()


def asynchronous(one):
    one.ensure_path("/async")
    calls = [one.create_async("/async/a", b"1"), one.get_async("/async/a"),
             one.set_async("/async/a", b"2"), one.exists_async("/async/a"),
             one.get_children_async("/async"), one.get_acls_async("/async/a"),
             one.sync_async("/async"), one.delete_async("/async/none"),
             one.delete_async("/async/a")]
    for call in calls:
        try:
            result = call.get(timeout=60)
            plain = isinstance(result, (str, list))
            print("async:", type(result).__name__, result if plain else "")
        except Exception as error:  # the transcript shows which
            print("async:", type(error).__name__)
    linked = []
    again = one.create_async("/async/linked")
    again.rawlink(lambda call: linked.append(call.get()))
    eventually("linked", lambda: linked == ["/async/linked"])
    print("retry:", KazooRetry(max_tries=3)(one.ensure_path, "/async/deep/er"))
    below = client()
    below.chroot = "/async"
    show("chroot", lambda: below.get_children("/"))
    show("created in it", lambda: below.create("/c", ephemeral=True))
    below.stop()
    print("recursive:", one.delete("/async", recursive=True), one.exists("/async"))


def restart(one, two):
    """The server dies and comes back: sessions, locks and watches go on."""
    lock = one.Lock("/restart/lock", "one")
    lock.acquire()
    two.create("/restart/data", b"0")
    seen, names = [], []
    one.DataWatch("/restart/data", lambda value, stat: seen.append(value))
    one.ChildrenWatch("/restart", lambda children: names.append(sorted(children)))
    session = one.client_id[0]
    states = []
    one.add_listener(states.append)
    print("RESTART", flush=True)
    sys.stdin.readline()
    again = KazooRetry(max_tries=-1, delay=0.1, backoff=1, max_delay=0.2)
    again(two.set, "/restart/data", b"1")
    eventually("data watch", lambda: seen[-1:] == [b"1"])
    print("states:", states, "the same session:", one.client_id[0] == session)
    show("lock is held", lambda: two.Lock("/restart/lock").acquire(blocking=False))
    lock.release()
    show("lock is free", lambda: two.Lock("/restart/lock").acquire(timeout=60))
    two.create("/restart/new")
    eventually("children watch", lambda: names[-1:] == [["data", "lock", "new"]])


def main():
    one, two = client(), client()
    locks(one, two)
    elections(one, two)
    queues(one, two)
    barriers(one, two)
    counters(one, two)
    parties(one, two)
    watchers(one, two)
    leases(one, two)
    partitions(one, two)
    asynchronous(one)
    restart(one, two)
    one.stop()
    two.stop()


main()
