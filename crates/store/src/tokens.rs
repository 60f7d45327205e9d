//! Tokens: how a secret is made, kept and recognised, and what its bearer may do.
//!
//! Randomness is passed in; nothing here reads a clock. The secret is shown once and never stored.

use crate::{StoreError, TokenRow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What every secret begins with, so that scanners for leaked secrets can find one.
pub const SECRET_PREFIX: &str = "ns_";

/// Longest name of a token, bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// What the bearer of a token may do. Each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Acknowledge, resolve, pause, take over, give feedback; send telemetry.
    Operator,
    /// Approve and reject plans, override verdicts.
    Approver,
    /// All of it for plans of critical risk too; stop all execution.
    Admin,
}

impl Role {
    /// Every role, least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// Name as in JSON and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// Whether this role may do what needs `needed`.
    pub fn permits(self, needed: Self) -> bool {
        self >= needed
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a role; one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// A secret of 32 random bytes: `ns_` and 43 characters.
pub fn secret(random: [u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(random))
}

/// What is kept of a secret. A plain hash is enough: the secret has 256 bits, there is nothing to guess.
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// The token that `presented` is the secret of, if it is not revoked. Takes the same time wherever it is in the list
/// and however much of it is right.
pub fn find<'a>(tokens: &'a [TokenRow], presented: &str) -> Option<&'a TokenRow> {
    let presented = hash(presented);
    let mut found = None;
    for token in tokens {
        let right = token.secret_sha256.ct_eq(&presented) & Choice::from(u8::from(token.revoked_at.is_none()));
        if bool::from(right) {
            found = Some(token);
        }
    }
    found
}

/// Refuses a token that could not be told apart in a journal, or whose role nobody knows.
pub(crate) fn check_row(token: &TokenRow) -> Result<(), StoreError> {
    check_name(&token.name).map_err(StoreError::Refused)?;
    token.role.parse::<Role>().map(drop).map_err(StoreError::Refused)
}

/// Refuses a name that is empty, long, reserved or unprintable.
///
/// # Errors
/// A text for people.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(format!("token name {name:?}: give 1 to {NAME_BYTES_MAX} bytes without white space"));
    }
    if name.eq_ignore_ascii_case("system") {
        return Err("token name `system` is what the journal calls nightshift itself: choose another".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::Timestamp;

    fn row(name: &str, secret: &str, revoked: bool) -> TokenRow {
        TokenRow {
            name: name.into(),
            role: "viewer".into(),
            secret_sha256: hash(secret),
            created_at: Timestamp(0),
            generated: false,
            revoked_at: revoked.then_some(Timestamp(1)),
        }
    }

    #[test]
    fn secrets_are_url_safe_and_differ_with_their_bytes() {
        let a = secret([0xfb; 32]);
        assert_eq!(a, "ns_-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s");
        assert_ne!(a, secret([0; 32]));
    }

    #[test]
    fn only_the_whole_secret_of_a_live_token_is_found() {
        let tokens = [row("old", "s1", true), row("new", "s1", false), row("other", "s2", false)];
        assert_eq!(find(&tokens, "s1").map(|t| t.name.as_str()), Some("new"));
        assert_eq!(find(&tokens[..1], "s1"), None);
        for wrong in ["", "s", "s11", "S1", "ns_s1"] {
            assert_eq!(find(&tokens, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_role_may_do_what_the_lesser_may() {
        for (i, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role.as_str().parse(), Ok(role));
            for (k, needed) in Role::ALL.into_iter().enumerate() {
                assert_eq!(role.permits(needed), i >= k, "{role} {needed}");
            }
        }
        assert!("root".parse::<Role>().unwrap_err().contains("viewer, operator, approver, admin"));
    }

    #[test]
    fn names_that_would_mislead_a_journal_are_refused() {
        for bad in ["", "System", "a b", "a\nb", "a\0", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_name("ci-deploy"), Ok(()));
    }
}
