//! The settings that the service uses: which requests are accepted, and how they are kept and answered.

use std::time::Duration;

use crate::config::Config;

/// The settings that the service uses.
#[derive(Clone, Debug)]
pub struct AcceptPolicy {
    /// Maximum number of queued generations.
    pub max_queued: usize,
    /// Speed from which seconds are estimated before anything was measured, in 10⁹ multiplications per second.
    pub assumed_speed: f64,
    /// Longest estimated wait of an accepted generation.
    pub max_wait: Duration,
    /// Default of `start_timeout_s`, in seconds.
    pub start_timeout_s: u32,
    /// Maximum number of generations of a tenant that have a star.
    pub max_starred: usize,
    /// How long an idempotency key identifies its generation.
    pub idempotency: Duration,
    /// Maximum number of attempts before a generation fails.
    pub max_attempts: u32,
    /// Default of `run_timeout_s`, in seconds.
    pub run_timeout_s: u32,
    /// Maximum numbers of queued and of running generations of a tenant, if its key does not set them.
    pub tenant_caps: (u32, u32),
    pub key_required: bool,
    /// Whether a request may ask for files without content credentials.
    pub provenance_opt_out: bool,
    /// Whom the watermarks of this server name.
    pub watermark_owner: String,
    /// Maximum number of cached keys, and how long a key is cached.
    pub key_cache: (usize, Duration),
    /// Longest time for a call to a shared store.
    pub store_timeout: Duration,
    /// Maximum memory of one generation in bytes; `None` if the memory of the workers is unknown.
    pub max_bytes: Option<u64>,
    /// Estimates of the wait ignore workers whose last heartbeat is older than this.
    pub lately: Duration,
    /// Number of generations that each worker runs at the same time.
    pub slots: usize,
}

impl AcceptPolicy {
    pub fn of(config: &Config) -> AcceptPolicy {
        let run_timeout: Duration = config.worker.run_timeout_s.into();
        AcceptPolicy {
            max_queued: config.queue.max_queued.get(),
            assumed_speed: config.queue.assumed_speed.get().into(),
            max_wait: config.queue.max_wait_s.into(),
            start_timeout_s: config.queue.start_timeout_s,
            max_starred: config.retention.max_starred,
            idempotency: config.queue.idempotency_s.into(),
            max_attempts: config.queue.max_attempts,
            run_timeout_s: run_timeout.as_secs_f64().ceil() as u32,
            tenant_caps: (config.tenants.max_queued.get(), config.tenants.max_running.get()),
            key_required: config.auth.required,
            provenance_opt_out: config.provenance.opt_out,
            watermark_owner: config.provenance.watermark_owner.clone(),
            key_cache: (config.auth.cache_entries.get(), config.auth.cache_s.into()),
            store_timeout: config.database.timeout_s.into(),
            max_bytes: (config.engine.max_bytes > 0).then_some(config.engine.max_bytes),
            lately: config.worker.lease_s.into(),
            slots: config.engine.max_runs.get(),
        }
    }
}
