//! Small fleets for tests.

use std::net::{Ipv4Addr, SocketAddr};

use crate::fleet::{
    Admission, Algorithm, BackendSpec, CanarySpec, ChallengeSpec, Fleet, HttpSpec, Layer, Mode,
    PolicySpec, PoolSpec, Protocol, VipSpec, WeightMode,
};
use crate::ladder::Stages;

/// A fleet of pools with these names and numbers of backends, each with a VIP.
pub(crate) fn fleet(pools: &[(&str, u32)]) -> Fleet {
    Fleet {
        vips: pools
            .iter()
            .enumerate()
            .map(|(index, (name, _))| vip(name, 80 + index as u16, index))
            .collect(),
        pools: pools.iter().map(|(name, backends)| pool(name, *backends)).collect(),
        client_classes: Vec::new(),
    }
}

pub(crate) fn vip(name: &str, port: u16, pool: usize) -> VipSpec {
    VipSpec {
        name: name.to_owned(),
        addr: SocketAddr::new(Ipv4Addr::new(10, 0, 0, 100).into(), port).into(),
        protocol: Protocol::Tcp,
        layer: Layer::L4,
        pool,
        guard: false,
        limit: None,
        challenge: ChallengeSpec::default(),
    }
}

/// Pools of different names have different backends.
pub(crate) fn pool(name: &str, backends: u32) -> PoolSpec {
    let first = name.bytes().fold(0, |sum, byte| 31 * sum + u32::from(byte)) % 1000 * 1000;
    PoolSpec {
        name: name.to_owned(),
        algorithm: Algorithm::P2c,
        weights: WeightMode::Learned,
        mode: Mode::Nat,
        retry_refused: true,
        reset_lost: false,
        backends: (0..backends).map(|number| backend(first + number)).collect(),
        probe: None,
        policy: PolicySpec::default(),
        http: HttpSpec::default(),
        admission: None,
        autoscale: None,
        recovery: None,
        models: Stages::default(),
        canary: CanarySpec::default(),
    }
}

pub(crate) fn backend(number: u32) -> BackendSpec {
    BackendSpec {
        name: format!("b{number}"),
        addr: SocketAddr::new(Ipv4Addr::from(0x0a10_0000 + number).into(), 8080),
        nat_addr: Ipv4Addr::new(10, 255, 0, 1).into(),
        capacity: 1.0,
        admission: Admission::Accepting,
    }
}
