//! Fault tests on real processes of the README's promise: accepted generations are durable, reach exactly one final
//! state, may run more than once, and appear once. Each experiment ends with the same checks and prints its figures in
//! one line.
//!
//! T1 to T28 are numbers of experiments. Bounds are multiples of the lease, which is short here. Experiments that need
//! PostgreSQL are skipped without it.

#[path = "pictures/case.rs"]
mod case;
#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/random.rs"]
mod random;
#[path = "support/requests.rs"]
mod requests;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/server.rs"]
mod server;
#[path = "support/transformers.rs"]
mod transformers;

#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/figures.rs"]
mod figures;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/memory.rs"]
mod memory;
#[path = "faults/transformers.rs"]
mod of_transformers;
#[path = "faults/oracle.rs"]
mod oracle;
#[path = "faults/site.rs"]
mod site;
#[path = "faults/steps.rs"]
mod steps;
#[path = "faults/stream.rs"]
mod stream;

#[path = "faults/bucket.rs"]
mod bucket;
#[path = "faults/cancels.rs"]
mod cancels;
#[path = "faults/database.rs"]
mod database;
#[path = "faults/deadlines.rs"]
mod deadlines;
#[path = "faults/determinism.rs"]
mod determinism;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/names.rs"]
mod names;
#[path = "faults/partitions.rs"]
mod partitions;
#[path = "faults/pods.rs"]
mod pods;
#[path = "faults/poison.rs"]
mod poison;
#[path = "faults/previous.rs"]
mod previous;
#[path = "faults/readers.rs"]
mod readers;
#[path = "faults/replicas.rs"]
mod replicas;
#[path = "faults/rolling.rs"]
mod rolling;
#[path = "faults/samplers.rs"]
mod samplers;
#[path = "faults/shares.rs"]
mod shares;
#[path = "faults/soak.rs"]
mod soak;
#[path = "faults/soak_single.rs"]
mod soak_single;
