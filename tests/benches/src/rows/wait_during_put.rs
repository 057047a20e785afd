//! How long others wait while 512 MiB are being put.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use acceptance::manifest::Manifest;

use crate::Options;
use crate::figure::{Figure, time as shown};
use crate::rows::put_large::BYTES;
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{files, interrupt, load, upload};

/// Time between two questions.
const PACE: Duration = Duration::from_millis(1);

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let mut subject = Subject::start(&[]);
    subject.install("locals/none", &Manifest::new());
    let mut bytes = files::noise(BYTES);
    let (mut busy, mut idle) = <(Samples, Samples)>::default();
    for _ in 0..options.repeat {
        interrupt::check();
        files::renew(&mut bytes);
        let sha256 = acceptance::image::sha256(&bytes);
        files::settle();
        let path = subject.device.run_dir().join("control.sock");
        let mut stream = UnixStream::connect(path).expect("the socket is there");
        let mut buffer = vec![0; 64 << 10];
        let mut ask = |samples: &mut Samples| {
            samples.push_time(load::exchange(&mut stream, &mut buffer));
            std::thread::sleep(PACE);
        };
        for _ in 0..200 {
            ask(&mut idle);
        }
        std::thread::scope(|scope| {
            let put = scope.spawn(|| upload::put(&subject.device.socket, &sha256, &bytes));
            while !put.is_finished() {
                ask(&mut busy);
            }
        });
    }
    vec![Figure {
        what: format!(
            "wait of GET /containers during a 512 MiB PUT, p99 of {}",
            busy.len()
        ),
        ours: format!("{} (longest {})", shown(busy.p99()), shown(busy.max())),
        peer: format!("with nothing else to do {}", shown(idle.p99())),
        ratio: None,
        to_reach: "p99 <= 10 ms".to_owned(),
        verdict: (busy.p99() <= 0.010).into(),
    }]
}
