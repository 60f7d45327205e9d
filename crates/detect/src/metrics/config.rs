//! What can be set about metric detection. Every default is a safe one; the text of each field is its reference.

use crate::features::FeaturesConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far from normal is far, in sigmas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sensitivity {
    /// 2 sigma.
    High,
    /// 3 sigma.
    #[default]
    Medium,
    /// 4 sigma.
    Low,
}

impl Sensitivity {
    /// Sigmas.
    pub const fn sigma(self) -> f64 {
        match self {
            Self::High => 2.0,
            Self::Medium => 3.0,
            Self::Low => 4.0,
        }
    }
}

/// A sigma for the metrics of some names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SigmaRule {
    /// Metric name; `*` stands for any text.
    pub metric: String,
    /// Sigmas.
    #[schemars(range(min = 0.5, max = 100.0))]
    pub sigma: f64,
}

/// A limit that a metric must not reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitRule {
    /// Metric name; `*` stands for any text.
    pub metric: String,
    /// The limit, in the unit of the metric.
    pub limit: f64,
    /// Whether the limit is approached from above (free space towards 0).
    #[serde(default)]
    pub falling: bool,
}

/// Distance from a robust mean of the recent past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ZscoreConfig {
    /// Whether the layer speaks.
    pub enabled: bool,
    /// Sigmas for metrics of hosts and of everything that is no service.
    pub sensitivity: Sensitivity,
    /// Sigmas for metrics of services and workloads.
    #[schemars(range(min = 0.5, max = 100.0))]
    pub service_sigma: f64,
    /// Sigmas by metric name; the first rule that matches wins over the two above.
    pub sigma: Vec<SigmaRule>,
    /// Readings that the mean remembers (the weight of a new one is 1 / this). 360 are an hour at 10 s.
    #[schemars(range(min = 30, max = 100_000))]
    pub memory_points: u32,
}

impl Default for ZscoreConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            sensitivity: Sensitivity::Medium,
            service_sigma: 2.5,
            sigma: Vec::new(),
            memory_points: 360,
        }
    }
}

/// Chart of the exponentially weighted mean of the distances (Roberts 1959): sees what is moderate but lasts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EwmaConfig {
    /// Whether the layer speaks.
    pub enabled: bool,
    /// Weight of the newest reading.
    #[schemars(range(min = 0.01, max = 0.9))]
    pub lambda: f64,
    /// Mean distance that is an alarm, in sigmas at medium sensitivity.
    #[schemars(range(min = 0.5, max = 8.0))]
    pub sigma: f64,
}

impl Default for EwmaConfig {
    fn default() -> Self {
        Self { enabled: true, lambda: 0.2, sigma: 4.5 }
    }
}

/// Linear trend: when will a limit be reached?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrendConfig {
    /// Whether the layer speaks.
    pub enabled: bool,
    /// Time that the line is fitted to, seconds (exponential weights).
    #[schemars(range(min = 60, max = 604_800))]
    pub window_secs: u32,
    /// A limit that is further away than this is no news, seconds.
    #[schemars(range(min = 60, max = 2_592_000))]
    pub horizon_secs: u32,
    /// Least time seen before a word is said, seconds.
    #[schemars(range(min = 10, max = 604_800))]
    pub span_min_secs: u32,
    /// Least share of the variance that the line explains (R²).
    #[schemars(range(min = 0.1, max = 1.0))]
    pub fit_min: f64,
    /// Limits by metric name; the first that matches wins over those known by name (ratios 1, percents 100, free 0).
    pub limits: Vec<LimitRule>,
}

impl Default for TrendConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            window_secs: 3_600,
            horizon_secs: 4 * 3_600,
            span_min_secs: 900,
            fit_min: 0.85,
            limits: Vec::new(),
        }
    }
}

/// Robust forecast of the next reading: level, damped trend and a season that is found in the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ForecastConfig {
    /// Whether the layer speaks.
    pub enabled: bool,
    /// Weight of the newest reading in the level while no season is known.
    #[schemars(range(min = 0.01, max = 0.9))]
    pub lambda: f64,
    /// Series of the whole process that may look for a season (1.2 KiB each) and have an ensemble (4.5 KiB each); the
    /// others keep level and trend.
    #[schemars(range(min = 0, max = 100_000_000))]
    pub series_max: u32,
    /// Least autocorrelation that makes a season.
    #[schemars(range(min = 0.1, max = 1.0))]
    pub season_min: f64,
}

impl Default for ForecastConfig {
    fn default() -> Self {
        Self { enabled: true, lambda: 0.3, series_max: 50_000, season_min: 0.45 }
    }
}

/// Extreme value threshold (peaks over threshold): makes the false alarm rate a setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EvtConfig {
    /// Whether distances are judged by the tail that the series itself shows; else by its sigma alone.
    pub enabled: bool,
    /// Probability that a normal reading is called extreme.
    #[schemars(range(min = 1e-9, max = 0.01))]
    pub risk: f64,
}

impl Default for EvtConfig {
    fn default() -> Self {
        Self { enabled: true, risk: 2e-4 }
    }
}

/// A series that used to vary and does not any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FlatlineConfig {
    /// Whether the layer speaks.
    pub enabled: bool,
    /// Fewest equal readings in a row.
    #[schemars(range(min = 3, max = 10_000))]
    pub points_min: u32,
}

impl Default for FlatlineConfig {
    fn default() -> Self {
        Self { enabled: true, points_min: 10 }
    }
}

/// A series that stopped while its source goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AbsenceConfig {
    /// Whether the layer speaks. Off: pods and partitions come and go by the thousand.
    pub enabled: bool,
    /// Intervals (learned from the series) without a reading.
    #[schemars(range(min = 2, max = 1_000))]
    pub intervals: u32,
    /// Least silence, seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub silence_min_secs: u32,
}

