//! A bare hyper server that says `hello`: what the socket could do at most. A process of its own, as we are one.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// The process.
#[derive(Debug)]
pub(crate) struct Hello {
    folder: tempfile::TempDir,
    process: Child,
}

impl Hello {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not listen within 5 s.
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("cx-hello-")
            .tempdir()
            .expect("a temporary folder");
        let own = std::env::current_exe().expect("our own binary");
        let process = Command::new(own)
            .arg("--hello")
            .arg(folder.path().join("socket"))
            .stdin(Stdio::null())
            .spawn()
            .expect("our own binary starts");
        let hello = Self { folder, process };
        let end = Instant::now() + Duration::from_secs(5);
        while std::os::unix::net::UnixStream::connect(hello.socket()).is_err() {
            assert!(Instant::now() < end, "the hello server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        hello
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Serves until killed.
pub(crate) fn serve(socket: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a run time");
    let result: std::io::Result<()> = runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(socket)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                // A client that goes away ends its connection with an error; nobody is left to tell.
                drop(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service_fn(hello))
                        .await,
                );
            });
        }
    });
    if let Err(error) = result {
        eprintln!("{}: {error}", socket.display());
    }
    ExitCode::FAILURE
}

async fn hello(_: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
}
