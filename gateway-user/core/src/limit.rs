//! What each source may send to a VIP: token buckets, as an operator says them and as the packet path
//! has them.

use std::net::IpAddr;

use gateway_common::guard::{AHEAD_MAX, ticks};
use gateway_common::layout::{Limits, Rate};
use serde::{Deserialize, Serialize};

/// What each source may send to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitSpec {
    /// Connections, and flows of datagrams, that it begins; `None`: any number.
    pub new: Option<RateSpec>,
    /// Packets; `None`: any number.
    pub packets: Option<RateSpec>,
    /// Bits of an address that make a source; `None`: as many as its VIP's family takes by default.
    pub source_prefix: Option<u8>,
}

/// So many a second, and so many at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateSpec {
    /// A second.
    pub per_second: f64,
    /// At once.
    pub burst: u32,
}

/// The most a second: beyond, the steps of the packet path's clock are too coarse.
pub const PER_SECOND_MAX: f64 = 1_000_000.0;

/// The fewest a second: one in a quarter of an hour.
pub const PER_SECOND_MIN: f64 = 0.001;

/// The most at once.
pub const BURST_MAX: u32 = 1_000_000;

/// The longest that a bucket may take to fill, s.
const FILL_MAX: f64 = 86_400.0;

/// Bits of an address that make a source unless somebody says otherwise: of IPv6 those of a network,
/// since whoever has one has 2^64 addresses.
const SOURCE_PREFIX: u8 = 32;
const SOURCE_PREFIX6: u8 = 64;

/// Nanoseconds of a step of the packet path's times.
const STEP_NS: u64 = 256;

/// What cannot be a limit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LimitError {
    /// Too slow or too fast.
    #[error("{0} a second is not from {PER_SECOND_MIN} to {PER_SECOND_MAX}")]
    PerSecond(f64),
    /// Nothing would ever pass, or everything.
    #[error("a burst of {0} is not from 1 to {BURST_MAX}")]
    Burst(u32),
    /// Who used it up would have to wait for more than a day.
    #[error("a burst of {burst} takes more than a day to come back at {per_second} a second")]
    Fill {
        /// At once.
        burst: u32,
        /// A second.
        per_second: f64,
    },
    /// Not a prefix of an address of its VIP's family.
    #[error("a source prefix of {bits} bits is not from 1 to {max}")]
    SourcePrefix {
        /// Asked for.
        bits: u32,
        /// Bits of an address.
        max: u8,
    },
    /// It says nothing.
    #[error("it limits nothing: say what a source may begin, or send, a second")]
    Nothing,
    /// There is no such VIP.
    #[error("there is no VIP {0:?}; `/v1/state` lists them")]
    NoSuchVip(String),
    /// Nobody would look at it.
    #[error("VIP {0:?} is not guarded: say `guard = true` in its `[[vip]]`, and reload")]
    NotGuarded(String),
}

/// A change of a VIP's limit at run time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitOrder {
    /// This, whatever the configuration says.
    Set(LimitSpec),
    /// None, whatever the configuration says.
    Off,
}

/// The limit of a VIP as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct VipLimit {
    /// Name of the VIP.
    pub vip: String,
    /// Its address.
    pub addr: IpAddr,
    /// What is in force.
    pub limit: Option<LimitSpec>,
    /// Whether that was said at run time, rather than by the configuration.
    pub ordered: bool,
}

impl RateSpec {
    /// A rate, if it can be one. Without a burst, it is what comes in a second, and one at least.
    ///
    /// # Errors
    /// It is too slow, too fast, or takes too long to fill.
    pub fn new(per_second: f64, burst: Option<u32>) -> Result<RateSpec, LimitError> {
        if !(PER_SECOND_MIN..=PER_SECOND_MAX).contains(&per_second) {
            return Err(LimitError::PerSecond(per_second));
        }
        let burst = burst.unwrap_or((per_second.ceil() as u32).max(1));
        if !(1..=BURST_MAX).contains(&burst) {
            return Err(LimitError::Burst(burst));
        }
        if f64::from(burst) / per_second > FILL_MAX {
            return Err(LimitError::Fill { burst, per_second });
        }
        Ok(RateSpec { per_second, burst })
    }

    fn row(self) -> Rate {
        // Rounded, so that a fast one is not off by a whole step.
        let interval = ticks((1e9 / self.per_second) as u64 + STEP_NS / 2).max(1);
        Rate { interval, ahead_max: interval.saturating_mul(u64::from(self.burst) - 1) }
    }
}

impl LimitSpec {
    /// A limit, if it can be one.
    ///
    /// # Errors
    /// It limits nothing, or nobody.
    pub fn new(
        new: Option<RateSpec>,
        packets: Option<RateSpec>,
        source_prefix: Option<u32>,
    ) -> Result<LimitSpec, LimitError> {
        if new.is_none() && packets.is_none() {
            return Err(LimitError::Nothing);
        }
        let prefix = |bits: u32| match u8::try_from(bits) {
            Ok(bits @ 1..=SOURCE_PREFIX6_MAX) => Ok(bits),
            _ => Err(LimitError::SourcePrefix { bits, max: SOURCE_PREFIX6_MAX }),
        };
        Ok(LimitSpec { new, packets, source_prefix: source_prefix.map(prefix).transpose()? })
    }

