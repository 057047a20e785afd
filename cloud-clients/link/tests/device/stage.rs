//! A device, a client and a cloud, and what every story about them ends with: right, once, told once.

use std::time::{Duration, Instant};

use acceptance::device::Device;
use acceptance::image::sha256;
use serde_json::Value;

use crate::cloud::{Client, Place, offer_text};
use crate::pki::Pki;
use crate::server::Server;

/// Short times, so that a fault is noticed soon.
pub(crate) const SOON: [(&str, &str); 3] = [
    ("connect-timeout", "2s"),
    ("answer-timeout", "5s"),
    ("stall-timeout", "3s"),
];
/// Bytes of the object of each deployment.
pub(crate) const BYTES: usize = 1_500_000;

/// A device, a place for a client, and a cloud.
pub(crate) struct Stage {
    /// The device.
    pub(crate) device: Device,
    pub(crate) home: tempfile::TempDir,
    pub(crate) place: Place,
    pub(crate) pki: Pki,
    pub(crate) server: Server,
    deployments: u64,
}

impl Stage {
    /// With a server that sends so many bytes a second.
    pub(crate) fn new(settings: &[(&str, &str)], rate: u64) -> Self {
        let device = Device::start_with(settings);
        let home = tempfile::tempdir().expect("a temporary folder");
        let place = Place {
            folder: home.path().to_owned(),
            socket: device.run_dir().join("control.sock"),
        };
        let pki = Pki::new(home.path());
        let server = Server::start_tls(u64::MAX, rate, pki.server("localhost", (2020, 2060)));
        Self {
            device,
            home,
            place,
            pki,
            server,
            deployments: 0,
        }
    }

    /// Offers a revision with one object that no other has, whose bytes are at `at` (the server itself when `None`): the deployment's
    /// id, and the object.
    pub(crate) fn offer(&mut self, at: Option<&Server>) -> (String, String) {
        let seed = (self.deployments + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes: Vec<u8> = (0..BYTES as u64 / 8)
            .flat_map(|place| (place.wrapping_mul(0xd130_2b97_a5d4_9e01) ^ seed).to_le_bytes())
            .collect();
        let object = sha256(&bytes);
        let manifest =
            format!(r##"{{"#spec":"pantavisor-service-system@1","x/object":"{object}"}}"##);
        (self.offer_revision(manifest, bytes, at), object)
    }

    /// Offers a revision that needs one object.
    pub(crate) fn offer_revision(
        &mut self,
        manifest: String,
        object: Vec<u8>,
        at: Option<&Server>,
    ) -> String {
        self.deployments += 1;
        let id = format!("d{}", self.deployments);
        let holder = at.unwrap_or(&self.server);
        let put = |server: &Server, name: &str, bytes: Vec<u8>| {
            let (length, digest) = (bytes.len() as u64, sha256(&bytes));
            let url = server.bytes(&format!("{name}-{id}"), bytes);
            (url, length, digest)
        };
        let (url, length, digest) = put(&self.server, "manifest", manifest.into_bytes());
        let manifest = ("manifest.json".to_owned(), url, length, digest);
        let (url, length, digest) = put(holder, "object", object);
        let object = ("object".to_owned(), url, length, digest);
        self.server.offer(&id, offer_text(&id, &[manifest, object]));
        id
    }

    pub(crate) fn start(&self, settings: &[(&str, &str)], environment: &[(&str, &str)]) -> Client {
        let authority = self.pki.file.display().to_string();
        let mut all = SOON.to_vec();
        all.push(("tls-ca", &authority));
        all.extend(settings);
        self.place.start_at(&self.server.at, &all, environment)
    }

    pub(crate) fn until(&self, what: &str, ask: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !ask() {
            assert!(
                Instant::now() < end,
                "not within a minute: {what}\n{}\n{:?}",
                self.place.log(),
                self.server.reports
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Until the client has said this in its log, beyond what it had said before.
    pub(crate) fn until_said(&self, words: &str) {
        self.until(words, || self.place.log().contains(words));
        std::fs::write(self.place.folder.join("log"), "").expect("the folder is the test's");
    }

    pub(crate) fn last_words(&self, id: &str) -> Vec<Value> {
        let told = self.server.told(id).into_iter();
        told.filter(|told| told["final"] == true).collect()
    }

    /// The deployment has this end, and is told once, whatever follows for a while.
    pub(crate) fn ends(&self, id: &str, kind: &str) -> Value {
        self.until("the last word", || !self.last_words(id).is_empty());
        std::thread::sleep(Duration::from_millis(1200));
        let last = self.last_words(id);
        assert_eq!(last.len(), 1, "told once: {last:?}");
        assert_eq!(last[0]["news"]["kind"], kind, "{last:?}");
        let told = self.server.told(id);
        let mut numbers: Vec<_> = told.iter().map(|told| told["number"].as_u64()).collect();
        numbers.retain(|number| *number != Some(0));
        let all = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), all, "each report once: {told:?}");
        last[0].clone()
    }

    /// It runs, was told once, and is the only revision that came of this.
    pub(crate) fn runs(&self, id: &str, object: &str) {
        let last = self.ends(id, "done");
        self.is_the_only_one(&last, object);
    }

    /// What was told last is what runs, and nothing else came of the deployment.
    pub(crate) fn is_the_only_one(&self, last: &Value, object: &str) {
        let running = self.device.running().expect("something runs");
        assert_eq!(last["news"]["revision"], running.as_str());
        let get = |path: &str| self.device.socket.get(path).expect("an answer");
        let steps = get("/steps").json();
        let names = steps.as_array().expect("a list").iter();
        let of_it: Vec<String> = names
            .filter_map(|step| step["name"].as_str())
            .filter(|name| get(&format!("/steps/{name}")).text().contains(object))
            .map(str::to_owned)
            .collect();
        assert_eq!(of_it, [running]);
    }

    /// The last word was told and the client knows it.
    pub(crate) fn is_over(&self, id: &str) -> bool {
        let record = std::fs::read_to_string(self.place.folder.join("record/deployment.json"));
        let record: Value = serde_json::from_str(&record.unwrap_or_default()).unwrap_or_default();
        let past = record["past"].as_array().into_iter().flatten();
        !self.last_words(id).is_empty()
            && record["current"].is_null()
            && past.into_iter().any(|past| past["id"] == id)
    }

    pub(crate) fn begun(&self, object: &str) -> bool {
        let requests = self.server.asked(&format!("object-d{}", self.deployments));
        requests > 0 && self.part(object) > 0
    }

    /// Bytes of the object that the device has as a part.
    pub(crate) fn part(&self, object: &str) -> u64 {
        let uploads = self
            .device
            .socket
            .get("/uploads")
            .expect("an answer")
            .json();
        let uploads = uploads.as_array().cloned().unwrap_or_default();
        let part = uploads
            .iter()
            .find(|upload| upload.to_string().contains(object));
        part.map_or(0, |part| part["bytes"].as_u64().unwrap_or(1).max(1))
    }
}
