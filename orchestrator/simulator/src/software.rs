//! The software that simulated devices are given: small revisions with all their objects, and the truth about them.
//!
//! A [`Revision`] is made from a list of [`Part`]s, so what each one does is known here and not learnt from the code under test.
//! Building one parses its manifest; tests build each once and share it.

use std::rc::Rc;
use std::sync::Arc;

use model::{ContainerName, Goal, Manifest, ObjectId};

/// One container of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// Makes its root file system another one.
    pub version: u32,
    /// Words of its script.
    pub script: Vec<String>,
    /// Its goal.
    pub goal: Goal,
    /// Its group; `app` or `platform`.
    pub group: &'static str,
    /// Whether it has a health check (TCP, every 2 s, 2 failures make it sick).
    pub probed: bool,
    /// Value of `auto_recovery`, JSON; empty for the group's.
    pub recovery: &'static str,
    /// Waits for this container.
    pub depends_on: Option<&'static str>,
}

impl Part {
    /// A container that starts and stays.
    pub fn good(name: &'static str, version: u32) -> Self {
        Self {
            name,
            version,
            script: Vec::new(),
            goal: Goal::Started,
            group: "app",
            probed: false,
            recovery: "",
            depends_on: None,
        }
    }

    /// The same with a script.
    pub fn does(mut self, words: &str) -> Self {
        self.script = words.split_whitespace().map(str::to_owned).collect();
        self
    }

    /// The same with goal READY.
    pub fn must_be_ready(mut self) -> Self {
        self.goal = Goal::Ready;
        self
    }

    /// The same with a health check.
    pub fn probed(mut self) -> Self {
        self.probed = true;
        self
    }

    /// The same with its own `auto_recovery`.
    pub fn recovers(mut self, json: &'static str) -> Self {
        self.recovery = json;
        self
    }

    fn root(&self) -> Arc<[u8]> {
        format!("root file system of {} version {}", self.name, self.version)
            .into_bytes()
            .into()
    }

    fn run_json(&self) -> String {
        let words = self.script.iter().map(|word| format!(",{word:?}"));
        let mut json = format!(
            r##"{{"#spec":"service-manifest-run@1","name":"{}","type":"oci","root-volume":"root.squashfs","group":"{}","status_goal":"{}","command":["/sim"{}],"stop-timeout":2,"roles":[]"##,
            self.name,
            self.group,
            self.goal,
            words.collect::<String>()
        );
        if self.probed {
            json.push_str(r#","health":{"tcp":{"port":80},"interval":2,"timeout":1,"retries":2,"start-period":1}"#);
        }
        if !self.recovery.is_empty() {
            json += &format!(r#","auto_recovery":{}"#, self.recovery);
        }
        if let Some(other) = self.depends_on {
            json += &format!(r#","depends-on":["{other}"]"#);
        }
        json.push('}');
        json
    }
}

/// What is known of one container of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its name.
    pub name: ContainerName,
    /// Its version.
    pub fingerprint: ObjectId,
    /// Its goal.
    pub goal: Goal,
    /// Its root file system.
    pub object: ObjectId,
    /// Whether its script never goes wrong.
    pub faultless: bool,
}

/// A revision ready to be installed.
#[derive(Debug, Clone)]
pub struct Revision {
    /// Its manifest.
    pub bytes: Arc<[u8]>,
    /// SHA-256 of it.
    pub digest: ObjectId,
    /// Every object that it needs, with its bytes.
    pub objects: Vec<(ObjectId, Arc<[u8]>)>,
    /// What the boot loader starts for it.
    pub kernel: ObjectId,
    /// Its containers.
    pub pieces: Vec<Piece>,
    /// Whether it must be committed when nothing else goes wrong.
    pub good: bool,
}

impl Revision {
    /// Makes a revision of these parts, with a board support part of this version.
    ///
    /// # Panics
    /// When the manifest is refused: the parts are ours.
    pub fn of(parts: &[Part], board: u32, good: bool) -> Rc<Self> {
        let kernel: Arc<[u8]> = format!("kernel {board}").into_bytes().into();
        let kernel_id = ObjectId::of(&kernel);
        let mut json = format!(
            r##"{{"#spec":"pantavisor-service-system@1","bsp/run.json":{{"fit":"pv.fit"}},"bsp/pv.fit":"{kernel_id}","device.json":{{"groups":[{{"name":"platform","status_goal":"STARTED","restart_policy":"system","timeout":10}},{{"name":"app","status_goal":"STARTED","restart_policy":"container","timeout":10,"auto_recovery":{{"policy":"on-failure","max_retries":2,"retry_delay":1,"backoff_factor":2.0,"stable_timeout":6,"backoff_policy":"never"}}}}]}}"##,
        );
        let mut objects = vec![(kernel_id, kernel)];
        for part in parts {
            let root = part.root();
            let id = ObjectId::of(&root);
            json += &format!(
                r#","{0}/run.json":{1},"{0}/root.squashfs":"{id}""#,
                part.name,
                part.run_json()
            );
            objects.push((id, root));
        }
        json.push('}');
        let manifest = Manifest::parse(json.as_bytes()).expect("our own manifests are valid");
        let pieces = parts.iter().zip(&objects[1..]).map(|(part, (object, _))| {
            let name = part.name.parse().expect("our own names are valid");
            let container = manifest.container(&name).expect("it is in the manifest");
            Piece {
                fingerprint: container.fingerprint,
                goal: container.goal,
                object: *object,
                faultless: part.is_faultless(),
                name,
            }
        });
        Rc::new(Self {
            digest: ObjectId::of(json.as_bytes()),
            pieces: pieces.collect(),
            bytes: json.into_bytes().into(),
            objects,
            kernel: kernel_id,
            good,
        })
    }

    /// The container of this name.
    pub fn piece(&self, name: &ContainerName) -> Option<&Piece> {
        self.pieces.iter().find(|piece| piece.name == *name)
    }
}

impl Part {
    fn is_faultless(&self) -> bool {
        let faults = [
            "exit",
            "start-fails",
            "well-from",
            "sick-from",
            "silent",
            "kills-machine",
        ];
        !self
            .script
            .iter()
            .any(|word| faults.contains(&word.split('=').next().unwrap_or(word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_knows_its_containers_and_objects() {
        let one = Revision::of(
            &[
                Part::good("base", 1),
                Part::good("web", 1)
                    .does("ready=100")
                    .must_be_ready()
                    .probed(),
            ],
            1,
            true,
        );
        let two = Revision::of(
            &[
                Part::good("base", 1),
                Part::good("web", 2)
                    .does("exit=5:1")
                    .recovers(r#"{"policy":"no"}"#),
            ],
            1,
            false,
        );
        let named: Vec<_> = Manifest::parse(&one.bytes)
            .unwrap()
            .objects()
            .into_keys()
            .collect();
        let mut listed: Vec<_> = one.objects.iter().map(|(id, _)| *id).collect();
        listed.sort();
        assert_eq!(named, listed);
        assert_eq!(one.pieces[0].fingerprint, two.pieces[0].fingerprint);
        assert_ne!(one.pieces[1].fingerprint, two.pieces[1].fingerprint);
        assert!(one.pieces[1].faultless && !two.pieces[1].faultless);
    }
}
