//! From text to structs.

use crate::check::{Examined, examine};
use crate::node::{Step, parse, path_text};
use crate::overrides;
use crate::problem::{Level, Problems};
use crate::secret::{REDACTED, SecretSource, SecretString};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// A configuration, and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// What could be read; where something could not, its default. Only to be used when `problems` has no errors,
    /// or to look for further problems.
    pub config: T,
    /// What is wrong. It knows the line of every key, so that later checks can add to it.
    pub problems: Problems,
}

/// The schema of a configuration struct, as the check reads it.
pub fn schema_of<T: JsonSchema>() -> schemars::Schema {
    schemars::generate::SchemaSettings::default().for_deserialize().into_generator().into_root_schema_for::<T>()
}

/// Reads `text`, called `file`, with the overrides among the environment variables `env` laid over it.
///
/// References to secrets are followed to `secrets`; the struct is given what they lead to.
///
/// `unknown` is what an unknown key is: an error when a person asks for a check, a warning at start, so that a
/// rollback under a newer file is no outage.
pub fn load<T: DeserializeOwned + JsonSchema + Default>(
    text: &str,
    file: &str,
    env: impl IntoIterator<Item = (String, String)>,
    secrets: &dyn SecretSource,
    unknown: Level,
) -> Loaded<T> {
    let schema = schema_of::<T>();
    let mut problems = Problems::new(file);
    let mut document = parse(text, file, &mut problems);
    overrides::apply(&mut document, schema.as_value(), env, &mut problems);
    let Examined { unusable, secrets } =
        examine(&document, file, schema.as_value(), unknown, Some(secrets), &mut problems);
    let mut value = document.to_value();
    for (path, secret) in &secrets {
        if let Some(place) = place(&mut value, path) {
            *place = toml::Value::String(secret.expose().to_owned());
        }
    }
    prune(&mut value, &unusable, &mut problems);
    let config = match T::deserialize(value) {
        Ok(config) => config,
        Err(e) => {
            // Something that the struct refuses and its schema does not tell. When other errors are there it may
            // well be their echo.
            if !problems.has_errors() {
                let path =
                    e.to_string().rsplit_once("in `").and_then(|(_, p)| p.split_once('`')).map(|(p, _)| p.to_owned());
                // Only a struct that repeats what it refuses would put a secret in here.
                let told = |message: String, secret: &SecretString| message.replace(secret.expose(), REDACTED);
                let message = secrets.values().fold(e.message().trim().to_owned(), told);
                problems.error(&path.unwrap_or_default(), message, "");
            }
            T::default()
        }
    };
    Loaded { config, problems }
}

fn place<'v>(value: &'v mut toml::Value, path: &[Step]) -> Option<&'v mut toml::Value> {
    path.iter().try_fold(value, |v, step| match step {
        Step::Key(key) => v.get_mut(key.as_str()),
        Step::Index(i) => v.get_mut(*i),
    })
}

/// Takes out what cannot be used, children before their parents, and remembers where the rest of a list came from.
fn prune(value: &mut toml::Value, unusable: &BTreeSet<Vec<Step>>, problems: &mut Problems) {
    let mut kept: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for path in unusable.iter().rev() {
        let Some((last, parents)) = path.split_last() else {
            *value = toml::Value::Table(toml::Table::new());
            return;
        };
        match (place(value, parents), last) {
            (Some(toml::Value::Table(table)), Step::Key(key)) => {
                table.remove(key);
            }
            // Going backwards, the indices before this one still are those of the file.
            (Some(toml::Value::Array(items)), Step::Index(i)) if *i < items.len() => {
                let indices = kept.entry(path_text(parents)).or_insert_with(|| (0..items.len()).collect());
                indices.remove(*i);
                items.remove(*i);
            }
            _ => {}
        }
    }
    let mut spans = problems.spans().clone();
    kept.into_iter().for_each(|(array, indices)| spans.keep(array, indices));
    problems.set_spans(spans);
}
