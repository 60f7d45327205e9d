//! `kill-switch`: through the server when it answers, on the data folder when it does not.

use super::incidents::print_line;
use crate::cli::{KillSwitchArgs, ServerArgs, Turn};
use crate::client::{Client, TOKEN_FILE, data};
use crate::exit::{CommandResult, Failure};
use crate::settings::Settings;
use crate::switch::{SWITCH_FILE, read_folder, write_folder};
use anyhow::{Context as _, anyhow};
use nightshift_model::{Clock, KillSwitch};
use nightshift_store::tokens::{self, Role};
use reqwest::Method;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Where a server is looked for when nothing says where it is.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// Who turned it when no token could be asked for: no token has a name with a space in it.
const NO_TOKEN: &str = "data folder";

/// `nightshift kill-switch`.
///
/// # Errors
/// When the server refuses, or neither server nor folder can be used.
pub async fn run(args: &KillSwitchArgs, json: bool, clock: Arc<dyn Clock>) -> CommandResult {
    let folder = crate::paths::data_dir(args.data.data.as_deref());
    // A server that was named is meant, and no folder of this machine stands in for it.
    let named = args.server.is_some() && args.data.data.is_none();
    let server = match (&args.server, folder.as_deref().ok().and_then(running_on)) {
        (Some(url), _) => Some(url.clone()),
        (None, Some(url)) => Some(url),
        // A folder that was named and on which nothing runs.
        (None, None) if args.data.data.is_some() => None,
        (None, None) => Some(DEFAULT_SERVER.to_owned()),
    };
    if let Some(server) = server {
        let (token_file, data_dir) = (args.token_file.clone(), args.data.data.clone());
        let client = Client::new(&ServerArgs { server: server.clone(), token_file, data: data_dir })?;
        let asked = match args.turn {
            Turn::Status => client.ask(Method::GET, "/api/v1/kill-switch", &[], None).await,
            on_or_off => {
                let body = json!({ "on": on_or_off == Turn::On, "why": args.why });
                client.ask(Method::POST, "/api/v1/kill-switch", &[], Some(body)).await
            }
        };
        match asked {
            Ok(answer) => return tell(&answer, json, &format!("through {server}")),
            Err(trouble) if trouble.works || named => return Err(trouble.failure),
            Err(_) => {}
        }
    }
    let folder = folder?;
    let place = format!("in {}", folder.join(SWITCH_FILE).display());
    if args.turn == Turn::Status {
        let state = read_folder(&folder);
        return tell(&json!({ "data": state.map_or_else(never, |s| json!(s)) }), json, &place);
    }
    let on = args.turn == Turn::On;
    let by = match bearer(args, &folder, clock.clone()).await {
        Ok(name) => name,
        // Stopping is the safe side: it does not depend on a store that cannot be opened or a token that was lost.
        Err(Unknown::NotChecked(why)) if on => {
            eprintln!("No token was checked ({why}); the journal will name `{NO_TOKEN}`.");
            NO_TOKEN.to_owned()
        }
        Err(Unknown::NotChecked(why)) => {
            return Err(anyhow!("{why}; allowing execution again needs an admin's token: --token-file FILE").into());
        }
        Err(Unknown::Refused(failure)) => return Err(failure),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("make the data folder {}", folder.display()))?;
    let switch = KillSwitch { on, by, why: args.why.trim().to_owned(), at: clock.now() };
    write_folder(&folder, &switch)?;
    tell(&json!({ "data": switch }), json, &place)
}

/// Why it is not known who turns it.
enum Unknown {
    /// There was nothing to check, or nothing to check it with.
    NotChecked(String),
    /// It was checked and is not enough.
    Refused(Failure),
}

/// The name of the admin's token that was given, or that is in the data folder.
async fn bearer(args: &KillSwitchArgs, folder: &Path, clock: Arc<dyn Clock>) -> Result<String, Unknown> {
    let file = args.token_file.clone().unwrap_or_else(|| folder.join(TOKEN_FILE));
    let secret = std::fs::read_to_string(&file)
        .map_err(|e| Unknown::NotChecked(format!("there is no token in {}: {e}", file.display())))?;
    let unchecked = |e: &dyn std::fmt::Display| Unknown::NotChecked(format!("the tokens cannot be read: {e}"));
    let (settings, _) = Settings::for_command(&args.data).map_err(|e| match e {
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
        let why = anyhow!("token `{}` has the role {}, the kill switch needs admin", token.name, token.role);
        return Err(Unknown::Refused(why.into()));
    }
    Ok(token.name.clone())
}

/// The URL of the server that runs on a data folder.
fn running_on(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(crate::run::SERVER_FILE)).ok()?;
    let about: Value = serde_json::from_str(&text).ok()?;
    let mut address: SocketAddr = about["listeners"]["api"].as_str()?.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Some(format!("http://{address}"))
}

fn never() -> Value {
    json!({ "on": false, "by": "", "why": "", "at": null })
}

fn tell(answer: &Value, json: bool, place: &str) -> CommandResult {
    if json {
        print_line(&answer.to_string())?;
        return Ok(());
    }
    let state = answer.get("data").cloned().unwrap_or_default();
    if state["at"].is_null() {
        print_line(&format!("The kill switch is off; it was never turned ({place})."))?;
        return Ok(());
    }
    let KillSwitch { on, by, why, at } = data(answer.clone())?;
    let says = if on { "ON: nothing is carried out" } else { "off: plans run as the guard allows" };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    print_line(&format!("The kill switch is {says}. {by}, {at}{why} ({place})"))?;
    Ok(())
}
