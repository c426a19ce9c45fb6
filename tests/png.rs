//! Tests of PNG files: pixels, metadata, and previews.

#[path = "png/jpeg_and_webp.rs"]
mod jpeg_and_webp;

use std::{io::Cursor, sync::Arc};

use latentd::diffusion::SamplerLabel;
use latentd::generation::{
    ControlUse, Decoder, Draw, Encoding, FeatureCache, FeatureCacheKind, Fields, GuidanceInterval, ImageInfluence,
    InputImage, Job, Levels, Limits, LoraUse, Mask, MetadataLevel, ModelCard, OnDisconnect, Output, Precision,
    Preprocess, Priority, PromptSyntax, Refiner, Rules, SchedulerChoice, SeedMode, Source, Task, Warning, Work,
    resolve, weighted,
};
use latentd::imaging::{EncodeError, RgbImage, encode_picture, encode_preview, upscale};
use proptest::prelude::*;
use serde_json::{Map, Value};

#[test]
fn a_picture_is_encoded_losslessly_and_reproducibly() {
    let image = picture(37, 20);
    let generation = generation();
    let file = encode_picture(&image, &generation, &label(), 0).unwrap();
    assert_eq!(decoded(&file).0, image);
    assert_eq!(encode_picture(&image, &generation, &label(), 0).unwrap(), file);
    let texts = first_position(&file, b"iTXt");
    assert!(texts < first_position(&file, b"IDAT"), "the texts come before the pixels, where some readers stop");
}

#[test]
fn full_metadata_has_the_lines_that_image_tools_read() {
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation(), &label(), 0).unwrap());
    let names: Vec<_> = texts.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["parameters", "latentd"]);
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "a red fox\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.5, \
         Seed: 41, Size: 512x256, Model: tiny, RNG: CPU, Version: latentd {version}"
    );
    assert_eq!(texts[0].1, expected);
}

#[test]
fn an_image_with_its_own_seed_contains_a_request_for_itself() {
    let generation = job(Draw { n: 4, ..draw() });
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 3).unwrap());
    assert!(texts[0].1.contains("Seed: 44, "), "{}", texts[0].1);
    assert_eq!(resolved(&texts[1].1), job(Draw { n: 1, seed: 44, ..draw() }));
}

#[test]
fn the_order_of_keys_in_a_request_does_not_change_its_file() {
    let file = |scheduler: &str| {
        let job = resolved(&format!(r#"{{"model": "tiny", "prompt": "a fox", "seed": 7, "scheduler": {scheduler}}}"#));
        encode_picture(&picture(8, 8), &job, &label(), 0).unwrap()
    };
    let scheduler = r#"{"beta_start": 0.001, "_class_name": "EulerDiscreteScheduler", "beta_end": 0.01}"#;
    let other = r#"{"_class_name": "EulerDiscreteScheduler", "beta_end": 0.01, "beta_start": 0.001}"#;
    assert!(file(scheduler) == file(other));
}

#[test]
fn fields_that_do_not_shape_a_picture_do_not_change_its_file() {
    let other = Job {
        previews: 7,
        on_disconnect: OnDisconnect::Keep,
        priority: Priority::Low,
        start_timeout_s: 60,
        run_timeout_s: Some(30),
        metadata: [("album".to_owned(), "animals".to_owned())].into(),
        warnings: vec![Warning::new("size_not_native", "/width", "is large".to_owned())],
        ..generation()
    };
    // One of several images is also drawn alone.
    let several = Job { work: Work::Draw(Draw { n: 4, ..draw() }), ..other.clone() };
    let formats = [Encoding::Png, Encoding::Jpeg { quality: 90 }, Encoding::Webp];
    for encoding in formats {
        let file = |job: &Job| {
            let output = Output { encoding, ..job.output };
            encode_picture(&picture(8, 8), &Job { output, ..job.clone() }, &label(), 0).unwrap()
        };
        assert!(file(&generation()) == file(&other) && file(&other) == file(&several), "{encoding:?}");
        assert!(file(&generation()) != file(&Job { model: "other".to_owned(), ..generation() }));
    }
}

#[test]
fn images_of_one_generator_contain_the_request_for_all_of_them() {
    let generation = job(Draw { n: 4, seed_mode: SeedMode::Batch, ..draw() });
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 3).unwrap());
    assert!(texts[0].1.contains("Seed: 41, ") && texts[0].1.contains("Batch size: 4, Batch pos: 3"), "{}", texts[0].1);
    assert_eq!(resolved(&texts[1].1), generation);
}

