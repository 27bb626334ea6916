//! A flood of SYNs for connections that nobody wants, from addresses that nobody has.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SendFlags, SocketType};

use crate::packet::{Tcp, flag};
use crate::testbed::Testbed;

/// The network that it says to come from.
const MADE_UP: [u8; 2] = [10, 14];
/// SYNs that are sent at once.
const VOLLEY: usize = 100;
/// Between two volleys: ten thousand SYNs a second.
const PAUSE: Duration = Duration::from_millis(10);

/// Lets answers to the flood go to the client's host, where they are lost.
///
/// # Errors
/// There can be no such route.
pub fn route(testbed: &Testbed) -> Result<()> {
    let [a, b] = MADE_UP;
    testbed.gateway().ip(&format!("route add {a}.{b}.0.0/16 via 10.10.0.2"))
}

/// Sends so many SYNs to a VIP, each from an address and port of its own, from inside the client's
/// namespace.
///
/// # Errors
/// The VIP is not of IPv4, or there is no socket for that.
pub fn send(testbed: &Testbed, vip: SocketAddr, count: u32) -> Result<()> {
    let SocketAddr::V4(vip) = vip else { bail!("{vip} is no VIP of IPv4") };
    let send = || -> Result<()> {
        let raw = Some(rustix::net::ipproto::RAW);
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, raw)
            .context("opening a raw socket")?;
        let numbers: Vec<u32> = (0..count).collect();
        for volley in numbers.chunks(VOLLEY) {
            for &number in volley {
                // What a full queue of the card does not take is not sent.
                let _ = rustix::net::sendto(&socket, &syn(vip, number)?, SendFlags::DONTWAIT, &vip);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    };
    testbed.client().run(send)?
}

/// Without the link header, which the kernel makes.
fn syn(vip: SocketAddrV4, number: u32) -> Result<Vec<u8>> {
    let [_, port, high, low] = number.to_be_bytes();
    let [a, b] = MADE_UP;
    let source = SocketAddrV4::new([a, b, high, low].into(), 1_024 + u16::from(port));
    Ok(Tcp::new(source, vip, flag::SYN).frame()?.split_off(14))
}
