//! Which addresses can be those of a VIP or a backend.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use toml::Spanned;

use super::mistake::Mistake;
use super::section::Section;

/// Why nobody can connect to an address, and what to do about it.
pub(super) struct Trouble {
    label: String,
    help: Option<String>,
}

impl From<&str> for Trouble {
    fn from(label: &str) -> Trouble {
        Trouble { label: label.to_owned(), help: None }
    }
}

impl Trouble {
    /// With what to do about it.
    pub(super) fn helped(label: &str, help: &str) -> Trouble {
        Trouble { label: label.to_owned(), help: Some(help.to_owned()) }
    }

    /// What is wrong with an address wherever it stands.
    pub(super) fn of(addr: SocketAddr) -> Option<Trouble> {
        if addr.port() == 0 {
            return Some("port 0 cannot be connected to".into());
        }
        match addr {
            SocketAddr::V4(addr) if addr.ip().is_broadcast() => {
                Some("a broadcast address is nobody's own".into())
            }
            SocketAddr::V6(addr) => of_ipv6(addr),
            SocketAddr::V4(_) => None,
        }
    }

    /// Notes it.
    pub(super) fn note(
        self,
        section: &Section<'_, '_>,
        key: &str,
        addr: &Spanned<impl std::fmt::Display>,
    ) {
        let title = format!("`{}` cannot be {}", section.name(key), addr.get_ref());
        let mistake = Mistake::at(addr.span(), title).label(self.label);
        section.mistake(match self.help {
            Some(help) => mistake.help(help),
            None => mistake,
        });
    }
}

fn of_ipv6(addr: SocketAddrV6) -> Option<Trouble> {
    if let Some(mapped) = addr.ip().to_ipv4_mapped() {
        let ipv4 = SocketAddr::new(IpAddr::V4(mapped), addr.port());
        let help = format!("write \"{ipv4}\"");
        return Some(Trouble {
            label: "an IPv4 address in an IPv6 one".to_owned(),
            help: Some(help),
        });
    }
    if addr.ip().is_unicast_link_local() || addr.scope_id() != 0 {
        let help = "use one that is the same on every link: a global one, or one of fd00::/8";
        return Some(Trouble {
            label: "means something on one link only".to_owned(),
            help: Some(help.to_owned()),
        });
    }
    None
}
