//! What happens to a lab over time.

use std::time::Duration;

use gateway_tests::fault::Fault;

/// Number of the backend that things happen to. Fast enough that its loss is felt, slow enough
/// that the others can carry it.
pub(crate) const VICTIM: usize = 2;

/// A part of the script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    /// Name of the phase in reports.
    pub(crate) name: &'static str,
    /// When it begins, as a share of the whole.
    begins: f64,
    /// What is wrong with the victim from then on.
    pub(crate) fault: Fault,
    /// The same in words.
    pub(crate) says: &'static str,
}

/// Connections warm, weights settle: not measured.
pub(crate) const WARM_UP: &str = "warm-up";
/// Nothing is wrong.
pub(crate) const STEADY: &str = "steady";
/// The victim is slow.
pub(crate) const SLOW: &str = "slow";
/// It is as fast as before.
pub(crate) const RETURNED: &str = "returned";
/// It refuses connections.
pub(crate) const SICK: &str = "sick";
/// It serves again.
pub(crate) const HEALED: &str = "healed";

/// The script.
pub(crate) const SCENES: [Scene; 6] = [
    Scene { name: WARM_UP, begins: 0.0, fault: Fault::None, says: "load begins" },
    Scene { name: STEADY, begins: 0.15, fault: Fault::None, says: "steady" },
    Scene {
        name: SLOW,
        begins: 0.35,
        fault: Fault::Slow { factor: 5.0 },
        says: "b2 takes five times as long",
    },
    Scene { name: RETURNED, begins: 0.55, fault: Fault::None, says: "b2 is as fast as before" },
    Scene { name: SICK, begins: 0.70, fault: Fault::Refuse, says: "b2 refuses connections" },
    Scene { name: HEALED, begins: 0.80, fault: Fault::None, says: "b2 serves again" },
];

/// The scenes, stretched over a length of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    length: Duration,
}

impl Script {
    /// The script played once within `length`.
    pub(crate) const fn new(length: Duration) -> Script {
        Script { length }
    }

    /// How long it takes.
    pub(crate) fn length(self) -> Duration {
        self.length
    }

    /// When a scene begins.
    pub(crate) fn begins(self, scene: &Scene) -> Duration {
        self.length.mul_f64(scene.begins)
    }

    /// When the scene of this name begins and ends, in ms.
    pub(crate) fn span_ms(self, name: &str) -> Option<(u64, u64)> {
        let index = SCENES.iter().position(|scene| scene.name == name)?;
        let ends = SCENES.get(index + 1).map_or(self.length, |next| self.begins(next));
        Some((self.begins(&SCENES[index]).as_millis() as u64, ends.as_millis() as u64))
    }

    /// The number of the scene at `since` the start, counted on when the script repeats.
    pub(crate) fn scene_at(self, since: Duration) -> usize {
        let round = (since.as_nanos() / self.length.as_nanos().max(1)) as usize;
        let within = since.saturating_sub(self.length * round as u32);
        let begun = SCENES.iter().filter(|scene| self.begins(scene) <= within).count();
        round * SCENES.len() + begun - 1
    }

    /// The phases as a load client wants them.
    pub(crate) fn phases(self) -> Vec<(String, Duration)> {
        SCENES.iter().map(|scene| (scene.name.to_owned(), self.begins(scene))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_follow_each_other_and_repeat() {
        let script = Script::new(Duration::from_secs(100));
        let at = |seconds| script.scene_at(Duration::from_secs(seconds));
        assert_eq!([0, 14, 15, 35, 99].map(at), [0, 0, 1, 2, 5]);
        assert_eq!([100, 115, 200].map(at), [6, 7, 12]);
    }

    #[test]
    fn a_scene_ends_where_the_next_begins() {
        let script = Script::new(Duration::from_secs(100));
        assert_eq!(script.span_ms(SLOW), Some((35_000, 55_000)));
        assert_eq!(script.span_ms(HEALED), Some((80_000, 100_000)));
        assert_eq!(script.span_ms("no such scene"), None);
    }

    #[test]
    fn the_script_begins_at_once_and_tells_of_its_victim() {
        assert_eq!(SCENES[0].begins, 0.0);
        assert!(SCENES.windows(2).all(|pair| pair[0].begins < pair[1].begins));
        let name = format!("b{VICTIM} ");
        for scene in SCENES.iter().filter(|scene| scene.fault != Fault::None) {
            assert!(scene.says.starts_with(&name), "{}", scene.says);
        }
    }
}
