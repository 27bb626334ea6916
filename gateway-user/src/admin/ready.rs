//! Whether whoever steers traffic to this gateway should.

use std::time::Duration;

use gateway_core::decision::Health;
use gateway_core::state::{PoolState, State};

/// A state that is older than this many ticks is not what is so now. One turn may be late or fail.
const STATE_AGE_TICKS: u32 = 2;

/// But not with short ticks: a busy machine may keep any process waiting for a second or two, and a
/// gateway that was withdrawn for that would leave its load to others as busy. A client that waits
/// for its first SYN to be sent again a second time has waited longer (RFC 6298: 1 s, then 2 s).
const STATE_AGE_MIN: Duration = Duration::from_secs(5);

/// When the loop turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turns {
    /// Since the last one.
    pub(super) ago: Duration,
    /// Between two.
    pub(super) tick: Duration,
}

/// Why the gateway is not ready; `None` if it is.
pub(super) fn unready(state: &State, turns: Turns, stopping: bool) -> Option<String> {
    if stopping {
        return Some("the daemon is stopping".to_owned());
    }
    if state.tick == 0 {
        return Some("the decision loop has not turned yet".to_owned());
    }
    if turns.ago > (STATE_AGE_TICKS * turns.tick).max(STATE_AGE_MIN) {
        return Some(format!("the decision loop last turned {} s ago", turns.ago.as_secs()));
    }
    // A pool that no VIP uses keeps nobody waiting.
    let used = state.pools.iter().filter(|pool| state.vips.iter().any(|vip| vip.pool == pool.name));
    let broken: Vec<_> = used.filter(|pool| !has_healthy(pool)).map(describe).collect();
    (!broken.is_empty()).then(|| broken.join("; "))
}

fn has_healthy(pool: &PoolState) -> bool {
    let serves = |health| matches!(health, Health::Healthy | Health::SlowStart);
    pool.backends.iter().any(|backend| serves(backend.health))
}

fn describe(pool: &PoolState) -> String {
    let backends = pool.backends.iter();
    let each = backends.map(|backend| format!("{} is {}", backend.name, backend.health.as_str()));
    format!("pool {} has no healthy backend: {}", pool.name, each.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use gateway_core::decision::{Inputs, Reason, WeightSource};
    use gateway_core::flows::FlowTally;
    use gateway_core::state::{BackendState, VipState};

    use super::*;

    const IN_TIME: Turns = Turns { ago: Duration::ZERO, tick: Duration::from_millis(250) };

    fn backend(name: &str, health: Health) -> BackendState {
        BackendState {
            name: name.to_owned(),
            addr: "127.0.0.1:81".parse().unwrap(),
            row: 0,
            generation: 1,
            capacity: 1.0,
            health,
            health_seconds: 1.0,
            ejected_seconds: None,
            strikes: 0,
            reason: Reason::Steady,
            source: WeightSource::Static,
            weight: 1.0,
            shaped: None,
            share: 1.0,
            accepted: u16::MAX,
            by_client_class: Vec::new(),
            bounds: Vec::new(),
            load: None,
            inputs: Inputs::default(),
            fault: None,
            recovery: Vec::new(),
            flows: FlowTally::default(),
        }
    }

    fn pool(name: &str, backends: Vec<BackendState>) -> PoolState {
        PoolState {
            name: name.to_owned(),
            algorithm: "p2c".to_owned(),
            mode: "nat".to_owned(),
            weights: "learned".to_owned(),
            row: 0,
            table: 0,
            models: Vec::new(),
            control_share: 0.0,
            comparison: None,
            autoscale: None,
            headroom: None,
            admission: None,
            forecast: None,
            pinned: None,
            versions: Vec::new(),
            backends,
        }
    }

    /// A state whose one VIP is served by the first pool.
    fn state(tick: u64, pools: Vec<PoolState>) -> State {
        let vip = VipState {
            name: "site".to_owned(),
            addr: "127.0.0.1:80".parse().unwrap(),
            protocol: "tcp".to_owned(),
            layer: "l7".to_owned(),
            pool: pools[0].name.clone(),
            row: 0,
            challenging: false,
            unconfirmed_per_second: 0.0,
        };
        let vips = vec![vip];
        State { tick, vips, pools, ..State::default() }
    }

    #[test]
    fn one_healthy_backend_is_enough() {
        for health in [Health::Healthy, Health::SlowStart] {
            let backends = vec![backend("a", Health::Down), backend("b", health)];
            assert_eq!(unready(&state(1, vec![pool("web", backends)]), IN_TIME, false), None);
        }
    }

    #[test]
    fn a_pool_without_a_healthy_backend_is_named_with_the_reason() {
        let backends = vec![backend("a", Health::Down), backend("b", Health::Ejected)];
        let why = unready(&state(1, vec![pool("web", backends)]), IN_TIME, false);
        assert_eq!(
            why.as_deref(),
            Some("pool web has no healthy backend: a is down, b is ejected")
        );
    }

    #[test]
    fn a_pool_that_no_vip_uses_does_not_count() {
        let (up, down) = (vec![backend("a", Health::Healthy)], vec![backend("b", Health::Down)]);
        let pools = vec![pool("web", up), pool("spare", down)];
        assert_eq!(unready(&state(1, pools), IN_TIME, false), None);
    }

    #[test]
    fn nothing_is_ready_before_the_first_turn_or_while_it_stops() {
        let healthy = || vec![pool("web", vec![backend("a", Health::Healthy)])];
        assert!(unready(&state(0, healthy()), IN_TIME, false).is_some());
        assert!(unready(&state(1, healthy()), IN_TIME, true).is_some());
    }

    #[test]
    fn a_state_that_nobody_renews_is_not_ready() {
        let state = state(1, vec![pool("web", vec![backend("a", Health::Healthy)])]);
        let after = |ago, tick| {
            let turns = Turns { ago: Duration::from_secs(ago), tick: Duration::from_millis(tick) };
            unready(&state, turns, false)
        };
        assert_eq!(after(7, 250).as_deref(), Some("the decision loop last turned 7 s ago"));
        assert_eq!(after(4, 10), None, "a busy machine is no broken loop");
        assert_eq!(after(15, 10_000), None, "one turn may be late");
        assert!(after(25, 10_000).is_some());
    }
}
