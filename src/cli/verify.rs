//! `latentd verify`: checks the content credentials of a file, and the watermark of a picture, without a server and
//! without a network.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use latentd::{
    app,
    provenance::{Report, Verdict},
    watermark::{self, Found},
};
use serde::Serialize;

use super::{Settings, generate::read};

#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    settings: Settings,
    /// File to check: a PNG, JPEG, WebP, GIF, WAV, FLAC or MP4 file of at most 256 MiB. "-" is standard input.
    file: PathBuf,
    /// Print the answer of POST /v1/verify as JSON.
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Checks the file and prints what its credentials and its watermark say.
    ///
    /// # Errors
    /// The file cannot be read, has another format, has no credentials, or was changed after it was signed.
    pub(super) fn run(&self) -> Result<()> {
        let config = self.settings.load(Vec::new())?;
        let provenance = app::provenance_beside(&config, false)?;
        let shown = self.file.display();
        let file = read(&self.file).with_context(|| format!("cannot read {shown}"))?;
        let report = provenance.verify(&file).with_context(|| format!("{shown} cannot be verified"))?;
        let owner = &config.provenance.watermark_owner;
        let watermark = report.is_picture().then(|| watermark::find(&file, owner)).flatten();
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&Shown { report: &report, watermark: &watermark })?),
            false => print(&report, watermark.as_ref()),
        }
        match report.verdict {
            Verdict::Intact => Ok(()),
            _ if !cfg!(feature = "provenance") => bail!("{}", report.explanation),
            Verdict::None => bail!("{shown} has no content credentials"),
            Verdict::NotBuilt => bail!("this build of latentd cannot read content credentials"),
            Verdict::Unreadable | Verdict::Altered => bail!("the content credentials of {shown} are not valid"),
        }
    }
}

/// The answer of `POST /v1/verify`.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    report: &'a Report,
    watermark: &'a Option<Found>,
}

fn print(report: &Report, watermark: Option<&Found>) {
    println!("{}: {}", report.verdict.as_str(), report.explanation);
    if let Some(signer) = &report.signer {
        let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        println!(
            "signer: {}, issued by {} ({})",
            part(&signer.common_name),
            part(&signer.issuer),
            part(&signer.algorithm)
        );
    }
    report.claim_generator.iter().for_each(|program| println!("written by: {program}"));
    for action in &report.actions {
        let source = action.digital_source_type.as_deref().and_then(|url| url.rsplit('/').next()).unwrap_or_default();
        println!("action: {} {source}", action.action);
    }
    for ingredient in &report.ingredients {
        let title = ingredient.title.as_deref().unwrap_or("untitled");
        println!("ingredient: {title} ({}), credentials: {}", ingredient.relationship, ingredient.verdict.as_str());
    }
    match report.is_picture() {
        true => print_watermark(watermark),
        false => println!("watermark: not looked for"),
    }
    report.generation.iter().for_each(|generation| println!("generation: {generation}"));
    for problem in &report.problems {
        println!("problem: {} {}", problem.code, problem.explanation.as_deref().unwrap_or_default());
    }
}

fn print_watermark(watermark: Option<&Found>) {
    match watermark {
        Some(Found { payload, by_this_server: true, .. }) => println!("watermark: {payload}, of this server"),
        Some(Found { payload, .. }) => println!("watermark: {payload}, of another owner"),
        None => println!("watermark: none"),
    }
}
