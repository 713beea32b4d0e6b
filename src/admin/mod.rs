//! The admin port:
//!
//! | path | says |
//! | --- | --- |
//! | `/live` | 200 while the pipeline's loop turns; a dead database does not count |
//! | `/ready` | 200 while records are moved; the body of a 503 says why not |
//! | `/metrics` | Prometheus' text format |
//! | `/status` | JSON: session, partitions, reasons, counts |
//!
//! It runs on a thread and a runtime of its own: a stalled pipeline cannot hide from `/live`. Idle
//! and slow clients cannot keep others out, see `connection`.

mod connection;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio_util::sync::CancellationToken;

use crate::telemetry::Telemetry;

/// A pipeline that has not turned for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What whoever asks for something else is told.
const PATHS: &str = "not found; the pages are /live, /ready, /metrics and /status\n";

/// Why there is no admin port.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened on.
    #[error("admin.listen: cannot listen on {listen}: {}", source.kind())]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no thread or runtime.
    #[error("cannot start the admin port")]
    Start(#[source] io::Error),
}

/// Serves the admin port until `cancel`, and returns the address it listens on.
///
/// # Errors
/// The address cannot be listened on, or the system gives no thread.
pub fn spawn(
    listen: SocketAddr,
    telemetry: Telemetry,
    cancel: CancellationToken,
) -> Result<SocketAddr, AdminError> {
    let bind = |source| AdminError::Bind { listen, source };
    let listener = TcpListener::bind(listen).map_err(bind)?;
    listener.set_nonblocking(true).map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AdminError::Start)?;
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, telemetry, cancel)) {
                tracing::error!(
                    event = "admin_ended",
                    error = %error.kind(),
                    "the admin port stopped serving"
                );
            }
        })
        .map_err(AdminError::Start)?;
    tracing::info!(event = "admin_listening", address = %address, "admin port is listening");
    Ok(address)
}

async fn serve(
    listener: TcpListener,
    telemetry: Telemetry,
    cancel: CancellationToken,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let serving = connection::serve(&listener, router(telemetry));
    tokio::select! {
        () = cancel.cancelled() => {}
        () = serving => {}
    }
    Ok(())
}

fn router(telemetry: Telemetry) -> Router {
    Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(|| async { (StatusCode::NOT_FOUND, PATHS) })
        .with_state(telemetry)
}

async fn live(State(telemetry): State<Telemetry>) -> Response {
    let age = telemetry.heartbeat().age();
    if age < STUCK_AFTER {
        (StatusCode::OK, "live\n").into_response()
    } else {
        let body = format!("the main loop has not run for {} s\n", age.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
    }
}

async fn ready(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.readiness() {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(telemetry): State<Telemetry>) -> Response {
    match telemetry.metrics().encode() {
        Ok(text) => ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response(),
        Err(error) => {
            tracing::error!(event = "metrics_failed", error = %error, "cannot write metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn status(State(telemetry): State<Telemetry>) -> Response {
    Json(telemetry.status()).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;
    use pgsluice_core::record::SessionId;

    fn start(telemetry: &Telemetry) -> (SocketAddr, CancellationToken) {
        let cancel = CancellationToken::new();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (spawn(any, telemetry.clone(), cancel.clone()).expect("admin port"), cancel)
    }

    /// Status code and body.
    fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).expect("connect");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head");
        let code = head.split(' ').nth(1).expect("code").parse().expect("number");
        (code, body.to_owned())
    }

    #[test]
    fn every_page_answers_and_others_do_not_exist() {
        let telemetry = Telemetry::try_new("views").expect("metrics");
        let (address, cancel) = start(&telemetry);
        assert_eq!(fetch(address, "/live").0, 200);
        assert_eq!(fetch(address, "/ready"), (503, "starting\n".to_owned()));
        telemetry.started();
        telemetry.session_opened(SessionId(1));
        telemetry.assigned(&[]);
        assert_eq!(fetch(address, "/ready").0, 200);
        let (code, text) = fetch(address, "/metrics");
        assert_eq!(code, 200);
        assert!(text.contains("pgsluice_session_open 1"), "{text}");
        let (code, json) = fetch(address, "/status");
        assert_eq!(code, 200);
        let json: serde_json::Value = serde_json::from_str(&json).expect("json");
        assert_eq!(json["sink"], "views");
        assert_eq!(fetch(address, "/nowhere"), (404, PATHS.to_owned()));
        cancel.cancel();
    }

    #[test]
    fn five_hundred_idle_and_slow_connections_keep_nobody_out() {
        let telemetry = Telemetry::try_new("views").expect("metrics");
        let (address, cancel) = start(&telemetry);
        let mut crowd: Vec<TcpStream> = Vec::new();
        for number in 0..500 {
            let mut stream = TcpStream::connect(address).expect("connect");
            stream.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
            if number % 2 == 0 {
                // One that was closed already to make room is no failure.
                write!(stream, "GET /metrics HTTP/1.1\r\nHost: ").ok();
            }
            crowd.push(stream);
        }

        let asked = Instant::now();
        assert_eq!(fetch(address, "/metrics").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());

        // The oldest made room; the youngest ran into the limit of time for a request's head, which
        // is half of that for everything.
        let ended = |stream: &mut TcpStream| {
            let mut rest = Vec::new();
            match stream.read_to_end(&mut rest) {
                Ok(_) => true,
                Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            }
        };
        assert!(ended(&mut crowd[0]));
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert!(ended(&mut crowd[498]));
        assert!(ended(&mut crowd[499]));
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
        cancel.cancel();
    }

    #[test]
    fn a_client_that_would_stay_is_closed_after_one_answer() {
        let telemetry = Telemetry::try_new("views").expect("metrics");
        let (address, cancel) = start(&telemetry);
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("timeout");
        write!(stream, "GET /live HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer and its end");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        cancel.cancel();
    }

    #[test]
    fn only_http_1_is_spoken() {
        let telemetry = Telemetry::try_new("views").expect("metrics");
        let (address, cancel) = start(&telemetry);
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("ask");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
        cancel.cancel();
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it() {
        let telemetry = Telemetry::try_new("views").expect("metrics");
        let (address, cancel) = start(&telemetry);
        let error = spawn(address, telemetry, cancel.clone()).expect_err("in use");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        cancel.cancel();
    }
}
