//! OTLP as a [`Source`].

use super::{OtlpState, grpc_router, http_router};
use crate::http::{HttpLimits, serve};
use crate::{Source, SourceContext, SourceError};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// The OTLP receiver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OtlpConfig {
    /// Whether it is on.
    pub enabled: bool,
    /// Where gRPC listens; empty: nowhere. Port 0 takes a free one.
    pub grpc_listen: String,
    /// Where HTTP listens; empty: nowhere. Port 0 takes a free one.
    pub http_listen: String,
    /// Largest body as it comes, bytes.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub body_bytes_max: usize,
    /// Largest body when decompressed, bytes. Decoded messages take up to thirty times as much for a moment.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub decompressed_bytes_max: usize,
    /// How clients are treated.
    pub http: HttpLimits,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            grpc_listen: "127.0.0.1:4317".into(),
            http_listen: "127.0.0.1:4318".into(),
            body_bytes_max: 8 << 20,
            decompressed_bytes_max: 8 << 20,
            http: HttpLimits::default(),
        }
    }
}

/// Receives OTLP until it is told to end.
#[derive(Debug)]
pub struct OtlpSource {
    name: String,
    settings: OtlpConfig,
    grpc: Option<TcpListener>,
    http: Option<TcpListener>,
    addresses: Vec<(&'static str, SocketAddr)>,
}

impl OtlpSource {
    /// Binds its listeners, so that a taken port is known before anything starts.
    ///
    /// # Errors
    /// Names the key whose address cannot be had.
    pub async fn bind(name: &str, settings: OtlpConfig) -> Result<Self, SourceError> {
        let mut source = Self { name: name.to_owned(), settings, grpc: None, http: None, addresses: Vec::new() };
        source.bind_missing().await?;
        Ok(source)
    }

    /// The keys of its listeners, and the addresses that they got.
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }

    /// Takes the addresses it had before: port 0 stays the port that it became.
    async fn bind_missing(&mut self) -> Result<(), SourceError> {
        for (key, listen, slot) in [
            ("grpc_listen", &self.settings.grpc_listen, &mut self.grpc),
            ("http_listen", &self.settings.http_listen, &mut self.http),
        ] {
            if listen.is_empty() || slot.is_some() {
                continue;
            }
            let before = self.addresses.iter().find(|(k, _)| *k == key).map(|(_, a)| a.to_string());
            let fail = |e: std::io::Error| SourceError {
                what: format!("listen on `{listen}` for OTLP ({key}); is the port taken?"),
                source: Some(Box::new(e)),
                fatal: true,
            };
            let listener = TcpListener::bind(before.as_deref().unwrap_or(listen)).await.map_err(fail)?;
            if before.is_none() {
                self.addresses.push((key, listener.local_addr().map_err(fail)?));
            }
            *slot = Some(listener);
        }
        Ok(())
    }
}

#[async_trait]
impl Source for OtlpSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "otlp"
    }

    async fn run(&mut self, context: &SourceContext) -> Result<(), SourceError> {
        self.bind_missing().await?;
        let state = OtlpState::new(&self.name, &self.settings, context);
        let listening = self.addresses.iter().map(|(_, a)| a.to_string()).collect::<Vec<_>>().join(" and ");
        context.health.healthy(format!("listening on {listening}"));
        let limits = &self.settings.http;
        let door = |listener: Option<TcpListener>, router| {
            let (limits, shutdown) = (limits.clone(), context.shutdown.clone());
            async move {
                match listener {
                    Some(listener) => serve(listener, router, limits, shutdown).await,
                    None => shutdown.cancelled().await,
                }
            }
        };
        let grpc = door(self.grpc.take(), grpc_router(state.clone()));
        let http = door(self.http.take(), http_router(state));
        tokio::join!(grpc, http);
        Ok(())
    }
}