#[test]
fn the_seed_after_the_largest_is_valid_in_a_request() {
    let generation = job(Draw { n: 2, seed: i64::MAX as u64, ..draw() });
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 1).unwrap());
    let (Work::Draw(resolved), Work::Draw(draw)) = (resolved(&texts[1].1).work, generation.work) else {
        panic!("both draw");
    };
    assert_eq!(resolved.seed as u32, draw.seed_of(1) as u32);
}

#[test]
fn lower_metadata_levels_contain_less() {
    let seed = Job { output: output_with(MetadataLevel::Seed), ..job(Draw { n: 2, ..draw() }) };
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &seed, &label(), 1).unwrap());
    assert_eq!(texts, [("seed".to_owned(), "42".to_owned())]);
    let none = Job { output: output_with(MetadataLevel::None), ..generation() };
    let file = encode_picture(&picture(8, 8), &none, &label(), 1).unwrap();
    assert_eq!(decoded(&file).1, []);
    assert!(!file.windows(7).any(|bytes| bytes == b"red fox"));
}

#[test]
fn settings_with_commas_are_quoted() {
    let config: Map<String, Value> = serde_json::from_str(r#"{"_class_name": "DDIMScheduler"}"#).unwrap();
    let drawn = Draw { scheduler: SchedulerChoice::Object(config), eta: 0.5, clip_skip: 1, ..draw() };
    let generation = Job { model: "a, b: c".to_owned(), ..job(drawn) };
    let ddim = SamplerLabel { sampler: "DDIM".to_owned(), schedule_type: None, eta: Some("Eta DDIM") };
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &ddim, 0).unwrap());
    for part in ["Sampler: DDIM, ", "Model: \"a, b: c\", ", ", Eta DDIM: 0.5, ", "Clip skip: 2, "] {
        assert!(texts[0].1.contains(part), "{part} in {}", texts[0].1);
    }
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 0).unwrap());
    assert!(!texts[0].1.contains("Eta"), "the sampler has no eta: {}", texts[0].1);
}

#[test]
fn brackets_of_a_plain_prompt_are_escaped() {
    let plain =
        Draw { prompt: "a (red) [big] fox \\".to_owned(), negative_prompt: Some("(blur:1.3)".to_owned()), ..draw() };
    let weighted = Draw { prompt_syntax: PromptSyntax::Weighted, ..plain.clone() };
    let lines =
        |draw: &Draw| decoded(&encode_picture(&picture(8, 8), &job(draw.clone()), &label(), 0).unwrap()).1.remove(0).1;
    let escaped = "a \\(red\\) \\[big\\] fox \\\\\nNegative prompt: \\(blur:1.3\\)\nSteps: ";
    assert!(lines(&plain).starts_with(escaped), "{}", lines(&plain));
    let same = "a (red) [big] fox \\\nNegative prompt: (blur:1.3)\nSteps: ";
    assert!(lines(&weighted).starts_with(same), "{}", lines(&weighted));
}

#[test]
fn mask_refiner_and_control_nets_are_in_the_parameters() {
    let image = InputImage { upload: "0".repeat(64), width: 8, height: 8 };
    let mask =
        Mask { mask: image.clone(), mask_blur: 4, mask_invert: true, padding_mask_crop: Some(16), keep_unmasked: true };
    let control = ControlUse {
        model: "edges".to_owned(),
        image: image.clone(),
        scale: 0.7,
        start: 0.0,
        end: 0.6,
        guess_mode: true,
        preprocess: Preprocess::Canny,
    };
    let generation = job(Draw {
        refiner: Some(Refiner {
            model: "fine".to_owned(),
            switch_at: 0.6,
            negative_prompt: None,
            aesthetic_score: 6.0,
            negative_aesthetic_score: 2.5,
        }),
        source: Some(Source {
            image,
            further_images: Vec::new(),
            hold: ImageInfluence::Strength { strength: 0.5 },
            mask: Some(mask),
        }),
        controls: vec![control],
        ..draw()
    });
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 0).unwrap());
    let expected = "Denoising strength: 0.5, Mask blur: 4, Mask mode: Inpaint not masked, Inpaint area: Only masked, \
                    Masked area padding: 16, Refiner: fine, Refiner switch at: 0.6, ControlNet 0: \"Module: canny, \
                    Model: edges, Weight: 0.7, Guidance Start: 0, Guidance End: 0.6, Control Mode: ControlNet is more \
                    important\", RNG: CPU";
    assert!(texts[0].1.contains(expected), "{}", texts[0].1);
}

