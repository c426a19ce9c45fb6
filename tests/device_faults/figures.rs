//! The counts of an experiment, and the conditions that must hold after it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::process::Process;

#[derive(Debug, Default)]
pub struct Figures {
    runs: usize,
    lost: usize,
    neighbors_failed: usize,
    /// Batches split, by the number of the process.
    splits: BTreeMap<usize, f64>,
    notes: Vec<String>,
}

impl Figures {
    /// Waits for the end of all generations and compares their files with the expected ones. Returns the generations.
    pub async fn judge(&mut self, process: &Process, ids: &[String], expected: &[Vec<Vec<u8>>]) -> Vec<Value> {
        let mut all = Vec::new();
        for (id, expected) in ids.iter().zip(expected) {
            self.runs += 1;
            let generation = process.ended(id).await;
            match generation["status"].as_str() {
                Some("succeeded") => {
                    assert!(process.pictures(&generation).await == *expected, "other bytes: {generation}")
                }
                Some("failed") => {
                    println!("{generation}");
                    self.neighbors_failed += 1;
                }
                _ => self.lost += 1,
            }
            all.push(generation);
        }
        // A process counts from its start, and an experiment may have several processes.
        self.splits.insert(process.number, process.metric("latentd_out_of_memory_splits_total", "").await);
        all
    }

    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Prints the figures. Nothing may be lost, and no neighbor may have failed.
    pub fn verdict(&self, name: &str) {
        let Figures { runs, lost, neighbors_failed, splits, notes } = self;
        let splits: f64 = splits.values().sum();
        let notes: String = notes.iter().map(|note| format!(", {note}")).collect();
        println!(
            "{name}: {runs} runs, {lost} lost, {neighbors_failed} neighbors failed, {splits} batches split{notes}"
        );
        assert_eq!((*lost, *neighbors_failed), (0, 0), "{name}");
    }
}
