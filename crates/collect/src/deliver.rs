//! Handing in what was seen, with patience: a busy sink pauses the source, and nothing is given up while it waits.

use crate::{Accepted, LogEntry, MetricPoint, SinkError, SourceContext, SourceError};
use nightshift_health::BySourceAndReason;
use nightshift_model::{Anomaly, Change};
use std::time::Duration;

/// Shortest and longest wait between two tries. The sink says how long; this bounds what it says.
const WAIT: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(30));

/// Times that a failing (not busy) bus is tried again before the source gives up and is restarted.
const FAILURES_MAX: u32 = 5;

/// What a source hands in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parcel {
    pub metrics: Vec<MetricPoint>,
    pub logs: Vec<LogEntry>,
    pub changes: Vec<(crate::Attributes, Change)>,
    pub alerts: Vec<(crate::Attributes, Anomaly)>,
}

impl Parcel {
    pub(crate) fn len(&self) -> usize {
        self.metrics.len() + self.logs.len() + self.changes.len() + self.alerts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Hands in all of it, waiting while the sink is busy. `None`: shutdown came first, and what is left of the parcel
/// was not taken.
///
/// # Errors
/// The bus failed for good, or too often.
pub(crate) async fn deliver(
    source: &str,
    parcel: &mut Parcel,
    context: &SourceContext,
) -> Result<Option<Accepted>, SourceError> {
    let mut total = Accepted::default();
    let mut failures = 0;
    while !parcel.is_empty() {
        let sink = &context.sink;
        // A try takes a copy: what is refused must still be ours.
        let answer = if !parcel.metrics.is_empty() {
            sink.metrics(source, parcel.metrics.clone()).await.inspect(|_| parcel.metrics.clear())
        } else if !parcel.logs.is_empty() {
            sink.logs(source, parcel.logs.clone()).await.inspect(|_| parcel.logs.clear())
        } else if !parcel.changes.is_empty() {
            sink.changes(source, parcel.changes.clone()).await.inspect(|_| parcel.changes.clear())
        } else {
            sink.alerts(source, parcel.alerts.clone()).await.inspect(|_| parcel.alerts.clear())
        };
        let wait = match answer {
            Ok(took) => {
                total.accepted += took.accepted;
                total.duplicates += took.duplicates;
                total.rejected += took.rejected;
                continue;
            }
            Err(SinkError::Busy { retry_after }) => {
                context.health.degraded(format!("paused: the bus is full, {} records wait", parcel.len()));
                retry_after
            }
            Err(SinkError::Bus(error)) if error.is_transient() && failures < FAILURES_MAX => {
                failures += 1;
                context.health.unhealthy(format!("the bus failed ({error}), {} records wait", parcel.len()));
                Duration::from_millis(200 << failures)
            }
            Err(error) => return Err(failed("hand in records", error)),
        };
        tokio::select! {
            () = tokio::time::sleep(wait.clamp(WAIT.0, WAIT.1)) => {}
            () = context.shutdown.cancelled() => return Ok(None),
        }
    }
    Ok(Some(total))
}

/// [`deliver`] for sources that cannot see anything twice: what is not taken is gone, and so it is counted.
///
/// # Errors
/// As [`deliver`].
pub(crate) async fn deliver_or_count(
    source: &str,
    parcel: &mut Parcel,
    context: &SourceContext,
) -> Result<Option<Accepted>, SourceError> {
    let answer = deliver(source, parcel, context).await;
    let reason = match &answer {
        Ok(Some(_)) => return answer,
        Ok(None) => "shutdown",
        Err(_) => "bus_failed",
    };
    count(source, reason, parcel.len() as u64, context);
    answer
}

/// Counts records that were not taken.
pub(crate) fn count(source: &str, reason: &'static str, n: u64, context: &SourceContext) {
    let label = BySourceAndReason { source: source.to_owned().into(), reason: reason.into() };
    context.metrics.samples_rejected.get_or_create(&label).inc_by(n);
}

/// An error after which starting again may help.
pub(crate) fn failed(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> SourceError {
    SourceError { what: what.into(), source: Some(Box::new(source)), fatal: false }
}

/// An error after which starting again cannot help.
pub(crate) fn fatal(what: impl Into<String>) -> SourceError {
    SourceError { what: what.into(), source: None, fatal: true }
}

/// The error with all that caused it, on one line.
pub(crate) fn chain(error: &SourceError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
