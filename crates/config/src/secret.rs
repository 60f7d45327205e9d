//! Secrets by reference: the file says where a secret is, never what it is.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest secret in bytes; a private key with its chain has a tenth of it.
const SECRET_BYTES_MAX: u64 = 1 << 16;

/// Where a secret is: `{ env = "NAME" }`, `{ file = "/path" }` or `{ vault = "path#key" }`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// In an environment variable of this name.
    Env(String),
    /// In a file, of which white space at the end is left off.
    File(PathBuf),
    /// In a vault, at `path#key`.
    Vault(String),
}

impl Secret {
    /// Fetches it.
    ///
    /// # Errors
    /// When it is not there, empty, too long or not text.
    pub fn resolve(&self, source: &dyn SecretSource) -> Result<SecretString, SecretError> {
        let text = match self {
            Self::Env(name) => source.variable(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?,
            Self::File(path) => {
                let bytes = source
                    .file(path, SECRET_BYTES_MAX + 1)
                    .map_err(|source| SecretError::Read { path: path.clone(), source })?;
                if bytes.len() as u64 > SECRET_BYTES_MAX {
                    return Err(SecretError::TooLong(self.clone()));
                }
                String::from_utf8(bytes).map_err(|_| SecretError::NotText(path.clone()))?.trim_end().to_owned()
            }
            Self::Vault(at) => return Err(SecretError::NoVault(at.clone())),
        };
        if text.is_empty() {
            return Err(SecretError::Empty(self.clone()));
        }
        Ok(SecretString(text.into()))
    }
}

impl fmt::Display for Secret {
    /// The reference, which is no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable `{name}`"),
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Vault(at) => write!(f, "vault `{at}`"),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reference<'a> {
    Env(Cow<'a, str>),
    File(Cow<'a, Path>),
    Vault(Cow<'a, str>),
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Env(name) => Reference::Env(name.into()),
            Self::File(path) => Reference::File(path.into()),
            Self::Vault(at) => Reference::Vault(at.into()),
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // Serde's own message would repeat a secret that was written out.
        let refused =
            "a secret is given by reference: { env = \"NAME\" }, { file = \"/path\" } or { vault = \"path#key\" }";
        Ok(match Reference::deserialize(d).map_err(|_| serde::de::Error::custom(refused))? {
            Reference::Env(name) => Self::Env(name.into_owned()),
            Reference::File(path) => Self::File(path.into_owned()),
            Reference::Vault(at) => Self::Vault(at.into_owned()),
        })
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = |key: &str, doc: &str| {
            json_schema!({
                "type": "object",
                "description": doc,
                "properties": { key: { "type": "string", "minLength": 1 } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "description": "Where a secret is; the secret itself is never written into the file.",
            "x-secret": true,
            "oneOf": [
                one("env", "In an environment variable of this name."),
                one("file", "In a file; white space at its end is left off."),
                one("vault", "In a vault, at path#key."),
            ],
        })
    }
}

/// Why a secret could not be fetched. No variant holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("read secret: environment variable `{0}` is not set")]
    NoVariable(String),
    /// The file could not be read.
    #[error("read secret from file `{}`", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not text.
    #[error("read secret: file `{}` is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// It is there and empty.
    #[error("read secret: {0} is empty")]
    Empty(Secret),
    /// It is longer than any secret.
    #[error("read secret: {0} has more than {SECRET_BYTES_MAX} bytes")]
    TooLong(Secret),
    /// This program does not reach a vault.
    #[error(
        "read secret from vault `{0}`: this version has no vault client; let the vault's agent write a file and use {{ file = … }}"
    )]
    NoVault(String),
}

/// Where references lead.
pub trait SecretSource {
    /// An environment variable, when it is set and text.
    fn variable(&self, name: &str) -> Option<String>;

    /// At most `limit_bytes` from the start of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn file(&self, path: &Path, limit_bytes: u64) -> std::io::Result<Vec<u8>>;
}

/// This process's environment and files.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemSecrets;

impl SecretSource for SystemSecrets {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path, limit_bytes: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(limit_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A secret. It does not print, in no form; ask for it with [`Self::expose`] where it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretString(Box<str>);

impl SecretString {
    /// The secret itself: to send, never to log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretString {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

const REDACTED: &str = "[secret]";

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for SecretString {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl SecretSource for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "SET" => Some("hunter2".into()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }
        }
        fn file(&self, path: &Path, limit_bytes: u64) -> std::io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/ok") => Ok(b"hunter2\n".to_vec()),
                Some("/binary") => Ok(vec![0xff, 0xfe]),
                Some("/endless") => Ok(vec![b'x'; usize::try_from(limit_bytes).unwrap()]),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        }
    }

    #[test]
    fn each_reference_leads_to_the_secret_or_says_why_not() {
        for (secret, want) in [
            (Secret::Env("SET".into()), ""),
            (Secret::File("/ok".into()), ""),
            (Secret::Env("UNSET".into()), "environment variable `UNSET` is not set"),
            (Secret::Env("EMPTY".into()), "is empty"),
            (Secret::File("/none".into()), "read secret from file `/none`"),
            (Secret::File("/binary".into()), "is not UTF-8"),
            (Secret::File("/endless".into()), "more than 65536 bytes"),
            (Secret::Vault("kv/db#password".into()), "no vault client"),
        ] {
            match secret.resolve(&Fixed) {
                Ok(value) => assert!(want.is_empty() && value.expose() == "hunter2", "{secret:?}"),
                Err(e) => assert!(!want.is_empty() && e.to_string().contains(want), "{secret:?}: {e}"),
            }
        }
    }

    #[test]
    fn a_secret_prints_in_no_form() {
        let secret = Secret::Env("SET".into()).resolve(&Fixed).unwrap();
        let json = serde_json::to_string(&secret).unwrap();
        for text in [format!("{secret}"), format!("{secret:?}"), format!("{secret:#?}"), json] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_reference_round_trips_and_a_text_is_refused_without_repeating_it() {
        for secret in [Secret::Env("A".into()), Secret::File("/a".into()), Secret::Vault("a#b".into())] {
            let json = serde_json::to_string(&secret).unwrap();
            assert_eq!(serde_json::from_str::<Secret>(&json).unwrap(), secret);
        }
        let refused = serde_json::from_str::<Secret>("\"hunter2\"").unwrap_err().to_string();
        assert!(refused.contains("by reference") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn the_system_gives_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(Secret::File(path).resolve(&SystemSecrets).unwrap().expose(), "s3cret");
        assert!(Secret::Env("NIGHTSHIFT_NO_SUCH_VARIABLE".into()).resolve(&SystemSecrets).is_err());
    }
}
