//! Where the fault is: how much of what is lost arises at each service and is not handed on by what it calls.
//!
//! Lost time is what requests take longer than usual, times how many there are; lost requests are those that fail.
//! Both are handed on to callers, and both add up, so what a service loses less what its dependencies lose is its own
//! share of the blame. Time that a caller waits and the callee does not work is lost between them: a service whose
//! every wire is slow has a slow network. A resource that moved points at its owner. What stops calling others while
//! it is called as ever broke off by itself.
//!
//! The idea to follow anomalies down the calls and to stop at the deepest is that of MonitorRank (Kim et al.,
//! SIGMETRICS 2013) and of the traversal in Hardt et al. (`PetShop`, `CLeaR` 2024); here it is no walk but a balance, so
//! that noise does not decide where it stops.

use super::facts::{Call, Fact, Facts, Service};
use nightshift_model::SignalFamily;
use std::collections::{BTreeMap, BTreeSet};

/// One of the ways to be blamed, with the share of each service (0 to 1).
pub(super) struct Dimension {
    /// Name in the explanation.
    pub(super) factor: &'static str,
    /// What shows it.
    pub(super) families: &'static [SignalFamily],
    /// Scale of its log-odds.
    pub(super) weight: f64,
    /// Share by service index.
    pub(super) shares: Vec<f64>,
    /// What a share is a share of.
    pub(super) of: &'static str,
}

/// Share of the blame that everything has without evidence: it bounds what one dimension can say to
/// `ln(1 / SHARE_MIN)`, about 50 to 1.
pub(super) const SHARE_MIN: f64 = 0.02;
/// Weights. Time and failures are what an incident is; a resource of its own points at a service as much.
const TIME: f64 = 1.0;
const FAILURES: f64 = 1.0;
const CPU: f64 = 1.0;
/// Starts and stops move memory as faults do.
const MEMORY: f64 = 0.25;
/// Traffic moves bytes and system calls wherever it goes.
const TRAFFIC: f64 = 0.1;
/// Any other resource: locks, queues, connections, disks.
const RESOURCE: f64 = 0.5;
const BROKEN_OFF: f64 = 1.0;
/// What users see fail, and nothing within, speaks for the first service they meet, half as loud: it may come from below.
const USERS: f64 = 0.5;
/// Of a slow wire the callee is to blame first: what waits before its clock starts is waiting for it.
const CALLER_OF_WIRE: f64 = 0.5;
/// Lost time is held against this share of the usual time of the service that works most: a few milliseconds somewhere are
/// no incident, though nothing else be slower than usual.
const MATERIAL: f64 = 0.01;
/// An alert on time is explained by lost time before failures, and the other way round.
const OTHER_THAN_ALERT: f64 = 0.5;

/// What is lost at each service, and how sure it is that anything is.
struct Loss {
    own: Vec<f64>,
    /// 0 to 1.
    sure: Vec<f64>,
}

impl Loss {
    /// Amounts as shares of their sum.
    fn shares(self) -> Self {
        Self { own: shares(&self.own), sure: self.sure }
    }
}

impl Dimension {
    /// What is not sure as a whole says less: the smallest noise is all there is when nothing else moves.
    fn new(factor: &'static str, families: &'static [SignalFamily], weight: f64, loss: Loss, of: &'static str) -> Self {
        let all: f64 = loss.own.iter().sum();
        let sure: f64 = loss.own.iter().zip(&loss.sure).map(|(own, sure)| own * sure).sum();
        let sure = if all > 0.0 { sure / all } else { 0.0 };
        Self { factor, families, weight: weight * sure, shares: loss.own, of }
    }
}

/// Calls and amounts, ready for the balances.
pub(super) struct Ledger<'a> {
    services: &'a [Service],
    calls: &'a BTreeMap<(usize, usize), Call>,
    callees: Vec<Vec<usize>>,
    callers: Vec<Vec<usize>>,
    rate: Vec<f64>,
    /// Whether nobody tells of any call: then what alerts is taken to need all others.
    guessed: bool,
}

