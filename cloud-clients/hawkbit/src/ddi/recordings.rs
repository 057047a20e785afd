//! Every answer that real servers gave to devices (recorded in `tests/clouds/recordings`) is understood.

use std::path::Path;

use serde_json::Value;

use super::*;

#[test]
fn what_real_servers_said_is_understood() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clouds/recordings/hawkbit");
    let (mut roots, mut deployments, mut cancels, mut refusals) = (0, 0, 0, 0);
    for release in ["0.9.0", "1.0.4"] {
        let files = std::fs::read_dir(folder.join(release)).expect("recordings are there");
        for file in files {
            let path = file.expect("a file").path();
            for line in std::fs::read_to_string(&path).expect("text").lines() {
                let exchange: Value = serde_json::from_str(line).expect("JSON");
                let (request, response) = (&exchange["request"], &exchange["response"]);
                let Some(target) = request["path"].as_str() else {
                    continue;
                };
                let body = &response["body"];
                let body = body.get("decoded").unwrap_or(body);
                if exchange["side"] != "device" || !body.is_object() || body.get("hex").is_some() {
                    continue;
                }
                let bytes = body.to_string().into_bytes();
                let said = format!("{}: {}", path.display(), exchange["step"]);
                let parts: Vec<&str> = target.split(['/', '?']).skip(5).collect();
                if response["status"].as_u64() >= Some(400) {
                    let refusal = Refusal::parse(&bytes);
                    let health = body.get("status").is_some_and(Value::is_string);
                    assert!(refusal.message.is_some() || health, "{said}");
                    refusals += 1;
                } else if target.split('/').nth(2) != Some("controller") {
                } else if parts.is_empty() {
                    let root = Root::parse(&bytes).expect(&said);
                    assert!(root.sleep.is_some(), "{said}");
                    let shown = [&root.deployment, &root.confirmation, &root.cancel];
                    assert!(
                        shown.iter().filter(|link| link.is_some()).count() <= 1,
                        "{said}"
                    );
                    roots += 1;
                } else if body.get("deployment").is_some() || body.get("confirmation").is_some() {
                    let deployment = Deployment::parse(&bytes).expect(&said);
                    for handling in [deployment.download, deployment.update] {
                        assert_ne!(handling, Handling::Unknown, "{said}");
                    }
                    assert_ne!(deployment.download, Handling::Skip, "{said}");
                    let files = deployment.chunks.iter().flat_map(|chunk| &chunk.files);
                    for file in files {
                        assert!(file.sha256.is_some() && file.bytes.is_some(), "{said}");
                        assert_eq!(file.links[0].0, "download-http", "{said}");
                    }
                    deployments += 1;
                } else if parts[0] == "cancelAction" {
                    let id = root::stop_id(&bytes).expect(&said);
                    assert_eq!(body["id"], id.as_str(), "{said}");
                    cancels += 1;
                }
            }
        }
    }
    assert_eq!((roots, deployments, cancels, refusals), (541, 145, 24, 264));
}
