//! Fault tests of hostile names and addresses: path traversal, symbolic links and server-side request forgery.

use std::{
    fs,
    os::unix::fs::symlink,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::{
    figures::Figures,
    load::{Load, request},
    server::{Server, with},
    site::Site,
};

/// T20.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_addresses_that_point_elsewhere_are_refused() {
    let site = Site::single("T20 names and addresses that lead elsewhere").await;
    let [outside, models] = ["outside", "models"].map(|name| site.folder.path().join(name));
    for folder in [&outside, &models.join("elsewhere")] {
        fs::create_dir_all(folder).unwrap();
    }
    // A complete model whose parts are symbolic links to another folder.
    let copied = Command::new("cp").arg("-r").arg("models/emoji").arg(outside.join("model")).status().unwrap();
    assert!(copied.success());
    for part in fs::read_dir(outside.join("model")).unwrap().flatten() {
        symlink(part.path(), models.join("elsewhere").join(part.file_name())).unwrap();
    }
    fs::write(outside.join("secret.safetensors"), "nothing").unwrap();
    symlink(outside.join("secret.safetensors"), models.join("away.safetensors")).unwrap();
    // Counts connections from the server, which must never connect.
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = trap.local_addr().unwrap().port();
    let caught = Arc::new(AtomicUsize::new(0));
    let counted = caught.clone();
    tokio::spawn(async move {
        while trap.accept().await.is_ok() {
            counted.fetch_add(1, Relaxed);
        }
    });

    // All other settings allow the webhook, so only its address can be the reason for a refusal.
    let site = site
        .with("LATENTD_WEBHOOKS__SECRET", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")
        .with("LATENTD_WEBHOOKS__ALLOW_HTTP", true)
        .with("LATENTD_WEBHOOKS__PORTS", port);
    let site = site.with("LATENTD_MODELS__DIR", models.display()).with("LATENTD_LORAS__DIR", models.display());
    let server = site.start("all").await;
    site.open(&[&server]);
    let load = Load::through(site.door.url());

    let id = load.submit("before", &request(1, 5)).await;
    load.ended(&id).await;
    let picture = BASE64_STANDARD.encode(server.picture(&id, 0).await);
    let names = [
        "../outside/model",
        "..%2foutside",
        "%2e%2e/outside",
        "/etc/passwd",
        "a\0b",
        "elsewhere",
        "away",
        "..",
        ".",
        "",
        "emoji/../emoji",
        "../../../../../../etc/passwd",
        "file:///etc/passwd",
        "con",
        "emoji\n",
    ];
    let mut refused = 0;
    for name in names {
        for (pointer, fields) in [
            ("/model", json!({"model": name})),
            ("/loras/0", json!({"loras": [{"name": name}]})),
            ("/controls/0", json!({"controls": [{"model": name, "image": {"b64": picture}}]})),
            ("/refiner", json!({"refiner": {"model": name}})),
            ("/scheduler", json!({"scheduler": name})),
        ] {
            refused += is_refused(&server, pointer, &fields).await;
        }
    }
    for path in ["..%2foutside", "%2e%2e%2foutside", "..%00", "%2fetc%2fpasswd", "emoji%2f..%2femoji"] {
        let status = server.get(&format!("/v1/models/{path}")).await.status();
        assert!(status.is_client_error(), "{path}: {status}");
        let status = server.get(&format!("/v1/images/{path}/content/0")).await.status();
        assert!(status.is_client_error(), "{path}: {status}");
    }
    let hosts = [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.0.1",
        "[fd00::1]",
        "[64:ff9b::7f00:1]",
        "100.64.0.1",
        "user@127.0.0.1",
    ];
    for host in hosts {
        for scheme in ["http", "https", "ftp", "file"] {
            let url = format!("{scheme}://{host}:{port}/hook");
            refused += is_refused(&server, "/webhook", &json!({"webhook": {"url": url}})).await;
            refused += is_refused(&server, "/image", &json!({"image": {"url": url}})).await;
        }
    }
    assert_eq!(caught.load(Relaxed), 0, "the server connected to the trap");
    let figures = Figures::default()
        .note(format!("{refused} requests refused with 422"))
        .note("0 bytes to the trap")
        .note("redirects and names whose address changes: the tests of webhooks");
    site.verdict(&load, figures).await;
}

/// Asserts that the request is refused with errors of this field only; returns 1, for counting.
async fn is_refused(server: &Server, pointer: &str, fields: &Value) -> usize {
    let answer = server.post(&with(request(1, 5), fields)).await;
    let status = answer.status();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(status.as_u16(), 422, "{fields}: {problem}");
    let errors = problem["errors"].as_array().unwrap();
    let are_its = errors.iter().all(|error| error["pointer"].as_str().unwrap().starts_with(pointer));
    assert!(!errors.is_empty() && are_its, "{fields}: {problem}");
    1
}
