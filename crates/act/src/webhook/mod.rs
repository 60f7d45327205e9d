//! Orders as signed JSON to a URL: for anything that can answer HTTP. The form is documented in `docs/actuators.md`.
//!
//! Lives here: the request, and what each status means for "was it done?". Beside it: `answer` (what the receiver may
//! say). Never here: what the receiver does with it.

mod answer;

pub use answer::{ANSWER_BYTES_MAX, fuzz_webhook_answer};

use crate::sign::{SIGNATURE_HEADER, sign};
use crate::{ActError, Actuator, Answer, BuildError, Declares, operation_of};
use async_trait::async_trait;
use futures::StreamExt as _;
use nightshift_config::SecretString;
use nightshift_model::{Action, ActionType, Clock, EntityId, Image, Operation, PlanHash, Timestamp};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Url};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Version of what is posted. Fields are added, never renamed.
pub const ORDER_VERSION: u32 = 1;

/// The header that carries the fencing token.
pub const FENCE_HEADER: &str = "nightshift-fence";
/// The header that carries the idempotency key.
pub const KEY_HEADER: &str = "idempotency-key";

/// Signed JSON to a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WebhookConfig {
    /// Where orders are posted to: `https`, or `http` to this host. Redirects are not followed.
    #[schemars(extend("format" = "uri"))]
    pub url: SecretString,
    /// What orders are signed with (HMAC-SHA256), 16 bytes at least. The receiver must check the signature.
    pub secret: Option<SecretString>,
    /// Sent as `Authorization: Bearer …` beside the signature, for a gateway in front of the receiver.
    pub token: Option<SecretString>,
    /// Orders may go to another host over `http`. They are signed, but anybody on the way can read them.
    pub allow_http: bool,
    /// What it does. Anything else is refused.
    pub actions: Vec<ActionType>,
    /// The receiver keeps keys: the same key twice has the effect of once.
    pub idempotent: bool,
    /// The receiver answers `observe`: whether a key was done.
    pub observable: bool,
    /// The receiver answers `dry_run`: tries without effect.
    pub dry_run: bool,
    /// The receiver answers `canary`: does a part first.
    pub canary: bool,
    /// The receiver answers `look`: reads the target. Without it nothing can be put back to what it was.
    pub look: bool,
    /// Seconds to connect.
    #[schemars(range(min = 1, max = 60))]
    pub connect_secs: u64,
    /// Seconds for a look that is no part of an order. Orders have the deadline of their step.
    #[schemars(range(min = 1, max = 60))]
    pub look_secs: u64,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            url: "".into(),
            secret: None,
            token: None,
            allow_http: false,
            actions: Vec::new(),
            idempotent: false,
            observable: false,
            dry_run: false,
            canary: false,
            look: true,
            connect_secs: 5,
            look_secs: 5,
        }
    }
}

