//! Pantavisor's containers: `lxc.container.conf` in our words.
//!
//! The translation is pure and knows every key of LXC: translated, left out with a reason, or refused with what to do instead
//! (`keys.rs`; the reference page `lxc-keys.md` is made from it). Nothing is ignored silently. What depends on the machine is decided
//! afterwards, in `wanted.rs`. Why it is as it is: `decisions/0050`.

mod conf;
mod keys;
mod limits;
mod lines;
mod mounts;
mod namespaces;
mod wanted;

pub(crate) use conf::{About, Conf};
pub(crate) use lines::{Problems, Refused};
pub(crate) use wanted::wanted;
