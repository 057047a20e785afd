//! Boot loaders: one contract for every implementation of the port, the simulator's among them; every damage of every format; and the
//! tools of U-Boot and GRUB as judges that do not know our code.

#![allow(clippy::unwrap_used, missing_docs)]

mod contract;
mod damage;
mod judges;
mod machines;
mod real_uboot;
