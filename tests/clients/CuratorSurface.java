// Drives a ZooKeeper server through Curator's recipes and prints a normalised transcript.
//
// usage: CuratorSurface PORT
//
// Needs a server with extendedTypesEnabled=true and a container check every 200 ms.

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.CachedAtomicLong;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicInteger;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.atomic.PromotedToLock;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.cache.NodeCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.TreeCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMultiLock;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreMutex;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.locks.Revoker;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.nodes.PersistentTtlNode;
import org.apache.curator.framework.recipes.queue.DistributedDelayQueue;
import org.apache.curator.framework.recipes.queue.DistributedIdQueue;
import org.apache.curator.framework.recipes.queue.DistributedPriorityQueue;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.queue.SimpleDistributedQueue;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.shared.SharedValue;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.retry.RetryNTimes;
import org.apache.curator.x.async.AsyncCuratorFramework;
import org.apache.curator.x.async.api.CreateOption;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.data.Stat;

@SuppressWarnings("deprecation")
public class CuratorSurface {
    static String hosts;
    static CuratorFramework one;
    static CuratorFramework two;
    static final ExecutorService THREADS = Executors.newCachedThreadPool();

    static CuratorFramework open() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.builder().connectString(hosts)
            .sessionTimeoutMs(30000).connectionTimeoutMs(30000)
            .retryPolicy(new RetryNTimes(200, 50)).build();
        client.start();
        client.blockUntilConnected();
        return client;
    }

    static void say(String label, Object result) {
        System.out.println(label + ": " + result);
    }

    static void show(String label, Callable<?> call) {
        try {
            say(label, call.call());
        } catch (Exception error) {
            say(label, error.getClass().getSimpleName());
        }
    }

    /** Waits until something holds. */
    static void eventually(String label, Callable<Boolean> holds) throws Exception {
        for (int round = 0; round < 2400; round++) {
            if (holds.call()) {
                say(label, true);
                return;
            }
            Thread.sleep(25);
        }
        say(label, "never");
    }

    static List<String> children(String path) throws Exception {
        List<String> names = new ArrayList<>(one.getChildren().forPath(path));
        Collections.sort(names);
        return names;
    }

    static void framework() throws Exception {
        say("create", one.create().creatingParentsIfNeeded().forPath("/f/a/b", "x".getBytes()));
        say("create, container parents",
            one.create().creatingParentContainersIfNeeded().forPath("/f/boxes/box/b"));
        say("create or set", one.create().orSetData().forPath("/f/a/b", "y".getBytes()));
        say("idempotent", one.create().idempotent().forPath("/f/i", "1".getBytes()));
        say("idempotent again", one.create().idempotent().forPath("/f/i", "1".getBytes()));
        show("idempotent, differing", () -> one.create().idempotent().forPath("/f/i",
            "2".getBytes()));
        String shielded = one.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL)
            .forPath("/f/p-");
        say("protected", shielded.replaceAll("_c_[0-9a-f-]{36}-", "_c_ID-"));
        Stat stat = new Stat();
        say("get", new String(one.getData().storingStatIn(stat).forPath("/f/a/b")) + " "
            + stat.getVersion());
        say("set", one.setData().withVersion(1).forPath("/f/a/b", "z".getBytes()).getVersion());
        show("set, wrong version", () -> one.setData().withVersion(1).forPath("/f/a/b",
            "z".getBytes()));
        say("idempotent set",
            one.setData().idempotent().withVersion(1).forPath("/f/a/b", "z".getBytes())
                .getVersion());
        say("compressed", one.create().compressed().forPath("/f/zip", new byte[100000]));
        say("decompressed", one.getData().decompressed().forPath("/f/zip").length);
        say("acl", one.getACL().forPath("/f"));
        say("set acl", one.setACL().withACL(Ids.READ_ACL_UNSAFE).forPath("/f/a/b").getAversion());
        show("set without the right", () -> one.setData().forPath("/f/a/b", null));
        say("exists", one.checkExists().forPath("/f/none"));
        one.sync().forPath("/f");
        say("quiet delete", one.delete().quietly().forPath("/f/none"));
        say("guaranteed delete", one.delete().guaranteed().deletingChildrenIfNeeded()
            .forPath("/f/boxes"));
        say("with ttl", one.create().withTtl(100000).withMode(CreateMode.PERSISTENT_WITH_TTL)
            .forPath("/f/t"));
        CuratorFramework below = one.usingNamespace("f/space");
        say("in a namespace", below.create().forPath("/n") + " " + below.getChildren()
            .forPath("/"));
        CountDownLatch done = new CountDownLatch(2);
        one.create().inBackground((client, event) -> {
            say("in background", event.getType() + " " + event.getResultCode() + " "
                + event.getPath());
            done.countDown();
            client.checkExists().inBackground((again, next) -> {
                say("in background", next.getType() + " " + next.getResultCode());
                done.countDown();
            }).forPath("/f/back");
        }).forPath("/f/back");
        done.await(60, TimeUnit.SECONDS);
        CountDownLatch watched = new CountDownLatch(1);
        one.getData().usingWatcher((org.apache.curator.framework.api.CuratorWatcher) event -> {
            say("watched", event.getType() + " " + event.getPath());
            watched.countDown();
        }).forPath("/f/i");
        two.setData().forPath("/f/i", "3".getBytes());
        watched.await(60, TimeUnit.SECONDS);
        say("config", new String(one.getConfig().forEnsemble()));
        say("tree", children("/f").stream().filter(name -> !name.startsWith("_c_"))
            .collect(Collectors.toList()));
    }

    static void transactions() throws Exception {
        List<CuratorTransactionResult> results = one.transaction().forOperations(
            one.transactionOp().create().forPath("/tx", "1".getBytes()),
            one.transactionOp().create().withMode(CreateMode.PERSISTENT_SEQUENTIAL)
                .forPath("/tx/s-"),
            one.transactionOp().setData().withVersion(0).forPath("/tx", "2".getBytes()),
            one.transactionOp().check().withVersion(1).forPath("/tx"),
            one.transactionOp().delete().forPath("/tx/s-0000000000"));
        say("transaction", results.stream().map(result -> result.getType() + " "
            + result.getResultPath())
            .collect(Collectors.toList()));
        show("failing", () -> one.transaction().forOperations(
            one.transactionOp().create().forPath("/tx2"),
            one.transactionOp().check().withVersion(9).forPath("/tx")));
        say("nothing of it", one.checkExists().forPath("/tx2"));
    }

    static void locks() throws Exception {
        InterProcessMutex mine = new InterProcessMutex(one, "/locks/mutex");
        InterProcessMutex theirs = new InterProcessMutex(two, "/locks/mutex");
        CountDownLatch revoked = new CountDownLatch(1);
        mine.makeRevocable(lock -> revoked.countDown());
        mine.acquire();
        say("reentrant", mine.acquire(1, TimeUnit.SECONDS));
        say("held by another", theirs.acquire(100, TimeUnit.MILLISECONDS));
        Revoker.attemptRevoke(two, "/locks/mutex/" + children("/locks/mutex").get(0));
        say("asked to revoke", revoked.await(60, TimeUnit.SECONDS));
        mine.release();
        Future<Boolean> waiting = THREADS.submit(() -> {
            boolean got = theirs.acquire(60, TimeUnit.SECONDS);
            theirs.release();
            return got;
        });
        eventually("participants", () -> mine.getParticipantNodes().size() == 2);
        mine.release();
        say("handed over", waiting.get());

        AtomicInteger inside = new AtomicInteger();
        AtomicInteger worst = new AtomicInteger();
        List<Future<?>> all = new ArrayList<>();
        for (int at = 0; at < 8; at++) {
            InterProcessMutex lock = new InterProcessMutex(at % 2 == 0 ? one : two, "/locks/crowd");
            all.add(THREADS.submit(() -> {
                for (int round = 0; round < 10; round++) {
                    lock.acquire();
                    worst.accumulateAndGet(inside.incrementAndGet(), Math::max);
                    inside.decrementAndGet();
                    lock.release();
                }
                return null;
            }));
        }
        for (Future<?> each : all) {
            each.get(60, TimeUnit.SECONDS);
        }
        say("at most one inside", worst.get());

        InterProcessSemaphoreMutex plain = new InterProcessSemaphoreMutex(one, "/locks/plain");
        plain.acquire();
        say("not reentrant", plain.acquire(100, TimeUnit.MILLISECONDS));
        plain.release();

        InterProcessReadWriteLock first = new InterProcessReadWriteLock(one, "/locks/rw");
        InterProcessReadWriteLock second = new InterProcessReadWriteLock(two, "/locks/rw");
        first.readLock().acquire();
        say("two readers", second.readLock().acquire(60, TimeUnit.SECONDS));
        say("a writer beside readers", second.writeLock().acquire(100, TimeUnit.MILLISECONDS));
        second.readLock().release();
        first.readLock().release();
        first.writeLock().acquire();
        say("downgrade", first.readLock().acquire(60, TimeUnit.SECONDS));
        say("a reader beside a writer", second.readLock().acquire(100, TimeUnit.MILLISECONDS));
        first.writeLock().release();
        say("a reader beside a reader", second.readLock().acquire(60, TimeUnit.SECONDS));

        InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(one, "/locks/semaphore", 3);
        InterProcessSemaphoreV2 other = new InterProcessSemaphoreV2(two, "/locks/semaphore", 3);
        List<Lease> leases = new ArrayList<>(semaphore.acquire(2));
        leases.add(other.acquire());
        say("leases", semaphore.getParticipantNodes().size());
        say("too many", other.acquire(100, TimeUnit.MILLISECONDS));
        semaphore.returnLease(leases.remove(0));
        say("after return", other.acquire(60, TimeUnit.SECONDS) != null);

        InterProcessMultiLock multi = new InterProcessMultiLock(one, List.of("/locks/m1",
            "/locks/m2"));
        say("multi", multi.acquire(60, TimeUnit.SECONDS));
        say("multi is held", new InterProcessMutex(two, "/locks/m2").acquire(100,
            TimeUnit.MILLISECONDS));
        multi.release();
        eventually("empty containers are reaped", () -> two.checkExists()
            .forPath("/locks/m1") == null);
    }

    static void leaders() throws Exception {
        LeaderLatch first = new LeaderLatch(one, "/leaders/latch", "one");
        LeaderLatch second = new LeaderLatch(two, "/leaders/latch", "two");
        first.start();
        first.await(60, TimeUnit.SECONDS);
        second.start();
        eventually("latch participants", () -> second.getParticipants().size() == 2);
        say("leader", second.getLeader().getId() + " " + second.hasLeadership());
        first.close();
        say("successor", second.await(60, TimeUnit.SECONDS) + " " + second.getLeader().getId());
        second.close();

        CountDownLatch led = new CountDownLatch(6);
        AtomicInteger leading = new AtomicInteger();
        AtomicInteger worst = new AtomicInteger();
        List<LeaderSelector> selectors = new ArrayList<>();
        for (int at = 0; at < 3; at++) {
            LeaderSelector selector = new LeaderSelector(at == 0 ? one : two, "/leaders/selector",
                new LeaderSelectorListenerAdapter() {
                    @Override
                    public void takeLeadership(CuratorFramework client) throws Exception {
                        worst.accumulateAndGet(leading.incrementAndGet(), Math::max);
                        Thread.sleep(10);
                        leading.decrementAndGet();
                        led.countDown();
                    }
                });
            selector.setId("s" + at);
            selector.autoRequeue();
            selector.start();
            selectors.add(selector);
        }
        say("everybody led", led.await(60, TimeUnit.SECONDS) + ", at once " + worst.get());
        selectors.forEach(LeaderSelector::close);
    }

    static final QueueSerializer<String> TEXT = new QueueSerializer<String>() {
        @Override
        public byte[] serialize(String item) {
            return item.getBytes();
        }

        @Override
        public String deserialize(byte[] bytes) {
            return new String(bytes);
        }
    };

    /** Keeps what a queue hands out. */
    static final class Taken implements QueueConsumer<String> {
        final List<String> items = Collections.synchronizedList(new ArrayList<>());

        @Override
        public void consumeMessage(String item) {
            items.add(item);
        }

        @Override
        public void stateChanged(CuratorFramework client, ConnectionState state) {
        }

        void show(String label, int count) throws Exception {
            for (int round = 0; round < 2400 && items.size() < count; round++) {
                Thread.sleep(25);
            }
            say(label, items);
        }
    }

    static void queues() throws Exception {
        Taken taken = new Taken();
        try (DistributedQueue<String> queue =
                QueueBuilder.builder(two, taken, TEXT, "/queues/plain").lockPath("/queues/lock")
                    .buildQueue();
            DistributedQueue<String> source =
                QueueBuilder.builder(one, null, TEXT, "/queues/plain").buildQueue()) {
            queue.start();
            source.start();
            for (int at = 0; at < 5; at++) {
                source.put("item " + at);
            }
            taken.show("queue", 5);
        }
        Taken chosen = new Taken();
        try (DistributedPriorityQueue<String> source =
                QueueBuilder.builder(one, null, TEXT, "/queues/priority").buildPriorityQueue(0);
            DistributedPriorityQueue<String> queue =
                QueueBuilder.builder(two, chosen, TEXT, "/queues/priority").buildPriorityQueue(0)) {
            source.start();
            source.put("late", 9);
            source.put("soon", -3);
            source.put("then", 4);
            // All of them are there before one is chosen.
            source.flushPuts(60, TimeUnit.SECONDS);
            queue.start();
            chosen.show("priority queue", 3);
        }
        Taken due = new Taken();
        try (DistributedDelayQueue<String> queue =
                QueueBuilder.builder(one, due, TEXT, "/queues/delay").buildDelayQueue()) {
            queue.start();
            long now = System.currentTimeMillis();
            queue.put("second", now + 3000);
            queue.put("first", now + 50);
            due.show("delay queue", 2);
        }
        Taken named = new Taken();
        try (DistributedIdQueue<String> queue =
                QueueBuilder.builder(one, null, TEXT, "/queues/id").buildIdQueue()) {
            queue.start();
            queue.put("kept", "a");
            queue.put("removed", "b");
            say("removed by id", queue.remove("b"));
            try (DistributedIdQueue<String> reader =
                    QueueBuilder.builder(two, named, TEXT, "/queues/id").buildIdQueue()) {
                reader.start();
                named.show("id queue", 1);
            }
        }
        SimpleDistributedQueue simple = new SimpleDistributedQueue(one, "/queues/simple");
        say("poll of nothing", simple.poll());
        simple.offer("s1".getBytes());
        simple.offer("s2".getBytes());
        say("peek", new String(simple.peek()));
        say("take", new String(simple.take()) + " " + new String(simple.poll(60, TimeUnit.SECONDS)));
    }

    static void barriers() throws Exception {
        DistributedBarrier mine = new DistributedBarrier(one, "/barriers/plain");
        mine.setBarrier();
        say("barrier stands", new DistributedBarrier(two, "/barriers/plain").waitOnBarrier(100,
            TimeUnit.MILLISECONDS));
        Future<Boolean> waiting = THREADS.submit(
            () -> new DistributedBarrier(two, "/barriers/plain").waitOnBarrier(60,
                TimeUnit.SECONDS));
        mine.removeBarrier();
        say("barrier falls", waiting.get());
        List<Future<Boolean>> all = new ArrayList<>();
        for (int at = 0; at < 4; at++) {
            CuratorFramework client = at % 2 == 0 ? one : two;
            all.add(THREADS.submit(() -> {
                DistributedDoubleBarrier barrier = new DistributedDoubleBarrier(client,
                    "/barriers/double", 4);
                return barrier.enter(60, TimeUnit.SECONDS) && barrier.leave(60, TimeUnit.SECONDS);
            }));
        }
        for (Future<Boolean> each : all) {
            say("double barrier", each.get());
        }
    }

    static void change(String root) throws Exception {
        two.create().forPath(root + "/a", "1".getBytes());
        two.create().forPath(root + "/b", "1".getBytes());
        two.create().forPath(root + "/b/deep", "1".getBytes());
        two.setData().forPath(root + "/a", "2".getBytes());
        two.setData().forPath(root + "/b/deep", "2".getBytes());
        two.delete().forPath(root + "/a");
        two.create().withMode(CreateMode.EPHEMERAL).forPath(root + "/e", "1".getBytes());
    }

    static void caches() throws Exception {
        two.create().creatingParentsIfNeeded().forPath("/caches/path");
        try (PathChildrenCache cache = new PathChildrenCache(one, "/caches/path", true)) {
            cache.start(PathChildrenCache.StartMode.POST_INITIALIZED_EVENT);
            change("/caches/path");
            eventually("path cache", () -> cache.getCurrentData().stream()
                .map(child -> child.getPath() + " " + new String(child.getData()))
                .collect(Collectors.toCollection(TreeSet::new)).toString()
                .equals("[/caches/path/b 1, /caches/path/e 1]"));
        }
        two.create().forPath("/caches/tree");
        try (TreeCache cache = new TreeCache(one, "/caches/tree")) {
            cache.start();
            change("/caches/tree");
            eventually("tree cache", () -> {
                var below = cache.getCurrentChildren("/caches/tree");
                var deep = cache.getCurrentData("/caches/tree/b/deep");
                return below != null && below.keySet().equals(new TreeSet<>(List.of("b", "e")))
                    && deep != null && new String(deep.getData()).equals("2");
            });
        }
        two.create().forPath("/caches/curator");
        List<String> events = Collections.synchronizedList(new ArrayList<>());
        try (CuratorCache cache = CuratorCache.build(one, "/caches/curator")) {
            CountDownLatch ready = new CountDownLatch(1);
            cache.listenable().addListener(CuratorCacheListener.builder()
                .forAll((type, before, after) -> events.add(type.name()))
                .forInitialized(ready::countDown).build());
            cache.start();
            ready.await(60, TimeUnit.SECONDS);
            change("/caches/curator");
            eventually("curator cache", () -> cache.stream()
                .map(child -> child.getPath() + " " + child.getStat().getVersion())
                .collect(Collectors.toCollection(TreeSet::new)).toString().equals(
                    "[/caches/curator 0, /caches/curator/b 0, /caches/curator/b/deep 1, "
                    + "/caches/curator/e 0]"));
        }
        NodeCache cache = new NodeCache(one, "/caches/node");
        cache.start(true);
        say("node cache of nothing", cache.getCurrentData());
        two.create().forPath("/caches/node", "1".getBytes());
        eventually("node cache", () -> cache.getCurrentData() != null);
        two.setData().forPath("/caches/node", "2".getBytes());
        eventually("node cache changes", () -> new String(cache.getCurrentData().getData())
            .equals("2"));
        two.delete().forPath("/caches/node");
        eventually("node cache empties", () -> cache.getCurrentData() == null);
        cache.close();

        List<String> seen = Collections.synchronizedList(new ArrayList<>());
        try (PersistentWatcher watcher = new PersistentWatcher(one, "/caches/watched", true)) {
            watcher.getListenable().addListener(event -> seen.add(event.getType() + " "
                + event.getPath()));
            CountDownLatch added = new CountDownLatch(1);
            watcher.getResetListenable().addListener(added::countDown);
            watcher.start();
            added.await(60, TimeUnit.SECONDS);
            two.create().forPath("/caches/watched");
            change("/caches/watched");
            eventually("persistent watcher", () -> seen.size() == 8);
            say("its events", seen);
        }
        CountDownLatch watched = new CountDownLatch(2);
        one.watchers().add().withMode(AddWatchMode.PERSISTENT)
            .usingWatcher((org.apache.zookeeper.Watcher) event -> watched.countDown())
                .forPath("/caches/watched");
        two.setData().forPath("/caches/watched", null);
        two.setData().forPath("/caches/watched", null);
        say("watchers().add()", watched.await(60, TimeUnit.SECONDS));
        one.watchers().removeAll().forPath("/caches/watched");
        show("nothing left to remove", () -> one.watchers().removeAll().forPath("/caches/watched"));
    }

    static void nodes() throws Exception {
        PersistentNode node = new PersistentNode(one, CreateMode.EPHEMERAL, false, "/nodes/kept",
            "1".getBytes());
        node.start();
        say("persistent node", node.waitForInitialCreate(60, TimeUnit.SECONDS));
        two.delete().forPath("/nodes/kept");
        eventually("made again", () -> two.checkExists().forPath("/nodes/kept") != null);
        node.setData("2".getBytes());
        eventually("its data", () -> new String(two.getData().forPath("/nodes/kept")).equals("2"));
        node.close();
        eventually("gone when closed", () -> two.checkExists().forPath("/nodes/kept") == null);

        PersistentTtlNode ttl = new PersistentTtlNode(one, "/nodes/ttl", 1000, "t".getBytes());
        ttl.start();
        say("ttl node", ttl.waitForInitialCreate(60, TimeUnit.SECONDS));
        say("touched", two.checkExists().forPath("/nodes/ttl") != null);
        ttl.close();
        eventually("expires when closed", () -> two.checkExists().forPath("/nodes/ttl") == null);

        try (GroupMember first = new GroupMember(one, "/nodes/group", "one", "1".getBytes());
            GroupMember second = new GroupMember(two, "/nodes/group", "two", "2".getBytes())) {
            first.start();
            second.start();
            eventually("members", () -> first.getCurrentMembers().size() == 2);
            eventually("members for the other", () -> second.getCurrentMembers().size() == 2);
            say("who", new TreeMap<>(first.getCurrentMembers()).keySet());
        }
    }

    static void numbers() throws Exception {
        SharedCount mine = new SharedCount(one, "/numbers/count", 7);
        SharedCount theirs = new SharedCount(two, "/numbers/count", 0);
        mine.start();
        theirs.start();
        say("shared count", mine.getCount() + " " + theirs.getCount());
        mine.setCount(8);
        eventually("the other sees it", () -> theirs.getCount() == 8);
        say("try with an old version", theirs.trySetCount(theirs.getVersionedValue(), 9));
        eventually("and back", () -> mine.getCount() == 9);
        SharedValue value = new SharedValue(one, "/numbers/value", "seed".getBytes());
        value.start();
        value.setValue("grown".getBytes());
        say("shared value", new String(value.getValue()));
        value.close();
        mine.close();
        theirs.close();

        List<Future<Long>> all = new ArrayList<>();
        for (int at = 0; at < 4; at++) {
            CuratorFramework client = at % 2 == 0 ? one : two;
            all.add(THREADS.submit(() -> {
                PromotedToLock promoted = PromotedToLock.builder().lockPath("/numbers/long-lock")
                    .retryPolicy(new ExponentialBackoffRetry(5, 20)).timeout(60, TimeUnit.SECONDS)
                        .build();
                DistributedAtomicLong number = new DistributedAtomicLong(client, "/numbers/long",
                    new RetryNTimes(3, 5), promoted);
                long added = 0;
                for (int round = 0; round < 20; round++) {
                    AtomicValue<Long> result = number.increment();
                    added += result.succeeded() ? 1 : 0;
                }
                return added;
            }));
        }
        long sum = 0;
        for (Future<Long> each : all) {
            sum += each.get(60, TimeUnit.SECONDS);
        }
        DistributedAtomicLong number =
            new DistributedAtomicLong(one, "/numbers/long", new RetryNTimes(3, 5));
        say("atomic long", sum == number.get().postValue());
        say("compare and set", number.compareAndSet(sum, 5L).succeeded());
        say("compare and set, stale", number.compareAndSet(sum, 6L).succeeded());
        say("subtract", number.subtract(3L).postValue());
        DistributedAtomicInteger small =
            new DistributedAtomicInteger(one, "/numbers/int", new RetryNTimes(3, 5));
        say("initialize", small.initialize(3) + " " + small.initialize(4));
        say("add", small.add(10).postValue());
        CachedAtomicLong cached = new CachedAtomicLong(
            new DistributedAtomicLong(one, "/numbers/cached", new RetryNTimes(3, 5)), 10);
        say("cached", cached.next().postValue() + " " + cached.next().postValue());
    }

    static void asynchronous() throws Exception {
        AsyncCuratorFramework async = AsyncCuratorFramework.wrap(one);
        say("async create", async.create().withMode(CreateMode.PERSISTENT).forPath("/async",
            "1".getBytes())
            .toCompletableFuture().get());
        say("async chain", async.getData().forPath("/async")
            .thenCompose(data -> async.setData().forPath("/async", "2".getBytes()))
            .thenCompose(stat -> async.getData().forPath("/async"))
            .thenApply(String::new).toCompletableFuture().get());
        show("async failure", () -> async.delete().forPath("/async/none").toCompletableFuture()
            .get());
        say("async handled", async.delete().forPath("/async/none")
            .handle((nothing, error) -> error.getClass().getSimpleName()).toCompletableFuture()
                .get());
        say("async transaction", async.transaction().forOperations(List.of(
            async.transactionOp().create().forPath("/async/t"),
            async.transactionOp().delete().forPath("/async/t"))).toCompletableFuture().get()
                .size());
        var stage = async.watched().getData().forPath("/async");
        stage.toCompletableFuture().get();
        two.setData().forPath("/async", "3".getBytes());
        say("async event", stage.event().toCompletableFuture().get(60, TimeUnit.SECONDS).getType());
        say("async options", async.create().withOptions(
            Collections.singleton(CreateOption.createParentsIfNeeded)).forPath("/async/x/y/z")
            .toCompletableFuture().get());
        List<java.util.concurrent.CompletableFuture<String>> many = new ArrayList<>();
        for (int at = 0; at < 500; at++) {
            many.add(async.create().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/async/x/m-")
                .toCompletableFuture());
        }
        TreeSet<String> names = new TreeSet<>();
        for (var each : many) {
            names.add(each.get(60, TimeUnit.SECONDS));
        }
        say("pipelined", names.size() + " " + names.first() + " " + names.last());
    }

    /** The server dies and comes back under every kind of recipe. */
    static void restart() throws Exception {
        CountDownLatch back = new CountDownLatch(1);
        List<ConnectionState> states = Collections.synchronizedList(new ArrayList<>());
        one.getConnectionStateListenable().addListener((client, state) -> {
            states.add(state);
            if (state == ConnectionState.RECONNECTED) {
                back.countDown();
            }
        });
        long session = one.getZookeeperClient().getZooKeeper().getSessionId();
        InterProcessMutex lock = new InterProcessMutex(one, "/restart/lock");
        lock.acquire();
        LeaderLatch latch = new LeaderLatch(one, "/restart/latch", "one");
        latch.start();
        latch.await();
        PersistentNode node =
            new PersistentNode(one, CreateMode.EPHEMERAL, false, "/restart/node", "1".getBytes());
        node.start();
        node.waitForInitialCreate(60, TimeUnit.SECONDS);
        CuratorCache cache = CuratorCache.build(one, "/restart");
        cache.start();
        two.create().forPath("/restart/data", "1".getBytes());
        eventually("cache before", () -> cache.get("/restart/data").isPresent());
        NodeCache old = new NodeCache(one, "/restart/data");
        old.start(true);
        SharedCount count = new SharedCount(one, "/restart/count", 1);
        count.start();
        System.out.println("RESTART");
        System.in.read(new byte[100]);
        // Retried until the server is back.
        two.setData().forPath("/restart/data", "2".getBytes());
        back.await(60, TimeUnit.SECONDS);
        say("states", states);
        say("the same session", session == one.getZookeeperClient().getZooKeeper().getSessionId());
        eventually("cache after", () -> cache.get("/restart/data")
            .map(data -> new String(data.getData()).equals("2")).orElse(false));
        eventually("node cache after", () -> new String(old.getCurrentData().getData())
            .equals("2"));
        say("persistent node", two.checkExists().forPath("/restart/node") != null);
        say("lock is held", new InterProcessMutex(two, "/restart/lock").acquire(100,
            TimeUnit.MILLISECONDS));
        lock.release();
        say("lock is free", new InterProcessMutex(two, "/restart/lock").acquire(60,
            TimeUnit.SECONDS));
        eventually("leads again", latch::hasLeadership);
        eventually("counts again", () -> count.trySetCount(count.getVersionedValue(), 2));
        two.create().forPath("/restart/new");
        eventually("watches again", () -> cache.get("/restart/new").isPresent());
        latch.close();
        node.close();
        cache.close();
        old.close();
        count.close();
    }

    public static void main(String[] arguments) throws Exception {
        hosts = "127.0.0.1:" + arguments[0];
        one = open();
        two = open();
        framework();
        transactions();
        locks();
        leaders();
        queues();
        barriers();
        caches();
        nodes();
        numbers();
        asynchronous();
        restart();
        one.close();
        two.close();
        System.exit(0);
    }
}
