//! Tests of the face of AUTOMATIC1111's web interface, with the requests that webuiapi 0.9.17 sends.

use axum::{
    body::Body,
    http::{Method, Request},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use latentd::{
    generation::{Encoding, MediaType, Phase, Preview, Progress},
    imaging::{Metadata, RgbImage, encode},
    ledger::Outcome,
};
use serde_json::{Value, json};

use crate::{
    PNG,
    api::{Answer, TestApi},
};

fn post(path: &str, body: &Value, key: Option<&str>) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    let request = key.into_iter().fold(request, |request, key| request.header("authorization", key));
    request.body(Body::from(body.to_string())).unwrap()
}

/// Sends a request that draws, and plays the worker.
async fn drawn(api: &TestApi, path: &str, body: &Value) -> (Answer, Value) {
    let work = async {
        let lease = api.begin_next().await;
        let record = api.store.get(lease.id()).await.unwrap().unwrap();
        let n = record.job.params()["n"].as_u64().unwrap();
        let files: Vec<_> = (0..n).map(|_| ("image/png", "png", PNG)).collect();
        api.succeed_with_files(lease, &files).await;
        Value::Object(record.job.params())
    };
    let (answer, params) = tokio::join!(api.ask(post(path, body, None)), work);
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer, params)
}

async fn refused(api: &TestApi, path: &str, body: &Value) -> Value {
    let answer = api.ask(post(path, body, None)).await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

fn info(answer: &Answer) -> Value {
    serde_json::from_str(answer.json()["info"].as_str().expect("info is a text")).expect("info is JSON")
}

fn notes(answer: &Answer) -> Vec<String> {
    serde_json::from_value(info(answer)["notes"].clone()).unwrap()
}

/// A picture as base64.
fn picture(level: u8) -> String {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 64, 64);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[level; 64 * 64 * 3]).unwrap();
    BASE64_STANDARD.encode(file)
}

fn data_url(level: u8) -> String {
    format!("data:image/png;base64,{}", picture(level))
}

/// The fields that webuiapi sends in each request, but with a smaller size, which the embedded model draws faster.
fn common() -> Value {
    json!({
        "prompt": "a (red:1.3) fox", "styles": [], "seed": -1, "subseed": -1, "subseed_strength": 0.0,
        "seed_resize_from_h": 0, "seed_resize_from_w": 0, "batch_size": 1, "n_iter": 1, "steps": 20, "cfg_scale": 7.0,
        "width": 64, "height": 64, "restore_faces": false, "tiling": false, "do_not_save_samples": false,
        "do_not_save_grid": false, "negative_prompt": "", "eta": 1.0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0,
        "s_noise": 1, "override_settings": {}, "override_settings_restore_afterwards": true,
        "sampler_name": "Euler a", "scheduler": "automatic", "sampler_index": "Euler a", "script_name": null,
        "script_args": [], "send_images": true, "save_images": false, "alwayson_scripts": {},
    })
}

