//! Tests of `latentd doctor` and `latentd bench` on real set-ups: files, a PostgreSQL cluster, and an S3 server.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/s3.rs"]
mod s3;
#[path = "support/server.rs"]
mod server;

#[path = "doctor/bench.rs"]
mod bench;
#[path = "doctor/broken.rs"]
mod broken;
#[path = "doctor/examination.rs"]
mod examination;
#[path = "doctor/healthy.rs"]
mod healthy;
