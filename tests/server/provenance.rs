//! Tests of content credentials: signing, verification, ingredients, keys and policies.

use std::{io::Cursor, path::Path, process::Command};

use base64::{Engine, engine::general_purpose::STANDARD};
use c2pa::{Builder, Context, Reader, SigningAlg, ValidationState, create_signer};
use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Server, request, unsigned, with};

const FORMATS: [&str; 3] = ["png", "jpeg", "webp"];

/// A request that takes moments.
fn brief(format: &str) -> Value {
    with(request("a red fox", 7), &json!({"steps": 2, "width": 64, "height": 64, "output": {"format": format}}))
}

fn sha256(file: &[u8]) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Draws the picture of a request; returns its generation and its file.
async fn drawn(server: &Server, body: &Value) -> (Value, Vec<u8>) {
    let id = server.accept(body).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let file = server.file(&id, 0).await;
    (ended, file)
}

/// The status and the JSON of `POST /v1/verify` for a file.
async fn asked(server: &Server, file: &[u8]) -> (StatusCode, Value) {
    let body = server.client.post(server.url("/v1/verify")).header(header::CONTENT_TYPE, "image/png");
    let answer = body.body(file.to_vec()).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

/// The report about a picture.
async fn verified(server: &Server, file: &[u8]) -> Value {
    let (status, report) = asked(server, file).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    report
}

/// The report of another reader, without trust anchors, about a file.
fn read(file: &[u8], format: &str) -> (ValidationState, Value) {
    let reader =
        Reader::from_context(Context::new()).with_stream(&format!("image/{format}"), Cursor::new(file)).unwrap();
    (reader.validation_state(), serde_json::from_str(&reader.json()).unwrap())
}

/// The file with one bit of its compressed pixels changed.
fn changed(file: &[u8]) -> Vec<u8> {
    let mut changed = file.to_vec();
    // A WebP file ends with its credentials, the other files end with the pixels.
    let pixels = file.windows(4).position(|window| window == b"VP8L");
    let at = pixels.map_or(file.len() - 64, |at| at + 64);
    changed[at] ^= 1;
    changed
}

#[tokio::test]
async fn every_format_is_signed_and_a_changed_bit_is_found() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for format in FORMATS {
        let (ended, file) = drawn(&server, &brief(format)).await;
        let image = &ended["images"][0];
        assert_eq!((&image["sha256"], &image["bytes"]), (&sha256(&file).into(), &file.len().into()));
        let bare = unsigned(&file);
        assert_eq!(image["unsigned_sha256"], sha256(&bare), "{format}");
        assert!((1..8192).contains(&(file.len() - bare.len())), "{} bytes are added", file.len() - bare.len());
        let etag = server.get(image["url"].as_str().unwrap()).await.headers()[header::ETAG].clone();
        assert_eq!(etag, format!("\"{}\"", sha256(&file)));

        let report = verified(&server, &file).await;
        assert_eq!((&report["verdict"], &report["by_this_server"]), (&"intact".into(), &true.into()), "{report}");
        assert_eq!((&report["trusted"], &report["problems"]), (&false.into(), &json!([])), "{report}");
        assert_eq!(report["content_type"], format!("image/{format}"));
        assert_eq!(report["claim_generator"], format!("latentd {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(report["actions"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!(report["actions"][0]["action"], "c2pa.created");
        let source = report["actions"][0]["digital_source_type"].as_str().unwrap();
        assert!(source.ends_with("/trainedAlgorithmicMedia"), "{source}");
        let generation = &report["generation"];
        assert_eq!((&generation["model"], &generation["id"]), (&"emoji".into(), &ended["id"]));
        assert_eq!(generation["model_sha256"].as_str().unwrap().len(), 64, "{generation}");
        assert_eq!((&generation["seed"], &generation["unsigned_sha256"]), (&7.into(), &image["unsigned_sha256"]));
        assert_eq!(
            (&generation["request"]["prompt"], &generation["request"]["seed"]),
            (&"a red fox".into(), &7.into())
        );

        let (state, store) = read(&file, format);
        assert_eq!(state, ValidationState::Valid, "{store}");
        let report = verified(&server, &changed(&file)).await;
        assert_eq!((&report["verdict"], &report["by_this_server"]), (&"altered".into(), &false.into()), "{report}");
        let codes: Vec<_> = report["problems"].as_array().unwrap().iter().map(|problem| &problem["code"]).collect();
        assert!(codes.contains(&&"assertion.dataHash.mismatch".into()), "{codes:?}");
        assert_eq!(read(&changed(&file), format).0, ValidationState::Invalid);

        let report = verified(&server, &bare).await;
        assert_eq!((&report["verdict"], &report["signer"]), (&"none".into(), &Value::Null), "{report}");
    }
    assert!(server.metric("latentd_verifications_total", "result=\"altered\"").await == 3.0);
    assert!(server.metric("latentd_sign_seconds_count", "").await == 3.0);
}

#[tokio::test]
async fn the_signed_files_of_equal_requests_differ_only_in_their_credentials() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for format in FORMATS {
        let (first, one) = drawn(&server, &brief(format)).await;
        let (second, other) = drawn(&server, &brief(format)).await;
        assert!(one != other, "a credential has random numbers");
        assert!(unsigned(&one) == unsigned(&other), "{format}");
        assert_eq!(first["images"][0]["unsigned_sha256"], second["images"][0]["unsigned_sha256"]);
    }
}

#[tokio::test]
async fn a_verified_picture_is_drawn_again() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let again = async |file: &[u8]| {
        let url = server.url("/v1/verify?recompute=true");
        let answer = server.client.post(url).header(header::CONTENT_TYPE, "image/png").body(file.to_vec());
        answer.send().await.unwrap().json::<Value>().await.unwrap()["recomputed"].clone()
    };
    let (_, file) = drawn(&server, &brief("png")).await;
    let recomputed = again(&file).await;
    assert_eq!(recomputed["result"], "same", "{recomputed}");
    let id = recomputed["generation"].as_str().unwrap();
    assert!(server.file(id, 0).await != file && server.picture(id, 0).await == unsigned(&file));
    // All images of a batch are drawn again, and the second one is compared.
    let (batch, _) = drawn(&server, &with(brief("png"), &json!({"n": 2, "seed_mode": "batch"}))).await;
    let second = server.file(batch["id"].as_str().unwrap(), 1).await;
    assert_eq!(again(&second).await["result"], "same");
    let bare = with(brief("png"), &json!({"output": {"metadata": "none"}}));
    for file in [changed(&file), unsigned(&file), drawn(&server, &bare).await.1] {
        let recomputed = again(&file).await;
        assert_eq!((&recomputed["result"], &recomputed["generation"]), (&"impossible".into(), &Value::Null));
    }
    assert_eq!(verified(&server, &file).await["recomputed"], Value::Null);
}

