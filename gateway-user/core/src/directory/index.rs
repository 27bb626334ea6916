//! Numbers in a bounded table, each handed out as late as possible after it was last in use.

use std::collections::BTreeSet;

/// Hands out indexes under `len`.
#[derive(Clone, Debug)]
pub(super) struct Indexes {
    len: u32,
    taken: BTreeSet<u32>,
    cursor: u32,
}

impl Indexes {
    /// None taken.
    pub(super) fn new(len: u32) -> Indexes {
        Indexes { len, taken: BTreeSet::new(), cursor: 0 }
    }

    /// The same table with only `taken` in use.
    pub(super) fn with_taken(&self, taken: impl IntoIterator<Item = u32>) -> Indexes {
        Indexes { len: self.len, taken: taken.into_iter().collect(), cursor: self.cursor }
    }

    /// The next free index after the one handed out last, so that a freed one rests as long as
    /// the table's size allows. `None`: all are taken.
    pub(super) fn take(&mut self) -> Option<u32> {
        let after = self.cursor..self.len;
        let index = after.chain(0..self.cursor).find(|index| !self.taken.contains(index))?;
        self.taken.insert(index);
        self.cursor = (index + 1) % self.len;
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_index_rests_until_the_others_were_used() {
        let mut indexes = Indexes::new(3);
        assert_eq!(indexes.take(), Some(0));
        indexes = indexes.with_taken([]);
        assert_eq!(indexes.take(), Some(1));
        assert_eq!(indexes.take(), Some(2));
        assert_eq!(indexes.take(), Some(0));
        assert_eq!(indexes.take(), None);
    }
}
