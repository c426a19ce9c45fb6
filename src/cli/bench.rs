//! `latentd bench`: measures this machine without a server: how long loading, steps and decoding take, and how the time
//! of a step grows with the batch. [`report`] describes the JSON that `--json` prints, which capacity arithmetic reads.

mod cost;
mod measure;
mod report;

use anyhow::Result;
use clap::Args;
use latentd::app;

use super::{
    Settings,
    set::{self, Set},
};
use measure::{Bench, Request};
use report::Report;

#[derive(Debug, Args)]
pub(super) struct BenchCommand {
    #[command(flatten)]
    settings: Settings,
    /// Model to measure. Can be given several times. Default: the default model.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Size of the pictures. Can be given several times; each size has its own measurement. Default: the model's size.
    #[arg(long, value_name = "WIDTHxHEIGHT")]
    size: Vec<String>,
    /// Steps of a request. Default: the model's steps. The batch curve is measured with at most 6 steps.
    #[arg(long)]
    steps: Option<u32>,
    /// Seconds for each model and size, 1 to 3600. After this time, the command repeats no measurement and adds no
    /// point to the batch curve. A measurement that has begun is completed.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Any other field of the request, such as --set class_label=3 or --set scheduler=ddim. Can be given several times.
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = set::parsed)]
    set: Vec<Set>,
    /// Print one JSON object, whose keys docs/doctor.md describes.
    #[arg(long)]
    json: bool,
}

impl BenchCommand {
    pub(super) fn run(&self) -> Result<()> {
        let config = self.settings.load(Vec::new())?;
        let devices = app::devices(&config)?;
        let catalogue = app::catalogue(&config, devices.clone())?;
        let names = if self.model.is_empty() { vec![catalogue.default_name().to_owned()] } else { self.model.clone() };
        let sizes = if self.size.is_empty() { vec![None] } else { self.size.iter().map(Some).collect() };
        let bench = Bench::start(&config, &catalogue, devices, self.seconds)?;
        let mut models = Vec::new();
        for model in &names {
            let (loaded, load_s) = bench.load(model)?;
            for size in &sizes {
                let request = Request { model, size: size.map(String::as_str), steps: self.steps, set: &self.set };
                eprintln!("measuring {model}{}", size.map(|size| format!(" at {size}")).unwrap_or_default());
                models.push(bench.measure(&request, &loaded, load_s)?);
            }
        }
        let report = Report {
            version: 1,
            latentd: env!("CARGO_PKG_VERSION"),
            device: bench.device(),
            max_rows: config.engine.max_rows.get(),
            models,
        };
        bench.end()?;
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&report)?),
            false => report.print(),
        }
        Ok(())
    }
}
