//! `latentd healthcheck`: checks whether a server on this machine answers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::operator::reachable;

/// Requests `/livez` from the operator listener.
///
/// # Errors
/// The server does not accept the connection within 3 seconds, does not answer within 3 more seconds, or answers with a
/// status other than 200.
pub(super) fn run(bind: SocketAddr) -> Result<()> {
    let address = reachable(bind);
    let timeout = Duration::from_secs(3);
    let mut stream =
        TcpStream::connect_timeout(&address, timeout).with_context(|| format!("{address} does not answer"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut head = [0; 64];
    let read = stream.read(&mut head)?;
    let line = String::from_utf8_lossy(&head[..read]);
    let status = line.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{address}/livez answers {status:?}");
    }
    println!("{address} lives");
    Ok(())
}