#[tokio::test]
async fn the_level_of_metadata_decides_what_the_credentials_contain() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    for (level, has_seed) in [("seed", true), ("none", false)] {
        let body = with(brief("png"), &json!({"output": {"metadata": level}}));
        let (_, file) = drawn(&server, &body).await;
        assert!(!file.windows(7).any(|window| window == b"red fox"), "{level}");
        let generation = verified(&server, &file).await["generation"].clone();
        assert_eq!(generation.get("seed").is_some(), has_seed, "{generation}");
        assert!(generation.get("request").is_none() && generation["model"] == "emoji", "{generation}");
    }
}

#[tokio::test]
async fn the_credentials_contain_the_digests_of_the_loras() {
    let (data, loras) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji-companions");
    let [flat, pixel] = ["flat-lora", "pixel-lora"]
        .map(|name| std::fs::read(models.join(name).join("pytorch_lora_weights.safetensors")).unwrap());
    std::fs::write(loras.path().join("mine.safetensors"), &flat).unwrap();
    let server = Server::start(data.path(), &[("LATENTD_LORAS__DIR", loras.path().to_str().unwrap())]).await;
    // One from the folder, and an embedded one.
    let used = json!({"loras": [{"name": "mine", "scale": 0.5}, {"name": "emoji-pixel"}]});
    let (_, file) = drawn(&server, &with(brief("png"), &used)).await;
    let expected = json!([
        {"name": "mine", "scale": 0.5, "sha256": sha256(&flat)},
        {"name": "emoji-pixel", "scale": 1.0, "sha256": sha256(&pixel)},
    ]);
    assert_eq!(verified(&server, &file).await["generation"]["loras"], expected);
}

