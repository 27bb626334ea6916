use super::*;
use crate::classes::Profile;
use crate::classes::table::{PROFILES_MAX, ProfileTable};
use crate::cluster::Point;

/// Classes of profiles that cost so much (ms), each with as many requests as is said.
fn fit(profiles: &[(u64, f64, u32)], before: &ClassView) -> ClassView {
    let mut table = ProfileTable::default();
    for (id, ms, requests) in profiles {
        let profile = Profile { id: *id, ..Profile::default() };
        (0..*requests).for_each(|_| table.add(&profile, (ms / 1000.0).ln(), 1.0));
    }
    let rows = table.rows().copied().collect();
    let before = Arc::new(before.clone());
    let job = FitJob { pool: 0, rows, before, clusterer: Arc::new(GAPS), seed: 1 };
    job.run().view.unwrap()
}

fn class_of(view: &ClassView, id: u64) -> (u8, f32) {
    let class = view.of(&Profile { id, ..Profile::default() }).unwrap();
    (class.id, class.cost)
}

const SHOP: [(u64, f64, u32); 6] =
    [(1, 1.0, 100), (2, 1.2, 80), (3, 10.0, 50), (4, 11.0, 40), (5, 300.0, 4), (6, 350.0, 2)];

#[test]
fn as_few_classes_are_made_as_explain_the_costs() {
    let view = fit(&SHOP, &ClassView::default());
    assert_eq!(view.classes().len(), 3);
    assert_eq!([1, 2, 3, 4, 5, 6].map(|id| class_of(&view, id).0), [0, 0, 1, 1, 2, 2]);
}

#[test]
fn profiles_too_many_for_rows_of_their_own_have_the_class_of_the_rest() {
    // As many dear ones that come once as there are rows, twice, beside two that come often.
    let seldom = (10..10 + 2 * PROFILES_MAX as u64).map(|id| (id, 300.0, 1));
    let all: Vec<_> = [(1, 1.0, 900), (2, 1.2, 900)].into_iter().chain(seldom).collect();
    let view = fit(&all, &ClassView::default());
    assert_eq!(view.profiles(), PROFILES_MAX);
    assert_eq!(
        view.classes().iter().map(|class| class.profiles).sum::<u32>() as usize,
        PROFILES_MAX
    );
    assert_eq!(class_of(&view, 10).0, class_of(&view, 99_999).0);
    assert!(class_of(&view, 99_999).1 > 2.0, "{:?}", view.classes());
}

#[test]
fn the_mean_request_costs_one() {
    let view = fit(&SHOP, &ClassView::default());
    let mean: f32 = view.classes().iter().map(|class| class.share * class.cost).sum();
    assert!((mean - 1.0).abs() < 1e-3, "{mean}");
    assert!(class_of(&view, 5).1 > 20.0);
}

#[test]
fn profiles_that_cost_alike_are_one_class() {
    let view = fit(&[(1, 10.0, 50), (2, 11.0, 50)], &ClassView::default());
    assert_eq!(view.classes().len(), 1);
    assert_eq!(class_of(&view, 2), (0, 1.0));
}

#[test]
fn a_class_keeps_its_number_over_a_refit_on_similar_data() {
    let before = fit(&SHOP, &ClassView::default());
    let slower = SHOP.map(|(id, ms, requests)| (id, ms * 1.3, requests + 10));
    let after = fit(&slower, &before);
    for id in 1..=6 {
        assert_eq!(class_of(&after, id).0, class_of(&before, id).0, "profile {id}");
    }
}

#[test]
fn a_class_that_appears_takes_a_free_number_and_leaves_the_others_theirs() {
    let before = fit(&SHOP, &ClassView::default());
    let more = [&SHOP[..], &[(7, 0.01, 50), (8, 0.012, 50)]].concat();
    let after = fit(&more, &before);
    assert_eq!([1, 3, 5].map(|id| class_of(&after, id).0), [0, 1, 2]);
    assert_eq!(class_of(&after, 7).0, 3);
    assert_eq!(after.classes()[0].id, 3, "the list is in the order of cost all the same");
}

#[test]
fn a_clusterer_that_cannot_say_leaves_things_as_they_were() {
    #[derive(Debug)]
    struct Mute;
    impl Clusterer for Mute {
        fn version(&self) -> &str {
            "mute"
        }
        fn cluster(&self, _: &[Point], _: &[f64], _: usize, _: u64) -> Option<Vec<Point>> {
            None
        }
    }
    let mut table = ProfileTable::default();
    table.add(&Profile { id: 1, ..Profile::default() }, 0.0, 1.0);
    table.add(&Profile { id: 2, ..Profile::default() }, 5.0, 1.0);
    let rows = table.rows().copied().collect();
    let job = FitJob { pool: 0, rows, before: Arc::default(), clusterer: Arc::new(Mute), seed: 1 };
    assert!(job.run().view.is_none());
}
