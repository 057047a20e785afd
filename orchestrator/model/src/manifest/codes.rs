//! Every code that a problem of a manifest can have, with what it means. Codes are stable: programs match them.

/// Code and meaning, sorted by code.
pub const CODES: [(&str, &str); 76] = [
    (
        "address-conflict",
        "two containers ask for one address of a pool",
    ),
    (
        "address-outside-pool",
        "an address is not inside its pool's subnet, or is the gateway's",
    ),
    (
        "bad-access",
        "a device's access is no combination of r, w and m",
    ),
    ("bad-address", "a text is no IP address"),
    (
        "bad-backoff-policy",
        "backoff_policy is neither reboot, never nor a pause",
    ),
    (
        "bad-container-name",
        "a folder with a run.json cannot be a container's name",
    ),
    ("bad-device", "a device is not below /dev"),
    (
        "bad-duration",
        "a time cannot be read, or is longer than 365 days",
    ),
    ("bad-driver-name", "a driver's name is no short word"),
    ("bad-env", "an environment entry is no NAME=value"),
    ("bad-group-name", "a group's name is no short path segment"),
    ("bad-health", "a health check has no question, or several"),
    (
        "bad-hostname",
        "a host name has characters that host names have not",
    ),
    ("bad-image-config", "a value is no OCI image configuration"),
    ("bad-mac", "a text is no hardware address of one device"),
    (
        "bad-object-name",
        "a text value is not 64 lower-case hexadecimal digits",
    ),
    ("bad-path", "a path is not absolute and clean"),
    ("bad-pool-name", "a pool's name is no short path segment"),
    ("bad-size", "a size cannot be read, or is out of range"),
    (
        "bad-subnet",
        "a subnet is no address with the length of its prefix",
    ),
    (
        "bad-user",
        "a user is neither name nor number, with or without a group",
    ),
    (
        "bad-value",
        "a value is neither an object's name nor inline JSON",
    ),
    (
        "bad-verity",
        "a `_dm` descriptor does not describe its image",
    ),
    (
        "bad-volume-name",
        "a volume's name is no clean path segment",
    ),
    ("config-not-object", "an lxc configuration is inline JSON"),
    (
        "dependency-cycle",
        "containers wait for each other in a circle",
    ),
    ("duplicate-field", "a field stands twice in one object"),
    ("duplicate-group", "two groups have one name"),
    ("duplicate-key", "a key of the manifest stands twice"),
    ("empty-command", "a command names no program"),
    (
        "file-too-large",
        "an inline file that is read is larger than 256 KiB",
    ),
    ("image-not-object", "an image is inline JSON"),
    ("invalid-json", "the text is no JSON, or not one object"),
    (
        "later-dependency",
        "a container waits for one of a later group",
    ),
    ("manifest-too-large", "the manifest is larger than 4 MiB"),
    (
        "missing-command",
        "nothing says what a container is to start",
    ),
    ("missing-key", "a reference names a key that is not there"),
    ("missing-name", "a run.json, group or disk has no name"),
    ("missing-path", "a volume or mount does not say where it is"),
    (
        "missing-persistence",
        "a volume does not say how long it lives",
    ),
    (
        "missing-pool",
        "the network mode is pool, and none is named",
    ),
    (
        "missing-root-volume",
        "a container that is to be started has no root file system",
    ),
    ("missing-spec", "there is no #spec"),
    ("missing-subnet", "a pool has no subnet"),
    ("not-inline", "a file that must be inline JSON is an object"),
    ("not-utf8", "the manifest is not UTF-8"),
    ("nul-byte", "a text holds a NUL character"),
    ("out-of-range", "a number is out of range"),
    ("path-conflict", "two things claim one path"),
    (
        "reserved-path",
        "a key is in a folder that belongs to the orchestrator",
    ),
    ("too-deep", "inline JSON is nested more than 64 deep"),
    ("too-many-containers", "there are more than 256 containers"),
    ("too-many-groups", "there are more than 64 groups"),
    ("too-many-items", "a list has more than 1024 items"),
    ("too-many-keys", "there are more than 20000 keys"),
    ("too-many-volumes", "a container has more than 128 volumes"),
    ("unclean-key", "a key is no clean relative path"),
    ("unknown-capability", "there is no such capability"),
    (
        "unknown-dependency",
        "a container waits for one that is not there",
    ),
    (
        "unknown-disk",
        "a volume names a disk that device.json has not",
    ),
    ("unknown-field", "a field is not known where it stands"),
    ("unknown-goal", "a goal is none of MOUNTED, STARTED, READY"),
    ("unknown-group", "there is no such group"),
    (
        "unknown-image-format",
        "an image's ending names no format that can be mounted",
    ),
    (
        "unknown-network-mode",
        "a network mode is none of host, none, pool",
    ),
    (
        "unknown-persistence",
        "a persistence is none of permanent, revision, boot",
    ),
    ("unknown-pool", "device.json has no such pool"),
    ("unknown-pool-type", "a pool is neither bridge nor macvlan"),
    (
        "unknown-recovery-policy",
        "a recovery policy is none of no, always, on-failure, unless-stopped",
    ),
    (
        "unknown-restart-policy",
        "a restart policy is neither system nor container",
    ),
    (
        "unknown-seccomp",
        "a system call filter is neither default nor unconfined",
    ),
    ("unknown-signal", "there is no such signal"),
    ("unknown-spec", "#spec names no specification that is known"),
    ("unknown-type", "a container is neither lxc nor oci"),
    (
        "wrong-name",
        "the name in run.json is not that of the folder",
    ),
    (
        "wrong-type",
        "a value is of another type than its field wants",
    ),
];
