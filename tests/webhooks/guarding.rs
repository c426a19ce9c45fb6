//! Tests against server-side request forgery: no notation, name, redirect or proxy leads to a port on loopback.

use std::{
    collections::VecDeque,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use latentd::{
    config::{Config, Sources, Webhooks},
    generation::{DeliveryId, Fields, SigningSecret},
    ledger::{self, Ledger},
    webhooks::{EndpointRegistry, Guard, Message, Resolver, Sender, Sent, SystemResolver, headers},
};
use serde_json::{Map, Value, json};

use crate::{
    harness::Server,
    receiver::{Answer, Receiver, Trap},
};

/// A resolver that returns the given answers in turn and then repeats the last one. It counts its calls.
struct Flipping {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: Mutex<usize>,
}

impl Flipping {
    fn new(answers: &[&[&str]]) -> Arc<Flipping> {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Flipping { answers: Mutex::new(answers.iter().map(parse).collect()), asked: Mutex::new(0) })
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

#[async_trait]
impl Resolver for Flipping {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        *self.asked.lock().unwrap() += 1;
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Ok(answer.unwrap())
    }
}

/// Settings that allow plain HTTP and the port of the trap, so only the address can be refused.
fn settings(port: u16, allow_hosts: &str) -> Webhooks {
    let port = port.to_string();
    let secret = SigningSecret::from_key(vec![7; 32]).unwrap().reveal();
    let pairs = [("ALLOW_HTTP", "true"), ("SECRET", &secret), ("PORTS", &port), ("ALLOW_HOSTS", allow_hosts)];
    let variable = |(key, value): (&str, &str)| (format!("LATENTD_WEBHOOKS__{key}"), value.to_owned());
    let environment = pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(variable).collect();
    Config::load(&Sources { environment, ..Sources::default() }).unwrap().webhooks
}

fn sender(settings: &Webhooks, resolver: Arc<dyn Resolver>) -> Sender {
    Sender::new(Arc::new(Guard::new(settings)), resolver, Duration::from_secs(10)).unwrap()
}

async fn send(sender: &Sender, url: &str) -> Sent {
    let secret = SigningSecret::from_key(vec![7; 32]).unwrap();
    let body = "{}".to_owned();
    let headers = headers(&[secret], DeliveryId::new(), 0, &body);
    sender.send(Message { url: url.to_owned(), headers, body }).await
}

#[tokio::test]
async fn no_notation_leads_to_loopback() {
    let trap = Trap::start().await;
    let port = trap.address.port();
    let sender = sender(&settings(port, ""), Arc::new(SystemResolver));
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "0",
        "localhost",
        "LOCALHOST",
    ] {
        let sent = send(&sender, &format!("http://{host}:{port}/")).await;
        assert_eq!(sent.answer.status, None, "{host}");
        let reason = sent.answer.error.unwrap();
        assert_eq!(reason, "the address must lead to a host of the public internet", "{host}");
    }
    trap.assert_untouched().await;
}

#[tokio::test]
async fn a_name_whose_address_changes_to_loopback_is_refused() {
    let trap = Trap::start().await;
    let settings = settings(trap.address.port(), "");
    let url = format!("http://rebinding.example:{}/", trap.address.port());

    // The first lookup, at submission, returns a public address; the second, at sending, returns loopback.
    let resolver = Flipping::new(&[&["93.184.216.34"], &["127.0.0.1"]]);
    let (registry, _data) = registry(&settings, resolver.clone()).await;
    assert_eq!(submission_errors(&registry, &url).await, Vec::new());
    let sent = send(&sender(&settings, resolver.clone()), &url).await;
    assert_eq!(sent.answer.error.as_deref(), Some("the address must lead to a host of the public internet"));
    assert_eq!(resolver.asked(), 2, "one lookup at submission and one at sending");

    // Loopback among other addresses, and IPv4 addresses written as IPv6.
    for answer in [&["93.184.216.34", "127.0.0.1"][..], &["::ffff:127.0.0.1"], &["64:ff9b::7f00:1"], &["::1"]] {
        let sent = send(&sender(&settings, Flipping::new(&[answer])), &url).await;
        assert_eq!(sent.answer.status, None, "{answer:?}");
        assert!(sent.answer.error.unwrap().contains("public internet"), "{answer:?}");
    }
    trap.assert_untouched().await;
}

#[tokio::test]
async fn the_checked_address_is_the_one_that_is_connected_to() {
    // A second lookup before connecting would return the trap's address.
    let trap = Trap::start().await;
    let receiver = Receiver::start_at(&format!("127.0.0.2:{}", trap.address.port()), &[]).await;
    let settings = settings(trap.address.port(), "127.0.0.2");
    let resolver = Flipping::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let url = format!("http://receiver.example:{}/", trap.address.port());
    let sent = send(&sender(&settings, resolver.clone()), &url).await;
    assert_eq!(sent.answer, ledger::DeliveryAnswer { status: Some(200), error: None });
    assert_eq!(resolver.asked(), 1);
    let message = &receiver.until(1).await[0];
    assert_eq!(message.header("host"), format!("receiver.example:{}", trap.address.port()));
    trap.assert_untouched().await;
}

