//! Pantavisor's configuration keys, as `/config` and `/config2` list them: same keys, same order, because its clients read them by place
//! as well as by name (source: protocol page, sections 1.11 and 7).
//!
//! A key that one of our settings stands for shows that setting's value. The rest shows what is true of this orchestrator: features that
//! it does not have are off or unset.

/// Where the value of a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shows {
    /// One of our settings.
    Ours(&'static str),
    /// A path below the storage.
    InStorage(&'static str),
    /// Always this.
    Fixed(&'static str),
    /// Not set.
    Unset,
}

/// How `/config` writes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As text.
    Text,
    /// As a number.
    Number,
    /// As true or false.
    Flag,
    /// A word, as the number that Pantavisor's code gives it.
    Word(i64),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// As in `/config2`.
    pub(crate) key: &'static str,
    /// As in `/config`; keys without one are not there.
    pub(crate) alias: Option<&'static str>,
    /// How `/config` writes it.
    pub(crate) form: Form,
    /// What it shows.
    pub(crate) value: Shows,
}

impl Key {
    /// The setting of ours that it stands for.
    pub(crate) fn ours(&self) -> Option<&'static str> {
        if let Shows::Ours(name) = self.value {
            Some(name)
        } else {
            None
        }
    }
}

/// What Pantavisor calls a boot loader, and what we call it.
const BOOTLOADERS: [(&str, &str); 3] = [
    ("uboot", "uboot-pantavisor"),
    ("uboot-pvk", "uboot"),
    ("rpiab", "tryboot"),
];

/// Our word for the value of a key of Pantavisor.
pub(crate) fn our_word<'a>(setting: &str, value: &'a str) -> &'a str {
    let known = BOOTLOADERS.iter().find(|(theirs, _)| *theirs == value);
    match known {
        Some((_, ours)) if setting == "bootloader" => ours,
        Some(_) | None => value,
    }
}

/// Pantavisor's word for the value of one of our settings.
pub(crate) fn their_word<'a>(setting: &str, value: &'a str) -> &'a str {
    let known = BOOTLOADERS.iter().find(|(_, ours)| *ours == value);
    match known {
        Some((theirs, _)) if setting == "bootloader" => theirs,
        Some(_) | None => value,
    }
}

use Form::{Flag, Number, Text, Word};
use Shows::{Fixed, InStorage, Ours, Unset};

