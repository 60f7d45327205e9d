//! Leases: which worker may act, and the fencing token that its orders carry.
//!
//! Lives here: the value and its rules. It is kept as a document of the store and written with the old one expected
//! (compare-and-set), so that of two workers that want it one gets it. Never here: the store.

use nightshift_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest encoded lease that is read, in bytes.
const BYTES_MAX: usize = 4096;

/// Leave to act, until it ends. Its epoch is the fencing token: it grows with each holder, and whoever has seen a
/// higher one refuses a lower one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it. Unique to a process: a worker that was started again is another one under the same name only where
    /// the store admits one process.
    pub worker: String,
    /// From 1, one more for each time that it was acquired.
    pub epoch: u64,
    /// From then on anybody may take it.
    pub until: Timestamp,
}

impl Lease {
    /// The lease for `worker`, when it may have it: nobody holds it, it has run out, or it held it itself (its
    /// predecessor in the same place is gone). `None`: another one holds it.
    ///
    /// Write it while expecting `current`; when that conflicts, read again.
    pub fn acquire(worker: &str, ttl: Duration, now: Timestamp, current: Option<&Self>) -> Option<Self> {
        let epoch = match current {
            None => 1,
            Some(held) if held.holds(now) && held.worker != worker => return None,
            Some(held) => held.epoch.checked_add(1)?,
        };
        Some(Self { worker: worker.to_owned(), epoch, until: now + ttl })
    }

    /// The same lease for longer, with the same epoch. `None`: it has run out, somebody else may act already. A clock
    /// that was set back does not shorten it.
    pub fn renew(&self, ttl: Duration, now: Timestamp) -> Option<Self> {
        self.holds(now).then(|| Self { until: self.until.max(now + ttl), ..self.clone() })
    }

    /// Whether its holder may act now.
    pub fn holds(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// As it is kept.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a lease has string keys and finite depth")
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// A text for people when it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!("read the lease: {} bytes, more than {BYTES_MAX}", bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|e| format!("read the lease: {e}; remove the document to begin anew"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(10);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn one_holder_at_a_time_and_epochs_grow() {
        let a = Lease::acquire("a", TTL, at(0), None).unwrap();
        assert_eq!((a.epoch, a.until), (1, at(10)));
        assert_eq!(Lease::acquire("b", TTL, at(9), Some(&a)), None);
        let b = Lease::acquire("b", TTL, at(10), Some(&a)).unwrap();
        assert_eq!((b.epoch, b.worker.as_str()), (2, "b"));
        // Started again in the same place: at once, but not with the old token.
        assert_eq!(Lease::acquire("b", TTL, at(11), Some(&b)).unwrap().epoch, 3);
        assert_eq!(a.renew(TTL, at(10)), None);
        let longer = b.renew(TTL, at(15)).unwrap();
        assert_eq!((longer.epoch, longer.until), (2, at(25)));
        assert_eq!(longer.renew(TTL, at(3)).unwrap().until, at(25));
        let last = Lease { epoch: u64::MAX, ..a };
        assert_eq!(Lease::acquire("b", TTL, at(99), Some(&last)), None);
    }

    #[test]
    fn what_is_no_lease_is_refused() {
        let lease = Lease::acquire("host-a:17", TTL, at(5), None).unwrap();
        assert_eq!(Lease::decode(&lease.encode()), Ok(lease));
        for bad in ["", "{}", "[]", "null", r#"{"worker":"a","epoch":-1,"until":"1970-01-01T00:00:00Z"}"#] {
            assert!(Lease::decode(bad.as_bytes()).unwrap_err().starts_with("read the lease: "), "{bad}");
        }
        assert!(Lease::decode(&[b' '; BYTES_MAX + 1]).unwrap_err().contains("more than 4096"));
    }

    proptest! {
        #[test]
        fn no_two_workers_hold_it_at_once(moves in prop::collection::vec((0_u8..3, 0_i64..15, any::<bool>()), 1..60)) {
            // A compare-and-set document, and workers that believe what they wrote.
            let (mut stored, mut now, mut epochs) = (None::<Lease>, 0, Vec::new());
            let mut believed: [Option<Lease>; 3] = [None, None, None];
            for (worker, pass, renews) in moves {
                now += pass;
                let me = usize::from(worker);
                let new = match believed[me].as_ref().filter(|_| renews) {
                    // Its write expects what it wrote last.
                    Some(mine) if stored.as_ref() == Some(mine) => mine.renew(TTL, at(now)),
                    Some(_) => None,
                    None => Lease::acquire(&worker.to_string(), TTL, at(now), stored.as_ref()),
                };
                if let Some(new) = new {
                    if stored.as_ref().is_none_or(|s| s.epoch != new.epoch) {
                        epochs.push(new.epoch);
                    }
                    (stored, believed[me]) = (Some(new.clone()), Some(new));
                }
                let holding = believed.iter().flatten().filter(|l| l.holds(at(now))).count();
                prop_assert!(holding <= 1, "{believed:?} at {now}");
            }
            prop_assert!(epochs.windows(2).all(|w| w[0] < w[1]), "{epochs:?}");
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Lease::decode(&bytes);
        }
    }
}
