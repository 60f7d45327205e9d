//! `demo`: a simulated estate, the whole loop and the page of incidents, with nothing installed and nothing configured.
//!
//! Lives here: what is the demo's own (virtual time that passes faster, the estate as a source and as an actuator, the
//! order of its faults, the live view). Never here: the loop, which is the service's.

mod clock;
mod source;
mod story;
mod trials;
mod view;

use crate::agents::{DetectRooms, Tap, Told};
use crate::cli::{DemoArgs, Role};
use crate::clock::SystemClock;
use crate::exit::{CommandResult, bad_input};
use crate::run::{Extras, Service, Written};
use crate::settings::Settings;
use anyhow::{Context as _, Result, anyhow};
use clock::ScaledClock;
use nightshift_act::Actuator;
use nightshift_collect::Source;
use nightshift_config::Problems;
use nightshift_model::{Clock, EntityId, EventKind};
use nightshift_plan::WhatIf;
use nightshift_sim::{EstateSpec, FittedEstate, InjectedFault, SimActuator, SimFault, WhatIfConfig, World};
use nightshift_topology::TopologyFile;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use source::{Encoder, EstateSource};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use story::{Line, Tone};
use tokio_util::sync::CancellationToken;
use trials::Trials;
use view::{Screen, ServiceRow, Tally};

/// How many scrapes of the past are rolled in before the first fault: enough for every detector to know what is usual.
const HISTORY_SCRAPES: u32 = 900;
/// Virtual seconds between two scrapes when time passes as the wall's does.
const SCRAPE_SECS: f64 = 10.0;
/// Older samples than an hour are refused.
const HISTORY_MAX: Duration = Duration::from_secs(55 * 60);
/// Virtual seconds from the start to the first fault.
const FIRST_FAULT_SECS: f64 = 15.0;
/// Virtual seconds from one fault to the next.
const NEXT_FAULT_SECS: std::ops::Range<f64> = 300.0..600.0;
/// One of so many is a look-alike.
const LOOKALIKE_ONE_IN: u32 = 4;
/// How often the live view is drawn.
const FRAME: Duration = Duration::from_millis(100);
/// Ports that are tried after the usual one.
const PORTS_TRIED: u16 = 50;
/// A file that says that a folder is a demo's and may be emptied.
const MARKER: &str = "nightshift-demo";

/// Whether the demo would draw on the terminal.
pub fn is_live(args: &DemoArgs, json: bool) -> bool {
    !args.headless && !json && std::io::stdout().is_terminal()
}

