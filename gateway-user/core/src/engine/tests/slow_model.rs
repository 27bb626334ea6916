//! A forest that was trusted and gets slow: it rests, the rule decides, and it comes back.

use std::sync::atomic::{AtomicU64, Ordering};

use super::wrong_forest::{cut, forest_that_says, serve, trusted};
use super::*;
use crate::ladder::{Barrier, Task};
use crate::timing::{Asked, Became, REST, Stopwatch};

/// Goes on by so many milliseconds each time that it is read, so that whatever is asked takes as long.
#[derive(Debug, Default)]
struct Takes {
    ms: AtomicU64,
    at: AtomicU64,
}

impl Stopwatch for Takes {
    fn read(&self) -> Duration {
        let ms = self.ms.load(Ordering::Relaxed);
        Duration::from_millis(self.at.fetch_add(ms, Ordering::Relaxed))
    }
}

fn barrier(bench: &Bench) -> Option<Barrier> {
    let state = bench.engine.state();
    state.pools[0].models.iter().find(|model| model.task == Task::Fault).unwrap().barrier
}

/// Turns until the model's time brings something about, at most a minute and a half of them.
fn until_it_changes(bench: &mut Bench) -> Option<Became> {
    (0..360).find_map(|_| {
        serve(bench, None);
        let asked = bench.last.iter().find(|asked| asked.task == Task::Fault)?;
        asked.became
    })
}

#[test]
fn a_forest_that_gets_slow_rests_while_the_rule_decides_and_comes_back() {
    let mut bench = trusted(forest_that_says(0.05));
    let takes = Arc::new(Takes::default());
    bench.engine.time_models(takes.clone(), Duration::from_millis(250));
    takes.ms.store(10, Ordering::Relaxed);
    (0..8).for_each(|_| drop(serve(&mut bench, None)));
    assert_eq!(barrier(&bench), None);

    takes.ms.store(80, Ordering::Relaxed);
    assert_eq!(until_it_changes(&mut bench), Some(Became::TooSlow));
    let Some(Asked { took, room, .. }) = bench.last.first().copied() else { panic!("asked") };
    assert_eq!((took, room), (Duration::from_millis(80), Duration::from_micros(62_500)));
    serve(&mut bench, None);
    assert_eq!(barrier(&bench), Some(Barrier::Slow));
    let state = bench.engine.state();
    assert_eq!(state.pools[0].models[Task::Fault as usize].took_seconds, Some(0.08));

    // The rule alone finds a dead backend meanwhile, and nobody asks the forest.
    let rests_since = bench.now;
    let mut found = false;
    while bench.now.since(rests_since) + Duration::from_secs(2) < REST {
        let decisions = serve(&mut bench, Some(1));
        found |= cut(&decisions) == 1;
        assert!(bench.last.is_empty(), "{:?}", bench.last);
    }
    assert!(found);

    takes.ms.store(10, Ordering::Relaxed);
    assert_eq!(until_it_changes(&mut bench), Some(Became::InTime));
    serve(&mut bench, None);
    assert_ne!(barrier(&bench), Some(Barrier::Slow));
}