#[tokio::test]
async fn redirects_are_not_followed_and_bodies_not_read() {
    let trap = Trap::start().await;
    let script = [Answer::Redirect(trap.address), Answer::Endless, Answer::Later(503, 7)];
    let receiver = Receiver::start(&script).await;
    let settings = settings(receiver.address.port(), "127.0.0.1");
    let sender = sender(&settings, Arc::new(SystemResolver));
    let redirected = send(&sender, &receiver.url()).await;
    assert_eq!((redirected.answer.status, redirected.retry_after), (Some(302), None));
    let endless = send(&sender, &receiver.url()).await;
    assert_eq!(endless.answer.status, Some(200), "{endless:?}");
    let later = send(&sender, &receiver.url()).await;
    assert_eq!((later.answer.status, later.retry_after), (Some(503), Some(Duration::from_secs(7))));
    assert_eq!(receiver.messages()[0].header("content-type"), "application/json");
    trap.assert_untouched().await;
}

async fn registry(settings: &Webhooks, resolver: Arc<dyn Resolver>) -> (EndpointRegistry, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let store = Arc::new(Ledger::open_sqlite(data.path(), Duration::ZERO).await.unwrap());
    (EndpointRegistry::new(store, None, Arc::new(Guard::new(settings)), resolver, settings), data)
}

/// The pointers and codes of the errors that the address causes at submission.
async fn submission_errors(registry: &EndpointRegistry, url: &str) -> Vec<(String, &'static str)> {
    let map = Map::from_iter([("webhook".to_owned(), json!({"url": url}))]);
    let mut fields = Fields::new(map);
    registry.check(&mut fields, "default").await.unwrap();
    fields.take("webhook");
    fields.finish().into_iter().map(|error| (error.pointer, error.code)).collect()
}

#[tokio::test]
async fn names_that_do_not_resolve_at_submission_are_checked_later() {
    struct Slow;
    struct Nothing;

    #[async_trait]
    impl Resolver for Slow {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            std::future::pending().await
        }
    }

    #[async_trait]
    impl Resolver for Nothing {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            Err(io::Error::other("no such name"))
        }
    }

    let settings = settings(443, "");
    let url = "https://hooks.example/";
    let (private, _data) = registry(&settings, Flipping::new(&[&["10.0.0.7"]])).await;
    assert_eq!(submission_errors(&private, url).await, [("/webhook/url".to_owned(), "webhook_url_forbidden")]);
    for resolver in [Arc::new(Slow) as Arc<dyn Resolver>, Arc::new(Nothing)] {
        let (registry, _data) = registry(&settings, resolver).await;
        assert_eq!(submission_errors(&registry, url).await, []);
    }
}

/// Tests the real server at submission and with a proxy in its environment.
#[tokio::test]
async fn forged_requests_are_refused_and_nothing_is_sent() {
    let trap = Trap::start().await;
    let port = trap.address.port().to_string();
    let secret = SigningSecret::from_key(vec![7; 32]).unwrap().reveal();
    let data = tempfile::tempdir().unwrap();
    let proxy = format!("http://{}", trap.address);
    let server = Server::start(
        data.path(),
        &[
            ("LATENTD_WEBHOOKS__SECRET", secret.as_str()),
            ("LATENTD_WEBHOOKS__ALLOW_HTTP", "true"),
            ("LATENTD_WEBHOOKS__PORTS", &format!("{port},80,443")),
            ("LATENTD_WEBHOOKS__RETRY_S", "0"),
            ("HTTP_PROXY", &proxy),
            ("http_proxy", &proxy),
            ("ALL_PROXY", &proxy),
        ],
    )
    .await;
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "169.254.169.254", "2130706433", "localhost"] {
        let url = format!("http://{host}:{port}/");
        let answers = [
            ("/v1/images", "/webhook/url", json!({"prompt": "x", "webhook": {"url": url}})),
            ("/v1/webhook_endpoints", "/url", json!({"url": url})),
        ];
        for (path, pointer, body) in answers {
            let answer = server.client.post(server.url(path)).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), 422, "{path} {url}");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], "webhook_url_forbidden", "{problem}");
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
    }
    for (url, detail) in [
        (format!("http://user@example.org:{port}/"), "user name"),
        ("http://example.org:22/".to_owned(), "one of the ports"),
        ("ftp://example.org/".to_owned(), "https://"),
    ] {
        let answer = server.post(&json!({"prompt": "x", "webhook": {"url": url}})).await;
        assert_eq!(answer.status(), 422, "{url}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    // The name does not resolve, so it is accepted here. The only try fails, and the message is dead. Through the proxy
    // of the environment, the message would have reached the trap.
    let endpoint = json!({"url": "http://does-not-exist.invalid/"});
    let answer = server.client.post(server.url("/v1/webhook_endpoints")).json(&endpoint).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let endpoint: Value = answer.json().await.unwrap();
    let id = server.accept(&json!({"prompt": "x", "steps": 1, "webhook": {"endpoint": endpoint["id"]}})).await;
    server.ended(&id).await;
    server
        .until("the message is given up", async |server: &Server| {
            server.metric("latentd_webhook_deliveries_total", "dead").await == 1.0
        })
        .await;
    trap.assert_untouched().await;
}