impl Default for AbsenceConfig {
    fn default() -> Self {
        Self { enabled: false, intervals: 5, silence_min_secs: 120 }
    }
}

/// Several weak witnesses, each held against its own past, as one probability: decides on series that are long known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EnsembleConfig {
    /// Whether the layer speaks; without it the other layers decide alone.
    pub enabled: bool,
    /// Whether shapes that were never seen are evidence.
    pub shape: bool,
    /// Whether the day and the week are learned.
    pub calendar: bool,
    /// Whether values and steps are evidence, and means over some readings.
    pub level: bool,
    /// See `level`.
    pub sustained: bool,
    /// -log10 of the probability that is an alarm, for readings five minutes apart; faster ones must be rarer.
    #[schemars(range(min = 1.0, max = 12.0))]
    pub threshold: f64,
    /// It decides on series whose readings are at least this far apart, seconds; on faster ones the other layers do:
    /// there a fault is many readings, and many series say so at once.
    #[schemars(range(min = 0, max = 86_400))]
    pub interval_min_secs: u32,
}

impl Default for EnsembleConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            shape: true,
            calendar: true,
            level: true,
            sustained: true,
            threshold: 4.5,
            interval_min_secs: 30,
        }
    }
}

/// Detection on metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MetricsConfig {
    /// Distance from a robust mean.
    pub zscore: ZscoreConfig,
    /// Chart of the mean distance.
    pub ewma: EwmaConfig,
    /// Time until a limit is reached.
    pub trend: TrendConfig,
    /// Level, damped trend and season.
    pub forecast: ForecastConfig,
    /// Threshold from the tail of each series.
    pub evt: EvtConfig,
    /// Varying series that go flat.
    pub flatline: FlatlineConfig,
    /// Series that stop.
    pub absence: AbsenceConfig,
    /// Many witnesses as one probability.
    pub ensemble: EnsembleConfig,
    /// Features per service and minute.
    pub features: FeaturesConfig,
    /// Readings before a word is said of a series.
    #[schemars(range(min = 30, max = 10_000))]
    pub warmup_points: u32,
    /// Strong readings (one miss between two is forgiven) that open an alarm on a service metric; hosts need one more.
    #[schemars(range(min = 1, max = 20))]
    pub open_points: u32,
    /// Time that a departure of a host metric must last, seconds: being busy for a moment is what a machine is for.
    #[schemars(range(min = 0, max = 3_600))]
    pub host_persist_secs: u32,
    /// A single reading opens an alarm when it is this many times beyond the threshold (not on host metrics).
    #[schemars(range(min = 1.0, max = 100.0))]
    pub extreme_ratio: f64,
    /// Calm readings in a row that close an alarm.
    #[schemars(range(min = 1, max = 1_000))]
    pub calm_points: u32,
    /// A departure that lasted this long is the new normal: the alarm closes and the baseline is learned anew, seconds.
    #[schemars(range(min = 60, max = 604_800))]
    pub relearn_secs: u32,
    /// Fewest readings of such a departure.
    #[schemars(range(min = 10, max = 10_000))]
    pub relearn_points: u32,
    /// Samples older than this, against the newest of their source, are counted and not scored, seconds.
    #[schemars(range(min = 0, max = 86_400))]
    pub late_secs: u32,
    /// A series without samples for this long is forgotten, seconds.
    #[schemars(range(min = 60, max = 604_800))]
    pub idle_secs: u32,
    /// Most series per tenant and source, over all shards; samples of others are counted and not scored.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub series_max: u32,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            zscore: ZscoreConfig::default(),
            ewma: EwmaConfig::default(),
            trend: TrendConfig::default(),
            forecast: ForecastConfig::default(),
            evt: EvtConfig::default(),
            flatline: FlatlineConfig::default(),
            absence: AbsenceConfig::default(),
            ensemble: EnsembleConfig::default(),
            features: FeaturesConfig::default(),
            warmup_points: 30,
            open_points: 2,
            host_persist_secs: 10,
            extreme_ratio: 1.5,
            calm_points: 3,
            relearn_secs: 3_600,
            relearn_points: 60,
            late_secs: 3_600,
            idle_secs: 3_600,
            series_max: 1_000_000,
        }
    }
}

/// Whether `name` fits `pattern`, in which `*` stands for any text. Linear: one backtrack point.
pub(crate) fn glob(pattern: &str, name: &str) -> bool {
    let (p, n) = (pattern.as_bytes(), name.as_bytes());
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < n.len() {
        if i < p.len() && p[i] == b'*' {
            star = Some((i, j));
            i += 1;
        } else if i < p.len() && p[i] == n[j] {
            i += 1;
            j += 1;
        } else if let Some((si, sj)) = star {
            i = si + 1;
            j = sj + 1;
            star = Some((si, sj + 1));
        } else {
            return false;
        }
    }
    p[i..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (p, n, want) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*cpu*", "node_cpu_seconds", true),
            ("cpu", "cpu", true),
            ("cpu", "cpus", false),
            ("", "x", false),
            ("**a", "bba", true),
        ] {
            assert_eq!(glob(p, n), want, "{p} {n}");
        }
    }

    #[test]
    fn the_empty_configuration_is_the_default_and_a_part_keeps_the_rest() {
        assert_eq!(serde_json::from_str::<MetricsConfig>("{}").unwrap(), MetricsConfig::default());
        let part: MetricsConfig = serde_json::from_str(r#"{"zscore":{"sensitivity":"high"}}"#).unwrap();
        assert_eq!(part.zscore.sensitivity.sigma(), 2.0);
        assert_eq!(part.zscore.service_sigma, 2.5);
    }
}
