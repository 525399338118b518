//! The properties of primary order atomic broadcast as the paper states them ("Zab:
//! High-performance broadcast for primary-backup systems", section III), judged from what was
//! broadcast and what was delivered, without any knowledge of how.

use std::collections::HashMap;

use bytes::Bytes;

use crate::model::Zxid;

/// A process that has crashed and recovered is another one: it delivers its history again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(usize);

/// What a primary broadcast.
struct Sent {
    by: Process,
    zxid: Zxid,
    txn: Bytes,
    /// How much the primary had delivered by then.
    delivered: usize,
}

/// All that happened.
#[derive(Default)]
pub(super) struct Record {
    sent: Vec<Sent>,
    delivered: Vec<Vec<(Zxid, Bytes)>>,
}

impl Record {
    pub(super) fn process(&mut self) -> Process {
        self.delivered.push(Vec::new());
        Process(self.delivered.len() - 1)
    }

    pub(super) fn broadcast(&mut self, by: Process, zxid: Zxid, txn: Bytes) {
        let delivered = self.delivered[by.0].len();
        self.sent.push(Sent { by, zxid, txn, delivered });
    }

    /// A process has delivered this log, all of it or more than before.
    pub(super) fn deliver_all(&mut self, at: Process, log: &[(Zxid, Bytes)]) {
        let before = self.delivered[at.0].len();
        self.delivered[at.0].extend(log.iter().skip(before).cloned());
    }

    /// Where each process delivered what.
    fn places(&self) -> Vec<HashMap<Zxid, usize>> {
        let places = |log: &Vec<(Zxid, Bytes)>| {
            log.iter().enumerate().map(|(at, (zxid, _))| (*zxid, at)).collect()
        };
        self.delivered.iter().map(places).collect()
    }

    /// # Errors
    /// The property that does not hold, and where.
    pub(super) fn check(&self) -> Result<(), String> {
        self.integrity()?;
        let places = self.places();
        self.total_order(&places)?;
        self.agreement(&places)?;
        self.local_primary_order(&places)?;
        self.global_primary_order()?;
        self.primary_integrity()
    }

    /// If some process delivers a txn, then some process has broadcast it.
    fn integrity(&self) -> Result<(), String> {
        let sent: HashMap<Zxid, &Bytes> =
            self.sent.iter().map(|sent| (sent.zxid, &sent.txn)).collect();
        for (at, log) in self.delivered.iter().enumerate() {
            for (zxid, txn) in log {
                if sent.get(zxid) != Some(&txn) {
                    return Err(format!("integrity: {at} delivers {zxid}, which nobody broadcast"));
                }
            }
        }
        Ok(())
    }

