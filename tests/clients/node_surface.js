// Drives a ZooKeeper server through node-zookeeper-client and prints a normalised transcript.
//
// usage: node_surface.js PORT
//
// This client sends the handshake without the read-only field.

'use strict';

const zookeeper = require('node-zookeeper-client');

const { ACL, CreateMode, Id, Permission, State } = zookeeper;
const hosts = `127.0.0.1:${process.argv[2]}`;

function open(suffix = '', options = {}) {
  return new Promise((resolve) => {
    const settings = { sessionTimeout: 30000, spinDelay: 100, retries: 100, ...options };
    const client = zookeeper.createClient(hosts + suffix, settings);
    client.once('connected', () => resolve(client));
    client.connect();
  });
}

function state(client, wanted) {
  return new Promise((resolve) => {
    if (client.getState() === wanted) {
      resolve();
      return;
    }
    client.on('state', (now) => now === wanted && resolve());
  });
}

function text(value) {
  if (Buffer.isBuffer(value)) {
    return value.length < 100 ? `'${value}'` : `${value.length} bytes`;
  }
  if (Array.isArray(value)) {
    return `[${value.map(text).join(', ')}]`;
  }
  if (value && value.czxid) {
    const owned = value.ephemeralOwner.equals(Buffer.alloc(8)) ? '' : ' owned';
    return `v ${value.version},${value.cversion},${value.aversion}${owned} ` +
      `l ${value.dataLength} n ${value.numChildren}`;
  }
  if (value && value.permission !== undefined) {
    return `${value.permission} ${value.id.scheme}:${value.id.id}`;
  }
  if (value && value.type !== undefined) {
    return `${value.type}${value.path ? ` ${value.path}` : ''}` +
      `${value.stat ? ` ${text(value.stat)}` : ''}${value.err ? ` ${value.err}` : ''}`;
  }
  return String(value);
}

// Calls a method and shows what it calls back with.
function show(label, client, method, ...rest) {
  return new Promise((resolve) => {
    client[method](...rest, (error, ...results) => {
      const shown = error ? error.getName() : results.map((result) =>
        text(Array.isArray(result) && typeof result[0] === 'string' ? result.sort() : result));
      console.log(`${label}: ${shown}`);
      resolve(results);
    });
  });
}

// Collects events and waits for a number of them.
class Events {
  constructor() {
    this.seen = [];
    this.watcher = (event) => {
      this.seen.push(`${event.getName()} ${event.getPath()}`);
      if (this.changed) {
        this.changed();
      }
    };
  }

  async show(label, count) {
    const deadline = new Promise((resolve) => setTimeout(resolve, 60000).unref());
    while (this.seen.length < count) {
      const change = new Promise((resolve) => { this.changed = () => resolve(true); });
      if (!await Promise.race([change, deadline])) {
        break;
      }
    }
    console.log(`${label}: ${this.seen.splice(0)}`);
  }
}

async function znodes(client) {
  for (const [name, mode] of Object.entries(CreateMode)) {
    await show(`create ${name}`, client, 'create', `/${name}-`, Buffer.from('data'), mode);
  }
  await show('without data', client, 'create', '/null');
  await show('its data', client, 'getData', '/null');
  await show('again', client, 'create', '/null');
  await show('orphan', client, 'create', '/none/x');
  await show('below an ephemeral', client, 'create', '/EPHEMERAL-/x');
  await show('mkdirp', client, 'mkdirp', '/deep/er/still');
  await show('mkdirp again', client, 'mkdirp', '/deep/er/still');
  await show('exists', client, 'exists', '/PERSISTENT-');
  await show('exists not', client, 'exists', '/none');
  await show('get', client, 'getData', '/PERSISTENT-');
  await show('set', client, 'setData', '/PERSISTENT-', Buffer.from('more'), 0);
  await show('set, wrong version', client, 'setData', '/PERSISTENT-', Buffer.from('x'), 0);
  await show('children', client, 'getChildren', '/');
  await show('tree', client, 'listSubTreeBFS', '/deep');
  await show('delete with children', client, 'remove', '/deep');
  await show('delete recursively', client, 'removeRecursive', '/deep/er');
  await show('delete, wrong version', client, 'remove', '/null', 4);
  await show('delete', client, 'remove', '/null');
  await show('delete nothing', client, 'remove', '/null');
  await show('large', client, 'create', '/large', Buffer.alloc(1000000));
  await show('large back', client, 'getData', '/large');
}

async function transactions(client) {
  const good = client.transaction().create('/tx', Buffer.from('1')).check('/tx', 0)
    .create('/tx/s-', CreateMode.PERSISTENT_SEQUENTIAL)
    .setData('/tx', Buffer.from('2'), 0).remove('/tx/s-0000000000');
  await show('transaction', good, 'commit');
  const bad = client.transaction().create('/tx2').check('/tx', 7).remove('/tx');
  await new Promise((resolve) => bad.commit((error, results) => {
    console.log(`failing: ${error.getName()} ${text(results)}`);
    resolve();
  }));
  await show('nothing of it', client, 'exists', '/tx2');
}

