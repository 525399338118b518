// A Java client of a server without a quorum: argument 1 is the servers, 2 a file to make when
// reads were served. Then it waits for a quorum, and writes.
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

public class JavaReadOnly {
    interface Call {
        void run() throws Exception;
    }

    static void refused(Call call) throws Exception {
        try {
            call.run();
        } catch (KeeperException.NotReadOnlyException expected) {
            return;
        }
        throw new AssertionError("a write was done");
    }

    static void await(BlockingQueue<WatchedEvent> events, KeeperState state) throws Exception {
        WatchedEvent event;
        do {
            event = events.poll(80, TimeUnit.SECONDS);
            if (event == null) {
                throw new AssertionError("waited for " + state);
            }
        } while (event.getState() != state);
    }

    static void check(boolean isSo, String what) {
        if (!isSo) {
            throw new AssertionError(what);
        }
    }

    public static void main(String[] arguments) throws Exception {
        BlockingQueue<WatchedEvent> events = new LinkedBlockingQueue<>();
        ZooKeeper client = new ZooKeeper(arguments[0], 10_000, events::add, true);
        await(events, KeeperState.ConnectedReadOnly);
        check(client.getState() == ZooKeeper.States.CONNECTEDREADONLY, "the state");
        check(new String(client.getData("/a", true, null)).equals("here"), "the data");
        check(client.getChildren("/", false).contains("a"), "the children");
        refused(() -> client.setData("/a", new byte[0], -1));
        refused(() -> client.create("/new", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        refused(() -> client.delete("/a", -1));
        refused(() -> client.multi(List.of(org.apache.zookeeper.Op.check("/a", 0))));
        Files.createFile(Path.of(arguments[1]));

        await(events, KeeperState.SyncConnected);
        client.setData("/a", "there".getBytes(), -1);
        client.create("/mine", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        WatchedEvent event;
        do {
            event = events.poll(80, TimeUnit.SECONDS);
            check(event != null, "the watch of before tells of the change");
        } while (!"/a".equals(event.getPath()));
        client.close();
    }
}
