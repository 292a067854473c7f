//! What a server must know about the URLs that it is given.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use quorate_etcd::{Scheme, Url};

/// The host without the brackets of IPv6.
fn bare_host(url: &Url) -> &str {
    let host = url.host();
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The address that the host is, if it is no name.
fn address(url: &Url) -> Option<IpAddr> {
    bare_host(url).parse().ok()
}

/// Whether only this machine reaches it.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match address(url) {
        Some(address) => address.is_loopback(),
        None => url.host() == "localhost" || matches!(url.scheme(), Scheme::Unix | Scheme::Unixs),
    }
}

/// Whether it means every address of this machine.
pub(crate) fn is_unspecified(url: &Url) -> bool {
    url.host().is_empty() || address(url).is_some_and(|address| address.is_unspecified())
}

/// Whether one can listen there: an address, or this machine.
pub(crate) fn is_bindable(url: &Url) -> bool {
    url.host().is_empty() || url.host() == "localhost" || address(url).is_some()
}

/// The addresses behind it, sorted. None if its name is unknown.
pub(crate) fn resolve(url: &Url) -> Vec<SocketAddr> {
    let target = (bare_host(url), url.port().unwrap_or(0));
    let mut addresses: Vec<SocketAddr> =
        target.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    addresses.sort();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        let url = |text: &str| text.parse::<Url>().expect("a URL");
        assert!(is_loopback(&url("http://[::1]:2380")));
        assert!(is_loopback(&url("http://localhost:2380")));
        assert!(!is_loopback(&url("http://10.0.0.1:2380")));
        assert!(is_unspecified(&url("http://0.0.0.0:1")));
        assert!(is_unspecified(&url("http://[::]:1")));
        assert!(is_bindable(&url("http://[::]:1")));
        assert!(!is_bindable(&url("http://example.com:1")));
        assert_eq!(resolve(&url("http://127.0.0.1:7")), ["127.0.0.1:7".parse().expect("one")]);
    }
}
