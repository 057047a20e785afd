//! The parts of an OCI image configuration that matter for running it.

use serde::Deserialize;

/// `config` of an image configuration; what is missing or null is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageConfig {
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) stop_signal: Option<String>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    config: Option<ImageConfig>,
}

impl ImageConfig {
    /// Reads an image configuration.
    ///
    /// # Errors
    /// When it is not JSON, or a field has another type than the OCI image specification says.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let file: File = serde_json::from_slice(bytes)?;
        Ok(file.config.unwrap_or_default())
    }

    /// Reads `config` of an image configuration alone.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn parse_inner(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The command line: entrypoint, then cmd.
    pub(crate) fn command(&self) -> Vec<String> {
        self.entrypoint
            .iter()
            .chain(&self.cmd)
            .flatten()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_unknown_fields_are_fine() {
        let config = ImageConfig::parse(
            br#"{"architecture":"amd64","config":{"Entrypoint":["/a"],"Cmd":["b"],"Env":null,
                "Volumes":{"/x":{}},"User":"web"},"rootfs":{}}"#,
        )
        .unwrap();
        assert_eq!(config.command(), ["/a", "b"]);
        assert_eq!(config.user.as_deref(), Some("web"));
        assert_eq!(ImageConfig::parse(b"{}").unwrap(), ImageConfig::default());
        assert!(ImageConfig::parse(br#"{"config":{"Cmd":"sh"}}"#).is_err());
    }
}