#[test]
fn loras_are_tags_in_the_prompt() {
    let lora = |name: &str, scale| LoraUse { name: name.to_owned(), scale };
    let generation = job(Draw { loras: vec![lora("pixel art", 0.7), lora("b", 1.0)], ..draw() });
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 0).unwrap());
    assert!(texts[0].1.starts_with("a red fox <lora:pixel art:0.7> <lora:b:1>\n"), "{}", texts[0].1);
    assert_eq!(resolved(&texts[1].1), generation);
}

#[test]
fn approximations_are_in_the_metadata() {
    let generation = job(Draw {
        guidance_interval: [0.2, 0.8].into(),
        decoder: Decoder::Tiny,
        feature_cache: Some(FeatureCache { kind: FeatureCacheKind::DeepCache, interval: 3 }),
        ..draw()
    });
    assert_eq!(generation.approximations(), ["guidance_interval", "feature_cache", "tiny_decoder"]);
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 0).unwrap());
    assert!(texts[0].1.contains("Approximations: guidance_interval feature_cache tiny_decoder, "), "{}", texts[0].1);
    assert_eq!(resolved(&texts[1].1), generation);
    let fast = Job { precision: Precision::Fast, ..generation.clone() };
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &fast, &label(), 0).unwrap());
    assert!(texts[0].1.contains("feature_cache tiny_decoder fast_precision, "), "{}", texts[0].1);
    assert_eq!(resolved(&texts[1].1), fast);
    let Work::Draw(draw) = generation.work else { panic!("a drawing") };
    let unguided = Draw { guidance_scale: 1.0, ..draw };
    assert_eq!(unguided.approximations(), ["feature_cache", "tiny_decoder"], "there is no guidance to omit");
    let guided = Draw { always_guided: true, ..unguided };
    assert_eq!(guided.approximations(), ["guidance_interval", "feature_cache", "tiny_decoder"], "at every scale");
}

#[test]
fn a_list_of_levels_is_in_the_metadata() {
    for (levels, steps) in [(Levels::Timesteps(vec![999, 500, 20]), 3), (Levels::Sigmas(vec![14.6, 0.1]), 2)] {
        let generation = job(Draw { levels: Some(levels), steps, ..draw() });
        let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 0).unwrap());
        assert_eq!(resolved(&texts[1].1), generation);
    }
}

#[test]
fn pixels_that_do_not_fit_the_size_are_an_error() {
    for (width, height, bytes) in [(8, 8, 191), (8, 8, 193), (u32::MAX, u32::MAX, 0)] {
        let image = RgbImage { width, height, pixels: vec![0; bytes] };
        assert!(matches!(encode_picture(&image, &generation(), &label(), 0), Err(EncodeError::Length { .. })));
        assert!(matches!(encode_preview(&upscale(&image, 8)), Err(EncodeError::Length { .. })));
    }
    let empty = RgbImage { width: 0, height: 8, pixels: Vec::new() };
    assert!(matches!(encode_picture(&empty, &generation(), &label(), 0), Err(EncodeError::Png(_))));
    assert!(matches!(encode_preview(&upscale(&empty, 8)), Err(EncodeError::Png(_))));
}

#[test]
fn previews_are_interpolated_between_pixel_centers() {
    let image = RgbImage { width: 2, height: 1, pixels: vec![0, 8, 100, 80, 0, 100] };
    let large = upscale(&image, 4);
    assert_eq!((large.width, large.height), (8, 4));
    // The centers of the large pixels are at 1/8, 3/8, … of a small one, whose centers are at 1/2 and 3/2.
    let red = [0, 0, 10, 30, 50, 70, 80, 80];
    let green = [8, 8, 7, 5, 3, 1, 0, 0];
    for (at, pixel) in large.pixels.chunks(3).enumerate() {
        assert_eq!(pixel, [red[at % 8], green[at % 8], 100], "at {at}");
    }
    assert_eq!(decoded(&encode_preview(&large).unwrap()), (large, Vec::new()));
}

