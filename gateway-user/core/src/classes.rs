//! Which requests are alike, and what they cost.
//!
//! ```text
//! request ─► facts ─► view: class, expected cost ─► choice of a backend
//!                                                     │ what it took
//! view ◄─ fit ◄─ K-means ◄─ table of profiles ◄───────┘
//! ```
//!
//! A request is known by its *profile* (method, path template, tenant or model, size); what
//! profiles cost is learnt from what their requests took. K-means makes few classes of them, so that
//! a profile that was seen seldom, or never, has a cost as well. What the proxy reads is an immutable
//! [`ClassView`], published with the snapshot.

mod facts;
mod fit;
mod learner;
mod pace;
mod saved;
mod table;
mod view;

pub use crate::cluster::{Clusterer, Point};
pub use facts::{RequestFacts, SEGMENTS_MAX, template};
pub use fit::{Fit, FitJob};
pub(crate) use learner::Classes;
pub(crate) use pace::Pace;
pub use pace::PaceSeen;
pub use saved::SavedClasses;
pub use table::{PROFILES_MAX, ProfileRow, ProfileTable};
pub use view::{ClassSummary, ClassView, Classified, Profile};

/// Classes of requests at most: of the eight weight vectors the last is the control group's, and the
/// one before it is left for an operator's own.
pub const CLASSES_MAX: usize = 6;
