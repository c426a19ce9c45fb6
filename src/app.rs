//! Builds a server from the settings, runs it, and stops it in order. Only this module starts the tasks that run as
//! long as the server.

mod computation;
mod crashes;
mod devices;
mod memory;
mod open_files;
mod operator_token;
pub mod probe;
mod provenance;
mod reload;
mod secret_file;
mod store;
mod url_secret;
mod watchdog;
mod watermark;
mod webhooks;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{net::TcpListener, sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    catalogue::{Adapters, Catalogue, ControlNets},
    config::{self, Config},
    device::Device,
    engine, executable,
    http::{self, AppState},
    ledger::{Blobs, Claimant, Reaping},
    metrics::Metrics,
    safety::{self, Safety},
    service::{AcceptPolicy, Bus, Devices, Drain, Live, Memory, Outbox, Parts, Service, Throughput},
    telemetry::Exporter,
    webhooks::Deliverer,
    worker::{Drawing, Leases, Marking, Preload, Slots, Sweeper, Worker},
};

use computation::{Computation, device_lost, worker_name};
pub use devices::devices;
pub use memory::{HostMemory, MemoryPlan};
use memory::{ListedWeights, WeightBounds};
use open_files::FileShares;
pub use open_files::open_files;
pub use operator_token::operator_token;
pub use provenance::{keys_need_data_dir, provenance, provenance_beside};
use store::{announce, reaping, start_store};
pub use store::{migrate, open_store, operator_beside};
pub use url_secret::url_secret;
use webhooks::webhooks;

/// The parts of a server process. The listeners are bound, but do not serve yet.
pub struct App {
    config: Config,
    files: FileShares,
    /// `None` in a process that does not serve the API.
    public: Option<TcpListener>,
    operator: TcpListener,
    state: AppState,
    catalogue: Arc<Catalogue>,
    /// `None` in a process without a worker.
    compute: Option<Computation>,
    sweeper: Sweeper,
    deliverer: Deliverer,
    bus: Bus,
    exporter: Option<Exporter>,
    draining: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    /// Divides the open files, opens the store, finds the models, and binds the listeners. If no other process shares
    /// the store (SQLite), also queues the generations again that an earlier process left running.
    ///
    /// # Errors
    /// The limit of open files is too low, the data folder is in use or cannot be written, the database does not
    /// answer, the default model is unusable, or an address is in use.
    pub async fn build(config: Config) -> Result<App> {
        let opened = if config.role.works() { devices(&config)? } else { vec![Device::host()] };
        App::build_on(config, opened).await
    }