#[test]
fn previews_have_at_most_512_pixels_a_side() {
    for (side, factor, expected) in [(64, 8, 512), (96, 8, 480), (300, 8, 300), (600, 8, 600), (16, 0, 16)] {
        let large = upscale(&picture(side, 8), factor);
        assert_eq!(large.width, expected);
        assert_eq!(large.pixels.len(), 3 * large.width as usize * large.height as usize);
    }
}

#[test]
fn a_preview_that_would_take_too_many_bytes_is_halved() {
    // Noise cannot be compressed.
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let image = RgbImage { width: 333, height: 77, pixels: (0..3 * 333 * 77).map(|_| noise()).collect() };
    let file = encode_preview(&image).unwrap();
    assert!(file.len() <= 48 * 1024);
    let half = decoded(&file).0;
    assert_eq!((half.width, half.height), (167, 39));
    let at = |x: usize, y: usize| u32::from(image.pixels[3 * (y * 333 + x)]);
    assert_eq!(u32::from(half.pixels[0]), (at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1) + 2) / 4);
    assert_eq!(u32::from(half.pixels[3 * 166]), (2 * at(332, 0) + 2 * at(332, 1) + 2) / 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_prompt_is_read_back(prompt in "\\PC{0,200}(\n|\r\n|\t|é|狐|🦊|\u{202e}|, Steps: 3|\\PC){0,200}", negative in "(\\PC|\n){0,100}") {
        let generation = job(Draw { prompt: prompt.clone(), negative_prompt: Some(negative.clone()), ..draw() });
        let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 0).unwrap());
        let lines = &texts[0].1;
        let (prompts, settings) = lines.rsplit_once("\nSteps: 20, ").unwrap();
        prop_assert!(settings.starts_with("Sampler: Euler a"));
        let read: String = weighted(prompts).concat().into_iter().map(|span| {
            assert!(span.weight == 1.0, "{prompts}");
            span.text
        }).collect();
        let shown = if negative.is_empty() { String::new() } else { format!("\nNegative prompt: {negative}") };
        prop_assert_eq!(read, format!("{prompt}{shown}"));
        prop_assert_eq!(resolved(&texts[1].1), generation);
    }

    #[test]
    fn any_picture_is_read_back(width in 1u32..40, height in 1u32..40, bytes in prop::collection::vec(any::<u8>(), 3 * 40 * 40)) {
        let image = RgbImage { width, height, pixels: bytes[..3 * (width * height) as usize].to_vec() };
        prop_assert_eq!(&decoded(&encode_picture(&image, &generation(), &label(), 0).unwrap()).0, &image);
        prop_assert_eq!(&decoded(&encode_preview(&image).unwrap()).0, &image);
    }
}

#[test]
fn the_longest_prompt_is_read_back() {
    let generation = job(Draw { prompt: "狐".repeat(10_000), ..draw() });
    let (_, texts) = decoded(&encode_picture(&picture(8, 8), &generation, &label(), 0).unwrap());
    assert_eq!(resolved(&texts[1].1), generation);
}

