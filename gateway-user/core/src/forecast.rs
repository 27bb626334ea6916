//! How much load will come, by quantiles: of the pool and of each backend, seconds to minutes ahead.
//!
//! ```text
//! counts ─► rates a step ─► features (`features::load`) ─► LSTM ──► quantiles ─┐
//!                 └────────► EWMA ─────────────────────────────────► quantiles ┤
//!                                         conformal correction, either's own ◄─┘
//!                                         loss of both, once the future has come ─► the seat
//! ```
//!
//! The model steps once a minute, as its training data does; the EWMA alone says what the next ten
//! seconds bring. Whose bands are used is the ladder's to say, for all minutes' horizons at once.

mod ability;
mod autoscale;
mod bands;
mod conformal;
mod forecaster;
mod outlook;
mod series;
mod split;

pub use ability::Ability;
pub(crate) use ability::{Abilities, Worked};
pub(crate) use autoscale::Announcer;
pub use autoscale::{Hint, Wanted, WantedAhead};
pub use bands::{Band, Bands, HORIZONS, Horizon, QUANTILES, Source};
pub use forecaster::{ForecastError, ForecastSpec, Forecaster, OUTPUT_MAX, OUTPUTS};
pub(crate) use outlook::{Asking, Forecasts};
pub use outlook::{HorizonReport, Outlook, Report, SavedMember, Score};
pub use series::{Issued, MODEL_PACE, Pace, QUICK_PACE, SavedSeries, Scored, Series};
pub(crate) use split::split;
