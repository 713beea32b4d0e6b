//! The admin port's connections: HTTP/1.1, one request each, bounded in number and time.
//!
//! Whoever holds a connection open, or sends a byte now and then, must not keep the scraper out:
//! beyond the bound the oldest connection makes room for the newest.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Connections at a time; probes and scrapers need a handful.
const MOST_CONNECTIONS: usize = 64;

/// How long a client may take to send its request.
const HEADER_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection may take from its beginning to the last byte of the answer.
const TOTAL_LIMIT: Duration = Duration::from_secs(10);

/// The system gives no more sockets for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers connections; never ends by itself. Dropped, it closes all of them.
pub(super) async fn serve(listener: &TcpListener, router: Router) {
    let mut tasks = JoinSet::new();
    let mut oldest_first: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Forgets what has ended.
            Some(_) = tasks.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        oldest_first.retain(|connection| !connection.is_finished());
        while oldest_first.len() >= MOST_CONNECTIONS
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(tasks.spawn(answer(stream, router.clone())));
    }
}

async fn answer(stream: TcpStream, router: Router) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if !matches!(tokio::time::timeout(TOTAL_LIMIT, serving).await, Ok(Ok(()))) {
        tracing::debug!(event = "admin_connection", "an admin connection ended without a response");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn an_answer_that_does_not_come_ends_its_connection_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(std::future::pending::<()>));
        let asked = Instant::now();
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok();
            answer
        };
        let answer = tokio::select! {
            answer = client => answer,
            () = serve(&listener, router) => unreachable!("it never ends"),
        };
        assert!(answer.is_empty(), "{answer:?}");
        let took = asked.elapsed();
        assert!(took >= TOTAL_LIMIT && took < TOTAL_LIMIT * 2, "{took:?}");
    }
}
