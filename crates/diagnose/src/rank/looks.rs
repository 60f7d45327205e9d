//! How well what is seen fits the signature of a class ([`super::signature`]).

use super::builder::Builder;
use super::factors::{Scene, change_evidence};
use super::signature::{self, Clue, Place, Signature, What};
use super::symptom::Symptom;
use super::tables as w;
use nightshift_model::families::SignalFamily;
use nightshift_model::{EntityId, Evidence, FaultClass};
use std::collections::BTreeSet;

impl Scene<'_> {
    /// Whether a clue is there that makes the class worth a look.
    pub(super) fn has_key(&self, entity: &EntityId, signature: &Signature) -> bool {
        signature.clues.iter().any(|c| c.key && !self.seen(c, entity).is_empty())
    }

    /// What shows a clue; empty when nothing does.
    fn seen(&self, clue: &Clue, entity: &EntityId) -> Vec<Evidence> {
        match clue.what {
            What::Changed(kinds) => {
                self.changes_of(entity).filter(|c| kinds.contains(&c.change_type)).map(change_evidence).collect()
            }
            What::ChangedWords(words) => {
                let told = |c: &&nightshift_model::Change| {
                    signature::said(&c.summary, words) || c.attributes.keys().any(|k| signature::said(k, words))
                };
                self.changes_of(entity).filter(told).map(change_evidence).collect()
            }
            What::OnePart | What::ManyParts => self.parts(entity, matches!(clue.what, What::OnePart)),
            what => self
                .of_place(clue.place, entity)
                .filter(|s| signature::shows(what, s))
                .map(Symptom::as_evidence)
                .collect(),
        }
    }

    fn of_place<'b>(&'b self, place: Place, entity: &'b EntityId) -> Box<dyn Iterator<Item = &'b Symptom> + 'b> {
        let topology = self.topology;
        match place {
            Place::Own => Box::new(self.symptoms_of(entity)),
            Place::Callers => {
                let callers: BTreeSet<&EntityId> = topology.callers(entity).map(|n| n.id).collect();
                Box::new(callers.into_iter().flat_map(|id| self.symptoms_of(id)))
            }
            Place::Needs => {
                let needs: BTreeSet<&EntityId> = topology.dependencies(entity).map(|n| n.id).collect();
                Box::new(needs.into_iter().flat_map(|id| self.symptoms_of(id)))
            }
            Place::Peers => {
                let callers: Vec<&EntityId> = topology.callers(entity).map(|n| n.id).collect();
                let peers = callers.into_iter().flat_map(|c| topology.dependencies(c)).map(|n| n.id);
                let peers: BTreeSet<&EntityId> = peers.filter(|id| *id != entity).collect();
                Box::new(peers.into_iter().flat_map(|id| self.symptoms_of(id)))
            }
        }
    }

    /// Symptoms of failing or slow work on one named part only (or on several).
    fn parts(&self, entity: &EntityId, one: bool) -> Vec<Evidence> {
        let work = |s: &&Symptom| {
            matches!(
                s.family,
                Some(
                    SignalFamily::ErrorRatio
                        | SignalFamily::Latency
                        | SignalFamily::Availability
                        | SignalFamily::Restarts
                )
            ) && s.score >= signature::SEEN_MIN
                && s.is_replica
        };
        let all: Vec<&Symptom> = self.symptoms_of(entity).filter(work).collect();
        let names: BTreeSet<&str> = all.iter().map(|s| s.part.as_str()).collect();
        let fits = if one { names.len() == 1 } else { names.len() > 1 };
        if fits { all.into_iter().map(Symptom::as_evidence).collect() } else { Vec::new() }
    }

    /// The signature of a class, against what is seen.
    pub(super) fn signature(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        let Some(worst) = self.symptoms_of(entity).next() else { return };
        self.only_how_it_shows(entity, fault, b);
        let Some(signature) = signature::of(fault) else { return };
        // What it brings with it speaks for it, as far as its own symptoms do not already.
        let strength = |s: &Symptom| ((s.score - 0.2) / 0.8).max(0.0);
        let own = self.symptoms_of(entity).filter(|s| s.fault == fault).map(strength).fold(0.0, f64::max);
        let brought: Vec<&Symptom> =
            self.symptoms_of(entity).filter(|s| s.family.is_some_and(|f| signature.brings.contains(&f))).collect();
        let best = brought.iter().map(|s| strength(s)).fold(0.0, f64::max);
        let odds = w::SIGNAL * (signature::BROUGHT * best - own).max(0.0);
        let names: BTreeSet<&str> = brought.iter().map(|s| s.signal.as_str()).take(4).collect();
        let why = format!("it would show as {}", names.into_iter().collect::<Vec<_>>().join(", "));
        b.add("signature", odds, why, brought.into_iter().map(Symptom::as_evidence).collect());

        let mut sum: f64 = 0.0;
        for clue in signature.clues {
            let seen = self.seen(clue, entity);
            let wanted = if seen.is_empty() { clue.absent } else { clue.present };
            let next = (sum + wanted).clamp(-signature::CLUES_MAX, signature::CLUES_MAX);
            let odds = next - sum;
            sum = next;
            if seen.is_empty() {
                // The absence of something is told beside what is there.
                b.add("signature", odds, format!("no {}", clue.name), vec![worst.as_evidence()]);
            } else {
                b.add("signature", odds, clue.name.to_owned(), seen);
            }
        }
    }

    /// Latency and errors are consequences where something ran out.
    fn only_how_it_shows(&self, entity: &EntityId, fault: FaultClass, b: &mut Builder) {
        if !signature::is_generic(fault) {
            return;
        }
        let ran_out = self
            .symptoms_of(entity)
            .filter(|s| (w::is_resource(s.fault) || w::is_named_cause(s.fault)) && s.score >= 0.5 && s.fault != fault);
        let causes: Vec<&Symptom> = ran_out.collect();
        if let Some(first) = causes.first() {
            let odds = w::EXPLAINED * first.score;
            let why = format!("{} explains it", first.fault.title().to_lowercase());
            b.add("signature", odds, why, causes.into_iter().map(Symptom::as_evidence).collect());
        }
    }
}