fn with(mut body: Value, changes: Value) -> Value {
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

fn txt2img(changes: Value) -> Value {
    let own = json!({
        "enable_hr": false, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": 0, "hr_resize_x": 0,
        "hr_resize_y": 0, "hr_checkpoint_name": null, "hr_sampler_name": null, "hr_scheduler": null, "hr_prompt": "",
        "hr_negative_prompt": "", "denoising_strength": 0.7, "firstphase_width": 0, "firstphase_height": 0,
    });
    with(with(common(), own), changes)
}

fn img2img(changes: Value) -> Value {
    let own = json!({
        "init_images": [data_url(90)], "resize_mode": 0, "denoising_strength": 0.6, "mask_blur": 4,
        "inpainting_fill": 0, "inpaint_full_res": true, "inpaint_full_res_padding": 0, "inpainting_mask_invert": 0,
        "initial_noise_multiplier": 1, "image_cfg_scale": 1.5, "include_init_images": false,
    });
    with(with(common(), own), changes)
}

const TXT2IMG: &str = "/sdapi/v1/txt2img";
const IMG2IMG: &str = "/sdapi/v1/img2img";

#[tokio::test]
async fn the_request_of_webuiapi_draws_without_notes() {
    let api = TestApi::open(&[]).await;
    let (answer, params) = drawn(&api, TXT2IMG, &txt2img(json!({}))).await;
    let body = answer.json();
    assert_eq!(body["images"], json!([BASE64_STANDARD.encode(PNG)]), "base64 without the prefix of a data URL");
    assert_eq!(notes(&answer), [""; 0]);
    let info = info(&answer);
    assert_eq!((&info["seed"], &info["all_seeds"]), (&params["seed"], &json!([7])));
    assert_eq!((&body["parameters"]["steps"], &body["parameters"]["sampler_name"]), (&json!(20), &json!("Euler a")));
    for (field, expected) in [
        ("prompt", json!("a (red:1.3) fox")),
        ("prompt_syntax", json!("weighted")),
        ("scheduler", json!("euler_a")),
        ("steps", json!(20)),
        ("guidance_scale", json!(7.0)),
        ("eta", json!(0.0)),
        ("width", json!(64)),
        ("n", json!(1)),
        ("previews", json!(10)),
    ] {
        assert_eq!(params[field], expected, "{field}");
    }
    assert!(params.get("strength").is_none_or(Value::is_null));
    assert_eq!(answer.header("latentd-generation-id").len(), 30);
}

#[tokio::test]
async fn a_prompt_alone_draws_with_the_defaults_of_the_model() {
    let api = TestApi::open(&[]).await;
    let (answer, params) = drawn(&api, TXT2IMG, &json!({"prompt": "a red fox"})).await;
    assert_eq!(notes(&answer), [""; 0]);
    assert_eq!((&params["width"], &params["model"]), (&json!(128), &json!("emoji")));
}

#[tokio::test]
async fn samplers_and_schedule_types_have_two_spellings() {
    let api = TestApi::open(&[]).await;
    for (sampler, schedule_type, expected) in [
        ("DPM++ 2M", json!("Karras"), json!("dpmpp_2m_karras")),
        ("DPM++ 2M", json!("karras"), json!("dpmpp_2m_karras")),
        ("DPM++ 2M Karras", json!("automatic"), json!("dpmpp_2m_karras")),
        ("DPM++ 2M Karras", json!(null), json!("dpmpp_2m_karras")),
        ("DPM++ 2M", json!("Uniform"), json!("dpmpp_2m")),
        ("Euler", json!(null), json!("euler")),
        ("dpmpp_2m_karras", json!(null), json!("dpmpp_2m_karras")),
    ] {
        let body = txt2img(json!({"sampler_name": sampler, "scheduler": schedule_type}));
        assert_eq!(drawn(&api, TXT2IMG, &body).await.1["scheduler"], expected, "{sampler} {schedule_type}");
    }
    // DDIM uses eta, which webuiapi always sends.
    let (_, params) = drawn(&api, TXT2IMG, &txt2img(json!({"sampler_name": "DDIM"}))).await;
    assert_eq!((&params["scheduler"], &params["eta"]), (&json!("ddim"), &json!(1.0)));
    // Every name of the lists is accepted.
    for sampler in api.get("/sdapi/v1/samplers").await.json().as_array().unwrap() {
        let request = txt2img(json!({"sampler_name": sampler["name"], "steps": 5000}));
        let errors = refused(&api, TXT2IMG, &request).await["fields"].clone();
        assert_eq!(errors[0]["pointer"], "/steps", "{sampler} {errors}");
    }
    for kind in api.get("/sdapi/v1/schedulers").await.json().as_array().unwrap() {
        let body = txt2img(json!({"sampler_name": "DPM++ 2M", "scheduler": kind["name"]}));
        drawn(&api, TXT2IMG, &body).await;
    }
}

#[tokio::test]
async fn every_picture_of_every_round_is_drawn() {
    let api = TestApi::open(&[]).await;
    let (answer, params) = drawn(&api, TXT2IMG, &txt2img(json!({"n_iter": 2, "batch_size": 3, "seed": 40}))).await;
    assert_eq!((&params["n"], &params["seed"]), (&json!(6), &json!(40)));
    assert_eq!(answer.json()["images"].as_array().unwrap().len(), 6);
    let (answer, _) = drawn(&api, TXT2IMG, &txt2img(json!({"send_images": false}))).await;
    assert_eq!(answer.json()["images"], json!([]));
    let error = refused(&api, TXT2IMG, &txt2img(json!({"n_iter": 100, "batch_size": 100}))).await;
    assert_eq!(error["fields"][0]["pointer"], "/batch_size");
    assert!(error["detail"].as_str().unwrap().starts_with("batch_size must be"), "{error}");
    let error = refused(&api, TXT2IMG, &txt2img(json!({"n_iter": 0}))).await;
    assert_eq!(error["fields"][0]["pointer"], "/n_iter");
}

#[tokio::test]
async fn fields_without_effect_are_noted() {
    let api = TestApi::open(&[]).await;
    let body = txt2img(json!({
        "enable_hr": true, "tiling": true, "frobnicate": 1, "styles": ["photo"], "eta": 0.5, "width": 70,
        "override_settings": {"eta_noise_seed_delta": 31337}, "alwayson_scripts": {
            "ADetailer": {"args": [true, {"ad_model": "face"}]}, "animatediff": {"args": [false]},
            "ControlNet": {"args": []},
        },
        "init_images": [],
    }));
    let (answer, params) = drawn(&api, TXT2IMG, &body).await;
    assert_eq!(params["width"], 64);
    let notes = notes(&answer);
    let beginnings = [
        "width is 64: it must be a multiple of",
        "eta is ignored",
        "override_settings.eta_noise_seed_delta is ignored",
        "alwayson_scripts.ADetailer is ignored",
        "enable_hr is ignored",
        "frobnicate is ignored: this server does not know the field",
        "init_images is ignored: this operation does not use it",
        "styles is ignored",
        "tiling is ignored",
    ];
    for beginning in beginnings {
        assert!(notes.iter().any(|note| note.starts_with(beginning)), "{beginning}: {notes:?}");
    }
    assert_eq!(notes.len(), beginnings.len(), "{notes:?}");
    assert!(answer.json()["parameters"].get("frobnicate").is_none(), "unknown fields are not repeated");
}

#[tokio::test]
async fn errors_name_the_fields_of_the_request() {
    let api = TestApi::open(&[]).await;
    for (path, changes, pointer, detail) in [
        (TXT2IMG, json!({"cfg_scale": 99}), "/cfg_scale", "cfg_scale must be between 0 and 30, not 99"),
        (TXT2IMG, json!({"steps": "many"}), "/steps", "steps must be an integer, not \"many\""),
        (TXT2IMG, json!({"sampler_name": "DPM adaptive"}), "/sampler_name", "sampler_name must be one of"),
        (
            TXT2IMG,
            json!({"scheduler": "Align Your Steps"}),
            "/scheduler",
            "scheduler must be one of Automatic, Uniform",
        ),
        (TXT2IMG, json!({"seed": -2}), "/seed", "seed must be"),
        (TXT2IMG, json!({"eta": {}}), "/eta", "eta must be a number, not {}"),
        (TXT2IMG, json!({"mask": 1}), "/mask", "mask must be a string, not 1"),
        (TXT2IMG, json!({"prompt": "<lora:none:1>"}), "/prompt", "prompt names a LoRA"),
        (
            TXT2IMG,
            json!({"override_settings": {"sd_model_checkpoint": 7}}),
            "/override_settings/sd_model_checkpoint",
            "override_settings.sd_model_checkpoint must be a string",
        ),
        (
            TXT2IMG,
            json!({"override_settings": {"sd_model_checkpoint": "other"}}),
            "/override_settings/sd_model_checkpoint",
            "override_settings.sd_model_checkpoint \"other\" is not in the catalogue",
        ),
        (IMG2IMG, json!({"init_images": []}), "/init_images", "init_images must have one picture"),
        (IMG2IMG, json!({"init_images": ["%%"]}), "/init_images/0", "init_images.0 "),
        (IMG2IMG, json!({"denoising_strength": 1.5}), "/denoising_strength", "denoising_strength must be"),
        (
            IMG2IMG,
            json!({"alwayson_scripts": {"ControlNet": {"args": [{"enabled": false}, {"model": "none such"}]}}}),
            "/alwayson_scripts/ControlNet/args/1/model",
            "alwayson_scripts.ControlNet.args.1.model ",
        ),
    ] {
        let body = if path == TXT2IMG { txt2img(changes) } else { img2img(changes) };
        let error = refused(&api, path, &body).await;
        assert_eq!(error["fields"][0]["pointer"], pointer, "{error}");
        assert!(error["detail"].as_str().unwrap().starts_with(detail), "{error}");
        assert_eq!(error["fields"].as_array().unwrap().len(), 1, "{error}");
    }
    let malformed = Request::post(TXT2IMG).header("content-type", "application/json").body(Body::from("{")).unwrap();
    let answer = api.ask(malformed).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("malformed_json")));
}

