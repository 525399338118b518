import java.io.FileWriter;
import java.io.IOException;
import org.apache.zookeeper.audit.AuditEvent;
import org.apache.zookeeper.audit.AuditLogger;

/** Appends each of Apache ZooKeeper's audit events, as a line, to the file that audit.sink names. */
public class AuditSink implements AuditLogger {
    public void initialize() {}

    public synchronized void logAuditEvent(AuditEvent event) {
        try (FileWriter out = new FileWriter(System.getProperty("audit.sink"), true)) {
            out.write(event + "\n");
        } catch (IOException error) {
            throw new RuntimeException(error);
        }
    }
}
