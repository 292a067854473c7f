//! Whether TCP can make something of an address.

use std::fmt;

/// What is wrong with an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressError {
    /// The address, or the one of several that is wrong.
    pub address: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no address: {}; write `host:port`", self.address, self.why)
    }
}

impl std::error::Error for AddressError {}

/// Checks where a member is to be dialled: `host:port`, or several of these separated by commas.
pub(crate) fn check(addresses: &str) -> Result<(), AddressError> {
    addresses.split(',').map(str::trim).try_for_each(|address| {
        if port_of(address)? == 0 {
            return Err(wrong(address, "port 0 is none that can be dialled"));
        }
        Ok(())
    })
}

/// Checks where this node is to listen, at one address or several; the system may choose the ports.
pub(crate) fn check_own(addresses: &str) -> Result<(), AddressError> {
    addresses.split(',').try_for_each(|address| port_of(address.trim()).map(drop))
}

fn port_of(address: &str) -> Result<u16, AddressError> {
    if address.is_empty() {
        return Err(wrong(address, "it is empty"));
    }
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(wrong(address, "it has no port"));
    };
    if host.is_empty() {
        return Err(wrong(address, "it has no host"));
    }
    if host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(wrong(address, "the host has a space or a slash in it"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(wrong(address, "IPv6 belongs into brackets"));
    }
    port.parse().map_err(|_| wrong(address, "its port is no number up to 65535"))
}

fn wrong(address: &str, why: &'static str) -> AddressError {
    AddressError { address: address.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let good = [
            "10.0.0.1:7400",
            "db-1.example.com:1",
            "[::1]:7400",
            "a:1,b:2",
            "a:1, b:2",
            "[fe80::1%2]:7",
        ];
        for address in good {
            assert_eq!(check(address), Ok(()), "{address}");
        }
        let bad = [
            ("", "it is empty"),
            ("host", "it has no port"),
            (":7400", "it has no host"),
            ("::1:7400", "IPv6 belongs into brackets"),
            ("http://host:7400", "the host has a space or a slash in it"),
            ("//host:7400", "the host has a space or a slash in it"),
            ("host:", "its port is no number up to 65535"),
            ("host:http", "its port is no number up to 65535"),
            ("host:65536", "its port is no number up to 65535"),
            ("host:0", "port 0 is none that can be dialled"),
            ("a:1,", "it is empty"),
            ("a:1,b", "it has no port"),
        ];
        for (address, why) in bad {
            assert_eq!(check(address).unwrap_err().why, why, "{address}");
        }
        assert_eq!(check_own("127.0.0.1:0"), Ok(()));
        assert_eq!(check_own("127.0.0.1:0, [::1]:7400"), Ok(()));
        assert!(check_own("127.0.0.1").is_err());
        assert!(check_own("127.0.0.1:1,").is_err());
    }
}
