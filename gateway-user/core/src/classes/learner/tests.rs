use super::*;
use crate::classes::fit::GAPS;
use crate::classes::{ClassSummary, Point};
use crate::ladder::Stage;

const TICK: Duration = Duration::from_millis(250);

/// A pool whose requests cost by profile, on backends of these paces.
struct Pool {
    classes: Classes,
    seat: Seat,
    now: KtimeNs,
    paces: Vec<f64>,
    seed: u64,
}

impl Pool {
    fn new(paces: &[f64]) -> Pool {
        let (classes, seat) = (Classes::default(), Seat::new(Stage::On));
        Pool { classes, seat, now: KtimeNs(1), paces: paces.to_vec(), seed: 1 }
    }

    /// Turns with requests of profiles 1, 2, ... that cost so many ms each, give or take a half.
    fn serve(&mut self, ticks: u32, costs: &[f64]) {
        for _ in 0..ticks {
            for _ in 0..40 {
                self.seed = gateway_common::hash::mix(self.seed.wrapping_add(1));
                let id = self.seed % costs.len() as u64;
                let backend = ((self.seed >> 8) % self.paces.len() as u64) as usize;
                let luck = ((self.seed >> 20) % 1000) as f64 / 1000.0;
                let ms = costs[id as usize] * self.paces[backend] * (0.5 + luck);
                let after = Duration::from_secs_f64(ms / 1000.0);
                self.classes.observe(
                    backend,
                    &Seen::Request {
                        outcome: RequestOutcome::Answered,
                        first_byte_after: after,
                        after,
                        class: 0,
                        profile: Profile { id: id + 1, ..Profile::default() },
                        among: 1,
                        report: None,
                        client: None,
                    },
                );
            }
            self.now = self.now + TICK;
            self.classes.tick(self.now, TICK, &mut self.seat);
            let gaps: Arc<dyn Clusterer> = Arc::new(GAPS);
            if let Some(job) = self.classes.job(0, self.now, &gaps) {
                self.classes.fitted(job.run());
            }
        }
    }

    fn cost(&self, id: u64) -> f32 {
        self.classes.view().of(&Profile { id, ..Profile::default() }).unwrap().cost
    }
}

#[test]
fn classes_of_unlike_costs_come_onto_the_ladder() {
    let mut pool = Pool::new(&[1.0, 1.0]);
    pool.serve(300, &[1.0, 1.0, 1.0, 30.0]);
    assert_eq!(pool.seat.barrier(pool.now), None);
    assert!(pool.cost(4) > 3.0 && pool.cost(1) < 0.3, "{} {}", pool.cost(1), pool.cost(4));
}

#[test]
fn a_slow_backend_does_not_make_its_requests_look_dear() {
    let mut pool = Pool::new(&[1.0, 6.0]);
    pool.serve(200, &[1.0, 30.0]);
    let between = f64::from(pool.cost(2) / pool.cost(1));
    assert!((between / 30.0).ln().abs() < 0.25, "{between} of 30");
    assert!((pool.classes.paces[1] - pool.classes.paces[0] - 6f64.ln()).abs() < 0.3);
}

#[test]
fn where_all_requests_cost_alike_classes_never_decide() {
    let mut pool = Pool::new(&[1.0, 1.0]);
    pool.serve(400, &[10.0, 10.0, 10.0]);
    assert_eq!(pool.classes.view().classes().len(), 1);
    assert!(pool.seat.barrier(pool.now).is_some());
}

#[test]
fn costs_that_are_no_longer_true_take_classes_off_the_ladder() {
    let mut pool = Pool::new(&[1.0, 1.0]);
    pool.serve(300, &[1.0, 30.0]);
    assert_eq!(pool.seat.barrier(pool.now), None);
    // Turned round, and fits that never come back.
    pool.classes.awaited = true;
    pool.serve(300, &[30.0, 1.0]);
    assert_eq!(pool.seat.barrier(pool.now), Some(crate::ladder::Barrier::Losing));
}

/// Knows one class before it has seen anything.
#[derive(Debug)]
struct Knows(ClassView);

impl Clusterer for Knows {
    fn version(&self) -> &str {
        "knows"
    }

    fn cluster(&self, _: &[Point], _: &[f64], _: usize, _: u64) -> Option<Vec<Point>> {
        None
    }

    fn prior(&self) -> Option<&ClassView> {
        Some(&self.0)
    }
}

#[test]
fn classes_begin_with_what_their_maker_knows_and_else_with_nothing() {
    let class = ClassSummary {
        id: 3,
        cost: 2.0,
        log_cost: 0.5,
        share: 1.0,
        profiles: 1,
        traits: Default::default(),
    };
    let knows = Knows(ClassView::new(vec![class], [(7, 0)]));
    let mut classes = Classes::default();
    classes.begin(Some(&knows));
    let profile = Profile { id: 7, ..Profile::default() };
    assert_eq!(classes.view().of(&profile).map(|class| class.id), Some(3));
    classes.begin(Some(&GAPS));
    assert!(classes.view().classes().is_empty());
}
