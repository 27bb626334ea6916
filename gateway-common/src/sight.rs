//! What the packet path reads of HTTP/1: where a request and its response begin, and the status.
//!
//! So L4 traffic in plain text is seen as a proxy would see it: each request of a connection is
//! timed from its head to the response's, and a backend that fails fast shows. Of anything else,
//! TLS among it, the gap between the client's first bytes and the backend's first is what remains.
//!
//! A head is recognised by the first bytes of a segment alone, since servers and clients begin one
//! there: nothing is put together, nothing kept. What is missed by that (a head behind the rest of
//! another message, one cut within its first twelve bytes, a request sent before the response to
//! the one before it) is not timed, and not guessed.
//!
//! The state is one word of the flow, [`Flow::requested_at`](crate::layout::Flow::requested_at):
//! odd, the time since which a response is waited for; even, what the client had sent when the last
//! one came, so that a request that is sent again starts nothing.

use crate::clock;
use crate::packet::{Bytes, Frame, Packet, Segment, TCP_LEN_MIN};

/// Bytes of a status line up to the end of its code: `HTTP/1.1 200`.
const STATUS_LEN: usize = 12;

/// Bytes of a request that are compared with the methods.
const METHOD_LEN: usize = 4;

/// The shortest head of a request: `GET / HTTP/1.0` and an empty line. A request that is sent again
/// begins at least this much before what is acknowledged.
const REQUEST_LEN_MIN: u16 = 18;

/// How the methods of RFC 9110 and RFC 5789 begin. `CONNECT` is for proxies.
const METHODS: [[u8; METHOD_LEN]; 8] =
    [*b"GET ", *b"POST", *b"PUT ", *b"HEAD", *b"DELE", *b"OPTI", *b"PATC", *b"TRAC"];

/// What the first bytes of a backend's segment say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The head of a response, with its status: 101, or 200 to 999.
    Head(u16),
    /// An interim response (RFC 9110, section 15.2): the other one is still to come.
    Interim,
    /// Anything else.
    Other,
}

/// The mark of a flow whose client waits since now, in steps of 2 us; odd.
#[inline(always)]
pub const fn waiting(now_ns: u64) -> u32 {
    clock::fine(now_ns) | 1
}

/// Whether a response is waited for.
#[inline(always)]
pub const fn is_waiting(mark: u32) -> bool {
    mark & 1 != 0
}

/// Nanoseconds that a client has waited, in steps of 2 us.
#[inline(always)]
pub const fn waited(mark: u32, now_ns: u64) -> u64 {
    clock::since_steps(mark, waiting(now_ns))
}

/// The mark of a flow whose backend answered all that it acknowledged; even.
#[inline(always)]
pub const fn answered(acknowledged: u32) -> u32 {
    acknowledged & !1
}

/// Whether a client's segment begins a request after the one that `mark` says was answered.
#[inline(always)]
pub fn begins_request<F: Frame>(frame: &F, packet: &Packet, segment: &Segment, mark: u32) -> bool {
    if segment.payload_len < REQUEST_LEN_MIN {
        return false;
    }
    let Some((tcp, at)) = payload(frame, packet) else { return false };
    let sequence = u32::from_be_bytes(tcp.four::<4>());
    if (sequence.wrapping_sub(mark) as i32) < 0 {
        return false;
    }
    frame.bytes::<METHOD_LEN>(at).is_some_and(|head| is_method(head.four::<0>()))
}

/// What a backend's segment begins with, and up to where it acknowledges the client.
#[inline(always)]
pub fn answer<F: Frame>(frame: &F, packet: &Packet, segment: &Segment) -> (Answer, u32) {
    let Some((tcp, at)) = payload(frame, packet) else { return (Answer::Other, 0) };
    let acknowledged = u32::from_be_bytes(tcp.four::<8>());
    if (segment.payload_len as usize) < STATUS_LEN {
        return (Answer::Other, acknowledged);
    }
    let answer = match frame.bytes::<STATUS_LEN>(at) {
        Some(head) => status(head.four::<0>(), head.four::<4>(), head.four::<8>()),
        None => Answer::Other,
    };
    (answer, acknowledged)
}

