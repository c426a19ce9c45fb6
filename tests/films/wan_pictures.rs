//! Tests of films from a prompt and a picture, in process: comparisons with diffusers, and independence of other runs.

use std::path::Path;

use latentd::{
    catalogue::Catalogue,
    families,
    generation::{Film, Task},
    imaging::RgbImage,
    kernels::Kernels,
    models::pause::ToEnd,
    pipelines::{Clip, Inputs},
};

use crate::{
    FilmFixture, LATENTS,
    case::{self, FilmCase, default_film, floats, stored},
    clips, job, outcome, picture, prepared,
    wan::Direct,
    wan_films::{TIMES, TWO},
    wan_pictures::{self, SEEING},
};

const PIPELINES: [&str; 2] = ["wan-i2v", "wan22-ti2v"];

/// The cases of a pipeline that make films from a picture.
fn cases(root: &Path, pipeline: &str) -> Vec<FilmCase> {
    FilmCase::all(root, pipeline).into_iter().filter(|case| case.task() == "image-to-video").collect()
}

// ---- comparisons with diffusers ----

#[test]
fn films_equal_diffusers() {
    compare(Kernels::default());
}

#[test]
fn films_equal_diffusers_with_reference_kernels() {
    compare(Kernels::REFERENCE);
}

fn compare(kernels: Kernels) {
    let Some(root) = case::complete() else { return };
    let fixture = FilmFixture::of(&root.join("pipelines"), PIPELINES[0], kernels, 16);
    let mut count = 0;
    for pipeline in PIPELINES {
        let card = fixture.catalogue.card(pipeline).unwrap();
        for case in cases(&root, pipeline) {
            let (film, picture) = case.film(&card);
            let clip = clips(outcome(&fixture.start(job(pipeline, film), picture)).unwrap()).remove(0);
            println!("{}: {} levels", case.name, case.compare(&clip.frames));
            count += 1;
        }
    }
    assert!(count >= 4, "only {count} cases");
}

/// The inputs and answers of the denoiser, and the latents that are decoded, equal diffusers', too.
#[test]
fn steps_equal_diffusers() {
    let Some(root) = case::complete() else { return };
    let catalogue = Catalogue::open(&root.join("pipelines"), PIPELINES[0]).unwrap();
    for pipeline in PIPELINES {
        let (model, card) = (catalogue.load(pipeline).unwrap(), catalogue.card(pipeline).unwrap());
        for case in cases(&root, pipeline) {
            let (film, picture) = case.film(&card);
            let prepared = prepared(&catalogue, job(pipeline, film), picture, model.clone());
            let compute = Direct::new(model.clone());
            families::draw(&compute, &prepared).to_end().unwrap();
            let expected = case.intermediates();
            let close = |name: &str, made: &[f32], bound: f32| {
                let Some(expected) = expected.get(name) else { return println!("{}: no {name}", case.name) };
                case.assert_close(name, made, expected, bound);
            };
            let first = compute.predictions.borrow_mut().remove(0);
            let (cond, of_cond) = (first.rows.last().unwrap(), first.answers.last().unwrap());
            close("denoiser.0.hidden_states", &cond.sample, 1e-4);
            if let Some(tokens) = &cond.picture {
                close("denoiser.0.encoder_hidden_states_image", &floats(tokens), 1e-4);
            }
            close("denoiser.0.out", of_cond, 1e-4);
            if !cond.is_known {
                close("scheduler.prev_sample.last", &compute.latents(), LATENTS);
            }
        }
    }
}

// ---- models with random weights ----

fn fixture(max_rows: usize) -> FilmFixture {
    FilmFixture::made(wan_pictures::put_models, max_rows)
}

/// A short film of a random model that begins with a picture.
fn film(fixture: &FilmFixture, model: &str) -> Film {
    let film = default_film(&fixture.catalogue.card(model).unwrap());
    let (prompt, negative_prompt) = ("a red fox".to_owned(), "blurry".to_owned());
    Film { prompt, negative_prompt, image: Some(stored(&picture())), frames: 5, ..film }
}

fn make(fixture: &FilmFixture, model: &str, film: Film, picture: Option<RgbImage>) -> Vec<Clip> {
    clips(outcome(&fixture.start(job(model, film), picture)).unwrap())
}

#[test]
fn a_film_with_a_picture_does_not_depend_on_other_runs() {
    for model in [SEEING, TIMES] {
        let (alone, crowded, single) = (fixture(16), fixture(16), fixture(1));
        let own = film(&alone, model);
        let expected = make(&alone, model, own.clone(), Some(picture()));
        assert_eq!(expected[0].frames.len(), 5);
        let strangers = [Film { seed: 77, ..own.clone() }, Film { n: 2, guidance_scale: 1.0, ..own.clone() }];
        for fixture in [&crowded, &single] {
            let start = |film: &Film| fixture.start(job(model, film.clone()), Some(other_picture()));
            let mut others: Vec<_> = strangers[..1].iter().map(start).collect();
            let observed = fixture.start(job(model, own.clone()), Some(picture()));
            others.extend(strangers[1..].iter().map(start));
            if model == TIMES {
                others.push(fixture.start(job(model, Film { image: None, ..own.clone() }), None));
            }
            assert!(clips(outcome(&observed).unwrap()) == expected, "{model}");
            for observed in &others {
                outcome(observed).unwrap();
            }
        }
    }
}

#[test]
fn the_picture_has_an_effect_and_all_films_begin_with_it() {
    let fixture = fixture(16);
    for model in [SEEING, TIMES] {
        let film = film(&fixture, model);
        let three = make(&fixture, model, Film { n: 2, ..film.clone() }, Some(picture()));
        let other = make(&fixture, model, film.clone(), Some(other_picture()));
        assert!(three[0] != three[1] && three[0] != other[0], "{model}");
        assert!(make(&fixture, model, film.clone(), Some(picture())) == three[..1], "{model}");
    }
    // The latents of the first frame are the latents of the picture, so the first frame does not depend on the noise.
    let film = film(&fixture, TIMES);
    let [first, second] = [film.seed, 77]
        .map(|seed| make(&fixture, TIMES, Film { seed, ..film.clone() }, Some(picture())).remove(0).frames);
    assert!(first[0] == second[0] && first[4] != second[4]);
    let without = make(&fixture, TIMES, Film { image: None, ..film }, None).remove(0).frames;
    assert!(without[0] != first[0]);
}

#[test]
fn models_say_whether_they_take_a_picture() {
    let fixture = fixture(16);
    let tasks = |model: &str| fixture.catalogue.card(model).unwrap().tasks.clone();
    assert_eq!(tasks(TWO), [Task::TextToVideo]);
    assert_eq!(tasks(TIMES), [Task::TextToVideo, Task::ImageToVideo]);
    assert_eq!(tasks(SEEING), [Task::ImageToVideo]);
    let film = Film { image: None, ..film(&fixture, SEEING) };
    let model = fixture.catalogue.load(SEEING).unwrap();
    let refused = fixture.catalogue.prepare(job(SEEING, film), Inputs::default(), model, None);
    assert!(refused.unwrap_err().to_string().contains("makes no films without a picture"));
    let plan = |film: Film| fixture.catalogue.plan(&job(TIMES, film)).unwrap();
    let film = self::film(&fixture, TIMES);
    assert!(plan(film.clone()).cost > plan(Film { image: None, ..film }).cost);
}

/// A picture of another size with other colors.
fn other_picture() -> RgbImage {
    let pixels = (0..3 * 40 * 23).map(|i| (i * 89 % 256) as u8).collect();
    RgbImage { width: 40, height: 23, pixels }
}
