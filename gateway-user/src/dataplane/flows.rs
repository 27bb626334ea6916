//! The flow table in memory: `FLOWS`, `TAGS` and `RETURNS`, shared with the program.

use std::io;
use std::os::fd::AsFd;

use gateway_common::flows::AtomicTable;

use super::mmap::MappedArray;

/// The three maps.
#[derive(Debug)]
pub struct FlowMaps {
    flows: MappedArray,
    tags: MappedArray,
    returns: MappedArray,
}

impl FlowMaps {
    /// Maps them, for `flows_max` flows.
    ///
    /// # Errors
    ///
    /// One of the maps is smaller than that, or cannot be mapped.
    pub fn new(
        flows: impl AsFd,
        tags: impl AsFd,
        returns: impl AsFd,
        flows_max: u32,
    ) -> io::Result<FlowMaps> {
        let [flow_words, tag_words, return_words] = AtomicTable::words(flows_max);
        Ok(FlowMaps {
            flows: MappedArray::new(flows, flow_words)?,
            tags: MappedArray::new(tags, tag_words)?,
            returns: MappedArray::new(returns, return_words)?,
        })
    }

    /// Makes these what `others` of the same size are. Packets change those meanwhile, so a line may be
    /// half one flow and half the next, as packets themselves may find it.
    pub(super) fn copy(&self, others: &FlowMaps) {
        self.flows.copy(&others.flows);
        self.tags.copy(&others.tags);
        self.returns.copy(&others.returns);
    }

    /// The table that they are.
    pub fn table(&self) -> AtomicTable<'_> {
        AtomicTable::new(self.flows.words(), self.tags.words(), self.returns.words())
    }
}
