//! Authoring end to end, in temporary folders; what needs root says so.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use model::container::{Kind, Persistence, Probe};
use serde_json::json;
use sha2::Digest as _;
use tempfile::TempDir;

use super::{AuthorError, RevisionCommand};

mod payload;
mod verity;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: RevisionCommand,
}

/// Runs a command line; what it says.
fn run(words: &[&str]) -> Result<String, AuthorError> {
    let words = std::iter::once("revision").chain(words.iter().copied());
    let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    Ok(cli.command.run()?.join("\n"))
}

struct Home(TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A small root file system with one of everything that a test can make without root.
    fn rootfs(&self, name: &str) -> String {
        let root = self.path(name);
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("empty")).unwrap();
        fs::write(root.join("bin/web"), b"#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("bin/web"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::write(root.join("big"), pattern(300_000)).unwrap();
        fs::hard_link(root.join("big"), root.join("big-link")).unwrap();
        fs::write(root.join("nothing"), b"").unwrap();
        symlink("../big", root.join("bin/link")).unwrap();
        fs::write(root.join("na\u{ef}ve name"), b"x").unwrap();
        root.to_str().unwrap().to_owned()
    }
}

fn pattern(bytes: u32) -> Vec<u8> {
    (0..bytes)
        .map(|n| u8::try_from((n.wrapping_mul(2_654_435_761) >> 16) & 0xff).unwrap())
        .collect()
}

fn root_object(dir: &str) -> String {
    let manifest = super::manifest_of(Path::new(dir)).unwrap();
    let web = manifest.container(&"web".parse().unwrap()).unwrap();
    web.root.as_ref().unwrap().object.to_string()
}

