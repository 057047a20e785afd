//! GET of 180 MB beside socat that copies the same file to a socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Options;
use crate::figure::Figure;
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{files, interrupt, upload};

const BYTES: usize = 180_000_000;
/// What both are read by, and the block size of socat.
const BLOCK: usize = 256 << 10;

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let subject = Subject::start(&[]);
    let bytes = files::noise(BYTES);
    let sha256 = acceptance::image::sha256(&bytes);
    upload::put(&subject.device.socket, &sha256, &bytes);
    let file = subject.device.storage().join("objects").join(&sha256);
    let socket = subject.device.run_dir().join("control.sock");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut ours, mut peer) = <(Samples, Samples)>::default();
    let mib = f64::from(u32::try_from(BYTES).expect("it is small")) / 1e6;
    for number in 0..options.repeat * 4 {
        interrupt::check();
        let request = format!(
            "GET /objects/{sha256} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        ours.push(mib / read_all(&socket, request.as_bytes()).as_secs_f64());
        let target = folder.path().join(number.to_string());
        peer.push(mib / socat(&file, &target).as_secs_f64());
    }
    let ratio = ours.median() / peer.median();
    vec![Figure {
        what: "GET of a 180 MB object".to_owned(),
        ours: format!("{:.0} MB/s", ours.median()),
        peer: format!("socat -b {BLOCK} {:.0} MB/s", peer.median()),
        ratio: Some(ratio),
        to_reach: ">= 0.7 x".to_owned(),
        verdict: (ratio >= 0.7).into(),
    }]
}

/// Sends the request, reads until the other side closes.
fn read_all(socket: &Path, request: &[u8]) -> Duration {
    let mut stream = UnixStream::connect(socket).expect("the socket is there");
    let start = Instant::now();
    stream.write_all(request).expect("the request is taken");
    let mut buffer = vec![0; BLOCK];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).expect("bytes") {
            0 => break,
            read => total += read,
        }
    }
    assert!(total >= BYTES, "only {total} bytes came");
    start.elapsed()
}

fn socat(file: &Path, socket: &Path) -> Duration {
    let mut process = Command::new("socat")
        .args(["-u", "-b"])
        .arg(BLOCK.to_string())
        .arg(format!("FILE:{}", file.display()))
        .arg(format!("UNIX-LISTEN:{}", socket.display()))
        .stdin(Stdio::null())
        .spawn()
        .expect("socat is installed");
    let end = Instant::now() + Duration::from_secs(5);
    while !socket.exists() {
        assert!(Instant::now() < end, "socat does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    let time = read_all(socket, b"");
    process.wait().expect("socat is our child");
    time
}
