// Drives a ZooKeeper server through every call of the Java client and prints a normalised
// transcript.
//
// usage: JavaSurface PORT
//
// Needs a server with enforceQuota=true, extendedTypesEnabled=true and a container check every
// 200 ms.

import static org.apache.zookeeper.ZooDefs.Ids.CREATOR_ALL_ACL;
import static org.apache.zookeeper.ZooDefs.Ids.OPEN_ACL_UNSAFE;
import static org.apache.zookeeper.ZooDefs.Ids.READ_ACL_UNSAFE;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.Watcher.WatcherType;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.cli.DelQuotaCommand;
import org.apache.zookeeper.cli.SetQuotaCommand;
import org.apache.zookeeper.StatsTrack;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

public class JavaSurface {
    static String hosts;

    /** Collects events; each is printed once when asked for. */
    static final class Events implements Watcher {
        final BlockingQueue<String> seen = new LinkedBlockingQueue<>();

        @Override
        public void process(WatchedEvent event) {
            if (event.getType() != EventType.None) {
                seen.add(event.getType() + " " + event.getPath());
            }
        }

        List<String> take(int count) throws Exception {
            List<String> lines = new ArrayList<>();
            for (int at = 0; at < count; at++) {
                lines.add(String.valueOf(seen.poll(60, TimeUnit.SECONDS)));
            }
            return lines;
        }

        void show(String label, int count) throws Exception {
            System.out.println(label + ": " + take(count));
        }

        /** For events that the client itself makes, in no order. */
        void showSorted(String label, int count) throws Exception {
            System.out.println(label + ": " + sorted(take(count)));
        }

        void none(String label) {
            System.out.println(label + ": " + new ArrayList<>(seen));
            seen.clear();
        }
    }

    /** Waits for states of the session. */
    static final class States implements Watcher {
        final BlockingQueue<KeeperState> seen = new LinkedBlockingQueue<>();

        @Override
        public void process(WatchedEvent event) {
            if (event.getType() == EventType.None) {
                seen.add(event.getState());
            }
        }

        void await(KeeperState wanted) throws Exception {
            while (true) {
                KeeperState state = seen.poll(60, TimeUnit.SECONDS);
                if (state == wanted) {
                    return;
                }
                if (state == null) {
                    throw new IllegalStateException("never " + wanted);
                }
            }
        }
    }

    static ZooKeeper open(String chroot, States states) throws Exception {
        ZooKeeper zk = new ZooKeeper(hosts + chroot, 30000, states);
        states.await(KeeperState.SyncConnected);
        return zk;
    }

    /** A client that can lose its connection without closing its session. */
    static final class Droppable extends ZooKeeper {
        Droppable(Watcher watcher) throws Exception {
            super(hosts, 30000, watcher);
        }

        void drop() {
            cnxn.disconnect();
        }
    }

    /** Waits until a client is connected, again if need be. */
    static void connected(ZooKeeper zk) throws Exception {
        while (true) {
            try {
                zk.exists("/", false);
                return;
            } catch (KeeperException.ConnectionLossException error) {
                Thread.sleep(50);
            }
        }
    }

    static String text(Object value) {
        if (value instanceof byte[]) {
            byte[] bytes = (byte[]) value;
            return bytes.length < 100 ? "'" + new String(bytes) + "'" : bytes.length + " bytes";
        }
        if (value instanceof Stat) {
            Stat s = (Stat) value;
            return "v " + s.getVersion() + "," + s.getCversion() + "," + s.getAversion()
                + (s.getEphemeralOwner() == 0 ? "" : " owned") + " l " + s.getDataLength()
                + " n " + s.getNumChildren() + (s.getCzxid() == s.getMzxid() ? " unchanged" : "");
        }
        if (value instanceof List) {
            return ((List<?>) value).stream().map(JavaSurface::text).collect(Collectors.toList())
                .toString();
        }
        if (value instanceof OpResult.ErrorResult) {
            return "error " + ((OpResult.ErrorResult) value).getErr();
        }
        if (value instanceof OpResult.CreateResult) {
            OpResult.CreateResult made = (OpResult.CreateResult) value;
            return made.getPath() + (made.getStat() == null ? "" : " " + text(made.getStat()));
        }
        if (value instanceof OpResult.SetDataResult) {
            return text(((OpResult.SetDataResult) value).getStat());
        }
        if (value instanceof OpResult.GetDataResult) {
            OpResult.GetDataResult got = (OpResult.GetDataResult) value;
            return text(got.getData()) + " " + text(got.getStat());
        }
        if (value instanceof OpResult.GetChildrenResult) {
            return sorted(((OpResult.GetChildrenResult) value).getChildren()).toString();
        }
        if (value instanceof OpResult) {
            return value.getClass().getSimpleName();
        }
        return String.valueOf(value);
    }