#[tokio::test]
async fn a_picture_from_a_picture_names_it_and_keeps_its_credentials() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let (_, first) = drawn(&server, &brief("jpeg")).await;
    let from = |image: Value| with(brief("webp"), &json!({"image": image, "strength": 0.5}));
    let b64 = |file: &[u8]| json!({"b64": STANDARD.encode(file)});
    let (ended, second) = drawn(&server, &from(b64(&first))).await;
    let report = verified(&server, &second).await;
    assert_eq!((&report["verdict"], &report["problems"]), (&"intact".into(), &json!([])), "{report}");
    let source = report["actions"][0]["digital_source_type"].as_str().unwrap();
    assert!(source.ends_with("/compositeWithTrainedAlgorithmicMedia"), "{source}");
    let expected = json!([{"title": "image", "format": "image/jpeg", "relationship": "inputTo", "verdict": "intact"}]);
    assert_eq!(report["ingredients"], expected);
    // The credentials of the first picture are a second manifest in the file.
    let (state, store) = read(&second, "webp");
    assert_eq!(state, ValidationState::Valid, "{store}");
    assert_eq!(store["manifests"].as_object().unwrap().len(), 2, "{store}");

    // The same stored picture by its digest.
    let upload = ended["params"]["image"].clone();
    let (_, again) = drawn(&server, &from(upload)).await;
    assert_eq!(verified(&server, &again).await["ingredients"], expected);

    // A picture without credentials, and one whose credentials are broken.
    for (file, verdict) in [(unsigned(&first), "none"), (changed(&first), "altered")] {
        let (_, third) = drawn(&server, &from(b64(&file))).await;
        let report = verified(&server, &third).await;
        assert_eq!(report["verdict"], "intact", "{report}");
        assert_eq!(report["ingredients"][0]["verdict"], verdict, "{report}");
    }
}

#[tokio::test]
async fn the_operator_decides_whether_pictures_are_signed() {
    let data = tempfile::tempdir().unwrap();
    let bare = with(brief("png"), &json!({"output": {"provenance": false}}));
    let server = Server::start(data.path(), &[]).await;
    let (ended, file) = drawn(&server, &bare).await;
    assert_eq!((&ended["params"]["output"]["provenance"], unsigned(&file) == file), (&false.into(), true));
    assert_eq!(verified(&server, &file).await["verdict"], "none");
    assert!(server.stopped().await.success());

    let server = Server::start(data.path(), &[("LATENTD_PROVENANCE__OPT_OUT", "false")]).await;
    let answer = server.post(&bare).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer.json::<Value>().await.unwrap()["errors"][0]["pointer"], "/output/provenance");
    let (_, signed) = drawn(&server, &brief("png")).await;
    assert!(server.stopped().await.success());

    let server = Server::start(data.path(), &[("LATENTD_PROVENANCE__CREDENTIALS", "false")]).await;
    let (ended, file) = drawn(&server, &brief("png")).await;
    assert!(unsigned(&file) == file);
    assert_eq!(ended["images"][0]["unsigned_sha256"], ended["images"][0]["sha256"]);
    assert!(unsigned(&signed) == file, "signing changes nothing else");
    // It still verifies the pictures of others.
    assert_eq!(verified(&server, &signed).await["verdict"], "intact");
}

/// A root and a signer's certificate of this kind of key: the PEM of the signer's certificate, its key, and the root.
fn chain(kind: &'static rcgen::SignatureAlgorithm) -> [String; 3] {
    let (root_key, key) = (rcgen::KeyPair::generate_for(kind).unwrap(), rcgen::KeyPair::generate_for(kind).unwrap());
    let named = |name: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "studio");
        params
    };
    let mut root = named("root of a studio");
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let root = rcgen::CertifiedIssuer::self_signed(root, root_key).unwrap();
    let mut signer = named("signer of a studio");
    signer.is_ca = rcgen::IsCa::ExplicitNoCa;
    signer.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    signer.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::EmailProtection];
    signer.use_authority_key_identifier_extension = true;
    let signer = signer.signed_by(&key, &root).unwrap();
    [signer.pem(), key.serialize_pem(), root.pem()]
}

