//! A receiver of webhooks on a plain socket. The test sets its answers, including broken ones.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::harness::PATIENCE;

/// The reaction of a receiver to a message.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Status(u16),
    /// A status with `Retry-After`, in seconds.
    Later(u16, u64),
    Redirect(SocketAddr),
    /// Reads the message and does not answer.
    Hang,
    /// Reads the message and resets the connection.
    Reset,
    /// Sends a head that announces a huge body, and one byte of it.
    Endless,
}

/// A received message.
#[derive(Clone, Debug)]
pub struct Message {
    pub headers: HeaderMap,
    pub body: String,
}

impl Message {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} is missing")).to_str().unwrap()
    }

    pub fn id(&self) -> String {
        self.header("webhook-id").to_owned()
    }

    pub fn timestamp(&self) -> i64 {
        self.header("webhook-timestamp").parse().unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// Whether the library of Standard Webhooks verifies a current signature by this secret.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(self.body.as_bytes(), &self.headers).is_ok()
    }
}

/// The state that the connections of a receiver share.
struct Shared {
    script: Mutex<VecDeque<Answer>>,
    /// The answer after the end of the script.
    otherwise: Mutex<Answer>,
    messages: Mutex<Vec<Message>>,
    arrived: Notify,
}

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Starts a receiver that gives one answer of the script per message, and 200 after the script.
    pub async fn start(script: &[Answer]) -> Receiver {
        Receiver::start_at("127.0.0.1:0", script).await
    }

    pub async fn start_at(address: &str, script: &[Answer]) -> Receiver {
        let listener = TcpListener::bind(address).await.unwrap();
        let receiver = Receiver {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(Shared {
                script: Mutex::new(script.iter().copied().collect()),
                otherwise: Mutex::new(Answer::Status(200)),
                messages: Mutex::default(),
                arrived: Notify::new(),
            }),
        };
        let accepting = receiver.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = accepting.clone();
                tokio::spawn(async move { receiver.serve(stream).await });
            }
        });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }

    /// Drops the rest of the script and gives this answer to all later messages.
    pub fn answer_with(&self, answer: Answer) {
        self.shared.script.lock().unwrap().clear();
        *self.shared.otherwise.lock().unwrap() = answer;
    }

    pub fn messages(&self) -> Vec<Message> {
        self.shared.messages.lock().unwrap().clone()
    }

    /// Waits for at least `count` messages and returns all messages.
    pub async fn until(&self, count: usize) -> Vec<Message> {
        let enough = async {
            loop {
                let arrived = self.shared.arrived.notified();
                let messages = self.messages();
                if messages.len() >= count {
                    return messages;
                }
                arrived.await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, enough).await;
        in_time.unwrap_or_else(|_| panic!("{count} messages do not arrive: {:?}", self.messages()))
    }

    async fn serve(&self, mut stream: TcpStream) {
        let Some(message) = read(&mut stream).await else { return };
        let answer = self.shared.script.lock().unwrap().pop_front();
        let answer = answer.unwrap_or_else(|| *self.shared.otherwise.lock().unwrap());
        self.shared.messages.lock().unwrap().push(message);
        self.shared.arrived.notify_waiters();
        let head = match answer {
            Answer::Status(status) => format!("HTTP/1.1 {status} Told\r\ncontent-length: 0\r\n\r\n"),
            Answer::Later(status, seconds) => {
                format!("HTTP/1.1 {status} Told\r\nretry-after: {seconds}\r\ncontent-length: 0\r\n\r\n")
            }
            Answer::Redirect(to) => {
                format!("HTTP/1.1 302 Told\r\nlocation: http://{to}/\r\ncontent-length: 0\r\n\r\n")
            }
            Answer::Endless => "HTTP/1.1 200 Told\r\ncontent-length: 1000000000000\r\n\r\nx".to_owned(),
            Answer::Hang => return std::future::pending().await,
            Answer::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
        };
        let _ = stream.write_all(head.as_bytes()).await;
        if let Answer::Endless = answer {
            std::future::pending().await
        }
    }
}

/// Reads one request with its whole body. Returns `None` if the client closes the connection early.
async fn read(stream: &mut TcpStream) -> Option<Message> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    assert!(head.starts_with("POST /"), "{head}");
    let headers: HeaderMap = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    while bytes.len() < end + length {
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
    }
    Some(Message { headers, body: String::from_utf8(bytes[end..].to_vec()).unwrap() })
}

/// A port that no message may reach. It counts connections.
pub struct Trap {
    pub address: SocketAddr,
    reached: Arc<AtomicUsize>,
}

impl Trap {
    pub async fn start() -> Trap {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reached = Arc::new(AtomicUsize::new(0));
        let counter = reached.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        Trap { address, reached }
    }

    /// Panics if there was a connection. The method's own connection is accepted after all earlier ones, so all of them
    /// are counted.
    pub async fn assert_untouched(&self) {
        let mut own = TcpStream::connect(self.address).await.unwrap();
        let mut byte = [0];
        tokio::time::timeout(Duration::from_secs(20), own.read_exact(&mut byte)).await.unwrap().unwrap();
        assert_eq!(self.reached.swap(0, Ordering::SeqCst), 1, "the trap was reached");
    }
}