/// The picture and its iTXt chunks, as the `png` crate reads them.
fn decoded(file: &[u8]) -> (RgbImage, Vec<(String, String)>) {
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((frame.color_type, frame.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    let texts = &reader.info().utf8_text;
    let texts = texts.iter().map(|text| (text.keyword.clone(), text.get_text().unwrap())).collect();
    (RgbImage { width: frame.width, height: frame.height, pixels }, texts)
}

fn first_position(file: &[u8], name: &[u8; 4]) -> usize {
    file.windows(4).position(|bytes| bytes == name).unwrap()
}

/// Resolves the JSON chunk as a request.
fn resolved(json: &str) -> Job {
    resolve(Fields::new(serde_json::from_str(json).unwrap()), &Catalogue::new()).unwrap()
}

fn picture(width: u32, height: u32) -> RgbImage {
    let pixels = (0..3 * width * height).map(|at| (at * at / 7 + at) as u8).collect();
    RgbImage { width, height, pixels }
}

/// The names of the sampler in other programs.
fn label() -> SamplerLabel {
    SamplerLabel { sampler: "Euler a".to_owned(), schedule_type: Some("Karras"), eta: None }
}

fn generation() -> Job {
    job(draw())
}

fn job(draw: Draw) -> Job {
    Job {
        model: "tiny".to_owned(),
        work: Work::Draw(draw),
        precision: Precision::Exact,
        previews: 0,
        output: output_with(MetadataLevel::Full),
        on_disconnect: OnDisconnect::Auto,
        priority: Default::default(),
        start_timeout_s: 600,
        run_timeout_s: None,
        webhook: None,
        metadata: Default::default(),
        warnings: Vec::new(),
        safety: Default::default(),
        trace: None,
    }
}

/// PNG output with this level of metadata.
fn output_with(metadata_level: MetadataLevel) -> Output {
    Output { encoding: Default::default(), metadata_level, provenance: true }
}

fn draw() -> Draw {
    Draw {
        prompt: "a red fox".to_owned(),
        negative_prompt: Some("blur".to_owned()),
        prompt_syntax: PromptSyntax::Plain,
        further_prompts: Default::default(),
        max_sequence_length: None,
        loras: Vec::new(),
        class_labels: Vec::new(),
        class_guidance_scale: None,
        width: 512,
        height: 256,
        n: 1,
        steps: 20,
        levels: None,
        guidance_scale: 7.5,
        true_guidance_scale: None,
        guidance_rescale: 0.25,
        always_guided: false,
        guidance_interval: GuidanceInterval::WHOLE,
        guidance_limits: None,
        skip_layer_guidance: None,
        scheduler: SchedulerChoice::Name("euler_a".to_owned()),
        eta: 0.0,
        clip_skip: 0,
        decoder: Decoder::Full,
        feature_cache: None,
        micro_conditioning: None,
        refiner: None,
        controls: Vec::new(),
        source: None,
        seed: 41,
        seed_mode: SeedMode::PerImage,
    }
}

/// A catalogue with one model, two LoRAs and no ControlNets.
struct Catalogue {
    limits: Limits,
    card: Arc<ModelCard>,
}

impl Catalogue {
    fn new() -> Catalogue {
        let limits = Limits {
            max_side_pixels: 1024,
            max_pixels: 1024 * 1024,
            max_images: 8,
            max_steps: 100,
            max_seconds: 30.0,
            max_frames: 121,
            max_prompt_chars: 10_000,
        };
        let card = ModelCard {
            name: "tiny".to_owned(),
            description: String::new(),
            default_width: 64,
            default_height: 64,
            min_side_pixels: 8,
            size_multiple: 8,
            default_steps: 1,
            default_guidance_scale: 1.0,
            max_clip_skip: 4,
            takes_prompt: true,
            weighted_prompts: true,
            maps: vec![64],
            default_scheduler: SchedulerChoice::Name("ddim".to_owned()),
            scheduler_config: Map::new(),
            tasks: vec![Task::TextToImage],
            decoders: vec![Decoder::Full, Decoder::Tiny],
            prompts: Vec::new(),
            ..ModelCard::default()
        };
        Catalogue { limits, card: Arc::new(card) }
    }
}

impl Rules for Catalogue {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn default_model(&self) -> &str {
        "another"
    }

    fn card(&self, model: &str) -> Option<Arc<ModelCard>> {
        (model == "tiny").then(|| self.card.clone())
    }

    fn check_scheduler(
        &self,
        _: &ModelCard,
        _: &SchedulerChoice,
        steps: u32,
        levels: Option<&Levels>,
    ) -> Result<u32, (String, String)> {
        Ok(match levels {
            None => steps,
            Some(Levels::Sigmas(sigmas)) => sigmas.len() as u32,
            Some(Levels::Timesteps(timesteps)) => timesteps.len() as u32,
        })
    }

    fn check_control(&self, _: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        Err(("unknown_controlnet", format!("{name:?} is not in the catalogue")))
    }

    fn check_motion_adapter(&self, _: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        Err(("unknown_motion_adapter", format!("{name:?} is not in the catalogue")))
    }

    fn check_lora(&self, _: &ModelCard, name: &str) -> Result<(), (&'static str, String)> {
        let known = ["pixel art", "b"].contains(&name);
        if known { Ok(()) } else { Err(("unknown_lora", format!("{name:?} is not in the catalogue"))) }
    }

    fn check_words(&self, _: &ModelCard, _: PromptSyntax, _: &str) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn check_stages(&self, _: &ModelCard, _: &Draw) -> Result<(), (Vec<&'static str>, String)> {
        Ok(())
    }

    fn random_seed(&self) -> u64 {
        0
    }
}
