//! `token create|list|revoke`: works on the store, with or without a running server.

use super::incidents::print_line;
use crate::cli::{DataArgs, TokenCommand};
use crate::exit::{CommandResult, Failure, bad_input};
use crate::settings::Settings;
use anyhow::Context as _;
use nightshift_model::Clock;
use nightshift_store::tokens::{self, Role};
use nightshift_store::{Store, StoreError, TokenRow};
use rand::TryRngCore as _;
use serde_json::json;
use std::sync::Arc;

/// `nightshift token …`.
///
/// # Errors
/// When the words are bad or the store cannot be opened.
pub async fn run(command: &TokenCommand, json: bool, clock: Arc<dyn Clock>) -> CommandResult {
    match command {
        TokenCommand::Create { name, role, data } => {
            let role: Role = role.parse().map_err(bad_input)?;
            tokens::check_name(name).map_err(bad_input)?;
            let store = open(data, clock.clone()).await?;
            let secret = new_secret()?;
            let row = TokenRow {
                name: name.clone(),
                role: role.as_str().into(),
                secret_sha256: tokens::hash(&secret),
                created_at: clock.now(),
                generated: false,
                revoked_at: None,
            };
            match store.put_token(row).await {
                Err(StoreError::Exists(_)) => {
                    return Err(bad_input(format!(
                        "a token named `{name}` exists; revoke it first or choose another name"
                    )));
                }
                other => other?,
            }
            store.close().await?;
            if json {
                print_line(&json!({ "data": { "name": name, "role": role.as_str(), "token": secret } }).to_string())?;
            } else {
                print_line(&secret)?;
                eprintln!("This is the token of `{name}` ({}). It is shown this once.", role.as_str());
            }
        }
        TokenCommand::List { data } => {
            let rows = open(data, clock).await?.tokens().await?;
            if json {
                let rows: Vec<_> = rows
                    .iter()
                    .map(|t| json!({ "name": t.name, "role": t.role, "created_at": t.created_at, "generated": t.generated, "revoked_at": t.revoked_at }))
                    .collect();
                print_line(&json!({ "data": rows }).to_string())?;
                return Ok(());
            }
            if rows.is_empty() {
                print_line("No tokens yet: the first `nightshift run` makes one for the local command line.")?;
                return Ok(());
            }
            print_line(&format!("{:<24} {:<9} {:<28} {}", "NAME", "ROLE", "CREATED", "STATE"))?;
            for t in rows {
                let state = t.revoked_at.map_or("valid".to_owned(), |at| format!("revoked {at}"));
                print_line(&format!("{:<24} {:<9} {:<28} {state}", t.name, t.role, t.created_at.to_rfc3339()))?;
            }
        }
        TokenCommand::Revoke { name, data } => {
            let store = open(data, clock.clone()).await?;
            if !store.revoke_token(name, clock.now()).await? {
                return Err(bad_input(format!("no valid token is named `{name}`; `nightshift token list` shows all")));
            }
            store.close().await?;
            print_line(&if json {
                json!({ "data": { "name": name, "revoked": true } }).to_string()
            } else {
                format!("`{name}` is revoked")
            })?;
        }
    }
    Ok(())
}

/// A new secret from the operating system's randomness.
///
/// # Errors
/// When the system has none to give.
pub fn new_secret() -> anyhow::Result<String> {
    let mut random = [0u8; 32];
    rand::rngs::OsRng
        .try_fill_bytes(&mut random)
        .map_err(|e| anyhow::anyhow!("get randomness from the system: {e}"))?;
    Ok(tokens::secret(random))
}

async fn open(args: &DataArgs, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, Failure> {
    let (settings, data) = Settings::for_command(args)?;
    let opened = settings.store.build_for_tokens(&data, clock).await;
    Ok(opened.context("open the store")?)
}
