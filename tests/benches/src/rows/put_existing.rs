//! PUT of 512 MiB that are already there, verified since the boot.

use crate::Options;
use crate::figure::{Figure, time as shown};
use crate::rows::put_large::BYTES;
use crate::samples::Samples;
use crate::subject::Subject;
use crate::{files, interrupt, upload};

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let subject = Subject::start(&[]);
    let bytes = files::noise(BYTES);
    let sha256 = acceptance::image::sha256(&bytes);
    let first = upload::put(&subject.device.socket, &sha256, &bytes);
    let mut again = Samples::default();
    for _ in 0..options.repeat * 6 {
        interrupt::check();
        again.push_time(upload::put(&subject.device.socket, &sha256, &bytes));
    }
    vec![Figure {
        what: "PUT of a 512 MiB object that is already there".to_owned(),
        ours: shown(again.median()),
        peer: format!("the first time {}", shown(first.as_secs_f64())),
        ratio: None,
        to_reach: "< 10 ms".to_owned(),
        verdict: (again.median() < 0.010).into(),
    }]
}
