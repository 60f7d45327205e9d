//! CloudEvents 1.0: structured and binary mode; batches are lists of structured ones.
//!
//! What an event's `type` and data mean: `data.kind` decides, else the type's words (`deployment`, `alert`, `log`,
//! CDEvents' `service.deployed`). Any other event is one that happened: a change of type `event`.

use super::{Around, Item, plain};
use crate::change::Fields;
use axum::http::HeaderMap;
use base64::Engine as _;
use serde_json::{Map, Value, json};

/// Longest attribute, bytes.
const ATTRIBUTE_BYTES_MAX: usize = 2 << 10;

struct Event {
    id: String,
    source: String,
    kind: String,
    subject: String,
    time: Option<Value>,
    data: Value,
}

/// Attributes in headers, the body is the data.
pub(super) fn binary(headers: &HeaderMap, body: &[u8], around: &Around<'_>) -> Result<Item, String> {
    let text = |name: &str| {
        let raw =
            headers.get(name).map_or(Ok(""), |v| v.to_str().map_err(|_| format!("header `{name}` is no text")))?;
        Ok::<_, String>(percent_encoding::percent_decode_str(raw).decode_utf8_lossy().into_owned())
    };
    version(&text("ce-specversion")?)?;
    let data = match body {
        [] => Value::Null,
        // Data of any type is allowed; what is no JSON is a message.
        _ => serde_json::from_slice(body).unwrap_or_else(|_| Value::String(crate::lines::clean(body))),
    };
    let time = Some(text("ce-time")?).filter(|t| !t.is_empty()).map(Value::String);
    let event = Event {
        id: text("ce-id")?,
        source: text("ce-source")?,
        kind: text("ce-type")?,
        subject: text("ce-subject")?,
        time,
        data,
    };
    event.read(around)
}

/// Attributes and data in one object.
pub(super) fn structured(object: &Map<String, Value>, around: &Around<'_>) -> Result<Item, String> {
    let fields = Fields(object);
    version(&fields.text(&["specversion"])?)?;
    let data = match (object.get("data"), object.get("data_base64")) {
        (Some(data), _) => data.clone(),
        (None, Some(Value::String(text))) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let bytes = bytes.map_err(|e| format!("`data_base64`: {e}"))?;
            serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(crate::lines::clean(&bytes)))
        }
        (None, Some(_)) => return Err("`data_base64` must be text".into()),
        (None, None) => Value::Null,
    };
    let event = Event {
        id: fields.text(&["id"])?,
        source: fields.text(&["source"])?,
        kind: fields.text(&["type"])?,
        subject: fields.text(&["subject"])?,
        time: fields.get(&["time"]).cloned(),
        data,
    };
    event.read(around)
}

fn version(text: &str) -> Result<(), String> {
    match text {
        "1.0" => Ok(()),
        other => Err(format!("`specversion` is `{other}`, this door speaks CloudEvents 1.0")),
    }
}

impl Event {
    fn read(self, around: &Around<'_>) -> Result<Item, String> {
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            if value.is_empty() || value.len() > ATTRIBUTE_BYTES_MAX {
                return Err(format!("`{name}` of a CloudEvent must have 1 to {ATTRIBUTE_BYTES_MAX} bytes"));
            }
        }
        let mut data = match &self.data {
            Value::Object(map) => map.clone(),
            Value::Null => Map::new(),
            Value::String(text) => Map::from_iter([("message".to_owned(), json!(text))]),
            other => Map::from_iter([("message".to_owned(), json!(other.to_string()))]),
        };
        cdevents(&mut data);
        // Source and id are unique together (CloudEvents, §3.1): a repeated delivery is recognised.
        data.insert("id".into(), json!(format!("{}\u{1f}{}", self.source, self.id)));
        if let Some(time) = self.time
            && !data.contains_key("at")
        {
            data.insert("at".into(), time);
        }
        let lower = self.kind.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|w| lower.contains(w));
        let told = data.get("kind").and_then(Value::as_str).unwrap_or("");
        let kind = match told {
            "change" | "event" | "alert" | "log" => told.to_owned(),
            _ if data.contains_key("change_type") || has(&["deploy", "rolledback", "release", "change"]) => {
                "change".into()
            }
            _ if has(&["alert"]) && (data.contains_key("name") || data.contains_key("alertname")) => "alert".into(),
            _ if lower.ends_with("log") && data.contains_key("message") => "log".into(),
            _ => "event".into(),
        };
        if matches!(kind.as_str(), "change" | "event") {
            let attributes = data.entry("attributes").or_insert_with(|| json!({}));
            if let Some(attributes) = attributes.as_object_mut() {
                for (name, value) in
                    [("event.type", &self.kind), ("event.source", &self.source), ("event.subject", &self.subject)]
                {
                    if !value.is_empty() {
                        attributes.entry(name).or_insert_with(|| json!(value));
                    }
                }
            }
            let silent = ["summary", "message", "title", "description"].iter().all(|n| !data.contains_key(*n));
            if silent {
                data.insert("summary".into(), json!(format!("{} {}", self.kind, self.subject).trim()));
            }
        }
        plain::of_kind(&kind, &Fields(&data), around)
    }
}

/// CDEvents carry what was deployed in `subject`: its id is the service, its content tells where and which.
fn cdevents(data: &mut Map<String, Value>) {
    if !data.contains_key("context") {
        return;
    }
    let text =
        |at: &str| data.get("subject").and_then(|s| s.pointer(at)).and_then(Value::as_str).map(ToOwned::to_owned);
    let found = [
        ("service", text("/id")),
        ("environment", text("/content/environment/id")),
        ("version", text("/content/artifactId")),
    ];
    for (name, value) in found {
        if let Some(value) = value {
            data.entry(name).or_insert_with(|| json!(value));
        }
    }
}
