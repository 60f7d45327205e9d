//! When surprise is an alarm: once per event, and less easily where there have been many.

use super::super::codec::wire_struct;

/// Threshold of a series without recent alarms, -log10 of the probability. Tuned on the development halves.
const THRESHOLD: f32 = 1.8;
/// Every alarm raises it by so much. Tuned: 0.05 to 0.1 are alike, 0 costs a point and a fifth more false alarms.
const HEAT: f32 = 0.1;
/// Samples in which that falls to 1/e.
const COOLING: f32 = 1000.0;
/// Samples of silence after an alarm. Tuned: 100 to 120 are alike, 60 and 150 are worse.
const REST: u32 = 110;

/// Alarms of one series: a threshold, silence after each, habituation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Gate {
    rest: u32,
    heat: f32,
}

wire_struct!(Gate { rest, heat });

impl Gate {
    /// Whether this sample, of surprise `nlp`, raises an alarm.
    pub fn step(&mut self, nlp: f32) -> bool {
        self.heat *= 1.0 - 1.0 / COOLING;
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        let raises = nlp >= self.threshold();
        if raises {
            self.rest = REST;
            self.heat += 1.0;
        }
        raises
    }

    /// What surprise would raise an alarm now, were it not silent.
    pub fn threshold(&self) -> f32 {
        THRESHOLD + HEAT * self.heat
    }

    /// Whether it is silent after an alarm.
    pub fn rests(&self) -> bool {
        self.rest > 0
    }
}
