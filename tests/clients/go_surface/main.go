// Drives a ZooKeeper server through the Go client and prints a normalised transcript.
//
// usage: go_surface PORT
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

var hosts []string

type silent struct{}

func (silent) Printf(string, ...interface{}) {}

func open() *zk.Conn {
	conn, events, err := zk.Connect(hosts, 40*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		panic(err)
	}
	await(events, zk.StateHasSession)
	return conn
}

// Waits until a client is connected, again if need be. Its events are no help: those that nobody
// takes are lost.
func connected(conn *zk.Conn) {
	for round := 0; round < 1200; round++ {
		if _, _, err := conn.Exists("/"); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	panic("never connected again")
}

func await(events <-chan zk.Event, state zk.State) {
	deadline := time.After(60 * time.Second)
	for {
		select {
		case event := <-events:
			if event.State == state {
				return
			}
		case <-deadline:
			panic(fmt.Sprint("never ", state))
		}
	}
}

func text(value interface{}) string {
	switch value := value.(type) {
	case *zk.Stat:
		if value == nil || value.Czxid == 0 && value.Ctime == 0 {
			return "no stat"
		}
		return fmt.Sprintf("v %d,%d,%d owned %t l %d n %d", value.Version, value.Cversion,
			value.Aversion, value.EphemeralOwner != 0, value.DataLength, value.NumChildren)
	case []byte:
		if 100 < len(value) {
			return fmt.Sprintf("%d bytes", len(value))
		}
		return fmt.Sprintf("%q", value)
	case []string:
		names := append([]string(nil), value...)
		sort.Strings(names)
		return fmt.Sprint(names)
	case []zk.MultiResponse:
		var all []string
		for _, each := range value {
			all = append(all, fmt.Sprintf("{%s %s %v}", each.String, text(each.Stat), each.Error))
		}
		return strings.Join(all, " ")
	}
	return fmt.Sprint(value)
}

// show prints what a call returned: its results, or its error alone.
func show(label string, results ...interface{}) {
	if err, failed := results[len(results)-1].(error); failed && err != nil {
		if multi, ok := results[0].([]zk.MultiResponse); ok {
			fmt.Printf("%s: %v %s\n", label, err, text(multi))
			return
		}
		fmt.Printf("%s: %v\n", label, err)
		return
	}
	var parts []string
	for _, result := range results[:len(results)-1] {
		parts = append(parts, text(result))
	}
	fmt.Printf("%s: %s\n", label, strings.Join(parts, " "))
}

func one(value interface{}, err error) []interface{} {
	return []interface{}{value, err}
}

func two(first, second interface{}, err error) []interface{} {
	return []interface{}{first, second, err}
}

func event(label string, events <-chan zk.Event) {
	select {
	case event := <-events:
		fmt.Printf("%s: %v %s\n", label, event.Type, event.Path)
	case <-time.After(60 * time.Second):
		fmt.Printf("%s: nothing\n", label)
	}
}

func znodes(conn *zk.Conn) {
	acl := zk.WorldACL(zk.PermAll)
	for flags := int32(0); flags < 4; flags++ {
		show("create", one(conn.Create(fmt.Sprintf("/f%d-", flags), []byte("data"), flags, acl))...)
	}
	show("container", one(conn.CreateContainer("/container", nil, zk.FlagContainer, acl))...)
	show("ttl", one(conn.CreateTTL("/ttl", nil, zk.FlagTTL, acl, time.Minute))...)
	protected, err := conn.CreateProtectedEphemeralSequential("/p-", nil, acl)
	show("protected", protected[len(protected)-10:], err)
	show("again", one(conn.Create("/f0-", nil, 0, acl))...)
	show("orphan", one(conn.Create("/none/x", nil, 0, acl))...)
	show("below an ephemeral", one(conn.Create("/f1-/x", nil, 0, acl))...)
	show("get", two(conn.Get("/f0-"))...)
	show("get nothing", two(conn.Get("/none"))...)
	show("set", one(conn.Set("/f0-", []byte("more"), 0))...)
	show("set, wrong version", one(conn.Set("/f0-", nil, 0))...)
	show("exists", two(conn.Exists("/f0-"))...)
	show("exists not", two(conn.Exists("/none"))...)
	names, _, err := conn.Children("/")
	show("children", len(names), err)
	show("sync", one(conn.Sync("/"))...)
	show("delete, wrong version", conn.Delete("/f0-", 9))
	show("delete", "done", conn.Delete("/f0-", 1))
	show("large", one(conn.Create("/large", make([]byte, 1000000), 0, acl))...)
	show("large back", two(conn.Get("/large"))...)
	show("incremental reconfig", one(conn.IncrementalReconfig([]string{"x"}, nil, -1))...)
}

func multis(conn *zk.Conn) {
	acl := zk.WorldACL(zk.PermAll)
	show("multi", one(conn.Multi(
		&zk.CreateRequest{Path: "/m", Data: []byte("1"), Acl: acl},
		&zk.CheckVersionRequest{Path: "/m", Version: 0},
		&zk.SetDataRequest{Path: "/m", Data: []byte("2"), Version: 0},
		&zk.CreateRequest{Path: "/m/s-", Acl: acl, Flags: zk.FlagSequence},
		&zk.DeleteRequest{Path: "/m/s-0000000000", Version: -1}))...)
	show("failing", one(conn.Multi(
		&zk.CreateRequest{Path: "/m2", Acl: acl},
		&zk.CheckVersionRequest{Path: "/m", Version: 7},
		&zk.DeleteRequest{Path: "/m", Version: -1}))...)
	show("nothing of it", two(conn.Exists("/m2"))...)
}

func watches(conn, other *zk.Conn) {
	acl := zk.WorldACL(zk.PermAll)
	_, _, exists, _ := conn.ExistsW("/w")
	show("create", one(other.Create("/w", nil, 0, acl))...)
	event("created", exists)
	_, _, data, _ := conn.GetW("/w")
	_, _, children, _ := conn.ChildrenW("/w")
	show("set", one(other.Set("/w", []byte("x"), -1))...)
	event("changed", data)
	show("create", one(other.Create("/w/c", nil, 0, acl))...)
	event("child", children)
	_, _, data, _ = conn.GetW("/w/c")
	show("delete", "done", other.Delete("/w/c", -1))
	event("deleted", data)
}

func acls(conn, other *zk.Conn) {
	show("acl", two(conn.GetACL("/w"))...)
	show("auth", "done", conn.AddAuth("digest", []byte("user:secret")))
	show("creator", one(conn.Create("/mine", []byte("s"), 0, zk.AuthACL(zk.PermAll)))...)
	show("not others'", two(other.Get("/mine"))...)
	both := append(zk.DigestACL(zk.PermAll, "user", "secret"), zk.WorldACL(zk.PermRead)...)
	show("set acl, wrong version", one(conn.SetACL("/mine", both, 4))...)
	show("set acl", one(conn.SetACL("/mine", both, 0))...)
	show("readable", two(other.Get("/mine"))...)
	show("masked", two(other.GetACL("/mine"))...)
	invalid := []zk.ACL{{Perms: 1, Scheme: "nope", ID: "x"}}
	show("invalid", one(conn.SetACL("/mine", invalid, -1))...)
}

func locks(conn, other *zk.Conn) {
	acl := zk.WorldACL(zk.PermAll)
	inside, worst := 0, 0
	var guard sync.Mutex
	var threads sync.WaitGroup
	for _, each := range []*zk.Conn{conn, other, conn, other} {
		threads.Add(1)
		go func(conn *zk.Conn) {
			defer threads.Done()
			for round := 0; round < 5; round++ {
				lock := zk.NewLock(conn, "/locks/one", acl)
				if err := lock.Lock(); err != nil {
					fmt.Println("lock:", err)
					return
				}
				guard.Lock()
				inside++
				if worst < inside {
					worst = inside
				}
				guard.Unlock()
				guard.Lock()
				inside--
				guard.Unlock()
				_ = lock.Unlock()
			}
		}(each)
	}
	threads.Wait()
	fmt.Println("at most one inside:", worst)
}

func words() {
	stats, ok := zk.FLWSrvr(hosts, 60*time.Second)
	fmt.Println("srvr:", ok, len(stats), stats[0].Mode, stats[0].NodeCount != 0)
	fmt.Println("ruok:", zk.FLWRuok(hosts, 60*time.Second))
	clients, ok := zk.FLWCons(hosts, 60*time.Second)
	fmt.Println("cons:", ok, len(clients[0].Clients))
}

// The server dies and comes back.
func restart(conn, other *zk.Conn) {
	acl := zk.WorldACL(zk.PermAll)
	show("ephemeral", one(conn.Create("/w/e", nil, zk.FlagEphemeral, acl))...)
	_, _, data, _ := conn.GetW("/w")
	_, _, children, _ := conn.ChildrenW("/w")
	_, _, exists, _ := conn.ExistsW("/w/none")
	session := conn.SessionID()
	fmt.Println("RESTART")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	connected(conn)
	connected(other)
	fmt.Println("the same session:", conn.SessionID() == session)
	show("ephemeral", two(other.Exists("/w/e"))...)
	show("auth replayed", two(conn.Get("/mine"))...)
	show("set", one(other.Set("/w", []byte("z"), -1))...)
	event("data", data)
	show("create", one(other.Create("/w/none", nil, 0, acl))...)
	event("exists", exists)
	event("children", children)
}

func main() {
	hosts = []string{"127.0.0.1:" + os.Args[1]}
	conn, other := open(), open()
	znodes(conn)
	multis(conn)
	watches(conn, other)
	acls(conn, other)
	locks(conn, other)
	words()
	restart(conn, other)
	conn.Close()
	other.Close()
}