    /// Whether it may be that of a VIP with this address.
    ///
    /// # Errors
    /// The address has fewer bits than a source.
    pub fn check(&self, vip: IpAddr) -> Result<(), LimitError> {
        match self.source_prefix {
            Some(bits) if bits > addr_bits(vip) => {
                Err(LimitError::SourcePrefix { bits: bits.into(), max: addr_bits(vip) })
            }
            _ => Ok(()),
        }
    }

    /// Bits of an address that make a source at a VIP with this address.
    pub fn prefix(&self, vip: IpAddr) -> u8 {
        let usual = if vip.is_ipv6() { SOURCE_PREFIX6 } else { SOURCE_PREFIX };
        self.source_prefix.unwrap_or(usual).clamp(1, addr_bits(vip))
    }

    /// Its row in `LIMITS`, as that of a VIP with this address.
    pub(crate) fn row(&self, vip: IpAddr) -> Limits {
        let none = Rate { interval: 0, ahead_max: 0 };
        let row = |rate: Option<RateSpec>| rate.map_or(none, RateSpec::row);
        let mask = u128::MAX << (u128::BITS - u32::from(self.prefix(vip)));
        Limits { packets: row(self.packets), flows: row(self.new), source_mask: mask.to_be_bytes() }
    }
}

/// Bits of an IPv6 address.
const SOURCE_PREFIX6_MAX: u8 = 128;

/// Bits of an address.
fn addr_bits(addr: IpAddr) -> u8 {
    if addr.is_ipv6() { SOURCE_PREFIX6_MAX } else { 32 }
}

const _: () = assert!(ticks(STEP_NS) == 1 && ticks((FILL_MAX * 1e9) as u64) < AHEAD_MAX);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    #[test]
    fn a_rate_is_a_span_between_tokens_and_a_bucket_of_them() {
        let rate = RateSpec::new(100.0, Some(5)).unwrap().row();
        assert_eq!(rate.interval, 39_063, "of 256 ns");
        assert_eq!(rate.ahead_max, 4 * rate.interval);
        assert_eq!(RateSpec::new(2.5, None).unwrap().burst, 3);
        assert_eq!(RateSpec::new(0.1, None).unwrap().burst, 1);
        // The steps of time are so fine that no rate is off by more than a fortieth.
        for per_second in [0.001, 7.0, 1_000.0, 333_333.0, PER_SECOND_MAX] {
            let interval = RateSpec::new(per_second, Some(1)).unwrap().row().interval as f64;
            let off = interval * 256.0 * per_second / 1e9;
            assert!((0.97..1.03).contains(&off), "{per_second}: {off}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        use LimitError::{Burst, Fill, Nothing, PerSecond, SourcePrefix};
        assert_eq!(RateSpec::new(0.0, None), Err(PerSecond(0.0)));
        assert!(matches!(RateSpec::new(f64::NAN, None), Err(PerSecond(_))));
        assert_eq!(RateSpec::new(2e6, None), Err(PerSecond(2e6)));
        assert_eq!(RateSpec::new(1.0, Some(0)), Err(Burst(0)));
        let slow = RateSpec::new(0.001, Some(100));
        assert_eq!(slow, Err(Fill { burst: 100, per_second: 0.001 }));
        let rate = RateSpec::new(1.0, None).ok();
        assert_eq!(LimitSpec::new(None, None, None), Err(Nothing));
        for bits in [0, 129, 300] {
            let error = SourcePrefix { bits, max: 128 };
            assert_eq!(LimitSpec::new(rate, None, Some(bits)), Err(error));
        }
        let long = LimitSpec::new(rate, None, Some(33)).unwrap();
        assert_eq!(long.check(VIP), Err(SourcePrefix { bits: 33, max: 32 }));
        assert_eq!(long.check(VIP6), Ok(()));
    }

    #[test]
    fn a_source_is_as_many_bits_as_it_says() {
        let mask = |prefix, vip| {
            let rate = RateSpec::new(1.0, None).ok();
            LimitSpec::new(rate, None, prefix).unwrap().row(vip).source_mask
        };
        let first = |mask: [u8; 16]| mask[..4].to_vec();
        assert_eq!(first(mask(None, VIP)), [255; 4]);
        assert_eq!(first(mask(Some(32), VIP)), [255; 4]);
        assert_eq!(first(mask(Some(20), VIP)), [255, 255, 240, 0]);
        assert_eq!(first(mask(Some(1), VIP)), [128, 0, 0, 0]);
        assert_eq!(mask(Some(128), VIP6), [255; 16]);
        let network = u128::from(u64::MAX) << 64;
        assert_eq!(mask(None, VIP6), network.to_be_bytes());
        assert_eq!(mask(Some(48), VIP6), (network << 16).to_be_bytes());
    }
}
