//! Addresses of the web, as far as they are needed: absolute `http` and `https`, their origin, and where a redirect leads.

use std::fmt;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use super::WebError;

/// Scheme, host and port: who gets a credential, and what a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or address, in lower case; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl Origin {
    /// `host:port`, as in a CONNECT.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// `host` or `host:port`, as in a Host header.
    pub fn host_header(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        let authority = self.authority();
        match authority.strip_suffix(&format!(":{usual}")) {
            Some(host) if self.port == usual => host.to_owned(),
            Some(_) | None => authority,
        }
    }
}

/// An absolute address.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    origin: Origin,
    path: PathAndQuery,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Display for Address {
    /// Without the query, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path.path())?;
        f.write_str(if self.path.query().is_some() {
            "?…"
        } else {
            ""
        })
    }
}

impl Address {
    /// Parses an address. User names in it are refused; what follows `#` is left out; spaces and what is not ASCII is encoded.
    ///
    /// # Errors
    /// [`WebError::BadAddress`].
    pub fn parse(text: &str) -> Result<Self, WebError> {
        let bad = |reason: &str| WebError::BadAddress {
            address: shown(text),
            reason: reason.to_owned(),
        };
        let encoded = encode(text.split('#').next().unwrap_or_default().trim());
        let uri: Uri = encoded.parse().map_err(|_| bad("it cannot be parsed"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) | None => return Err(bad("it is neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad(
                "it holds a user name; credentials are given by settings",
            ));
        }
        Ok(Self {
            origin: origin(tls, authority).map_err(bad)?,
            path: uri
                .path_and_query()
                .cloned()
                .unwrap_or(PathAndQuery::from_static("/")),
        })
    }

    /// Where `Location: text` leads from here.
    ///
    /// # Errors
    /// [`WebError::BadAddress`].
    pub fn join(&self, text: &str) -> Result<Self, WebError> {
        let text = text.trim();
        if text.contains("://") && !text.starts_with(['/', '?', '.']) {
            return Self::parse(text);
        }
        let origin = &self.origin;
        if let Some(rest) = text.strip_prefix("//") {
            let scheme = if origin.tls { "https" } else { "http" };
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        if text.starts_with('/') {
            return Self::parse(&format!("{origin}{text}"));
        }
        let path = self.path.path();
        if text.starts_with('?') {
            return Self::parse(&format!("{origin}{path}{text}"));
        }
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self::parse(&format!("{origin}{folder}/{text}"))
    }

    /// Whose it is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Path and query.
    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }
}

/// Whose an address is; in words what is wrong with it.
fn origin(tls: bool, authority: &Authority) -> Result<Origin, &'static str> {
    let host = authority.host();
    let port = match authority.as_str().strip_prefix(host) {
        Some("" | ":") => Some(if tls { 443 } else { 80 }),
        Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()),
        None => None,
    };
    // A port that was mistyped must not become another one.
    let port = port.filter(|port| *port != 0);
    let port = port.ok_or("its port is no number from 1 to 65535")?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() {
        return Err("it names no host");
    }
    Ok(Origin {
        tls,
        host: host.to_ascii_lowercase(),
        port,
    })
}

/// An address that cannot be used, without what may be a secret: what follows `?`, and a user's name and password.
fn shown(text: &str) -> String {
    let head = text.split('?').next().unwrap_or_default();
    match (head.rsplit_once('@'), text.contains('@')) {
        (Some((_, host)), _) => format!("…@{host}"),
        // The sign stands behind the question mark, which may be a part of a password.
        (None, true) => "…".to_owned(),
        (None, false) => head.to_owned(),
    }
}

/// Encodes what may not stand in a request line and what is often sent all the same.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte <= b' ' || byte >= 0x7f || matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`')
        {
            encoded.push_str(&format!("%{byte:02X}"));
        } else {
            encoded.push(char::from(byte));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, origin, path) in [
            ("http://x", "http://x:80", "/"),
            ("https://x:/a", "https://x:443", "/a"),
            ("HTTPS://X.Example/a?b#c", "https://x.example:443", "/a?b"),
            (
                "http://[::1]:8080/a b/ü",
                "http://[::1]:8080",
                "/a%20b/%C3%BC",
            ),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.origin().to_string(), origin);
            assert_eq!(address.path().as_str(), path);
        }
        for bad in [
            "",
            "x",
            "/a",
            "ftp://x/",
            "http://",
            "http:///a",
            "http://u:p@x/",
            "file:///etc",
            "https://x:84430/",
            "https://x:0/",
            "https://x:port/",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn redirects() {
        let here = Address::parse("https://x/a/b?c=d").unwrap();
        for (location, leads_to) in [
            ("/e", "https://x:443/e"),
            ("e?f=1", "https://x:443/a/e?…"),
            ("//y/e", "https://y:443/e"),
            ("http://y/e", "http://y:80/e"),
            ("?g", "https://x:443/a/b?…"),
            ("/e?to=http://z/", "https://x:443/e?…"),
        ] {
            assert_eq!(here.join(location).unwrap().to_string(), leads_to);
        }
        assert!(here.join("ftp://y/").is_err());
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let shown = format!("{:?}", Address::parse("https://x/a?sig=abc").unwrap());
        assert!(!shown.contains("abc"), "{shown}");
        let shown = Address::parse("gopher://x/a?sig=abc")
            .unwrap_err()
            .to_string();
        assert!(!shown.contains("abc"), "{shown}");
        for bad in [
            "https://u:abc@x/a",
            "https://u:abc?@x/a",
            "https://u:abc/@x/a",
            "u:abc@x",
        ] {
            let shown = Address::parse(bad).unwrap_err().to_string();
            assert!(!shown.contains("abc"), "{bad}: {shown}");
        }
    }

    #[test]
    fn host_headers() {
        for (text, header) in [
            ("http://x/", "x"),
            ("http://x:443/", "x:443"),
            ("https://x:443/", "x"),
            ("https://[::1]/", "[::1]"),
        ] {
            assert_eq!(Address::parse(text).unwrap().origin().host_header(), header);
        }
    }
}
