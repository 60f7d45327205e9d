//! Rates of burn: how many times faster than allowed a budget is spent.

use super::BurnRule;
use nightshift_model::slo::{Sums, TallyRing};

/// Minutes that nobody saw between two that burn, when looking for the beginning.
const GAP_MINUTES: i64 = 5;

/// Rates over the two windows of a rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// Over the long window. `None`: no events.
    pub(super) long: Option<f64>,
    /// Over the short window. `None`: no events.
    pub(super) short: Option<f64>,
    /// Sums of the long window.
    pub(super) long_sums: Sums,
    /// Sums of the short window.
    pub(super) short_sums: Sums,
}

/// The rates over the windows that end with minute `slot`, itself included. `budget`: share of events that may be bad,
/// above 0.
///
/// The rate of the long window is that of the events seen, as if they stood for those not seen, as long as half of its
/// minutes were seen. Of less, it is cut in proportion: ten bad minutes after the first start are not three bad days.
pub(super) fn rates(ring: &TallyRing, slot: i64, rule: &BurnRule, budget: f64) -> Rates {
    let (long, short) = (i64::from(rule.long_minutes.max(1)), i64::from(rule.short_minutes.max(1)));
    let (mut long_sums, mut short_sums) = (Sums::default(), Sums::default());
    for b in ring.buckets().rev().skip_while(|b| b.at > slot).take_while(|b| slot - b.at < long.max(short)) {
        if slot - b.at < long {
            long_sums.add(b);
        }
        if slot - b.at < short {
            short_sums.add(b);
        }
    }
    let half = long as f64 / 2.0;
    let seen = (long_sums.minutes as f64 / half).min(1.0);
    Rates {
        long: long_sums.bad_ratio().map(|r| r / budget * seen),
        short: short_sums.bad_ratio().map(|r| r / budget),
        long_sums,
        short_sums,
    }
}

/// The minute in which the burning that ends with `slot` began: the first of those that each spent more than they may,
/// within the long window of the rule; gaps of a few unseen minutes are bridged.
pub(super) fn began(ring: &TallyRing, slot: i64, rule: &BurnRule, budget: f64) -> i64 {
    let mut first: Option<i64> = None;
    let long = i64::from(rule.long_minutes.max(1));
    for b in ring.buckets().rev().skip_while(|b| b.at > slot).take_while(|b| slot - b.at < long) {
        let burns = b.total > 0.0 && b.bad / b.total > budget;
        match first {
            // The newest minutes may be better already; what makes the windows burn is behind them.
            None if burns => first = Some(b.at),
            Some(known) if burns && known - b.at <= GAP_MINUTES => first = Some(b.at),
            Some(known) if !burns && b.total > 0.0 || known - b.at > GAP_MINUTES => break,
            _ => {}
        }
    }
    first.unwrap_or(slot)
}
