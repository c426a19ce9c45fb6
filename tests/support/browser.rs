//! Drives a headless Chromium with the DevTools protocol over a pipe (`--remote-debugging-pipe`), which needs no port
//! and no WebSocket.

#![allow(dead_code, reason = "each test target uses its part")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::server::PATIENCE;

/// Shell command that starts Chromium with the protocol on file descriptors 3 and 4.
const PIPED: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "--window-size=1280,900",
];

/// A browser with one page. Its methods block, so tests need a multi-threaded runtime.
pub struct Browser {
    child: Child,
    wire: Mutex<Wire>,
    heard: Arc<Mutex<Heard>>,
    session: Option<String>,
    _profile: tempfile::TempDir,
}

struct Wire {
    to: ChildStdin,
    last: u64,
}

#[derive(Default)]
struct Heard {
    waiting: HashMap<u64, Sender<Value>>,
    events: Vec<Value>,
}

impl Browser {
    /// Starts Chromium. Without Chromium, returns `None` so that the test is skipped, or panics if
    /// LATENTD_REQUIRE_CHROMIUM is set.
    pub fn start() -> Option<Browser> {
        Browser::start_with(&[])
    }

    /// Starts Chromium with further flags.
    pub fn start_with(flags: &[&str]) -> Option<Browser> {
        let Some(program) = program() else {
            let required = std::env::var_os("LATENTD_REQUIRE_CHROMIUM").is_some();
            assert!(!required, "LATENTD_REQUIRE_CHROMIUM is set, but there is no chromium");
            println!("skipped: no Chromium found (on Debian the package chromium)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", PIPED])
            .arg(program)
            .args(FLAGS)
            .args(flags)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hearing = heard.clone();
        std::thread::spawn(move || {
            for message in BufReader::new(from).split(0).map_while(Result::ok) {
                let message: Value = serde_json::from_slice(&message).unwrap();
                let mut heard = hearing.lock().unwrap();
                match message["id"].as_u64() {
                    // The receiver may have timed out.
                    Some(id) => drop(heard.waiting.remove(&id).map(|answer| answer.send(message))),
                    None => heard.events.push(message),
                }
            }
        });
        let wire = Mutex::new(Wire { to, last: 0 });
        let mut browser = Browser { child, wire, heard, session: None, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Sends a command of the protocol and returns its result.
    pub fn call(&self, method: &str, params: Value) -> Value {
        let (sender, answer) = channel();
        let mut message = json!({"method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        {
            let mut wire = self.wire.lock().unwrap();
            wire.last += 1;
            message["id"] = wire.last.into();
            self.heard.lock().unwrap().waiting.insert(wire.last, sender);
            wire.to.write_all(&[message.to_string().as_bytes(), &[0]].concat()).unwrap();
        }
        let answer = tokio::task::block_in_place(|| answer.recv_timeout(PATIENCE)).expect("the browser answers");
        assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, url: &str) {
        let answer = self.call("Page.navigate", json!({"url": url}));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        self.until("the page is loaded", "document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of a JavaScript expression; promises are awaited.
    pub fn value(&self, expression: &str) -> Value {
        let answer = self
            .call("Runtime.evaluate", json!({"expression": expression, "awaitPromise": true, "returnByValue": true}));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// Polls until the JavaScript expression is true. `what` describes the condition in the panic message.
    pub fn until(&self, what: &str, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(&format!("Boolean({expression})")) != true {
            assert!(Instant::now() < deadline, "not in time: {what}; {:?}", self.complaints());
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(50)));
        }
    }

    /// Sets the text of the field that the selector finds, and fires its input event.
    pub fn fill(&self, selector: &str, text: &str) {
        let (selector, text) = (json!(selector), json!(text));
        self.value(&format!(
            "{{ const field = document.querySelector({selector}); field.value = {text}; \
             field.dispatchEvent(new Event('input', {{ bubbles: true }})); 0 }}"
        ));
    }

    pub fn click(&self, selector: &str) {
        self.value(&format!("document.querySelector({}).click()", json!(selector)));
    }

    pub fn focus(&self, selector: &str) {
        self.value(&format!("document.querySelector({}).focus()", json!(selector)));
    }

    /// Presses and releases a key: `Enter`, `Escape`, `ArrowRight`.
    pub fn press(&self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "ArrowRight" => 39,
            other => panic!("{other} is no key of these tests"),
        };
        let mut event = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code});
        if key == "Enter" {
            event["text"] = "\r".into();
        }
        self.call("Input.dispatchKeyEvent", event.clone());
        event["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", event);
    }

    /// The URLs that the page has requested.
    pub fn requests(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let sent = heard.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }

    /// Uncaught exceptions and errors in the browser's log, including violations of the Content-Security-Policy.
    pub fn complaints(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let is_complaint = |event: &&Value| {
            event["method"] == "Runtime.exceptionThrown"
                || event["method"] == "Log.entryAdded" && event["params"]["entry"]["level"] == "error"
        };
        heard.events.iter().filter(is_complaint).map(|event| event["params"].to_string()).collect()
    }

    /// Writes a PNG screenshot of the page, for people to look at.
    pub fn picture(&self, file: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"}));
        std::fs::write(file, STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|file| file.is_file())
}
