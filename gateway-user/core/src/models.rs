//! The models that an engine asks, which all pools share; what a pool has learnt by itself is in
//! `learning`.
//!
//! Models come from files and are replaced while the loop turns; each has a field here.

use std::sync::Arc;

use crate::fault::Forest;

/// The models at hand.
#[derive(Clone, Debug, Default)]
pub struct Models {
    /// Which backends are faulty.
    pub fault: Option<Arc<Forest>>,
}
