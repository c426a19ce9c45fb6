//! Experiments with devices that fail, in whole processes with scripted devices, on SQLite and on PostgreSQL. Each
//! experiment prints how many runs it had, how many were lost (0), how many neighbors failed (0), and how many batches
//! were split.

#[path = "device_faults/figures.rs"]
mod figures;
#[path = "device_faults/process.rs"]
mod process;
#[path = "device_faults/site.rs"]
mod site;

#[path = "support/credentials.rs"]
mod credentials;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/scripted_device.rs"]
mod scripted_device;

#[path = "device_faults/hanging.rs"]
mod hanging;
#[path = "device_faults/losing.rs"]
mod losing;
#[path = "device_faults/memory.rs"]
mod memory;
#[path = "device_faults/placing.rs"]
mod placing;
