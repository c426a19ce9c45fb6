//! The settings in the manifests are settings of the program, within their bounds.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

/// The environment variables of one container.
type Environment = BTreeMap<String, String>;

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The lines `LATENTD_NAME=VALUE` of a file.
fn lines(path: &str) -> Environment {
    let text = read(path);
    let found = text.lines().filter(|line| line.starts_with("LATENTD_")).filter_map(|line| line.split_once('='));
    found.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The entries `{name: LATENTD_NAME, value: VALUE}` and the literals `[LATENTD_NAME=VALUE]` of a manifest.
fn entries(path: &str) -> Environment {
    let mut found = Environment::new();
    for line in read(path).lines() {
        let line = line.trim();
        if let Some((name, value)) = line.strip_prefix("- {name: ").and_then(|rest| rest.split_once(", value: ")) {
            found.insert(name.to_owned(), value.trim_end_matches('}').trim_matches('"').to_owned());
        } else if let Some((name, value)) =
            line.strip_prefix("literals: [").and_then(|rest| rest.trim_end_matches(']').split_once('='))
        {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    found.retain(|name, _| name.starts_with("LATENTD_"));
    found
}

/// The output of `latentd config print` for these settings. It opens no devices, so the settings of GPUs are read, too.
fn print(environment: &Environment) -> Result<String, String> {
    let inherited = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("LATENTD_"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    command.args(["config", "print"]).envs(environment);
    for name in inherited.filter(|name| !environment.contains_key(name)) {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn the_program_accepts_the_settings_of_every_container() {
    let scale_out = "kustomize/overlays/scale-out";
    let shared = ["kustomization.yaml", "api.yaml", "worker.yaml"].map(|file| entries(&format!("{scale_out}/{file}")));
    let [generated, api, worker] = shared;
    let base = lines("kustomize/base/settings.env");
    let (secret, models) = (lines("secret.example.env"), entries("kustomize/components/models/kustomization.yaml"));
    assert!(print(&secret).unwrap_err().contains("at least 16"), "the words of the example are no secrets");
    let secret: Environment =
        secret.into_iter().map(|(name, value)| (name, value.replace("REPLACE-ME", "c2VjcmV0IGZvciB0ZXN0cw"))).collect();
    let gpu = entries("kustomize/overlays/gpu/worker.yaml");
    let single = entries("kustomize/overlays/single/latentd.yaml");
    for (what, part) in [
        ("base", &base),
        ("api", &api),
        ("worker", &worker),
        ("gpu", &gpu),
        ("single", &single),
        ("generated", &generated),
        ("models", &models),
        ("secret", &secret),
    ] {
        assert!(!part.is_empty(), "no settings are found in {what}");
    }
    let role = |name: &str| Environment::from([("LATENTD_ROLE".to_owned(), name.to_owned())]);
    let all = |parts: &[&Environment]| parts.iter().flat_map(|part| (*part).clone()).collect::<Environment>();
    for (what, environment) in [
        ("single", all(&[&base, &single])),
        ("single with models", all(&[&base, &single, &models])),
        ("api", all(&[&base, &generated, &secret, &api, &role("api")])),
        ("worker", all(&[&base, &generated, &secret, &worker, &role("worker"), &models])),
        ("worker with a GPU", all(&[&base, &generated, &secret, &worker, &gpu, &role("worker")])),
        ("migrate", secret.clone()),
    ] {
        let printed = print(&environment).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(printed.contains("shutdown_timeout_s"), "{what}: {printed}");
    }
    let misspelled = Environment::from([("LATENTD_HTTP__BINDS".to_owned(), "0.0.0.0:8080".to_owned())]);
    assert!(print(&misspelled).unwrap_err().contains("did you mean LATENTD_HTTP__BIND?"));
}
