//! Tries under way, by number.

use gateway_common::clock::KtimeNs;

use super::traffic::Request;

/// A try's place and its place's generation: the name of one that ended names no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TryId {
    place: u32,
    generation: u32,
}

/// One try of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) request: Request,
    /// Which one of the request's.
    pub(super) turn: u64,
    /// Who sent it.
    pub(super) front: usize,
    /// Index of its server in the scenario.
    pub(super) server: usize,
    pub(super) started: KtimeNs,
    /// Requests in flight at the server when it arrived.
    pub(super) rif: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Tries {
    places: Vec<(u32, Option<Try>)>,
    free: Vec<u32>,
}

impl Tries {
    pub(super) fn add(&mut self, new: Try) -> TryId {
        match self.free.pop() {
            Some(place) => {
                let slot = &mut self.places[place as usize];
                slot.1 = Some(new);
                TryId { place, generation: slot.0 }
            }
            None => {
                self.places.push((0, Some(new)));
                TryId { place: self.places.len() as u32 - 1, generation: 0 }
            }
        }
    }

    pub(super) fn take(&mut self, id: TryId) -> Option<Try> {
        let slot = self.places.get_mut(id.place as usize)?;
        if slot.0 != id.generation {
            return None;
        }
        let taken = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(id.place);
        Some(taken)
    }

    pub(super) fn get(&self, id: TryId) -> Option<&Try> {
        let slot = self.places.get(id.place as usize)?;
        slot.1.as_ref().filter(|_| slot.0 == id.generation)
    }

    pub(super) fn contains(&self, id: TryId) -> bool {
        self.places.get(id.place as usize).is_some_and(|slot| slot.0 == id.generation)
    }

    /// Those at one server.
    pub(super) fn at(&self, server: usize) -> Vec<TryId> {
        let all = self.places.iter().enumerate();
        all.filter(|(_, (_, there))| there.is_some_and(|there| there.server == server))
            .map(|(place, (generation, _))| TryId { place: place as u32, generation: *generation })
            .collect()
    }
}
