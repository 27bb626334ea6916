//! How many tests passed, read from what the test runner wrote.

use std::fmt;
use std::ops::AddAssign;

/// Tests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// They ran and passed.
    pub(crate) passed: u64,
    /// They ran and failed, or did not end in time.
    pub(crate) failed: u64,
    /// They did not run.
    pub(crate) skipped: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The count of a run of nextest: `Summary [ 1.2s] 9 tests run: 7 passed (1 slow), 1 failed,
/// 1 timed out, 4 skipped`. What nextest calls skipped was filtered out, which is another tier's
/// matter. `None` without such a line.
pub(crate) fn of_nextest(output: &str) -> Option<Count> {
    let line = output.lines().rev().find(|line| line.trim_start().starts_with("Summary ["))?;
    let (_, outcomes) = line.split_once("run:")?;
    let mut count = Count::default();
    for (number, word) in numbers(outcomes) {
        match word {
            "passed" => count.passed += number,
            // `timed out`, `exec failed`
            "failed" | "timed" | "exec" => count.failed += number,
            _ => {}
        }
    }
    Some(count)
}

/// The count of a run of `cargo test`, over all its binaries; `None` if it came to no result.
pub(crate) fn of_cargo_test(output: &str) -> Option<Count> {
    let mut count = None;
    for line in output.lines().filter_map(|line| line.strip_prefix("test result:")) {
        let count = count.get_or_insert_with(Count::default);
        for (number, word) in numbers(line) {
            match word {
                "passed" => count.passed += number,
                "failed" => count.failed += number,
                "ignored" => count.skipped += number,
                _ => {}
            }
        }
    }
    count
}

/// Every number with the word that follows it.
fn numbers(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let pairs: Vec<_> =
        words.windows(2).filter_map(|pair| Some((pair[0].parse().ok()?, pair[1]))).collect();
    pairs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextests_summary_is_understood() {
        let output = "noise\n     Summary [   1.2s] 10 tests run: 7 passed (1 slow, 2 flaky), \
                      1 failed, 1 timed out, 1 exec failed, 4 skipped\nerror: test run failed";
        let count = Count { passed: 7, failed: 3, skipped: 0 };
        assert_eq!(of_nextest(output), Some(count));
        let one = "     Summary [   0.0s] 1 test run: 1 passed, 0 skipped";
        assert_eq!(of_nextest(one), Some(Count { passed: 1, ..Count::default() }));
        assert_eq!(of_nextest("error: could not compile"), None);
    }

    #[test]
    fn cargo_tests_results_are_added_up() {
        let output = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out\n\
                      test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(of_cargo_test(output), Some(Count { passed: 4, failed: 2, skipped: 1 }));
        assert_eq!(of_cargo_test("error: could not compile"), None);
    }

    #[test]
    fn the_form_is_the_runners() {
        let count = Count { passed: 12, failed: 0, skipped: 3 };
        assert_eq!(count.to_string(), "12 passed, 0 failed, 3 skipped");
    }
}
