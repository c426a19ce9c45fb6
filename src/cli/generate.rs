//! `latentd generate`: draws pictures and makes sounds and films without a server, with the rules, the engine and the
//! pipelines of a server.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use latentd::{
    app,
    diffusion::{SamplerLabel, names},
    generation::{Fields, Format, ImageField, ImageSource, InputImage, Job, Phase, Rules, WorkKind, resolve_work},
    hex::hex,
    imaging::decode,
    metrics::Metrics,
    pipelines::{Frame, Inputs},
    provenance::{Input, WeightDigests},
    service::CatalogueRules,
    worker::{Marking, Signing, encode, sign},
};
use sha2::{Digest, Sha256};

use super::{
    Settings,
    flags::Flags,
    local_engine::LocalEngine,
    output::Output,
    set::{self, Set},
};

#[derive(Debug, Args)]
pub(super) struct Generate {
    #[command(flatten)]
    settings: Settings,
    /// What the picture or the film shows, or what the sound is; at most limits.max_prompt_chars characters, by default
    /// 10000. Leave the prompt out for models that take no prompt.
    prompt: Option<String>,
    /// File to write. The extension of its name decides the format: .png, .jpg, .jpeg or .webp (lossless) for a
    /// picture; .wav, .flac, .opus or .ogg (Opus) for a sound; .mp4, .gif, .webp, .apng, .png (an APNG, too) or .zip (a
    /// PNG file for each frame) for a film. If the name has no extension, --format decides. If -n is above 1, file i,
    /// counted from 0, is NAME-i.png. "-" is standard output, for one file only.
    #[arg(short, long, value_name = "FILE", value_parser = result_file)]
    output: PathBuf,
    /// Picture that the picture or the film starts from: a PNG, JPEG or WebP file of at most 256 MiB. "-" is standard
    /// input.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Mask for the image: a PNG, JPEG or WebP file of at most 256 MiB. White is redrawn, black stays. "-" is standard
    /// input.
    #[arg(long, value_name = "FILE", requires = "image")]
    mask: Option<PathBuf>,
    /// Format of the file if its name has no extension, as with "-": png, jpeg, webp, wav, flac, opus, mp4, zip, apng
    /// or gif [default: png for a picture, wav for a sound, mp4 for a film].
    #[arg(long, value_parser = format_named)]
    format: Option<Format>,
    /// Quality of a JPEG, 1 to 100 [default: 90].
    #[arg(long)]
    quality: Option<u32>,
    /// Number of pictures, sounds or films, 1 to limits.max_images (by default 10).
    #[arg(short, default_value_t = 1)]
    n: u32,
    #[command(flatten)]
    flags: Flags,
    /// Any field of a request, as in a form of POST /v1/images, POST /v1/audio or POST /v1/videos: --set steps=4, --set
    /// 'scheduler={"_class_name": "DDIMScheduler"}', --set output.metadata=none. Pictures of controls are files: --set
    /// 'controls=[{"model": "emoji-canny", "image": {"file": "photo.png"}, "preprocess": "canny"}]'. Can be given
    /// several times.
    #[arg(long = "set", value_name = "FIELD=VALUE", value_parser = set::parsed)]
    set: Vec<Set>,
}