#[tokio::test]
async fn pictures_are_signed_with_the_certificate_of_the_settings() {
    for (kind, algorithm) in [(&rcgen::PKCS_ED25519, "ed25519"), (&rcgen::PKCS_ECDSA_P256_SHA256, "es256")] {
        let data = tempfile::tempdir().unwrap();
        let [certificate, key, root] = chain(kind);
        let (anchors, key_file) = (data.path().join("anchors.pem"), data.path().join("key.pem"));
        std::fs::write(&anchors, root).unwrap();
        std::fs::write(&key_file, &key).unwrap();
        // The certificate as a text, the key as a text or a file, and the trust anchors as a file.
        let key_setting = if algorithm == "es256" { key_file.to_str().unwrap() } else { key.as_str() };
        let settings = [
            ("LATENTD_PROVENANCE__CERTIFICATE", certificate.as_str()),
            ("LATENTD_PROVENANCE__PRIVATE_KEY", key_setting),
            ("LATENTD_PROVENANCE__TRUST_ANCHORS", anchors.to_str().unwrap()),
        ];
        let server = Server::start(&data.path().join("data"), &settings).await;
        assert!(!data.path().join("data/provenance.pem").exists(), "no certificate is made");
        let (_, file) = drawn(&server, &brief("png")).await;
        let report = verified(&server, &file).await;
        assert_eq!((&report["by_this_server"], &report["trusted"]), (&true.into(), &true.into()), "{report}");
        let signer = &report["signer"];
        assert_eq!((&signer["common_name"], &signer["algorithm"]), (&"signer of a studio".into(), &algorithm.into()));
        assert_eq!(signer["issuer"], "studio", "{report}");
        let printed = latentd(&["config", "print"], &settings).1;
        assert!(printed.contains("[provenance]") && !printed.contains("PRIVATE KEY") && !printed.contains("key.pem"));

        // Another server reads it, and does not claim it.
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Server::start(elsewhere.path(), &[]).await;
        let report = verified(&other, &file).await;
        assert_eq!((&report["verdict"], &report["by_this_server"]), (&"intact".into(), &false.into()), "{report}");
        assert_eq!(report["trusted"], false);
    }
}

/// Runs the program; returns its exit code and standard output.
fn latentd(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latentd"));
    let output = command.args(arguments).env_remove("LATENTD_CONFIG").envs(settings.iter().copied()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn the_command_line_verifies_and_signs() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(&data.path().join("data"), &[]).await;
    let (ended, file) = drawn(&server, &brief("png")).await;
    let path = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
    for (name, file) in [("a.png", &file), ("b.png", &changed(&file)), ("c.png", &unsigned(&file))] {
        std::fs::write(path(name), file).unwrap();
    }
    std::fs::write(path("d.png"), "no picture").unwrap();
    let settings = [("LATENTD_DATA_DIR", path("data"))];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    let verify = |name: &str| latentd(&["verify", &path(name)], &settings);
    let (code, said) = verify("a.png");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("this server") && said.contains(ended["id"].as_str().unwrap()), "{said}");
    assert!(verify("b.png").0 == Some(1) && verify("b.png").1.contains("assertion.dataHash.mismatch"));
    assert!(verify("c.png").0 == Some(1) && verify("c.png").1.starts_with("none"));
    assert_eq!(verify("d.png").0, Some(1));
    let gif = b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    std::fs::write(path("e.gif"), gif).unwrap();
    let (code, said) = verify("e.gif");
    assert!(code == Some(1) && said.starts_with("none") && said.contains("watermark: not looked for"), "{said}");
    let (_, json) = latentd(&["verify", "--json", &path("a.png")], &settings);
    let answer = with(serde_json::from_str(&json).unwrap(), &json!({"recomputed": null}));
    assert_eq!(answer, verified(&server, &file).await);

    // A picture of the command line, from a picture with credentials.
    let out = path("e.webp");
    let draw = ["generate", "a fox", "--steps", "2", "--image", &path("a.png"), "--strength", "0.5", "-o", &out];
    assert_eq!(latentd(&draw, &settings).0, Some(0));
    let report = verified(&server, &std::fs::read(&out).unwrap()).await;
    assert_eq!((&report["verdict"], &report["by_this_server"]), (&"intact".into(), &true.into()), "{report}");
    assert_eq!(report["ingredients"][0]["verdict"], "intact", "{report}");
    // Without a server's folder, it signs with a certificate of its own and leaves no file.
    let settings = [("LATENTD_DATA_DIR", path("nowhere"))];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    assert_eq!(latentd(&draw, &settings).0, Some(0));
    assert!(!Path::new(&path("nowhere")).exists());
    let report = verified(&server, &std::fs::read(&out).unwrap()).await;
    assert_eq!((&report["verdict"], &report["by_this_server"]), (&"intact".into(), &false.into()), "{report}");
}

/// A chunk of a PNG.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes()[..], kind, data, &crc.sum().to_be_bytes()].concat()
}

