//! The `nightshift` program.

use clap::Parser as _;
use nightshift::cli::{Cli, Command};
use std::io::IsTerminal as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let default = match &cli.command {
        Command::Run(_) => "info",
        // Lines of the log would be drawn over.
        Command::Demo(args) if nightshift::demo::is_live(args, cli.json) => "off",
        Command::Demo(_) => "error",
        _ => "warn",
    };
    let filter = cli.log.clone().unwrap_or_else(|| default.to_owned());
    let parsed = match tracing_subscriber::EnvFilter::builder().parse(&filter) {
        Ok(parsed) => parsed,
        Err(e) => {
            let why = format!("--log `{filter}` is no filter ({e}); for example `info` or `warn,nightshift_bus=debug`");
            return nightshift::exit::report(Err(nightshift::exit::bad_input(why)), cli.json);
        }
    };
    let log = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_target(false);
    let log = log.with_ansi(std::io::stderr().is_terminal());
    if cli.json {
        log.json().init()
    } else {
        log.init()
    }
    // Fails only when a provider was installed before, which is then the one that is used.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("nightshift: start the runtime: {e}");
            return ExitCode::FAILURE;
        }
    };
    let json = cli.json;
    let result = runtime.block_on(nightshift::dispatch(cli));
    nightshift::exit::report(result, json)
}
