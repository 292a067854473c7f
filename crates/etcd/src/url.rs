//! URLs of members.

use std::fmt;
use std::str::FromStr;

/// A URL of a member: a scheme, and a host with its port or the path of a socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    scheme: Scheme,
    /// `host:port`, or the path of a socket.
    address: String,
}

/// How a member is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A socket in the file system.
    Unix,
    /// TLS over such a socket.
    Unixs,
}

/// Why a text is no URL of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// Another scheme than `http`, `https`, `unix` or `unixs`, or none.
    Scheme {
        /// The text.
        url: String,
    },
    /// Host and port are not both there.
    Address {
        /// The text.
        url: String,
    },
    /// Something follows host and port.
    Path {
        /// The text.
        url: String,
    },
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme { url } => {
                write!(f, "URL scheme must be http, https, unix, or unixs: {url}")
            }
            Self::Address { url } => {
                write!(f, "URL address does not have the form \"host:port\": {url}")
            }
            Self::Path { url } => write!(f, "URL must not contain a path: {url}"),
        }
    }
}

impl std::error::Error for UrlError {}

impl Url {
    /// A host and port by plain TCP.
    #[must_use]
    pub fn http(host: &str, port: u16) -> Self {
        Self { scheme: Scheme::Http, address: format!("{host}:{port}") }
    }

    /// How it is reached.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port`, or the path of a socket.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The host; empty for a socket.
    #[must_use]
    pub fn host(&self) -> &str {
        match self.scheme {
            Scheme::Http | Scheme::Https => {
                self.address.rsplit_once(':').map_or("", |(host, _)| host)
            }
            Scheme::Unix | Scheme::Unixs => "",
        }
    }

    /// The port; `None` for a socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self.scheme {
            Scheme::Http | Scheme::Https => {
                self.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
            }
            Scheme::Unix | Scheme::Unixs => None,
        }
    }

    /// The same with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        match self.scheme {
            Scheme::Http | Scheme::Https => {
                Self { scheme: self.scheme, address: format!("{}:{port}", self.host()) }
            }
            Scheme::Unix | Scheme::Unixs => self.clone(),
        }
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let url = || text.to_owned();
        let (scheme, rest) =
            text.trim().split_once("://").ok_or_else(|| UrlError::Scheme { url: url() })?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(UrlError::Scheme { url: url() }),
        };
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            if rest.is_empty() {
                return Err(UrlError::Address { url: url() });
            }
            return Ok(Self { scheme, address: rest.to_owned() });
        }
        if rest.contains(['/', '?', '#']) {
            return Err(UrlError::Path { url: url() });
        }
        match rest.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() && !host.contains('@') => {
                Ok(Self { scheme, address: rest.to_owned() })
            }
            _ => Err(UrlError::Address { url: url() }),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Unix => "unix",
            Scheme::Unixs => "unixs",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_host_and_port() {
        let url: Url = "http://[::1]:2379".parse().unwrap();
        assert_eq!((url.host(), url.port()), ("[::1]", Some(2379)));
        assert_eq!(url.with_port(1).to_string(), "http://[::1]:1");
        assert_eq!("unix://a:1".parse::<Url>().unwrap().address(), "a:1");
        for bad in ["localhost:1", "ftp://a:1", "http://a", "http://a:1/x", "http://a:b", "unix://"]
        {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
