//! The poll.

use super::answer::{Answer, AnswerError, parse};
use crate::client::{Client, Credentials, FetchError};
use crate::deliver::{Parcel, deliver};
use crate::scrape::Resources;
use crate::{Attributes, MetricPoint, Source, SourceContext, SourceError};
use async_trait::async_trait;
use nightshift_model::Clock;
use nightshift_model::batch::{SeriesKind, labels};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Query {
    /// Name of the series; empty: the one that the answer has.
    pub name: String,
    /// The expression, PromQL.
    pub expr: String,
    /// Labels of every series of the answer, where it does not have them: `service`, `instance` … say what it is about.
    pub labels: BTreeMap<String, String>,
    /// Whether an empty answer is as it should be (an expression with a comparison). Else it is shown as degraded.
    pub may_be_empty: bool,
}

/// Source `prometheus_query`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PromqlConfig {
    /// Address of the server, with the path before `/api/v1` where there is one.
    pub url: String,
    /// How to say who we are.
    pub credentials: Credentials,
    /// The questions.
    pub queries: Vec<Query>,
    /// How often they are asked.
    #[schemars(range(min = 1, max = 3600))]
    pub interval_secs: u64,
    /// Time for an answer.
    #[schemars(range(min = 1, max = 600))]
    pub timeout_secs: u64,
    /// Largest answer, bytes.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub body_bytes_max: usize,
    /// Most values of an answer.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub values_max: usize,
}

impl Default for PromqlConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:9090".into(),
            credentials: Credentials::None,
            queries: Vec::new(),
            interval_secs: 15,
            timeout_secs: 10,
            body_bytes_max: 16 << 20,
            values_max: 50_000,
        }
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// How a question went.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Good,
    Partial(String),
    Failed(String),
}

/// Polls until it is told to end.
#[derive(Debug)]
pub struct PromqlSource {
    name: String,
    settings: PromqlConfig,
}

impl PromqlSource {
    /// A source of this name.
    pub fn new(name: &str, settings: PromqlConfig) -> Self {
        Self { name: name.to_owned(), settings }
    }

