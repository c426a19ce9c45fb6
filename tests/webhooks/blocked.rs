//! A test of the message about a generation whose pictures the safety policy blocks.

use serde_json::json;

use crate::{
    conforms::complaints,
    deliveries::{launch, register, request_for},
    harness::{Server, with},
    receiver::Receiver,
    safety_checker::put_checker,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_message_about_a_blocked_generation_says_so_and_has_no_picture() {
    let (data, checker) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put_checker(checker.path(), true);
    let receiver = Receiver::start(&[]).await;
    let launch = launch(data.path(), &receiver, "0,1")
        .set("LATENTD_SAFETY__POLICY", "block")
        .set("LATENTD_SAFETY__CHECKER", checker.path().display());
    let server = Server::start_ready(&launch).await;
    let (endpoint, secret) = register(&server, &receiver, &["completed"]).await;
    let request = with(request_for(&endpoint), &json!({"width": 64, "height": 64}));
    let id = server.accept(&request).await;
    let ended = server.ended(&id).await;
    assert_eq!((&ended["status"], &ended["finish_reason"]), (&json!("failed"), &json!("content_filtered")), "{ended}");

    let message = receiver.until(1).await.swap_remove(0);
    assert!(message.is_signed_by(&secret));
    let sent = message.json();
    assert_eq!(complaints(&json!({"$ref": "#/components/schemas/WebhookMessage"}), &sent), Vec::<String>::new());
    assert_eq!((&sent["type"], &sent["data"]["id"]), (&json!("generation.failed"), &json!(id)), "{sent}");
    assert_eq!(sent["data"]["status"], "failed");
    assert_eq!(sent["data"]["error"], json!({"code": "content_filtered", "retryable": false}));
    assert!(sent["data"]["links"].get("images").is_none(), "{sent}");
    assert!(!message.body.contains("/content/") && !message.body.contains("red fox"), "{sent}");
    assert_eq!(server.get(&format!("/v1/images/{id}/content/0")).await.status(), 404);
    assert!(server.stopped().await.success());
}
