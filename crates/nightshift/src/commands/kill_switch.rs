//! `kill-switch`: through the server when it answers, on the data folder when it does not.

use super::incidents::print_line;
use crate::bearer::{Unknown, admin};
use crate::cli::{KillSwitchArgs, ServerArgs, Turn};
use crate::client::{Client, data};
use crate::exit::CommandResult;
use crate::switch::{SWITCH_FILE, read_folder, write_folder};
use anyhow::{Context as _, anyhow};
use nightshift_model::{Clock, KillSwitch};
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
    let by = match admin(args.token_file.as_deref(), &args.data, &folder, clock.clone(), "the kill switch").await {
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
