//! Errors on one line, for logs.

use std::error::Error;
use std::iter::successors;

/// An error followed by its causes.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let chain = successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
