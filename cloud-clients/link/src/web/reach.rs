//! Connections by TCP to whichever address of a host answers first.
//!
//! A name may have addresses that swallow what is sent to them (IPv6 where only a part of the way has it). The next one is therefore
//! tried beside the first after a moment, and not after the minutes that the kernel gives it. Whoever calls puts an end to it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// So long an address is waited for before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_millis(300);
/// Addresses of a host that are tried.
const ADDRESSES_MAX: usize = 16;

/// A connection to a host.
///
/// # Errors
/// That it has no address, or what the last address had to say.
pub(super) async fn host(name: &str, port: u16) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host((name, port)).await?;
    any(found.take(ADDRESSES_MAX)).await
}

async fn any(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.fuse();
    // Attempts end with it.
    let mut attempts = JoinSet::new();
    let none = "the name has no address";
    let mut last = io::Error::new(io::ErrorKind::NotFound, none);
    loop {
        let is_last = match addresses.next() {
            Some(address) => {
                attempts.spawn(TcpStream::connect(address));
                false
            }
            None => true,
        };
        let ended = if is_last {
            attempts.join_next().await
        } else {
            match tokio::time::timeout(HEAD_START, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            None => return Err(last),
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            Some(Err(ended)) => last = io::Error::other(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// An address that swallows what is sent to it: a listener that accepts nothing, with its queue full.
    async fn silent() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let at = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(at)).await
        {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue has no end");
        }
        (at, listener, waiting)
    }

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_hide_the_next() {
        let (silent, _listener, _waiting) = silent().await;
        let good = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = good.local_addr().unwrap();
        let begun = Instant::now();
        let stream = any([silent, silent, at].into_iter()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), at);
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn one_that_refuses_costs_nothing_and_the_last_error_is_told() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = closed.local_addr().unwrap();
        drop(closed);
        let error = any([at, at].into_iter()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = any(std::iter::empty()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
