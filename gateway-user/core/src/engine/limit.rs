//! What sources may send to VIPs, as the configuration and orders at run time have it.

use super::Engine;
use crate::fleet::VipSpec;
use crate::limit::{LimitError, LimitOrder, LimitSpec, VipLimit};

impl Engine {
    /// Limits of the guarded VIPs.
    pub fn limits(&self) -> Vec<VipLimit> {
        let guarded = self.fleet.vips.iter().filter(|vip| vip.guard);
        guarded.map(|vip| self.vip_limit(vip)).collect()
    }

    /// Changes a VIP's limit from the next turn on and over a restart; `None`: back to what the
    /// configuration says.
    ///
    /// # Errors
    /// There is no such VIP, it is not guarded, or the limit is none for its family.
    pub fn order_limit(
        &mut self,
        vip: &str,
        order: Option<LimitOrder>,
    ) -> Result<VipLimit, LimitError> {
        let found = self.fleet.vips.iter().find(|spec| spec.name == vip);
        let spec = found.ok_or_else(|| LimitError::NoSuchVip(vip.to_owned()))?;
        if !spec.guard {
            return Err(LimitError::NotGuarded(vip.to_owned()));
        }
        if let Some(LimitOrder::Set(limit)) = &order {
            limit.check(spec.addr.network())?;
        }
        let spec = spec.clone();
        match order {
            Some(order) => self.limits.insert(spec.name.clone(), order),
            None => self.limits.remove(vip),
        };
        self.lay_out_vips();
        Ok(self.vip_limit(&spec))
    }

    fn vip_limit(&self, spec: &VipSpec) -> VipLimit {
        VipLimit {
            vip: spec.name.clone(),
            addr: spec.addr.network(),
            limit: self.limit_of(spec),
            ordered: self.limits.contains_key(&spec.name),
        }
    }

    /// The limit that is in force.
    pub(super) fn limit_of(&self, spec: &VipSpec) -> Option<LimitSpec> {
        let limit = match self.limits.get(&spec.name) {
            Some(LimitOrder::Set(limit)) => Some(*limit),
            Some(LimitOrder::Off) => None,
            None => spec.limit,
        };
        limit.filter(|_| spec.guard)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gateway_common::clock::KtimeNs;
    use gateway_common::layout::vip_flag;

    use super::*;
    use crate::engine::EngineOptions;
    use crate::fixture::fleet;
    use crate::limit::RateSpec;
    use crate::tables::Tables;

    const NOW: KtimeNs = KtimeNs(1_000_000_000);

    fn limit(per_second: f64) -> LimitSpec {
        let rate = RateSpec::new(per_second, None).ok();
        LimitSpec::new(rate, None, None).unwrap()
    }

    fn engine(configured: Option<LimitSpec>, is_guarded: bool) -> Engine {
        let mut fleet = fleet(&[("web", 2)]);
        fleet.vips[0].limit = configured;
        fleet.vips[0].guard = is_guarded;
        let options = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };
        Engine::new(fleet, Tables::default(), options, NOW).unwrap()
    }

    /// Flows a second by the tables, if the first VIP is limited.
    fn in_force(engine: &Engine) -> Option<f64> {
        let vip = engine.tables().vips.values().next().unwrap();
        let row = engine.tables().limits.get(&vip.index);
        assert_eq!(row.is_some(), vip.flags & vip_flag::LIMITED != 0);
        row.map(|row| (1e9 / (row.flows.interval * 256) as f64).round())
    }

    #[test]
    fn an_order_is_over_the_configuration_until_it_is_taken_back() {
        let mut engine = engine(Some(limit(10.0)), true);
        assert_eq!(in_force(&engine), Some(10.0));
        let told = engine.order_limit("web", Some(LimitOrder::Set(limit(50.0)))).unwrap();
        assert_eq!((told.limit, told.ordered), (Some(limit(50.0)), true));
        assert_eq!(in_force(&engine), Some(50.0));
        engine.order_limit("web", Some(LimitOrder::Off)).unwrap();
        assert_eq!(in_force(&engine), None);

        let saved = engine.save(NOW);
        let mut next = self::engine(Some(limit(10.0)), true);
        next.restore(&saved, Duration::ZERO, NOW).unwrap();
        assert_eq!(in_force(&next), None, "orders outlive the daemon");
        assert!(!next.order_limit("web", None).unwrap().ordered);
        assert_eq!(in_force(&next), Some(10.0));
    }

    #[test]
    fn a_source_of_more_bits_than_an_address_has_is_refused() {
        let mut engine = engine(None, true);
        let rate = RateSpec::new(1.0, None).ok();
        let long = LimitSpec::new(rate, None, Some(64)).unwrap();
        let error = engine.order_limit("web", Some(LimitOrder::Set(long))).unwrap_err();
        assert_eq!(error, LimitError::SourcePrefix { bits: 64, max: 32 });
        assert_eq!(in_force(&engine), None);
    }

    #[test]
    fn a_vip_that_is_not_guarded_has_no_limit() {
        let mut engine = engine(Some(limit(10.0)), false);
        assert_eq!(in_force(&engine), None);
        assert!(engine.limits().is_empty());
        let error = engine.order_limit("web", Some(LimitOrder::Off)).unwrap_err();
        assert_eq!(error, LimitError::NotGuarded("web".to_owned()));
        let error = engine.order_limit("no", None).unwrap_err();
        assert_eq!(error, LimitError::NoSuchVip("no".to_owned()));
    }
}
