//! What is asked for: paths, each for its share of the requests.

use std::sync::Arc;

use anyhow::{Result, bail};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Tells the stream of paths from the stream of arrivals under the same seed.
const STREAM: u64 = 0x006d_6978;

/// Draws a path for each request.
pub(crate) struct Mix {
    /// Each with the sum of the shares up to and with its own.
    paths: Vec<(Arc<str>, f64)>,
    random: SmallRng,
}

impl Mix {
    /// These paths with these shares.
    ///
    /// # Errors
    /// There is none, or a share is not positive.
    pub(crate) fn new(paths: Vec<(String, f64)>, seed: u64) -> Result<Mix> {
        if paths.is_empty() || paths.iter().any(|(_, share)| !(*share > 0.0 && share.is_finite())) {
            bail!("--path: write SHARE=PATH with a positive share, such as 0.2=/work?cost=5");
        }
        let mut sum = 0.0;
        let paths = paths.into_iter().map(|(path, share)| {
            sum += share;
            (Arc::from(path), sum)
        });
        let paths = paths.collect();
        Ok(Mix { paths, random: SmallRng::seed_from_u64(seed ^ STREAM) })
    }

    /// The next request's.
    pub(crate) fn next(&mut self) -> Arc<str> {
        let last = self.paths.len() - 1;
        let at = self.random.random::<f64>() * self.paths[last].1;
        let found = self.paths.partition_point(|(_, sum)| *sum <= at).min(last);
        Arc::clone(&self.paths[found].0)
    }
}

/// Reads `SHARE=PATH`.
///
/// # Errors
/// Another form.
pub(crate) fn parse_path(text: &str) -> Result<(String, f64), String> {
    let form = || format!("`{text}`: write SHARE=PATH, such as 0.2=/work?cost=5");
    let (share, path) = text.split_once('=').ok_or_else(form)?;
    if !path.starts_with('/') {
        return Err(form());
    }
    Ok((path.to_owned(), share.parse().map_err(|_| form())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_get_their_shares_and_a_seed_their_order() {
        let drawn = |seed| {
            let paths = vec![("/a".to_owned(), 3.0), ("/b".to_owned(), 1.0)];
            let mut mix = Mix::new(paths, seed).unwrap();
            (0..10_000).map(|_| mix.next()).collect::<Vec<_>>()
        };
        let share = drawn(1).iter().filter(|path| &***path == "/b").count() as f64 / 1e4;
        assert!((share - 0.25).abs() < 0.02, "{share}");
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }

    #[test]
    fn a_path_is_read_with_its_share() {
        let read = parse_path("0.2=/work?cost=5").unwrap();
        assert_eq!(read, ("/work?cost=5".to_owned(), 0.2));
        assert!(parse_path("/work").is_err() && parse_path("0.2=work").is_err());
        assert!(Mix::new(vec![("/".to_owned(), 0.0)], 1).is_err());
        assert!(Mix::new(Vec::new(), 1).is_err());
    }
}
