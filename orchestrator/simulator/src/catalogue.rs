//! The software that scenarios and lives are made of: one good device, and everything that an update of it may be.

use std::rc::Rc;

use crate::software::{Part, Revision};

/// How an update of the factory's software behaves, and whether it must be committed when nothing else goes wrong.
#[derive(Debug, Clone)]
pub struct Variant {
    /// A word for it.
    pub name: &'static str,
    /// The software.
    pub software: Rc<Revision>,
    /// Whether it needs a boot of its own (its board part differs from the factory's).
    pub boots: bool,
}

/// Everything that can be on a device.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// What the factory puts on it: `base` in group platform, `web` in group app, READY by signal.
    pub factory: Rc<Revision>,
    /// What it can be updated to.
    pub variants: Vec<Variant>,
}

fn base(version: u32) -> Part {
    Part {
        group: "platform",
        ..Part::good("base", version)
    }
}

fn web(version: u32, words: &str) -> Part {
    Part::good("web", version).does(words).must_be_ready()
}

impl Catalogue {
    /// Builds everything; takes some milliseconds.
    pub fn new() -> Self {
        let mut variants = Vec::new();
        let mut add = |name, parts: &[Part], board: u32, good: bool| {
            variants.push(Variant {
                name,
                software: Revision::of(parts, board, good),
                boots: board != 1,
            });
        };
        add("good", &[base(1), web(2, "ready=100")], 1, true);
        add("exits at once", &[base(1), web(3, "exit=0:1")], 1, false);
        add("never ready", &[base(1), web(4, "")], 1, false);
        let dies = web(5, "ready=100 exit=1500:1");
        add("ready, then dies", &[base(1), dies], 1, false);
        let unwell = web(6, "well-from=100000000").probed();
        add("health never reached", &[base(1), unwell], 1, false);
        let sick = web(7, "ready=50 sick-from=1200").probed();
        add("healthy, then sick", &[base(1), sick], 1, false);
        add("start fails", &[base(1), web(8, "start-fails")], 1, false);
        let killer = web(9, "kills-machine=300");
        add("kills the machine", &[base(1), killer], 1, false);
        add("removes a container", &[base(1)], 1, true);
        let third = Part::good("log", 1).does("ready=200").probed();
        add(
            "adds a container",
            &[base(1), web(1, "ready=100"), third],
            1,
            true,
        );
        let parts = [base(2), web(10, "ready=100")];
        add("changes the platform", &parts, 1, true);
        add("needs a boot", &[base(1), web(2, "ready=100")], 2, true);
        let killer = web(9, "kills-machine=300");
        add(
            "needs a boot, kills the machine",
            &[base(1), killer],
            3,
            false,
        );
        add(
            "needs a boot, never ready",
            &[base(1), web(4, "")],
            4,
            false,
        );
        let hangs = web(11, "ready=100 hangs");
        add("hangs when stopped", &[base(1), hangs], 1, true);
        let slow = web(12, "start=3000 ready=2000");
        add("starts late", &[base(1), slow], 1, true);
        let flaky = web(13, "ready=100 exit=200:1 bad-starts=1");
        add("recovers after one exit", &[base(1), flaky], 1, true);
        let once = Part::good("web", 14).does("exit=100:0");
        add("runs once", &[base(1), once], 1, true);
        let memory = web(15, "ready=100 exit=900:137 out-of-memory");
        add("runs out of memory", &[base(1), memory], 1, false);
        let after = Part {
            depends_on: Some("web"),
            ..Part::good("log", 2)
        };
        let parts = [base(1), web(1, "ready=100"), after];
        add("waits for another", &parts, 1, true);
        let silent = web(16, "silent").probed();
        add("never answers", &[base(1), silent], 1, false);
        Self {
            factory: Revision::of(&[base(1), web(1, "ready=100")], 1, true),
            variants,
        }
    }

    /// The variant of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn variant(&self, name: &str) -> &Variant {
        let found = self.variants.iter().find(|variant| variant.name == name);
        found.unwrap_or_else(|| panic!("no software {name:?} in the catalogue"))
    }
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::new()
    }
}