    /// The address to ask; credentials in it are refused, as it is shown and logged.
    fn endpoint(&self) -> Result<String, SourceError> {
        let bad = |what: &str| SourceError { what: what.into(), source: None, fatal: true };
        let base = reqwest::Url::parse(&self.settings.url)
            .map_err(|_| bad("read `url` of a prometheus_query source; write it as http://host:port"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(bad("use `url` of a prometheus_query source; write it as http://host:port"));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(bad(
                "use `url` of a prometheus_query source: it holds credentials; put them into `credentials`",
            ));
        }
        Ok(format!("{}/api/v1/query", self.settings.url.trim_end_matches('/')))
    }

    async fn ask(&self, client: &Client, endpoint: &str, query: &Query, at: f64) -> Result<Answer, AskError> {
        // By POST: the expression does not show up in access logs, and may be long.
        let form = reqwest::Url::parse_with_params(
            "http://form/",
            [
                ("query", query.expr.as_str()),
                ("time", &at.to_string()),
                ("timeout", &format!("{}s", self.settings.timeout_secs)),
            ],
        )
        .ok();
        let body = form.as_ref().and_then(reqwest::Url::query).unwrap_or_default().to_owned();
        let request = client.post(endpoint).header("content-type", "application/x-www-form-urlencoded").body(body);
        let mut answer = Vec::new();
        let fetched = client.fetch(
            request,
            self.settings.body_bytes_max,
            // Refusals (400, 422, 503) say why in the same form.
            |status| status.is_success() || matches!(status.as_u16(), 400 | 422 | 503),
            |_| (),
            |piece| {
                answer.extend_from_slice(piece);
                true
            },
        );
        let status = fetched.await?;
        parse(&answer, self.settings.values_max).map_err(|e| match e {
            // A proxy's error page is a status, not a broken Prometheus.
            AnswerError::Shape(_) if !status.is_success() => FetchError::Status(status.as_u16()).into(),
            e => e.into(),
        })
    }

    fn points(&self, query: &Query, answer: Answer) -> Vec<MetricPoint> {
        // What an aggregate is about when nothing says so: the server it was asked of stands for it, not this host.
        let base: Attributes = [("job".to_owned(), self.name.clone())].into();
        let mut resources = Resources::new(base);
        let point = |one: super::Value| {
            let mut own = one.labels;
            let given = own.remove(labels::NAME);
            let name = if query.name.is_empty() { given.unwrap_or_default() } else { query.name.clone() };
            for (n, v) in &query.labels {
                own.entry(n.clone()).or_insert_with(|| v.clone());
            }
            let own: Vec<_> = own.into_iter().collect();
            let resource = resources.of(&own);
            // The value of an expression is a level, unless it is a counter as it is.
            let kind = if query.name.is_empty() { SeriesKind::from_metric_name(&name) } else { SeriesKind::Gauge };
            MetricPoint { resource, name, labels: own, kind, at: one.at, value: one.value }
        };
        answer.values.into_iter().map(point).collect()
    }

    async fn round(
        &self,
        client: &Client,
        endpoint: &str,
        clock: &dyn Clock,
    ) -> (Vec<MetricPoint>, Vec<(String, Outcome)>) {
        let at = clock.now().millis() as f64 / 1_000.0;
        let (mut points, mut outcomes) = (Vec::new(), Vec::new());
        for query in &self.settings.queries {
            let outcome = match self.ask(client, endpoint, query, at).await {
                Ok(answer) => {
                    let outcome = judge(query, &answer);
                    points.extend(self.points(query, answer));
                    outcome
                }
                Err(e) => Outcome::Failed(e.to_string()),
            };
            let name = if query.name.is_empty() { &query.expr } else { &query.name };
            outcomes.push((name.chars().take(60).collect(), outcome));
        }
        (points, outcomes)
    }
}

fn judge(query: &Query, answer: &Answer) -> Outcome {
    if !answer.warnings.is_empty() {
        return Outcome::Partial(answer.warnings.join("; "));
    }
    if answer.values.is_empty() {
        return match (answer.histograms, query.may_be_empty) {
            (0, true) => Outcome::Good,
            (0, false) => Outcome::Partial("no data".into()),
            (_, _) => Outcome::Partial("native histograms only; ask with histogram_quantile()".into()),
        };
    }
    Outcome::Good
}

fn report(context: &SourceContext, outcomes: &[(String, Outcome)]) {
    let failed = outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Failed(_))).count();
    let good = outcomes.iter().filter(|(_, o)| *o == Outcome::Good).count();
    let mut said = format!("{good} of {} queries answered in full", outcomes.len());
    for (name, outcome) in outcomes {
        if let Outcome::Partial(why) | Outcome::Failed(why) = outcome
            && said.len() < 600
        {
            said.push_str(&format!("; {name}: {why}"));
        }
    }
    if outcomes.is_empty() {
        context.health.degraded("no queries are configured");
    } else if failed == outcomes.len() {
        context.health.unhealthy(said);
    } else if good < outcomes.len() {
        context.health.degraded(said);
    } else {
        context.health.healthy(said);
    }
}

#[async_trait]
impl Source for PromqlSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "prometheus_query"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        let endpoint = self.endpoint()?;
        let timeout = Duration::from_secs(self.settings.timeout_secs);
        let client = Client::new(self.settings.credentials.clone(), timeout).map_err(|e| SourceError {
            what: "set up the queries".into(),
            source: Some(Box::new(e)),
            fatal: true,
        })?;
        let mut ticks = tokio::time::interval(Duration::from_secs(self.settings.interval_secs.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = context.shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let (points, outcomes) = tokio::select! {
                () = context.shutdown.cancelled() => return Ok(()),
                round = self.round(&client, &endpoint, &*context.clock) => round,
            };
            let mut parcel = Parcel { metrics: points, ..Parcel::default() };
            // A busy sink pauses the queries here.
            if deliver(&self.name, &mut parcel, context).await?.is_none() {
                return Ok(());
            }
            report(context, &outcomes);
        }
    }
}