impl<'a> Ledger<'a> {
    /// `alerting`: the service of the alert.
    pub(super) fn new(facts: &'a Facts, alerting: Option<&str>) -> Self {
        let n = facts.services.len();
        let (mut callees, mut callers) = (vec![Vec::new(); n], vec![Vec::new(); n]);
        for (from, to) in facts.calls.keys() {
            callees[*from].push(*to);
            callers[*to].push(*from);
        }
        let guessed = facts.calls.is_empty();
        if let Some(from) = alerting.filter(|_| guessed).and_then(|a| facts.services.iter().position(|s| s.name == a)) {
            callees[from].extend((0..n).filter(|to| *to != from));
            (0..n).filter(|to| *to != from).for_each(|to| callers[to].push(from));
        }
        let rate = rates(&facts.services, &callers, &callees);
        Self { services: &facts.services, calls: &facts.calls, callees, callers, rate, guessed }
    }

    /// All dimensions. `alert`: what the alert is about.
    pub(super) fn dimensions(&self, alert: Option<SignalFamily>) -> Vec<Dimension> {
        use SignalFamily as F;
        let users = self.users_see();
        let failing = match alert {
            Some(family) => matches!(family, F::ErrorRatio | F::Availability),
            None => users.own.iter().any(|share| *share > 0.0),
        };
        let time = if failing { TIME * OTHER_THAN_ALERT } else { TIME };
        let failures = if alert == Some(F::Latency) { FAILURES * OTHER_THAN_ALERT } else { FAILURES };
        let lost = self.lost_time();
        let failed = self.lost_requests();
        let broken_off = Loss { sure: vec![1.0; self.services.len()], own: self.broken_off() };
        let mut out = vec![
            Dimension::new(
                "lost_time",
                &[F::Latency],
                time,
                self.material(lost),
                "the time lost that no callee explains",
            ),
            Dimension::new(
                "failures",
                &[F::ErrorRatio, F::Availability],
                failures,
                failed.shares(),
                "the requests lost that no callee explains",
            ),
            Dimension::new("users", &[], USERS, users, "what users see fail, which nothing within shows"),
            Dimension::new("broken_off", &[F::RequestRate], BROKEN_OFF, broken_off, "what it used to ask of others"),
        ];
        let cpu: &[F] = &[F::Cpu];
        let memory: &[F] = &[F::Memory];
        let traffic: &[F] = &[F::DiskIo, F::Network];
        for (factor, families, weight, of) in [
            ("cpu", cpu, CPU, "the processor time gained"),
            ("memory", memory, MEMORY, "the memory gained"),
            ("traffic", traffic, TRAFFIC, "the input and output gained"),
        ] {
            out.push(Dimension::new(factor, families, weight, self.resource(|f| families.contains(&f)), of));
        }
        let other = |f: F| ![F::Cpu, F::Memory, F::DiskIo, F::Network].contains(&f);
        out.push(Dimension::new("resource", &[], RESOURCE, self.resource(other), "what its resources gained"));
        out
    }

