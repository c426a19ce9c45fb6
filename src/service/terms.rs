//! What the operator allows.

use std::time::Duration;

use crate::config::Config;

/// The settings that the desk goes by.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Most generations that may wait.
    pub max_queued: usize,
    /// Longest that a generation may have to wait, as far as can be told when it is asked for.
    pub max_wait: Duration,
    /// How long a generation may wait whose request says nothing.
    pub start_timeout_s: u32,
    /// How long an idempotency key stands for its generation.
    pub idempotency: Duration,
    /// How often a generation is begun before it fails for good.
    pub max_attempts: u32,
    /// How long an attempt may take whose request says nothing.
    pub run_timeout_s: u32,
    /// Most queued and most running generations of a tenant, where its key says nothing.
    pub tenant_caps: (u32, u32),
    pub key_required: bool,
    /// How many keys are remembered, and how long.
    pub key_cache: (usize, Duration),
    /// How long a shared store may take to answer.
    pub store_timeout: Duration,
    /// Bytes of memory that a generation may take, where it is known what the workers have.
    pub max_bytes: Option<u64>,
    /// A worker that has not been heard of for so long does not count.
    pub lately: Duration,
    /// Generations that each worker runs at a time.
    pub slots: usize,
}

impl Terms {
    pub fn of(config: &Config) -> Terms {
        let run_timeout: Duration = config.worker.run_timeout_s.into();
        Terms {
            max_queued: config.queue.max_queued.get(),
            max_wait: config.queue.max_wait_s.into(),
            start_timeout_s: config.queue.start_timeout_s,
            idempotency: config.queue.idempotency_s.into(),
            max_attempts: config.queue.max_attempts,
            run_timeout_s: run_timeout.as_secs_f64().ceil() as u32,
            tenant_caps: (config.tenants.max_queued.get(), config.tenants.max_running.get()),
            key_required: config.auth.required,
            key_cache: (config.auth.cache_entries.get(), config.auth.cache_s.into()),
            store_timeout: config.database.timeout_s.into(),
            max_bytes: (config.engine.max_bytes > 0).then_some(config.engine.max_bytes),
            lately: config.worker.lease_s.into(),
            slots: config.engine.max_runs.get(),
        }
    }
}
