//! PUT of 1 MiB beside the least that a durable new name costs.

use crate::Options;
use crate::figure::{Figure, time as shown};
use crate::samples::{Samples, time};
use crate::subject::Subject;
use crate::{files, interrupt, upload};

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let subject = Subject::start(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut bytes = files::noise(1 << 20);
    let (mut ours, mut peer) = <(Samples, Samples)>::default();
    files::settle();
    for number in 0..options.repeat * 6 {
        interrupt::check();
        files::renew(&mut bytes);
        let sha256 = acceptance::image::sha256(&bytes);
        ours.push_time(upload::put(&subject.device.socket, &sha256, &bytes));
        let name = number.to_string();
        let ((), written) = time(|| files::replace_durably(folder.path(), &name, &bytes));
        peer.push_time(written);
    }
    let ratio = ours.median() / peer.median();
    vec![Figure {
        what: "PUT of a 1 MiB object".to_owned(),
        ours: shown(ours.median()),
        peer: format!(
            "write, fsync, rename, fsync of folder {}",
            shown(peer.median())
        ),
        ratio: Some(ratio),
        to_reach: "<= 3 x".to_owned(),
        verdict: (ratio <= 3.0).into(),
    }]
}
