//! Proxies: which one, for which host, and the tunnel through it (`CONNECT`).

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::WebError;
use super::address::{Address, Origin};

/// Bytes of a proxy's answer to `CONNECT`.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// Proxies for both schemes, and hosts that need none.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `https`.
    pub https: Option<Proxy>,
    /// For `http`.
    pub http: Option<Proxy>,
    /// Names with all that is below them, addresses, or `*`.
    pub none_for: Vec<String>,
}

/// One proxy.
#[derive(Clone)]
pub struct Proxy {
    origin: Origin,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |proxy: &Option<Proxy>| proxy.as_ref().map(|proxy| proxy.origin.to_string());
        f.debug_struct("Proxies")
            .field("https", &shown(&self.https))
            .field("http", &shown(&self.http))
            .field("none_for", &self.none_for)
            .finish()
    }
}

impl Proxy {
    /// From `http://[user:password@]host[:port]`; `credentials` (`user:password`) count before those in the address.
    ///
    /// # Errors
    /// [`WebError::BadAddress`].
    pub fn parse(text: &str, credentials: Option<&str>) -> Result<Self, WebError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (own, host) = match rest.rsplit_once('@') {
            Some((own, host)) => (Some(decode(own)), host),
            None => (None, rest),
        };
        let address = Address::parse(&format!("{scheme}://{host}"))?;
        if address.origin().tls {
            return Err(WebError::BadAddress {
                address: address.to_string(),
                reason: "a proxy is spoken to by http; the tunnel through it is what is secret"
                    .to_owned(),
            });
        }
        let pair = credentials.map(str::to_owned).or(own);
        let authorization = pair.map(|pair| {
            let mut value = HeaderValue::from_str(&format!("Basic {}", base64(pair.as_bytes())))
                .expect("base64 is plain text");
            value.set_sensitive(true);
            value
        });
        Ok(Self {
            origin: address.origin().clone(),
            authorization,
        })
    }

    /// Where it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Value of `Proxy-Authorization`.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Opens a tunnel to an origin over a connection to the proxy.
    ///
    /// # Errors
    /// [`WebError::Proxy`].
    pub async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        origin: &Origin,
    ) -> Result<(), WebError> {
        let failed = |reason: String| WebError::Proxy {
            proxy: self.origin.to_string(),
            target: origin.to_string(),
            reason,
        };
        let to = origin.authority();
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
        if let Some(value) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let broken = |error: std::io::Error| failed(format!("the connection broke: {error}"));
        stream.write_all(&request).await.map_err(broken)?;
        // Byte by byte: what comes after the head belongs to the tunnel.
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\r\n\r\n") {
            let byte = stream.read_u8().await.map_err(broken)?;
            head.push(byte);
            if head.len() > ANSWER_BYTES_MAX {
                return Err(failed("its answer is no end of headers".to_owned()));
            }
        }
        let first = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1));
        match status {
            Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
            Some("407") => Err(failed(
                "it wants other credentials (407): set proxy-credentials".to_owned(),
            )),
            Some(_) | None => Err(failed(format!(
                "it refuses: {}",
                crate::deployment::line(&first)
            ))),
        }
    }
}

impl Proxies {
    /// The proxy for an origin.
    pub fn of(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = if origin.tls { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.is_excepted(&origin.host))
    }

    fn is_excepted(&self, host: &str) -> bool {
        self.none_for.iter().any(|entry| {
            let entry = entry.trim().trim_matches(['[', ']']).to_ascii_lowercase();
            let name = entry.trim_start_matches("*.").trim_start_matches('.');
            let name = name.split_once(':').map_or(name, |(name, port)| {
                if port.bytes().all(|byte| byte.is_ascii_digit()) {
                    name
                } else {
                    entry.as_str()
                }
            });
            entry == "*"
                || host == name
                || (!name.is_empty()
                    && host
                        .strip_suffix(name)
                        .is_some_and(|rest| rest.ends_with('.')))
        })
    }
}

/// `%XX` as it stands in addresses.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .filter(|_| *byte == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match digits {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number = three
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        for place in 0..4_usize {
            if place <= three.len() {
                let index = number >> (18 - 6 * place) & 63;
                text.push(char::from(SIGNS[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Address::parse(text).unwrap().origin().clone()
    }

    #[test]
    fn base64_as_in_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
            ("\u{ff}\u{fe}", "w7/Dvg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn hosts_without_proxy() {
        let proxy = Proxy::parse("http://p:3128", None).unwrap();
        let mut proxies = Proxies {
            https: Some(proxy),
            http: None,
            none_for: ["example.com", ".local", "10.0.0.1", "::1", "x:8080"]
                .map(str::to_owned)
                .to_vec(),
        };
        for (host, through) in [
            ("https://a/", true),
            ("https://example.com/", false),
            ("https://a.example.com/", false),
            ("https://badexample.com/", true),
            ("https://a.local/", false),
            ("https://10.0.0.1/", false),
            ("https://10.0.0.11/", true),
            ("https://[::1]/", false),
            ("https://x/", false),
            ("http://a/", false),
        ] {
            assert_eq!(proxies.of(&origin(host)).is_some(), through, "{host}");
        }
        proxies.none_for = vec!["*".to_owned()];
        assert!(proxies.of(&origin("https://a/")).is_none());
    }

    #[test]
    fn credentials_of_a_proxy() {
        let proxy = Proxy::parse("http://u:p%40ss@p:3128", None).unwrap();
        assert_eq!(proxy.authorization().unwrap(), "Basic dTpwQHNz");
        let proxy = Proxy::parse("p:3128", Some("a:b")).unwrap();
        assert_eq!(proxy.authorization().unwrap(), "Basic YTpi");
        assert_eq!(proxy.origin().authority(), "p:3128");
        assert!(Proxy::parse("https://p", None).is_err());
    }
}