#[tokio::test]
async fn a_picture_and_its_mask_are_redrawn() {
    let api = TestApi::open(&[]).await;
    let (answer, params) = drawn(&api, IMG2IMG, &img2img(json!({}))).await;
    assert_eq!(notes(&answer), [""; 0]);
    assert_eq!((&params["strength"], &params["image"]["width"]), (&json!(0.6), &json!(64)));
    assert!(params.get("mask").is_none_or(Value::is_null));
    assert!(answer.json()["parameters"].get("init_images").is_none());

    let masked = json!({"mask": data_url(255), "inpaint_full_res_padding": 16, "inpainting_mask_invert": 1});
    let (answer, params) = drawn(&api, IMG2IMG, &img2img(masked)).await;
    assert_eq!(
        notes(&answer),
        ["inpainting_fill is ignored: the masked part always starts from the picture (1, original)"]
    );
    for (field, expected) in [
        ("mask_blur", json!(4)),
        ("mask_invert", json!(true)),
        ("padding_mask_crop", json!(16)),
        ("strength", json!(0.6)),
    ] {
        assert_eq!(params[field], expected, "{field}");
    }
    let whole = json!({"mask": picture(255), "inpaint_full_res": false, "inpainting_fill": 1});
    let (answer, params) = drawn(&api, IMG2IMG, &img2img(whole)).await;
    assert_eq!(notes(&answer), [""; 0]);
    assert!(params.get("padding_mask_crop").is_none_or(Value::is_null));
}

