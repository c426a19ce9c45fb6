//! The check of the listeners' addresses: whether they are free, or which program uses them.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use latentd::config::Config;

use super::finding::Finding;
use crate::cli::operator::reachable;

/// How long a server on the port may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

pub async fn look(config: Arc<Config>) -> Vec<Finding> {
    let (public, operator) = (config.http.bind, config.operator.bind);
    if config.role.serves() && public == operator && public.port() != 0 {
        let text = format!("http.bind and operator.bind are both {public}");
        return vec![Finding::error(text, "give the two listeners different ports")];
    }
    let mut findings = Vec::new();
    if config.role.serves() {
        findings.push(of_port("http.bind", public, "/openapi.json", "latentd").await);
    }
    findings.push(of_port("operator.bind", operator, "/metrics", "latentd_").await);
    findings
}

/// The finding of one listener. A server that answers `path` with a text that contains `mark` is latentd.
async fn of_port(key: &str, address: SocketAddr, path: &str, mark: &str) -> Finding {
    let error = match TcpListener::bind(address) {
        Ok(_) => return Finding::ok(format!("{key}: {address} is free")),
        Err(error) => error,
    };
    let text = format!("{key}: {address} cannot be used: {error}");
    match error.kind() {
        ErrorKind::AddrInUse if answers(address, path, mark).await => {
            Finding::ok(format!("{key}: a latentd server listens on {address} already"))
        }
        ErrorKind::AddrInUse => {
            let port = address.port();
            let mend = format!("stop the other program (`ss -ltnp sport = :{port}` names it), or change {key}");
            Finding::error(format!("{key}: another program listens on {address}"), mend)
        }
        ErrorKind::PermissionDenied => {
            Finding::error(text, format!("set {key} to a port above 1023, or grant CAP_NET_BIND_SERVICE"))
        }
        _ => {
            Finding::error(text, format!("set {key} to an address of this machine, such as 0.0.0.0:{}", address.port()))
        }
    }
}

async fn answers(address: SocketAddr, path: &str, mark: &str) -> bool {
    let Ok(client) = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build() else { return false };
    let answer = client.get(format!("http://{}{path}", reachable(address))).send().await;
    let Ok(answer) = answer else { return false };
    answer.text().await.is_ok_and(|text| text.contains(mark))
}