/// `nightshift demo`.
///
/// # Errors
/// When a port or the data folder cannot be had.
pub(crate) async fn run(args: &DemoArgs, json: bool) -> CommandResult {
    if !(args.speed.is_finite() && args.speed > 0.0 && args.speed <= 1_000.0) {
        return Err(bad_input(format!("--speed {}: above 0, at most 1000", args.speed)));
    }
    let data = match &args.data {
        Some(data) => data.clone(),
        None => crate::paths::data_dir(None)?.with_file_name("nightshift-demo"),
    };
    empty(&data)?;
    let clock: Arc<dyn Clock> = Arc::new(ScaledClock::new(Arc::new(SystemClock), args.speed));
    let mut spec = EstateSpec::six();
    // Time that passes faster is looked at more closely, down to a second.
    let every = Duration::from_secs((SCRAPE_SECS / args.speed).clamp(1.0, SCRAPE_SECS).round() as u64);
    spec.start = clock.now() - (every * HISTORY_SCRAPES).min(HISTORY_MAX);
    let yaml = nightshift_sim::topology_yaml(&spec);
    let topology = TopologyFile::parse(&yaml, &spec.cluster).map_err(|wrong| {
        anyhow!("read the estate's topology: {}", wrong.first().map(ToString::to_string).unwrap_or_default())
    })?;
    let ids: BTreeMap<String, EntityId> = spec.entities().into_iter().map(|e| (e.id.name(), e.id)).collect();
    let (library, _) = nightshift_knowledge::Library::read(nightshift_sim::knowledge::DOCUMENTS.iter().copied());
    let past = library.outcomes(|name| ids.get(name).cloned());
    let world = Arc::new(Mutex::new(World::new(spec, args.seed)));
    let screen = Arc::new(Mutex::new(Screen::new(args.speed)));
    let stop = CancellationToken::new();
    let live = is_live(args, json);
    let out = if live {
        Out::Live
    } else if json {
        Out::Json
    } else {
        Out::Lines
    };

    let settings = settings(&world.lock(), args.speed)?;
    let trials = Arc::new(Trials(Mutex::new(FittedEstate::new(WhatIfConfig::default()))));
    let actuators: BTreeMap<String, Arc<dyn Actuator>> =
        [(source::NAME.to_owned(), Arc::new(SimActuator::new(world.clone())) as Arc<dyn Actuator>)].into();
    let tenant = settings.tenant.clone();
    let (shared, pause) = (world.clone(), every.div_f64(args.speed));
    let (told, estate) = (screen.clone(), screen.clone());
    let mut faults = Faults::new(args.seed);
    let sources = Box::new(move |bus: &Arc<dyn nightshift_bus::Bus>| {
        let encoder = Encoder::new(&shared.lock(), &tenant);
        let seen = Box::new(move |world: &mut World| {
            for line in faults.next(world) {
                out.line(&estate, line);
            }
            estate.lock().estate(world.now(), rows(world), broken(world));
        });
        vec![Box::new(EstateSource { world: shared, encoder, bus: bus.clone(), every, pause, seen }) as Box<dyn Source>]
    });
    let page = screen.clone();
    let extras = Extras {
        clock: Some(clock.clone()),
        actuators,
        what_if: Some(trials.clone() as Arc<dyn WhatIf>),
        taps: vec![trials as Arc<dyn Tap>],
        past,
        sources: Some(sources),
        routes: Some(routes(world.clone())),
        told: Some(Arc::new(move |news: &Told| {
            count(&mut told.lock().tally, news);
            if let Some(line) = story::line(news) {
                out.line(&told, line);
            }
        })),
        ready: Some(Box::new(move |at: SocketAddr| {
            page.lock().url = format!("http://{at}");
            out.ready(at);
        })),
        stop: Some(stop.clone()),
    };
    let service = serve(settings, topology, extras, &data);
    if let Some(whole) = args.run_for {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(whole).await;
            stop.cancel();
        });
    }
    let view = live.then(|| {
        let (screen, stop) = (screen.clone(), stop.clone());
        tokio::task::spawn_blocking(move || draw(&screen, &stop))
    });
    let result = service.await;
    stop.cancel();
    if let Some(view) = view {
        view.await.context("draw the live view")??;
    }
    result?;
    out.end(&screen.lock().tally);
    Ok(())
}

async fn serve(settings: Settings, topology: TopologyFile, extras: Extras, data: &Path) -> Result<()> {
    let mut problems = Problems::new("demo");
    let rules = crate::check::rules(&settings, Path::new(""), &mut problems);
    let library = crate::library::read(&settings, Path::new(""), &mut problems);
    let rooms = DetectRooms::new(
        settings.detect.metrics.clone(),
        settings.detect.logs.clone(),
        (settings.detect.rule_limits.clone(), rules),
        settings.topology.spans.clone(),
    )?;
    let roles: BTreeSet<Role> = Role::ALL.into_iter().collect();
    let service = Service::open(settings, roles, data, &problems, extras).await?;
    service.run(rooms, Written { topology, library, base: PathBuf::new() }, data).await
}

/// The empty configuration, but for what a demo is: only the estate is watched, and plans may act on it.
fn settings(world: &World, speed: f64) -> Result<Settings> {
    let mut settings = Settings { default_sources: false, ..Settings::default() };
    settings.otlp.enabled = false;
    settings.ingest.resolve.cluster.clone_from(&world.spec().cluster);
    settings.guard.dry_run = false;
    // The machine that looks is no faster than the wall's clock.
    let looks = settings.workflow.looks_timeout_secs;
    settings.workflow.looks_timeout_secs = ((looks as f64 * speed) as u64).clamp(looks, 60);
    settings.api.listen = free_port(&settings.api.listen)?;
    Ok(settings)
}

