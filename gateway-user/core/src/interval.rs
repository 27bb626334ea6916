//! How sure a share is that was counted.

/// The Wilson score interval of a share `hits` of `all`, `z` standard deviations wide to either
/// side (Wilson, JASA 1927): unlike the plain one it holds for few samples and for shares near
/// zero. Of nothing it is everything.
pub(crate) fn wilson(hits: f64, all: f64, z: f64) -> (f64, f64) {
    if all <= 0.0 {
        return (0.0, 1.0);
    }
    let share = hits / all;
    let centre = share + z * z / (2.0 * all);
    let half = z * (share * (1.0 - share) / all + z * z / (4.0 * all * all)).sqrt();
    let scale = 1.0 + z * z / all;
    ((centre - half) / scale, (centre + half) / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_share_is_wilsons() {
        // 8 of 20 at z = 1.96: Newcombe, Statistics in Medicine 1998.
        let (low, high) = wilson(8.0, 20.0, 1.96);
        assert!((low - 0.2188).abs() < 1e-3 && (high - 0.6134).abs() < 1e-3, "{low} {high}");
    }
}
