//! Tests of the command line: `generate`, `config`, `models`, `migrate` and `healthcheck`.

use std::{
    ffi::OsStr,
    io::Write,
    os::unix::ffi::OsStrExt,
    process::{Command, Output},
};

use latentd::generation::FIELDS;
use serde_json::json;

use crate::harness::{Server, decode, request, unsigned, with};

fn latentd(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.args(arguments).env_remove("LATENTD_CONFIG");
    for (key, value) in settings {
        command.env(key, value);
    }
    command.output().unwrap()
}

#[tokio::test]
async fn generate_draws_what_the_server_draws() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("fox.png");
    let output = latentd(&["generate", "a red fox", "--seed", "7", "-o", file.to_str().unwrap()], &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = Server::start(&data.path().join("data"), &[]).await;
    let id = server.accept(&request("a red fox", 7)).await;
    server.ended(&id).await;
    assert_eq!(unsigned(&std::fs::read(&file).unwrap()), server.picture(&id, 0).await);
}

/// Class-conditional models and models without a prompt accept the same fields as on the server.
#[tokio::test]
async fn generate_draws_classes_as_the_server_does() {
    let pipelines = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity/pipelines");
    let settings = [("LATENTD_MODELS__DIR", pipelines)];
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(&data.path().join("data"), &settings).await;
    for (flags, body) in [
        (
            &["--model", "classifier-guidance", "--class-label", "3", "--class-guidance-scale", "2.5"][..],
            json!({"model": "classifier-guidance", "class_label": 3, "class_guidance_scale": 2.5}),
        ),
        (&["--model", "dit", "--class-label", "class 7"], json!({"model": "dit", "class_label": "class 7"})),
        (
            &["--model", "consistency", "--class-label", "[1, 5]", "-n", "2"],
            json!({"model": "consistency", "class_label": [1, 5], "n": 2}),
        ),
        (
            &["--model", "ddpm", "--eta=.5", "--scheduler", "ddim"],
            json!({"model": "ddpm", "eta": 0.5, "scheduler": "ddim"}),
        ),
    ] {
        let file = data.path().join("class.png");
        let of_all = ["generate", "--steps", "2", "--seed", "7", "-o", file.to_str().unwrap()];
        let output = latentd(&[&of_all, flags].concat(), &settings);
        assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
        let id = server.accept(&with(body, &json!({"steps": 2, "seed": 7}))).await;
        let ended = server.ended(&id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        let n = ended["params"]["n"].as_u64().unwrap();
        for index in 0..n {
            let name = if n == 1 { "class.png".to_owned() } else { format!("class-{index}.png") };
            let drawn = std::fs::read(data.path().join(name)).unwrap();
            assert!(unsigned(&drawn) == server.picture(&id, index as usize).await, "{flags:?} image {index}");
        }
    }
    for (arguments, named) in [
        (&["--model", "dit"][..], "class_label is required"),
        (&["--model", "dit", "--class-label", "1001"], "must be a whole number from 0 to 999, not 1001"),
        (&["--model", "dit", "--class-label", "1", "--class-guidance-scale", "2"], "it has no classifier"),
        (&["--model", "ddpm", "a fox"], "it draws without a prompt"),
        (&["--model", "ddpm", "--negative-prompt", "blurry"], "it draws without a prompt"),
        (&["--class-label", "1", "a fox"], "it draws no classes"),
        (&[], "prompt"),
    ] {
        let output = latentd(&[&["generate", "-o", "none.png"], arguments].concat(), &settings);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(named), "{arguments:?}: {text}");
    }
}

/// Each field of a request is a flag, or it is in the list `otherwise` with the reason.
#[test]
fn every_field_of_a_request_is_a_flag_of_generate() {
    let otherwise = [
        ("prompt", "the argument"),
        ("n", "-n"),
        ("output", "--output, whose extension names the format, and --quality"),
        ("controls", "they have pictures of their own"),
        ("previews", "they are sent while a client waits"),
        ("on_disconnect", "no client waits"),
        ("priority", "there is no queue"),
        ("start_timeout_s", "there is no queue"),
        ("run_timeout_s", "whoever starts the program ends it"),
        ("webhook", "there is no server that sends it"),
        ("metadata", "there is no server that stores it"),
    ];
    let help = latentd(&["generate", "--help"], &[]);
    let help = String::from_utf8(help.stdout).unwrap();
    let flags: Vec<String> = help
        .lines()
        .filter_map(|line| Some(line.trim_start().split_once("--")?.1))
        .map(|flag| flag.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect())
        .collect();
    for field in FIELDS {
        let is_flag = flags.contains(&field.name.replace('_', "-")) && field.name != "output";
        let is_listed = otherwise.iter().any(|(name, _)| *name == field.name);
        assert!(is_flag != is_listed, "{} is a flag: {is_flag}, in the list of others: {is_listed}", field.name);
    }
    assert!(otherwise.iter().all(|(name, _)| FIELDS.iter().any(|field| field.name == *name)));
}