/// The PNG with these bytes as its credentials.
fn with_credentials(bare: &[u8], credentials: &[u8]) -> Vec<u8> {
    // The signature and IHDR have 33 bytes.
    [&bare[..33], &chunk(b"caBX", credentials), &bare[33..]].concat()
}

/// The bytes of the credentials of a PNG.
fn credentials(file: &[u8]) -> Vec<u8> {
    let at = file.windows(4).position(|window| window == b"caBX").unwrap();
    let length = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
    file[at + 4..at + 4 + length].to_vec()
}

#[tokio::test]
async fn hostile_files_get_clear_answers() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let (_, png) = drawn(&server, &brief("png")).await;
    let (_, jpeg) = drawn(&server, &brief("jpeg")).await;
    let (_, webp) = drawn(&server, &brief("webp")).await;
    let (_, other) = drawn(&server, &with(brief("png"), &json!({"seed": 8}))).await;
    let (bare, store) = (unsigned(&png), credentials(&png));
    let before = server.resident_bytes();

    for (what, file, pointer) in [
        ("nothing", Vec::new(), ""),
        ("a text", b"<svg>fox</svg>".to_vec(), ""),
        ("half a signature", png[..4].to_vec(), ""),
    ] {
        let (status, problem) = asked(&server, &file).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{what}: {problem}");
        assert_eq!(
            (&problem["errors"][0]["pointer"], &problem["errors"][0]["code"]),
            (&pointer.into(), &"image_undecodable".into())
        );
    }

    // A box around the credentials that claims to be of almost 4 GiB, such a box inside (the list of assertions), and a
    // box of almost 2⁶⁴ bytes.
    let large = [&u32::MAX.to_be_bytes()[..], &store[4..]].concat();
    let third = store.windows(4).enumerate().filter(|(_, window)| window == b"jumb").nth(2).unwrap().0 - 4;
    let large_inside = [&store[..third], &u32::MAX.to_be_bytes(), &store[third + 4..]].concat();
    let larger = [&1_u32.to_be_bytes()[..], b"jumb", &(u64::MAX - 8).to_be_bytes(), &store[8..]].concat();
    // Boxes in boxes, far deeper than any credentials have.
    let mut nested = Vec::new();
    for _ in 0..20_000 {
        nested = nested_in(nested);
        if nested.len() > 200_000 {
            break;
        }
    }
    let scrambled = store
        .iter()
        .enumerate()
        .map(|(i, byte)| if i > 60 { byte.wrapping_mul(31) } else { *byte })
        .collect::<Vec<_>>();
    let mut riff = webp.clone();
    let at = riff.windows(4).position(|window| window == b"C2PA").unwrap();
    riff[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut others = Vec::new();
    for (what, file, allowed) in [
        ("a PNG without chunks", png[..8].to_vec(), &["unreadable", "none"][..]),
        ("a PNG that ends in its credentials", png[..33 + 200].to_vec(), &["unreadable"]),
        (
            "a chunk that is longer than the file",
            [&bare[..33], &u32::MAX.to_be_bytes(), b"caBX", &store].concat(),
            &["unreadable"],
        ),
        // No signature covers the length of this box, and the reader reads to the end of the file.
        ("a large box around the credentials", with_credentials(&bare, &large), &["unreadable", "intact"]),
        ("a large box", with_credentials(&bare, &large_inside), &["unreadable", "altered"]),
        ("a larger box", with_credentials(&bare, &larger), &["unreadable", "altered"]),
        ("half of the credentials", with_credentials(&bare, &store[..store.len() / 2]), &["unreadable"]),
        ("credentials without bytes", with_credentials(&bare, &[]), &["unreadable", "none"]),
        ("scrambled credentials", with_credentials(&bare, &scrambled), &["unreadable", "altered"]),
        ("boxes in boxes", with_credentials(&bare, &nested), &["unreadable"]),
        ("the credentials of another picture", with_credentials(&bare, &credentials(&other)), &["altered"]),
        ("credentials twice", with_credentials(&png, &store), &["unreadable", "altered"]),
        ("a JPEG that ends in its credentials", jpeg[..300].to_vec(), &["unreadable", "none"]),
        ("a JPEG of two bytes more than its signature", jpeg[..5].to_vec(), &["unreadable", "none"]),
        ("a WebP with a long chunk", riff, &["unreadable"]),
        ("a WebP that is cut", webp[..webp.len() / 2].to_vec(), &["unreadable", "altered"]),
    ] {
        let report = verified(&server, &file).await;
        let verdict = report["verdict"].as_str().unwrap();
        if !allowed.contains(&verdict) {
            others.push(format!("{what}: {verdict}"));
        }
        let is_intact = verdict == "intact";
        assert_eq!((&report["by_this_server"], &report["trusted"]), (&is_intact.into(), &false.into()), "{what}");
        assert_eq!(report["problems"] == json!([]), verdict == "none" || is_intact, "{what}: {report}");
    }
    assert_eq!(others, Vec::<String>::new());
    // The file in a form, and bodies that are no file.
    let head = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"fox.png\"\r\n\r\n";
    let form = [head.as_bytes(), &png, b"\r\n--x--\r\n"].concat();
    let form = server.client.post(server.url("/v1/verify")).body(form);
    let form = form.header(header::CONTENT_TYPE, "multipart/form-data; boundary=x").send().await.unwrap();
    assert_eq!(form.json::<Value>().await.unwrap()["verdict"], "intact");
    let body = json!({"image": format!("data:image/png;base64,{}", STANDARD.encode(&png))});
    let json_body = server.client.post(server.url("/v1/verify")).json(&body);
    assert_eq!(json_body.send().await.unwrap().json::<Value>().await.unwrap()["verdict"], "intact");
    for query in ["recompute=maybe", "again=true"] {
        let url = server.url(&format!("/v1/verify?{query}"));
        let answer = server.client.post(url).header(header::CONTENT_TYPE, "image/png").body(png.clone());
        assert_eq!(answer.send().await.unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
    for body in [json!({}), json!({"image": 7}), json!({"picture": "x"}), json!({"image": {"upload": "0".repeat(64)}})]
    {
        let answer = server.client.post(server.url("/v1/verify")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < 256 << 20, "hostile files took {more} bytes");
}

/// The picture with credentials of another program, which contain an assertion in the form of latentd's.
fn of_another_program(bare: &[u8], generation: &Value) -> Vec<u8> {
    let [certificate, key, _] = chain(&rcgen::PKCS_ED25519);
    let signer = create_signer::from_keys(certificate.as_bytes(), key.as_bytes(), SigningAlg::Ed25519, None).unwrap();
    let source = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture";
    let definition = json!({"claim_generator_info": [{"name": "another program"}], "assertions": [
        {"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": source}]}},
        {"label": "dev.latentd.generation", "kind": "Json", "data": generation},
    ]});
    let context = Context::new().into_shared();
    let mut builder = Builder::from_shared_context(&context).with_definition(definition.to_string()).unwrap();
    let mut signed = Cursor::new(Vec::new());
    builder.sign(&*signer, "image/png", &mut Cursor::new(bare), &mut signed).unwrap();
    signed.into_inner()
}

