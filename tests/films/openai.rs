//! Tests of OpenAI's form of films with a client that is not one of OpenAI's SDKs.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    answer::{ask, get},
    conforms::complaints,
    films,
    http::{picture_text, server},
};

/// Errors in OpenAI's form are not in the contract of the native operations, which have the same paths.
async fn refused(
    server: &crate::server::Server,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let request = server.client.request(method, server.url(path));
    let request = body.iter().fold(request, |request, body| request.json(body));
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let error: Value = answer.json().await.unwrap();
    assert_eq!(complaints(&json!({"$ref": "#/components/schemas/OpenAiErrorBody"}), &error), [""; 0]);
    (status, error["error"].clone())
}

#[tokio::test]
async fn the_fields_and_the_ids_tell_the_form() {
    let data = tempfile::tempdir().unwrap();
    let server = server(data.path()).await;
    let body = json!({
        "model": films::NAME, "prompt": "", "seconds": "0.5", "steps": 1,
        "input_reference": {"image_url": picture_text()},
    });
    let queued = ask(&server, Method::POST, "/v1/videos", |post| post.json(&body)).await;
    assert_eq!(queued.status, StatusCode::OK, "{queued:?}");
    let video = queued.json();
    let id = video["id"].as_str().unwrap().to_owned();
    let native = id.replace("video_", "img_");
    // Half a second at 7 frames per second is nearest to 4 frames.
    assert_eq!((&video["model"], &video["seconds"]), (&json!(films::NAME), &json!("0.571")));

    let generation =
        ask(&server, Method::GET, &format!("/v1/videos/{native}"), |get| get.header("Prefer", "wait=100")).await;
    let generation = generation.json();
    assert_eq!((&generation["object"], &generation["params"]["frames"]), (&json!("video.generation"), &json!(4)));
    let ended = get(&server, &format!("/v1/videos/{id}")).await.json();
    assert_eq!((&ended["object"], &ended["status"]), (&json!("video"), &json!("completed")));
    let file = get(&server, &format!("/v1/videos/{native}/content/0")).await;
    for id in [&id, &native] {
        let content = format!("/v1/videos/{id}/content");
        assert!(get(&server, &content).await.body == file.body);
        let part = ask(&server, Method::GET, &content, |get| get.header("Range", "bytes=4-7")).await;
        assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &b"ftyp"[..]));
    }

    // Lists have the form of the client.
    assert_eq!(get(&server, "/v1/videos").await.json()["data"][0]["id"], native.as_str());
    let list = ask(&server, Method::GET, "/v1/videos", |get| get.header("X-Stainless-Lang", "python")).await.json();
    assert_eq!((&list["data"][0]["id"], &list["last_id"]), (&json!(id), &json!(id)));

    // The rest of the native protocol knows no such ids.
    for (method, path) in
        [(Method::GET, "/events"), (Method::POST, "/cancel"), (Method::PUT, "/star"), (Method::GET, "/content/0")]
    {
        let (status, error) = refused(&server, method, &format!("/v1/videos/{id}{path}"), None).await;
        assert_eq!((status, &error["type"]), (StatusCode::NOT_FOUND, &json!("not_found_error")), "{path}");
    }
    for (body, param) in [
        (json!({"seconds": "1"}), "model"),
        (json!({"model": films::NAME, "seconds": true}), "seconds"),
        (json!({"model": films::NAME, "seconds": "1", "frames": 2}), "seconds"),
        (json!({"model": films::NAME, "seconds": "1"}), "input_reference"),
        (json!({"model": films::NAME, "input_reference": "no picture"}), "input_reference"),
        (json!({"model": films::NAME, "input_reference": [{"image_url": "a"}]}), "input_reference"),
        (json!({"model": films::NAME, "input_reference": {"image_url": picture_text(), "a": 1}}), "input_reference.a"),
        (json!({"model": films::NAME, "image": "no picture", "seconds": "1"}), "image"),
    ] {
        let (status, error) = refused(&server, Method::POST, "/v1/videos", Some(body.clone())).await;
        assert_eq!((status, &error["param"]), (StatusCode::BAD_REQUEST, &json!(param)), "{body}");
    }
    // Without a field of OpenAI's that has a value, the request and its answer are native.
    let native_body = json!({"model": films::NAME, "image": picture_text(), "seconds": null, "input_reference": null});
    let queued = ask(&server, Method::POST, "/v1/videos", |post| post.json(&native_body)).await;
    assert_eq!((queued.status, &queued.json()["object"]), (StatusCode::ACCEPTED, &json!("video.generation")));
    let lacking = server.client.get(server.url(&format!("/v1/videos/{native}/content/0.png"))).send().await.unwrap();
    let lacking: Value = lacking.json().await.unwrap();
    assert_eq!(lacking["detail"], "there is no film here", "{lacking}");
    let deleted = ask(&server, Method::DELETE, &format!("/v1/videos/{id}"), |delete| delete).await;
    assert_eq!(deleted.json(), json!({"id": id, "object": "video.deleted", "deleted": true}));
    assert_eq!(get(&server, &format!("/v1/videos/{native}")).await.status, StatusCode::NOT_FOUND);
}
