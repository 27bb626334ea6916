//! Size-interval task assignment: cheap requests go to some backends and dear ones to others, so that
//! nobody waits for one that takes fifty times as long (Harchol-Balter, Crovella, Murta, "On Choosing a
//! Task Assignment Policy for a Distributed Server System", JPDC 1999). Within a group, P2C.
//!
//! It is told what classes of requests could tell at best: the true mean cost of each profile, and what
//! each backend can do. Whether classes would pay in such a use is what it is here for.

use gateway_common::hash::mix;

use super::super::scenario::{Scenario, ServerSpec};
use super::super::traffic::{ClassSpec, ProfileSpec};
use super::Ask;
use super::competitor::{Choice, Picker, scale};
use super::least::P2c;

/// How backends are dealt out to sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeGroups {
    /// How many groups of backends there are.
    pub count: usize,
    /// Whether dear requests go to the fast backends, rather than to the slow ones.
    pub dear_to_fast: bool,
    /// Load of the group of the cheapest requests, relative to all: 1 for SITA-E, below for SITA-U,
    /// which lets the many wait less than the few.
    pub cheap_load: f64,
}

/// Backends of a group, and where its part of all work ends.
#[derive(Debug)]
struct Group {
    end: f64,
    servers: Vec<usize>,
}

/// See the module.
pub(super) struct Sita {
    /// Where each profile's part of all work lies, by class and profile, the cheapest first: `0..=1`.
    parts: Vec<Vec<(f64, f64)>>,
    groups: Vec<Group>,
}

impl Sita {
    pub(super) fn new(spec: SizeGroups, scenario: &Scenario, servers: &[ServerSpec]) -> Sita {
        Sita { parts: parts(&scenario.classes), groups: groups(spec, servers) }
    }
}

/// Cuts all work into the parts of profiles, in the order of what one request of them costs.
fn parts(classes: &[ClassSpec]) -> Vec<Vec<(f64, f64)>> {
    let of_class = |(class, spec): (usize, &ClassSpec)| {
        let shares: f64 = spec.profiles.iter().map(|profile| profile.share).sum();
        let of_profile = |(profile, own): (usize, &ProfileSpec)| {
            let mean = own.cost.mean();
            (mean, mean * spec.share * own.share / shares, class, profile)
        };
        spec.profiles.iter().enumerate().map(of_profile).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = classes.iter().enumerate().flat_map(of_class).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let work: f64 = all.iter().map(|(_, work, ..)| work).sum();
    let mut parts: Vec<Vec<(f64, f64)>> =
        classes.iter().map(|class| vec![(0.0, 0.0); class.profiles.len()]).collect();
    let mut at = 0.0;
    for (_, own, class, profile) in all {
        parts[class][profile] = (at, at + own / work);
        at += own / work;
    }
    parts
}

/// Groups of about the same capacity, with the parts of all work that they take.
fn groups(spec: SizeGroups, servers: &[ServerSpec]) -> Vec<Group> {
    let mut order: Vec<usize> = (0..servers.len()).collect();
    order.sort_by(|a, b| servers[*a].speed.total_cmp(&servers[*b].speed));
    if !spec.dear_to_fast {
        order.reverse();
    }
    let all: f64 = servers.iter().map(ServerSpec::requests_per_second).sum();
    let mut groups: Vec<Group> =
        (0..spec.count).map(|_| Group { end: 0.0, servers: Vec::new() }).collect();
    let mut before = 0.0;
    for server in order {
        let own = servers[server].requests_per_second() / all;
        // By its middle, so that a large backend goes where most of it fits.
        let group = ((before + own / 2.0) * spec.count as f64) as usize;
        before += own;
        groups[group].servers.push(server);
        groups[group].end = before;
    }
    groups.retain(|group| !group.servers.is_empty());
    lighten(&mut groups, spec.cheap_load);
    groups
}

/// Gives the first group this many times its part of the work, and the others what is left of theirs.
fn lighten(groups: &mut [Group], cheap_load: f64) {
    let Some(first) = groups.first().map(|group| group.end).filter(|end| *end < 1.0) else {
        return;
    };
    let end = first * cheap_load;
    let stretched = |at: f64| end + (at - first) / (1.0 - first) * (1.0 - end);
    groups.iter_mut().for_each(|group| group.end = stretched(group.end));
}

impl Picker for Sita {
    fn pick(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) -> usize {
        let (from, to) =
            self.parts[usize::from(ask.request.class)][usize::from(ask.request.profile)];
        let at =
            from + (to - from) * (scale(mix(ask.hash) as u32, 1 << 20) as f64 / f64::from(1 << 20));
        let group = self.groups.iter().find(|group| at < group.end).or(self.groups.last());
        let is_own = |server: &usize| group.is_some_and(|group| group.servers.contains(server));
        let own: Vec<usize> = choice.eligible.iter().copied().filter(is_own).collect();
        let eligible = if own.is_empty() { choice.eligible } else { &own };
        P2c.pick(ask, &Choice { eligible, ..*choice })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::traffic::Cost;
    use super::*;

    fn servers(speeds: &[f64]) -> Vec<ServerSpec> {
        speeds.iter().map(|speed| ServerSpec { speed: *speed, ..ServerSpec::default() }).collect()
    }

    #[test]
    fn work_is_cut_in_the_order_of_what_requests_cost() {
        let dear = ClassSpec::new("dear", 0.1, Cost::Fixed(9.0));
        let cheap = ClassSpec::new("cheap", 0.9, Cost::Fixed(1.0));
        let parts = parts(&[dear, cheap]);
        assert!((parts[1][0].1 - 0.5).abs() < 1e-9 && parts[1][0].0 == 0.0, "{parts:?}");
        assert!((parts[0][0].0 - 0.5).abs() < 1e-9 && (parts[0][0].1 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn groups_take_work_by_what_their_backends_can_do() {
        let of = |dear_to_fast, cheap_load| {
            let spec = SizeGroups { count: 2, dear_to_fast, cheap_load };
            groups(spec, &servers(&[3.0, 1.0, 1.0, 1.0]))
        };
        let even = of(true, 1.0);
        assert_eq!(even[0].servers, [1, 2, 3]);
        assert!((even[0].end - 0.5).abs() < 1e-9 && (even[1].end - 1.0).abs() < 1e-9, "{even:?}");
        assert_eq!(of(false, 1.0)[0].servers, [0]);
        let light = of(true, 0.8);
        assert!((light[0].end - 0.4).abs() < 1e-9 && (light[1].end - 1.0).abs() < 1e-9);
    }
}
