//! PUT of 512 MiB, until the durable 200, beside hashing the same bytes and beside writing and syncing them.

use crate::Options;
use crate::figure::{Figure, limit, time as shown};
use crate::samples::{Samples, time};
use crate::subject::Subject;
use crate::{files, interrupt, upload};

/// Size of the object.
pub(crate) const BYTES: usize = 512 << 20;

pub(crate) fn measure(options: &Options) -> Vec<Figure> {
    let subject = Subject::start(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("written");
    let mut bytes = files::noise(BYTES);
    let (mut ours, mut hash, mut write, mut floor) =
        <(Samples, Samples, Samples, Samples)>::default();
    for _ in 0..options.repeat {
        interrupt::check();
        files::renew(&mut bytes);
        files::settle();
        let (sha256, hashed) = time(|| acceptance::image::sha256(&bytes));
        let ((), written) = time(|| files::write_durably(&file, &bytes));
        std::fs::remove_file(&file).expect("our own file");
        files::settle();
        ours.push_time(upload::put(&subject.device.socket, &sha256, &bytes));
        hash.push_time(hashed);
        write.push_time(written);
        floor.push_time(hashed.max(written));
    }
    let peer = floor.median();
    vec![Figure {
        what: "PUT of a 512 MiB object, until the durable 200".to_owned(),
        ours: shown(ours.median()),
        peer: format!(
            "hash {}, write + fsync {}",
            shown(hash.median()),
            shown(write.median())
        ),
        ratio: Some(ours.median() / peer),
        to_reach: "<= 1.25 x the longer".to_owned(),
        verdict: (ours.median() <= limit(peer, 1.25, std::time::Duration::ZERO)).into(),
    }]
}
