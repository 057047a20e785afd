//! Trees of hashes, judged by `veritysetup`.

use std::fs;
use std::process::Command;

use super::super::RevisionCommand;
use super::super::working::Working;

/// The tree is what `veritysetup` makes and believes.
#[test]
fn a_tree_of_hashes_is_believed_by_veritysetup() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("root.squashfs");
    // Two levels of hashes, and a last block that is not whole.
    let bytes: Vec<u8> = (0..200 * 4096 + 100)
        .map(|n: u32| (n % 253) as u8)
        .collect();
    fs::write(&image, bytes).unwrap();
    let dir = folder.path().join("rev");
    Working::create(&dir, None).unwrap();
    let mut working = Working::open(&dir).unwrap();
    let object = super::super::image::add_file(&image, &working.objects()).unwrap();
    working.set_object("web/root.squashfs".to_owned(), object);
    let run = serde_json::json!({"#spec":"service-manifest-run@1","name":"web","type":"oci","root-volume":"root.squashfs","command":["/web"]});
    working.set_inline("web/run.json".to_owned(), &run);
    working.save().unwrap();
    let command = || RevisionCommand::Verity {
        dir: dir.clone(),
        name: "web".to_owned(),
    };
    command().run().unwrap();
    let first = fs::read(dir.join("manifest.json")).unwrap();
    command().run().unwrap();
    assert_eq!(
        fs::read(dir.join("manifest.json")).unwrap(),
        first,
        "the same again"
    );
    let manifest = model::Manifest::parse(&first).unwrap();
    let root = manifest.containers().next().unwrap().root.clone().unwrap();
    let verity = root.verity.unwrap();
    let object = |object: model::ObjectId| dir.join("objects").join(object.to_string());
    let verify = |root_hash: &str| {
        Command::new("veritysetup")
            .arg("verify")
            .args([object(root.object), object(verity.hashes)])
            .arg(root_hash)
            .output()
    };
    let Ok(output) = verify(&verity.root_hash) else {
        println!("SKIPPED veritysetup: it is not installed (cryptsetup-bin)");
        assert!(std::env::var_os("CI").is_none(), "CI must have it");
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let other = verity
        .root_hash
        .replace(&verity.root_hash[..1], "f")
        .replace("ff", "0e");
    assert!(!verify(&other).unwrap().status.success());
    // A block that was changed is noticed, by them as by the kernel.
    let mut damaged = fs::read(object(root.object)).unwrap();
    damaged[70 * 4096] ^= 1;
    fs::write(object(root.object), damaged).unwrap();
    assert!(!verify(&verity.root_hash).unwrap().status.success());
}
