use std::sync::Mutex;

use super::*;

const ROOM: Duration = Duration::from_millis(50);

/// A stopwatch that is as far as somebody says.
#[derive(Debug, Default)]
struct Said(Mutex<Duration>);

impl Stopwatch for Said {
    fn read(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// A model that takes as long as it is told to, and says so on the same stopwatch.
struct Stub {
    timing: Timing,
    watch: Arc<Said>,
    now: KtimeNs,
}

impl Stub {
    fn new() -> Stub {
        let (mut timing, watch) = (Timing::default(), Arc::new(Said::default()));
        timing.go_by(watch.clone(), ROOM * PARTS_OF_A_TURN);
        Stub { timing, watch, now: KtimeNs(1_000_000_000) }
    }

    /// A turn a second later, in which two pools ask it, each for half of so long.
    fn turn(&mut self, took: Duration) -> Vec<Asked> {
        self.now = self.now + Duration::from_secs(1);
        let awake = self.timing.paces[Task::Fault as usize].wakes(self.now);
        let spent = self.timing.begin();
        for _ in 0..if awake { 2 } else { 0 } {
            spent.take(Task::Fault, || *self.watch.0.lock().unwrap() += took / 2);
        }
        let times = spent.into_times();
        self.timing.end(self.now, &times)
    }

    fn became(&mut self, took: Duration) -> Option<Became> {
        self.turn(took).first().and_then(|asked| asked.became)
    }

    fn is_too_slow(&self) -> bool {
        self.timing.too_slow()[Task::Fault as usize]
    }
}

const LATE: Duration = Duration::from_millis(60);
const QUICK: Duration = Duration::from_millis(40);

#[test]
fn all_pools_together_count_and_only_who_was_asked() {
    let mut stub = Stub::new();
    let asked = Asked { task: Task::Fault, took: QUICK, room: ROOM, became: None };
    assert_eq!(stub.turn(QUICK), [asked]);
    assert_eq!(stub.timing.took(Task::Fault), Some(QUICK));
    assert_eq!(stub.timing.took(Task::Forecast), None);
}

#[test]
fn late_several_times_in_a_row_rests_and_now_and_then_does_not() {
    let mut stub = Stub::new();
    for _ in 0..10 {
        for took in [LATE, LATE, LATE, QUICK] {
            assert_eq!(stub.became(took), None);
        }
    }
    assert!(!stub.is_too_slow());
    let last = [LATE; 4].map(|took| stub.became(took));
    assert_eq!(last, [None, None, None, Some(Became::TooSlow)]);
    assert!(stub.is_too_slow());
}

#[test]
fn overlong_once_rests() {
    let mut stub = Stub::new();
    assert_eq!(stub.became(OVERLONG + ROOM), Some(Became::TooSlow));
    // Where turns leave room for it, it is not.
    let mut stub = Stub::new();
    stub.timing.go_by(stub.watch.clone(), 8 * OVERLONG);
    assert_eq!(stub.became(OVERLONG + ROOM), None);
}

#[test]
fn a_rest_ends_in_a_trial_that_has_to_go_well() {
    let mut stub = Stub::new();
    stub.became(OVERLONG * 2);
    for _ in 1..REST.as_secs() {
        assert_eq!(stub.turn(LATE), [], "it is not asked while it rests");
    }
    // On trial it is asked, and does not decide; late once, it rests again.
    assert_eq!(stub.turn(QUICK).len(), 1);
    assert!(stub.is_too_slow());
    assert_eq!(stub.became(LATE), None);
    for _ in 1..REST.as_secs() {
        assert_eq!(stub.turn(LATE), []);
    }
    let trial = [QUICK; 4].map(|took| stub.became(took));
    assert_eq!(trial, [None, None, None, Some(Became::InTime)]);
    assert!(!stub.is_too_slow());
}

#[test]
fn another_model_is_not_blamed_for_the_one_before() {
    let mut stub = Stub::new();
    stub.became(OVERLONG * 2);
    stub.timing.replace(Task::Fault);
    assert!(!stub.is_too_slow());
    assert_eq!(stub.turn(QUICK).len(), 1);
}

#[test]
fn without_a_stopwatch_nothing_takes_any_time() {
    let mut timing = Timing::default();
    let spent = timing.begin();
    spent.take(Task::Forecast, || {});
    let times = spent.into_times();
    let asked = timing.end(KtimeNs(0), &times);
    assert_eq!((asked.len(), asked[0].took, asked[0].became), (1, Duration::ZERO, None));
}
