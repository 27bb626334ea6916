//! What can be wrong with a backend of the lab, switched while it runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Largest share of segments that [`Fault::Loss`] loses: beyond it TCP gets nothing across.
pub const LOSS_MAX: f64 = 0.9;

/// Over which [`Fault::Throttle`] holds its share: the default of `cpu.max`.
pub const THROTTLE_PERIOD: Duration = Duration::from_millis(100);

/// What [`Fault::Leak`] takes at most, a server.
pub const LEAK_BYTES_MAX: usize = 32 << 20;

/// How many times as long a request takes when [`Fault::Leak`] has taken all.
pub const LEAK_SLOWS: f64 = 6.0;

/// A fault of one server of `lab-backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// Nothing is wrong.
    #[default]
    None,
    /// Every request takes `factor` times as long.
    Slow {
        /// Greater than 0.
        factor: f64,
    },
    /// Every answer comes later, while no worker is busy with it: as when something that it asks
    /// itself is slow.
    Delay {
        /// By how much, in ms: the median.
        ms: f64,
        /// Deviation of its logarithm; 0: always the same.
        #[serde(default)]
        sigma: f64,
    },
    /// It answers its health check, and this share of everything else with 503: a grey failure.
    Grey {
        /// From 0 to 1.
        share: f64,
    },
    /// It answers its health check, and resets the connection of this share of everything else.
    Sever {
        /// From 0 to 1.
        share: f64,
    },
    /// This share of the TCP segments that reach its sockets is lost, SYNs and acknowledgements
    /// among them; TCP sends them again. A filter on the sockets drops them, since many kernels
    /// have no `netem`. What it sends itself arrives.
    Loss {
        /// From 0 to [`LOSS_MAX`].
        share: f64,
    },
    /// A limit of its CPU time that bites: of every [`THROTTLE_PERIOD`] the process, whatever its
    /// ports, runs for this share and then stands still, as a cgroup's `cpu.max` makes it. Done by
    /// the process itself: its service times are waits, which use up no quota.
    Throttle {
        /// From 0 to 1, exclusively.
        share: f64,
    },
    /// Every request leaves memory behind, up to [`LEAK_BYTES_MAX`] in all, and the fuller that is,
    /// the slower it serves: up to [`LEAK_SLOWS`] times as slow. Another fault, or none, frees it,
    /// as a restart does.
    Leak {
        /// What a request leaves, KiB.
        kib: u32,
    },
    /// It stopped listening: connections are refused, open ones end after their request.
    Refuse,
    /// Accepts, reads, never answers.
    Hang,
    /// Resets every connection.
    Reset,
    /// Answers with bytes that are not HTTP.
    Garbage,
}

impl Fault {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// A factor that is not positive, a share outside its range, a delay below zero.
    pub fn check(self) -> Result<Fault, String> {
        match self {
            Fault::Slow { factor } if !(factor > 0.0 && factor.is_finite()) => {
                Err(format!("factor {factor}: must be positive, such as 5.0"))
            }
            Fault::Delay { ms, sigma }
                if !(ms >= 0.0 && ms.is_finite() && sigma >= 0.0 && sigma.is_finite()) =>
            {
                Err(format!("delay of {ms} ms, deviation {sigma}: neither may be below 0"))
            }
            Fault::Grey { share } | Fault::Sever { share } if !(0.0..=1.0).contains(&share) => {
                Err(format!("share {share}: must be from 0 to 1"))
            }
            Fault::Loss { share } if !(0.0..=LOSS_MAX).contains(&share) => {
                Err(format!("share {share}: must be from 0 to {LOSS_MAX}"))
            }
            Fault::Throttle { share } if !(share > 0.0 && share < 1.0) => {
                Err(format!("share {share}: must be over 0 and under 1"))
            }
            Fault::Leak { kib } if kib == 0 || kib as usize > LEAK_BYTES_MAX >> 10 => {
                Err(format!("{kib} KiB: must be from 1 to {}", LEAK_BYTES_MAX >> 10))
            }
            fault => Ok(fault),
        }
    }

    /// Its name, as in an [`Order`]; empty: nothing is wrong.
    pub fn name(self) -> &'static str {
        match self {
            Fault::None => "",
            Fault::Slow { .. } => "slow",
            Fault::Delay { .. } => "delay",
            Fault::Grey { .. } => "grey",
            Fault::Sever { .. } => "sever",
            Fault::Loss { .. } => "loss",
            Fault::Throttle { .. } => "throttle",
            Fault::Leak { .. } => "leak",
            Fault::Refuse => "refuse",
            Fault::Hang => "hang",
            Fault::Reset => "reset",
            Fault::Garbage => "garbage",
        }
    }
}

/// Body of `POST /fault` at a backend's control address.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The server on this port; all of the process without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What shall be wrong from now on.
    #[serde(flatten)]
    pub fault: Fault,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_written_as_documented() {
        let order = Order { port: Some(8080), fault: Fault::Slow { factor: 5.0 } };
        let text = r#"{"port":8080,"kind":"slow","factor":5.0}"#;
        assert_eq!(serde_json::to_string(&order).unwrap(), text);
        assert_eq!(serde_json::from_str::<Order>(text).unwrap(), order);
        let all: Order = serde_json::from_str(r#"{"kind":"refuse"}"#).unwrap();
        assert_eq!(all, Order { port: None, fault: Fault::Refuse });
    }

    #[test]
    fn a_fault_is_named_as_its_order_names_it() {
        for fault in [
            Fault::Slow { factor: 2.0 },
            Fault::Delay { ms: 5.0, sigma: 0.0 },
            Fault::Grey { share: 0.5 },
            Fault::Sever { share: 0.5 },
            Fault::Loss { share: 0.5 },
            Fault::Throttle { share: 0.5 },
            Fault::Leak { kib: 64 },
            Fault::Refuse,
            Fault::Hang,
            Fault::Reset,
            Fault::Garbage,
        ] {
            let order = serde_json::to_value(fault.check().unwrap()).unwrap();
            assert_eq!(order["kind"], fault.name());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Fault::Slow { factor: 0.0 }.check().is_err());
        assert!(Fault::Slow { factor: f64::NAN }.check().is_err());
        assert!(Fault::Grey { share: 1.5 }.check().is_err());
        assert!(Fault::Sever { share: -0.1 }.check().is_err());
        assert!(Fault::Loss { share: 1.0 }.check().is_err());
        assert!(Fault::Throttle { share: 0.0 }.check().is_err());
        assert!(Fault::Delay { ms: f64::INFINITY, sigma: 0.0 }.check().is_err());
        assert!(Fault::Leak { kib: 0 }.check().is_err());
        assert!(serde_json::from_str::<Order>(r#"{"kind":"explode"}"#).is_err());
    }
}
