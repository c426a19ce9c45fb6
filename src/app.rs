//! The key: from settings to a running server, and to its ordered end. The only place that spawns.

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::{Context, Result};
use tokio::{net::TcpListener, sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{self, Config},
    engine::{self, EngineThread},
    http::{self, AppState},
    kernels::winograd,
    ledger::{Blobs, Claimant, Reaping, SqliteStore, Store},
    metrics::Metrics,
    pipelines::{Adapters, Catalogue, ControlNets},
    service::{Live, Parts, Service, Throughput},
    worker::{Preload, Slots, Sweeper, Worker},
};

/// Everything a server is made of, bound to its addresses but not yet serving.
pub struct App {
    config: Config,
    public: TcpListener,
    operator: TcpListener,
    state: AppState,
    preload: Preload,
    worker: Worker,
    sweeper: Sweeper,
    engine_thread: EngineThread,
    draining: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    /// Opens the data folder, finds the models, queues again what a crash has left running, and binds both listeners.
    ///
    /// # Errors
    /// The data folder is in use or cannot be written, the default model is unusable, or an address is taken.
    pub async fn build(config: Config) -> Result<App> {
        let metrics = Metrics::new();
        let catalogue = Arc::new(catalogue(&config)?.counted_in(metrics.clone()));
        let store = SqliteStore::open(&config.data_dir, config.retention.finished_s.into()).await;
        let store: Arc<dyn Store> = Arc::new(store.with_context(|| format!("data_dir {}", config.data_dir.display()))?);
        let blobs = Blobs::local(&config.data_dir.join("blobs"))?;
        let reaping = Reaping { all: true, max_crashes: config.queue.max_attempts, backoff: Duration::ZERO };
        let reaped = store.reap(&reaping).await?;
        if !reaped.queued.is_empty() {
            let requeued = reaped.queued.len();
            tracing::info!(requeued, "generations that a stopped process had begun are queued again");
        }

        let (engine, engine_thread) = engine::engine(engine_settings(&config.engine), metrics.clone());
        let (live, throughput) = (Live::default(), Throughput::default());
        let (wake, draining) = (Arc::new(Notify::new()), CancellationToken::new());
        let tasks = TaskTracker::new();
        let service = Service::new(Parts {
            store: store.clone(),
            blobs: blobs.clone(),
            live: live.clone(),
            catalogue: catalogue.clone(),
            limits: config.limits.clone(),
            max_queued: config.queue.max_queued.get(),
            metrics: metrics.clone(),
            throughput: throughput.clone(),
            wake: wake.clone(),
            draining: draining.clone(),
            tasks: tasks.clone(),
        });
        let worker = Worker {
            store: store.clone(),
            blobs: blobs.clone(),
            live: live.clone(),
            catalogue: catalogue.clone(),
            engine,
            metrics: metrics.clone(),
            throughput,
            wake,
            runs: TaskTracker::new(),
            slots: Slots::new(config.engine.max_runs.get()),
            max_attempts: config.queue.max_attempts,
            claimant: Claimant {
                worker: uuid::Uuid::now_v7().to_string(),
                lease: Duration::from_secs(30),
                models: catalogue.names().map(str::to_owned).collect(),
            },
        };
        let preload = Preload { catalogue, metrics: metrics.clone() };
        let sweeper = Sweeper {
            store,
            blobs,
            live,
            metrics: metrics.clone(),
            interval: config.retention.sweep_interval_s.into(),
        };
        let state = AppState::new(
            service,
            metrics,
            config.http.clone(),
            config.limits.clone(),
            draining.clone(),
            tasks.clone(),
        );
        let bind = |address: SocketAddr, key: &'static str| async move {
            TcpListener::bind(address).await.with_context(|| format!("{key} = {address} cannot be bound"))
        };
        let public = bind(config.http.bind, "http.bind").await?;
        let operator = bind(config.operator.bind, "operator.bind").await?;
        Ok(App { config, public, operator, state, preload, worker, sweeper, engine_thread, draining, tasks })
    }

    /// Where the public listener listens: with port 0 in the settings, the port that the system chose.
    pub fn public_address(&self) -> Result<SocketAddr> {
        Ok(self.public.local_addr()?)
    }

    pub fn operator_address(&self) -> Result<SocketAddr> {
        Ok(self.operator.local_addr()?)
    }

    /// Serves until `stop`, then ends in order within `shutdown_timeout_s`: no new work is taken; open requests are answered
    /// or told to come back, while running generations leave what they have computed and go back to the queue; the engine
    /// ends.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let App { config, public, operator, state, preload, worker, sweeper, engine_thread, draining, tasks } = self;
        let deadline: Duration = config.shutdown_timeout_s.into();
        let engine: JoinHandle<()> =
            std::thread::Builder::new().name("engine".to_owned()).spawn(move || engine_thread.run())?;
        let worker_stop = CancellationToken::new();
        let working = tokio::spawn(worker.run(worker_stop.clone()));
        tasks.spawn(sweeper.run(draining.clone()));
        let undisturbed = draining.clone();
        tasks.spawn(async move { undisturbed.run_until_cancelled(preload.run()).await });

        let listeners_stop = CancellationToken::new();
        let served = async {
            let (http, drain) = (&config.http, &listeners_stop);
            let public = http::serve(public, http::public_router(state.clone()), http, drain.clone(), deadline);
            let operator = http::serve(operator, http::operator_router(state.clone()), http, drain.clone(), deadline);
            let served = tokio::try_join!(public, operator);
            // A listener that failed stops the rest as a signal does.
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
        // The worker holds the last handle of the engine, whose thread therefore ends after it.
        if tokio::time::timeout_at(deadline, working).await.is_err() {
            tracing::warn!("generations that could not be given back in time are queued again at the next start");
        }
        tasks.close();
        if tokio::time::timeout_at(deadline, tasks.wait()).await.is_err() {
            tracing::warn!("a task did not end in time");
        }
        if engine.is_finished() && engine.join().is_err() {
            tracing::error!("the engine's thread panicked");
        }
        served.context("a listener failed")?;
        Ok(())
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The models that the settings name.
pub fn catalogue(config: &Config) -> Result<Catalogue> {
    let models = &config.models;
    let catalogue =
        Catalogue::open(&models.dir, &models.default)?.within(models.max_bytes).preloading(&models.preload)?;
    let adapters = Adapters::open(&config.loras.dir, &config.embeddings.dir)?.keeping(config.loras.max_loaded);
    let control_nets = ControlNets::open(&config.controlnets.dir).map_err(|(path, source)| {
        anyhow::anyhow!("the folder {} of controlnets.dir cannot be read: {source}", path.display())
    })?;
    let catalogue = catalogue.with_adapters(adapters).with_control_nets(control_nets);
    Ok(catalogue.for_winograd(match config.kernels.winograd {
        config::Winograd::Auto => winograd::Use::Auto,
        config::Winograd::Off => winograd::Use::Off,
        config::Winograd::Force => winograd::Use::Always(winograd::Tiles::Four),
    }))
}

/// The engine's bounds as the settings give them.
pub fn engine_settings(config: &config::Engine) -> engine::Settings {
    engine::Settings {
        threads: config.threads,
        max_rows: config.max_rows,
        max_runs: config.max_runs,
        text_cache_entries: config.text_cache_entries,
        checkpoint_interval: (config.checkpoint_interval_ms > 0)
            .then(|| Duration::from_millis(config.checkpoint_interval_ms)),
    }
}
