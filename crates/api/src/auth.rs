//! Who calls, and whether they may.

use crate::problem::ApiError;
use crate::routes::Access;
use crate::seams::ApiState;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nightshift_model::Timestamp;
use nightshift_store::tokens::{self, Role};
use nightshift_store::{Store, TokenRow};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longest secret that is looked at, bytes; ours have 46.
const SECRET_BYTES_MAX: usize = 256;

/// An unknown token makes the list be read anew, for it may be new; at most this often.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// Cookie in which a browser keeps the token that it was given on a page. Good for reading only.
pub(crate) const COOKIE: &str = "nightshift_token";

/// From where a listener can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// From this machine only.
    Loopback,
    /// From elsewhere too.
    Beyond,
}

impl Exposure {
    /// Of a listener that is bound to this address.
    pub const fn of(ip: IpAddr) -> Self {
        if ip.is_loopback() { Self::Loopback } else { Self::Beyond }
    }
}

/// Whose token came with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// The list of tokens as last read.
#[derive(Default)]
pub(crate) struct Tokens(tokio::sync::Mutex<Option<(Timestamp, Arc<Vec<TokenRow>>)>>);

impl Tokens {
    async fn list(&self, store: &dyn Store, now: Timestamp, max_age: Duration) -> Result<Arc<Vec<TokenRow>>, ApiError> {
        // Held while reading, so that a crowd of requests makes one query.
        let mut cached = self.0.lock().await;
        if let Some((at, list)) = cached.as_ref() {
            // A clock that went back must not make a list live for ever.
            if *at <= now && now.since(*at) < max_age {
                return Ok(list.clone());
            }
        }
        let list = Arc::new(store.tokens().await?);
        *cached = Some((now, list.clone()));
        Ok(list)
    }
}

/// The secret in `Authorization: Bearer …`. `None`: there is no such header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let secret = value.to_str().ok().and_then(|v| {
        let (scheme, secret) = v.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
    });
    secret
        .filter(|s| !s.is_empty())
        .map(Some)
        .ok_or_else(|| unauthorized("the Authorization header is not `Bearer TOKEN`"))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

fn unauthorized(detail: &str) -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        detail,
        "send `Authorization: Bearer ns_…`; `nightshift token create` on the server makes a token",
    )
}

/// Whose token this is.
///
/// # Errors
/// 401 when it is nobody's, 503 when the store does not answer.
pub(crate) async fn identify(state: &ApiState, secret: &str) -> Result<Caller, ApiError> {
    let refused = || unauthorized("the token is not known or was withdrawn");
    if secret.len() > SECRET_BYTES_MAX {
        return Err(refused());
    }
    let now = state.clock.now();
    let cache = Duration::from_secs(state.auth.cache_secs);
    for max_age in [cache, cache.min(RELOAD_EVERY)] {
        let list = state.shared().tokens.list(state.store.as_ref(), now, max_age).await?;
        if let Some(token) = tokens::find(&list, secret) {
            let role = token.role.parse().map_err(|_| refused())?;
            return Ok(Caller { name: token.name.clone(), role });
        }
    }
    Err(refused())
}

/// Refuses a caller whose role is too small.
pub(crate) fn permit(caller: &Caller, needed: Role) -> Result<(), ApiError> {
    if caller.role.permits(needed) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!("token `{}` has the role {}, this needs {needed}", caller.name, caller.role),
        format!("`nightshift token create --name N --role {needed}` on the server makes one that may"),
    ))
}

/// What stands before a route.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) state: ApiState,
    pub(crate) access: Access,
    pub(crate) exposure: Exposure,
}

/// Lets a request through to its route, with its [`Caller`] when it has one, or answers why not.
pub(crate) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let checked = admit(&guard, request.method().is_safe(), request.headers()).await;
    match checked {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn admit(guard: &Guard, safe: bool, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
    let beyond = guard.exposure == Exposure::Beyond;
    let needed = match guard.access {
        Access::Public => return Ok(None),
        // The form itself carries the token: the handler asks for it.
        Access::Form => return Ok(None),
        Access::Read => beyond.then_some(Role::Viewer),
        Access::Work => Some(Role::Viewer),
        Access::Ingest => beyond.then_some(Role::Operator),
        Access::Change => Some(Role::Operator),
        Access::Approve => Some(Role::Approver),
        Access::Admin => Some(Role::Admin),
    };
    let Some(needed) = needed else { return Ok(None) };
    // A cookie is sent by the browser whoever asked it to, so it is good for looking only.
    let secret = match bearer(headers)? {
        Some(secret) => Some(secret),
        None if safe && guard.access == Access::Read => cookie(headers),
        None => None,
    };
    let Some(secret) = secret else {
        return Err(unauthorized(match guard.access {
            Access::Change | Access::Approve | Access::Admin => "what changes something needs a token",
            Access::Work => "what makes the server work needs a token",
            _ => "every call from beyond this machine needs a token",
        }));
    };
    let caller = identify(&guard.state, secret).await?;
    permit(&caller, needed)?;
    Ok(Some(caller))
}