/// The usual address, or the next one whose port is free.
fn free_port(usual: &str) -> Result<String> {
    let usual: SocketAddr = usual.parse().with_context(|| format!("read the address {usual}"))?;
    for port in (usual.port()..).take(usize::from(PORTS_TRIED)) {
        let at = SocketAddr::new(usual.ip(), port);
        if std::net::TcpListener::bind(at).is_ok() {
            return Ok(at.to_string());
        }
    }
    Err(anyhow!("no port from {} to {} is free", usual.port(), usual.port().saturating_add(PORTS_TRIED)))
}

/// Makes the folder, or empties it when it is a demo's.
fn empty(data: &PathBuf) -> CommandResult {
    let marker = data.join(MARKER);
    if marker.exists() {
        std::fs::remove_dir_all(data).with_context(|| format!("empty the data folder {}", data.display()))?;
    } else if std::fs::read_dir(data).is_ok_and(|mut d| d.next().is_some()) {
        let next = "name an empty folder with --data";
        return Err(bad_input(format!("{} is not empty and not a demo's: {next}", data.display())));
    }
    std::fs::create_dir_all(data).with_context(|| format!("make the data folder {}", data.display()))?;
    std::fs::write(&marker, "This folder is emptied whenever the demo starts.\n")
        .with_context(|| format!("write {}", marker.display()))?;
    Ok(())
}

