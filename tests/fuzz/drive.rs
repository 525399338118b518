//! Runs targets on their seeds and on mutations of them, the same ones every time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use ringkeeper::base::Prng;

use super::allocation;
use super::targets::Target;

/// Runs of one target; `RINGKEEPER_FUZZ_RUNS` lengthens it.
const RUNS: u64 = 3_000;
/// A target that takes longer over one input hangs: the fastest are done in microseconds, and no
/// machine is that slow.
const HANG: Duration = Duration::from_secs(60);
/// What any target may allocate, whatever it is given: inflating takes a window and buffers, a tree
/// its first pages.
const ALLOCATION_BASE: usize = 256 << 10;
/// Longest input.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Runs each target on its seeds, then on mutations.
pub(crate) fn run(targets: &[Target]) {
    let runs = std::env::var("RINGKEEPER_FUZZ_RUNS").ok().and_then(|text| text.parse().ok());
    for target in targets {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}: a target needs valid inputs to start from", target.name);
        let watch = Watch::start(target.name);
        for seed in &seeds {
            one(target, seed, &watch);
        }
        let mut prng = Prng::new(u64::from(crc32c::crc32c(target.name.as_bytes())));
        for _ in 0..runs.unwrap_or(RUNS) {
            one(target, &mutate(&mut prng, &seeds), &watch);
        }
    }
}

/// Runs a target once; panics with the input if it does what it must not do.
fn one(target: &Target, input: &[u8], watch: &Watch) {
    watch.begin(input);
    let mut outcome = Ok(());
    let bytes = allocation::most_in_use(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    });
    watch.end();
    assert!(outcome.is_ok(), "{}: panics on {}", target.name, hex(input));
    let bound = ALLOCATION_BASE + target.bytes_per_byte * input.len();
    assert!(bytes <= bound, "{}: {bytes} bytes, bound {bound}, for {}", target.name, hex(input));
}

/// Ends the process with the input that a target hangs on.
struct Watch(mpsc::Sender<Option<Vec<u8>>>);

impl Watch {
    fn start(name: &'static str) -> Self {
        let (begun, inputs) = mpsc::channel::<Option<Vec<u8>>>();
        thread::spawn(move || {
            while let Ok(input) = inputs.recv() {
                let Some(input) = input else { continue };
                if inputs.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
                    eprintln!("{name}: hangs on {}", hex(&input));
                    process::abort();
                }
            }
        });
        Self(begun)
    }

    fn begin(&self, input: &[u8]) {
        self.0.send(Some(input.to_vec())).expect("the thread waits for it");
    }

    fn end(&self) {
        self.0.send(None).expect("the thread waits for it");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One to six changes to one of the seeds.
fn mutate(prng: &mut Prng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = pick(prng, seeds).cloned().unwrap_or_default();
    for _ in 0..=prng.below(6) {
        change(prng, &mut bytes, seeds);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

/// Numbers that decoders are wrong about.
const NUMBERS: [i32; 12] =
    [-1, 0, 1, -2, 4, 16, i32::MAX, i32::MIN, 0x0010_0000, 0x0100_0000, -10, i32::MAX - 16];

fn change(prng: &mut Prng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    let at = below(prng, bytes.len());
    match prng.below(10) {
        0 => bytes.truncate(at),
        1 => {
            let len = below(prng, 40);
            bytes.splice(at..at, (0..len).map(|_| prng.next_u64().to_le_bytes()[0]));
        }
        2 => {
            let end = at + below(prng, bytes.len() - at);
            bytes.drain(at..end);
        }
        3 => {
            // A piece of a valid input, or of this one.
            let other = pick(prng, seeds).cloned().unwrap_or_default();
            let start = below(prng, other.len());
            let end = start + below(prng, other.len() - start);
            bytes.splice(at..at, other.get(start..end).unwrap_or_default().iter().copied());
        }
        4 => {
            let number = pick(prng, &NUMBERS).copied().unwrap_or_default();
            overwrite(bytes, at, &number.to_be_bytes());
        }
        5 => {
            let number = i32::try_from(prng.below(300)).unwrap_or_default();
            overwrite(bytes, at, &number.to_be_bytes());
        }
        6 => overwrite(bytes, at & !3, &prng.next_u64().to_be_bytes()),
        7 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << prng.below(8);
            }
        }
        8 => bytes.extend_from_within(at..),
        _ => overwrite(bytes, at, &prng.next_u64().to_be_bytes()[..1]),
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).for_each(|(to, from)| *to = *from);
}

fn pick<'a, T>(prng: &mut Prng, from: &'a [T]) -> Option<&'a T> {
    from.get(below(prng, from.len()))
}

fn below(prng: &mut Prng, end: usize) -> usize {
    usize::try_from(prng.below(end as u64)).unwrap_or_default()
}

/// Planted faults: each must be found.
pub(crate) fn notices() {
    let seeds = || vec![vec![0, 0, 0, 9]];
    let panics = |input: &[u8]| assert!(input.len() != 3, "planted");
    let trusts_a_length = |input: &[u8]| {
        if let Some((len, _)) = input.split_first_chunk() {
            let len = usize::try_from(i32::from_be_bytes(*len)).unwrap_or_default();
            drop(Vec::<u8>::with_capacity(len.min(1 << 24)));
        }
    };
    let sound = |input: &[u8]| drop(input.to_vec());
    let found = |run: fn(&[u8])| {
        let target = Target { name: "planted", run, seeds, bytes_per_byte: 4 };
        catch_unwind(|| self::run(&[target])).is_err()
    };
    assert!(found(panics), "a panic");
    assert!(found(trusts_a_length), "an allocation");
    assert!(!found(sound), "nothing");
}
