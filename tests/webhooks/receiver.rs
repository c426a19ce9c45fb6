//! A receiver that answers as the test tells it to, on the level of sockets, so that it can also fail to.

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

/// What a receiver does with a message.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Status(u16),
    /// A status with `Retry-After`, in seconds.
    Later(u16, u64),
    Redirect(SocketAddr),
    /// Reads it and says nothing.
    Hang,
    /// Reads it and cuts the connection.
    Reset,
    /// A head that promises a body without end.
    Endless,
}

/// A message as it arrived.
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

    /// Whether the library of Standard Webhooks takes it for one that this secret has signed just now.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(self.body.as_bytes(), &self.headers).is_ok()
    }
}

/// What the connections of a receiver share.
struct Told {
    script: Mutex<VecDeque<Answer>>,
    /// Where the script has ended.
    otherwise: Mutex<Answer>,
    messages: Mutex<Vec<Message>>,
    arrived: Notify,
}

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    told: Arc<Told>,
}

impl Receiver {
    /// Answers with the script, one answer a message, and then with 200.
    pub async fn start(script: &[Answer]) -> Receiver {
        Receiver::start_at("127.0.0.1:0", script).await
    }

    pub async fn start_at(address: &str, script: &[Answer]) -> Receiver {
        let listener = TcpListener::bind(address).await.unwrap();
        let receiver = Receiver {
            address: listener.local_addr().unwrap(),
            told: Arc::new(Told {
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

    pub fn answer_with(&self, answer: Answer) {
        self.told.script.lock().unwrap().clear();
        *self.told.otherwise.lock().unwrap() = answer;
    }

    pub fn messages(&self) -> Vec<Message> {
        self.told.messages.lock().unwrap().clone()
    }

    /// All messages as soon as there are so many.
    pub async fn until(&self, count: usize) -> Vec<Message> {
        let enough = async {
            loop {
                let arrived = self.told.arrived.notified();
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
        let answer = self.told.script.lock().unwrap().pop_front();
        let answer = answer.unwrap_or_else(|| *self.told.otherwise.lock().unwrap());
        self.told.messages.lock().unwrap().push(message);
        self.told.arrived.notify_waiters();
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

/// One request with its whole body; `None` where the client leaves before.
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

/// A port that nobody must reach: it counts who does.
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

    /// Panics if anybody has connected. A connection of its own comes last in the queue of those that wait to be accepted,
    /// so that all before it are counted.
    pub async fn assert_untouched(&self) {
        let mut own = TcpStream::connect(self.address).await.unwrap();
        let mut byte = [0];
        tokio::time::timeout(Duration::from_secs(20), own.read_exact(&mut byte)).await.unwrap().unwrap();
        assert_eq!(self.reached.swap(0, Ordering::SeqCst), 1, "somebody was in the trap");
    }
}
