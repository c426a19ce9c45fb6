//! The program without a server.

use std::process::{Command, Output};

use crate::harness::{Server, decode, request};

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
    assert_eq!(std::fs::read(&file).unwrap(), server.picture(&id, 0).await);
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
fn bad_arguments_name_the_bound() {
    let output = latentd(&["generate", "a fox", "--steps", "5000", "-o", "fox.png"], &[]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("steps must be between 1 and 1000"), "{text}");
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("a.png")).unwrap();
    std::fs::create_dir(path("b-1.png")).unwrap();
    // A run of so many steps would outlast every patience; each of these ends without a step.
    let cases = [
        ("fox.jpg", "1", 2, "the extension must be .png, not .jpg"),
        ("fox.webp", "1", 2, "the extension must be .png, not .webp"),
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
    // What was looked at is as it was, and an upper-case extension is one too.
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a.png", "b-1.png"]);
    let arguments = ["generate", "a fox", "--steps", "1", "--size", "64x64", "-o", &path("FOX.PNG")];
    assert!(latentd(&arguments, &[]).status.success());
    assert_eq!(decode(&std::fs::read(path("FOX.PNG")).unwrap()).0, 64);
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
        ("LATENTD_MODELS__DEFAULT", "none", ""),
    ] {
        let output = latentd(&["config", "check"], &[(key, value)]);
        let text = String::from_utf8_lossy(&output.stderr);
        // Whether a model exists is for the catalogue to say, not for the settings.
        assert_eq!(output.status.success(), named.is_empty(), "{key}: {text}");
        assert!(text.contains(named), "{key}: {text}");
    }
}

#[test]
fn a_pod_beside_a_service_of_the_same_name_starts() {
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
fn an_error_is_told_once_and_names_what_was_meant() {
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
async fn healthcheck_tells_a_living_server_from_none() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let operator = server.operator.trim_start_matches("http://").to_owned();
    let settings = [("LATENTD_OPERATOR__BIND", operator.as_str())];
    assert!(latentd(&["healthcheck"], &settings).status.success());
    server.kill();
    assert!(!latentd(&["healthcheck"], &settings).status.success());
}

#[test]
fn the_compose_files_give_settings_that_exist() {
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

/// As compose does where the environment has no such variable: `${NAME:-default}` is `default`.
fn defaults_filled_in(value: &str) -> String {
    let Some((before, rest)) = value.split_once("${") else { return value.to_owned() };
    let (inner, after) = rest.split_once('}').expect("a variable ends");
    let (_, default) = inner.split_once(":-").expect("a variable has a default");
    format!("{before}{default}{}", defaults_filled_in(after))
}
