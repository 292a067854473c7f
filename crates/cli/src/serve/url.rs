//! URLs of members: a scheme, a host and a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// Where something listens or is reached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Url {
    /// How to talk to it.
    pub(crate) scheme: Scheme,
    /// A name or an address, without the brackets of IPv6.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

/// How to talk to a member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Scheme {
    /// In plain text.
    Http,
    /// With TLS.
    Https,
}

/// What is wrong with a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BadUrl {
    /// It begins with something else.
    Scheme(String),
    /// A socket in the file system.
    Unix(String),
    /// There is no port, or no host.
    Address(String),
    /// There is more than host and port.
    Path(String),
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(url) => {
                write!(f, "URL scheme must be http, https, unix, or unixs: {url}")
            }
            Self::Unix(url) => write!(f, "unix sockets are not supported yet: {url}"),
            Self::Address(url) => {
                write!(f, "URL address does not have the form \"host:port\": {url}")
            }
            Self::Path(url) => write!(f, "URL must not contain a path: {url}"),
        }
    }
}

impl Url {
    /// Reads a URL.
    pub(crate) fn parse(text: &str) -> Result<Self, BadUrl> {
        let whole = || text.to_owned();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(BadUrl::Scheme(whole()));
        };
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" | "unixs" => return Err(BadUrl::Unix(whole())),
            _ => return Err(BadUrl::Scheme(whole())),
        };
        if rest.contains(['/', '?', '#']) {
            return Err(BadUrl::Path(whole()));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| BadUrl::Address(whole()))?;
        let port = port.parse().map_err(|_| BadUrl::Address(whole()))?;
        let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(bare) => bare,
            None if host.contains(['[', ']', ':', '@', ' ']) => {
                return Err(BadUrl::Address(whole()));
            }
            None => host,
        };
        Ok(Self { scheme, host: bare.to_owned(), port })
    }

    /// Whether only this machine reaches it.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }

    /// Whether it means every address of this machine.
    pub(crate) fn is_unspecified(&self) -> bool {
        self.host.is_empty() || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// Whether one can listen there: an address, or this machine.
    pub(crate) fn is_bindable(&self) -> bool {
        self.host.is_empty() || self.host == "localhost" || self.host.parse::<IpAddr>().is_ok()
    }

    /// The addresses behind it, sorted. None if its name is unknown.
    pub(crate) fn resolve(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .unwrap_or_default();
        addresses.sort();
        addresses
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_a_scheme_a_host_and_a_port() {
        for text in ["http://localhost:2379", "https://10.0.0.1:1", "http://[::1]:2380"] {
            assert_eq!(Url::parse(text).expect("a URL").to_string(), text);
        }
        assert!(Url::parse("http://[::1]:2380").expect("a URL").is_loopback());
        assert!(Url::parse("http://0.0.0.0:1").expect("a URL").is_unspecified());
        assert!(!Url::parse("http://example.com:1").expect("a URL").is_bindable());
        for (text, error) in [
            ("localhost:2379", BadUrl::Scheme("localhost:2379".to_owned())),
            ("ftp://a:1", BadUrl::Scheme("ftp://a:1".to_owned())),
            ("http://a", BadUrl::Address("http://a".to_owned())),
            ("http://a:b", BadUrl::Address("http://a:b".to_owned())),
            ("http://::1:2", BadUrl::Address("http://::1:2".to_owned())),
            ("http://a:1/x", BadUrl::Path("http://a:1/x".to_owned())),
            ("unix://a", BadUrl::Unix("unix://a".to_owned())),
        ] {
            assert_eq!(Url::parse(text), Err(error));
        }
    }
}
