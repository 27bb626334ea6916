//! The host's interfaces and the XDP programs on them, asked of the kernel by rtnetlink(7).

pub(super) mod route;

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::error::DataplaneError;

// include/uapi/linux/{netlink,rtnetlink,if_link}.h of the kernel.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_EXT_MASK: u16 = 29;
const XDP_ATTACHED_NONE: u8 = 0;
const XDP_ATTACHED_SKB: u8 = 2;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Answer without statistics: they are most of a dump.
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

const HEADER: usize = 16;
const LINK_INFO: usize = 16;

/// Dumps come in pieces of at most this size (net/netlink/af_netlink.c, `netlink_dump`).
const ANSWER_MAX: usize = 32 << 10;

/// A network interface of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Name.
    pub(super) name: String,
    /// Index.
    pub(super) index: u32,
    /// The XDP program on it.
    pub(super) xdp: Option<AttachedXdp>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AttachedXdp {
    /// Id of the program; 0 if the kernel does not say.
    pub(super) program: u32,
    /// Whether the network stack runs it, rather than the driver.
    pub(super) generic: bool,
}

/// All interfaces of the calling thread's network namespace.
pub(super) fn list() -> Result<Vec<Interface>, DataplaneError> {
    dump().map_err(|source| DataplaneError::InterfaceQuery { source })
}

/// The interfaces of these names, in their order. Says which exist if one does not.
pub(super) fn resolve(names: &[String]) -> Result<Vec<Interface>, DataplaneError> {
    pick(names, &list()?)
}

fn pick(names: &[String], all: &[Interface]) -> Result<Vec<Interface>, DataplaneError> {
    let known = || all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        return Err(DataplaneError::NoInterface { known: known() });
    }
    let find = |name: &String| {
        all.iter().find(|one| one.name == *name).cloned().ok_or_else(|| {
            DataplaneError::InterfaceUnknown { interface: name.clone(), known: known() }
        })
    };
    names.iter().map(find).collect()
}

fn dump() -> io::Result<Vec<Interface>> {
    // Protocol 0 of AF_NETLINK is NETLINK_ROUTE.
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::send(&socket, &request(), SendFlags::empty())?;
    let mut interfaces = Vec::new();
    let mut answer = vec![0; ANSWER_MAX];
    loop {
        let (_, len) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
        let piece = answer.get(..len).unwrap_or_default();
        if read_answer(piece, &mut interfaces)? {
            return Ok(interfaces);
        }
    }
}

fn request() -> Vec<u8> {
    let len = HEADER + LINK_INFO + 8;
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend([0; 8 + LINK_INFO]);
    message.extend(8_u16.to_ne_bytes());
    message.extend(IFLA_EXT_MASK.to_ne_bytes());
    message.extend(RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    message
}

/// Reads one piece of a dump; `true` at its end.
fn read_answer(mut piece: &[u8], into: &mut Vec<Interface>) -> io::Result<bool> {
    while let Some(len) = u32_at(piece, 0) {
        let Some(message) = piece.get(..len as usize).filter(|message| message.len() >= HEADER)
        else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let body = message.get(HEADER..).unwrap_or_default();
        match u16_at(message, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => {
                let errno = u32_at(body, 0).unwrap_or(0) as i32;
                return Err(io::Error::from_raw_os_error(-errno));
            }
            Some(RTM_NEWLINK) => into.extend(read_link(body)),
            _ => {}
        }
        piece = piece.get(aligned(len as usize)..).unwrap_or_default();
    }
    Ok(false)
}

fn read_link(body: &[u8]) -> Option<Interface> {
    let index = u32_at(body, 4)?;
    let mut name = None;
    let mut xdp = None;
    for (kind, value) in Attributes(body.get(LINK_INFO..)?) {
        match kind {
            IFLA_IFNAME => {
                let text = value.split(|&byte| byte == 0).next()?;
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            IFLA_XDP => xdp = read_xdp(value),
            _ => {}
        }
    }
    Some(Interface { name: name?, index, xdp })
}

fn read_xdp(nested: &[u8]) -> Option<AttachedXdp> {
    let mut mode = XDP_ATTACHED_NONE;
    let mut program = 0;
    for (kind, value) in Attributes(nested) {
        match kind {
            IFLA_XDP_ATTACHED => mode = *value.first()?,
            IFLA_XDP_PROG_ID => program = u32_at(value, 0)?,
            _ => {}
        }
    }
    (mode != XDP_ATTACHED_NONE)
        .then_some(AttachedXdp { program, generic: mode == XDP_ATTACHED_SKB })
}

/// Type and value of each netlink attribute, until the first that is cut short.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & NLA_TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(aligned(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Netlink pads everything to four bytes.
fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = 4 + value.len();
        let mut bytes = Vec::new();
        bytes.extend((len as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(len), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn link(index: u32, name: &str, xdp: Option<(u8, u32)>) -> Vec<u8> {
        let mut body = vec![0; 4];
        body.extend(index.to_ne_bytes());
        body.extend([0; 8]);
        body.extend(attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat()));
        if let Some((mode, program)) = xdp {
            let nested = [
                attribute(IFLA_XDP_ATTACHED, &[mode]),
                attribute(IFLA_XDP_PROG_ID, &program.to_ne_bytes()),
            ];
            // NLA_F_NESTED, as newer kernels mark it.
            body.extend(attribute(IFLA_XDP | 0x8000, &nested.concat()));
        }
        message(RTM_NEWLINK, &body)
    }

    #[test]
    fn a_dump_tells_names_indexes_and_programs() {
        let piece = [
            link(1, "lo", Some((0, 0))),
            link(2, "eth0", Some((1, 77))),
            link(3, "eth0.100", Some((2, 78))),
            message(NLMSG_DONE, &[0; 4]),
        ]
        .concat();
        let mut found = Vec::new();
        assert!(read_answer(&piece, &mut found).unwrap());
        let xdp = |program, generic| Some(AttachedXdp { program, generic });
        assert_eq!(
            found,
            [
                Interface { name: "lo".into(), index: 1, xdp: None },
                Interface { name: "eth0".into(), index: 2, xdp: xdp(77, false) },
                Interface { name: "eth0.100".into(), index: 3, xdp: xdp(78, true) },
            ]
        );
    }

    #[test]
    fn a_refusal_is_an_error() {
        let refusal = message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
        let error = read_answer(&refusal, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn an_answer_cut_anywhere_neither_loops_nor_panics() {
        let piece = [link(2, "eth0", Some((1, 77))), message(NLMSG_DONE, &[])].concat();
        for len in 0..piece.len() {
            let mut found = Vec::new();
            let ended = read_answer(&piece[..len], &mut found);
            assert!(!matches!(ended, Ok(true)), "cut at {len}");
        }
    }

    #[test]
    fn an_unknown_interface_is_told_which_exist() {
        let all = [Interface { name: "lo".into(), index: 1, xdp: None }];
        assert_eq!(pick(&["lo".into()], &all).unwrap(), all);
        let error = pick(&["eth7".into()], &all).unwrap_err().to_string();
        assert!(error.contains("eth7") && error.contains("there are: lo"), "{error}");
        assert!(pick(&[], &all).unwrap_err().to_string().contains("of: lo"));
    }

    #[test]
    fn loopback_is_found_without_privileges() {
        assert!(list().unwrap().iter().any(|interface| interface.name == "lo"));
    }
}
