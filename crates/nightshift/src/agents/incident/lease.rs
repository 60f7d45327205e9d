//! The lease of a tenant's responder, as a document of the store.
//!
//! Every commit that orders something expects it unchanged: a worker that lost it can write no more, so it hands
//! nothing out. Its epoch is the fencing token of every order.

use nightshift_act::Lease;
use nightshift_model::Timestamp;
use nightshift_store::Document;
use std::time::Duration;

/// Collection and key of the document.
pub(super) const LEASES: (&str, &str) = ("responder.lease", "responder");
/// How long a lease is held without being renewed.
const HELD: Duration = Duration::from_secs(60);
/// What must be left of it before it is renewed.
const RENEW: Duration = Duration::from_secs(30);

/// A lease and what the store has of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) lease: Lease,
}

/// What a commit expects, and what it puts in its place.
type Swap = (Document, Document);

impl Held {
    /// The lease taken over from what the store holds. `None` while another worker has it.
    pub(super) fn take(found: &[Document], worker: &str, now: Timestamp) -> Option<(Self, Swap)> {
        let was = found.iter().find(|d| d.key == LEASES.1).and_then(|d| d.body.clone());
        let known = was.as_deref().and_then(|body| {
            Lease::decode(body).inspect_err(|e| tracing::error!("{e}: it is taken over all the same")).ok()
        });
        let lease = Lease::acquire(worker, HELD, now, known.as_ref())?;
        let held = Self { lease };
        let swap = (document(was), held.expected());
        Some((held, swap))
    }

    /// What to put to hold it longer, which the next commit must do; `None` while there is time.
    ///
    /// # Errors
    /// When it has run out: somebody else may act already.
    pub(super) fn renew(&mut self, now: Timestamp) -> Result<Option<Swap>, ()> {
        if self.lease.until.since(now) > RENEW {
            return Ok(None);
        }
        let expected = self.expected();
        self.lease = self.lease.renew(HELD, now).ok_or(())?;
        Ok(Some((expected, self.expected())))
    }

    /// What every commit that orders something expects.
    pub(super) fn expected(&self) -> Document {
        document(Some(self.lease.encode()))
    }
}

fn document(body: Option<Vec<u8>>) -> Document {
    Document { collection: LEASES.0.into(), key: LEASES.1.into(), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_swapped_for_what_the_store_holds() {
        let at = Timestamp::from_secs;
        let (mut a, (expected, put)) = Held::take(&[], "a", at(0)).unwrap();
        assert_eq!((a.lease.epoch, expected.body), (1, None));
        let stored = [put];
        assert_eq!(Held::take(&stored, "b", at(59)), None);
        assert_eq!(Held::take(&stored, "b", at(60)).unwrap().0.lease.epoch, 2);
        assert_eq!(a.renew(at(10)), Ok(None));
        let (expected, put) = a.renew(at(40)).unwrap().unwrap();
        assert_eq!((&expected, put), (&stored[0], a.expected()));
        assert_eq!(a.lease.until, at(100));
        assert_eq!(a.renew(at(200)), Err(()));
    }
}
