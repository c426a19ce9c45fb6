//! The promise of the README under faults, on real processes: what is accepted is durable, reaches exactly one final state, may run
//! more than once and appears once. Each experiment ends with the same oracle and prints its figures in one line.
//!
//! Bounds are multiples of the lease, which is short here. What needs PostgreSQL is passed over where there is none.

#[path = "pictures/case.rs"]
mod case;
#[path = "support/dice.rs"]
mod dice;
#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/requests.rs"]
mod requests;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/server.rs"]
mod server;

#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/figures.rs"]
mod figures;
#[path = "faults/load.rs"]
mod load;
#[path = "faults/memory.rs"]
mod memory;
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
#[path = "faults/poison.rs"]
mod poison;
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
