//! Configuration: one TOML file, checked whole, with every problem told at once.
//!
//! Lives here: the reader that keeps the line of every key, the check of a document against the JSON schema of the
//! configuration structs, environment overrides, secrets by reference, and the printed reference.
//!
//! Never here: the structs themselves. Each room owns its own, the binary joins them; this crate knows none of them,
//! only what their schema says. It reads no file and no environment by itself, except through [`SystemSecrets`].
//!
//! What a schema can say beyond types and ranges (`#[schemars(extend("x-…" = …))]`):
//!
//! | keyword | meaning |
//! | --- | --- |
//! | `format: "listen"` | `ADDRESS:PORT`; a key called `listen` is one without being told |
//! | `format: "uri"`, `"ip"` | what they say |
//! | `pattern` | a regular expression that a text must match |
//! | `x-unique: "KEY"` | this key differs among the tables of an array; `name` without being told, `false` to allow |
//! | `x-secret: true` | the value is a [`SecretString`]: a reference in the file, never repeated in a message; with `format: "uri"` also a URL without a password |

mod check;
mod format;
mod hint;
mod load;
mod node;
mod overrides;
mod problem;
mod reference;
mod secret;
mod shape;

pub use check::check;
pub use load::{Loaded, load, schema_of};
pub use overrides::PREFIX;
pub use problem::{Level, Position, Problem, Problems, SpanIndex};
pub use reference::{reference, uncomment};
pub use secret::{SecretSource, SecretString, SystemSecrets};
pub use shape::unknown_keywords;

/// Longest file that is read, in bytes. A configuration of a thousand sources has a tenth of it.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Most problems that are kept; a file with more is not a configuration.
pub const PROBLEMS_MAX: usize = 1_000;

/// Reads any bytes as a configuration file and as the value of an override: for fuzzing.
#[doc(hidden)]
pub fn fuzz_config_toml(bytes: &[u8]) {
    #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default)]
    struct Fuzzed {
        text: String,
        count: Option<u8>,
        ratio: f64,
        secret: Option<SecretString>,
        #[schemars(extend("format" = "uri"))]
        url: Option<SecretString>,
        list: Vec<Item>,
        map: std::collections::BTreeMap<String, Item>,
    }
    #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Item {
        One { name: String, listen: String },
        Two { names: Vec<String> },
    }
    /// Every variable is set, and there are no files: what is fuzzed must not read any.
    struct Variables;
    impl SecretSource for Variables {
        fn variable(&self, name: &str) -> Option<String> {
            Some(name.to_owned())
        }
        fn file(&self, _: &std::path::Path, _: u64) -> std::io::Result<Vec<u8>> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let env = [("NIGHTSHIFT__LIST".to_owned(), text.clone().into_owned()), (text.to_string(), "1".to_owned())];
    let loaded = load::<Fuzzed>(&text, "fuzz.toml", env, &Variables, Level::Error);
    assert!(loaded.problems.len() <= PROBLEMS_MAX);
    let _ = (loaded.problems.to_string(), loaded.problems.to_json());
}
