//! The command line: subcommands, options and their implementation.

mod bench;
mod devices;
mod doctor;
mod flags;
mod generate;
mod healthcheck;
mod key_access;
mod keys;
mod local_engine;
mod operator;
mod output;
mod set;
mod verify;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use latentd::{
    app::{self, App},
    config::{Config, Sources},
    device::Device,
    kernels::arena,
    telemetry,
};
use tokio_util::sync::CancellationToken;

/// An inference server for diffusion models.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server. This is also the default without a subcommand.
    Serve(Serve),
    /// Draw pictures, or make sounds or films, without a server.
    Generate(generate::Generate),
    /// List the models with their defaults, and the reasons why other models cannot be used.
    Models(Settings),
    /// List the devices of this build and machine, their memory, and the models that fit into it.
    Devices(devices::Devices),
    /// Check everything that a server with these settings needs: settings, database, clock, bucket, models, devices,
    /// memory, ports, open files and secrets. Says how to mend each fault; fails if there is an error.
    Doctor(doctor::Doctor),
    /// Measure how fast this machine loads models and draws: seconds of a step at growing batches, latency, and images
    /// per second.
    Bench(bench::BenchCommand),
    /// Check the content credentials and the watermark of a picture: what they say, who signed the credentials, and
    /// whether the file has changed since. Fails unless the file has credentials and is unchanged.
    Verify(verify::Verify),
    /// Update the schema of the database.
    Migrate(Settings),
    /// Create, list, revoke and rotate API keys.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Check or print the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check whether the server on this machine answers, for container health checks.
    Healthcheck(Settings),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings: fail if a setting is unknown or out of range, or if a core or GPU in engine.devices is not
    /// available.
    Check(Settings),
    /// Print the effective settings as a settings file (TOML). Secrets are hidden.
    Print(Settings),
}

/// Options that select the settings.
#[derive(Clone, Debug, Default, Args)]
struct Settings {
    /// Settings file (TOML). Default: the file that the environment variable LATENTD_CONFIG names, otherwise none.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of models: model folders in diffusers' layout and single-file checkpoints. Overrides the setting
    /// models.dir, whose default is empty: only the embedded model.
    #[arg(long, value_name = "DIR")]
    models_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// IP address and port of the public listener. Overrides the setting http.bind, whose default is 127.0.0.1:8080.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["host", "port"])]
    bind: Option<SocketAddr>,
    /// IP address of the public listener, or localhost. 0.0.0.0 is all addresses. Overrides the address in http.bind.
    #[arg(long, value_name = "ADDRESS", value_parser = host)]
    host: Option<IpAddr>,
    /// Port of the public listener. Overrides the port in http.bind.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// What the process does: all serves HTTP and computes, api only serves HTTP, worker only computes. api and worker
    /// need PostgreSQL. Overrides the setting role, whose default is all.
    #[arg(long, value_name = "all|api|worker")]
    role: Option<String>,
    /// Folder of the SQLite database and of the pictures. Overrides the setting data_dir, whose default is data.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub(crate) fn run() -> Result<()> {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => self::serve(&serve),
        Command::Generate(generate) => generate.run(),
        Command::Keys(keys) => keys.run(),
        Command::Models(settings) => models(&settings),
        Command::Devices(devices) => devices.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Bench(bench) => bench.run(),
        Command::Verify(verify) => verify.run(),
        Command::Migrate(settings) => migrate(&settings),
        Command::Config(ConfigCommand::Check(settings)) => {
            let config = settings.load(Vec::new())?;
            // Opening the devices checks that this machine has the cores and GPUs in the settings. A process that only
            // serves HTTP uses no devices.
            if config.role.works() {
                app::devices(&config)?;
            }
            println!("the settings are valid");
            Ok(())
        }
        Command::Config(ConfigCommand::Print(settings)) => {
            settings.load(Vec::new()).map(|config| print!("{}", config.to_toml()))
        }
        Command::Healthcheck(settings) => healthcheck::run(settings.load(Vec::new())?.operator.bind),
    }
}

