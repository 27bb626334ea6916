//! How long a request would take at a backend: what the proxy chooses by, and what `explain` and
//! `/v1/route` show of a choice.
//!
//! A backend serves some requests at once, each on a worker of its own. A dear request keeps one of
//! them busy and nobody else waiting, so what a request takes itself and what others have to wait
//! for it are two things: the first grows with its cost, the second hardly does.

/// What a request in flight counts for as work that others wait for, at least and at most, in mean
/// requests. Counted in full, one of fifty times the mean emptied seven other workers: with true
/// costs the 99th percentile was 267 ms with at most ten, and 256 with two, where every request
/// counted as one had 255 (`mixed`, costs from the fitted generators, tuning seeds 1 to 8).
const WORK: [f32; 2] = [0.3, 1.5];

/// What a request takes itself counts for as its cost to this power, and within these bounds: the mean
/// of a class is not this request's, and whoever goes by it alone sends all that is dear to the
/// fastest. With true means the 99th percentile of `mixed-antagonists-busy` was 354 ms with up to ten
/// and no power, 325 with up to three, 308 with this power and up to five (the same generators, tuning
/// seeds 1 to 12).
const OWN_POWER: f32 = 0.7;
/// See [`OWN_POWER`].
const OWN: [f32; 2] = [0.4, 3.0];

/// Share of what a backend serves at once up to which one more request costs nothing. With all of
/// it, a queue is met as soon as the estimate is a little too high: in the simulator 0.75 had a 99th
/// percentile of 359 ms among antagonists where 1.0 had 364, 0.5 had 370, and 0 has 389.
const FREE_SHARE: f64 = 0.75;

/// What is under way at a backend, and what it can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Its weight for the request's class, of 65,535 for the heaviest: what it serves at once over
    /// what one request takes.
    pub weight: u16,
    /// What it serves at once before others wait; 0: unknown.
    pub concurrency: u16,
    /// Requests in flight, each counted as the work that others wait for.
    pub work: f64,
}

impl Load {
    /// How long a request would take that takes so much itself ([`own_time`]), on a scale of the pool's: its own time, and the
    /// wait for what is there beyond what is served at once. The least is chosen.
    ///
    /// For a request of cost one it is the larger of what is in flight with it and three quarters of
    /// what is served at once, over the weight.
    pub fn expected(&self, own: f64) -> f64 {
        let room = (FREE_SHARE * f64::from(self.concurrency)).max(1.0);
        let waits_for = (self.work.max(0.0) + 1.0 - room).max(0.0);
        (own * room + waits_for) / f64::from(self.weight.max(1))
    }
}

/// What a request of this cost takes itself, in what a mean request takes. It is the same at all
/// backends that one choice looks at, and asked once.
pub fn own_time(cost: f32) -> f64 {
    // One for what is no number, as if nothing were known.
    let cost = if cost.is_finite() { cost.max(0.0) } else { 1.0 };
    f64::from(cost.powf(OWN_POWER).clamp(OWN[0], OWN[1]))
}

/// What a request of this cost adds to the work that others wait for, beyond the one that its being
/// in flight counts for, in thousandths.
pub fn surplus_of(cost: f32) -> i64 {
    let work = if cost.is_finite() { cost.clamp(WORK[0], WORK[1]) } else { 1.0 };
    ((work - 1.0) * 1000.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(weight: u16, concurrency: u16, work: f64) -> Load {
        Load { weight, concurrency, work }
    }

    #[test]
    fn a_mean_request_waits_for_what_is_beyond_the_room() {
        let at = |work| load(1, 8, work).expected(1.0);
        assert_eq!([0.0, 5.0, 6.0, 11.0].map(at), [6.0, 6.0, 7.0, 12.0]);
        let unknown = |work| load(1, 0, work).expected(1.0);
        assert_eq!([0.0, 1.0, 6.0].map(unknown), [1.0, 2.0, 7.0]);
    }

    #[test]
    fn what_is_dear_prefers_the_fast_and_what_is_cheap_the_idle() {
        // The first takes half as long for a request, and three are waiting there.
        let (fast, idle) = (load(16, 8, 9.0), load(8, 8, 1.0));
        assert!(fast.expected(own_time(10.0)) < idle.expected(own_time(10.0)));
        assert!(idle.expected(own_time(0.1)) < fast.expected(own_time(0.1)) + 0.2);
        let (queue, idle) = (load(10, 8, 12.0), load(8, 8, 1.0));
        assert!(idle.expected(own_time(0.1)) < queue.expected(own_time(0.1)));
    }

    #[test]
    fn a_dear_request_in_flight_keeps_one_worker_busy_and_not_all() {
        let work = |cost| 1.0 + surplus_of(cost) as f64 / 1e3;
        assert_eq!([0.001, 1.0, 50.0].map(surplus_of), [-700, 0, 500]);
        let beside = load(8, 8, work(50.0)).expected(1.0);
        assert_eq!(beside, load(8, 8, 0.0).expected(1.0), "seven workers are idle");
    }

    #[test]
    fn a_cost_that_is_no_number_counts_as_one() {
        for cost in [f32::NAN, f32::INFINITY] {
            assert_eq!(surplus_of(cost), 0);
            assert_eq!(load(8, 8, 9.0).expected(own_time(cost)), load(8, 8, 9.0).expected(1.0));
        }
    }
}