#[tokio::test]
async fn control_net_units_are_read_as_webuiapi_sends_them() {
    let api = TestApi::open(&[]).await;
    let unit = json!({
        "image": picture(40), "mask": null, "module": "canny", "model": "emoji-canny [d14c016b]", "weight": 0.8,
        "resize_mode": "Resize and Fill", "low_vram": false, "processor_res": 512, "threshold_a": 64,
        "threshold_b": 64, "guidance_start": 0.1, "guidance_end": 0.9, "control_mode": "ControlNet is more important",
        "pixel_perfect": false, "hr_option": "Both", "enabled": true,
    });
    let scripts = json!({"alwayson_scripts": {"ControlNet": {"args": [{"enabled": false, "model": "x"}, unit]}}});
    let (answer, params) = drawn(&api, TXT2IMG, &txt2img(scripts)).await;
    let control = &params["controls"][0];
    for (field, expected) in [
        ("model", json!("emoji-canny")),
        ("scale", json!(0.8)),
        ("start", json!(0.1)),
        ("end", json!(0.9)),
        ("guess_mode", json!(true)),
        ("preprocess", json!("canny")),
    ] {
        assert_eq!(control[field], expected, "{field}");
    }
    let notes = notes(&answer);
    assert_eq!(notes, ["ControlNet unit 1: threshold_a and threshold_b is ignored: canny uses 100 and 200"]);

    // Without a picture of its own, a unit of img2img uses the picture of the request.
    let scripts = json!({"alwayson_scripts": {"controlnet": {"args": [{"model": "emoji-canny", "image": ""}]}}});
    let (_, params) = drawn(&api, IMG2IMG, &img2img(scripts.clone())).await;
    assert_eq!(params["controls"][0]["image"], params["image"]);
    let error = refused(&api, TXT2IMG, &txt2img(scripts)).await;
    assert_eq!(error["fields"][0]["pointer"], "/alwayson_scripts/ControlNet/args/0/image");
    for (key, value) in [("module", json!("depth_midas")), ("control_mode", json!("Whatever"))] {
        let unit = with(json!({"model": "emoji-canny", "image": picture(1)}), json!({key: value}));
        let scripts = json!({"alwayson_scripts": {"ControlNet": {"args": [unit]}}});
        let error = refused(&api, TXT2IMG, &txt2img(scripts)).await;
        assert_eq!(error["fields"][0]["pointer"], format!("/alwayson_scripts/ControlNet/args/0/{key}"), "{error}");
    }
}