    /// Like [`App::build`], with these devices instead of those in the settings: at least one, all of one kind.
    ///
    /// # Errors
    /// Those of [`App::build`].
    pub async fn build_on(config: Config, opened: Vec<Device>) -> Result<App> {
        let mut config = config;
        let opened = offloading(&config, opened);
        let files = FileShares::of(open_files::raise_limit(), &config)?;
        // Computes the digest of the program now, before its file can be replaced.
        tokio::task::spawn_blocking(executable::digest);
        let metrics = Metrics::new();
        metrics.note_start(env!("CARGO_PKG_VERSION"), config.role.as_str());
        let (tracer, exporter) = Exporter::new(&config.telemetry, resource(&config), &metrics)
            .context("the client of telemetry.otlp_endpoint cannot be set up")?;
        let catalogue = Arc::new(catalogue(&config, opened.clone())?.counted_in(metrics.clone()));
        catalogue.warn();
        let safety = Safety::open(&config.safety, metrics.clone())?;
        safety.warn(&catalogue);
        let as_set = config.engine.clone();
        if config.role.works() {
            let plan = MemoryPlan::of(&config, &catalogue);
            plan.warn();
            metrics.memory_plan_bytes.set(i64::try_from(plan.bytes()).unwrap_or(i64::MAX));
            config.engine.max_bytes = plan.generations;
        }
        let (draining, tasks) = (CancellationToken::new(), TaskTracker::new());
        let store = start_store(&config, &tasks, &draining).await?;
        operator_token::settle(&mut config)?;
        url_secret::settle(&mut config)?;
        let patience = store.is_shared().then(|| config.database.timeout_s.into());
        let (webhooks, deliverer) = webhooks(
            &config.webhooks,
            &config.http.public_url,
            files.webhooks,
            store.clone(),
            patience,
            (&metrics, &tracer),
        )?;
        let blobs = Blobs::open(&config.blobs, &config.data_dir)?.at_most(files.blobs).counted_in(metrics.clone());
        blobs.check().await?;
        let provenance = provenance(&config)?;

        let (live, throughput, outbox) = (Live::default(), Throughput::default(), Outbox::default());
        let names = opened.iter().filter(|_| config.role.works()).map(|device| device.name().to_owned());
        let devices = Devices::new(names, &metrics);
        let (wake, drain) = (Arc::new(Notify::new()), Drain::default());
        let memory = Memory::new(config.engine.max_bytes, opened.len());
        let service = Service::new(Parts {
            store: store.clone(),
            blobs: blobs.clone(),
            provenance: provenance.clone(),
            live: live.clone(),
            catalogue: catalogue.clone(),
            webhooks,
            safety: safety.clone(),
            limits: config.limits.clone(),
            accept_policy: AcceptPolicy::of(&config),
            metrics: metrics.clone(),
            throughput: throughput.clone(),
            devices: devices.clone(),
            memory: memory.clone(),
            wake: wake.clone(),
            outbox: outbox.clone(),
            computes: config.role.works(),
            drain: drain.clone(),
            draining: draining.clone(),
            tasks: tasks.clone(),
        });
        let sweeper = Sweeper {
            store: store.clone(),
            blobs: blobs.clone(),
            live: live.clone(),
            metrics: metrics.clone(),
            interval: config.retention.sweep_interval_s.into(),
            orphan_age: config.retention.orphan_age_s.into(),
            reaping: reaping(&config.queue, false),
            reap_interval: config.queue.reap_interval_s.into(),
            ageing: config.queue.ageing_s.into(),
            wake: wake.clone(),
            outbox: outbox.clone(),
        };
        let bus = Bus {
            store: store.clone(),
            live: live.clone(),
            outbox: outbox.clone(),
            wake: wake.clone(),
            drain: drain.clone(),
            keys: service.key_cache(),
        };
        let compute = config.role.works().then(|| {
            let one = |(index, device): (usize, &Device)| {
                // The plan is for the memory of the host.
                let settings = if device.own_bytes().is_some() { &as_set } else { &config.engine };
                let settings = engine_settings(settings, device, opened.len());
                let (engine, thread) = engine::engine(device.clone(), settings, metrics.clone());
                let (devices, catalogue) = (devices.clone(), catalogue.clone());
                (engine, thread.when_lost(move |_| device_lost(&devices, &catalogue, index)))
            };
            let (engines, engine_threads) = opened.iter().enumerate().map(one).unzip();
            // If no other process shares the store, leases last as long as this process.
            let leases = Leases::new(store.is_shared().then(|| config.worker.self_fence_s.into()));
            let slots = Slots::new(config.engine.max_runs.get());
            let drawing = Drawing {
                blobs: blobs.clone(),
                provenance: provenance.clone(),
                marking: Marking::of(&config.provenance),
                catalogue: catalogue.clone(),
                engines,
                devices: devices.clone(),
                metrics: metrics.clone(),
                tracer: tracer.clone(),
                slots: slots.clone(),
                memory,
                safety,
                leases: leases.clone(),
                wake: wake.clone(),
            };
            let worker = Worker {
                claimant: Claimant {
                    worker: worker_name(),
                    lease: config.worker.lease_s.into(),
                    models: catalogue.names(),
                    alone_from: Reaping::alone_from(config.queue.max_crashes),
                },
                leases,
                heartbeat: config.worker.heartbeat_s.into(),
                run_timeout: config.worker.run_timeout_s.into(),
                store,
                blobs,
                live,
                catalogue: catalogue.clone(),
                executors: vec![Box::new(drawing)],
                metrics: metrics.clone(),
                tracer: tracer.clone(),
                throughput,
                wake,
                outbox,
                runs: TaskTracker::new(),
                slots,
                max_attempts: config.queue.max_attempts,
                max_crashes: config.queue.max_crashes,
                drain,
                alone: AtomicBool::new(false),
            };
            Computation {
                preload: Preload { catalogue: catalogue.clone(), metrics: metrics.clone() },
                worker,
                engine_threads,
                devices,
                catalogue: catalogue.clone(),
                watchdog_s: config.engine.watchdog_s,
            }
        });
        let state = AppState::new(
            service,
            metrics,
            tracer,
            config.http.clone(),
            config.limits.clone(),
            draining.clone(),
            tasks.clone(),
        );
        let bind = |address: SocketAddr, key: &'static str| async move {
            TcpListener::bind(address).await.with_context(|| format!("{key} = {address} cannot be bound"))
        };
        let public = match config.role.serves() {
            true => Some(bind(config.http.bind, "http.bind").await?),
            false => None,
        };
        let operator = bind(config.operator.bind, "operator.bind").await?;
        announce(&config, operator.local_addr()?)?;
        watermark::remind(&config);
        Ok(App {
            config,
            files,
            public,
            operator,
            state,
            catalogue,
            compute,
            sweeper,
            deliverer,
            bus,
            exporter,
            draining,
            tasks,
        })
    }

    /// The address of the public listener, with the port that the system chose if the settings say 0. `None` if the
    /// process has no public listener.
    pub fn public_address(&self) -> Result<Option<SocketAddr>> {
        Ok(self.public.as_ref().map(TcpListener::local_addr).transpose()?)
    }

    pub fn operator_address(&self) -> Result<SocketAddr> {
        Ok(self.operator.local_addr()?)
    }

    /// Serves until `stop` or until all devices have failed, then ends within `shutdown_timeout_s`: the server takes no
    /// new work; open requests are answered or told to retry; running generations store their logs and return to the
    /// queue; the engines end.
    ///
    /// # Errors
    /// A listener failed, or all devices have failed. A supervisor should then start the process again.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let App {
            config,
            files,
            public,
            operator,
            state,
            catalogue,
            compute,
            sweeper,
            deliverer,
            bus,
            exporter,
            draining,
            tasks,
        } = self;
        let deadline: Duration = config.shutdown_timeout_s.into();
        let worker_stop = CancellationToken::new();
        let devices = compute.as_ref().map(|compute| compute.devices.clone()).unwrap_or_default();
        let (none_left, stop_without) = (devices.clone(), stop.clone());
        let until_none_left = async move {
            none_left.until_none_left().await;
            stop_without.cancel();
        };
        let stopped = draining.clone();
        tasks.spawn(async move { stopped.run_until_cancelled(until_none_left).await });
        let working = compute.map(|compute| compute.spawn(&worker_stop, &draining, &tasks)).transpose()?;
        let interval = config.models.poll_interval_s;
        let reloading = reload::reloading(catalogue, (interval > 0).then(|| Duration::from_secs(interval.into())));
        let stopped = draining.clone();
        tasks.spawn(async move { stopped.run_until_cancelled(reloading).await });
        tasks.spawn(sweeper.run(draining.clone()));
        // Workers send no webhooks, so they need no access to the internet.
        if config.role.serves() {
            tasks.spawn(deliverer.run(draining.clone()));
        }
        // The bus ends after the worker, because it sends the worker's last hints: notifications after which other
        // processes read the store early.
        let bus_stop = CancellationToken::new();
        let carrying = tokio::spawn(bus.run(bus_stop.clone()));
        // The exporter ends last, because it sends the spans of everything else.
        let exporter_stop = CancellationToken::new();
        let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(exporter_stop.clone())));

        let listeners_stop = CancellationToken::new();
        let served = async {
            let http = &config::Http { max_connections: files.public, ..config.http.clone() };
            let operator_http = &config::Http {
                max_connections: files.operator,
                max_connections_per_address: 0,
                ..config.http.clone()
            };
            let drain = &listeners_stop;
            let public = async {
                match public {
                    Some(listener) => {
                        http::serve(listener, http::public_router(state.clone()), http, drain.clone(), deadline).await
                    }
                    None => {
                        drain.cancelled().await;
                        Ok(())
                    }
                }
            };
            let router = http::operator_router(state.clone(), &config.operator);
            let operator = http::serve(operator, router, operator_http, drain.clone(), deadline);
            let served = tokio::try_join!(public, operator);
            // A failed listener stops the server, as a signal does.
            stop.cancel();
            served
        };
        let drain = async {
            stop.cancelled().await;
            tracing::info!("stopping: no new work is taken");
            draining.cancel();
            listeners_stop.cancel();
            worker_stop.cancel();
            Instant::now() + deadline
        };
        let (served, deadline) = tokio::join!(served, drain);
        if let Some(working) = working {
            working.end(deadline).await;
        }
        bus_stop.cancel();
        // A timeout here loses only hints, and without them the other processes read the store a little later.
        let _ = tokio::time::timeout_at(deadline, carrying).await;
        tasks.close();
        if tokio::time::timeout_at(deadline, tasks.wait()).await.is_err() {
            tracing::warn!("a part of the server did not end in time");
        }
        exporter_stop.cancel();
        if let Some(exporting) = exporting {
            // A timeout here loses only spans.
            let _ = tokio::time::timeout_at(deadline, exporting).await;
        }
        served.context("a listener failed")?;
        if devices.is_none_left() {
            let names: Vec<String> = devices.loads().into_iter().map(|load| load.name).collect();
            bail!("all devices have failed ({}); another process may open them again", names.join(", "));
        }
        Ok(())
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

