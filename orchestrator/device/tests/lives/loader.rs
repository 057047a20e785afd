//! A boot loader that cannot be told, and a machine that starts the wrong kernel: said in words, and never an endless row of restarts.

use device::Settings;
use device::handle::{Refusal, Request};
use device::ports::Ending;

use crate::READY;
use crate::world::{Rig, id};

/// A manifest with one container and a kernel.
pub fn manifest_with_kernel(rig: &mut Rig, kernel: &str, web: &str) -> Vec<u8> {
    let text = String::from_utf8(rig.manifest(&[("web", web, READY)])).unwrap();
    let kernel = rig.object(kernel.as_bytes());
    let end = text.rfind('}').unwrap();
    format!(
        r#"{},"bsp/kernel.img":"{kernel}","bsp/run.json":{{"linux":"kernel.img"}}}}"#,
        &text[..end]
    )
    .into_bytes()
}

fn put(rig: &mut Rig, revision: &str, kernel: &str, web: &str) {
    let manifest = manifest_with_kernel(rig, kernel, web);
    rig.ask(Request::PutRevision {
        revision: id(revision),
        manifest,
    })
    .unwrap();
}

/// A device that runs and has committed `locals/one`, with kernel `k1`.
fn settled() -> Rig {
    let rig = Rig::new(Settings::default());
    rig.with(|o| o.booted = Some(id("locals/one")));
    let mut rig = rig.kill();
    put(&mut rig, "locals/one", "k1", "ready 5");
    rig.run("locals/one").unwrap();
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/one"));
    rig
}

fn unwritable(rig: &Rig, why: Option<&str>) {
    rig.with(|o| o.unwritable = why.map(str::to_owned));
}

fn notices(rig: &Rig) -> String {
    rig.view().notices.join("\n")
}

#[test]
fn a_boot_loader_that_cannot_be_told_is_named_with_the_remedy() {
    let mut rig = settled();
    put(&mut rig, "locals/two", "k1", "ready 6");
    put(&mut rig, "locals/three", "k1", "ready 7");
    unwritable(&rig, Some("cannot write loader.conf: read-only"));
    rig.run("locals/two").unwrap();
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/two"));
    let told = notices(&rig);
    assert!(told.contains("the boot loader could not be told"), "{told}");
    assert!(told.contains("loader.conf"), "{told}");
    assert!(told.contains("mount its partition"), "{told}");
    assert!(!told.contains("the storage did not"), "{told}");
    // Nothing new begins, and the answer says for what it waits.
    let Err(Refusal::Internal(refused)) = rig.run("locals/three") else {
        panic!("nothing new may begin");
    };
    assert!(
        refused.contains("the boot loader could not be told"),
        "{refused}"
    );
    assert!(!refused.contains("make room"), "{refused}");
    unwritable(&rig, None);
    rig.advance(6000);
    assert_eq!(rig.with(|o| o.confirmed.clone()), Some(id("locals/two")));
    rig.run("locals/three").unwrap();
}

/// The commit was durable, the boot loader was never told, the power was cut, and then the storage took no writes any more: each start
/// would find the same and restart the machine for it.
#[test]
fn the_machine_is_not_restarted_for_a_kernel_while_the_storage_takes_no_writes() {
    let mut rig = settled();
    put(&mut rig, "locals/two", "k2", "ready 6");
    rig.run("locals/two").unwrap();
    rig.advance(5000);
    assert_eq!(rig.with(|o| o.ending.take()), Some(Ending::Reboot));
    let mut rig = rig.reboot();
    unwritable(&rig, Some("the card is gone"));
    rig.advance(60_000);
    assert_eq!(rig.committed().as_deref(), Some("locals/two"));
    unwritable(&rig, None);
    rig.disk.refuse_writes(true);
    let mut rig = rig.reboot();
    rig.advance(60_000);
    assert_eq!(rig.with(|o| o.booted.clone()), Some(id("locals/one")));
    assert_eq!(rig.with(|o| o.ending), None, "it would restart for ever");
    assert_eq!(
        (rig.running(), rig.statuses()),
        ("locals/two".to_owned(), "web=READY".to_owned())
    );
    let told = notices(&rig);
    assert!(told.contains("not restarted"), "{told}");
    // Once it takes writes, all is made good but the kernel, which needs a restart.
    rig.disk.refuse_writes(false);
    rig.advance(60_000);
    assert_eq!(rig.with(|o| o.confirmed.clone()), Some(id("locals/two")));
    assert!(rig.told("locals/two").starts_with("DONE"));
    assert_eq!(rig.statuses(), "web=READY");
}
