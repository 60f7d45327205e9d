//! Who works on a data folder without a server: the name behind an admin's token.

use crate::cli::DataArgs;
use crate::client::TOKEN_FILE;
use crate::exit::Failure;
use crate::settings::Settings;
use anyhow::anyhow;
use nightshift_model::Clock;
use nightshift_store::tokens::{self, Role};
use std::path::Path;
use std::sync::Arc;

/// Why it is not known who it is.
pub(crate) enum Unknown {
    /// There was nothing to check, or nothing to check it with.
    NotChecked(String),
    /// It was checked and is not enough.
    Refused(Failure),
}

/// The name of the admin's token that was given, or that is in the data folder. `what` needs an admin.
pub(crate) async fn admin(
    token_file: Option<&Path>,
    data: &DataArgs,
    folder: &Path,
    clock: Arc<dyn Clock>,
    what: &str,
) -> Result<String, Unknown> {
    let file = token_file.map_or_else(|| folder.join(TOKEN_FILE), Path::to_owned);
    let secret = std::fs::read_to_string(&file)
        .map_err(|e| Unknown::NotChecked(format!("there is no token in {}: {e}", file.display())))?;
    let unchecked = |e: &dyn std::fmt::Display| Unknown::NotChecked(format!("the tokens cannot be read: {e}"));
    let (settings, _) = Settings::for_command(data).map_err(|e| match e {
        Failure::Failed(e) | Failure::BadInput(e) => unchecked(&format!("{e:#}")),
        _ => unchecked(&"the configuration has errors"),
    })?;
    let store = settings.store.build_for_tokens(folder, clock).await.map_err(|e| unchecked(&e))?;
    let known = store.tokens().await.map_err(|e| unchecked(&e))?;
    // What was only read needs no orderly end.
    drop(store.close().await);
    let Some(token) = tokens::find(&known, secret.trim()) else {
        let why = anyhow!("the token in {} is not known or was withdrawn", file.display());
        return Err(Unknown::Refused(why.into()));
    };
    if !token.role.parse::<Role>().is_ok_and(|role| role.permits(Role::Admin)) {
        let why = anyhow!("token `{}` has the role {}, {what} needs admin", token.name, token.role);
        return Err(Unknown::Refused(why.into()));
    }
    Ok(token.name.clone())
}
