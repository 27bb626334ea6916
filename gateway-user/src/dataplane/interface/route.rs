//! By which interface the kernel reaches an address.

use std::io;
use std::net::IpAddr;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{
    ANSWER_MAX, Attributes, HEADER, Interface, NLM_F_REQUEST, NLMSG_ERROR, list, u16_at, u32_at,
};
use crate::dataplane::error::DataplaneError;

// include/uapi/linux/rtnetlink.h of the kernel.
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;

/// Bytes of `struct rtmsg`.
const ROUTE_INFO: usize = 12;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The interface that packets to `addr` leave by; `None`: there is no route.
pub(in crate::dataplane) fn towards(addr: IpAddr) -> Result<Option<Interface>, DataplaneError> {
    let failed = |source| DataplaneError::RouteQuery { addr, source };
    let Some(index) = ask(addr).map_err(failed)? else { return Ok(None) };
    Ok(list()?.into_iter().find(|interface| interface.index == index))
}

fn ask(addr: IpAddr) -> io::Result<Option<u32>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&socket, &request(addr), SendFlags::empty())?;
    let mut answer = vec![0; ANSWER_MAX];
    let (_, len) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    match read_answer(answer.get(..len).unwrap_or_default()) {
        // No route is an answer too.
        Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(None),
        answer => answer,
    }
}

fn request(addr: IpAddr) -> Vec<u8> {
    let (family, octets) = match addr {
        IpAddr::V4(addr) => (AF_INET, addr.octets().to_vec()),
        IpAddr::V6(addr) => (AF_INET6, addr.octets().to_vec()),
    };
    let attribute = 4 + octets.len();
    let len = HEADER + ROUTE_INFO + attribute;
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(RTM_GETROUTE.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // All of its bits count.
    message.extend([family, 8 * octets.len() as u8]);
    message.extend([0; ROUTE_INFO - 2]);
    message.extend((attribute as u16).to_ne_bytes());
    message.extend(RTA_DST.to_ne_bytes());
    message.extend(octets);
    message
}

fn read_answer(message: &[u8]) -> io::Result<Option<u32>> {
    let body = message.get(HEADER..).unwrap_or_default();
    match u16_at(message, 4) {
        Some(NLMSG_ERROR) => {
            Err(io::Error::from_raw_os_error(-(u32_at(body, 0).unwrap_or(0) as i32)))
        }
        Some(RTM_NEWROUTE) => {
            let mut attributes = Attributes(body.get(ROUTE_INFO..).unwrap_or_default());
            let found = attributes.find(|(kind, _)| *kind == RTA_OIF);
            Ok(found.and_then(|(_, value)| u32_at(value, 0)))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_reached_by_itself_without_privileges() {
        for addr in ["127.0.0.1", "::1"] {
            let found = towards(addr.parse().unwrap()).unwrap().unwrap();
            assert_eq!(found.name, "lo", "{addr}");
        }
    }

    #[test]
    fn an_answer_cut_anywhere_does_not_panic() {
        let mut answer = vec![0; HEADER + ROUTE_INFO];
        answer[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
        answer.extend([8, 0, RTA_OIF as u8, 0, 7, 0, 0, 0]);
        assert_eq!(read_answer(&answer).unwrap(), Some(7));
        for len in 0..answer.len() {
            assert!(!matches!(read_answer(&answer[..len]), Ok(Some(_))), "cut at {len}");
        }
    }
}
