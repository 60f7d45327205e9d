//! Secrets by reference: the file says where a secret is, never what it is.
//!
//! A room's struct has a [`SecretString`]. Its schema asks the file for a reference, [`crate::load`] fetches what that
//! leads to, and the struct is given the secret itself.

use crate::node::{Kind, Node};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest secret in bytes; a private key with its chain has a tenth of it.
const SECRET_BYTES_MAX: u64 = 1 << 16;

/// The ways to refer to a secret, for hints.
pub(crate) const FORMS: &str = "{ env = \"NAME\" }, { file = \"/path\" } or { vault = \"path#key\" }";

/// Where a secret is, as the file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    /// In an environment variable of this name.
    Env(String),
    /// In a file, of which white space at the end is left off.
    File(PathBuf),
    /// In a vault, at `path#key`.
    Vault(String),
}

impl Reference {
    /// What a table refers to; `None`: it has not the form.
    pub(crate) fn of(node: &Node) -> Option<Self> {
        let text = |key| match &node.get(key)?.kind {
            Kind::String(text) => Some(text.clone()),
            _ => None,
        };
        let file = || text("file").map(|path| Self::File(path.into()));
        text("env").map(Self::Env).or_else(file).or_else(|| text("vault").map(Self::Vault))
    }

    /// Fetches it.
    ///
    /// # Errors
    /// When it is not there, empty, too long or not text.
    pub(crate) fn resolve(&self, source: &dyn SecretSource) -> Result<SecretString, SecretError> {
        let text = match self {
            Self::Env(name) => source.variable(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?,
            Self::File(path) if path.is_relative() => return Err(SecretError::Relative(path.clone())),
            Self::File(path) => {
                let bytes = source
                    .file(path, SECRET_BYTES_MAX + 1)
                    .map_err(|cause| SecretError::Read { path: path.clone(), cause })?;
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
        if text.len() as u64 > SECRET_BYTES_MAX {
            return Err(SecretError::TooLong(self.clone()));
        }
        Ok(SecretString(text.into()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable `{name}`"),
            Self::File(path) => write!(f, "file `{}`", path.display()),
            Self::Vault(at) => write!(f, "vault `{at}`"),
        }
    }
}

/// Why a secret could not be fetched. No variant holds any of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("environment variable `{0}` is not set, or is not text")]
    NoVariable(String),
    #[error("file `{}` is not told by its whole path", .0.display())]
    Relative(PathBuf),
    #[error("file `{}` cannot be read: {cause}", path.display())]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("file `{}` is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    #[error("{0} is empty")]
    Empty(Reference),
    #[error("{0} has more than {SECRET_BYTES_MAX} bytes")]
    TooLong(Reference),
    #[error("vault `{0}` cannot be asked: this version has no vault client")]
    NoVault(String),
}

impl SecretError {
    /// What to do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::NoVariable(_) => "set it where Nightshift is started, or refer to a file: { file = \"/path\" }",
            Self::Relative(_) => "begin it with /, as services are started from any folder",
            Self::Read { .. } => "put the secret there and let the user that Nightshift runs as read it",
            Self::NotText(_) => "store the secret as text, in base64 if need be",
            Self::Empty(_) => "put the secret there",
            Self::TooLong(_) => "is it the right one? It should hold one password, token or key",
            Self::NoVault(_) => "let the vault's agent write a file and refer to that: { file = \"/path\" }",
        }
    }
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
///
/// A field of this type is written as a reference in the file. One with `#[schemars(extend("format" = "uri"))]` may
/// also be a plain URL, as long as no password is in it.
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

impl From<&str> for SecretString {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

pub(crate) const REDACTED: &str = "[secret]";

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

impl<'de> Deserialize<'de> for SecretString {
    /// From the secret itself, as [`crate::load`] puts it in the place of a reference.
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // Serde's own message would repeat what is there.
        let text = String::deserialize(d).map_err(|_| serde::de::Error::custom("a secret was not resolved to text"))?;
        Ok(text.into())
    }
}

impl JsonSchema for SecretString {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    /// The schema of a reference: of what is in the file.
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl SecretSource for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "SET" => Some("hunter2".into()),
                "EMPTY" => Some(String::new()),
                "ENDLESS" => Some("x".repeat(1 << 17)),
                _ => None,
            }
        }
        fn file(&self, path: &Path, limit_bytes: u64) -> std::io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/ok") => Ok(b"hunter2\n".to_vec()),
                Some("/binary") => Ok(vec![0xff, 0xfe]),
                Some("/blank") => Ok(b" \n".to_vec()),
                Some("/endless") => Ok(vec![b'x'; usize::try_from(limit_bytes).unwrap()]),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        }
    }

    #[test]
    fn each_reference_leads_to_the_secret_or_says_why_not() {
        for (reference, want) in [
            (Reference::Env("SET".into()), ""),
            (Reference::File("/ok".into()), ""),
            (Reference::Env("UNSET".into()), "environment variable `UNSET` is not set"),
            (Reference::Env("EMPTY".into()), "environment variable `EMPTY` is empty"),
            (Reference::Env("ENDLESS".into()), "more than 65536 bytes"),
            (Reference::File("/none".into()), "file `/none` cannot be read: entity not found"),
            (Reference::File("ok".into()), "file `ok` is not told by its whole path"),
            (Reference::File("/binary".into()), "is not UTF-8"),
            (Reference::File("/blank".into()), "file `/blank` is empty"),
            (Reference::File("/endless".into()), "more than 65536 bytes"),
            (Reference::Vault("kv/db#password".into()), "this version has no vault client"),
        ] {
            match reference.resolve(&Fixed) {
                Ok(value) => assert!(want.is_empty() && value.expose() == "hunter2", "{reference:?}"),
                Err(e) => {
                    assert!(!want.is_empty() && e.to_string().contains(want), "{reference:?}: {e}");
                    assert!(!e.hint().is_empty());
                }
            }
        }
    }

    #[test]
    fn a_secret_prints_in_no_form() {
        let secret = Reference::Env("SET".into()).resolve(&Fixed).unwrap();
        let json = serde_json::to_string(&secret).unwrap();
        for text in [format!("{secret}"), format!("{secret:?}"), format!("{secret:#?}"), json] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        let wrong = serde_json::from_str::<SecretString>("[\"hunter2\"]").unwrap_err().to_string();
        assert!(wrong.contains("not resolved") && !wrong.contains("hunter2"), "{wrong}");
    }

    #[test]
    fn the_system_gives_what_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        assert_eq!(Reference::File(path).resolve(&SystemSecrets).unwrap().expose(), "s3cret");
        assert!(Reference::Env("NIGHTSHIFT_NO_SUCH_VARIABLE".into()).resolve(&SystemSecrets).is_err());
    }
}
