//! The decision about a lease, without a cluster.

use super::*;

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn hold(holder: &str, renewed: &str) -> Hold {
    Hold { holder: holder.into(), lasts_secs: 15, transitions: 2, renewed: renewed.into() }
}

fn seen(holder: &str, since: Duration) -> Seen {
    Seen { hold: hold(holder, "2026-11-22T10:00:00Z"), since }
}

#[test]
fn there_is_none_so_it_is_made() {
    assert_eq!(decide("a", None, secs(5)), Decision::Create);
}

#[test]
fn our_own_is_renewed_however_old_it_is() {
    assert_eq!(decide("a", Some(&seen("a", secs(0))), secs(1)), Decision::Renew);
    assert_eq!(decide("a", Some(&seen("a", secs(0))), secs(10_000)), Decision::Renew);
}

#[test]
fn anothers_is_left_until_it_was_seen_unchanged_for_as_long_as_it_lasts() {
    let other = seen("b", secs(100));
    assert_eq!(decide("a", Some(&other), secs(100)), Decision::Wait);
    assert_eq!(decide("a", Some(&other), secs(115) - Duration::from_nanos(1)), Decision::Wait);
    assert_eq!(decide("a", Some(&other), secs(115)), Decision::Take);
}

#[test]
fn one_that_was_given_back_is_taken_at_once() {
    assert_eq!(decide("a", Some(&seen("", secs(100))), secs(100)), Decision::Take);
}

#[test]
fn what_the_holders_clock_says_does_not_count() {
    // A holder whose clock is years ahead or behind: only when it was seen to change matters.
    for renewed in ["1999-01-01T00:00:00Z", "2099-01-01T00:00:00Z", ""] {
        let first = Seen::next(None, hold("b", renewed), secs(50));
        assert_eq!(decide("a", Some(&first), secs(64)), Decision::Wait, "{renewed}");
        assert_eq!(decide("a", Some(&first), secs(65)), Decision::Take, "{renewed}");
    }
    // Renewed at our second 60, whatever its clock says: it counts from there, even backwards.
    let first = Seen::next(None, hold("b", "2026-11-22T10:00:00Z"), secs(50));
    let renewed = Seen::next(Some(first.clone()), hold("b", "2026-11-22T09:00:00Z"), secs(60));
    assert_eq!(renewed.since, secs(60));
    assert_eq!(decide("a", Some(&renewed), secs(70)), Decision::Wait);
    // The same again keeps its time.
    assert_eq!(Seen::next(Some(first.clone()), first.hold.clone(), secs(64)).since, secs(50));
}

#[test]
fn a_lease_that_lasts_for_ever_does_not() {
    let mut other = seen("b", secs(0));
    other.hold.lasts_secs = i32::MAX;
    assert_eq!(decide("a", Some(&other), secs(3_599)), Decision::Wait);
    assert_eq!(decide("a", Some(&other), secs(3_600)), Decision::Take);
    other.hold.lasts_secs = -5;
    assert_eq!(decide("a", Some(&other), secs(0)), Decision::Take);
}

#[test]
fn a_clock_that_goes_back_takes_nothing() {
    assert_eq!(decide("a", Some(&seen("b", secs(100))), secs(10)), Decision::Wait);
}

#[test]
fn times_must_leave_room_to_step_down() {
    let good = LeaseSettings::new("own", "nightshift", "pod-0");
    assert_eq!(good.problems(), Vec::<String>::new());
    let bad = [
        LeaseSettings { identity: String::new(), ..good.clone() },
        LeaseSettings { renew_within: secs(15), ..good.clone() },
        LeaseSettings { retry: secs(10), ..good.clone() },
        LeaseSettings { lasts: Duration::from_millis(15_500), ..good.clone() },
        LeaseSettings { lasts: secs(7_200), ..good },
    ];
    for settings in bad {
        assert_eq!(settings.problems().len(), 1, "{settings:?}");
    }
}
