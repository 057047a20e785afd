//! The client's own settings, beside those that every cloud client has; checked when they are read.

use link::config::{Config, ConfigError, Kind, Setting};
use link::offer::Credentials;
use link::web::Address;

/// The client's short name: file, environment and metadata keys come from it.
pub const CLIENT: &str = "hawkbit";

/// What this client has beside `link`'s settings.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting::new("server", Kind::Text, "", "Address of the server: `https://host`, with port and path where it has them.").with_meta(),
    Setting::new("tenant", Kind::Text, "DEFAULT", "The tenant.").with_meta(),
    Setting::new("controller-id", Kind::TextOrFile, "", "Name of this device at the server, at most 128 characters without white space; `device-id` when empty.").with_meta(),
    Setting::new("target-token", Kind::TextOrFile, "", "Security token of this device.").with_meta().secret(),
    Setting::new("gateway-token", Kind::TextOrFile, "", "Token of a gateway, which may act as any device; not with `target-token`. With neither the client's certificate has to do (`tls-certificate`).").with_meta().secret(),
    Setting::new("confirmation", Kind::Word(&["consent", "server", "auto-confirm"]), "consent", "Who answers when the server asks for consent: as `consent` says; only a person at the server; or nobody: the server is told once that every deployment is welcome.").with_meta(),
    Setting::new("attributes", Kind::List, "pantavisor.arch,pantavisor.cpumodel,pantavisor.mode,pantavisor.uname,pantavisor.version", "Keys of device metadata that the server gets as attributes; `*` at the end stands for any rest.").with_meta(),
    Setting::new("installed-set", Kind::Text, "", "`NAME:VERSION` of the distribution set that came from the factory: told once to a server that knows of none.").with_meta(),
];

/// How a question of the server for consent is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consenting {
    /// By the setting `consent` or by user metadata.
    Here {
        /// Without a person.
        always: bool,
    },
    /// Not by this client.
    AtServer,
    /// Beforehand, for everything.
    Beforehand,
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Root resource of this device.
    pub root: Address,
    /// Sent to the server, and to nobody else.
    pub credentials: Option<Credentials>,
    /// Who gives consent.
    pub consenting: Consenting,
    /// Keys of device metadata.
    pub attributes: Vec<String>,
    /// Whether what has failed is tried once more when the server offers it once more.
    pub failed_again: bool,
    /// Name and version of the set from the factory.
    pub installed_set: Option<(String, String)>,
}

impl Settings {
    /// From the configuration.
    ///
    /// # Errors
    /// In words, with the setting.
    pub fn read(config: &Config) -> Result<Self, String> {
        let words = |error: ConfigError| error.to_string();
        let secret = |name| config.read(name).map_err(words);
        let credentials = match (secret("target-token")?, secret("gateway-token")?) {
            (Some(_), Some(_)) => {
                return Err("target-token and gateway-token are both set: keep one".to_owned());
            }
            (Some(token), None) => {
                Some(Credentials::authorization(&format!("TargetToken {token}")))
            }
            (None, Some(token)) => {
                Some(Credentials::authorization(&format!("GatewayToken {token}")))
            }
            (None, None) => None,
        };
        let id = match config.read("controller-id").map_err(words)? {
            Some(id) => id,
            None => config.read_needed("device-id").map_err(words)?,
        };
        if id.chars().count() > 128 || id.chars().any(char::is_whitespace) || id.contains('/') {
            return Err(format!(
                "{id:?} cannot be this device's name at a hawkBit server: use at most 128 characters without white space and '/' (setting controller-id)"
            ));
        }
        let server = config.text("server").trim_end_matches('/');
        if server.is_empty() {
            return Err("server is not set: use https://host".to_owned());
        }
        let tenant = config.text("tenant");
        let root = format!("{server}/{}/controller/v1/{}", encode(tenant), encode(&id));
        let installed_set = match config.text("installed-set") {
            "" => None,
            text => {
                let (name, version) = text
                    .rsplit_once(':')
                    .ok_or("installed-set must be NAME:VERSION")?;
                Some((name.to_owned(), version.to_owned()))
            }
        };
        Ok(Self {
            root: Address::parse(&root).map_err(|error| format!("server: {error}"))?,
            credentials,
            consenting: match config.text("confirmation") {
                "server" => Consenting::AtServer,
                "auto-confirm" => Consenting::Beforehand,
                _ => Consenting::Here {
                    always: config.text("consent") == "auto",
                },
            },
            attributes: config.list("attributes").map(str::to_owned).collect(),
            failed_again: config.text("failed-again") == "retry",
            installed_set,
        })
    }
}

/// Percent-encodes a part of a path.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::config::Source;

    #[test]
    fn the_page_of_settings_is_fresh() {
        let page = link::config::page(CLIENT, SETTINGS);
        expect_test::expect_file!["../settings.md"].assert_eq(&page);
    }

    #[test]
    fn settings_are_checked() {
        let read = |given: &[(&str, &str)]| {
            let mut config = Config::defaults(CLIENT, SETTINGS);
            for (name, text) in given {
                config
                    .set(name, text, Source::CommandLine)
                    .expect("a setting");
            }
            Settings::read(&config)
        };
        let good = [
            ("server", "https://h:8443/x/"),
            ("controller-id", "d\u{e9}:1"),
        ];
        let settings = read(&good).expect("good settings");
        assert_eq!(
            settings.root.to_string(),
            "https://h:8443/x/DEFAULT/controller/v1/d%C3%A9%3A1"
        );
        for bad in [
            &[("controller-id", "a")][..],
            &[("server", "h"), ("controller-id", "a")],
            &[("server", "https://h"), ("controller-id", "a b")],
            &[
                ("server", "https://h"),
                ("controller-id", "a"),
                ("installed-set", "x"),
            ],
            &[
                ("server", "https://h"),
                ("controller-id", "a"),
                ("target-token", "x"),
                ("gateway-token", "y"),
            ],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
