//! The packets of a capture file, traced one after the other.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::super::table::Table;
use super::capture::{self, Captured};
use super::told::Told;
use crate::dataplane::DataplaneError;

/// What is told of a file.
#[derive(Default, Serialize)]
struct Replay {
    packets: Vec<Line>,
    /// Packets by what became of them.
    verdicts: BTreeMap<&'static str, u64>,
    /// Packets that were not traced, by why.
    skipped: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct Line {
    number: u64,
    #[serde(flatten)]
    told: Told,
}

/// Traces up to `limit` packets, 0: all. What one leaves in the copied flow table, the next finds, so that
/// a captured connection is followed from its SYN on.
pub(super) fn run(
    path: &Path,
    limit: u64,
    json: bool,
    mut tell: impl FnMut(&[u8]) -> Result<Told, DataplaneError>,
) -> anyhow::Result<String> {
    let mut replay = Replay::default();
    capture::each(path, |Captured { number, frame }| {
        replay.add(number, frame.as_deref(), &mut tell)?;
        Ok(number != limit)
    })?;
    if json { Ok(format!("{}\n", serde_json::to_string(&replay)?)) } else { Ok(replay.render()) }
}

impl Replay {
    fn add(
        &mut self,
        number: u64,
        frame: Option<&[u8]>,
        tell: &mut impl FnMut(&[u8]) -> Result<Told, DataplaneError>,
    ) -> Result<(), DataplaneError> {
        let Some(frame) = frame else {
            *self.skipped.entry("neither Ethernet nor IP").or_default() += 1;
            return Ok(());
        };
        match tell(frame) {
            Ok(told) => {
                *self.verdicts.entry(told.verdict()).or_default() += 1;
                self.packets.push(Line { number, told });
            }
            Err(DataplaneError::FrameLen { .. }) => {
                *self.skipped.entry("of a length that cannot be tried out").or_default() += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn render(&self) -> String {
        let mut table = Table::new(&["PACKET", "FROM", "TO", "FLOW", "BACKEND", "VERDICT"]);
        for Line { number, told } in &self.packets {
            table.row(std::iter::once(number.to_string()).chain(told.cells()));
        }
        let counted = |counts: &BTreeMap<&str, u64>| {
            counts
                .iter()
                .map(|(what, count)| format!("{count} {what}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mut text = format!(
            "{}\n{} packets: {}\n",
            table.render(),
            self.packets.len(),
            counted(&self.verdicts)
        );
        if !self.skipped.is_empty() {
            text.push_str(&format!("not traced: {}\n", counted(&self.skipped)));
        }
        text
    }
}
