//! `[pool.autoscale]`: who is told how many backends the pool wants.

use std::time::Duration;

use gateway_core::fleet::AutoscaleSpec;
use gateway_core::target::Webhook;

use super::section::Section;
use super::target::read_url;

const HOUR: Duration = Duration::from_secs(3_600);

/// Reads it; `None`: its webhook is wrong and noted.
pub(super) fn read(mut section: Section<'_, '_>) -> Option<AutoscaleSpec> {
    const EXAMPLE: &str = "http://127.0.0.1:8000/scale";
    let url = section.require::<String>("webhook", &format!("webhook = {EXAMPLE:?}"));
    let url = url.and_then(|text| read_url(&section, "webhook", &text, EXAMPLE));
    let timeout = section.within(
        "timeout",
        Duration::from_secs(5),
        Duration::from_millis(10)..=Duration::from_secs(60),
    );
    let step = section.within("step", 1, 1..=1_000);
    let interval =
        section.within("interval", Duration::from_secs(60), Duration::from_secs(1)..=HOUR);
    section.finish();
    Some(AutoscaleSpec { webhook: Webhook { url: url?, timeout }, step, interval })
}
