//! What acceptance tests share: a device of their own (real `coxswain`, real containerd), images, manifests, disks that lose
//! what was not flushed, and a client of the socket that has nothing in common with the code under test.

pub mod device;
pub mod http;
pub mod image;
pub mod manifest;
pub mod power;
