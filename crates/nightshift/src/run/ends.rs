//! Small ends of the service: the local token, listeners, names.

use anyhow::{Context as _, Result, anyhow};
use nightshift_model::Clock;
use nightshift_store::tokens::Role as TokenRole;
use nightshift_store::{Store, TokenRow, tokens};
use std::path::Path;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The token of the local command line: made at the first start, in the data folder, for its owner alone.
pub(super) async fn local_token(store: &dyn Store, clock: &dyn Clock, data: &Path) -> Result<()> {
    let file = data.join(crate::client::TOKEN_FILE);
    let known = store.tokens().await.context("read the tokens")?;
    if let Ok(text) = std::fs::read_to_string(&file)
        && tokens::find(&known, text.trim()).is_some()
    {
        return Ok(());
    }
    let secret = crate::commands::token::new_secret()?;
    // One that lost its file cannot be used any more: it makes room for the new one.
    for old in known.iter().filter(|t| t.generated && t.revoked_at.is_none()) {
        store.revoke_token(&old.name, clock.now()).await.context("withdraw the old local token")?;
    }
    let row = TokenRow {
        name: "local-admin".into(),
        role: TokenRole::Admin.as_str().into(),
        secret_sha256: tokens::hash(&secret),
        created_at: clock.now(),
        generated: true,
        revoked_at: None,
    };
    store.put_token(row).await.context("keep the local token")?;
    crate::files::replace(&file, secret.as_bytes())
}

pub(super) async fn bind(key: &str, listen: &str) -> Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .map_err(|e| anyhow!("listen on {listen} ({key}): {e}; give {key} another port, or 0 for a free one"))
}

/// A source that finds its port taken would be unhealthy and try again; at the start the person who can mend it is here.
pub(super) fn ports_are_free(name: &str, config: &nightshift_collect::syslog::Config) -> Result<()> {
    let taken = |key: &str, listen: &str, e: std::io::Error| {
        anyhow!(
            "listen on {listen} (sources.{name}.{key}): {e}; give it another port, 0 for a free one, or \"\" for none"
        )
    };
    if !config.udp_listen.is_empty() {
        std::net::UdpSocket::bind(&config.udp_listen).map_err(|e| taken("udp_listen", &config.udp_listen, e))?;
    }
    if !config.tcp_listen.is_empty() {
        std::net::TcpListener::bind(&config.tcp_listen).map_err(|e| taken("tcp_listen", &config.tcp_listen, e))?;
    }
    Ok(())
}

/// An error of a source with its causes, and the section it is in.
pub(super) fn chain(section: &str, error: &dyn std::error::Error) -> anyhow::Error {
    let mut text = format!("{section}: {error}");
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    anyhow!(text)
}

pub(super) fn hostname() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "localhost".into())
}

pub(super) async fn until_told_to_end(stop: Option<&CancellationToken>) -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("listen for the signal to end")?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        () = async {
            match stop {
                Some(stop) => stop.cancelled().await,
                None => std::future::pending().await,
            }
        } => {}
    }
    Ok(())
}