impl WebhookConfig {
    /// Checks the values and sets the client up; sends nothing.
    ///
    /// # Errors
    /// What is wrong, one line; never the URL or a secret.
    pub fn build(&self, clock: Arc<dyn Clock>) -> Result<Webhook, BuildError> {
        let bad = |key: &str, what: &str| BuildError { key: key.to_owned(), what: what.to_owned() };
        let url = Url::parse(self.url.expose())
            .ok()
            .filter(|u| matches!(u.scheme(), "http" | "https") && u.host_str().is_some())
            .ok_or_else(|| bad("url", "it must begin with https:// (or http://) and name a host"))?;
        if url.scheme() == "http" && !self.allow_http && !is_loopback(&url) {
            return Err(bad("url", "orders to another host need https; set allow_http if the way there is yours"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("url", "it holds a user or password; refer to them with `token`"));
        }
        let secret = self
            .secret
            .clone()
            .filter(|s| s.expose().len() >= 16)
            .ok_or_else(|| bad("secret", "orders are signed: name a secret of 16 bytes at least"))?;
        if self.actions.is_empty() || self.actions.contains(&ActionType::ManualReview) {
            return Err(bad("actions", "name what it does; manual_review is done by people"));
        }
        let token = self.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| bad("token", "it holds what no header can carry"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        // Whoever comes first installs it; that it was installed before is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("nightshift/", env!("CARGO_PKG_VERSION")))
            // A redirect could carry an order elsewhere, or carry it out twice.
            .redirect(reqwest::redirect::Policy::none())
            // What was sent on an old connection that broke is in doubt; on a new one we know whether it got through.
            .pool_max_idle_per_host(0)
            .connect_timeout(Duration::from_secs(self.connect_secs.clamp(1, 60)))
            .build()
            .map_err(|e| bad("url", &format!("set up the HTTP client: {}", e.without_url())))?;
        let origin = url.origin().ascii_serialization();
        let (config, token) = (self.clone(), token.transpose()?);
        Ok(Webhook { client, url, origin, secret, token, config, clock, fence: AtomicU64::new(0) })
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Posts orders.
pub struct Webhook {
    client: reqwest::Client,
    url: Url,
    /// Scheme, host and port: all that is ever told of the URL.
    origin: String,
    secret: SecretString,
    token: Option<HeaderValue>,
    config: WebhookConfig,
    clock: Arc<dyn Clock>,
    /// The highest that was seen.
    fence: AtomicU64,
}

/// What is posted.
#[derive(Debug, Serialize)]
struct Posted<'a> {
    version: u32,
    operation: &'a str,
    /// Of an observation: what is looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<&'a str>,
    action: ActionType,
    target: Target<'a>,
    #[serde(flatten)]
    order: Option<Order<'a>>,
}

#[derive(Debug, Serialize)]
struct Target<'a> {
    id: &'a EntityId,
    cluster: String,
    kind: &'a str,
    namespace: String,
    name: String,
}

/// What only an order has.
#[derive(Debug, Serialize)]
struct Order<'a> {
    key: &'a str,
    attempt: u32,
    fence: u64,
    deadline: Timestamp,
    incident: String,
    plan: PlanHash,
    step: u32,
    params: &'a Image,
    before: &'a Image,
}

impl Webhook {
    fn body(&self, operation: &str, action: ActionType, target: &EntityId, order: Option<&Action>) -> Vec<u8> {
        let of = order.filter(|o| o.operation == Operation::Observe).and_then(|o| operation_of(&o.key));
        let posted = Posted {
            version: ORDER_VERSION,
            operation,
            of: of.map(Operation::as_str),
            action,
            target: Target {
                id: target,
                cluster: target.cluster(),
                kind: target.kind_str(),
                namespace: target.namespace(),
                name: target.name(),
            },
            order: order.map(|o| Order {
                key: &o.key,
                attempt: o.attempt,
                fence: o.fence,
                deadline: o.deadline,
                incident: o.incident.to_string(),
                plan: o.plan,
                step: o.step,
                params: &o.params,
                before: &o.before,
            }),
        };
        serde_json::to_vec(&posted).expect("an order has string keys and finite depth")
    }

