//! The L7 path: an HTTP/1.1 proxy that picks a backend for each request by the same load and the
//! same weights as the XDP program picks one for each flow, and reports how each try ended.
//!
//! Every traffic thread (`thread`, `worker`) has its own listeners (`downstream`) and
//! connections to backends (`upstream`), and shares with the others only what is read (the
//! snapshot, the rows) or counted. A request's journey is in `service` and `exchange`;
//! `attempt` holds the guards that account for it however it ends; `body` passes bytes on as
//! they come; `head` says what happens to headers; `peek` and `prompt` look into the bodies of requests
//! to language models before a backend is chosen.

mod attempt;
mod body;
mod downstream;
mod error;
mod exchange;
mod facts;
mod head;
mod listen;
mod metrics;
mod note;
mod options;
mod orca;
mod peek;
pub mod prompt;
mod proxy;
mod reply;
mod service;
mod stall;
mod thread;
mod upstream;
mod view;
mod worker;

pub use self::error::L7Error;
pub use self::metrics::Metrics;
pub use self::options::Options;
pub use self::proxy::{Drained, Proxy, Resets};