/// The TCP header, and where its payload begins.
#[inline(always)]
fn payload<F: Frame>(frame: &F, packet: &Packet) -> Option<(F::Bytes<TCP_LEN_MIN>, usize)> {
    let tcp = frame.bytes::<TCP_LEN_MIN>(packet.transport_offset())?;
    let [data_offset, _] = tcp.two::<12>();
    Some((tcp, packet.transport_offset() + (data_offset >> 4) as usize * 4))
}

#[inline(always)]
fn is_method(start: [u8; METHOD_LEN]) -> bool {
    let start = u32::from_ne_bytes(start);
    let mut found = false;
    let mut i = 0;
    while i < METHODS.len() {
        found |= start == u32::from_ne_bytes(METHODS[i]);
        i += 1;
    }
    found
}

/// Reads `HTTP/1.x NNN`.
#[inline(always)]
fn status(name: [u8; 4], version: [u8; 4], code: [u8; 4]) -> Answer {
    let [slash, one, dot, minor] = version;
    let [space, hundreds, tens, ones] = code;
    let digit = |byte: u8| byte.wrapping_sub(b'0') as u16;
    let (hundreds, tens, ones) = (digit(hundreds), digit(tens), digit(ones));
    if u32::from_ne_bytes(name) != u32::from_ne_bytes(*b"HTTP")
        || [slash, one, dot] != *b"/1."
        || !minor.is_ascii_digit()
        || space != b' '
        || hundreds.wrapping_sub(1) > 8
        || tens > 9
        || ones > 9
    {
        return Answer::Other;
    }
    match hundreds * 100 + tens * 10 + ones {
        101 => Answer::Head(101),
        code if code < 200 => Answer::Interim,
        code => Answer::Head(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[u8; 12]) -> Answer {
        let four = |at: usize| [line[at], line[at + 1], line[at + 2], line[at + 3]];
        status(four(0), four(4), four(8))
    }

    #[test]
    fn a_status_line_tells_its_code() {
        for code in 200..=999 {
            let line = format!("HTTP/1.1 {code}");
            let line: &[u8; 12] = line.as_bytes().try_into().unwrap();
            assert_eq!(read(line), Answer::Head(code));
        }
        assert_eq!(read(b"HTTP/1.0 503"), Answer::Head(503));
        assert_eq!(read(b"HTTP/1.1 101"), Answer::Head(101));
    }

    #[test]
    fn an_interim_response_is_none_yet() {
        for code in [b"HTTP/1.1 100", b"HTTP/1.1 102", b"HTTP/1.1 103"] {
            assert_eq!(read(code), Answer::Interim);
        }
    }

    #[test]
    fn what_differs_from_a_status_line_in_any_byte_is_none() {
        let line = b"HTTP/1.1 200";
        for at in 0..line.len() {
            for byte in 0..=u8::MAX {
                let mut other = *line;
                other[at] = byte;
                let digit = byte.is_ascii_digit();
                let is_status = match at {
                    7 | 10 | 11 => digit,
                    9 => digit && byte != b'0',
                    _ => byte == line[at],
                };
                assert_eq!(read(&other) != Answer::Other, is_status, "{at} {byte}");
            }
        }
    }

    #[test]
    fn a_wait_is_told_from_an_answer_and_never_runs_backwards() {
        for at in [0, 1 << 10, 5_000_000, (1 << 42) - 1, 1 << 42] {
            let mark = waiting(at);
            assert!(is_waiting(mark));
            assert_eq!(waited(mark, at), 0);
            assert!(waited(mark, at + 3_000_000).abs_diff(3_000_000) <= 4 << 10, "{at}");
        }
        for acknowledged in [0, 1, 2, u32::MAX] {
            assert!(!is_waiting(answered(acknowledged)));
        }
    }
}
