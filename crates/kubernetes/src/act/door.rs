//! The one way from the actuator to the API server: bounded answers, writes that are counted as sent, errors that say
//! whether something may have been done.
//!
//! Lives here: requests and what their answers mean. Never here: what is written.

use super::place::Place;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use kube::client::Body;
use nightshift_act::ActError;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// Who we are in the managed fields of what we write.
pub(super) const MANAGER: &str = "nightshift";

/// Largest answer that is read, bytes: the OpenAPI document of a group is below it.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Objects of a page.
const PAGE: usize = 500;
/// Objects of a list that are read at most: a drained node or a namespace of a workload has fewer.
const LIST_MAX: usize = 20_000;
/// Longest text of the server that is passed on, characters.
const SAID_CHARS_MAX: usize = 300;

/// Why a request has no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Status of the answer; `None`: the exchange broke.
    pub(super) code: Option<u16>,
    /// One line; no secret.
    pub(super) text: String,
}

impl Fault {
    fn broken(text: impl Into<String>) -> Self {
        Self { code: None, text: text.into() }
    }

    /// There is no such thing.
    pub(super) fn is_missing(&self) -> bool {
        self.code == Some(404)
    }

    /// The object is not the one that was read (or is there already).
    pub(super) fn is_conflict(&self) -> bool {
        self.code == Some(409)
    }

    /// A disruption budget stands in the way, or the server is busy.
    pub(super) fn is_busy(&self) -> bool {
        self.code == Some(429)
    }

    /// We have no right to.
    pub(super) fn is_forbidden(&self) -> bool {
        self.code == Some(403)
    }

    /// Of something that was read.
    pub(super) fn read(self, what: &str) -> ActError {
        let why = format!("read {what}: {}", self.text);
        match self.code {
            Some(403 | 404 | 400 | 422) => ActError::Refused(why),
            _ => ActError::NotDone(why),
        }
    }

    /// Of something that was written.
    pub(super) fn write(self, what: &str) -> ActError {
        let why = format!("write {what}: {}", self.text);
        match self.code {
            Some(429 | 409 | 401) => ActError::NotDone(why),
            Some(400..=499) => ActError::Refused(why),
            _ => ActError::Uncertain(why),
        }
    }
}

/// How a write is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The server tries it and keeps nothing.
    Dry,
    /// For good.
    Real,
}

/// Reaches one API server for the length of one operation.
pub(super) struct Door {
    client: kube::Client,
    wrote: AtomicBool,
}

impl Door {
    pub(super) fn new(client: kube::Client) -> Self {
        Self { client, wrote: AtomicBool::new(false) }
    }

    /// Whether a change was sent: from then on no answer is no answer.
    pub(super) fn wrote(&self) -> bool {
        self.wrote.load(Ordering::SeqCst)
    }

