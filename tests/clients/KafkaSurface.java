// What a Kafka broker keeps in ZooKeeper: topics, partitions, settings, quotas, credentials, and
// the broker itself. Arguments: where the broker listens, a prefix for names. A line for each step.

import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.quota.*;
import org.apache.kafka.common.serialization.*;

public class KafkaSurface {
    static final int TOPICS = 8;
    static final int RECORDS = 500;

    interface Condition {
        boolean holds() throws Exception;
    }

    /** What one request changed others show a little later. */
    static void eventually(String what, Condition condition) throws Exception {
        for (int tries = 0; tries < 300; tries++) {
            if (condition.holds()) {
                System.out.println(what);
                return;
            }
            Thread.sleep(100);
        }
        throw new Exception("never: " + what);
    }

    public static void main(String[] arguments) throws Exception {
        String prefix = arguments[1];
        Map<String, Object> settings = Map.of("bootstrap.servers", arguments[0],
            "group.id", prefix, "auto.offset.reset", "earliest");
        List<String> names = new ArrayList<>();
        List<NewTopic> topics = new ArrayList<>();
        for (int number = 0; number < TOPICS; number++) {
            names.add(prefix + number);
            topics.add(new NewTopic(prefix + number, 3, (short) 1));
        }
        try (Admin admin = Admin.create(settings)) {
            admin.createTopics(topics).all().get();
            eventually("topics", () -> admin.listTopics().names().get().containsAll(names));

            ConfigResource first = new ConfigResource(ConfigResource.Type.TOPIC, names.get(0));
            AlterConfigOp keep = new AlterConfigOp(new ConfigEntry("retention.ms", "12345678"),
                AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Map.of(first, List.of(keep))).all().get();
            eventually("settings", () -> admin.describeConfigs(List.of(first)).all().get()
                .get(first).get("retention.ms").value().equals("12345678"));

            String second = names.get(1);
            admin.createPartitions(Map.of(second, NewPartitions.increaseTo(6))).all().get();
            eventually("partitions", () -> admin.describeTopics(List.of(second))
                .allTopicNames().get().get(second).partitions().size() == 6);

            ClientQuotaEntity user = new ClientQuotaEntity(Map.of("user", prefix));
            ClientQuotaAlteration.Op rate =
                new ClientQuotaAlteration.Op("producer_byte_rate", 1e6);
            admin.alterClientQuotas(List.of(new ClientQuotaAlteration(user, List.of(rate))))
                .all().get();
            admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion(prefix,
                new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), "secret"))).all().get();
            eventually("credentials", () -> admin.describeUserScramCredentials().users().get()
                .contains(prefix));

            try (Producer<String, String> producer = new KafkaProducer<>(settings,
                    new StringSerializer(), new StringSerializer())) {
                for (int number = 0; number < RECORDS; number++) {
                    producer.send(new ProducerRecord<>(names.get(2), "k" + number, "v" + number));
                }
            }
            try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings,
                    new StringDeserializer(), new StringDeserializer())) {
                consumer.subscribe(List.of(names.get(2)));
                int[] found = {0};
                eventually("records", () -> {
                    found[0] += consumer.poll(Duration.ofMillis(100)).count();
                    return found[0] == RECORDS;
                });
                consumer.commitSync();
            }

            admin.deleteTopics(names).all().get();
            eventually("deletions", () -> Collections.disjoint(
                admin.listTopics().names().get(), names));
        }
    }
}
