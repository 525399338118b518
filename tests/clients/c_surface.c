/* Drives a ZooKeeper server through the C client and prints a normalised transcript.
 *
 * usage: c_surface PORT
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
    zhandle_t *zk = zookeeper_init(hosts, session_watcher, 10000, NULL, NULL, 0);
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

    show("close", zookeeper_close(zk), 0);
    show("ephemeral gone", zoo_exists(other, "/c/e", 0, &stat), 0);
    show("close", zookeeper_close(other), 0);
    return 0;
}