/// The estate's metrics, as anybody's Prometheus may scrape them.
fn routes(world: Arc<Mutex<World>>) -> axum::Router {
    let text = move || async move {
        let body = nightshift_sim::exposition(&world.lock());
        ([(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4")], body)
    };
    axum::Router::new().route("/estate/metrics", axum::routing::get(text))
}

/// Which fault comes next, and when.
struct Faults {
    rng: SmallRng,
    next_at: Option<f64>,
    known: BTreeSet<usize>,
    ended: BTreeSet<usize>,
    /// The kind that came last: it does not come twice in a row.
    last: Option<SimFault>,
}

impl Faults {
    fn new(seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        Self { rng, next_at: None, known: BTreeSet::new(), ended: BTreeSet::new(), last: None }
    }

    /// Injects what is due, and tells what began and ended.
    fn next(&mut self, world: &mut World) -> Vec<Line> {
        let now = world.now_secs();
        let next = *self.next_at.get_or_insert(now + FIRST_FAULT_SECS);
        if now >= next {
            self.inject(world, now);
            self.next_at = Some(now + self.rng.random_range(NEXT_FAULT_SECS));
        }
        let mut lines = Vec::new();
        let line = |text: String| Line { at: world.now(), tone: Tone::World, incident: String::new(), text };
        for (i, fault) in world.faults().iter().enumerate() {
            if fault.start_secs <= now && self.known.insert(i) {
                let what = if SimFault::lookalikes().any(|l| l == fault.kind) { "harmless" } else { "breaks" };
                lines.push(line(format!(
                    "{what}: {} on {}",
                    fault.kind.name(),
                    world.spec().id(fault.part.part()).name()
                )));
            }
            if fault.end_secs() <= now && self.ended.insert(i) {
                lines.push(line(format!("over by itself: {}", fault.kind.name())));
            }
        }
        lines
    }

    fn inject(&mut self, world: &mut World, now: f64) {
        let lookalike = self.rng.random_ratio(1, LOOKALIKE_ONE_IN);
        let mut kinds: Vec<SimFault> = match (self.last, lookalike) {
            (None, _) => vec![SimFault::DeploymentFailure],
            (_, true) => SimFault::lookalikes().collect(),
            (_, false) => SimFault::faults().collect(),
        };
        kinds.retain(|kind| Some(*kind) != self.last);
        let fault = kinds.choose(&mut self.rng).and_then(|kind| InjectedFault::usual(*kind, world.spec(), now));
        if let Some(fault) = fault {
            self.last = Some(fault.kind);
            world.inject(fault);
        }
    }
}

/// Where the story goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Live,
    Lines,
    Json,
}

impl Out {
    fn line(self, screen: &Mutex<Screen>, line: Line) {
        match self {
            Self::Live => screen.lock().tell(line),
            Self::Lines => {
                let time = line.at.to_string();
                let time = time.get(11..19).unwrap_or_default();
                println!("{time} {:<8} {:<9} {}", line.tone.word(), line.incident, line.text);
            }
            Self::Json => println!("{}", serde_json::to_string(&line).unwrap_or_default()),
        }
    }

    fn ready(self, at: SocketAddr) {
        if self == Self::Lines {
            println!("the page of incidents: http://{at}    the estate's metrics: http://{at}/estate/metrics");
        }
    }

    fn end(self, tally: &Tally) {
        match self {
            Self::Json => println!("{}", serde_json::json!({ "tally": tally })),
            Self::Live | Self::Lines => {
                let mean = if tally.resolved > 0 { tally.mttr_sum_s / tally.resolved as f64 } else { 0.0 };
                println!(
                    "{} incidents, {} resolved ({mean:.0} s on average, virtual time), {} changes made",
                    tally.opened, tally.resolved, tally.actions
                );
            }
        }
    }
}

fn count(tally: &mut Tally, news: &Told) {
    match &news.event.event {
        EventKind::Opened { .. } => tally.opened += 1,
        EventKind::Resolved { .. } => {
            tally.resolved += 1;
            tally.mttr_sum_s += news.event.at.since(news.incident.detected_at).as_secs_f64();
        }
        EventKind::ActionEnded { key, outcome, .. } => {
            let changed = |a: &nightshift_model::ActionState| a.action.key == *key && a.action.operation.changes();
            tally.actions += u64::from(outcome.is_done() && news.incident.actions.iter().any(changed));
        }
        _ => {}
    }
}

/// The services as the view shows them, from what they say of themselves.
fn rows(world: &World) -> Vec<ServiceRow> {
    let rest: BTreeMap<String, f64> = world.spec().services.iter().map(|s| (s.name.clone(), s.p99_ms)).collect();
    let mut rows: BTreeMap<String, ServiceRow> = BTreeMap::new();
    for (i, def) in world.series().iter().enumerate() {
        let Some(value) = world.value(i) else { continue };
        let Some(p99_rest) = rest.get(&def.entity.id.name()) else { continue };
        let row = rows.entry(def.entity.id.name()).or_insert_with(|| ServiceRow {
            name: def.entity.id.name(),
            p99_rest: *p99_rest,
            ..ServiceRow::default()
        });
        match def.name {
            "service_request_rate" => row.rate = value,
            "service_error_rate_percent" => row.errors = value,
            "service_latency_p99_ms" => row.p99 = value,
            "service_cpu_percent" => row.cpu = value,
            "service_memory_percent" => row.memory = value,
            name if name.starts_with("service_replicas") => row.replicas = value as u32,
            _ => {}
        }
    }
    rows.into_values().collect()
}

/// What is wrong in the estate right now.
fn broken(world: &World) -> Vec<String> {
    let now = world.now_secs();
    let on = world.faults().iter().filter(|f| f.start_secs <= now && now < f.end_secs());
    on.map(|f| f.kind.name().to_owned()).collect()
}

/// Draws until it is told to stop, or a person does so.
fn draw(screen: &Mutex<Screen>, stop: &CancellationToken) -> Result<()> {
    use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
    let mut terminal = ratatui::init();
    let mut result = Ok(());
    while !stop.is_cancelled() && result.is_ok() {
        result = terminal.draw(|frame| screen.lock().draw(frame)).map(drop);
        match event::poll(FRAME) {
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) if key.kind == KeyEventKind::Press => {
                    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                        stop.cancel();
                    }
                }
                Ok(_) => {}
                Err(e) => result = Err(e),
            },
            Ok(false) => {}
            Err(e) => result = Err(e),
        }
    }
    ratatui::restore();
    stop.cancel();
    result.context("draw on the terminal")
}
