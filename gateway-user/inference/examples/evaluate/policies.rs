//! The policies and their names.

use gateway_core::sim::{Balancing, Ejection, Path, Rule};

/// Quantiles of requests in flight that Prequal's threshold is swept over. Its authors' baseline is
/// 2^-0.25 = 0.84; with 1 only latency counts. With 0, which was the best in none of the scenarios,
/// all are hot and it is least request among what was probed; it is left out to save the time.
const PREQUAL: [(&str, f64); 4] =
    [("prequal-0.30", 0.3), ("prequal-0.60", 0.6), ("prequal-0.84", 0.84), ("prequal-0.95", 0.95)];

/// The quantile that is best in most scenarios.
const PREQUAL_BEST: f64 = 0.6;

/// A policy and how it compares.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) balancing: Balancing,
    pub(crate) kind: Kind,
}

impl Policy {
    /// Whether it is there for the sweep of Prequal's threshold alone.
    pub(crate) fn is_swept(&self) -> bool {
        matches!(self.balancing, Balancing::Other(Rule::Prequal(hot), _) if hot != PREQUAL_BEST)
    }
}

/// What a policy is compared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This gateway's proxy.
    Proxy,
    /// This gateway's XDP path.
    Packets,
    /// Without any memory of latency.
    Simple,
    /// Anything else that is a policy.
    Other,
    /// What knows more than any policy can.
    Bound,
}

/// All of them.
pub(crate) fn all() -> Vec<Policy> {
    let mut rules = vec![
        ("round-robin", Rule::RoundRobin, Kind::Simple),
        ("static", Rule::StaticWeights, Kind::Simple),
        ("least-request", Rule::LeastRequest, Kind::Simple),
        ("p2c", Rule::P2c, Kind::Simple),
        ("peak-ewma", Rule::PeakEwma, Kind::Other),
        ("wrr", Rule::WeightedRoundRobin, Kind::Other),
    ];
    rules.extend(PREQUAL.map(|(name, hot)| (name, Rule::Prequal(hot), Kind::Other)));
    let mut all = vec![
        Policy {
            name: "gateway-l7".to_owned(),
            balancing: Balancing::Gateway(Path::L7),
            kind: Kind::Proxy,
        },
        Policy {
            name: "gateway-l4".to_owned(),
            balancing: Balancing::Gateway(Path::L4),
            kind: Kind::Packets,
        },
    ];
    all.push(Policy {
        name: "(oracle)".to_owned(),
        balancing: Balancing::Other(Rule::Oracle, Ejection::None),
        kind: Kind::Bound,
    });
    for (name, rule, kind) in rules {
        // Of the sweep, the quantile that did best without.
        for (suffix, ejection) in [("", Ejection::None), ("+outlier", Ejection::Envoy)] {
            let balancing = Balancing::Other(rule, ejection);
            let policy = Policy { name: format!("{name}{suffix}"), balancing, kind };
            if ejection == Ejection::None || !policy.is_swept() {
                all.push(policy);
            }
        }
    }
    all
}
