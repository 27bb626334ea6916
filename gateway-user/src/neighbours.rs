//! Keeps the link addresses of L4 backends known to the kernel.
//!
//! The XDP program takes a next hop from the kernel's neighbour table, and its look-up never asks
//! who is there: a backend that nothing on the host has talked to gets no packet at all
//! (`drop_no_neighbour`). Probes talk to backends, but not every pool has one. So each backend of
//! an L4 VIP is sent an empty datagram now and then, which makes the kernel resolve its next hop,
//! the backend itself or the router before it, by ARP or by neighbour discovery (RFC 4861), and keep the
//! answer fresh.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use gateway_core::fleet::Layer;
use gateway_core::snapshot::Snapshot;
use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval};

/// Between two datagrams to a backend: one that could not be resolved is asked for again within the
/// second after which a client sends its SYN anew (RFC 6298, section 2.1).
const INTERVAL: Duration = Duration::from_secs(1);

/// The discard service (RFC 863): whoever listens there throws it away, and else it is refused.
const DISCARD_PORT: u16 = 9;

/// Sends until `shutdown` is ready. Follows the snapshot.
///
/// # Errors
/// No socket is to be had.
pub async fn run(
    snapshot: Arc<ArcSwap<Snapshot>>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let sockets = Sockets::new().await?;
    let keep = async {
        let mut turns = interval(INTERVAL);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            for target in targets(&snapshot.load()) {
                if let Err(error) = sockets.send_to(target).await {
                    tracing::debug!(%target, %error, "no way to a backend");
                }
            }
        }
    };
    tokio::select! {
        () = keep => {}
        () = shutdown => {}
    }
    Ok(())
}

/// One for each family.
struct Sockets {
    ipv4: UdpSocket,
    /// A host may be without IPv6.
    ipv6: io::Result<UdpSocket>,
}

impl Sockets {
    async fn new() -> io::Result<Sockets> {
        let ipv4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        Ok(Sockets { ipv4, ipv6: UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await })
    }

    /// Sends an empty datagram.
    async fn send_to(&self, target: SocketAddr) -> io::Result<()> {
        let socket = match target {
            SocketAddr::V4(_) => &self.ipv4,
            SocketAddr::V6(_) => {
                self.ipv6.as_ref().map_err(|error| io::Error::from(error.kind()))?
            }
        };
        socket.send_to(&[], target).await.map(drop)
    }
}

/// Each host of a pool behind an L4 VIP, once.
fn targets(snapshot: &Snapshot) -> BTreeSet<SocketAddr> {
    let vips = snapshot.fleet.vips.iter().filter(|vip| vip.layer == Layer::L4);
    vips.filter_map(|vip| snapshot.fleet.pools.get(vip.pool))
        .flat_map(|pool| &pool.backends)
        .map(|backend| SocketAddr::new(backend.addr.ip(), DISCARD_PORT))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn either_family_is_sent_to() {
        let sockets = Sockets::new().await.unwrap();
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let backend = UdpSocket::bind(addr).await.unwrap();
            sockets.send_to(backend.local_addr().unwrap()).await.unwrap();
            assert_eq!(backend.recv(&mut [0; 8]).await.unwrap(), 0, "{addr}");
        }
    }
}
