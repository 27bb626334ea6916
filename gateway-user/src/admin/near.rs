//! What `POST /v1/route` says of a request that is known by its prompt's beginning or its session: who
//! has got that before, and why the request goes there or not.

use gateway_core::affinity::{Affinity, Favourite};
use gateway_core::fleet::AffinitySpec;
use gateway_core::prefix;
use gateway_core::snapshot::Snapshot;
use serde::{Deserialize, Serialize};

use super::route::Route;

/// A request's favourite.
#[derive(Debug, Serialize, Deserialize)]
pub struct Near {
    /// What came of looking for it.
    pub result: Affinity,
    /// Who got the longest known beginning of the prompt last; `None`: nobody that is still there.
    pub favourite: Option<String>,
    /// Requests that it has in flight.
    pub in_flight: u64,
    /// Most that its part of the pool's weight lets it have, this one included; 0: it takes none.
    pub in_flight_max: u64,
    /// Why it is taken or not.
    pub why: String,
}

/// The blocks that a described prompt begins with.
pub(super) fn blocks(asked: &Route) -> Vec<u64> {
    let mut text = Vec::new();
    asked.prompt.iter().for_each(|said| prefix::append(&mut text, said));
    prefix::blocks(asked.model.as_deref().unwrap_or_default(), &text)
}

/// Of a pool whose requests have favourites.
pub(super) fn near(
    snapshot: &Snapshot,
    pool: usize,
    affinity: &AffinitySpec,
    found: &Favourite,
) -> Near {
    let Favourite { backend, found: result, in_flight, in_flight_max } = *found;
    let favourite = backend.and_then(|backend| snapshot.backend_name(pool, backend.row));
    let why = match result {
        Affinity::None => unknown(affinity),
        Affinity::Kept => {
            "of what its weight lets it have in flight there is room for this one".into()
        }
        Affinity::Full => format!(
            "it has {in_flight} in flight, and its weight lets it have {in_flight_max} \
             (`affinity_load_max` is {})",
            affinity.load_max
        ),
        Affinity::New | Affinity::Away => result.words().unwrap_or_default().to_owned(),
    };
    Near { result, favourite: favourite.map(str::to_owned), in_flight, in_flight_max, why }
}

/// Why a request has no favourite where others have.
fn unknown(affinity: &AffinitySpec) -> String {
    match (affinity.by_prefix, &affinity.header) {
        (true, _) => {
            format!("its `prompt` is not given, or shorter than {} bytes", prefix::BLOCK_BYTES)
        }
        (false, Some(header)) => format!("its `session`, which `{header}` says, is not given"),
        (false, None) => "the pool's requests have none".to_owned(),
    }
}