    /// Everything that the alerting service needs, itself among it; `None` when nothing is known of it.
    pub(super) fn needs(&self, alerting: &str) -> Option<BTreeSet<usize>> {
        let start = self.services.iter().position(|s| s.name == alerting)?;
        let mut seen = BTreeSet::from([start]);
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            open.extend(self.callees[at].iter().filter(|to| seen.insert(**to)));
        }
        (seen.len() > 1).then_some(seen)
    }

    pub(super) fn callees(&self, at: usize) -> &[usize] {
        &self.callees[at]
    }

    /// Share of the work of `to` that is done for `from`: shared by the amount of work of its callers.
    fn share_of(&self, from: usize, to: usize) -> f64 {
        let all: f64 = self.callers[to].iter().map(|c| self.rate[*c]).sum();
        if all > 0.0 { self.rate[from] / all } else { 0.0 }
    }

    /// What all requests to a service lost, a row on average.
    fn amount(&self, at: usize, fact: &Fact) -> f64 {
        let rows = fact.beyond.len().max(1) as f64;
        let sum: f64 = match &self.services[at].rate {
            Some(rate) => fact.beyond.iter().zip(&rate.rows).map(|(beyond, rate)| beyond * rate).sum(),
            None => fact.beyond.iter().sum::<f64>() * self.rate[at],
        };
        sum / rows
    }

    /// Seconds lost in each service and in its wires, per unit of time.
    fn lost_time(&self) -> Loss {
        let n = self.services.len();
        // What is lost within each service, its callees included, and how sure that is.
        let (mut lost, mut sure) = (vec![0.0; n], vec![0.0_f64; n]);
        // What users see is lost within as well.
        for (i, s) in self.services.iter().enumerate().filter(|(_, s)| !s.pseudo) {
            let ends: Vec<_> =
                self.callers[i].iter().filter_map(|c| Some((*c, self.calls.get(&(*c, i))?.server.as_ref()?))).collect();
            if !ends.is_empty() {
                lost[i] =
                    ends.iter().map(|(c, f)| self.share_of(*c, i) * self.amount(i, f) * f.departure.weight()).sum();
                sure[i] = ends.iter().map(|(_, f)| f.departure.weight()).fold(0.0, f64::max);
            } else if let Some(time) = &s.time {
                lost[i] = self.amount(i, time);
                sure[i] = time.departure.weight();
            }
        }
        let mut out = vec![0.0; n];
        let mut wires: Vec<((usize, usize), f64, f64)> = Vec::new();
        let mut waited: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for ((from, to), call) in self.calls {
            let Some(client) = &call.client else { continue };
            let share = self.share_of(*from, *to);
            let wait = share * self.amount(*to, client) * client.departure.weight();
            waited.insert((*from, *to), wait);
            let worked = call.server.as_ref().map_or(lost[*to], |server| share * self.amount(*to, server));
            let gap = (wait - worked).max(0.0);
            let calls = share * self.rate[*to];
            wires.push(((*from, *to), gap, if calls > 0.0 { gap / calls } else { 0.0 }));
        }
        for (i, own) in out.iter_mut().enumerate() {
            let handed_on = |to: &usize| waited.get(&(i, *to)).copied().unwrap_or_else(|| lost[*to].min(lost[i]));
            let explained: f64 = self.callees[i].iter().map(handed_on).sum();
            *own = (lost[i] - explained).max(0.0) * sure[i];
        }
        for ((from, to), call) in self.calls {
            let of_wire = call.client.as_ref().map_or(0.0, |f| f.departure.weight());
            sure[*from] = sure[*from].max(of_wire);
            sure[*to] = sure[*to].max(of_wire);
        }
        for (own, wire) in out.iter_mut().zip(self.slow_wires(&wires)) {
            *own += wire;
        }
        Loss { own: out, sure }
    }

    /// Lost times as shares of all that is lost, and of what would matter.
    fn material(&self, lost: Loss) -> Loss {
        let busy = |(s, rate): (&Service, &f64)| s.time.as_ref().map_or(0.0, |f| f.usual_mean * rate);
        let most = self.services.iter().zip(&self.rate).map(busy).fold(0.0, f64::max);
        let all = lost.own.iter().sum::<f64>() + MATERIAL * most;
        let own = lost.own.into_iter().map(|own| if all > 0.0 { own / all } else { 0.0 }).collect();
        Loss { own, sure: lost.sure }
    }

    /// Shares the time lost on wires among the services at their ends: whoever has most of it, and on all of its wires.
    fn slow_wires(&self, wires: &[((usize, usize), f64, f64)]) -> Vec<f64> {
        let n = self.services.len();
        let total: f64 = wires.iter().map(|(_, gap, _)| gap).sum();
        if total <= 0.0 {
            return vec![0.0; n];
        }
        let (mut covered, mut per_call) = (vec![0.0; n], vec![Vec::new(); n]);
        for ((from, to), gap, of_call) in wires {
            covered[*from] += CALLER_OF_WIRE * gap / total;
            covered[*to] += gap / total;
            per_call[*from].push(*of_call);
            per_call[*to].push(*of_call);
        }
        let likely: Vec<f64> = covered
            .iter()
            .zip(&per_call)
            .map(|(covered, gaps)| {
                let most = gaps.iter().copied().fold(0.0, f64::max);
                if most > 0.0 { covered * gaps.iter().sum::<f64>() / (gaps.len() as f64 * most) } else { 0.0 }
            })
            .collect();
        shares(&likely).into_iter().map(|share| share * total).collect()
    }

    /// Requests lost in each service, per unit of time, less those lost below it.
    fn lost_requests(&self) -> Loss {
        let sure: Vec<f64> =
            self.services.iter().map(|s| s.success.as_ref().map_or(0.0, |f| f.departure.weight())).collect();
        let failed = |(i, s): (usize, &Service)| s.success.as_ref().map_or(0.0, |f| self.amount(i, f) * sure[i]);
        let lost: Vec<f64> = self.services.iter().enumerate().map(failed).collect();
        let below = |i: usize| self.callees[i].iter().map(|to| lost[*to].min(lost[i])).sum::<f64>();
        let own = |i: usize| if self.services[i].pseudo { 0.0 } else { (lost[i] - below(i)).max(0.0) };
        Loss { own: (0..lost.len()).map(own).collect(), sure }
    }

    /// Failures that users see (at a pseudo service) though no service within has any: by the services they meet first.
    fn users_see(&self) -> Loss {
        let of = |s: &Service| s.success.as_ref().map_or(0.0, |f| f.departure.weight());
        let outside = self.services.iter().filter(|s| s.pseudo).map(of).fold(0.0, f64::max);
        let inside = self.services.iter().filter(|s| !s.pseudo).map(of).fold(0.0, f64::max);
        let first = |i: usize| {
            let called = self.callers[i].iter().any(|c| !self.services[*c].pseudo);
            !self.services[i].pseudo && !called && !self.callees[i].is_empty()
        };
        let seen = outside > 0.0 && inside <= 0.0;
        let own = |i: usize| if seen && first(i) { self.rate[i] } else { 0.0 };
        let n = self.services.len();
        Loss { own: (0..n).map(own).collect(), sure: vec![outside; n] }.shares()
    }

    /// How much less each service asks of another than it is asked itself.
    fn broken_off(&self) -> Vec<f64> {
        let failing = |i: usize| self.services[i].success.as_ref().map_or(0.0, |f| f.departure.weight());
        let fall = |i: usize| self.services[i].rate.as_ref().map_or((0.0, 0.0), |r| (r.fallen, r.sure));
        let mut out = vec![0.0_f64; self.services.len()];
        for (to, s) in self.services.iter().enumerate() {
            let (lost, sure) = fall(to);
            if s.pseudo || lost * sure <= 0.0 || self.guessed {
                continue;
            }
            for from in self.callers[to].iter().filter(|c| !self.services[**c].pseudo) {
                // Who fails because another failed him asks no further: that is no fault of his.
                let let_down = self.callees[*from].iter().map(|c| if *c == to { 0.0 } else { failing(*c) });
                let by_itself = 1.0 - let_down.fold(0.0, f64::max);
                let own = (lost * sure - fall(*from).0) * self.share_of(*from, to) * by_itself;
                out[*from] = out[*from].max(own);
            }
        }
        out
    }

    /// Share of what the metrics of one name gained over all services, the largest of each.
    fn resource(&self, of: impl Fn(SignalFamily) -> bool) -> Loss {
        let n = self.services.len();
        let mut gained: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        let mut sure = vec![0.0_f64; n];
        for (i, s) in self.services.iter().enumerate() {
            for (_, fact) in s.own.iter().filter(|(family, _)| of(*family)) {
                let weight = fact.departure.weight();
                if fact.departure.delta * weight > 0.0 {
                    gained.entry(&fact.metric).or_insert_with(|| vec![0.0; n])[i] = fact.departure.delta * weight;
                    sure[i] = sure[i].max(weight);
                }
            }
        }
        let mut own = vec![0.0_f64; n];
        for amounts in gained.values() {
            for (best, share) in own.iter_mut().zip(shares(amounts)) {
                *best = best.max(share);
            }
        }
        Loss { own, sure }
    }
}

/// Work that arrives at each service. Where it is not counted, as much as at its neighbours, else as at most services;
/// where nobody counts, one is as good as any number.
fn rates(services: &[Service], callers: &[Vec<usize>], callees: &[Vec<usize>]) -> Vec<f64> {
    let counted = |i: usize| services[i].rate.as_ref().map(|r| r.now);
    let middle = |mut known: Vec<f64>| {
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    };
    let usual = middle((0..services.len()).filter_map(counted).collect()).unwrap_or(1.0);
    let near = |i: usize| middle(callers[i].iter().chain(&callees[i]).filter_map(|n| counted(*n)).collect());
    (0..services.len()).map(|i| counted(i).or_else(|| near(i)).unwrap_or(usual)).collect()
}

/// Amounts as shares of their sum.
fn shares(amounts: &[f64]) -> Vec<f64> {
    let total: f64 = amounts.iter().sum();
    amounts.iter().map(|a| if total > 0.0 { a / total } else { 0.0 }).collect()
}
