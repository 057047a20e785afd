//! Plays recordings to our server: turns what was normalised back into something that can be sent, makes the sets that were made
//! before a recording began, and tells identifiers beforehand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use clouds::hawkbit::{Hawkbit, Release, Request, Response, Setup};
use serde_json::{Value, json};
use sha2::Digest as _;

use crate::compare::{Known, differences};
use crate::recording::{Exchange, Recording};

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A set as far as the recordings show it.
#[derive(Debug, Clone, Default)]
struct Shown {
    name: Option<String>,
    modules: Vec<u64>,
    chunks: Vec<Value>,
}

#[derive(Debug)]
pub(crate) struct Player {
    server: Hawkbit,
    known: Known,
    sets: BTreeMap<u64, Shown>,
    made: BTreeSet<u64>,
    changed_tokens: BTreeSet<String>,
    /// When the real scheduler ran.
    tick: Option<i64>,
    /// Uploads of this file that were not written down: module, name, size, hash.
    unseen: Vec<(u64, String, usize, String)>,
}

fn numbers_after<'a>(text: &'a str, mark: &'a str) -> impl Iterator<Item = u64> + 'a {
    text.split(mark).skip(1).filter_map(|rest| {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// Controller id of a DDI path, decoded as far as the recordings need it.
fn device_of(path: &str) -> Option<String> {
    let mut parts = path.split('/').skip(2);
    (parts.next() == Some("controller") && parts.next() == Some("v1"))
        .then(|| parts.next())
        .flatten()
        .map(|id| id.split('?').next().unwrap_or(id).replace("%C3%A9", "é"))
}

impl Player {
    pub(crate) fn new(release: Release, server: &str, files: &[Recording]) -> Self {
        let mut setup = Setup::stock(release);
        setup.gateway_token = "GATEWAY".to_owned();
        match server {
            "Q" => {
                setup.rows_max = 10;
                setup.messages_max = 5;
                setup.attributes_max = 3;
                setup.actions_max = 3;
                setup.polling_min_s = 1;
                if release != Release::V0_9_0 {
                    setup.polling_max_s = 30 * 86400;
                }
                setup.forwarded = true;
            }
            "R" => {
                setup.rate = Some((5, 3));
                setup.blocked = vec!["198.51.100.9".to_owned()];
            }
            _ => {}
        }
        let files: Vec<&Recording> = files.iter().filter(|file| file.server == server).collect();
        let began = files.first().map_or(0, |file| file.began);
        let mut player = Self {
            server: Hawkbit::new(setup, began),
            known: Known::default(),
            sets: BTreeMap::new(),
            made: BTreeSet::new(),
            changed_tokens: BTreeSet::new(),
            tick: None,
            unseen: Vec::new(),
        };
        // Actions that are nowhere to be seen must not take the number of one that is.
        player.server.foretold.next.insert("action", 900_000);
        for file in files {
            player.look(file);
            player.learn(file);
        }
        if let Some(tick) = player.tick {
            // A request is played at its beginning, a little before it was carried out.
            player.server.align_scheduler(tick - 200);
        }
        player
    }

    /// Learns from a whole file what its sets were.
    fn look(&mut self, file: &Recording) {
        let mut set_of: BTreeMap<u64, u64> = BTreeMap::new();
        for exchange in &file.exchanges {
            let Some(answer) = &exchange.answer else {
                continue;
            };
            if let (Some(set), Some(modules)) =
                (answer["id"].as_u64(), answer["modules"].as_array())
            {
                let ids = modules.iter().filter_map(|module| module["id"].as_u64());
                self.sets.entry(set).or_default().modules = ids.collect();
            }
            if let Some(href) = answer.pointer("/_links/distributionset/href") {
                let name = answer["_links"]["distributionset"]["name"].as_str();
                let number = numbers_after(href.as_str().unwrap_or_default(), "sets/").next();
                if let (Some(set), Some(name)) = (number, name) {
                    self.sets.entry(set).or_default().name = Some(name.to_owned());
                    if let Some(action) = answer["id"].as_u64() {
                        set_of.insert(action, set);
                    }
                }
            }
            let set = numbers_after(&exchange.target, "distributionsets/")
                .next()
                .or_else(|| {
                    let list = exchange.body.as_ref()?;
                    list.pointer("/0/id").or(list.get("id"))?.as_u64()
                });
            for made in answer["assignedActions"].as_array().into_iter().flatten() {
                if let (Some(action), Some(set)) = (made["id"].as_u64(), set) {
                    set_of.insert(action, set);
                    self.sets.entry(set).or_default();
                }
            }
        }
        let rollout_set = file
            .exchanges
            .iter()
            .find_map(|exchange| exchange.body.as_ref()?.get("distributionSetId")?.as_u64());
        for exchange in &file.exchanges {
            let Some(answer) = &exchange.answer else {
                continue;
            };
            let answer = answer.get("decoded").unwrap_or(answer);
            let chunks = answer
                .pointer("/deployment/chunks")
                .or(answer.pointer("/confirmation/chunks"))
                .and_then(Value::as_array);
            let Some(chunks) = chunks else { continue };
            let action = answer["id"].as_str().and_then(|id| id.parse::<u64>().ok());
            let set = action.and_then(|action| set_of.get(&action)).copied();
            let set = set
                .or(rollout_set)
                .unwrap_or_else(|| self.set_named(&chunks[0]));
            self.sets.entry(set).or_default().chunks.clone_from(chunks);
        }
        self.look_at_files(file);
    }

    /// The set whose only module has the set's own name, as the recorder made them.
    fn set_named(&self, chunk: &Value) -> u64 {
        let text = |name: &str| chunk[name].as_str().unwrap_or_default().to_owned();
        let full = format!("{}:{}", text("name"), text("version"));
        let found = self
            .sets
            .iter()
            .find(|(_, set)| set.name.as_deref() == Some(&full));
        found.map_or(200_000 + self.sets.len() as u64, |(id, _)| *id)
    }

    /// A set that shows only by a file of it that a device reads.
    fn look_at_files(&mut self, file: &Recording) {
        let mut set_of_target: BTreeMap<String, u64> = BTreeMap::new();
        for exchange in &file.exchanges {
            let set = numbers_after(&exchange.target, "distributionsets/").next();
            let target = exchange
                .body
                .as_ref()
                .and_then(|body| body.pointer("/0/id")?.as_str());
            if let (Some(set), Some(target)) = (set, target) {
                set_of_target.insert(target.to_owned(), set);
            }
            let device = device_of(&exchange.target);
            let set = device.and_then(|device| set_of_target.get(&device).copied());
            let (Some(set), Some((_, name))) = (set, exchange.target.split_once("/artifacts/"))
            else {
                continue;
            };
            let body = exchange.answer.as_ref();
            let hash = body.and_then(|body| body["sha256"].as_str());
            let shown = self.sets.entry(set).or_default();
            if let (Some(hash), true, 200) = (hash, shown.chunks.is_empty(), exchange.status) {
                let module = numbers_after(&exchange.target, "softwaremodules/").next();
                let size = body.map(|body| body["length"].clone());
                let stem = name.split('.').next();
                shown.chunks = vec![
                    json!({"part": "os", "name": stem, "version": "1", "artifacts": [{
                        "filename": name, "size": size, "hashes": {"sha256": hash},
                        "at": format!("softwaremodules/{}/", module.unwrap_or_default()),
                    }]}),
                ];
            }
        }
    }

    /// Learns from a whole file which identifiers come.
    fn learn(&mut self, file: &Recording) {
        let foretold = &mut self.server.foretold;
        let mut actions: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for exchange in &file.exchanges {
            let answer = exchange
                .answer
                .as_ref()
                .map(Value::to_string)
                .unwrap_or_default();
            for text in [&exchange.target, &answer] {
                for part in text.split("/targets/").skip(1) {
                    let id = part.split('/').next().unwrap_or_default();
                    if let Some(number) = numbers_after(part, "/actions/").next()
                        && part.starts_with(&format!("{id}/actions/"))
                        && number != 999_999
                    {
                        actions.entry(id.to_owned()).or_default().insert(number);
                    }
                }
            }
            if let Some(id) = device_of(&exchange.target) {
                for name in [
                    "deploymentBase/",
                    "confirmationBase/",
                    "cancelAction/",
                    "installedBase/",
                ] {
                    let numbers = actions.entry(id.clone()).or_default();
                    numbers.extend(numbers_after(&answer, name));
                    let asked = numbers_after(&exchange.target, name);
                    let good = exchange.status < 300;
                    numbers.extend(asked.filter(|number| good && *number < 900_000));
                }
            }
            if exchange.step == "ready: rollout" {
                let answer = exchange.answer.as_ref().expect("it has one");
                self.tick = answer["lastModifiedAt"].as_i64();
            }
            if exchange.target.contains("/deploygroups/1/targets") && foretold.groups.is_empty() {
                let list = exchange
                    .answer
                    .as_ref()
                    .and_then(|a| a["content"].as_array());
                let ids = list
                    .into_iter()
                    .flatten()
                    .filter_map(|t| t["controllerId"].as_str());
                foretold.groups.push(ids.map(str::to_owned).collect());
            }
        }
        self.unseen.extend(unseen(file));
        for (id, numbers) in actions {
            foretold.actions.insert(id, VecDeque::from_iter(numbers));
        }
    }

    /// Whether consent is asked for shows in every target; the switch itself was not always recorded.
    fn guess_consent(&mut self, now: i64, exchange: &Exchange) {
        if exchange.method != "POST" || exchange.target != "/rest/v1/targets" {
            return;
        }
        let Some(first) = exchange.answer.as_ref().and_then(|list| list.get(0)) else {
            return;
        };
        let value = json!({"value": first.get("autoConfirmActive").is_some()});
        let mut request = Request {
            method: "PUT".to_owned(),
            path: "/rest/v1/system/configs/user.confirmation.flow.enabled".to_owned(),
            ..upload("", b"")
        };
        request.headers[1].1 = "application/json".to_owned();
        request.body = value.to_string().into_bytes();
        let read = Request {
            method: "GET".to_owned(),
            ..request.clone()
        };
        let now_set = self.server.answer(now, "127.0.0.1", &read);
        let now_set: Value = serde_json::from_slice(&now_set.body).unwrap_or_default();
        if now_set["value"] != value["value"] {
            self.server.answer(now, "127.0.0.1", &request);
        }
    }

    fn foretell(&mut self, exchange: &Exchange) {
        let Some(answer) = &exchange.answer else {
            return;
        };
        let sleep = answer
            .pointer("/config/polling/sleep")
            .and_then(Value::as_str);
        self.server.foretold.sleep = sleep.map(str::to_owned);
        if exchange.method != "POST" || exchange.status != 201 {
            return;
        }
        let kind = match exchange.target.as_str() {
            "/rest/v1/softwaremodules" => "module",
            "/rest/v1/distributionsets" => "set",
            "/rest/v1/rollouts" => "rollout",
            "/rest/v1/softwaremoduletypes" | "/rest/v1/distributionsettypes" => "kind",
            path if path.contains("/artifacts") => "artifact",
            _ => return,
        };
        let id = answer
            .pointer("/0/id")
            .or(answer.get("id"))
            .and_then(Value::as_u64);
        if let Some(id) = id {
            self.server.foretold.next.insert(kind, id);
            if kind == "set" {
                self.made.insert(id);
            }
        }
    }

    /// Makes a set that was there before its recording began.
    fn make_sets(&mut self, now: i64, exchange: &Exchange) {
        let mut wanted: Vec<u64> = numbers_after(&exchange.target, "distributionsets/").collect();
        let body = exchange.body.as_ref();
        let of_target = exchange.target.contains("/assignedDS");
        let ids = body.into_iter().flat_map(|body| {
            let in_body = of_target
                .then(|| body.pointer("/0/id").or(body.get("id")))
                .flatten();
            [in_body, body.get("distributionSetId")]
        });
        wanted.extend(ids.flatten().filter_map(Value::as_u64));
        // A device states a set by name.
        if let Some(name) = body.and_then(|body| body["name"].as_str())
            && exchange.target.ends_with("/installedBase")
        {
            let full = format!("{name}:1");
            let found = self
                .sets
                .iter()
                .find(|(_, shown)| shown.name.as_deref() == Some(&full));
            let found = found.map(|(id, _)| *id);
            if found.is_none() && exchange.status < 300 {
                let id = 300_000 + self.sets.len() as u64;
                self.sets.entry(id).or_default().name = Some(full);
                wanted.push(id);
            }
            wanted.extend(found);
        }
        // A file that a device reads before its set is mentioned.
        wanted.extend(self.sets.iter().filter_map(|(set, shown)| {
            let first = shown.chunks.first()?.to_string();
            let module = numbers_after(&first, "softwaremodules/").next()?;
            let path = format!("/softwaremodules/{module}/");
            let device = !exchange.target.starts_with("/rest/");
            (device && exchange.target.contains(&path)).then_some(*set)
        }));
        for set in wanted {
            if self.made.insert(set) {
                self.make_set(now, set);
            }
        }
    }

    fn make_set(&mut self, now: i64, set: u64) {
        let shown = self.sets.get(&set).cloned().unwrap_or_default();
        let first = shown
            .chunks
            .first()
            .and_then(|chunk| chunk["name"].as_str());
        let fallback = format!("{}:1", first.unwrap_or("unseen"));
        let full = shown.name.clone().unwrap_or(fallback);
        let (name, version) = full.split_once(':').expect("name and version");
        let chunks = if shown.chunks.is_empty() {
            let text = numbered("x", 64);
            vec![
                json!({"part": "os", "name": name, "version": version, "artifacts": [
                    {"filename": format!("{name}.bin"), "size": 64, "hashes": {"sha256": sha256(&text)}}
                ]}),
            ]
        } else {
            shown.chunks
        };
        let mut modules = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let link = chunk["artifacts"].to_string();
            let module = numbers_after(&link, "softwaremodules/")
                .next()
                .or(shown.modules.get(index).copied())
                .unwrap_or(100_000 + set);
            self.server.foretold.next.insert("module", module);
            let kind = match chunk["part"].as_str() {
                Some("bApp") => "application",
                Some(other) => other,
                None => "os",
            };
            let body = json!([{"name": chunk["name"], "version": chunk["version"], "type": kind}]);
            self.operator(now, "/rest/v1/softwaremodules", &body.to_string());
            for artifact in chunk["artifacts"].as_array().into_iter().flatten() {
                let file = artifact["filename"].as_str().unwrap_or_default();
                let size = artifact["size"].as_u64().unwrap_or_default();
                let wanted = artifact["hashes"]["sha256"].as_str().unwrap_or_default();
                let bytes = content(file, usize::try_from(size).unwrap_or(0), wanted);
                let mut request = upload(file, &bytes);
                request.path = format!("/rest/v1/softwaremodules/{module}/artifacts");
                let answer = self.server.answer(now, "127.0.0.1", &request);
                assert_eq!(
                    answer.status,
                    201,
                    "{}",
                    String::from_utf8_lossy(&answer.body)
                );
            }
            let metadata: Vec<Value> = chunk["metadata"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|m| json!({"key": m["key"], "value": m["value"], "targetVisible": true}))
                .collect();
            if !metadata.is_empty() {
                let path = format!("/rest/v1/softwaremodules/{module}/metadata");
                self.operator(now, &path, &json!(metadata).to_string());
            }
            modules.push(json!({"id": module}));
        }
        self.server.foretold.next.insert("set", set);
        let body = json!([{"name": name, "version": version, "type": "os", "modules": modules}]);
        self.operator(now, "/rest/v1/distributionsets", &body.to_string());
    }

    fn operator(&mut self, now: i64, path: &str, body: &str) -> Response {
        let request = Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            headers: vec![
                (
                    "Authorization".to_owned(),
                    "Basic YWRtaW46YWRtaW4=".to_owned(),
                ),
                ("Content-Type".to_owned(), "application/json".to_owned()),
                ("Host".to_owned(), "HOST".to_owned()),
            ],
            body: body.as_bytes().to_vec(),
            ..Request::default()
        };
        self.server.answer(now, "127.0.0.1", &request)
    }

    /// Plays one exchange; what differs.
    pub(crate) fn play(&mut self, now: i64, exchange: &Exchange) -> Vec<String> {
        self.make_sets(now, exchange);
        self.guess_consent(now, exchange);
        if exchange.step == "one artifact too many" {
            for (module, name, size, hash) in std::mem::take(&mut self.unseen) {
                let mut request = upload(&name, &content(&name, size, &hash));
                request.path = format!("/rest/v1/softwaremodules/{module}/artifacts");
                self.server.answer(now, "127.0.0.1", &request);
            }
        }
        self.foretell(exchange);
        let request = self.request(exchange);
        let answer = self.server.answer(now, "127.0.0.1", &request);
        differences(&mut self.known, exchange, &answer)
    }

    fn request(&mut self, exchange: &Exchange) -> Request {
        let (path, query) = exchange
            .target
            .split_once('?')
            .unwrap_or((&exchange.target, ""));
        let device = device_of(path);
        let mut headers = vec![("Host".to_owned(), "HOST".to_owned())];
        let mut body = match &exchange.body {
            None => Vec::new(),
            Some(Value::String(text)) => text.as_bytes().to_vec(),
            Some(value) => match value["hex"].as_str() {
                Some(hex) => unhex(hex),
                None => self.tokened(path, value).to_string().into_bytes(),
            },
        };
        for (name, value) in &exchange.headers {
            let value = match name.as_str() {
                "Authorization" => self.authorization(value, device.as_deref(), &exchange.step),
                "If-None-Match" => self.tags(value),
                "If-Range" => self.known.dates.get(value).unwrap_or(value).clone(),
                _ => value.clone(),
            };
            headers.push((name.clone(), value));
        }
        if let Some(Value::String(text)) = &exchange.body
            && text.starts_with("multipart/form-data, field file, filename ")
        {
            let file = text.split("filename ").nth(1).unwrap_or_default();
            let (file, rest) = file.rsplit_once(" bytes, sha256 ").expect("a sentence");
            let (file, size) = file.rsplit_once(", ").expect("a sentence");
            let bytes = content(file, size.parse().expect("a size"), rest);
            body = upload(file, &bytes).body;
        }
        let query = match self.known.markers.ours(&format!(
            "http://HOST{path}?{}",
            query.split('&').next().unwrap_or_default()
        )) {
            Some(own) => {
                let own = own
                    .split_once('?')
                    .map(|(_, query)| query)
                    .unwrap_or_default();
                match query.split_once('&') {
                    Some((_, rest)) => format!("{own}&{rest}"),
                    None => own.to_owned(),
                }
            }
            None => query.to_owned(),
        };
        Request {
            method: exchange.method.clone(),
            path: path.to_owned(),
            query,
            headers,
            body,
        }
    }

    fn tags(&self, value: &str) -> String {
        let mut text = value.to_owned();
        for part in value.split('"').filter(|part| part.len() == 33) {
            if let Some(own) = self.known.tags.ours(&format!("\"{part}\"")) {
                text = text.replace(part, own.trim_matches('"'));
            }
        }
        text
    }

    /// Gives each target a token of its own again.
    fn tokened(&mut self, path: &str, body: &Value) -> Value {
        let mut body = body.clone();
        if let Value::Array(list) = &mut body {
            for target in list {
                if target.get("securityToken").is_some() {
                    let id = target["controllerId"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                    target["securityToken"] = json!(format!("token-of-{id}"));
                }
            }
        } else if body.get("securityToken").is_some() {
            let id = path.rsplit('/').next().unwrap_or_default().to_owned();
            body["securityToken"] = json!(format!("new-token-of-{id}"));
            self.changed_tokens.insert(id);
        }
        body
    }

    fn authorization(&self, value: &str, device: Option<&str>, step: &str) -> String {
        let device = device.unwrap_or_default();
        let new = self.changed_tokens.contains(device) && step != "old token";
        let token = format!("{}token-of-{device}", if new { "new-" } else { "" });
        match value {
            "Basic TOKEN" => "Basic YWRtaW46YWRtaW4=".to_owned(),
            "GatewayToken TOKEN" => "GatewayToken GATEWAY".to_owned(),
            "gatewaytoken TOKEN" => "gatewaytoken GATEWAY".to_owned(),
            "GatewayToken TARGET-TOKEN" => format!("GatewayToken {token}"),
            "TargetToken GATEWAY-TOKEN" => "TargetToken GATEWAY".to_owned(),
            "TargetToken (empty)" => "TargetToken ".to_owned(),
            "TargetToken TOKEN (trailing space)" => format!("TargetToken {token} "),
            "TargetToken  TOKEN (two spaces)" => format!("TargetToken  {token}"),
            other => other
                .replace("TOKEN-OF-OTHER-TARGET", "token-of-au-2")
                .replace("TOKEN", &token),
        }
    }
}

/// Files that a device is shown, and that nobody uploaded.
fn unseen(file: &Recording) -> Vec<(u64, String, usize, String)> {
    let mut found = Vec::new();
    for exchange in &file.exchanges {
        let chunks = exchange
            .answer
            .as_ref()
            .and_then(|a| a.pointer("/deployment/chunks"));
        for chunk in chunks.and_then(Value::as_array).into_iter().flatten() {
            for artifact in chunk["artifacts"].as_array().into_iter().flatten() {
                let name = artifact["filename"].as_str().unwrap_or_default();
                let said = format!("filename {name}, ");
                let uploaded = file.exchanges.iter().any(|exchange| {
                    exchange
                        .body
                        .as_ref()
                        .is_some_and(|body| body.to_string().contains(&said))
                });
                let module = numbers_after(&artifact.to_string(), "softwaremodules/").next();
                let hash = artifact["hashes"]["sha256"].as_str().unwrap_or_default();
                let size = artifact["size"].as_u64().unwrap_or_default();
                if let (false, Some(module)) = (uploaded, module) {
                    let size = usize::try_from(size).unwrap_or_default();
                    found.push((module, name.to_owned(), size, hash.to_owned()));
                }
            }
        }
    }
    found
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hexadecimal");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        })
        .collect()
}

fn upload(file: &str, bytes: &[u8]) -> Request {
    let head = format!(
        "--BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{file}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    let mut body = head.into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n--BOUNDARY--\r\n");
    Request {
        method: "POST".to_owned(),
        headers: vec![
            (
                "Authorization".to_owned(),
                "Basic YWRtaW46YWRtaW4=".to_owned(),
            ),
            (
                "Content-Type".to_owned(),
                "multipart/form-data; boundary=BOUNDARY".to_owned(),
            ),
            ("Host".to_owned(), "HOST".to_owned()),
        ],
        body,
        ..Request::default()
    }
}

/// Numbered lines of ASCII, as the recordings' artifacts have.
fn numbered(prefix: &str, size: usize) -> Vec<u8> {
    let mut text = String::new();
    let mut line = 0;
    while text.len() < size {
        text.push_str(&format!("{prefix} line {line:08} of artifact..\n"));
        line += 1;
    }
    text.truncate(size);
    text.into_bytes()
}

/// The bytes of an artifact, found by what they can be.
fn content(file: &str, size: usize, wanted: &str) -> Vec<u8> {
    let stem = file.split('.').next().unwrap_or_default();
    let four: String = file.chars().take(4).collect();
    let prefixes = [stem, &four, "root", "app", "image", "df", "x"];
    let short = stem.replacen("f0", "f", 1);
    let words = [
        "abc", "one", "two", "late", "spaced", "umlaut", "1", "", stem, &short,
    ];
    let fixed = ["{\"#spec\":\"pantavisor-service-system@1\"}"];
    let candidates = prefixes.iter().map(|prefix| numbered(prefix, size)).chain(
        words
            .iter()
            .chain(&fixed)
            .map(|word| word.as_bytes().to_vec()),
    );
    let mut candidates = candidates.filter(|bytes| sha256(bytes) == wanted);
    candidates
        .next()
        .unwrap_or_else(|| panic!("no content is known for {file} ({size} bytes, {wanted})"))
}
