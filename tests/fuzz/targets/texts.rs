//! What people and clients write as text: configuration, quotas, paths.

use ringkeeper::config::{Config, ensemble, properties};
use ringkeeper::model::path;
use ringkeeper::tree::Track;

use super::Target;

/// A line of one byte becomes a property with two strings.
const BYTES_PER_BYTE: usize = 200;

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "config", run: config, seeds: configs, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "ensemble", run: members, seeds: ensembles, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "quota", run: quota, seeds: quotas, bytes_per_byte: BYTES_PER_BYTE },
    Target { name: "path", run: paths, seeds: path_seeds, bytes_per_byte: BYTES_PER_BYTE },
];

fn config(input: &[u8]) {
    let properties = properties::parse(input);
    assert!(properties.len() <= input.len(), "every property takes a line");
    match Config::parse(input, "zoo.cfg", &|_| Ok(None)) {
        Ok((_, warnings)) => drop(format!("{warnings:?}")),
        Err(error) => assert!(error.to_string().starts_with("zoo.cfg:"), "{error}"),
    }
}

fn configs() -> Vec<Vec<u8>> {
    [
        "dataDir=/var/lib/x\nclientPort=2181\ntickTime=2000\n",
        "# comment\ndataDir : /d\\\n  more\nclientPort=2181\n4lw.commands.whitelist=stat, ruok\n\
         maxClientCnxns=60\nautopurge.snapRetainCount=3\nringkeeper.shards=2\n",
        "dataDir=/d\nclientPort=2181\nclientPortAddress=::1\nminSessionTimeout=1\nsnapCount=9\n\
         syncLimit=5\ninitLimit=10\nextendedTypesEnabled=true\nenforceQuota=\\u0074rue\n",
        "dataDir=/d\nclientPort=2181\nserver.1=a:1:2\nserver.2=b:1:2\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn members(input: &[u8]) {
    let Ok(config) = ensemble::parse(&String::from_utf8_lossy(input), "zoo.cfg.dynamic") else {
        return;
    };
    let text = ensemble::text(&config);
    let again = ensemble::parse(&text, "again");
    assert_eq!(again.as_ref(), Ok(&config), "{text}");
}

fn ensembles() -> Vec<Vec<u8>> {
    [
        "server.1=127.0.0.1:2888:3888:participant;0.0.0.0:2181\nserver.2=b:2888:3888;2181\n\
         version=100000000\n",
        "server.1=a:1:2|b:3:4:observer;[::1]:5\n",
        "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\ngroup.1=1:2\ngroup.2=3\nweight.1=2\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn quota(input: &[u8]) {
    let track = Track::parse(input);
    let text = track.to_string();
    assert_eq!(Track::parse(text.as_bytes()).to_string(), text);
    let _sums = (track.count(), track.bytes());
}

fn quotas() -> Vec<Vec<u8>> {
    ["count=4,bytes=-1=;byteHardLimit=20;countHardLimit=5", "count=1,bytes=7", "count=,bytes=x"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn paths(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if path::is_valid(&text) && *text != *"/" {
        let (parent, name) = (path::parent(&text).expect("it has a slash"), path::name(&text));
        let between = if parent == "/" { "" } else { "/" };
        assert_eq!(format!("{parent}{between}{name}"), text);
    }
}

fn path_seeds() -> Vec<Vec<u8>> {
    ["/", "/a/b", "/a/./b", "/zookeeper/quota", "/\u{e000}"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