#[test]
fn from_nothing_to_a_bundle_and_back() {
    let home = Home::new();
    let (dir, rootfs) = (home.text("rev"), home.rootfs("root"));
    run(&["new", &dir]).unwrap();
    assert!(matches!(
        run(&["new", &dir]),
        Err(AuthorError::Exists { .. })
    ));
    run(&[
        "add-container",
        &dir,
        "web",
        "--rootfs",
        &rootfs,
        "--goal",
        "READY",
        "--command",
        "/bin/ready",
        "--command",
        "--",
        "--command",
        "/bin/httpd",
        "--command",
        "-f",
        "--volume",
        "data:/data",
        "--volume",
        "tmp:/tmp:boot",
        "--health-http",
        "80/healthz",
        "--health-interval",
        "5s",
        "--memory",
        "64M",
        "--restart",
        "always",
        "--stop-signal",
        "INT",
    ])
    .unwrap();
    let manifest = super::manifest_of(Path::new(&dir)).unwrap();
    let web = manifest.container(&"web".parse().unwrap()).unwrap();
    let Kind::Oci(oci) = &web.kind else {
        panic!("{web:?}")
    };
    let command = ["/bin/ready", "--", "/bin/httpd", "-f"].map(str::to_owned);
    assert_eq!(oci.command.as_deref(), Some(&command[..]));
    assert_eq!(
        oci.health.as_ref().unwrap().probe,
        Probe::Http {
            port: 80,
            path: "/healthz".to_owned()
        }
    );
    assert_eq!(web.volumes[0].persistence, Persistence::Permanent);
    assert_eq!(web.stop_signal, 2);
    assert_eq!(web.group.as_str(), "app");
    assert!(web.roles.given && !web.roles.mgmt);

    fs::write(home.path("web.conf"), b"a=1").unwrap();
    run(&[
        "set-config",
        &dir,
        "web",
        "/etc/web.conf",
        &home.text("web.conf"),
    ])
    .unwrap();
    fs::write(home.path("device"), br#" {"groups": [{"name":"app"}]} "#).unwrap();
    run(&["set", &dir, "device.json", &home.text("device")]).unwrap();
    assert!(
        run(&["check", &dir])
            .unwrap()
            .contains("fine, 1 containers")
    );

    let (one, two) = (home.text("a.tgz"), home.text("b.tgz"));
    run(&["export", &dir, &one]).unwrap();
    run(&["import", &one, &home.text("copy")]).unwrap();
    run(&["export", &home.text("copy"), &two]).unwrap();
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    assert_eq!(run(&["diff", &dir, &two]).unwrap(), "");
    run(&["check", &two]).unwrap();

    // The bundle is what pvr's users know: the manifest first, then the objects.
    let list = Command::new("tar").args(["-tzf", &one]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert_eq!(list.lines().next(), Some("json"));
    assert!(
        list.lines()
            .skip(1)
            .all(|line| line.starts_with("objects/") && line.len() == 72),
        "{list}"
    );
    assert_eq!(list.lines().count(), 3);

    // Replacing keeps what is laid over, and drops what is not needed any more.
    run(&[
        "add-container",
        &dir,
        "web",
        "--replace",
        "--rootfs",
        &rootfs,
        "--",
        "/bin/web",
        "-x",
    ])
    .unwrap();
    let difference = run(&["diff", &one, &dir]).unwrap();
    assert_eq!(difference.lines().count(), 1, "{difference}");
    assert!(difference.starts_with("~ web/run.json"));
    run(&["set-config", &dir, "web", "/etc/web.conf"]).unwrap();
    assert_eq!(fs::read_dir(home.path("rev/objects")).unwrap().count(), 1);
    run(&["remove-container", &dir, "web"]).unwrap();
    assert_eq!(fs::read_dir(home.path("rev/objects")).unwrap().count(), 0);
}

#[test]
fn what_is_wrong_changes_nothing() {
    let home = Home::new();
    let (dir, rootfs) = (home.text("rev"), home.rootfs("root"));
    assert!(matches!(run(&["check", &dir]), Err(AuthorError::Bundle(_))));
    run(&["new", &dir]).unwrap();
    run(&[
        "add-container",
        &dir,
        "web",
        "--rootfs",
        &rootfs,
        "--",
        "/bin/web",
    ])
    .unwrap();
    let before = fs::read(home.path("rev/manifest.json")).unwrap();
    let add = ["add-container", &dir, "web", "--rootfs", &rootfs];
    assert!(matches!(
        run(&[&add[..], &["--", "x"]].concat()),
        Err(AuthorError::ContainerExists { .. })
    ));
    let wrong = [
        &add[..],
        &[
            "--replace",
            "--goal",
            "ready",
            "--group",
            "nope",
            "--health-http",
            "x",
            "--",
            "x",
        ],
    ];
    let Err(AuthorError::Rejected(rejected)) = run(&wrong.concat()) else {
        panic!()
    };
    let codes: Vec<_> = rejected
        .problems
        .iter()
        .map(|problem| problem.code)
        .collect();
    assert_eq!(rejected.total, 3, "{codes:?}");
    for word in ["unknown-goal", "unknown-group", "wrong-type"] {
        assert!(codes.contains(&word), "{codes:?}");
    }
    assert!(matches!(
        run(&[
            "add-container",
            &dir,
            "../x",
            "--rootfs",
            &rootfs,
            "--",
            "x"
        ]),
        Err(AuthorError::Name(_))
    ));
    assert!(matches!(
        run(&["remove-container", &dir, "db"]),
        Err(AuthorError::NoContainer { .. })
    ));
    fs::write(home.path("bad"), b"{").unwrap();
    assert!(matches!(
        run(&["set", &dir, "device.json", &home.text("bad")]),
        Err(AuthorError::BadJson { .. })
    ));
    assert!(matches!(
        run(&["set", &dir, "../x", &home.text("bad")]),
        Err(AuthorError::Rejected(_))
    ));
    assert_eq!(fs::read(home.path("rev/manifest.json")).unwrap(), before);
    // A corrupt object is found.
    let object = home.path("rev/objects").join(root_object(&dir));
    fs::write(object, b"changed").unwrap();
    assert!(matches!(
        run(&["check", &dir]),
        Err(AuthorError::Bundle(client::BundleError::Corrupt { .. }))
    ));
}

#[test]
fn same_input_same_hash() {
    let home = Home::new();
    let mut hashes = Vec::new();
    for name in ["one", "two"] {
        let rootfs = home.rootfs(name);
        // Neither time, nor order of creation, nor owner.
        let file = File::options()
            .write(true)
            .open(home.path(name).join("nothing"))
            .unwrap();
        file.set_modified(
            std::time::SystemTime::UNIX_EPOCH
                + std::time::Duration::from_secs(hashes.len() as u64 * 99),
        )
        .unwrap();
        let dir = home.text(&format!("rev-{name}"));
        run(&["new", &dir]).unwrap();
        run(&[
            "add-container",
            &dir,
            "web",
            "--rootfs",
            &rootfs,
            "--",
            "/bin/web",
        ])
        .unwrap();
        hashes.push(root_object(&dir));
    }
    assert_eq!(hashes[0], hashes[1]);
    fs::set_permissions(home.path("two/empty"), fs::Permissions::from_mode(0o700)).unwrap();
    let dir = home.text("rev-two");
    run(&[
        "add-container",
        &dir,
        "web",
        "--replace",
        "--rootfs",
        &home.text("two"),
        "--",
        "/bin/web",
    ])
    .unwrap();
    assert_ne!(root_object(&dir), hashes[0]);
}

/// Mounts an image read-only while `look` looks; `None` when this machine does not let us.
fn mounted<T>(image: &Path, look: impl FnOnce(&Path) -> T) -> Option<T> {
    let point = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "squashfs", "-o", "loop,ro"])
        .args([image, point.path()])
        .output();
    match mount {
        Ok(output) if output.status.success() => {
            let result =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(point.path())));
            let unmounted = Command::new("umount").arg(point.path()).status().unwrap();
            assert!(unmounted.success());
            Some(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        }
        failed => {
            eprintln!("SKIPPED: mounting squashfs needs root and loop devices: {failed:?}");
            None
        }
    }
}