#[test]
fn generate_accepts_fields_of_every_type() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fox.png");
    let arguments = [
        "--width",
        "64",
        "--height",
        "96",
        "--steps",
        "2",
        "--guidance-interval",
        "[0, 0.5]",
        "--clip-skip",
        "1",
        "--seed",
        "9007199254740993",
        "--prompt-syntax",
        "weighted",
        "--loras",
        r#"[{"name": "emoji-flat", "scale": 0.5}]"#,
        "--scheduler",
        r#"{"timestep_spacing": "trailing"}"#,
        "--negative-prompt",
        "7",
        "-o",
        file.to_str().unwrap(),
    ];
    let output = latentd(&[&["generate", "a fox"], &arguments[..]].concat(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("seed 9007199254740993"));
    let (width, height, _) = decode(&std::fs::read(&file).unwrap());
    assert_eq!((width, height), (64, 96));
    for (flags, named) in [
        (&["--mask-blur", "3"][..], "--mask"),
        (&["--steps", "-1"], "--steps"),
        (&["--steps", "1.5"], "whole number"),
        (&["--strength", "0.5"], "--image"),
        (&["--keep-unmasked", "perhaps", "--image", "a.png", "--mask", "b.png"], "a.png"),
        (&["--sigmas", "3"], "sigmas"),
        (&["--width", "64", "--size", "64x64"], "size"),
    ] {
        let output = latentd(&[&["generate", "a fox", "-o", "none.png"], flags].concat(), &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(named), "{flags:?}: {text}");
    }
}

#[test]
fn generate_writes_each_of_several_images() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fox.png");
    let arguments =
        ["generate", "a red fox", "-n", "2", "--steps", "2", "--size", "96x64", "-o", file.to_str().unwrap()];
    assert!(latentd(&arguments, &[]).status.success());
    for name in ["fox-0.png", "fox-1.png"] {
        let (width, height, _) = decode(&std::fs::read(folder.path().join(name)).unwrap());
        assert_eq!((width, height), (96, 64));
    }
}

#[test]
fn errors_of_bad_arguments_name_the_bound() {
    for (arguments, named) in [
        (["--steps", "5000", "-o", "fox.png"], "steps must be between 1 and 1000"),
        (["--quality", "0", "-o", "fox.jpg"], "quality must be between 1 and 100"),
        (["--quality", "80", "-o", "fox.png"], "quality is only for the format jpeg: png is written lossless"),
        (["--quality", "80", "-o", "fox.webp"], "quality is only for the format jpeg: webp is written lossless"),
    ] {
        let output = latentd(&[&["generate", "a fox"], &arguments[..]].concat(), &[]);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(named), "{text}");
    }
}

#[test]
fn values_that_are_not_finite_numbers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("fox.png").to_str().unwrap().to_owned();
    for (option, value) in [
        ("--guidance-scale", "nan"),
        ("--guidance-scale", "inf"),
        ("--guidance-scale", "-inf"),
        ("--guidance-scale", "1e999"),
        ("--guidance-scale", "much"),
        ("--strength", "nan"),
    ] {
        let option_and_value = format!("{option}={value}");
        let arguments = ["generate", "a fox", "--steps", "1", "--image", "none.png", &option_and_value, "-o", &output];
        let answer = latentd(&arguments, &[]);
        let text = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(2), "{option_and_value}: {text}");
        assert!(text.contains(option) && text.contains("must be a finite number"), "{text}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("a.png")).unwrap();
    std::fs::create_dir(path("b-1.png")).unwrap();
    // A run of 1000 large steps would take far too long, so these commands end quickly only if they compute no step.
    let cases = [
        (
            "fox.bmp",
            "1",
            2,
            "the extension must be .png, .jpg, .jpeg, .webp, .wav, .flac, .opus, .ogg, .mp4, .gif, .apng or .zip, not .bmp",
        ),
        ("fox.jpg.txt", "1", 2, ".mp4, .gif, .apng or .zip, not .txt"),
        ("none/fox.jpg", "1", 1, "none/fox.jpg"),
        ("none/fox.png", "1", 1, "none/fox.png"),
        ("a.png", "1", 1, "a.png"),
        ("b.png", "2", 1, "b-1.png"),
    ];
    for (name, n, code, named) in cases {
        let output = path(name);
        let arguments = ["generate", "a fox", "--steps", "1000", "--size", "2048x2048", "-n", n, "-o", &output];
        let output = latentd(&arguments, &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {text}");
        assert!(text.contains(named), "{name}: {text}");
    }
    // The check leaves no files behind, and upper-case extensions are accepted.
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.png", "b-1.png"]);
    let arguments = ["generate", "a fox", "--steps", "1", "--size", "64x64", "-o", &path("FOX.PNG")];
    assert!(latentd(&arguments, &[]).status.success());
    assert_eq!(decode(&std::fs::read(path("FOX.PNG")).unwrap()).0, 64);
}

/// The arguments of `generate` for a small picture, followed by these.
fn small<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["generate", "a fox", "--steps", "1", "--size", "64x64", "--seed", "7"], arguments].concat()
}