impl Generate {
    pub(super) fn run(&self) -> Result<()> {
        self.check_format()?;
        let config = self.settings.load(Vec::new())?;
        let devices = app::devices(&config)?;
        let catalogue = app::catalogue(&config, devices.clone())?;
        let rules = CatalogueRules { catalogue: &catalogue, limits: &config.limits };
        let provenance = app::provenance_beside(&config, true)?;
        let metrics = Metrics::new();
        let mut signing = Signing {
            provenance,
            metrics: metrics.clone(),
            weights: WeightDigests::default(),
            id: None,
            inputs: Vec::new(),
        };
        let makes = self.model().or(Some(rules.default_model())).and_then(|model| rules.card(model));
        let format = self.format(makes.map_or(WorkKind::Draw, |card| card.work_kind()));
        let mut fields = self.fields(format)?;
        let mut inputs = Inputs::default();
        for (place, source) in fields.pictures() {
            match source {
                ImageSource::File(file, _) => take(&mut fields, &mut inputs, &mut signing, place, &file)?,
                ImageSource::Upload(_) => bail!("{}: there are no uploads here; name a file", place.name()),
            }
        }
        if self.image.as_ref().is_some_and(|path| path.as_os_str() == "-") && self.image == self.mask {
            bail!("--image and --mask cannot both be standard input");
        }
        take_in(&mut fields, &mut inputs, &mut signing, ImageField::Image, self.image.as_deref())?;
        take_in(&mut fields, &mut inputs, &mut signing, ImageField::Mask, self.mask.as_deref())?;
        let job = resolve_work(format.kind, fields, &rules).map_err(|invalid| {
            let details: Vec<String> = invalid.errors.iter().map(|error| without_http(&error.detail)).collect();
            anyhow!("{}", details.join("; "))
        })?;

        for warning in catalogue.warnings(&job) {
            eprintln!("warning: {}", without_http(&warning.detail));
        }
        // Check the files before computing anything.
        let outputs = self.outputs(job.work.n(), format.format)?;
        outputs.iter().try_for_each(Output::check)?;

        let model = catalogue.load(&job.model)?;
        let refiner = job.work.draw().and_then(|draw| draw.refiner.as_ref());
        let refiner = refiner.map(|refiner| catalogue.load(&refiner.model)).transpose()?;
        let prepared = catalogue.prepare(job.clone(), inputs, model, refiner)?;
        let label = prepared.scheduler.label();
        let (count, device) = (devices.len(), devices.into_iter().next().unwrap_or_default());
        let engine = LocalEngine::start(&config, device, count, metrics)?;
        let bar = progress_bar(job.work.steps());
        let shown = bar.clone();
        let drawn = engine.draw(prepared, move |phase, step| show(&shown, phase, step));
        bar.finish_and_clear();
        let frames = drawn?;
        engine.end()?;
        if signing.provenance.signs() {
            signing.weights = catalogue.digests(&job);
        }
        write(&job, &label, (&Marking::of(&config.provenance), &signing), frames, &outputs)
    }

    /// The output of each file.
    fn outputs(&self, n: u32, format: Format) -> Result<Vec<Output>> {
        match (Output::of(&self.output), n) {
            (output, 1) => Ok(vec![output]),
            (Output::Stdout, n) => bail!("standard output takes one file, not {n}; name a file, or leave out -n"),
            (output, _) if self.output.is_dir() => bail!("cannot write {output}: it is a folder; name a file in it"),
            (_, n) => Ok((0..n).map(|index| Output::of(&numbered(&self.output, index, format))).collect()),
        }
    }

    /// The model that the command names.
    fn model(&self) -> Option<&str> {
        let set = || self.set.iter().rev().find_map(|set| set.value_of("model"));
        self.flags.value_of("model").or_else(set)
    }

    /// The format of the files, and the kind of work that the request asks for: `makes`, the model's kind of work, if
    /// this kind can have the format, otherwise a kind that can have it. The PNG file of a film is an APNG.
    fn format(&self, makes: WorkKind) -> Target {
        let format = match (self.format.or_else(|| format_of(&self.output)), makes) {
            (None, makes) => makes.formats()[0],
            (Some(Format::Png), WorkKind::Film) => Format::Apng,
            (Some(format), _) => format,
        };
        let kind = if makes.formats().contains(&format) { makes } else { format.work_kind() };
        Target { format, kind }
    }

    /// Checks that the output file's name and `--format` do not contradict each other.
    ///
    /// # Errors
    /// The file's extension names another format than `--format`.
    fn check_format(&self) -> Result<()> {
        match (format_of(&self.output), self.format) {
            (Some(of_file), Some(named)) if of_file.extension() != named.extension() => {
                bail!(
                    "--format is {}, and {} is a name of a {} file",
                    named.name(),
                    self.output.display(),
                    of_file.name()
                )
            }
            _ => Ok(()),
        }
    }

    fn fields(&self, Target { format, .. }: Target) -> Result<Fields> {
        let own = [
            ("prompt", self.prompt.clone()),
            ("n", Some(self.n.to_string())),
            ("output.format", Some(format.name().to_owned())),
            ("output.quality", self.quality.map(|quality| quality.to_string())),
        ];
        let own = own.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?)));
        set::fields(own.chain(self.flags.pairs()), &self.set)
    }
}

/// The format of the files with the kind of work that makes it.
#[derive(Clone, Copy)]
struct Target {
    format: Format,
    kind: WorkKind,
}

fn write(
    job: &Job,
    label: &SamplerLabel,
    (marking, signing): (&Marking, &Signing),
    frames: Vec<Frame>,
    outputs: &[Output],
) -> Result<()> {
    for ((index, frame), output) in (0..).zip(frames).zip(outputs) {
        let encoded = sign(encode(frame, job, label, index, marking)?, job, signing)?;
        output.write(&encoded.file)?;
        let line = format!("{output} (seed {})", job.work.seed_of(index));
        match output {
            Output::File(_) => println!("{line}"),
            // Standard output contains only the file.
            Output::Stdout => eprintln!("{line}"),
        }
    }
    Ok(())
}

