//! A split of a pool's load that depends on how much of it is forecast: computed and shown beside the
//! weights that count, and judged in the simulator.
//!
//! Weights in proportion to what backends can do keep all of them equally busy, however little there
//! is to do. With little to do that sends requests to slow backends while fast ones are idle: if each
//! backend answers like a queue of its own that can do `μ` and gets `λ`, requests wait least on
//! average where `λ = μ - √μ · (Σμ - Λ) / Σ√μ` over those that get any, for a whole load of `Λ`
//! (Bell and Stidham, "Individual versus social optimization in the allocation of customers to
//! alternative servers", Management Science 29, 1983).

/// The share of each backend, `0..=1`, of a load for which they can do so much, requests a second.
/// At or over what they can do together: in proportion to that.
pub(crate) fn split(abilities: &[f64], load: f64) -> Vec<f64> {
    let whole: f64 = abilities.iter().sum();
    if !(load > 0.0 && load < whole) {
        return abilities.iter().map(|ability| ability / whole).collect();
    }
    // The slowest get nothing where they would get less than that: those that do are found from the
    // fastest on.
    let mut fastest: Vec<usize> = (0..abilities.len()).collect();
    fastest.sort_unstable_by(|a, b| abilities[*b].total_cmp(&abilities[*a]));
    let (mut rates, mut roots) = (0.0, 0.0);
    let mut slack = 0.0;
    let mut used = 0;
    for at in &fastest {
        let ability = abilities[*at];
        // What one more square root of ability is worth, with those before it alone.
        if used > 0 && rates > load && ability.sqrt() <= slack {
            break;
        }
        rates += ability;
        roots += ability.sqrt();
        slack = (rates - load) / roots;
        used += 1;
    }
    let mut shares = vec![0.0; abilities.len()];
    for at in &fastest[..used] {
        let ability = abilities[*at];
        shares[*at] = ((ability - ability.sqrt() * slack) / load).max(0.0);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean time that a request takes, each backend being a queue of its own.
    fn mean_time(abilities: &[f64], shares: &[f64], load: f64) -> f64 {
        let of = |(ability, share): (&f64, &f64)| share / (ability - share * load);
        abilities.iter().zip(shares).filter(|(_, share)| **share > 0.0).map(of).sum()
    }

    #[test]
    fn shares_are_a_whole_and_nobody_gets_more_than_it_can() {
        let abilities = [100.0, 50.0, 10.0, 1.0];
        for load in [0.1, 1.0, 30.0, 80.0, 120.0, 160.0, 161.0, 400.0] {
            let shares = split(&abilities, load);
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{load}: {shares:?}");
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{load}: {shares:?}");
            if load < 161.0 {
                let holds = |(share, ability): (&f64, &f64)| share * load < *ability;
                assert!(shares.iter().zip(&abilities).all(holds), "{load}: {shares:?}");
            }
        }
    }

    #[test]
    fn with_little_to_do_the_fast_do_it_and_with_much_all_do_what_they_can() {
        let abilities = [100.0, 10.0];
        assert_eq!(split(&abilities, 1.0), [1.0, 0.0]);
        let shares = split(&abilities, 109.9);
        assert!((shares[1] - 10.0 / 110.0).abs() < 1e-3, "{shares:?}");
        assert_eq!(split(&abilities, 500.0), [100.0 / 110.0, 10.0 / 110.0]);
        assert_eq!(split(&[20.0, 20.0], 10.0), [0.5, 0.5]);
    }

    #[test]
    fn no_other_split_nearby_is_faster() {
        let abilities = [100.0, 60.0, 30.0];
        for load in [40.0, 100.0, 170.0] {
            let best = split(&abilities, load);
            let time = mean_time(&abilities, &best, load);
            for from in 0..3 {
                for to in 0..3 {
                    let mut other = best.clone();
                    let moved = 0.01f64.min(other[from]);
                    other[from] -= moved;
                    other[to] += moved;
                    let slower = mean_time(&abilities, &other, load);
                    assert!(slower >= time - 1e-12, "{load}: {other:?} beats {best:?}");
                }
            }
        }
    }
}
