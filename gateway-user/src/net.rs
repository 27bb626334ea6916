//! What the shells that deal in addresses and connections share.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// A prefix as a person writes it, or an address alone, which is one of all its bits; else what is
/// wrong with it.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(addr.into());
    }
    let net: IpNet = text.parse().map_err(|_| {
        format!(
            "{text:?} is no prefix or address, such as \"192.0.2.0/24\", \"192.0.2.7\" or \
             \"2001:db8::/32\""
        )
    })?;
    let network = net.trunc();
    if network != net {
        let len = net.prefix_len();
        return Err(format!("{net} has bits set beyond its {len}; write \"{network}\""));
    }
    Ok(net)
}

/// An address as packets and maps hold it.
pub(crate) fn socket(addr: impl Into<IpAddr>, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(addr.into(), u16::from_be_bytes(port))
}

/// Whether the gateway itself is out of something that a connection needs (files, ports, memory),
/// which says nothing of the peer.
pub(crate) fn is_own_lack(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_an_address_or_a_network_and_nothing_else() {
        let net = |text: &str| prefix(text).unwrap().to_string();
        assert_eq!(net("192.0.2.7"), "192.0.2.7/32");
        assert_eq!(net("192.0.2.0/24"), "192.0.2.0/24");
        assert_eq!(net("0.0.0.0/0"), "0.0.0.0/0");
        assert_eq!(net("2001:db8::7"), "2001:db8::7/128");
        assert_eq!(net("2001:db8::/32"), "2001:db8::/32");
        let error = prefix("192.0.2.7/24").unwrap_err();
        assert!(error.ends_with("write \"192.0.2.0/24\""), "{error}");
        for wrong in ["", "192.0.2", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/", "a"] {
            assert!(prefix(wrong).unwrap_err().contains("is no prefix"), "{wrong}");
        }
    }
}
