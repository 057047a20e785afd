//! Images to flash, booted by their real boot loaders: x86-64 by UEFI and GRUB or systemd-boot, arm64 by Debian's U-Boot; and built twice to
//! the same bytes.
//!
//! `IMAGE_ARCH=arm64` runs one architecture only, `IMAGE_SCENARIOS=sick-kernel,…` some scenarios only (`all`: also those that CI has no time
//! for; systemd-boot is booted only with a choice), `IMAGE_DAMAGES=n` says how many kinds of damage to the boot loader's environment are
//! booted. `UBOOT_BIN=u-boot.bin` names a U-Boot with an environment in two copies (`orchestrator/linux/bootloaders.md` says how it is
//! configured), which is then booted too. Says SKIPPED where an image cannot be made or run; in CI that is a failure.

mod built;
mod damage;
mod machine;
mod power_cuts;
mod scenarios;

use std::sync::{Mutex, MutexGuard, PoisonError};

use built::Chain;

/// One emulated machine at a time keeps their times honest.
static ONE: Mutex<()> = Mutex::new(());

/// Whether the test can and shall run here; what keeps others from running beside it.
fn bench(chain: Chain) -> Option<MutexGuard<'static, ()>> {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = std::env::var("IMAGE_ARCH").unwrap_or_default();
    if !wanted.is_empty() && wanted != chain.arch() {
        eprintln!("SKIPPED {chain}: IMAGE_ARCH is {wanted}");
        return None;
    }
    let chosen = std::env::var("IMAGE_SCENARIOS").unwrap_or_default();
    if chain == Chain::SystemdBoot && chosen.is_empty() {
        eprintln!("SKIPPED {chain}: IMAGE_SCENARIOS=all boots it");
        return None;
    }
    if chain == Chain::UbootCopies && built::uboot_bin().is_none() {
        eprintln!("SKIPPED {chain}: UBOOT_BIN names no U-Boot that keeps its environment so");
        return None;
    }
    if let Some(why) = built::missing(chain) {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must run this test, but {why}"
        );
        eprintln!("SKIPPED images of {chain}: {why}");
        return None;
    }
    Some(one)
}