    fn request(&self, body: Vec<u8>) -> RequestBuilder {
        let at = self.clock.now().millis().div_euclid(1_000);
        let signature = sign(self.secret.expose().as_bytes(), at, &body);
        let mut request = self.client.post(self.url.clone());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.clone());
        }
        request.header(CONTENT_TYPE, "application/json").header(SIGNATURE_HEADER, signature).body(body)
    }

    /// Posts and reads the answer. Gives up after `limit`.
    async fn post(&self, request: RequestBuilder, operation: Operation, limit: Duration) -> Result<Answer, ActError> {
        let exchange = async {
            let response = request.send().await.map_err(|e| self.broken(&e, operation))?;
            let status = response.status().as_u16();
            if !(200..300).contains(&status) {
                return Err(self.said_no(status, operation));
            }
            let mut body = Vec::new();
            let mut pieces = response.bytes_stream();
            while let Some(piece) = pieces.next().await {
                body.extend_from_slice(&piece.map_err(|e| self.broken(&e, operation))?);
                if body.len() > ANSWER_BYTES_MAX {
                    break;
                }
            }
            answer::read(&body, operation).map_err(|why| self.doubt(operation, &why))
        };
        let late = |_| self.doubt(operation, &format!("no answer in {} s", limit.as_secs()));
        tokio::time::timeout(limit, exchange).await.map_err(late)?
    }

    /// What is sent and has no answer that can be read: of a change nobody knows.
    fn doubt(&self, operation: Operation, why: &str) -> ActError {
        let why = format!("{operation} at {}: {why}", self.origin);
        if operation.changes() { ActError::Uncertain(why) } else { ActError::NotDone(why) }
    }

    fn broken(&self, error: &reqwest::Error, operation: Operation) -> ActError {
        // The innermost cause is the one that helps: "connection refused", "invalid peer certificate". None of them
        // names the URL, only reqwest's own error does.
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        let told =
            if std::ptr::addr_eq(cause, error) { "the exchange broke off".to_owned() } else { cause.to_string() };
        if error.is_connect() {
            return ActError::NotDone(format!("connect to {}: {told}", self.origin));
        }
        if error.is_builder() {
            return ActError::Refused(format!("write the order to {}: {told}", self.origin));
        }
        self.doubt(operation, &told)
    }

    /// What a status that is no success says of "was it done?": the table of `docs/actuators.md`.
    fn said_no(&self, status: u16, operation: Operation) -> ActError {
        let why = |hint: &str| format!("{operation} at {}: answered {status}{hint}", self.origin);
        match status {
            301 | 302 | 307 | 308 => {
                ActError::Refused(why(", redirects are not followed: set the url to where it leads"))
            }
            408 | 425 | 429 => ActError::NotDone(why("")),
            401 | 403 => ActError::Refused(why(", check `secret`, `token` and both clocks")),
            409 => ActError::Refused(why(", it conflicts with what was done there, or another worker acts")),
            400..=499 | 501 => ActError::Refused(why("")),
            _ => self.doubt(operation, &format!("answered {status}")),
        }
    }
}

#[async_trait]
impl Actuator for Webhook {
    fn kind(&self) -> &'static str {
        "webhook"
    }

    fn declares(&self) -> Declares {
        let WebhookConfig { idempotent, observable, dry_run, canary, .. } = self.config;
        Declares { idempotent, observable, dry_run, canary }
    }

    fn handles(&self, action: ActionType, _target: &EntityId) -> bool {
        self.config.actions.contains(&action)
    }

    async fn look(&self, target: &EntityId, action: ActionType) -> Result<Image, ActError> {
        if !self.config.look {
            return Ok(Image::new());
        }
        let body = self.body("look", action, target, None);
        let limit = Duration::from_secs(self.config.look_secs.clamp(1, 60));
        let answer = self.post(self.request(body), Operation::Prepare, limit).await?;
        Ok(answer.image)
    }

    async fn perform(&self, action: &Action) -> Result<Answer, ActError> {
        let Declares { observable, dry_run, canary, .. } = self.declares();
        let can = match action.operation {
            Operation::Prepare => false,
            Operation::DryRun => dry_run,
            Operation::Canary => canary,
            Operation::Observe => observable,
            Operation::Apply | Operation::Undo => true,
        };
        if !can || !self.handles(action.action, &action.target) || action.synthetic {
            let what = format!("{} of {}", action.operation, action.action);
            return Err(ActError::Refused(format!("{what} at {}: it is not configured to", self.origin)));
        }
        let seen = self.fence.fetch_max(action.fence, Ordering::SeqCst);
        if action.fence < seen {
            let own = action.fence;
            return Err(ActError::Refused(format!("carry out an order of fence {own}: {seen} was seen")));
        }
        let left = action.deadline.since(self.clock.now());
        if left.is_zero() {
            return Err(ActError::NotDone(format!("begin {}: its deadline has passed", action.operation)));
        }
        let body = self.body(action.operation.as_str(), action.action, &action.target, Some(action));
        let request = self.request(body).header(KEY_HEADER, &action.key).header(FENCE_HEADER, action.fence);
        self.post(request, action.operation, left).await
    }
}
