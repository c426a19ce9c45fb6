//! Tests of traces and logs on real processes: the spans that a collector receives, and that neither spans nor log
//! lines contain a prompt or a secret.

#[path = "support/server.rs"]
mod harness;
#[path = "support/postgres.rs"]
mod postgres;
#[allow(dead_code, reason = "tests of webhooks use the rest")]
#[path = "webhooks/receiver.rs"]
mod receiver;

#[path = "traces/collector.rs"]
mod collector;

#[path = "traces/one_process.rs"]
mod one_process;
#[path = "traces/secrets.rs"]
mod secrets;
#[path = "traces/two_processes.rs"]
mod two_processes;
#[path = "traces/without_collector.rs"]
mod without_collector;