#[test]
fn standard_output_contains_only_the_picture() {
    for name in ["-", "/dev/stdout"] {
        let output = latentd(&small(&["-o", name]), &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("standard output (seed 7)"), "{name}: {text}");
        assert!(output.stdout.starts_with(b"\x89PNG") && output.stdout.ends_with(b"IEND\xaeB`\x82"), "{name}");
        assert_eq!(decode(&output.stdout).0, 64);
    }
    for (format, begin) in
        [("jpeg", &b"\xff\xd8\xff"[..]), ("JPG", b"\xff\xd8\xff"), ("webp", b"RIFF"), ("png", b"\x89PNG")]
    {
        let output = latentd(&small(&["-o", "-", "--format", format]), &[]);
        assert!(output.status.success() && output.stdout.starts_with(begin), "{format}");
    }
    for (arguments, said) in [
        (&["-o", "-", "--format", "bmp"][..], "webp, wav, flac, opus, mp4, zip, apng or gif"),
        (&["-o", "a.png", "--format", "webp"], "--format is webp, and a.png is a name of a png file"),
        (&["-o", "-", "--format", "webp", "--quality", "5"], "only for the format jpeg"),
    ] {
        let output = latentd(&small(arguments), &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty() && text.contains(said), "{text}");
    }
    let output = latentd(&small(&["-o", "-", "-n", "2"]), &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "{text}");
    assert!(text.contains("standard output takes one file, not 2"), "{text}");
    assert!(!std::path::Path::new("-").exists());
}

