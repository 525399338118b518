/* Drives a ZooKeeper server through the C client and prints a normalised transcript.
 *
 * usage: c_surface PORT
 *
 * Needs a server with extendedTypesEnabled=true and a container check every 200 ms.
 */

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int connected;
static char events[1000];
static int event_count;

static void session_watcher(zhandle_t *zk, int type, int state, const char *path, void *context)
{
    (void)zk, (void)path, (void)context;
    pthread_mutex_lock(&lock);
    if (type == ZOO_SESSION_EVENT && state == ZOO_CONNECTED_STATE)
        connected = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void watcher(zhandle_t *zk, int type, int state, const char *path, void *context)
{
    (void)zk, (void)state, (void)context;
    if (type == ZOO_SESSION_EVENT)
        return;
    pthread_mutex_lock(&lock);
    size_t used = strlen(events);
    snprintf(events + used, sizeof events - used, " %d:%s", type, path);
    event_count++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void show_events(const char *label, int count)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 10;
    pthread_mutex_lock(&lock);
    while (event_count < count)
        if (pthread_cond_timedwait(&changed, &lock, &deadline) != 0)
            break;
    printf("%s:%s\n", label, events);
    pthread_mutex_unlock(&lock);
}

static void forget_events(void)
{
    pthread_mutex_lock(&lock);
    events[0] = 0;
    event_count = 0;
    pthread_mutex_unlock(&lock);
}

static void show(const char *label, int code, const struct Stat *stat)
{
    printf("%s: %d", label, code);
    if (stat && code == ZOK)
        printf(" v %d,%d,%d l %d n %d", stat->version, stat->cversion, stat->aversion,
               stat->dataLength, stat->numChildren);
    printf("\n");
}

static zhandle_t *open_session(const char *hosts)
{
    connected = 0;
    zhandle_t *zk = zookeeper_init(hosts, session_watcher, 30000, NULL, NULL, 0);
    pthread_mutex_lock(&lock);
    while (!connected)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    return zk;
}

static void auth_done(int code, const void *data)
{
    (void)data;
    pthread_mutex_lock(&lock);
    printf("auth: %d\n", code);
    connected = 2;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void children(zhandle_t *zk, const char *path)
{
    struct String_vector names;
    struct Stat stat;
    int code = zoo_get_children2(zk, path, 0, &names, &stat);
    show("children", code, &stat);
    if (code == ZOK) {
        printf("%d names\n", names.count);
        deallocate_String_vector(&names);
    }
}

/* Completions come in the order of the calls, on a thread of their own. */
static int completions;

static void completed(void)
{
    pthread_mutex_lock(&lock);
    completions++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void got_nothing(int code, const void *label)
{
    show(label, code, NULL);
    completed();
}

static void got_stat(int code, const struct Stat *stat, const void *label)
{
    show(label, code, stat);
    completed();
}

static void got_data(int code, const char *value, int length, const struct Stat *stat,
                     const void *label)
{
    show(label, code, stat);
    if (code == ZOK)
        printf("%.*s\n", length, value);
    completed();
}

static void got_string(int code, const char *value, const void *label)
{
    show(label, code, NULL);
    printf("%s\n", code == ZOK ? value : "none");
    completed();
}

static void got_string_stat(int code, const char *value, const struct Stat *stat,
                            const void *label)
{
    show(label, code, stat);
    printf("%s\n", code == ZOK ? value : "none");
    completed();
}

static void got_strings(int code, const struct String_vector *names, const void *label)
{
    show(label, code, NULL);
    printf("%d names\n", code == ZOK ? names->count : 0);
    completed();
}

static void got_strings_stat(int code, const struct String_vector *names,
                             const struct Stat *stat, const void *label)
{
    show(label, code, stat);
    printf("%d names\n", code == ZOK ? names->count : 0);
    completed();
}

static void got_acl(int code, struct ACL_vector *acls, struct Stat *stat, const void *label)
{
    show(label, code, stat);
    if (code == ZOK)
        printf("%s %d\n", acls->data[0].id.id, acls->data[0].perms);
    completed();
}

static void asynchronous(zhandle_t *zk)
{
    static char created[64];
    static struct Stat set;
    static zoo_op_t ops[2];
    static zoo_op_result_t results[2];
    struct ACL_vector *open = &ZOO_OPEN_ACL_UNSAFE;

    zoo_acreate(zk, "/a", "1", 1, open, 0, got_string, "acreate");
    zoo_acreate(zk, "/a", "1", 1, open, 0, got_string, "acreate again");
    zoo_acreate2(zk, "/a/s-", "2", 1, open, ZOO_SEQUENCE, got_string_stat, "acreate2");
    zoo_aset(zk, "/a", "changed", 7, 0, got_stat, "aset");
    zoo_aset(zk, "/a", "x", 1, 0, got_stat, "aset, wrong version");
    zoo_aget(zk, "/a", 0, got_data, "aget");
    zoo_aexists(zk, "/none", 0, got_stat, "aexists");
    zoo_aget_children(zk, "/a", 0, got_strings, "aget_children");
    zoo_aget_children2(zk, "/a", 0, got_strings_stat, "aget_children2");
    zoo_aset_acl(zk, "/a", -1, open, got_nothing, "aset_acl");
    zoo_aget_acl(zk, "/a", got_acl, "aget_acl");
    zoo_create_op_init(&ops[0], "/a/m", "1", 1, open, 0, created, sizeof created);
    zoo_set_op_init(&ops[1], "/a/m", "2", 1, 0, &set);
    zoo_amulti(zk, 2, ops, results, got_nothing, "amulti");
    zoo_amulti(zk, 2, ops, results, got_nothing, "amulti again");
    zoo_async(zk, "/a", got_string, "async");
    zoo_adelete(zk, "/a/m", 0, got_nothing, "adelete, wrong version");
    zoo_adelete(zk, "/a/m", 1, got_nothing, "adelete");
    pthread_mutex_lock(&lock);
    while (completions < 16)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    printf("op 0: %d %s, op 1: %d v %d\n", results[0].err, created, results[1].err, set.version);
}

static void removed_watches(zhandle_t *zk, zhandle_t *other)
{
    char data[64];
    int length = sizeof data;
    struct Stat stat;
    struct String_vector names;
    forget_events();
    show("remove none", zoo_remove_watches(zk, "/w", ZWATCHTYPE_ANY, watcher, NULL, 0), NULL);
    zoo_wget(zk, "/w", watcher, NULL, data, &length, &stat);
    zoo_wget_children(zk, "/w", watcher, NULL, &names);
    deallocate_String_vector(&names);
    show("remove other", zoo_remove_watches(zk, "/c", ZWATCHTYPE_ANY, watcher, NULL, 0), NULL);
    show("remove data", zoo_remove_watches(zk, "/w", ZWATCHTYPE_DATA, watcher, NULL, 0), NULL);
    show("again", zoo_remove_watches(zk, "/w", ZWATCHTYPE_DATA, watcher, NULL, 0), NULL);
    zoo_set(other, "/w", "unseen", 6, -1);
    zoo_create(other, "/w/seen", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
    show_events("the child watch stays", 1);
    zoo_wget_children(zk, "/w", watcher, NULL, &names);
    deallocate_String_vector(&names);
    show("remove all", zoo_remove_all_watches(zk, "/w", ZWATCHTYPE_ANY, 0), NULL);
    zoo_create(other, "/w/unseen", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
}

static void gone(zhandle_t *zk, const char *path)
{
    for (int attempt = 0; attempt < 2400; attempt++) {
        if (zoo_exists(zk, path, 0, NULL) == ZNONODE) {
            printf("%s is gone\n", path);
            return;
        }
        usleep(50000);
    }
    printf("%s is there\n", path);
}

static void kinds(zhandle_t *zk)
{
    char path[64], data[256];
    int length = sizeof data;
    struct Stat stat;
    struct ACL_vector *open = &ZOO_OPEN_ACL_UNSAFE;
    show("container", zoo_create(zk, "/k", "", 0, open, ZOO_CONTAINER, path, sizeof path), NULL);
    show("in it", zoo_create(zk, "/k/x", "", 0, open, 0, path, sizeof path), NULL);
    show("out", zoo_delete(zk, "/k/x", -1), NULL);
    gone(zk, "/k");
    int ttl = ZOO_PERSISTENT_WITH_TTL;
    show("no ttl", zoo_create_ttl(zk, "/t", "", 0, open, ttl, 0, path, sizeof path), NULL);
    show("ttl", zoo_create_ttl(zk, "/t", "", 0, open, ttl, 8000, path, sizeof path), NULL);
    ttl = ZOO_PERSISTENT_SEQUENTIAL_WITH_TTL;
    show("ttl, sequence", zoo_create2_ttl(zk, "/t-", "", 0, open, ttl, 1000000, path, sizeof path,
                                          &stat), &stat);
    printf("%s\n", path);
    gone(zk, "/t");
    show("config", zoo_getconfig(zk, 0, data, &length, &stat), &stat);
    printf("length %d\n", length);
    length = sizeof data;
    show("reconfig", zoo_reconfig(zk, NULL, NULL, "server.1=a:1:2;3", -1, data, &length, &stat),
         NULL);
}

static void restart(zhandle_t *zk, zhandle_t *other)
{
    char data[64], line[64];
    int length = sizeof data;
    int64_t session = zoo_client_id(zk)->client_id;
    struct Stat stat;
    forget_events();
    zoo_create(zk, "/c/mine", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0);
    zoo_wget(zk, "/w", watcher, NULL, data, &length, &stat);
    printf("RESTART\n");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) == NULL)
        printf("no answer\n");
    zhandle_t *both[] = { zk, other };
    for (int at = 0; at < 2; at++)
        for (int attempt = 0; attempt < 300; attempt++) {
            if (zoo_exists(both[at], "/w", 0, &stat) == ZOK)
                break;
            usleep(100000);
        }
    printf("the same session: %d\n", zoo_client_id(zk)->client_id == session);
    show("ephemeral", zoo_exists(other, "/c/mine", 0, &stat), &stat);
    show("set", zoo_set(other, "/w", "after", 5, -1), NULL);
    show_events("data watch", 1);
    length = sizeof data;
    show("auth replayed", zoo_get(zk, "/private", 0, data, &length, &stat), &stat);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    char hosts[64], path[256], data[256];
    struct Stat stat;
    int length;
    snprintf(hosts, sizeof hosts, "127.0.0.1:%s", argv[1]);
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    zhandle_t *zk = open_session(hosts);

    show("create", zoo_create(zk, "/c", "data", 4, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path), 0);
    show("again", zoo_create(zk, "/c", "data", 4, &ZOO_OPEN_ACL_UNSAFE, 0, path, sizeof path), 0);
    show("null data", zoo_create(zk, "/c/null", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0), 0);
    show("sequence", zoo_create(zk, "/c/s-", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, path,
                                sizeof path), 0);
    printf("%s\n", path);
    show("ephemeral", zoo_create2(zk, "/c/e", "", 0, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, path,
                                  sizeof path, &stat), &stat);
    printf("owned by us: %d\n", stat.ephemeralOwner == zoo_client_id(zk)->client_id);
    length = sizeof data;
    show("get", zoo_get(zk, "/c", 0, data, &length, &stat), &stat);
    printf("%.*s\n", length, data);
    length = sizeof data;
    show("get null", zoo_get(zk, "/c/null", 0, data, &length, &stat), &stat);
    printf("length %d\n", length);
    show("set", zoo_set2(zk, "/c", "changed", 7, 0, &stat), &stat);
    show("set, wrong version", zoo_set(zk, "/c", "x", 1, 0), 0);
    show("exists", zoo_exists(zk, "/c", 0, &stat), &stat);
    show("exists not", zoo_exists(zk, "/none", 0, &stat), &stat);
    children(zk, "/c");
    show("delete with children", zoo_delete(zk, "/c", -1), 0);
    show("delete", zoo_delete(zk, "/c/null", 0), 0);

    show("watch", zoo_wexists(zk, "/w", watcher, NULL, &stat), 0);
    zoo_create(zk, "/w", "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0);
    show_events("created", 1);
    length = sizeof data;
    zoo_wget(zk, "/w", watcher, NULL, data, &length, &stat);
    zoo_set(zk, "/w", "x", 1, -1);
    show_events("changed", 2);

    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    char created[64];
    memset(results, 0, sizeof results);
    zoo_create_op_init(&ops[0], "/m", "1", 1, &ZOO_OPEN_ACL_UNSAFE, 0, created, sizeof created);
    zoo_check_op_init(&ops[1], "/m", 0);
    zoo_set_op_init(&ops[2], "/m", "2", 1, 0, &stat);
    zoo_delete_op_init(&ops[3], "/m", 1);
    show("multi", zoo_multi(zk, 4, ops, results), &stat);
    zoo_check_op_init(&ops[1], "/m", 5);
    show("failing multi", zoo_multi(zk, 4, ops, results), 0);
    for (int at = 0; at < 4; at++)
        printf("op %d: %d\n", at, results[at].err);

    struct ACL_vector acls;
    show("get acl", zoo_get_acl(zk, "/c", &acls, &stat), &stat);
    printf("%s:%s %d\n", acls.data[0].id.scheme, acls.data[0].id.id, acls.data[0].perms);
    deallocate_ACL_vector(&acls);
    zoo_add_auth(zk, "digest", "u:p", 3, auth_done, NULL);
    pthread_mutex_lock(&lock);
    while (connected != 2)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    show("creator's", zoo_create(zk, "/mine", "s", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), 0);
    zhandle_t *other = open_session(hosts);
    length = sizeof data;
    show("not ours", zoo_get(other, "/mine", 0, data, &length, &stat), 0);
    show("set acl", zoo_set_acl(zk, "/mine", 0, &ZOO_OPEN_ACL_UNSAFE), 0);
    length = sizeof data;
    show("now ours", zoo_get(other, "/mine", 0, data, &length, &stat), &stat);

    show("private", zoo_create(zk, "/private", "s", 1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0), 0);

    asynchronous(zk);
    removed_watches(zk, other);
    kinds(zk);
    restart(zk, other);

    show("close", zookeeper_close(zk), 0);
    show("ephemeral gone", zoo_exists(other, "/c/e", 0, &stat), 0);
    show("close", zookeeper_close(other), 0);
    return 0;
}
