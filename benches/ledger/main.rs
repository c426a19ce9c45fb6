//! Measures how many generations a second one PostgreSQL carries with the connections of 64 workers, directly and
//! through PgBouncer in transaction mode: `cargo bench --profile dev --bench ledger`, about two minutes. The engine is
//! scripted: a claimed generation ends at once. Prints a table and, with `--json FILE`, writes it for
//! `benches/scale/table.py`. `PGBOUNCER` names the program of PgBouncer; its version must be at least 1.21.

#[allow(dead_code, reason = "the suite of stores uses more of it")]
#[path = "../../tests/ledger/place.rs"]
mod place;
#[path = "../../tests/support/postgres.rs"]
mod postgres;

mod group;
mod pgbouncer;
mod rate;

use group::Group;
use pgbouncer::PgBouncer;
use postgres::Cluster;
use serde_json::{Map, Value, json};

/// Connections that the server accepts: those of 64 workers and 4 api processes, and one of each that listens.
const CONNECTIONS: u32 = 800;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let Some(cluster) = Cluster::start_with(CONNECTIONS) else { return };
    let mut columns = Vec::new();
    for (name, is_bounded) in [("direct", false), ("direct, max_running", true)] {
        let url = cluster.create_database().await;
        columns.push((name, Group::open(&url, &url, true, is_bounded).await.measure().await));
        println!("{name}: measured");
    }
    match PgBouncer::start(&cluster) {
        Ok(pooler) => {
            let url = cluster.create_database().await;
            let group = Group::open(&url, &pooler.url(&url), false, true).await;
            columns.push(("PgBouncer, max_running", group.measure().await));
        }
        Err(why) => println!("PgBouncer is not measured: {why}"),
    }
    print(&columns);
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--json") {
        let file = arguments.get(at + 1).expect("--json FILE");
        let columns: Map<String, Value> =
            columns.iter().map(|(name, rows)| ((*name).to_owned(), json!(rows))).collect();
        std::fs::write(file, format!("{:#}\n", Value::from(columns))).expect("the file can be written");
    }
}

/// Prints one line for each operation: calls per second with all callers, and milliseconds of a call that is alone.
fn print(columns: &[(&str, Vec<rate::Row>)]) {
    let Some((_, first)) = columns.first() else { return };
    let heads = columns.iter().map(|(name, _)| format!(" {name} | alone, ms |")).collect::<String>();
    println!("\n| operation | callers |{heads}\n|---|---|{}", "---|---|".repeat(columns.len()));
    for (at, row) in first.iter().enumerate() {
        let cells = columns.iter().map(|(_, rows)| match rows[at].alone_ms {
            Some(alone) => format!(" {:.0}/s | {alone:.1} |", rows[at].per_second),
            None => format!(" {:.0}/s | – |", rows[at].per_second),
        });
        println!("| {} | {} |{}", row.operation, row.callers, cells.collect::<String>());
    }
    for (name, rows) in columns {
        let busy = rows.iter().map(|row| format!("{} {:.2} ({:.2})", row.operation, row.cores, row.client_cores));
        println!("{name}: cores busy (of this program): {}", busy.collect::<Vec<_>>().join(", "));
    }
}
