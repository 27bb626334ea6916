//! Which VIPs ask sources to prove that they are there, as the configuration, orders at run time and
//! floods have it.

use std::collections::BTreeMap;

use gateway_common::clock::KtimeNs;
use gateway_common::layout::vip_flag;

use super::Engine;
use crate::challenge::{
    ChallengeError, ChallengeMode, ChallengeOrder, ChallengeSpec, FLOOD_PER_SECOND_MAX, SynCounts,
    VipChallenge, Watch,
};
use crate::fleet::VipSpec;
use crate::tables::Tables;

/// What is known of VIPs' floods, by their names.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    /// What was ordered at run time.
    pub(super) orders: BTreeMap<String, ChallengeOrder>,
    watches: BTreeMap<String, Watch>,
}

impl Engine {
    /// Goes on with what an earlier daemon found under a flood.
    pub(super) fn adopt_floods(&mut self, adopted: &Tables, now: KtimeNs) {
        for (spec, entry) in self.fleet.vips.iter().zip(self.directory.vips()) {
            let before = adopted.vips.get(&entry.key);
            if before.is_some_and(|vip| vip.flags & vip_flag::CHALLENGED != 0) {
                self.challenges.watches.insert(spec.name.clone(), Watch::flooded(now));
            }
        }
    }

    /// VIPs that may ask.
    pub fn challenges(&self) -> Vec<VipChallenge> {
        let able = self.fleet.vips.iter().filter(|vip| vip.guard && vip.is_l4_tcp());
        able.map(|vip| self.vip_challenge(vip)).collect()
    }

    /// Says when a VIP asks, from the next turn on and over a restart; `None`: as the configuration has
    /// it.
    ///
    /// # Errors
    /// There is no such VIP, it is not guarded or its connections are not ours, or the order is none.
    pub fn order_challenge(
        &mut self,
        vip: &str,
        order: Option<ChallengeOrder>,
    ) -> Result<VipChallenge, ChallengeError> {
        let found = self.fleet.vips.iter().find(|spec| spec.name == vip);
        let spec = found.ok_or_else(|| ChallengeError::NoSuchVip(vip.to_owned()))?;
        if !spec.guard {
            return Err(ChallengeError::NotGuarded(vip.to_owned()));
        }
        if !spec.is_l4_tcp() {
            return Err(ChallengeError::NotL4Tcp(vip.to_owned()));
        }
        if let Some(flood) = order.and_then(|order| order.flood_per_second)
            && !(1..=FLOOD_PER_SECOND_MAX).contains(&flood)
        {
            return Err(ChallengeError::FloodPerSecond(flood));
        }
        let spec = spec.clone();
        match order {
            Some(order) => self.challenges.orders.insert(spec.name.clone(), order),
            None => self.challenges.orders.remove(vip),
        };
        self.lay_out_vips();
        Ok(self.vip_challenge(&spec))
    }

    /// Takes in what is counted of VIPs by now, by their rows. Those that began to ask, or ceased to,
    /// because of a flood.
    pub fn watch_floods(
        &mut self,
        counts: &BTreeMap<u32, SynCounts>,
        now: KtimeNs,
    ) -> Vec<VipChallenge> {
        let mut changed = Vec::new();
        for (spec, entry) in self.fleet.vips.iter().zip(self.directory.vips()) {
            let Some(counts) = counts.get(&entry.index) else { continue };
            let in_force = self.challenges.spec_of(spec);
            let watch = self.challenges.watches.entry(spec.name.clone()).or_default();
            if watch.see(*counts, in_force.flood_per_second, now)
                && in_force.mode == ChallengeMode::Auto
            {
                changed.push(spec.clone());
            }
        }
        let vips = &self.fleet.vips;
        self.challenges.watches.retain(|name, _| vips.iter().any(|vip| vip.name == *name));
        if !changed.is_empty() {
            self.lay_out_vips();
        }
        changed.iter().map(|spec| self.vip_challenge(spec)).collect()
    }

    pub(super) fn vip_challenge(&self, spec: &VipSpec) -> VipChallenge {
        let watch = self.challenges.watches.get(&spec.name);
        VipChallenge {
            vip: spec.name.clone(),
            spec: self.challenges.spec_of(spec),
            ordered: self.challenges.orders.contains_key(&spec.name),
            asks: self.challenges.asks(spec),
            unconfirmed_per_second: watch.map_or(0.0, Watch::per_second),
        }
    }
}

impl Challenges {
    /// Whether a VIP asks now.
    pub(super) fn asks(&self, spec: &VipSpec) -> bool {
        let is_asked = match self.spec_of(spec).mode {
            ChallengeMode::Off => false,
            ChallengeMode::Auto => self.watches.get(&spec.name).is_some_and(Watch::is_flooded),
            ChallengeMode::Always => true,
        };
        is_asked && spec.guard && spec.is_l4_tcp()
    }