/// Replaces hints about HTTP requests in an error message.
fn without_http(detail: &str) -> String {
    let schedulers = || names().map(|scheduler| scheduler.name).collect::<Vec<_>>().join(", ");
    if let Some((before, root)) = detail.split_once("; send the request to ") {
        let names = match root {
            "/v1/videos" => ".mp4, .gif, .webp, .png, .apng or .zip",
            "/v1/audio" => ".wav, .flac or .opus",
            _ => ".png, .jpg, .jpeg or .webp",
        };
        return format!("{before}; give the file of --output a name that ends in {names}");
    }
    match detail.split_once("GET /v1/") {
        Some((before, rest)) if rest.starts_with("models") => format!("{before}`latentd models` lists the models"),
        Some((before, rest)) if rest.starts_with("schedulers") => format!("{before}the names are {}", schedulers()),
        Some((before, rest)) if rest.starts_with("embeddings") => before.trim_end_matches("; ").to_owned(),
        _ => detail.to_owned(),
    }
}

/// Parses the file of `--output`. If the file has an extension, the extension must name a format.
fn result_file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.ends_with('/') {
        return Err("it must name a file, or be - for standard output".to_owned());
    }
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if format_of(&path).is_none() => {
            let names = ".png, .jpg, .jpeg, .webp, .wav, .flac, .opus, .ogg, .mp4, .gif, .apng or .zip";
            Err(format!("the extension must be {names}, not .{}", extension.display()))
        }
        _ => Ok(path),
    }
}

/// Parses the format of `--format`.
fn format_named(text: &str) -> Result<Format, String> {
    Format::of_extension(text)
        .ok_or_else(|| "it must be png, jpeg, webp, wav, flac, opus, mp4, zip, apng or gif".to_owned())
}

/// The format that the file's extension names.
fn format_of(path: &Path) -> Option<Format> {
    path.extension().and_then(|extension| Format::of_extension(extension.to_str()?))
}

/// If `path` is given, reads the picture and puts it into its field and into the inputs.
fn take_in(
    fields: &mut Fields,
    inputs: &mut Inputs,
    signing: &mut Signing,
    place: ImageField,
    path: Option<&Path>,
) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let file = read(path).with_context(|| format!("cannot read {}", path.display()))?;
    take(fields, inputs, signing, place, &file).with_context(|| path.display().to_string())
}

/// Puts a picture into its field, into the inputs, and into the content credentials of the results.
fn take(fields: &mut Fields, inputs: &mut Inputs, signing: &mut Signing, place: ImageField, file: &[u8]) -> Result<()> {
    // Transparent parts of a picture become white. Transparent parts of a mask become black, so that the picture is
    // kept there.
    let ground = if place == ImageField::Mask { 0 } else { 255 };
    let picture = decode(file, ground)?;
    // Nothing is stored here, so the digest only identifies the file.
    let upload = hex(Sha256::digest(file));
    let (title, credentials) = (place.path().join("."), signing.provenance.keep(file));
    signing.inputs.push(Input { title, sha256: upload.clone(), credentials });
    fields.place(place, &InputImage { upload, width: picture.width, height: picture.height });
    inputs.put(place, picture);
    Ok(())
}

/// Maximum number of bytes that are read of a picture, because some files, such as `/dev/zero`, have no end.
const MOST_BYTES: u64 = 256 << 20;

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path)?),
    };
    let mut file = Vec::new();
    match source.take(MOST_BYTES + 1).read_to_end(&mut file)? as u64 > MOST_BYTES {
        true => Err(io::Error::other(format!("it has more than {MOST_BYTES} bytes"))),
        false => Ok(file),
    }
}

/// Adds the index of a file to a file name: `fox.png` becomes `fox-1.png`.
fn numbered(path: &Path, index: u32, format: Format) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(|| format.extension().into(), |extension| extension.to_string_lossy());
    path.with_file_name(format!("{stem}-{index}.{extension}"))
}

fn progress_bar(steps: u32) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:10} {bar:32} {pos}/{len} steps, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::from(steps)).with_style(style)
}

/// Shows the progress of the run on a terminal.
fn show(bar: &ProgressBar, phase: Phase, step: u32) {
    bar.set_message(match phase {
        Phase::Loading => "loading",
        Phase::Encoding => "encoding",
        Phase::Denoising => "denoising",
        Phase::Decoding => "decoding",
        Phase::Saving => "saving",
    });
    bar.set_position(u64::from(step));
}