impl Settings {
    fn load(&self, mut flags: Vec<(String, String)>) -> Result<Config> {
        if let Some(dir) = &self.models_dir {
            flags.push(("models.dir".to_owned(), dir.display().to_string()));
        }
        let sources = Sources::of_process(self.config.clone(), flags)?;
        let config = Config::load(&sources).context("settings")?;
        telemetry::check(&config.log).map_err(anyhow::Error::msg).context("settings")?;
        Ok(config)
    }
}

/// Parses the address of `--host`.
fn host(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => text.parse().map_err(|_| "it must be an IP address or localhost".to_owned()),
    }
}

/// Stack size in bytes of tokio's threads: twice the default. These threads parse requests (JSON nests at most 128
/// levels), read model files and decode pictures. In builds without optimization, the default stack can be too small
/// for this.
const RUNTIME_STACK: usize = 4 << 20;

fn serve(serve: &Serve) -> Result<()> {
    let mut flags = Vec::new();
    if let Some(bind) = serve.bind {
        flags.push(("http.bind".to_owned(), bind.to_string()));
    }
    if let Some(role) = &serve.role {
        flags.push(("role".to_owned(), role.clone()));
    }
    if let Some(dir) = &serve.data_dir {
        flags.push(("data_dir".to_owned(), dir.display().to_string()));
    }
    let mut config = serve.settings.load(flags)?;
    let bind = config.http.bind;
    config.http.bind = SocketAddr::new(serve.host.unwrap_or(bind.ip()), serve.port.unwrap_or(bind.port()));
    telemetry::init(&config.log).map_err(anyhow::Error::msg)?;
    arena::give_large_blocks_back();
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(RUNTIME_STACK).enable_all().build()?;
    runtime.block_on(async {
        let app = App::build(config).await?;
        // Standard output contains only these lines, so that a script can wait for them.
        match app.public_address()? {
            Some(address) => println!("latentd {} listens on http://{address}", env!("CARGO_PKG_VERSION")),
            None => println!("latentd {} works", env!("CARGO_PKG_VERSION")),
        }
        println!("operator: http://{}", app.operator_address()?);
        let stop = CancellationToken::new();
        let mut serving = Box::pin(app.run(stop.clone()));
        tokio::select! {
            served = &mut serving => return served,
            () = asked_to_stop() => stop.cancel(),
        }
        // A second signal ends the process at once. The ledger survives this as it survives a crash.
        tokio::select! {
            served = &mut serving => served,
            () = asked_to_stop() => std::process::exit(130),
        }
    })
}

/// Returns on Ctrl-C or SIGTERM.
async fn asked_to_stop() {
    let mut term = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(term) => term,
        Err(error) => {
            tracing::error!(%error, "SIGTERM cannot be listened for");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

fn migrate(settings: &Settings) -> Result<()> {
    let config = settings.load(Vec::new())?;
    telemetry::init(&config.log).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(app::migrate(&config))?;
    println!("the schema is up to date");
    Ok(())
}

fn models(settings: &Settings) -> Result<()> {
    let config = settings.load(Vec::new())?;
    let catalogue = app::catalogue(&config, vec![Device::host()])?;
    catalogue.note().iter().for_each(|note| println!("{note}"));
    for name in catalogue.names() {
        let mark = if name == catalogue.default_name() { " (default)" } else { "" };
        match (catalogue.card(&name), catalogue.state(&name).1) {
            (Some(card), _) => {
                let pixels = format!("{} × {} pixels", card.default_width, card.default_height);
                let size = match (card.sound, card.film) {
                    (Some(sound), _) => format!("{} s of sound", sound.default_seconds),
                    (None, Some(film)) if card.motion_adapters.is_empty() => {
                        format!("{} frames of {pixels}", film.default_frames)
                    }
                    (None, Some(film)) => format!("{pixels}, or {} frames", film.default_frames),
                    (None, None) => pixels,
                };
                println!(
                    "{name}{mark}: {} MB, {size}, {} steps, guidance {}. {}",
                    catalogue.bytes(&name).unwrap_or_default().div_ceil(1_000_000),
                    card.default_steps,
                    card.default_guidance_scale,
                    card.description
                );
            }
            (None, reason) => println!("{name}{mark}: cannot be used: {}", reason.unwrap_or_default()),
        }
        catalogue.notes(&name).iter().for_each(|note| println!("    {note}"));
    }
    Ok(())
}
