//! Virtual time for the demo: it passes faster than the wall's, by a fixed factor.

use nightshift_model::{Clock, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// A clock that began at the same moment as another one and runs `speed` times as fast.
pub(super) struct ScaledClock {
    wall: Arc<dyn Clock>,
    began: Timestamp,
    speed: f64,
}

impl ScaledClock {
    /// Begins now. `speed` is above zero.
    pub(super) fn new(wall: Arc<dyn Clock>, speed: f64) -> Self {
        let began = wall.now();
        Self { wall, began, speed }
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        let passed: Duration = self.wall.now().since(self.began);
        self.began + passed.mul_f64(self.speed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::ManualClock;

    #[test]
    fn time_passes_by_the_factor() {
        let wall = Arc::new(ManualClock::at(Timestamp::from_secs(100)));
        let clock = ScaledClock::new(wall.clone(), 10.0);
        assert_eq!(clock.now(), Timestamp::from_secs(100));
        wall.set(Timestamp::from_secs(103));
        assert_eq!(clock.now(), Timestamp::from_secs(130));
    }
}