/// The keys in Pantavisor's order.
#[rustfmt::skip]
pub(crate) const KEYS: &[Key] = &[
    Key { key: "PH_CREDS_HOST", alias: Some("creds.host"), form: Text, value: Unset },
    Key { key: "PH_CREDS_ID", alias: Some("creds.id"), form: Text, value: Unset },
    Key { key: "PH_CREDS_PORT", alias: Some("creds.port"), form: Number, value: Fixed("443") },
    Key { key: "PH_CREDS_PROXY_HOST", alias: Some("creds.proxy.host"), form: Text, value: Unset },
    Key { key: "PH_CREDS_PROXY_NOPROXYCONNECT", alias: Some("creds.proxy.noproxyconnect"), form: Number, value: Fixed("0") },
    Key { key: "PH_CREDS_PROXY_PORT", alias: Some("creds.proxy.port"), form: Number, value: Fixed("3218") },
    Key { key: "PH_CREDS_PRN", alias: Some("creds.prn"), form: Text, value: Unset },
    Key { key: "PH_CREDS_SECRET", alias: Some("creds.secret"), form: Text, value: Unset },
    Key { key: "PH_CREDS_TYPE", alias: Some("creds.type"), form: Text, value: Fixed("builtin") },
    Key { key: "PH_FACTORY_AUTOTOK", alias: Some("factory.autotok"), form: Text, value: Unset },
    Key { key: "PH_LIBEVENT_HTTP_TIMEOUT", alias: None, form: Text, value: Fixed("60") },
    Key { key: "PH_LIBEVENT_HTTP_RETRIES", alias: None, form: Text, value: Fixed("1") },
    Key { key: "PH_METADATA_DEVMETA_INTERVAL", alias: Some("metadata.devmeta.interval"), form: Number, value: Fixed("10") },
    Key { key: "PH_METADATA_USRMETA_INTERVAL", alias: Some("metadata.usrmeta.interval"), form: Number, value: Fixed("5") },
    Key { key: "PH_ONLINE_REQUEST_THRESHOLD", alias: None, form: Text, value: Fixed("0") },
    Key { key: "PH_UPDATER_INTERVAL", alias: Some("updater.interval"), form: Number, value: Fixed("5") },
    Key { key: "PH_UPDATER_NETWORK_TIMEOUT", alias: Some("updater.network_timeout"), form: Number, value: Fixed("120") },
    Key { key: "PH_UPDATER_TRANSFER_MAX_COUNT", alias: None, form: Text, value: Fixed("5") },
    Key { key: "PV_BOOTLOADER_FITCONFIG", alias: Some("bootloader.fitconfig"), form: Text, value: Unset },
    Key { key: "PV_BOOTLOADER_MTD_ENV", alias: Some("bootloader.mtd_env"), form: Text, value: Unset },
    Key { key: "PV_BOOTLOADER_MTD_ONLY", alias: Some("bootloader.mtd_only"), form: Flag, value: Fixed("0") },
    Key { key: "PV_BOOTLOADER_TYPE", alias: Some("bootloader.type"), form: Word(0), value: Ours("bootloader") },
    Key { key: "PV_BOOTLOADER_UBOOTAB_A_NAME", alias: None, form: Text, value: Fixed("fitA") },
    Key { key: "PV_BOOTLOADER_UBOOTAB_B_NAME", alias: None, form: Text, value: Fixed("fitB") },
    Key { key: "PV_BOOTLOADER_UBOOTAB_ENV_NAME", alias: None, form: Text, value: Unset },
    Key { key: "PV_BOOTLOADER_UBOOTAB_ENV_BAK_NAME", alias: None, form: Text, value: Unset },
    Key { key: "PV_BOOTLOADER_UBOOTAB_ENV_OFFSET", alias: None, form: Text, value: Fixed("0") },
    Key { key: "PV_BOOTLOADER_UBOOTAB_ENV_SIZE", alias: None, form: Text, value: Fixed("0") },
    Key { key: "PV_CACHE_DEVMETADIR", alias: Some("cache.devmetadir"), form: Text, value: InStorage("meta/device") },
    Key { key: "PV_CACHE_USRMETADIR", alias: Some("cache.usrmetadir"), form: Text, value: InStorage("meta/user") },
    Key { key: "PV_CONTROL_REMOTE", alias: Some("control.remote"), form: Flag, value: Fixed("0") },
    Key { key: "PV_CONTROL_REMOTE_ALWAYS", alias: Some("control.remote.always"), form: Flag, value: Fixed("0") },
    Key { key: "PV_DEBUG_SHELL", alias: Some("debug.shell"), form: Flag, value: Fixed("0") },
    Key { key: "PV_DEBUG_SHELL_AUTOLOGIN", alias: Some("debug.shell.autologin"), form: Flag, value: Fixed("0") },
    Key { key: "PV_DEBUG_SHELL_TIMEOUT", alias: None, form: Text, value: Fixed("60") },
    Key { key: "PV_DEBUG_SSH", alias: Some("debug.ssh"), form: Flag, value: Fixed("0") },
    Key { key: "PV_DEBUG_SSH_AUTHORIZED_KEYS", alias: Some("debug.ssh_authorized_keys"), form: Text, value: Unset },
    Key { key: "PV_DISK_EXPORTSDIR", alias: Some("disk.exportsdir"), form: Text, value: Unset },
    Key { key: "PV_DISK_VOLDIR", alias: Some("disk.voldir"), form: Text, value: Unset },
    Key { key: "PV_DISK_WRITABLEDIR", alias: Some("disk.writabledir"), form: Text, value: Unset },
    Key { key: "PV_DROPBEAR_CACHE_DIR", alias: Some("dropbear.cache.dir"), form: Text, value: Unset },
    Key { key: "PV_LIBEVENT_DEBUG_MODE", alias: None, form: Text, value: Fixed("0") },
    Key { key: "PV_LIBTHTTP_CERTSDIR", alias: Some("libthttp.certdir"), form: Text, value: Unset },
    Key { key: "PV_LIBTHTTP_LOG_LEVEL", alias: Some("libthttp.log.level"), form: Number, value: Fixed("3") },
    Key { key: "PV_LOG_AUTO_DEVLOG", alias: None, form: Text, value: Fixed("1") },
    Key { key: "PV_LOG_CAPTURE", alias: Some("log.capture"), form: Flag, value: Fixed("1") },
    Key { key: "PV_LOG_CAPTURE_DMESG", alias: Some("log.capture.dmesg"), form: Flag, value: Fixed("0") },
    Key { key: "PV_LOG_BUF_NITEMS", alias: Some("log.buf_nitems"), form: Number, value: Fixed("128") },
    Key { key: "PV_LOG_DIR", alias: Some("log.dir"), form: Text, value: InStorage("logs") },
    Key { key: "PV_LOG_DIR_MAXSIZE", alias: None, form: Text, value: Fixed("0") },
    Key { key: "PV_LOG_FILETREE_TIMESTAMP_FORMAT", alias: Some("log.filetree.timestamp.format"), form: Text, value: Unset },
    Key { key: "PV_LOG_HYSTERESIS_FACTOR", alias: None, form: Text, value: Fixed("4") },
    Key { key: "PV_LOG_LEVEL", alias: Some("log.level"), form: Number, value: Ours("log-level") },
    Key { key: "PV_LOG_LOGGERS", alias: Some("log.loggers"), form: Flag, value: Fixed("1") },
    Key { key: "PV_LOG_PUSH", alias: Some("log.push"), form: Flag, value: Fixed("0") },
    Key { key: "PV_LOG_ROTATE_FACTOR", alias: None, form: Text, value: Fixed("5") },
    Key { key: "PV_LOG_SERVER_OUTPUTS", alias: Some("log.server.outputs"), form: Number, value: Fixed("4") },
    Key { key: "PV_LOG_SINGLEFILE_TIMESTAMP_FORMAT", alias: Some("log.singlefile.timestamp.format"), form: Text, value: Unset },
    Key { key: "PV_LOG_STDOUT_TIMESTAMP_FORMAT", alias: Some("log.stdout.timestamp.format"), form: Text, value: Unset },
    Key { key: "PV_LOG_TIMESTAMP", alias: None, form: Text, value: Fixed("relative") },
    Key { key: "PV_LOOP_INDEX_BASE", alias: None, form: Text, value: Fixed("-1") },
    Key { key: "PV_LXC_LOG_LEVEL", alias: Some("lxc.log.level"), form: Number, value: Fixed("2") },
    Key { key: "PV_NET_BRADDRESS4", alias: Some("net.braddress4"), form: Text, value: Fixed("10.0.3.1") },
    Key { key: "PV_NET_BRDEV", alias: Some("net.brdev"), form: Text, value: Fixed("lxcbr0") },
    Key { key: "PV_NET_BRMASK4", alias: Some("net.brmask4"), form: Text, value: Fixed("255.255.255.0") },
    Key { key: "PV_OEM_NAME", alias: None, form: Text, value: Unset },
    Key { key: "PV_POLICY", alias: Some("policy"), form: Text, value: Unset },
    Key { key: "PV_POWER_MODE", alias: Some("power.mode"), form: Word(0), value: Fixed("disabled") },
    Key { key: "PV_POWER_DEVMETA_EAGER_PUSH", alias: Some("power.devmeta.eager_push"), form: Flag, value: Fixed("0") },
    Key { key: "PV_POWER_WAKE_INTERVAL", alias: Some("power.wake.interval"), form: Number, value: Fixed("3600") },
    Key { key: "PV_POWER_WAKE_RUN_WINDOW", alias: Some("power.wake.run_window"), form: Number, value: Fixed("0") },
    Key { key: "PV_POWER_AUTOSLEEP_SETTLE", alias: Some("power.autosleep.settle"), form: Number, value: Fixed("90") },
    Key { key: "PV_POWER_WAKE_MIN_AWAKE", alias: Some("power.wake.min_awake"), form: Number, value: Fixed("10") },
    Key { key: "PV_POWER_WAKE_MAX_AWAKE", alias: Some("power.wake.max_awake"), form: Number, value: Fixed("60") },
    Key { key: "PV_POWER_DEVMETA_MAX_HELD", alias: Some("power.devmeta.max_held"), form: Number, value: Fixed("300") },
    Key { key: "PV_POWER_SYSFS_DIR", alias: Some("power.sysfs_dir"), form: Text, value: Fixed("/sys/power") },
    Key { key: "PV_REVISION_RETRIES", alias: Some("revision.retries"), form: Number, value: Ours("tries") },
    Key { key: "PV_SECUREBOOT_CHECKSUM", alias: Some("secureboot.checksum"), form: Flag, value: Fixed("1") },
    Key { key: "PV_SECUREBOOT_HANDLERS", alias: Some("secureboot.handlers"), form: Flag, value: Fixed("0") },
    Key { key: "PV_SECUREBOOT_MODE", alias: Some("secureboot.mode"), form: Word(0), value: Fixed("disabled") },
    Key { key: "PV_SECUREBOOT_OEM_TRUSTSTORE", alias: Some("PV_SECUREBOOT_OEM_TRUSTORE"), form: Text, value: Fixed("ca-oem-certificates") },
    Key { key: "PV_SECUREBOOT_TRUSTSTORE", alias: Some("secureboot.truststore"), form: Text, value: Fixed("ca-certificates") },
    Key { key: "PV_STORAGE_DEVICE", alias: Some("storage.device"), form: Text, value: Ours("storage-device") },
    Key { key: "PV_STORAGE_FSTYPE", alias: Some("storage.fstype"), form: Text, value: Ours("storage-type") },
    Key { key: "PV_STORAGE_GC_KEEP_FACTORY", alias: Some("storage.gc.keep_factory"), form: Flag, value: Fixed("1") },
    Key { key: "PV_STORAGE_GC_RESERVED", alias: Some("storage.gc.reserved"), form: Number, value: Ours("storage-reserve") },
    Key { key: "PV_STORAGE_GC_THRESHOLD_DEFERTIME", alias: Some("storage.gc.threshold.defertime"), form: Number, value: Ours("object-lease") },
    Key { key: "PV_STORAGE_GC_THRESHOLD", alias: Some("storage.gc.threshold"), form: Number, value: Fixed("0") },
    Key { key: "PV_STORAGE_LOGTEMPSIZE", alias: Some("storage.logtempsize"), form: Text, value: Unset },
    Key { key: "PV_STORAGE_MNTPOINT", alias: Some("storage.mntpoint"), form: Text, value: Ours("storage") },
    Key { key: "PV_STORAGE_MNTTYPE", alias: Some("storage.mnttype"), form: Text, value: Unset },
    Key { key: "PV_STORAGE_FIRMWARE_VOL", alias: None, form: Text, value: Fixed("0") },
    Key { key: "PV_STORAGE_PHCONFIG_VOL", alias: None, form: Text, value: Fixed("0") },
    Key { key: "PV_STORAGE_WAIT", alias: Some("storage.wait"), form: Number, value: Ours("storage-wait") },
    Key { key: "PV_SYSTEM_APPARMOR_PROFILES", alias: Some("system.apparmor.profiles"), form: Text, value: Unset },
    Key { key: "PV_SYSTEM_CONFDIR", alias: Some("system.confdir"), form: Text, value: Unset },
    Key { key: "PV_SYSTEM_DRIVERS_LOAD_EARLY_AUTO", alias: Some("system.drivers.load_early.auto"), form: Flag, value: Fixed("0") },
    Key { key: "PV_SYSTEM_ETCDIR", alias: Some("system.etcdir"), form: Text, value: Fixed("/etc") },
    Key { key: "PV_SYSTEM_ETCPANTAVISORDIR", alias: None, form: Text, value: Fixed("/etc/coxswain") },
    Key { key: "PV_SYSTEM_INIT_MODE", alias: Some("system.init.mode"), form: Word(2), value: Fixed("appengine") },
    Key { key: "PV_SYSTEM_LIBDIR", alias: Some("system.libdir"), form: Text, value: Unset },
    Key { key: "PV_SYSTEM_MEDIADIR", alias: Some("system.mediadir"), form: Text, value: Unset },
    Key { key: "PV_SYSTEM_MOUNT_SECURITYFS", alias: Some("system.mount.securityfs"), form: Flag, value: Fixed("0") },
    Key { key: "PV_SYSTEM_RUNDIR", alias: Some("system.rundir"), form: Text, value: Ours("run-dir") },
    Key { key: "PV_SYSTEM_DISKSDIR", alias: Some("system.disksdir"), form: Text, value: InStorage("disks") },
    Key { key: "PV_SYSTEM_USRDIR", alias: Some("system.usrdir"), form: Text, value: Fixed("/usr") },
    Key { key: "PV_UPDATER_COMMIT_DELAY", alias: Some("updater.commit.delay"), form: Number, value: Ours("commit-delay") },
    Key { key: "PV_UPDATER_GOALS_TIMEOUT", alias: Some("updater.goals.timeout"), form: Number, value: Fixed("120") },
    Key { key: "PV_UPDATER_USE_TMP_OBJECTS", alias: Some("updater.use_tmp_objects"), form: Flag, value: Fixed("1") },
    Key { key: "PV_VOLMOUNT_DM_EXTRA_ARGS", alias: None, form: Text, value: Unset },
    Key { key: "PV_WDT_MODE", alias: Some("wdt.mode"), form: Word(0), value: Ours("watchdog") },
    Key { key: "PV_WDT_TIMEOUT", alias: Some("wdt.timeout"), form: Number, value: Ours("watchdog-timeout") },
    Key { key: "PV_XCONNECT_DBUS_SYSTEMBUS_ENABLED", alias: Some("xconnect.dbus.systembus.enabled"), form: Flag, value: Fixed("0") },
];