/// What a tree looks like to those who use it: path, kind, mode, owner, bytes.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|child| child.unwrap().path()),
            );
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            format!(
                "{} bytes {}",
                metadata.len(),
                model::ObjectId::of(&fs::read(&path).unwrap()).short()
            )
        } else {
            format!("device {:x}", metadata.rdev())
        };
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        found.insert(name, format!("{:o} {}", metadata.mode(), content));
    }
    found
}

#[test]
fn the_kernel_reads_what_we_wrote() {
    let home = Home::new();
    let (dir, rootfs) = (home.text("rev"), home.rootfs("root"));
    // Many names in one folder, and many small files: the corners of the format.
    fs::create_dir(home.path("root/many")).unwrap();
    for number in 0..3_000_u32 {
        let path = home
            .path("root/many")
            .join(format!("a-rather-long-name-of-a-file-{number}"));
        fs::write(path, pattern(number % 700)).unwrap();
    }
    fs::write(home.path("root/zeros"), vec![0; 400_000]).unwrap();
    fs::write(home.path("root/exact"), pattern(128 << 10)).unwrap();
    run(&["new", &dir]).unwrap();
    run(&[
        "add-container",
        &dir,
        "web",
        "--rootfs",
        &rootfs,
        "--",
        "/bin/web",
    ])
    .unwrap();
    let image = home.path("rev/objects").join(root_object(&dir));
    let expected = listing(&home.path("root"));
    if let Some(found) = mounted(&image, listing) {
        assert_eq!(found.len(), expected.len());
        assert_eq!(found, expected);
    }
}

/// One member of a layer.
struct Member<'a>(&'a str, tar::EntryType, u32, &'a [u8]);

fn file<'a>(name: &'a str, bytes: &'a [u8]) -> Member<'a> {
    Member(name, tar::EntryType::Regular, 0o644, bytes)
}

fn folder(name: &str) -> Member<'_> {
    Member(name, tar::EntryType::Directory, 0o755, b"")
}

fn link<'a>(kind: tar::EntryType, name: &'a str, target: &'a str) -> Member<'a> {
    Member(name, kind, 0o777, target.as_bytes())
}