    fn spec_of(&self, spec: &VipSpec) -> ChallengeSpec {
        match self.orders.get(&spec.name) {
            Some(order) => ChallengeSpec {
                mode: order.mode,
                flood_per_second: order.flood_per_second.unwrap_or(spec.challenge.flood_per_second),
            },
            None => spec.challenge,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::EngineOptions;
    use crate::fixture::fleet;

    const NOW: KtimeNs = KtimeNs(1_000_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);
    const AUTO: ChallengeSpec =
        ChallengeSpec { mode: ChallengeMode::Auto, flood_per_second: 1_000 };

    fn engine(challenge: ChallengeSpec, adopted: Tables) -> Engine {
        let mut fleet = fleet(&[("web", 2)]);
        fleet.vips[0].challenge = challenge;
        fleet.vips[0].guard = true;
        let options = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };
        Engine::new(fleet, adopted, options, NOW).unwrap()
    }

    fn asks(engine: &Engine) -> bool {
        let vip = engine.tables().vips.values().next().unwrap();
        assert_eq!(engine.challenges()[0].asks, vip.flags & vip_flag::CHALLENGED != 0);
        vip.flags & vip_flag::CHALLENGED != 0
    }

    /// Seconds of a flood of so many; what was told of.
    fn flood(engine: &mut Engine, from: u64, seconds: u64, per_second: u64) -> usize {
        let row = engine.tables().vips.values().next().unwrap().index;
        let mut told = 0;
        for second in from..from + seconds {
            let begun = (second - from + 1) * per_second;
            let counts = SynCounts { begun, ..SynCounts::default() };
            let now = NOW + SECOND * second as u32;
            told += engine.watch_floods(&BTreeMap::from([(row, counts)]), now).len();
        }
        told
    }

    #[test]
    fn a_vip_asks_while_it_is_under_a_flood() {
        let mut engine = engine(AUTO, Tables::default());
        assert!(!asks(&engine));
        assert_eq!(flood(&mut engine, 0, 3, 2_000), 1);
        assert!(asks(&engine));
        assert_eq!(engine.challenges()[0].unconfirmed_per_second, 2_000.0);
        assert_eq!(flood(&mut engine, 3, 40, 1), 1);
        assert!(!asks(&engine));
    }

    #[test]
    fn always_and_never_are_no_matter_of_floods() {
        let of = |mode| ChallengeSpec { mode, ..AUTO };
        let mut never = engine(of(ChallengeMode::Off), Tables::default());
        assert_eq!(flood(&mut never, 0, 3, 9_000), 0);
        assert!(!asks(&never));
        assert!(asks(&engine(of(ChallengeMode::Always), Tables::default())));
    }

    #[test]
    fn an_order_is_over_the_configuration_until_it_is_taken_back() {
        let mut engine = engine(AUTO, Tables::default());
        let order = |mode, flood_per_second| Some(ChallengeOrder { mode, flood_per_second });
        let told = engine.order_challenge("web", order(ChallengeMode::Always, None)).unwrap();
        assert_eq!((told.spec.flood_per_second, told.ordered, told.asks), (1_000, true, true));
        assert!(asks(&engine));

        let saved = engine.save(NOW);
        let mut next = self::engine(AUTO, Tables::default());
        next.restore(&saved, Duration::ZERO, NOW).unwrap();
        assert!(asks(&next), "orders outlive the daemon");
        assert!(!next.order_challenge("web", None).unwrap().ordered);
        assert!(!asks(&next));
        next.order_challenge("web", order(ChallengeMode::Auto, Some(50))).unwrap();
        flood(&mut next, 0, 3, 100);
        assert!(asks(&next));
        let error = next.order_challenge("web", order(ChallengeMode::Auto, Some(0))).unwrap_err();
        assert_eq!(error, ChallengeError::FloodPerSecond(0));
    }

    #[test]
    fn a_flood_outlives_the_daemon() {
        let mut before = engine(AUTO, Tables::default());
        flood(&mut before, 0, 3, 2_000);
        let mut after = engine(AUTO, before.tables().clone());
        assert!(asks(&after));
        assert_eq!(flood(&mut after, 0, 40, 1), 1);
        assert!(!asks(&after), "until it is over");
    }

    #[test]
    fn only_guarded_vips_of_l4_and_tcp_may_ask() {
        let always = ChallengeSpec { mode: ChallengeMode::Always, ..AUTO };
        let order = Some(ChallengeOrder { mode: ChallengeMode::Always, flood_per_second: None });
        let mut fleet = fleet(&[("web", 2)]);
        fleet.vips[0].challenge = always;
        let options = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };
        let mut engine = Engine::new(fleet.clone(), Tables::default(), options, NOW).unwrap();
        assert!(engine.challenges().is_empty());
        let error = engine.order_challenge("web", order).unwrap_err();
        assert_eq!(error, ChallengeError::NotGuarded("web".to_owned()));
        fleet.vips[0].guard = true;
        fleet.vips[0].layer = crate::fleet::Layer::L7;
        let mut engine = Engine::new(fleet, Tables::default(), options, NOW).unwrap();
        let error = engine.order_challenge("web", order).unwrap_err();
        assert_eq!(error, ChallengeError::NotL4Tcp("web".to_owned()));
        let error = engine.order_challenge("no", order).unwrap_err();
        assert_eq!(error, ChallengeError::NoSuchVip("no".to_owned()));
    }
}
