//! Client certificates whose keys are in a token (SoftHSM2, by PKCS#11): the deployment goes through a server that asks for one.

use std::path::Path;
use std::process::Command;

use acceptance::needs_containers;
use rcgen::KeyPair;

use crate::stage::Stage;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "4321";

fn tool(configuration: &Path, words: &[&str]) {
    let output = Command::new(words[0])
        .args(&words[1..])
        .env("SOFTHSM2_CONF", configuration)
        .output()
        .expect("it is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
}

#[test]
fn keys_in_a_token() {
    needs_containers!();
    if !Path::new(MODULE).exists() {
        assert!(std::env::var_os("CI").is_none(), "{MODULE} is missing");
        eprintln!("SKIPPED {}: softhsm2 is not installed", module_path!());
        return;
    }
    let mut stage = Stage::new(&[], 0);
    let home = stage.home.path().to_owned();
    let path = |name: &str| home.join(name).display().to_string();
    let configuration = home.join("softhsm2.conf");
    std::fs::create_dir(home.join("tokens")).expect("a fresh folder");
    let text = format!("directories.tokendir = {}\n", path("tokens"));
    std::fs::write(&configuration, text).expect("the folder is the test's");
    let hsm = |words: &[&str]| tool(&configuration, &[&["softhsm2-util"], words].concat());
    for token in ["device", "other"] {
        let pins = ["--so-pin", "87654321", "--pin", PIN];
        hsm(&[&["--init-token", "--free", "--label", token][..], &pins].concat());
    }
    // One key of each kind, in the token and nowhere else.
    let mut keys = vec![
        ("p256", KeyPair::generate().expect("a key")),
        (
            "p384",
            KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key"),
        ),
    ];
    let rsa = path("rsa.key");
    let bits = ["-pkeyopt", "rsa_keygen_bits:2048"];
    let make = ["openssl", "genpkey", "-algorithm", "RSA", "-out", &rsa];
    tool(&configuration, &[&make[..], &bits].concat());
    let rsa = std::fs::read_to_string(&rsa).expect("just made");
    keys.push(("rsa", KeyPair::from_pem(&rsa).expect("a key")));
    for (number, (name, key)) in keys.iter().enumerate() {
        let file = path(&format!("{name}.key"));
        std::fs::write(&file, key.serialize_pem()).expect("the folder is the test's");
        let id = format!("a{number}");
        let names = ["--token", "device", "--label", name, "--id", &id];
        hsm(&[&["--import", &file, "--pin", PIN][..], &names].concat());
        std::fs::remove_file(&file).expect("just made");
        let certificate = stage.pki.client(key);
        std::fs::write(path(&format!("{name}.pem")), certificate).expect("the test's folder");
    }

    stage.server.shows(stage.pki.server_that_asks());
    let environment = configuration.display().to_string();
    let environment = [("SOFTHSM2_CONF", environment.as_str())];
    let pin = home.join("pin");
    std::fs::write(&pin, PIN).expect("the folder is the test's");
    let pin = format!("file:{}", pin.display());
    let settings = |certificate: &str, key: &str, pin: &str| {
        [
            ("tls-certificate", path(certificate)),
            ("pkcs11-module", MODULE.to_owned()),
            ("pkcs11-key", key.to_owned()),
            ("pkcs11-pin", pin.to_owned()),
        ]
    };
    // Without a certificate nobody gets in.
    let client = stage.start(&[], &[]);
    stage.until_said("cannot be reached");
    drop(client);
    for (certificate, key) in [
        ("p256.pem", "pkcs11:token=device;object=p256"),
        ("p384.pem", "pkcs11:token=device;id=%a1"),
        ("rsa.pem", "pkcs11:object=rsa;type=private"),
    ] {
        // Of two tokens the one must be named, or only one may have such a key.
        let key = match key.contains("token=") {
            true => key.to_owned(),
            false => format!("{key};token=device"),
        };
        let settings = settings(certificate, &key, &pin);
        let settings: Vec<(&str, &str)> = settings.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let (id, object) = stage.offer(None);
        let client = stage.start(&settings, &environment);
        stage.runs(&id, &object);
        drop(client);
    }
    let before = stage.server.heads.lock().expect("whole").len();
    for (certificate, key, pin, words) in [
        (
            "p256.pem",
            "pkcs11:token=device;object=p384",
            PIN,
            "not the key of the certificate",
        ),
        ("p256.pem", "pkcs11:token=device", PIN, "3 private keys fit"),
        ("p256.pem", "pkcs11:object=p256", PIN, "2 tokens fit"),
        (
            "p256.pem",
            "pkcs11:token=none",
            PIN,
            "no token that pkcs11-key fits",
        ),
        (
            "p256.pem",
            "pkcs11:token=other",
            PIN,
            "no private key that pkcs11-key fits",
        ),
        (
            "p256.pem",
            "pkcs11:token=device;object=p256",
            "",
            "no private key",
        ),
        (
            "p256.pem",
            "pkcs11:token=device;object=p256",
            "9999",
            "does not take the PIN",
        ),
        (
            "ca.pem.none",
            "pkcs11:token=device;object=p256",
            PIN,
            "ca.pem.none",
        ),
    ] {
        let settings = settings(certificate, key, pin);
        let settings: Vec<(&str, &str)> = settings.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let client = stage.start(&settings, &environment);
        stage.until_said(words);
        drop(client);
    }
    assert_eq!(stage.server.heads.lock().expect("whole").len(), before);
}