/// A tar archive with exactly these names, hostile ones included.
fn layer(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for Member(name, kind, mode, bytes) in members {
        let mut header = tar::Header::new_gnu();
        let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        if is_link {
            header.as_gnu_mut().unwrap().linkname[..bytes.len()].copy_from_slice(bytes);
        }
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(1234);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        if matches!(kind, tar::EntryType::Char) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        let bytes = if is_link { &b""[..] } else { bytes };
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn hash(bytes: &[u8]) -> String {
    model::ObjectId::from_digest(sha2::Sha256::digest(bytes).into()).to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes an OCI layout as a tar archive.
fn oci_archive(path: &Path, layers: &[Vec<u8>]) {
    let config = json!({
        "architecture": "arm64", "os": "linux", "history": [],
        "config": {"Entrypoint": ["/bin/web"], "Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| format!("sha256:{}", hash(layer))).collect::<Vec<_>>()},
    })
    .to_string();
    let blobs: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let descriptors: Vec<_> = blobs
        .iter()
        .map(|blob| json!({"digest": format!("sha256:{}", hash(blob)), "size": blob.len()}))
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "config": {"digest": format!("sha256:{}", hash(config.as_bytes()))}, "layers": descriptors,
    })
    .to_string();
    let index = json!({"manifests": [{"digest": format!("sha256:{}", hash(manifest.as_bytes()))}]})
        .to_string();
    let mut members = vec![("index.json".to_owned(), index.into_bytes())];
    for blob in [vec![config.into_bytes(), manifest.into_bytes()], blobs].concat() {
        members.push((format!("blobs/sha256/{}", hash(&blob)), blob));
    }
    let mut builder = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap();
}

fn flatten(layers: &[Vec<u8>]) -> Result<super::tree::Tree, AuthorError> {
    let home = Home::new();
    oci_archive(&home.path("x.tar"), layers);
    super::oci_image::read(&home.path("x.tar"), None, home.0.path(), false).map(|image| image.tree)
}

fn names(tree: &super::tree::Tree) -> Vec<String> {
    let names = tree.entries.keys().map(|path| path.display().to_string());
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn layers_are_laid_over_each_other() {
    use tar::EntryType::{Char, Link, Symlink};
    let base = layer(&[
        folder("./"),
        folder("usr"),
        folder("usr/bin"),
        link(Symlink, "bin", "usr/bin"),
        file("usr/bin/web", b"one"),
        link(Link, "usr/bin/also", "usr/bin/web"),
        folder("etc"),
        file("etc/a", b"a"),
        file("etc/b", b"b"),
        folder("var"),
        folder("var/cache"),
        file("var/cache/x", b"x"),
        file("gone", b""),
        Member("null", Char, 0o666, b""),
    ]);
    let top = layer(&[
        file("bin/tool", b"through the link"),
        file("etc/.wh.a", b""),
        file("var/cache/new", b"n"),
        file("var/cache/.wh..wh..opq", b""),
        file(".wh.gone", b""),
        file("usr/bin/web", b"two"),
        file("deep/er/file", b"d"),
    ]);
    let tree = flatten(&[base, top]).unwrap();
    assert_eq!(
        names(&tree),
        [
            "bin",
            "deep",
            "deep/er",
            "deep/er/file",
            "etc",
            "etc/b",
            "null",
            "usr",
            "usr/bin",
            "usr/bin/also",
            "usr/bin/tool",
            "usr/bin/web",
            "var",
            "var/cache",
            "var/cache/new",
        ]
    );
    let read = |name: &str| {
        let super::tree::Kind::File(super::tree::Content::Slice(slice)) =
            &tree.entries[Path::new(name)].kind
        else {
            panic!("{name}")
        };
        let mut text = String::new();
        std::io::Read::read_to_string(&mut slice.clone(), &mut text).unwrap();
        text
    };
    assert_eq!(read("usr/bin/web"), "two");
    assert_eq!(read("usr/bin/also"), "one");
    assert_eq!(read("usr/bin/tool"), "through the link");
    assert!(matches!(
        tree.entries[Path::new("null")].kind,
        super::tree::Kind::Character(0x103)
    ));
    assert_eq!(tree.entries[Path::new("etc/b")].uid, 0);
}

#[test]
fn hostile_layers_are_refused() {
    use tar::EntryType::{Link, Symlink};
    for (what, members) in [
        ("..", vec![file("../x", b"")]),
        ("inner ..", vec![file("a/../../x", b"")]),
        ("absolute", vec![file("/etc/x", b"")]),
        ("hard link out", vec![link(Link, "x", "../../etc/passwd")]),
        ("hard link to nothing", vec![link(Link, "x", "y")]),
        ("through a file", vec![file("a", b""), file("a/b", b"")]),
        (
            "circle",
            vec![
                link(Symlink, "a", "b"),
                link(Symlink, "b", "a"),
                file("a/x", b""),
            ],
        ),
        ("whiteout of nothing", vec![file(".wh...", b"")]),
        ("root as a file", vec![file("./", b"x")]),
    ] {
        let result = flatten(&[layer(&members)]);
        assert!(
            matches!(result, Err(AuthorError::BadMember { .. })),
            "{what}: {result:?}"
        );
    }
    // Links that lead out of the root lead to the root instead, as they do inside the container.
    let inside = flatten(&[layer(&[
        link(Symlink, "up", "../../etc"),
        file("up/x", b""),
    ])])
    .unwrap();
    assert_eq!(names(&inside), ["etc", "etc/x", "up"]);
    let absolute = flatten(&[layer(&[link(Symlink, "up", "/etc"), file("up/x", b"")])]).unwrap();
    assert_eq!(names(&absolute), ["etc", "etc/x", "up"]);

    // A name that never ends is not gathered in memory.
    let mut long = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(3 << 20);
    header.set_cksum();
    long.append(&header, &vec![b'a'; 3 << 20][..]).unwrap();
    assert!(matches!(
        flatten(&[long.into_inner().unwrap()]),
        Err(AuthorError::TooLarge { .. })
    ));

    let whole = layer(&[file("a", &pattern(5_000))]);
    assert!(flatten(&[whole[..2_000].to_vec()]).is_err());
    assert!(matches!(
        flatten(&[b"\x28\xb5\x2f\xfdxx".to_vec()]),
        Ok(_) | Err(_)
    ));
}

#[test]
fn oci_archive_becomes_a_container() {
    let home = Home::new();
    let dir = home.text("rev");
    oci_archive(
        &home.path("x.tar"),
        &[layer(&[
            folder("bin"),
            file("bin/web", b"x"),
            Member("dev-null", tar::EntryType::Char, 0o666, b""),
        ])],
    );
    run(&["new", &dir]).unwrap();
    run(&["add-container", &dir, "web", "--oci", &home.text("x.tar")]).unwrap();
    let manifest = super::manifest_of(Path::new(&dir)).unwrap();
    let web = manifest.container(&"web".parse().unwrap()).unwrap();
    let Kind::Oci(oci) = &web.kind else { panic!() };
    assert_eq!(
        oci.image_config,
        Some(model::container::ImageConfig::Inline(
            r#"{"architecture":"arm64","config":{"Entrypoint":["/bin/web"],"Env":["A=1"]},"os":"linux"}"#.to_owned()
        ))
    );
    let image = home.path("rev/objects").join(root_object(&dir));
    if let Some(found) = mounted(&image, listing) {
        assert_eq!(found["dev-null"], "20666 device 103");
        assert!(found["bin/web"].starts_with("100644 1 bytes"));
    }
    // A layer that is not what the configuration says.
    let bytes = fs::read(home.path("x.tar")).unwrap();
    let blob = gzip(&layer(&[
        folder("bin"),
        file("bin/web", b"x"),
        Member("dev-null", tar::EntryType::Char, 0o666, b""),
    ]));
    let at = bytes
        .windows(blob.len())
        .position(|window| window == blob)
        .unwrap();
    let mut changed = bytes.clone();
    changed[at + blob.len() / 2] ^= 1;
    fs::write(home.path("y.tar"), changed).unwrap();
    assert!(run(&["add-container", &dir, "other", "--oci", &home.text("y.tar")]).is_err());
}
