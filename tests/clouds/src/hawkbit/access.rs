//! Who may ask: tokens of devices, headers of a proxy, the operator's login, the filter against floods.

use serde_json::Value;

use super::wire::{Request, Response};
use super::{Hawkbit, Release};

impl Hawkbit {
    pub(crate) fn is_operator(&self, request: &Request) -> bool {
        let wanted = base64(format!("{}:{}", self.setup.user, self.setup.password).as_bytes());
        request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Basic "))
            .is_some_and(|given| given.trim_end() == wanted)
    }

    /// Whether a request may act as this device.
    pub(crate) fn is_device(&self, tenant: &str, id: &str, peer: &str, request: &Request) -> bool {
        let _ = peer;
        if let Some(given) = request.header("authorization") {
            let given = given.trim_end();
            if let Some(token) = given.strip_prefix("TargetToken ") {
                let target = self.targets.get(&(tenant.to_uppercase(), id.to_owned()));
                let good = self.is_set("authentication.targettoken.enabled")
                    && target.is_some_and(|target| target.token == token);
                if good {
                    return true;
                }
            }
            if let Some(token) = given.strip_prefix("GatewayToken ")
                && self.is_set("authentication.gatewaytoken.enabled")
                && self.setting("authentication.gatewaytoken.key") == token
            {
                return true;
            }
        }
        self.is_vouched_for(id, request)
    }

    /// Whether a proxy that checked a certificate vouches for this device.
    fn is_vouched_for(&self, id: &str, request: &Request) -> bool {
        if !self.is_set("authentication.header.enabled") {
            return false;
        }
        let (name, authorities) = match self.setup.release {
            Release::V0_9_0 => ("x-ssl-client-cn", "x-ssl-issuer-hash-"),
            Release::V1_0_4 => ("x-controller-id", "x-authority"),
        };
        let Value::String(wanted) = self.setting("authentication.header.authority") else {
            return false;
        };
        let list = |text: &str| -> Vec<String> {
            text.split([';', ','])
                .map(|one| one.trim().to_lowercase())
                .filter(|one| !one.is_empty())
                .collect()
        };
        let wanted = list(&wanted);
        let given = request
            .headers
            .iter()
            .filter(|(header, _)| header.to_lowercase().starts_with(authorities))
            .flat_map(|(_, value)| list(value));
        request.header(name) == Some(id) && given.into_iter().any(|one| wanted.contains(&one))
    }

    /// The refusal of the filter, if it refuses.
    pub(crate) fn filtered(&mut self, peer: &str, request: &Request) -> Option<Response> {
        let address = request
            .header("x-forwarded-for")
            .and_then(|list| list.split(',').next())
            .unwrap_or(peer)
            .trim()
            .to_owned();
        if self.setup.blocked.contains(&address) {
            return Some(Response::empty(403));
        }
        let (reads, writes) = self.setup.rate?;
        let is_read = request.method == "GET";
        let limit = if is_read { reads } else { writes };
        let counted = self
            .rates
            .entry((address, is_read))
            .or_insert((self.now, 0));
        if self.now - counted.0 >= 1000 {
            *counted = (self.now, 0);
        }
        counted.1 += 1;
        // The real one lets two more through than its property says.
        (counted.1 > limit + 2).then(|| Response::empty(429))
    }
}

/// Base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0_u32, |word, (at, byte)| {
            word | u32::from(*byte) << (16 - 8 * at)
        });
        for at in 0..4 {
            let index = usize::try_from(word >> (18 - 6 * at) & 63).unwrap_or_default();
            text.push(if at <= chunk.len() {
                char::from(LETTERS[index])
            } else {
                '='
            });
        }
    }
    text
}