#[tokio::test]
async fn ignored_fields_of_a_control_net_unit_are_noted() {
    let api = TestApi::open(&[]).await;
    // The fields that webuiapi sends for a map, with values that have no effect without a preprocessor.
    let idle = json!({
        "image": picture(40), "mask": null, "module": "none", "model": "emoji-canny", "weight": 1.0,
        "resize_mode": "Resize and Fill", "low_vram": false, "processor_res": 512, "threshold_a": 64, "threshold_b": 64,
        "guidance_start": 0.0, "guidance_end": 1.0, "control_mode": "Balanced", "pixel_perfect": false,
        "hr_option": "Both", "enabled": true, "guessmode": null, "save_detected_map": false, "input_mode": "simple",
    });
    let request = |unit: Value| {
        let script = json!({"ControlNet": {"args": [unit]}});
        txt2img(json!({"alwayson_scripts": script, "override_settings_restore_afterwards": false}))
    };
    assert_eq!(notes(&drawn(&api, TXT2IMG, &request(idle.clone())).await.0), [""; 0]);
    let busy = json!({
        "module": "canny", "foo": 1, "guessmode": true, "processor_res": 256, "save_detected_map": true,
        "low_vram": true, "threshold_a": -1, "threshold_b": 200, "mask": "x",
    });
    let wide = with(request(with(idle.clone(), busy)), json!({"width": 128}));
    let mut found = notes(&drawn(&api, TXT2IMG, &wide).await.0);
    found.sort();
    let expected = ["foo", "guessmode", "low_vram", "mask", "processor_res", "resize_mode", "save_detected_map"];
    let names: Vec<_> = found.iter().map(|note| note.split(' ').nth(3).unwrap()).collect();
    assert_eq!(names, expected, "{found:?}");
    assert!(found.iter().all(|note| note.starts_with("ControlNet unit 0: ")), "{found:?}");
    let many: serde_json::Map<String, Value> = (0..200).map(|at| (format!("foo{at}"), at.into())).collect();
    let found = notes(&drawn(&api, TXT2IMG, &request(with(idle, Value::Object(many)))).await.0);
    assert_eq!((found.len(), &*found[49]), (50, "151 more notes are left out"));
}

#[tokio::test]
async fn settings_that_are_not_restored_and_repeated_pictures_are_noted() {
    let api = TestApi::open(&[]).await;
    let body = img2img(json!({
        "include_init_images": true, "override_settings": {"CLIP_stop_at_last_layers": 2},
        "override_settings_restore_afterwards": false,
    }));
    let mut found = notes(&drawn(&api, IMG2IMG, &body).await.0);
    found.sort();
    assert_eq!(
        found,
        [
            "include_init_images is ignored: this server does not support it",
            "override_settings_restore_afterwards is ignored: this server does not support it",
        ]
    );
}

#[tokio::test]
async fn the_settings_in_a_picture_are_read_from_every_format() {
    let api = TestApi::open(&[]).await;
    let parameters = "a fox\nSteps: 4, Sampler: DPM++ 2M, Size: 64x64".to_owned();
    let metadata = Metadata::Full { parameters: parameters.clone(), request: "{}".to_owned() };
    let image = RgbImage { width: 64, height: 64, pixels: vec![90; 64 * 64 * 3] };
    for (format, encoding, extension) in [
        ("png", Encoding::Png, "png"),
        ("jpg", Encoding::Jpeg { quality: 90 }, "jpg"),
        ("webp", Encoding::Webp, "webp"),
    ] {
        let file = encode(&image, encoding, &metadata).unwrap();
        let media_type = encoding.format().media_type();
        let work =
            async { api.succeed_with_files(api.begin_next().await, &[(media_type, extension, file.as_slice())]).await };
        let body = txt2img(json!({"override_settings": {"samples_format": format}}));
        let (answer, ()) = tokio::join!(api.ask(post(TXT2IMG, &body, None)), work);
        let info = info(&answer);
        assert_eq!((&info["infotexts"], &info["sampler_name"]), (&json!([parameters]), &json!("DPM++ 2M")), "{format}");
        let body = json!({"image": answer.json()["images"][0]});
        let read = api.ask(post("/sdapi/v1/png-info", &body, None)).await.json();
        assert_eq!((&read["info"], &read["parameters"]["Size"]), (&json!(parameters), &json!("64x64")), "{format}");
    }
    let answer = api.ask(post("/sdapi/v1/png-info", &json!({"image": picture(1)}), None)).await;
    assert_eq!(answer.json()["info"], "", "a picture without settings");
}

