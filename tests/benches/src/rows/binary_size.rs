//! Size of the binary as it is shipped: static and stripped.

use acceptance::image::binary;

use crate::Options;
use crate::figure::{Figure, Verdict, bytes};

pub(crate) fn measure(_: &Options) -> Vec<Figure> {
    let path = binary("coxswain");
    let size = std::fs::metadata(&path).map(|found| found.len());
    let size = size.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    vec![Figure {
        what: format!(
            "binary `coxswain` ({}, static, stripped)",
            std::env::consts::ARCH
        ),
        ours: bytes(size),
        peer: "limit".to_owned(),
        ratio: None,
        to_reach: "<= 6 MB".to_owned(),
        verdict: Verdict::from(size <= 6_000_000),
    }]
}