#[test]
fn pipes_are_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (to, from) = (path("to.png"), path("from"));
    for pipe in [&to, &from] {
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    let reading = std::thread::spawn({
        let to = to.clone();
        move || std::fs::read(to).unwrap()
    });
    let output = latentd(&small(&["-o", &to]), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let picture = reading.join().unwrap();
    assert_eq!(decode(&picture).0, 64);

    let writing = std::thread::spawn({
        let (from, picture) = (from.clone(), picture.clone());
        move || std::fs::write(from, picture).unwrap()
    });
    let output = latentd(&small(&["--image", &from, "--strength", "1", "-o", &path("b.png")]), &[]);
    writing.join().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Reads the same picture from standard input.
    let arguments = small(&["--image", "-", "--strength", "1", "-o", "-"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.args(&arguments).env_remove("LATENTD_CONFIG").stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&picture).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(decode(&output.stdout), decode(&std::fs::read(path("b.png")).unwrap()));

    let output = latentd(&small(&["--image", "/dev/zero", "-o", "-"]), &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("cannot read /dev/zero: it has more than"), "{text}");
    let output = latentd(&small(&["--image", "-", "--mask", "-", "-o", "-"]), &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("--image and --mask cannot both be standard input"), "{text}");
}

#[test]
fn every_field_can_be_set_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let draw = |name: &str, arguments: &[&str]| {
        let output = latentd(&[&["generate", "a fox", "--seed", "7", "-o", &path(name)], arguments].concat(), &[]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(draw("flags.png", &["--steps", "2", "--scheduler", "ddim"]).0, Some(0));
    assert_eq!(draw("text.png", &["--set", "steps=2", "--set", "scheduler=ddim"]).0, Some(0));
    let file = |name: &str| unsigned(&std::fs::read(path(name)).unwrap());
    assert!(file("flags.png") == file("text.png"), "the same picture");
    // A ControlNet with a picture from a file.
    let controls = serde_json::json!([{
        "model": "emoji-canny", "image": {"file": path("flags.png")}, "preprocess": "canny", "scale": 0.9,
    }]);
    let (code, text) = draw("edges.png", &["--set", "steps=2", "--set", &format!("controls={controls}")]);
    assert_eq!(code, Some(0), "{text}");
    assert!(file("edges.png") != file("flags.png"));
    assert_eq!(draw("bare.png", &["--set", "steps=2", "--set", "output.metadata=none"]).0, Some(0));
    assert!(file("bare.png").len() < file("flags.png").len());

    for (set, said) in [
        ("steps=0", "steps must be between 1 and"),
        ("steps", "FIELD=VALUE"),
        ("color=red", "color is not a field"),
        ("n=2", "n cannot be set with --set; use -n"),
        ("priority=low", "only a server has a queue"),
        (r#"controls=[{"model": "emoji-canny", "image": {"file": "none.png"}}]"#, "cannot read none.png"),
    ] {
        let (code, text) = draw("no.png", &["--set", set]);
        assert!(code != Some(0) && text.contains(said), "{set}: {text}");
    }
    assert!(!std::path::Path::new(&path("no.png")).exists());
}

#[test]
fn warnings_are_printed() {
    let (long, word) = (vec!["fox"; 40].join(" "), "a <nothing-like-it> fox".to_owned());
    for (arguments, said) in [
        (vec![long.as_str()], "warning: prompt has 40 tokens"),
        (vec![word.as_str()], "warning: prompt has <nothing-like-it>, which names no known textual inversion\n"),
        (vec!["a fox", "--size", "64x64"], "warning: the size is 64x64, and this model was made for 128x128"),
    ] {
        let output = latentd(&[&["generate", "--steps", "1", "-o", "-"], &arguments[..]].concat(), &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains(said), "{said}: {text}");
        assert!(!text.contains("/v1"), "{text}");
    }
    let output = latentd(&["generate", "a fox", "--steps", "1", "-o", "-"], &[]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("warning"), "{output:?}");
}

#[test]
fn host_and_port_of_the_server_are_flags() {
    let data = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_latentd"))
        .args(["serve", "--host", "localhost", "--port", "0", "--data-dir", data.path().to_str().unwrap()])
        .env_remove("LATENTD_CONFIG")
        .env("LATENTD_HTTP__BIND", "0.0.0.0:1")
        .env("LATENTD_OPERATOR__BIND", "127.0.0.1:0")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("http://127.0.0.1:") && !line.contains("127.0.0.1:0"), "{line}");
    for arguments in [&["--host", "example.com"][..], &["--port", "70000"], &["--bind", "[::1]:0", "--port", "1"]] {
        let output = latentd(&[&["serve"], arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn errors_of_generate_do_not_mention_http() {
    for (arguments, code, said) in [
        (&["--model", "nope"][..], 1, "model \"nope\" is not in the catalogue; `latentd models` lists the models"),
        (&["--scheduler", "Euler"], 1, "unknown scheduler name \"Euler\"; the names are "),
        (&["-o", ""], 2, "it must name a file, or be - for standard output"),
        (&["-o", "out/"], 2, "it must name a file, or be - for standard output"),
        (&["-n", "2", "-o", "/"], 2, "it must name a file, or be - for standard output"),
        (&["-n", "2", "-o", "/tmp"], 1, "cannot write /tmp: it is a folder; name a file in it"),
    ] {
        let output = if arguments.contains(&"-o") { vec![] } else { vec!["-o", "-"] };
        let answer = latentd(&small(&[arguments, &output].concat()), &[]);
        let text = String::from_utf8_lossy(&answer.stderr);
        assert_eq!(answer.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
        assert!(["GET ", "/v1", "body", "422"].iter().all(|word| !text.contains(word)), "{arguments:?}: {text}");
    }
}

#[test]
fn settings_are_checked_and_printed() {
    let printed = latentd(&["config", "print"], &[("LATENTD_HTTP__BIND", "127.0.0.1:9000")]);
    assert!(printed.status.success());
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("bind = \"127.0.0.1:9000\""), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latentd.toml");
    std::fs::write(&file, &text).unwrap();
    let checked = latentd(&["config", "check", "--config", file.to_str().unwrap()], &[]);
    assert!(checked.status.success(), "what is printed can be read: {}", String::from_utf8_lossy(&checked.stderr));

    for (key, value, named) in [
        ("LATENTD_HTTP__BIND", "nowhere", "http.bind"),
        ("LATENTD_HTTP__COLOUR", "red", "LATENTD_HTTP__COLOUR is no setting"),
        ("LATENTD_ENGINE__MAX_ROWS", "0", "engine.max_rows"),
        ("LATENTD_LOG__FILTER", "a=b=c", "log.filter"),
        ("LATENTD_LOG__FILTER", "latentd=debug,info", ""),
        ("LATENTD_MODELS__DEFAULT", "none", ""),
    ] {
        let output = latentd(&["config", "check"], &[(key, value)]);
        let text = String::from_utf8_lossy(&output.stderr);
        // `config check` does not check whether a model exists; the catalogue does.
        assert_eq!(output.status.success(), named.is_empty(), "{key}: {text}");
        assert!(text.contains(named), "{key}: {text}");
    }
}

#[test]
fn texts_and_lists_of_the_environment_are_not_converted() {
    let settings = [
        ("LATENTD_DATA_DIR", "007", r#"data_dir = "007""#),
        ("LATENTD_MODELS__DEFAULT", "1e3", r#"default = "1e3""#),
        ("LATENTD_CONTROLNETS__DIR", "20240101.10", r#"dir = "20240101.10""#),
        ("LATENTD_EMBEDDINGS__DIR", "TRUE", r#"dir = "TRUE""#),
        ("LATENTD_BLOBS__REGION", "1e2", r#"region = "1e2""#),
        ("LATENTD_MODELS__PRELOAD", "007", r#"preload = ["007"]"#),
        ("LATENTD_WEBHOOKS__PORTS", "443", "ports = [443]"),
        ("LATENTD_WEBHOOKS__RETRY_S", "0,0.5", "retry_s = [\n    0.0,\n    0.5,\n]"),
        ("LATENTD_RETENTION__FINISHED_S", "1e3", "finished_s = 1000.0"),
        ("LATENTD_LIMITS__MAX_STEPS", "1e2", "max_steps = 100"),
        ("LATENTD_AUTH__REQUIRED", "TRUE", "required = true"),
    ];
    let output = latentd(&["config", "print"], &settings.map(|(name, value, _)| (name, value)));
    let plain = |text: &str| text.split_whitespace().collect::<String>().replace(",]", "]");
    let text = String::from_utf8_lossy(&output.stdout);
    for (name, _, printed) in settings {
        assert!(plain(&text).contains(&plain(printed)), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn settings_that_are_whole_numbers_refuse_fractions() {
    for (name, value, said) in [
        ("LATENTD_MODELS__POLL_INTERVAL_S", "0.5", "models.poll_interval_s: must be a whole number, not 0.5"),
        ("LATENTD_ENGINE__THREADS", "1.9", "engine.threads: must be a whole number, not 1.9"),
        ("LATENTD_LIMITS__MAX_STEPS", "99.9", "limits.max_steps: must be a whole number, not 99.9"),
        ("LATENTD_ENGINE__MAX_BYTES", "99999999999999999999", "engine.max_bytes: must be a whole number, not 1"),
        ("LATENTD_ENGINE__TEXT_CACHE_ENTRIES", "nan", "text_cache_entries: must be a whole number, not NaN"),
    ] {
        let output = latentd(&["config", "check"], &[(name, value)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{name}: {text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("latentd.toml");
    for (settings, said) in [
        ("[models]\npoll_interval_s = 0.5", "models.poll_interval_s: must be a whole number, not 0.5"),
        ("[webhooks]\nports = [443.5]", "webhooks.ports: must be a whole number, not 443.5"),
        ("[models]\npoll_interval_s = 5.0\n[retention]\nfinished_s = 0.5", ""),
    ] {
        std::fs::write(&file, settings).unwrap();
        let output = latentd(&["config", "check", "--config", file.to_str().unwrap()], &[]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() == said.is_empty() && text.contains(said), "{settings}: {text}");
    }
}

#[test]
fn errors_of_words_and_addresses_name_the_allowed_values() {
    for (name, value, key, said) in [
        ("LATENTD_LOG__FORMAT", "JSON", "log.format", r#"must be text or json, not "JSON""#),
        ("LATENTD_ROLE", "ALL", "role", r#"must be all, api or worker, not "ALL""#),
        ("LATENTD_KERNELS__WINOGRAD", "on", "kernels.winograd", r#"must be auto, off or force, not "on""#),
        ("LATENTD_KERNELS__MATRIX_UNIT", "on", "kernels.matrix_unit", r#"must be off or auto, not "on""#),
        ("LATENTD_HTTP__BIND", "localhost:8080", "http.bind", r#"127.0.0.1:8080 or [::1]:8080, not "localhost:8080""#),
        ("LATENTD_OPERATOR__BIND", "9090", "operator.bind", "must be an IP address and a port"),
    ] {
        let output = latentd(&["config", "check"], &[(name, value)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said) && text.contains(key), "{name}: {text}");
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.args(["config", "check"]).env("LATENTD_MODELS__DIR", OsStr::from_bytes(b"/tmp/\xff"));
    let output = command.env("OTHER", OsStr::from_bytes(b"\xff")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("LATENTD_MODELS__DIR is not UTF-8"), "{text}");
}

#[test]
fn service_variables_of_kubernetes_are_ignored() {
    let links = [
        ("LATENTD_SERVICE_HOST", "10.96.0.7"),
        ("LATENTD_SERVICE_PORT", "80"),
        ("LATENTD_SERVICE_PORT_HTTP", "80"),
        ("LATENTD_PORT", "tcp://10.96.0.7:80"),
        ("LATENTD_PORT_80_TCP", "tcp://10.96.0.7:80"),
        ("LATENTD_PORT_80_TCP_ADDR", "10.96.0.7"),
    ];
    let output = latentd(&["config", "check"], &links);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_error_is_printed_once_and_suggests_the_right_name() {
    let output = latentd(&["config", "check"], &[("LATENTD_HTTP_BIND", "0.0.0.0:80")]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("did you mean LATENTD_HTTP__BIND?"), "{text}");

    let output = latentd(&["config", "check", "--config", "/nowhere/latentd.toml"], &[]);
    let missing = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(missing.matches("No such file").count(), 1, "{missing}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let output = latentd(&["migrate"], &[("LATENTD_DATA_DIR", file.to_str().unwrap())]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert_eq!(text.matches("os error").count(), 1, "{text}");
}

#[test]
fn models_are_listed_with_the_unusable_ones() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::write(broken.join("model_index.json"), "{").unwrap();
    let output = latentd(&["models"], &[("LATENTD_MODELS__DIR", folder.path().to_str().unwrap())]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("emoji (default): ") && text.contains(" MB, 128 × 128 pixels"), "{text}");
    assert!(text.contains("broken: cannot be used: model_index.json"), "{text}");
}

#[tokio::test]
async fn healthcheck_succeeds_only_while_the_server_runs() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let operator = server.operator.trim_start_matches("http://").to_owned();
    let settings = [("LATENTD_OPERATOR__BIND", operator.as_str())];
    assert!(latentd(&["healthcheck"], &settings).status.success());
    server.kill();
    assert!(!latentd(&["healthcheck"], &settings).status.success());
}

#[test]
fn the_compose_files_use_valid_settings() {
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut checked = 0;
    for file in ["compose.yaml", "scale-out.compose.yaml"] {
        let text = std::fs::read_to_string(deploy.join(file)).unwrap();
        let mut compose: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
        compose.apply_merge().unwrap();
        for (name, service) in compose["services"].as_mapping().unwrap() {
            let (name, is_ours) = (name.as_str().unwrap(), service["image"].as_str() == Some("latentd:cpu"));
            let environment = service["environment"].as_mapping().filter(|_| is_ours);
            let settings: Vec<(&str, String)> = environment
                .into_iter()
                .flatten()
                .map(|(key, value)| (key.as_str().unwrap(), defaults_filled_in(value.as_str().unwrap())))
                .collect();
            let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
            let command = service["command"].as_sequence().into_iter().flatten();
            let role = command.filter_map(|word| word.as_str()).find(|word| ["api", "worker"].contains(word));
            let role = ("LATENTD_ROLE", role.unwrap_or("all"));
            let output = latentd(&["config", "check"], &[&settings[..], &[role]].concat());
            assert!(output.status.success(), "{file}, {name}: {}", String::from_utf8_lossy(&output.stderr));
            checked += usize::from(is_ours);
        }
    }
    assert_eq!(checked, 4, "the services of the image were found");
}

/// Replaces `${NAME:-default}` by `default`, as Compose does if the environment has no such variable.
fn defaults_filled_in(value: &str) -> String {
    let Some((before, rest)) = value.split_once("${") else { return value.to_owned() };
    let (inner, after) = rest.split_once('}').expect("a variable ends");
    let (_, default) = inner.split_once(":-").expect("a variable has a default");
    format!("{before}{default}{}", defaults_filled_in(after))
}
