//! The guard's lists in the kernel's tries.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use gateway_common::clock::KtimeNs;
use gateway_common::guard::List;
use gateway_common::layout::{ChallengeKeys, Settings, map_name, setting_flag};
use gateway_user::dataplane::{Dataplane, DataplaneError};
use ipnet::IpNet;

use crate::lab::{Lab, with_lab};
use crate::tables::{array, settings};

fn net(addr: u32, len: u8) -> IpNet {
    IpNet::new(Ipv4Addr::from(addr).into(), len).unwrap()
}

fn net6(addr: u128, len: u8) -> IpNet {
    IpNet::new(Ipv6Addr::from(addr).into(), len).unwrap()
}

#[test]
fn lists_are_apart_and_outlive_whoever_wrote_them() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        let mut tries = dataplane.guard_tries().unwrap();
        assert!(matches!(dataplane.guard_tries(), Err(DataplaneError::GuardTaken)));
        let denied = [
            net(0, 0),
            net(0x0a00_0000, 8),
            net(0x0a00_0001, 32),
            net6(0, 0),
            net6(0x2001_0db8 << 96, 32),
            net6(0x2001_0db8 << 96 | 7, 128),
        ];
        for prefix in denied {
            tries.insert(List::Deny, prefix).unwrap();
            tries.insert(List::Deny, prefix).unwrap();
        }
        let allowed = [net(0x0a01_0000, 16), net6(0x2001_0db8 << 96, 48)];
        for prefix in allowed {
            tries.insert(List::Allow, prefix).unwrap();
        }
        tries.remove(List::Deny, net(0x0a00_0000, 9)).unwrap();
        tries.remove(List::Deny, net6(0x2001_0db8 << 96, 33)).unwrap();
        drop((tries, dataplane));

        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        assert!(dataplane.adopted());
        let mut tries = dataplane.guard_tries().unwrap();
        assert_eq!(tries.read(List::Deny).unwrap(), BTreeSet::from(denied));
        assert_eq!(tries.read(List::Allow).unwrap(), BTreeSet::from(allowed));
        for prefix in [denied[0], denied[3]] {
            tries.remove(List::Deny, prefix).unwrap();
        }
        let left = [denied[1], denied[2], denied[4], denied[5]];
        assert_eq!(tries.read(List::Deny).unwrap(), BTreeSet::from(left));
    });
}

/// Prefixes of the long list: a million in an optimised build, which `docs/guard.md` quotes.
const MANY: u32 = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };

#[test]
fn a_long_list_fits() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        let mut tries = dataplane.guard_tries().unwrap();
        // Scattered as addresses of a blocklist are, and all of them different.
        let prefixes: BTreeSet<IpNet> =
            (0..MANY).map(|n| net(n.wrapping_mul(0x9e37_79b1) & !0xff | n & 0xff, 32)).collect();
        let begun = Instant::now();
        for prefix in &prefixes {
            tries.insert(List::Deny, *prefix).unwrap();
        }
        let written = begun.elapsed();
        assert_eq!(tries.read(List::Deny).unwrap(), prefixes);
        let read = begun.elapsed() - written;
        eprintln!("{} prefixes: written in {written:?}, read in {read:?}", prefixes.len());
    });
}

#[test]
fn whether_confirmed_flows_are_kept_outlives_the_daemon_and_is_all_that_changes() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        let before = settings(lab);
        assert_eq!(before.flags, 0);
        let mut tries = dataplane.guard_tries().unwrap();
        tries.keep_confirmed(true).unwrap();
        let kept = Settings { flags: setting_flag::KEEP_CONFIRMED, ..before };
        assert_eq!(settings(lab), kept);
        drop((tries, dataplane));

        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        assert_eq!(settings(lab), kept, "until it is said anew");
        dataplane.guard_tries().unwrap().keep_confirmed(false).unwrap();
        assert_eq!(settings(lab), before);
    });
}

fn keys(lab: &Lab) -> [[u64; 2]; 2] {
    array::<ChallengeKeys>(lab, map_name::CHALLENGE_KEYS).get(&0, 0).unwrap().keys
}

#[test]
fn keys_of_challenges_are_made_with_the_maps_and_each_is_changed_while_it_rests() {
    with_lab(|lab| {
        let dataplane = Dataplane::open(&lab.options()).unwrap();
        let [even, odd] = keys(lab);
        assert!(even != odd && even != [0; 2] && odd != [0; 2]);
        drop(dataplane);

        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        assert_eq!(keys(lab), [even, odd], "cookies of before are taken");
        // Steps of 2^34 ns, 256 of them for each key.
        let mut turn = |step: u64| {
            dataplane.turn_keys(KtimeNs(step << 34)).unwrap();
            keys(lab)
        };
        let [first, changed] = turn(5);
        assert!(first == even && changed != odd);
        assert_eq!(turn(9), [even, changed], "once in a rest");
        assert_eq!(turn(256), [even, changed], "both are needed in the first step");
        let [changed_too, second] = turn(257);
        assert!(changed_too != even && second == changed);
    });
}