#[tokio::test]
async fn credentials_of_another_program_that_claim_to_be_of_this_server_are_not_believed() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &[]).await;
    let (_, png) = drawn(&server, &brief("png")).await;
    let claimed = verified(&server, &png).await["generation"].clone();
    let forged = of_another_program(&unsigned(&png), &claimed);
    let url = server.url("/v1/verify?recompute=true");
    let answer = server.client.post(url).header(header::CONTENT_TYPE, "image/png").body(forged).send().await.unwrap();
    let report: Value = answer.json().await.unwrap();
    assert_eq!((&report["verdict"], &report["claim_generator"]), (&"intact".into(), &"another program".into()));
    assert_eq!((&report["by_this_server"], &report["trusted"]), (&false.into(), &false.into()), "{report}");
    assert_eq!(report["recomputed"]["result"], "impossible", "{report}");
    assert_eq!(server.json("/v1/images").await["data"].as_array().unwrap().len(), 1, "nothing is drawn again");

    // Parts that are not in latentd's form, or are too long, are left out.
    for generation in [json!("a text"), json!([1, 2]), json!({"model": "x".repeat(300 << 10)})] {
        let report = verified(&server, &of_another_program(&unsigned(&png), &generation)).await;
        assert_eq!((&report["verdict"], &report["generation"]), (&"intact".into(), &Value::Null));
    }
}

/// A box of JUMBF, with a description, around the bytes.
fn nested_in(inner: Vec<u8>) -> Vec<u8> {
    let description = [&29_u32.to_be_bytes()[..], b"jumd", b"c2pa", &[0; 12], &[3], b"c2p\0"].concat();
    let length = (8 + description.len() + inner.len()) as u32;
    [&length.to_be_bytes()[..], b"jumb", &description, &inner].concat()
}