    static void show(String label, Callable<?> call) {
        String result;
        try {
            result = text(call.call());
        } catch (KeeperException error) {
            result = error.code() + " " + error.getPath()
                + (error.getResults() == null ? "" : " " + text(error.getResults()));
        } catch (Exception error) {
            result = error.getClass().getSimpleName();
        }
        System.out.println(label + ": " + result);
    }

    static List<String> sorted(List<String> names) {
        List<String> copy = new ArrayList<>(names);
        Collections.sort(copy);
        return copy;
    }

    static void znodes(ZooKeeper zk) throws Exception {
        byte[] data = "data".getBytes();
        for (CreateMode mode : CreateMode.values()) {
            Stat stat = new Stat();
            String path = "/" + mode.toString().toLowerCase() + "-";
            if (mode.isTTL()) {
                show("create " + mode, () -> zk.create(path, data, OPEN_ACL_UNSAFE, mode, stat,
                    60000));
            } else {
                show("create " + mode, () -> zk.create(path, data, OPEN_ACL_UNSAFE, mode, stat));
            }
            System.out.println(text(stat));
        }
        show("null data", () -> zk.create("/null", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        show("get null data", () -> zk.getData("/null", false, null));
        show("again", () -> zk.create("/null", data, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        show("orphan", () -> zk.create("/no/x", data, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        show("below an ephemeral",
            () -> zk.create("/ephemeral-/x", data, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        show("no acl", () -> zk.create("/x", data, new ArrayList<>(), CreateMode.PERSISTENT));
        show("exists", () -> zk.exists("/persistent-", false));
        show("exists not", () -> zk.exists("/none", false));
        Stat stat = new Stat();
        show("get", () -> zk.getData("/persistent-", false, stat));
        System.out.println(text(stat));
        show("set", () -> zk.setData("/persistent-", "more".getBytes(), 0));
        show("set, wrong version", () -> zk.setData("/persistent-", data, 0));
        show("set nothing", () -> zk.setData("/none", data, -1));
        show("children", () -> sorted(zk.getChildren("/", false)));
        show("children with stat", () -> sorted(zk.getChildren("/container-", false, stat)));
        System.out.println(text(stat));
        show("all children", () -> zk.getAllChildrenNumber("/"));
        show("all children of nothing", () -> zk.getAllChildrenNumber("/none"));
        show("ephemerals", () -> sorted(zk.getEphemerals()));
        show("ephemerals below", () -> zk.getEphemerals("/ephemeral_seq"));
        show("delete, wrong version", () -> {
            zk.delete("/persistent-", 7);
            return "deleted";
        });
        show("delete", () -> {
            zk.delete("/persistent-", 1);
            return "deleted";
        });
        show("delete nothing", () -> {
            zk.delete("/persistent-", -1);
            return "deleted";
        });
        show("delete the root of a tree", () -> {
            zk.delete("/zookeeper", -1);
            return "deleted";
        });
        show("large", () -> zk.create("/large", new byte[1000000], OPEN_ACL_UNSAFE,
            CreateMode.PERSISTENT));
        show("large back", () -> zk.getData("/large", false, null));
        show("config", () -> zk.getConfig(false, stat));
        show("who am i", () -> zk.whoAmI().stream().map(who -> who.getAuthScheme() + ":"
            + who.getUser())
            .collect(Collectors.toList()));
    }

    static void short_lived(ZooKeeper zk) throws Exception {
        Events events = new Events();
        zk.create("/ttl", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 8000);
        zk.exists("/ttl", events);
        zk.create("/box", null, OPEN_ACL_UNSAFE, CreateMode.CONTAINER);
        zk.create("/box/x", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        events.show("ttl", 1);
        zk.exists("/box", events);
        zk.delete("/box/x", -1);
        events.show("container", 1);
        show("zero ttl",
            () -> zk.create("/bad", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null,
                0));
    }

    static void multis(ZooKeeper zk) throws Exception {
        byte[] data = "m".getBytes();
        show("multi", () -> zk.multi(List.of(
            Op.create("/m", data, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.create("/m/s-", data, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL),
            Op.create("/m/c", data, OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
            Op.create("/m/t", data, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 60000),
            Op.check("/m", 0),
            Op.setData("/m", "changed".getBytes(), 0),
            Op.delete("/m/c", -1))));
        show("failing multi", () -> zk.multi(List.of(
            Op.create("/m2", data, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.check("/m", 9),
            Op.delete("/m", -1))));
        show("nothing of it", () -> zk.exists("/m2", false));
        show("empty multi", () -> zk.multi(List.of()));
        show("multi read", () -> zk.multi(List.of(
            Op.getData("/m"), Op.getChildren("/m"), Op.getData("/none"), Op.getChildren("/none"))));
        show("transaction", () -> zk.transaction().create("/tx", data, OPEN_ACL_UNSAFE,
            CreateMode.EPHEMERAL)
            .check("/tx", 0).setData("/tx", data, 0).delete("/tx", 1).commit());
    }

    static void watches(ZooKeeper zk, ZooKeeper other) throws Exception {
        Events data = new Events();
        Events child = new Events();
        Events exist = new Events();
        zk.exists("/w", exist);
        other.create("/w", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        exist.show("created", 1);
        zk.getData("/w", data, null);
        zk.getChildren("/w", child);
        other.setData("/w", null, -1);
        data.show("changed", 1);
        other.create("/w/a", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        child.show("child", 1);
        zk.getData("/w/a", data, null);
        zk.getChildren("/w/a", child);
        zk.exists("/w/a", exist);
        other.delete("/w/a", -1);
        data.show("deleted, data", 1);
        child.show("deleted, children", 1);
        exist.show("deleted, exists", 1);

        Events persistent = new Events();
        Events recursive = new Events();
        zk.addWatch("/w", persistent, AddWatchMode.PERSISTENT);
        zk.addWatch("/w", recursive, AddWatchMode.PERSISTENT_RECURSIVE);
        for (int round = 0; round < 2; round++) {
            other.create("/w/b", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            other.create("/w/b/c", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            other.setData("/w/b/c", null, -1);
            other.delete("/w/b/c", -1);
            other.delete("/w/b", -1);
            other.setData("/w", null, -1);
        }
        persistent.show("persistent", 6);
        recursive.show("recursive", 12);
        show("remove another's", () -> {
            zk.removeWatches("/w", exist, WatcherType.Data, false);
            return "removed";
        });
        show("remove recursive", () -> {
            zk.removeWatches("/w", recursive, WatcherType.PersistentRecursive, false);
            return "removed";
        });
        recursive.show("event of the removal", 1);
        show("remove persistent", () -> {
            zk.removeWatches("/w", persistent, WatcherType.Any, false);
            return "removed";
        });
        persistent.show("event of the removal", 1);
        zk.getData("/w", data, null);
        zk.getChildren("/w", data);
        show("remove all", () -> {
            zk.removeAllWatches("/w", WatcherType.Any, false);
            return "removed";
        });
        data.showSorted("events of the removal", 2);
        other.setData("/w", null, -1);
        other.delete("/w", -1);
        zk.getChildren("/", false);
        data.none("no more, data");
        persistent.none("no more, persistent");
        recursive.none("no more, recursive");
        Events config = new Events();
        show("config watch", () -> zk.getConfig(config, null));
        show("remove config watch", () -> {
            zk.removeWatches("/zookeeper/config", config, WatcherType.Data, false);
            return "removed";
        });
    }

    static void acls(ZooKeeper zk, ZooKeeper other) throws Exception {
        show("acl", () -> zk.getACL("/m", null));
        show("creator without auth",
            () -> zk.create("/mine", null, CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        zk.addAuthInfo("digest", "user:secret".getBytes());
        show("creator", () -> zk.create("/mine", "s".getBytes(), CREATOR_ALL_ACL,
            CreateMode.PERSISTENT));
        show("who am i now", () -> zk.whoAmI().stream().map(who -> who.getAuthScheme() + ":"
            + who.getUser())
            .sorted().collect(Collectors.toList()));
        Stat stat = new Stat();
        show("its acl", () -> zk.getACL("/mine", stat));
        show("its acl for others", () -> other.getACL("/mine", stat));
        show("read by others", () -> other.getData("/mine", false, null));
        show("deleted by others", () -> {
            other.delete("/mine", -1);
            return "deleted, as the parent allows";
        });
        show("created again", () -> zk.create("/mine", null, CREATOR_ALL_ACL,
            CreateMode.PERSISTENT));
        show("set acl by others", () -> other.setACL("/mine", OPEN_ACL_UNSAFE, -1));
        show("set acl, wrong version", () -> zk.setACL("/mine", READ_ACL_UNSAFE, 5));
        show("set acl", () -> zk.setACL("/mine", Arrays.asList(
            new ACL(Perms.ALL, new Id("auth", "")),
            new ACL(Perms.READ, new Id("ip", "127.0.0.0/8"))), 0));
        show("by address", () -> other.getData("/mine", false, null));
        show("masked", () -> other.getACL("/mine", null));
        show("invalid acl", () -> zk.setACL("/mine", Arrays.asList(new ACL(1, new Id("nope",
            "x"))), -1));
    }

    static void quotas(ZooKeeper zk) throws Exception {
        zk.create("/q", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        StatsTrack limits = new StatsTrack();
        limits.setCount(2);
        limits.setCountHardLimit(3);
        limits.setByteHardLimit(100);
        show("set quota", () -> SetQuotaCommand.createQuota(zk, "/q", limits));
        show("quota below a quota", () -> SetQuotaCommand.createQuota(zk, "/q/none", limits));
        show("limits", () -> zk.getData("/zookeeper/quota/q/zookeeper_limits", false, null));
        show("first", () -> zk.create("/q/a", new byte[50], OPEN_ACL_UNSAFE,
            CreateMode.PERSISTENT));
        show("second", () -> zk.create("/q/b", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        show("third", () -> zk.create("/q/c", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        show("too many bytes", () -> zk.setData("/q/b", new byte[51], -1));
        show("stats", () -> zk.getData("/zookeeper/quota/q/zookeeper_stats", false, null));
        StatsTrack hard = new StatsTrack();
        hard.setCountHardLimit(1);
        show("delete quota", () -> DelQuotaCommand.delQuota(zk, "/q", hard));
        show("limits left", () -> zk.getData("/zookeeper/quota/q/zookeeper_limits", false, null));
        show("third again", () -> zk.create("/q/c", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
    }

    static void asynchronous(ZooKeeper zk) throws Exception {
        List<String> lines = Collections.synchronizedList(new ArrayList<>());
        CountDownLatch left = new CountDownLatch(16);
        zk.create("/a", "1".getBytes(), OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (code, path,
            context, name) -> {
            lines.add("create " + Code.get(code) + " " + path + " " + name);
            left.countDown();
        }, null);
        zk.create("/a/2", "2".getBytes(), OPEN_ACL_UNSAFE, CreateMode.PERSISTENT,
            (code, path, context, name, stat) -> {
                lines.add("create2 " + Code.get(code) + " " + name + " " + text(stat));
                left.countDown();
            }, null);
        zk.create("/a/ttl", "3".getBytes(), OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL,
            (code, path, context, name, stat) -> {
                lines.add("create with ttl " + Code.get(code) + " " + name + " " + text(stat));
                left.countDown();
            }, null, 60000);
        zk.exists("/a", false, (code, path, context, stat) -> {
            lines.add("exists " + Code.get(code) + " " + text(stat));
            left.countDown();
        }, null);
        zk.getData("/a", false, (code, path, context, data, stat) -> {
            lines.add("get " + Code.get(code) + " " + text(data) + " " + text(stat));
            left.countDown();
        }, null);
        zk.setData("/a", "4".getBytes(), -1, (code, path, context, stat) -> {
            lines.add("set " + Code.get(code) + " " + text(stat));
            left.countDown();
        }, null);
        zk.getChildren("/a", false, (code, path, context, names) -> {
            lines.add("children " + Code.get(code) + " " + sorted(names));
            left.countDown();
        }, null);
        zk.getChildren("/a", false, (code, path, context, names, stat) -> {
            lines.add("children2 " + Code.get(code) + " " + sorted(names) + " " + text(stat));
            left.countDown();
        }, null);
        zk.getAllChildrenNumber("/a", (code, path, context, number) -> {
            lines.add("all children " + Code.get(code) + " " + number);
            left.countDown();
        }, null);
        zk.getEphemerals((code, context, paths) -> {
            lines.add("ephemerals " + Code.get(code) + " " + sorted(paths));
            left.countDown();
        }, null);
        zk.getACL("/a", null, (code, path, context, acl, stat) -> {
            lines.add("get acl " + Code.get(code) + " " + acl.size());
            left.countDown();
        }, null);
        zk.setACL("/a", READ_ACL_UNSAFE, 0, (code, path, context, stat) -> {
            lines.add("set acl " + Code.get(code) + " " + text(stat));
            left.countDown();
        }, null);
        zk.sync("/a", (code, path, context) -> {
            lines.add("sync " + Code.get(code) + " " + path);
            left.countDown();
        }, null);
        zk.multi(List.of(Op.check("/a", 1), Op.delete("/none", -1)), (code, path, context,
            results) -> {
            lines.add("multi " + Code.get(code) + " " + text(results));
            left.countDown();
        }, null);
        Events events = new Events();
        zk.addWatch("/a", events, AddWatchMode.PERSISTENT, (code, path, context) -> {
            lines.add("add watch " + Code.get(code));
            left.countDown();
        }, null);
        zk.removeWatches("/a", events, WatcherType.Any, false, (code, path, context) -> {
            lines.add("remove watch " + Code.get(code));
            left.countDown();
        }, null);
        left.await(60, TimeUnit.SECONDS);
        lines.forEach(System.out::println);
        show("set without the right", () -> zk.setData("/a", null, -1));
        CountDownLatch many = new CountDownLatch(2000);
        List<Integer> order = Collections.synchronizedList(new ArrayList<>());
        zk.create("/many", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        for (int at = 0; at < 1000; at++) {
            zk.create("/many/" + at, null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT,
                (code, path, context, name) -> {
                    order.add((Integer) context);
                    many.countDown();
                }, 2 * at);
            zk.exists("/many/" + at, false, (code, path, context, stat) -> {
                order.add(stat == null ? -1 : (Integer) context);
                many.countDown();
            }, 2 * at + 1);
        }
        many.await(60, TimeUnit.SECONDS);
        List<Integer> ordered = new ArrayList<>(order);
        Collections.sort(ordered);
        System.out.println("pipelined, in order: " + (ordered.equals(order) && order.get(0) == 0));
    }

    static void chroots(ZooKeeper zk) throws Exception {
        zk.create("/base", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        ZooKeeper below = open("/base", new States());
        show("in a chroot", () -> below.create("/x-", null, OPEN_ACL_UNSAFE,
            CreateMode.EPHEMERAL_SEQUENTIAL));
        show("its root", () -> below.getChildren("/", false));
        show("its ephemerals", () -> below.getEphemerals());
        Events events = new Events();
        below.exists("/y", events);
        zk.create("/base/y", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        events.show("its events", 1);
        show("an error", () -> below.getData("/none", false, null));
        below.close();
        show("from outside", () -> zk.getChildren("/base", false));
    }

    static void sessions(ZooKeeper other) throws Exception {
        States states = new States();
        Droppable zk = new Droppable(states);
        states.await(KeeperState.SyncConnected);
        long id = zk.getSessionId();
        zk.create("/held", null, OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        System.out.println("timeout: " + zk.getSessionTimeout());
        // Two clients of one session would take it from each other for ever.
        zk.drop();
        States taker = new States();
        ZooKeeper moved = new ZooKeeper(hosts, 30000, taker, id, zk.getSessionPasswd());
        taker.await(KeeperState.SyncConnected);
        System.out.println("moved: " + (moved.getSessionId() == id));
        show("ephemeral of the moved session", () -> moved.exists("/held", false));
        States thief = new States();
        ZooKeeper wrong = new ZooKeeper(hosts, 30000, thief, id, new byte[16]);
        thief.await(KeeperState.Expired);
        show("wrong password", () -> wrong.exists("/", false));
        // Apache disconnects the rightful owner.
        connected(moved);
        moved.close();
        show("its ephemeral", () -> other.exists("/held", false));
        show("after close", () -> moved.exists("/", false));
        States late = new States();
        ZooKeeper closed = new ZooKeeper(hosts, 30000, late, id, moved.getSessionPasswd());
        late.await(KeeperState.Expired);
        show("a closed session", () -> closed.exists("/", false));
        ZooKeeperAdmin admin = new ZooKeeperAdmin(hosts, 30000, new States());
        show("reconfig", () -> admin.reconfigure("server.2=127.0.0.1:1:2;3", null, null, -1, null));
        admin.close();
        States strange = new States();
        ZooKeeper nobody = new ZooKeeper(hosts, 30000, strange);
        nobody.addAuthInfo("nope", "x".getBytes());
        strange.await(KeeperState.AuthFailed);
        show("after a failed auth", () -> nobody.exists("/", false));
        nobody.close();
    }

    /** The server dies and comes back. */
    static void restart(ZooKeeper zk, States states, ZooKeeper other) throws Exception {
        long id = zk.getSessionId();
        Events data = new Events();
        Events child = new Events();
        Events exist = new Events();
        Events persistent = new Events();
        Events recursive = new Events();
        zk.create("/r", "before".getBytes(), OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        zk.create("/r/e", null, OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        zk.getData("/r", data, null);
        zk.getChildren("/r", child);
        zk.exists("/r/none", exist);
        zk.addWatch("/r", persistent, AddWatchMode.PERSISTENT);
        zk.addWatch("/r", recursive, AddWatchMode.PERSISTENT_RECURSIVE);
        states.seen.clear();
        System.out.println("RESTART");
        System.in.read(new byte[100]);
        states.await(KeeperState.SyncConnected);
        connected(other);
        System.out.println("the same session: " + (zk.getSessionId() == id));
        show("ephemeral", () -> other.exists("/r/e", false));
        show("auth replayed", () -> zk.getData("/mine", false, null));
        other.setData("/r", "after".getBytes(), -1);
        data.show("data", 1);
        other.create("/r/none", null, OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        exist.show("exists", 1);
        child.show("children", 1);
        persistent.show("persistent", 2);
        recursive.show("recursive", 2);
        show("tree", () -> sorted(zk.getChildren("/r", false)));
    }

    public static void main(String[] arguments) throws Exception {
        hosts = "127.0.0.1:" + arguments[0];
        States states = new States();
        ZooKeeper zk = open("", states);
        ZooKeeper other = open("", new States());
        znodes(zk);
        short_lived(zk);
        multis(zk);
        watches(zk, other);
        acls(zk, other);
        quotas(zk);
        asynchronous(zk);
        chroots(zk);
        sessions(other);
        restart(zk, states, other);
        zk.close();
        other.close();
        // Threads of clients that were refused are not waited for.
        System.exit(0);
    }
}