    /// If some process delivers a before b, then any process that delivers b delivers a before it.
    fn total_order(&self, places: &[HashMap<Zxid, usize>]) -> Result<(), String> {
        for log in &self.delivered {
            // Neighbours are enough.
            for pair in log.windows(2) {
                let (a, b) = (pair[0].0, pair[1].0);
                for (at, place) in places.iter().enumerate() {
                    let Some(of_b) = place.get(&b) else { continue };
                    if place.get(&a).is_none_or(|of_a| of_b < of_a) {
                        return Err(format!(
                            "total order: {at} delivers {b} without {a} before it"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// If one process delivers a and another b, then the one delivers b or the other a.
    fn agreement(&self, places: &[HashMap<Zxid, usize>]) -> Result<(), String> {
        let only = |one: usize, other: usize| {
            self.delivered[one].iter().find(|(zxid, _)| !places[other].contains_key(zxid))
        };
        for one in 0..places.len() {
            for other in one + 1..places.len() {
                if let (Some((a, _)), Some((b, _))) = (only(one, other), only(other, one)) {
                    return Err(format!("agreement: {a} is {one}'s alone, {b} is {other}'s"));
                }
            }
        }
        Ok(())
    }

    /// If a primary broadcasts a before b, then a process that delivers b has delivered a before.
    fn local_primary_order(&self, places: &[HashMap<Zxid, usize>]) -> Result<(), String> {
        let mut last: HashMap<u32, Zxid> = HashMap::new();
        for Sent { zxid: b, .. } in &self.sent {
            let Some(a) = last.insert(b.epoch(), *b) else { continue };
            for (at, place) in places.iter().enumerate() {
                let Some(of_b) = place.get(b) else { continue };
                if place.get(&a).is_none_or(|of_a| of_b < of_a) {
                    return Err(format!("local primary order: {at} delivers {b} before {a}"));
                }
            }
        }
        Ok(())
    }

    /// What earlier primaries broadcast is delivered before what later ones did.
    fn global_primary_order(&self) -> Result<(), String> {
        for (at, log) in self.delivered.iter().enumerate() {
            if let Some(pair) = log.windows(2).find(|pair| pair[1].0.epoch() < pair[0].0.epoch()) {
                let (first, second) = (pair[0].0, pair[1].0);
                return Err(format!("global primary order: {at} delivers {first}, then {second}"));
            }
        }
        Ok(())
    }

    /// If some process delivers what an earlier primary broadcast, then a later primary has
    /// delivered it before it broadcast anything.
    fn primary_integrity(&self) -> Result<(), String> {
        let mut first: HashMap<u32, &Sent> = HashMap::new();
        for sent in &self.sent {
            first.entry(sent.zxid.epoch()).or_insert(sent);
        }
        for (epoch, sent) in first {
            let had = &self.delivered[sent.by.0][..sent.delivered];
            for log in &self.delivered {
                let mut earlier = log.iter().take_while(|(zxid, _)| zxid.epoch() < epoch);
                if let Some((missing, _)) = earlier.nth(had.len()) {
                    return Err(format!("primary integrity: {epoch} begins without {missing}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn z(epoch: u32, counter: u32) -> (Zxid, Bytes) {
        (Zxid::new(epoch, counter), Bytes::from(format!("{epoch}.{counter}")))
    }

    /// Primary 0 broadcasts 1.1 and 1.2; who delivers them then, primary 1 broadcasts 2.1.
    fn record(before: &[&[(Zxid, Bytes)]], after: &[&[(Zxid, Bytes)]]) -> Record {
        let mut record = Record::default();
        let processes = [(); 3].map(|()| record.process());
        for (zxid, txn) in [z(1, 1), z(1, 2)] {
            record.broadcast(processes[0], zxid, txn);
        }
        for (process, log) in processes.iter().zip(before) {
            record.deliver_all(*process, log);
        }
        let (zxid, txn) = z(2, 1);
        record.broadcast(processes[1], zxid, txn);
        for (process, log) in processes.iter().zip(after) {
            record.deliver_all(*process, log);
        }
        record
    }

    #[test]
    fn a_history_in_order_has_all_properties() {
        let all = [z(1, 1), z(1, 2), z(2, 1)];
        assert_eq!(record(&[&all[..1], &all[..2]], &[&all, &all, &all[..2]]).check(), Ok(()));
        assert_eq!(record(&[], &[]).check(), Ok(()));
        // What nobody delivers, a later primary need not have.
        let without = [z(1, 1), z(2, 1)];
        let kept = [&without[..1], &without[..1]];
        assert_eq!(record(&kept, &[&without, &without]).check(), Ok(()));
    }

    #[test]
    fn each_property_rejects_what_breaks_it() {
        let strange = (Zxid::new(1, 1), Bytes::from_static(b"another"));
        let logs = |zxids: &[(u32, u32)]| -> Vec<(Zxid, Bytes)> {
            zxids.iter().map(|(epoch, counter)| z(*epoch, *counter)).collect()
        };
        let [a, b, x] = [(1, 1), (1, 2), (1, 3)].map(|zxid| logs(&[zxid]));
        let (a_b, b_a) = (logs(&[(1, 1), (1, 2)]), logs(&[(1, 2), (1, 1)]));
        let (c_a, a_c) = (logs(&[(2, 1), (1, 1)]), logs(&[(1, 1), (2, 1)]));
        let one = |log: &[(Zxid, Bytes)]| record(&[], &[log]).check();
        let two = |one: &[(Zxid, Bytes)], other: &[(Zxid, Bytes)]| {
            record(&[], &[one, &[], other]).check()
        };
        for (judged, property) in [
            (one(&[strange]), "integrity"),
            (one(&x), "integrity"),
            (two(&a_b, &b_a), "total order"),
            (two(&a_b, &b), "total order"),
            (two(&a, &b), "agreement"),
            (one(&b), "local primary order"),
            (one(&b_a), "local primary order"),
            (one(&c_a), "global primary order"),
            (one(&a_c), "primary integrity"),
        ] {
            let why = judged.expect_err(property);
            assert!(why.starts_with(&format!("{property}:")), "{why} instead of {property}");
        }
        assert_eq!(one(&[]), Ok(()));
        // Nobody broadcast in epoch 2 without it, but somebody delivers it later.
        let late = record(&[&a], &[&a]).check().expect_err("1 had delivered nothing");
        assert!(late.starts_with("primary integrity:"), "{late}");
    }
}