    /// Reads an object; `None` when there is none.
    pub(super) async fn get(&self, place: &Place) -> Result<Option<Value>, Fault> {
        match self.read(&place.path()).await {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads what is at a path.
    pub(super) async fn read(&self, path: &str) -> Result<Value, Fault> {
        self.send(Method::GET, path, "application/json", Vec::new()).await
    }

    /// Reads all objects at a path; `query` without `?`, may be empty. A list too long to be read is an error, never a
    /// part that passes for the whole.
    pub(super) async fn list(&self, path: &str, query: &str) -> Result<Vec<Value>, Fault> {
        let mut out = Vec::new();
        let mut next = String::new();
        loop {
            let and = if query.is_empty() { String::new() } else { format!("&{query}") };
            let page = self.read(&format!("{path}?limit={PAGE}{next}{and}")).await?;
            if let Some(Value::Array(items)) = page.get("items") {
                out.extend(items.iter().cloned());
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() && out.len() < LIST_MAX => {
                    let token = percent_encoding(token);
                    next = format!("&continue={token}");
                }
                Some(token) if !token.is_empty() => {
                    return Err(Fault { code: Some(422), text: format!("more than {LIST_MAX} objects at {path}") });
                }
                _ => return Ok(out),
            }
        }
    }

    /// Merges a patch into an object. It holds `metadata.resourceVersion`, so another object than the one that was read
    /// is a conflict.
    pub(super) async fn patch(&self, place: &Place, patch: &Value, mode: Mode) -> Result<Value, Fault> {
        let path = format!("{}?{}", place.path(), options(mode));
        self.change(Method::PATCH, &path, "application/merge-patch+json", patch, mode).await
    }

    /// Makes an object.
    pub(super) async fn create(&self, place: &Place, object: &Value, mode: Mode) -> Result<Value, Fault> {
        let path = format!("{}?{}", place.collection(), options(mode));
        self.change(Method::POST, &path, "application/json", object, mode).await
    }

    /// Evicts a pod, as far as disruption budgets allow it: 429 when they do not.
    pub(super) async fn evict(&self, pod: &Place, uid: &str, grace: Option<i64>, mode: Mode) -> Result<Value, Fault> {
        let mut delete = json!({"preconditions": {"uid": uid}});
        if let Some(secs) = grace {
            delete["gracePeriodSeconds"] = secs.into();
        }
        let mut path = format!("{}/eviction", pod.path());
        if mode == Mode::Dry {
            delete["dryRun"] = json!(["All"]);
            path.push_str("?dryRun=All");
        }
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace}, "deleteOptions": delete,
        });
        self.change(Method::POST, &path, "application/json", &eviction, mode).await
    }

    /// Deletes one object, and no other that may have its name by now.
    pub(super) async fn delete(
        &self,
        place: &Place,
        uid: &str,
        grace: Option<i64>,
        mode: Mode,
    ) -> Result<Value, Fault> {
        let mut body = json!({
            "apiVersion": "v1", "kind": "DeleteOptions",
            "preconditions": {"uid": uid}, "propagationPolicy": "Background",
        });
        if let Some(secs) = grace {
            body["gracePeriodSeconds"] = secs.into();
        }
        if mode == Mode::Dry {
            body["dryRun"] = json!(["All"]);
        }
        self.change(Method::DELETE, &place.path(), "application/json", &body, mode).await
    }

    /// Asks the server something by a body; stores nothing.
    pub(super) async fn ask(&self, path: &str, body: &Value) -> Result<Value, Fault> {
        self.send(Method::POST, path, "application/json", bytes_of(body)).await
    }

    async fn change(&self, method: Method, path: &str, form: &str, body: &Value, mode: Mode) -> Result<Value, Fault> {
        if mode == Mode::Real {
            self.wrote.store(true, Ordering::SeqCst);
        }
        self.send(method, path, form, bytes_of(body)).await
    }

    async fn send(&self, method: Method, path: &str, form: &str, body: Vec<u8>) -> Result<Value, Fault> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, form)
            .body(Body::from(body))
            .map_err(|_| Fault { code: Some(400), text: "its name makes no path of a request".into() })?;
        // Of the client's errors only their sort is told: one may hold what a login program printed.
        let answer = self.client.send(request).await.map_err(|e| Fault::broken(sort_of(&e)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map(|b| b.to_bytes()).map_err(|_| Fault {
            code: if status.is_success() { None } else { Some(status.as_u16()) },
            text: "the answer broke off or is too long".into(),
        })?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| Fault::broken("the answer is no JSON"));
        }
        Err(Fault { code: Some(status.as_u16()), text: said(status, &bytes) })
    }
}

fn options(mode: Mode) -> String {
    let dry = if mode == Mode::Dry { "&dryRun=All" } else { "" };
    format!("fieldManager={MANAGER}&fieldValidation=Strict{dry}")
}

fn bytes_of(body: &Value) -> Vec<u8> {
    serde_json::to_vec(body).expect("JSON has string keys and finite depth")
}

fn percent_encoding(token: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    token.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn sort_of(error: &kube::Error) -> &'static str {
    match error {
        kube::Error::Auth(_) => "log in to the API server failed",
        kube::Error::HyperError(_) | kube::Error::Service(_) => "the exchange with the API server broke off",
        _ => "the request to the API server failed",
    }
}

/// What a status says, in one bounded line.
fn said(status: StatusCode, bytes: &Bytes) -> String {
    let told: Option<Value> = serde_json::from_slice(bytes).ok();
    let message = told.as_ref().and_then(|v| v.get("message")).and_then(Value::as_str).unwrap_or("");
    let line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_CHARS_MAX).collect();
    let code = status.as_u16();
    if line.is_empty() { format!("the API server answered {code}") } else { format!("{line} ({code})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_says_whether_it_was_done() {
        let fault = |code| Fault { code, text: "x".into() };
        for (code, written) in [
            (Some(403), "Refused"),
            (Some(404), "Refused"),
            (Some(422), "Refused"),
            (Some(409), "NotDone"),
            (Some(429), "NotDone"),
            (Some(401), "NotDone"),
            (Some(500), "Uncertain"),
            (Some(503), "Uncertain"),
            (None, "Uncertain"),
        ] {
            let told = format!("{:?}", fault(code).write("a"));
            assert!(told.starts_with(written), "{code:?}: {told}");
            assert!(!format!("{:?}", fault(code).read("a")).starts_with("Uncertain"), "a read changes nothing");
        }
    }

    #[test]
    fn what_the_server_says_is_one_short_line() {
        let body = json!({"message": format!("no\n{}", "x".repeat(2_000))}).to_string();
        let line = said(StatusCode::FORBIDDEN, &Bytes::from(body));
        assert!(line.len() < 330 && !line.contains('\n') && line.ends_with("(403)"), "{line}");
        assert_eq!(said(StatusCode::BAD_GATEWAY, &Bytes::from_static(b"<html>")), "the API server answered 502");
        assert_eq!(percent_encoding("a+/="), "a%2B%2F%3D");
    }
}