#[tokio::test]
async fn progress_shows_the_newest_generation_with_its_preview() {
    let api = TestApi::open(&[]).await;
    let idle = api.get("/sdapi/v1/progress").await.json();
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    // A generation of the native API does not belong to this face.
    api.create(json!({"prompt": "a fox"})).await;
    assert_eq!(api.get("/sdapi/v1/progress").await.json()["state"]["job_count"], 0);
    api.end(api.begin().await, Outcome::Canceled).await;

    let work = async {
        let lease = api.begin_next().await;
        let id = lease.id();
        let progress = Progress { phase: Phase::Denoising, step: 5, steps: 20, percent: 25.0, eta_s: Some(3.0) };
        api.live.progress(id, progress);
        let media_type = MediaType::try_from("image/png".to_owned()).unwrap();
        let preview = Preview { index: 0, step: 5, preview_index: 0, media_type, bytes: PNG.into() };
        api.live.preview(id, preview);
        let seen = api.get("/sdapi/v1/progress").await.json();
        assert_eq!((&seen["progress"], &seen["eta_relative"]), (&json!(0.25), &json!(3.0)));
        assert_eq!((&seen["state"]["sampling_step"], &seen["state"]["job_count"]), (&json!(5), &json!(1)));
        assert_eq!(seen["current_image"], BASE64_STANDARD.encode(PNG));
        let bare = api.get("/sdapi/v1/progress?skip_current_image=true").await.json();
        assert_eq!(bare["current_image"], Value::Null);
        for spelled in ["True", "1", "yes"] {
            let bare = api.get(&format!("/sdapi/v1/progress?skip_current_image={spelled}&new_field=x")).await.json();
            assert_eq!(bare["current_image"], Value::Null, "{spelled}");
        }
        let kept = api.get("/sdapi/v1/progress?skip_current_image=False").await.json();
        assert_eq!(kept["current_image"], BASE64_STANDARD.encode(PNG));
        for wrong in ["null", "2", "x"] {
            let answer = api.get(&format!("/sdapi/v1/progress?skip_current_image={wrong}")).await;
            assert_eq!(answer.status, 422, "{wrong}");
            assert_eq!(answer.json()["errors"], "skip_current_image must be true or false");
        }
        api.succeed(lease, PNG).await;
    };
    let (answer, ()) = tokio::join!(api.ask(post(TXT2IMG, &txt2img(json!({})), None)), work);
    assert_eq!(answer.status, 200);
    assert_eq!(api.get("/sdapi/v1/progress").await.json()["state"]["job_count"], 0);
}

/// The generation of this face is older than more than a page of others of the same tenant.
#[tokio::test]
async fn progress_finds_its_generation_among_many_others() {
    let api = TestApi::open(&[("tenants.max_queued", "1000"), ("tenants.max_running", "1000")]).await;
    let work = async {
        let own = async {
            loop {
                let listed = api.get("/v1/images?status=queued").await.json()["data"][0]["id"].clone();
                if let Value::String(id) = listed {
                    return id;
                }
                tokio::task::yield_now().await;
            }
        };
        let own = tokio::time::timeout(std::time::Duration::from_secs(20), own).await.expect("it is accepted");
        for seed in 0..230 {
            api.create(json!({"prompt": "another", "seed": seed})).await;
        }
        let queued = api.get("/sdapi/v1/progress").await.json();
        assert_eq!((&queued["state"]["job"], &queued["state"]["job_count"]), (&json!(own), &json!(1)));
        // The first in the queue; then the others begin.
        let lease = api.begin().await;
        assert_eq!(lease.id().to_string(), own);
        for _ in 0..130 {
            api.begin().await;
        }
        let running = api.get("/sdapi/v1/progress").await.json();
        assert_eq!((&running["state"]["job"], &running["textinfo"]), (&json!(own), &json!("")));
        api.succeed(lease, PNG).await;
    };
    let (answer, ()) = tokio::join!(api.ask(post(TXT2IMG, &txt2img(json!({})), None)), work);
    assert_eq!(answer.status, 200);
    assert_eq!(api.get("/sdapi/v1/progress").await.json()["state"]["job"], "");
}