async function watches(client, other) {
  const events = new Events();
  await show('watch nothing', client, 'exists', '/w', events.watcher);
  await show('create', other, 'create', '/w');
  await events.show('created', 1);
  await show('watch data', client, 'getData', '/w', events.watcher);
  await show('set', other, 'setData', '/w', Buffer.from('x'));
  await events.show('changed', 1);
  await show('watch children', client, 'getChildren', '/w', events.watcher);
  await show('create', other, 'create', '/w/c');
  await events.show('child', 1);
  await show('watch data', client, 'getData', '/w/c', events.watcher);
  await show('delete', other, 'remove', '/w/c');
  await events.show('deleted', 1);
  await show('set', other, 'setData', '/w', Buffer.from('y'));
  await show('read behind', client, 'getData', '/w');
  await events.show('one-shot', 0);
}

async function acls(client, other) {
  await show('acl', client, 'getACL', '/w');
  client.addAuthInfo('digest', Buffer.from('user:secret'));
  await show('creator', client, 'create', '/mine', Buffer.from('s'), ACL.CREATOR_ALL_ACL);
  await show('read', client, 'getData', '/mine');
  await show('read by others', other, 'getData', '/mine');
  await show('its acl', client, 'getACL', '/mine');
  const open_to_read = [new ACL(Permission.ALL, new Id('auth', '')),
    new ACL(Permission.READ, new Id('ip', '127.0.0.1'))];
  await show('set acl, wrong version', client, 'setACL', '/mine', open_to_read, 3);
  await show('set acl', client, 'setACL', '/mine', open_to_read, 0);
  await show('read by address', other, 'getData', '/mine');
  await show('written by address', other, 'setData', '/mine', Buffer.from('x'));
  await show('invalid', client, 'create', '/x', [new ACL(1, new Id('nope', ''))]);
}

async function chroots(client) {
  const below = await open('/w');
  await show('in a chroot', below, 'create', '/below', CreateMode.EPHEMERAL);
  await show('its root', below, 'getChildren', '/');
  await show('in a transaction', below.transaction().create('/t').remove('/t'), 'commit');
  const gone = new Events();
  await show('from outside', client, 'exists', '/w/below', gone.watcher);
  below.close();
  await gone.show('closed', 1);
}

async function pipeline(client) {
  await show('parent', client, 'create', '/many');
  const order = [];
  const all = [];
  for (let at = 0; at < 1000; at += 1) {
    all.push(new Promise((resolve) => {
      client.create('/many/p-', CreateMode.EPHEMERAL_SEQUENTIAL, (error, path) => {
        order.push(path);
        resolve();
      });
    }));
  }
  await Promise.all(all);
  const sorted = [...order].sort();
  console.log(`pipelined, in order: ${sorted.join() === order.join()}, ${new Set(order).size}`);
}

async function refusals() {
  const client = await open();
  client.addAuthInfo('nope', Buffer.from('x'));
  await state(client, State.AUTH_FAILED);
  console.log('refused auth: AUTH_FAILED');
  // A session that never was.
  const stranger = zookeeper.createClient(hosts, { sessionTimeout: 30000 });
  stranger.connectionManager.sessionId = Buffer.from('0123456789abcdef', 'hex');
  stranger.connect();
  await state(stranger, State.EXPIRED);
  console.log('unknown session: EXPIRED');
}

async function restart(client, other) {
  const [data, child, exist] = [new Events(), new Events(), new Events()];
  await show('ephemeral', client, 'create', '/w/e', CreateMode.EPHEMERAL);
  await show('watch', client, 'getData', '/w', data.watcher);
  await show('watch', client, 'getChildren', '/w', child.watcher);
  await show('watch', client, 'exists', '/w/none', exist.watcher);
  const before = client.getSessionId().toString('hex');
  const lost = [client, other].map((one) =>
    new Promise((resolve) => one.once('disconnected', resolve)));
  const back = [client, other].map((one) => new Promise((resolve) => one.on('connected', resolve)));
  console.log('RESTART');
  await new Promise((resolve) => process.stdin.once('data', resolve));
  // This client waits for ever when a server that is starting takes its handshake and is silent.
  const nudge = setInterval(() => [client, other]
    .filter((one) => one.getState() !== State.SYNC_CONNECTED)
    .forEach((one) => one.connectionManager.socket.destroy()), 5000);
  await Promise.all([...lost, ...back]);
  clearInterval(nudge);
  console.log(`the same session: ${client.getSessionId().toString('hex') === before}`);
  await show('ephemeral', other, 'exists', '/w/e');
  await show('auth replayed', client, 'getData', '/mine');
  await show('set', other, 'setData', '/w', Buffer.from('z'));
  await data.show('data', 1);
  await show('create', other, 'create', '/w/none');
  await exist.show('exists', 1);
  await child.show('children', 1);
}

async function main() {
  const client = await open();
  const other = await open();
  console.log(`timeout: ${client.getSessionTimeout()}`);
  await znodes(client);
  await transactions(client);
  await watches(client, other);
  await acls(client, other);
  await chroots(client);
  await pipeline(client);
  await refusals();
  await restart(client, other);
  client.close();
  other.close();
  process.exit(0);
}

main();