/// How this process is named in traces.
fn resource(config: &Config) -> Vec<(&'static str, String)> {
    let role = match config.role {
        config::ProcessRole::All => "all",
        config::ProcessRole::Api => "api",
        config::ProcessRole::Worker => "worker",
    };
    vec![
        ("service.name", "latentd".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", worker_name()),
        ("latentd.role", role.to_owned()),
    ]
}

/// The devices, which offload if `models.offload` says so.
fn offloading(config: &Config, devices: Vec<Device>) -> Vec<Device> {
    let offload = config.models.offload;
    let devices: Vec<Device> = devices.into_iter().map(|device| device.with_offload(offload)).collect();
    if offload && config.role.works() && !devices.iter().any(Device::offloads) {
        tracing::warn!("models.offload changes nothing: the devices compute in the memory of the host");
    }
    devices
}

/// Opens the catalogue of the settings, for these devices. Models that exceed the memory of this process are refused,
/// unless the process only answers requests and other processes compute.
pub fn catalogue(config: &Config, devices: Vec<Device>) -> Result<Catalogue> {
    let memory = if config.role.works() { memory::for_weights() } else { u64::MAX };
    catalogue_in(memory, config, devices)
}

/// As [`catalogue`], also with models that exceed the memory of this process.
pub fn catalogue_of_any_size(config: &Config, devices: Vec<Device>) -> Result<Catalogue> {
    catalogue_in(u64::MAX, config, devices)
}

fn catalogue_in(memory: u64, config: &Config, devices: Vec<Device>) -> Result<Catalogue> {
    let config::Models { dir, default, preload, .. } = &config.models;
    let catalogue = Catalogue::open(dir, default)?.on(devices).in_memory(memory)?.preloading(preload)?;
    let adapters = Adapters::open(&config.loras.dir, &config.embeddings.dir)?
        .keeping(config.loras.max_loaded)
        .within(config.loras.max_bytes);
    let control_nets = ControlNets::open(&config.controlnets.dir)?;
    let (models, largest_model) = catalogue.listed_bytes();
    let control_nets_bytes = control_nets.listed_bytes(&catalogue.first_device());
    let safety_checkers = safety::most_bytes(&config.safety, &catalogue);
    let listed = ListedWeights { models, largest_model, control_nets: control_nets_bytes, safety_checkers };
    let bounds = WeightBounds::of(config, listed);
    let catalogue = catalogue
        .with_adapters(adapters)
        .with_control_nets(control_nets.within(bounds.control_nets))
        .within(bounds.models);
    Ok(catalogue.within_own(config.models.gpu_max_bytes, config.controlnets.max_bytes))
}

/// The settings of the engine of `device`, one of `devices` devices, which share the memory equally. Activations on a
/// device with memory of its own take memory of the host only if the settings bound them, because the engine asks such
/// a device what is free.
pub fn engine_settings(config: &config::Engine, device: &Device, devices: usize) -> engine::Settings {
    let is_unbound = config.max_bytes == 0 && device.own_bytes().is_some();
    let all = if is_unbound { u64::MAX } else { memory::bound(config.max_bytes) };
    engine::Settings {
        max_rows: config.max_rows,
        slice: Duration::from_millis(config.slice_ms),
        max_bytes: all / devices.max(1) as u64,
        max_runs: config.max_runs,
        text_cache_entries: config.text_cache_entries,
        checkpoint_interval: (config.checkpoint_interval_ms > 0)
            .then(|| Duration::from_millis(config.checkpoint_interval_ms)),
    }
}

#[cfg(test)]
mod tests;