#[tokio::test]
async fn an_interruption_cancels_the_callers_own_generations_alone() {
    let api = TestApi::open(&[]).await;
    let (alice, bob) = (api.key("alice", 9).await, api.key("bob", 9).await);
    let body = txt2img(json!({}));
    let interrupt = |key: &str| {
        let request = Request::builder().method(Method::POST).uri("/sdapi/v1/interrupt").header("authorization", key);
        request.body(Body::empty()).unwrap()
    };
    let native = Request::post("/v1/images").header("content-type", "application/json").header("authorization", &alice);
    let native = api.ask(native.body(Body::from(json!({"prompt": "a"}).to_string())).unwrap()).await;
    assert_eq!(native.status, 202);
    api.end(api.begin().await, Outcome::Canceled).await;
    let work = async {
        while api.store.counts().await.unwrap().queued == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(api.ask(interrupt(&bob)).await.json(), json!({}));
        assert_eq!(api.store.counts().await.unwrap().queued, 1, "bob cannot interrupt alice");
        assert_eq!(api.ask(interrupt(&alice)).await.json(), json!({}));
    };
    let (answer, ()) = tokio::join!(api.ask(post(TXT2IMG, &body, Some(&alice))), work);
    assert_eq!((answer.status, answer.json()["images"].clone()), (200, json!([])), "{}", answer.text());
    assert_eq!(notes(&answer), ["the generation was canceled before it had a picture"]);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_generation() {
    let api = TestApi::open(&[]).await;
    let accepted = async {
        while api.store.counts().await.unwrap().queued == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = api.ask(post(TXT2IMG, &txt2img(json!({})), None)) => panic!("{}", answer.text()),
        () = accepted => {}
    }
    api.afterwork.close();
    api.afterwork.wait().await;
    assert_eq!(api.store.counts().await.unwrap().queued, 0);
}

#[tokio::test]
async fn a_named_request_is_drawn_once() {
    let api = TestApi::open(&[]).await;
    let body = txt2img(json!({"force_task_id": "task(1)"}));
    let (first, _) = drawn(&api, TXT2IMG, &body).await;
    let second = api.ask(post(TXT2IMG, &body, None)).await;
    assert_eq!(second.status, 200);
    assert_eq!(first.header("latentd-generation-id"), second.header("latentd-generation-id"));
    assert_eq!(first.json()["images"], second.json()["images"]);
}

#[tokio::test]
async fn the_model_is_chosen_by_title() {
    let api = TestApi::open(&[]).await;
    let (alice, bob) = (api.key("alice", 9).await, api.key("bob", 9).await);
    let models = api.get("/sdapi/v1/sd-models").await.json();
    assert_eq!((&models[0]["title"], &models[0]["model_name"]), (&json!("emoji"), &json!("emoji")));
    assert_eq!(api.get("/sdapi/v1/options").await.json()["sd_model_checkpoint"], "emoji");
    for title in ["emoji", "emoji.safetensors [abc]", "Emoji"] {
        let set = api.ask(post("/sdapi/v1/options", &json!({"sd_model_checkpoint": title}), Some(&alice))).await;
        assert_eq!((set.status, set.json()["notes"].clone()), (200, json!([])), "{title}");
        let body = txt2img(json!({"override_settings": {"sd_model_checkpoint": title}}));
        assert_eq!(drawn(&api, TXT2IMG, &body).await.1["model"], "emoji", "{title}");
    }
    let unknown = json!({"sd_model_checkpoint": "other"});
    let error = api.ask(post("/sdapi/v1/options", &unknown, Some(&bob))).await;
    assert_eq!((error.status, error.json()["error"].as_str()), (422, Some("unknown_model")));
    let set = api.ask(post("/sdapi/v1/options", &json!({"show_progress": true}), None)).await;
    assert_eq!(set.json()["notes"], json!(["show_progress is ignored: only sd_model_checkpoint can be set"]));
}

#[tokio::test]
async fn settings_change_the_request() {
    let api = TestApi::open(&[]).await;
    let settings = json!({"override_settings": {"CLIP_stop_at_last_layers": 2, "samples_format": "jpg"}});
    let error = api.ask(post(TXT2IMG, &txt2img(with(settings.clone(), json!({"steps": 0}))), None)).await;
    assert_eq!(error.status, 422);
    let work = async {
        let lease = api.begin_next().await;
        let params = api.store.get(lease.id()).await.unwrap().unwrap().job.params();
        api.succeed(lease, PNG).await;
        params
    };
    let (answer, params) = tokio::join!(api.ask(post(TXT2IMG, &txt2img(settings), None)), work);
    assert_eq!((answer.status, notes(&answer)), (200, Vec::new()));
    assert_eq!((&params["clip_skip"], &params["output"]["format"]), (&json!(1), &json!("jpeg")));
}

#[tokio::test]
async fn lists_have_the_form_that_clients_read() {
    let api = TestApi::open(&[]).await;
    let names = |list: Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    let samplers = names(api.get("/sdapi/v1/samplers").await.json());
    assert!(["Euler a", "DPM++ 2M", "DPM++ 3M SDE"].iter().all(|name| samplers.iter().any(|other| other == name)));
    let types = names(api.get("/sdapi/v1/schedulers").await.json());
    assert_eq!(types, ["automatic", "uniform", "karras", "exponential", "sgm_uniform", "beta"]);
    assert_eq!(api.get("/sdapi/v1/upscalers").await.json(), json!([]));
    assert_eq!(api.get("/sdapi/v1/scripts").await.json()["txt2img"], json!(["controlnet"]));
    assert_eq!(api.get("/sdapi/v1/script-info").await.json()[0]["is_alwayson"], true);
    assert_eq!(api.get("/sdapi/v1/cmd-flags").await.json()["api"], true);
    assert_eq!(api.get("/sdapi/v1/memory").await.json()["ram"]["used"], 0);
    assert!(api.get("/sdapi/v1/loras").await.json().is_array());
    assert!(api.get("/sdapi/v1/embeddings").await.json()["loaded"].is_object());
    assert_eq!(api.get("/controlnet/version").await.json()["version"], 2);
    let models = api.get("/controlnet/model_list").await.json();
    assert!(models["model_list"].as_array().unwrap().contains(&json!("emoji-canny")), "{models}");
    assert_eq!(api.get("/controlnet/module_list").await.json()["module_list"], json!(["none", "canny"]));
}

#[tokio::test]
async fn settings_are_read_from_a_picture() {
    let api = TestApi::open(&[]).await;
    let text = "a red fox\nNegative prompt: rain\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, Size: 64x64";
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 1, 1);
    encoder.add_itxt_chunk("parameters".to_owned(), text.to_owned()).unwrap();
    encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
    let work = async { api.succeed(api.begin_next().await, &file).await };
    let (answer, ()) = tokio::join!(api.ask(post(TXT2IMG, &txt2img(json!({})), None)), work);
    let seen = info(&answer);
    assert_eq!((&seen["infotexts"], &seen["sampler_name"]), (&json!([text]), &json!("DPM++ 2M")));

    let file = BASE64_STANDARD.encode(file);
    for image in [file.clone(), format!("data:image/png;base64,{file}")] {
        let read = api.ask(post("/sdapi/v1/png-info", &json!({"image": image}), None)).await.json();
        assert_eq!((&read["info"], &read["items"]["parameters"]), (&json!(text), &json!(text)));
        assert_eq!((&read["parameters"]["Prompt"], &read["parameters"]["Steps"]), (&json!("a red fox"), &json!("20")));
    }
    let bare = api.ask(post("/sdapi/v1/png-info", &json!({"image": picture(1)}), None)).await.json();
    assert_eq!(bare["info"], "");
    for image in [json!(null), json!("%%"), json!(7)] {
        let error = refused(&api, "/sdapi/v1/png-info", &json!({"image": image})).await;
        assert_eq!(error["fields"][0]["pointer"], "/image", "{error}");
    }
}

#[tokio::test]
async fn a_server_with_keys_requires_them_here_too() {
    let api = TestApi::open(&[("auth.required", "true")]).await;
    let alice = api.key("alice", 9).await;
    for path in ["/sdapi/v1/sd-models", "/sdapi/v1/progress", "/controlnet/model_list"] {
        assert_eq!(api.get(path).await.status, 401, "{path}");
        assert_eq!(api.get_with(path, "authorization", &alice).await.status, 200, "{path}");
    }
    // Clients of the web interface send a name and a password.
    let password = alice.strip_prefix("Bearer ").unwrap();
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("user:{password}")));
    assert_eq!(api.get_with("/sdapi/v1/progress", "authorization", &basic).await.status, 200);
    assert_eq!(api.ask(post(TXT2IMG, &txt2img(json!({})), None)).await.status, 401);
}
