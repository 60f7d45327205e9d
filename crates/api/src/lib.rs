//! The HTTP door: REST under `/api/v1`, the stream of events, our own metrics, and the plain pages of incidents.
//!
//! Lives here: routes and their answers, access (who may call what through which listener), the OpenAPI description,
//! and the pages. Where each answer comes from is a trait in [`seams`]; the binary wires them to the rooms.
//!
//! Never here: sockets (`collect` has the one server loop), and decisions about incidents. What a person does is handed
//! on with the name and the role of who asked; what becomes of it is not known here.
//!
//! Invariants:
//! - every route stands in one table ([`routes`]) with what it takes to call it; the OpenAPI document has the same;
//! - what changes state needs a token of the role that the table says, through every listener, and is handed on under
//!   the token's name;
//! - an answer to a plan is for the plan that was seen: it names the plan's hash, and another one is refused;
//! - beyond loopback everything but health needs a token;
//! - every list, body, queue and wait has an upper bound ([`ApiConfig`]).

mod act;
mod auth;
mod automation;
mod config;
mod incidents;
mod markdown;
mod openapi;
mod origin;
mod page;
mod params;
mod problem;
mod read;
mod router;
mod routes;
pub mod seams;
mod shown;
mod story;
mod stream;
mod verbs;

pub use auth::Exposure;
pub use config::{ApiConfig, AuthConfig, Listener, MetricsConfig, validate_listeners};
pub use openapi::document as openapi_document;
pub use problem::ApiError;
pub use router::{metrics_router, router};
pub use routes::{Access, listed_routes};
pub use seams::{
    ApiParts, ApiState, Automation, BreakerRow, BudgetRow, Catalogue, CollectorRow, CollectorsView, CommandError,
    CooldownRow, DeliveriesView, DeliveryRow, FreezeRow, GuardReport, GuardView, IncidentCommands, InjectError,
    Injector, KillSwitchControl, LiveReadings, PlaybookRow, PolicyRow, Postmortem, Postmortems, ReplayError,
    ReplayView, StatusProvider, StatusReport, TopologyView,
};
pub use stream::StreamEvent;

/// Reads any bytes as a query, an id, an origin, a form and Markdown: for fuzzing.
#[doc(hidden)]
pub fn fuzz_api_request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    params::fuzz(&text);
    origin::fuzz(&text);
    let _ = incidents::parse_id(&text);
    verbs::fuzz(&text);
    let _ = markdown::to_html(&text);
}
