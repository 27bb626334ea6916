use super::*;

const N: usize = fault::FEATURES.len();

fn leaf(share: f32) -> Node {
    Node { feature: 0, threshold: 0.0, low: 0, high: 0, share }
}

/// One split at a half of the feature: above it is faulty.
fn stump(feature: u16) -> Vec<Node> {
    let root = Node { feature, threshold: 0.5, low: 1, high: 2, share: 0.3 };
    vec![root, leaf(0.1), leaf(0.9)]
}

fn spec() -> ForestSpec {
    ForestSpec {
        version: "1".to_owned(),
        schema: fault::schema(),
        suspicious_from: 0.5,
        calibration: vec![[0.0, 0.0], [0.3, 0.4], [0.8, 1.0]],
        familiar: vec![[-1.0, 1.0]; N],
        trees: vec![stump(3), stump(7)],
    }
}

fn vector(three: f32, seven: f32) -> fault::Vector {
    let mut vector = [0.0; N];
    (vector[3], vector[7]) = (three, seven);
    vector
}

#[test]
fn an_answer_is_the_calibrated_mean_of_the_leaves() {
    let forest = Forest::new(spec()).unwrap();
    let answers = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)].map(|(a, b)| forest.ask(&vector(a, b)));
    for (answer, (raw, probability)) in answers.iter().zip([(0.1, 0.0), (0.5, 0.4), (0.9, 1.0)]) {
        assert!((answer.raw - raw).abs() < 1e-6 && answer.probability == probability, "{answer:?}");
    }
}

#[test]
fn contributions_add_up_to_the_way_from_the_roots_to_the_leaves() {
    let forest = Forest::new(spec()).unwrap();
    let asked = vector(1.0, 0.0);
    let contributions = forest.contributions(&asked);
    assert!((contributions[3] - 0.3).abs() < 1e-6 && (contributions[7] + 0.1).abs() < 1e-6);
    let sum: f32 = contributions.iter().sum();
    assert!((0.3 + sum - forest.ask(&asked).raw).abs() < 1e-6);
}

#[test]
fn inputs_outside_of_the_training_data_are_strange() {
    let forest = Forest::new(spec()).unwrap();
    assert!(forest.is_familiar(&vector(1.0, -1.0)));
    assert!(!forest.is_familiar(&vector(1.1, 0.0)));
    assert!(!forest.is_familiar(&vector(f32::NAN, 0.0)));
}

#[test]
fn a_damaged_forest_is_refused() {
    type Damage = fn(&mut ForestSpec);
    let refused = |damage: Damage| {
        let mut spec = spec();
        damage(&mut spec);
        Forest::new(spec).is_err()
    };
    let damages: [(&str, Damage); 14] = [
        ("no trees", |spec| spec.trees.clear()),
        ("an empty tree", |spec| spec.trees[1].clear()),
        ("too many trees", |spec| spec.trees = vec![stump(0); TREES_MAX + 1]),
        ("a circle", |spec| spec.trees[0][0].low = 0),
        ("a child of its own", |spec| spec.trees[0][1] = Node { low: 1, high: 2, ..leaf(0.1) }),
        ("a child out of the tree", |spec| spec.trees[0][0].high = 3),
        ("an unknown feature", |spec| spec.trees[0][0].feature = N as u16),
        ("a leaf that is no number", |spec| spec.trees[1][2].share = f32::NAN),
        ("a leaf above one", |spec| spec.trees[1][2].share = 1.5),
        ("an endless threshold", |spec| spec.trees[1][0].threshold = f32::INFINITY),
        ("no calibration", |spec| spec.calibration.clear()),
        ("a calibration that falls", |spec| spec.calibration[2][1] = 0.3),
        ("a range too few", |spec| {
            spec.familiar.pop();
        }),
        ("another schema", |spec| spec.schema.version += 1),
    ];
    assert!(!refused(|_| {}));
    for (name, damage) in damages {
        assert!(refused(damage), "{name}");
    }
}

#[test]
fn a_file_gives_the_same_forest_and_half_a_file_none() {
    let text = serde_json::to_string(&spec()).unwrap();
    assert_eq!(serde_json::from_str::<ForestSpec>(&text).unwrap(), spec());
    assert!(serde_json::from_str::<ForestSpec>(&text[..text.len() / 2]).is_err());
}
