use proptest::prelude::*;

use super::*;

/// The VIP of an address and port as the packet path finds it.
fn look_up(wide: &Wide, addr: SocketAddr, protocol: u8) -> Option<u32> {
    let longest = |net: &(u32, IpAddr)| IpNet::new(net.1, net.0 as u8).unwrap();
    let nets = wide.nets.iter().filter(|(net, _)| longest(net).contains(&addr.ip()));
    let (_, &set) = nets.max_by_key(|(net, _)| net.0)?;
    let key = PortKey::new(set, protocol, addr.port().to_be_bytes());
    let bits = |key: &PortKey| u64::from_be_bytes(bytemuck::cast(*key));
    let fits = |(len, prefix): &(u32, PortKey)| (bits(prefix) ^ bits(&key)) >> (64 - len) == 0;
    let blocks = wide.blocks.iter().filter(|(block, _)| fits(block));
    blocks.max_by_key(|(block, _)| block.0).map(|(_, wide)| wide.vip.index)
}

fn id(text: &str, protocol: u8) -> VipId {
    VipId { addr: text.parse().unwrap(), protocol }
}

fn numbered(ids: &[VipId]) -> Vec<(VipId, Vip)> {
    let vip = |index: usize| Vip { index: index as u32, pool: 0, flags: 0 };
    ids.iter().enumerate().map(|(index, id)| (*id, vip(index))).collect()
}

#[test]
fn a_range_is_few_blocks() {
    let count = |first, last| blocks(6, Ports { first, last }).count();
    assert_eq!(count(0, u16::MAX), 1);
    assert_eq!(count(80, 80), 1);
    assert_eq!(count(8_000, 8_063), 1);
    assert_eq!(count(1, u16::MAX - 1), 30, "the most there can be");
}

#[test]
fn what_a_longer_prefix_has_none_for_is_taken_from_a_shorter_one() {
    let ids = [id("10.0.0.0/24:*", 6), id("10.0.0.1:80-90", 6), id("10.0.0.0/8:443", 17)];
    let wide = Wide::new(numbered(&ids));
    let found = |addr: &str, protocol| look_up(&wide, addr.parse().unwrap(), protocol);
    assert_eq!(found("10.0.0.1:80", 6), Some(1));
    assert_eq!(found("10.0.0.1:91", 6), Some(0));
    assert_eq!(found("10.0.0.1:443", 17), Some(2), "over two prefixes that have none of UDP");
    assert_eq!(found("10.0.1.1:443", 6), None);
    assert_eq!(wide.nets.len(), 3);
    assert_eq!(wide.vips(), numbered(&ids).into_iter().collect());
}

#[test]
fn a_wider_choice_of_ports_hides_what_a_shorter_prefix_has_there() {
    let ids = [id("10.0.0.0/8:443", 6), id("10.0.0.0/24:400-500", 6), id("10.0.0.1:*", 6)];
    let wide = Wide::new(numbered(&ids));
    let found = |addr: &str| look_up(&wide, addr.parse().unwrap(), 6);
    assert_eq!(found("10.0.0.1:443"), Some(2));
    assert_eq!(found("10.0.0.2:443"), Some(1));
    assert_eq!(found("10.1.0.2:443"), Some(0));
}

#[test]
fn a_prefix_keeps_the_number_of_its_set_when_another_comes() {
    let (old, new) = (id("10.0.0.0/24:*", 6), id("10.0.0.0/8:*", 6));
    let number = |vips: &[(VipId, Vip)]| Wide::new(vips.to_vec()).nets[&(24, old.addr.network())];
    let vip = |index| Vip { index, pool: 0, flags: 0 };
    assert_eq!(number(&[(old, vip(5))]), number(&[(old, vip(5)), (new, vip(2))]));
}

#[test]
fn a_prefix_says_whether_a_vip_is_guarded_there_and_keeps_its_number() {
    let (inner, outer) = (id("10.0.0.0/24:80-90", 6), id("10.0.0.0/8:*", 6));
    let vip = |index, flags| Vip { index, pool: 0, flags };
    let number = |inner_flags, outer_flags| {
        let wide = Wide::new([(inner, vip(5, inner_flags)), (outer, vip(2, outer_flags))]);
        assert_eq!(wide.vips().len(), 2);
        [(24, inner), (8, outer)].map(|(len, id)| wide.nets[&(len, id.addr.network())])
    };
    let guarded = vip_flag::GUARDED;
    assert_eq!(number(0, 0), [5, 2]);
    assert_eq!(number(guarded, 0), [5 | PortKey::GUARDED, 2]);
    assert_eq!(number(0, guarded), [5 | PortKey::GUARDED, 2 | PortKey::GUARDED]);
}

fn vip_addr() -> impl Strategy<Value = VipAddr> {
    // Few addresses and ports, so that they meet.
    let net = prop_oneof![
        (0u32..16, 24u8..=32).prop_map(|(low, len)| {
            IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 | low).into(), len).unwrap()
        }),
        (0u128..16, 120u8..=128).prop_map(|(low, len)| {
            IpNet::new(std::net::Ipv6Addr::from((0xfd << 120) | low).into(), len).unwrap()
        }),
    ];
    let ports = prop_oneof![
        Just(Ports::ANY),
        (1u16..40).prop_map(Ports::one),
        (1u16..30, 1u16..20).prop_map(|(first, more)| Ports { first, last: first + more }),
    ];
    (net, ports).prop_map(|(net, ports)| VipAddr::new(net, ports))
}

/// VIPs as a configuration may have them: of one prefix and protocol, no two ranges meet.
fn vips() -> impl Strategy<Value = Vec<VipId>> {
    let id = (vip_addr(), prop_oneof![Just(6u8), Just(17)])
        .prop_map(|(addr, protocol)| VipId { addr, protocol });
    proptest::collection::vec(id, 1..24).prop_map(|ids| {
        let mut kept: Vec<VipId> = Vec::new();
        for id in ids.into_iter().filter(|id| !id.addr.is_exact()) {
            let is_plain = |ports: Ports| ports.is_one() || ports == Ports::ANY;
            let clashes = |other: &VipId| {
                let (ours, theirs) = (id.addr.ports(), other.addr.ports());
                let same_place = other.addr.net() == id.addr.net() && other.protocol == id.protocol;
                let apart = is_plain(ours) || is_plain(theirs);
                same_place && (ours == theirs || !apart && ours.meet(theirs))
            };
            if !kept.iter().any(clashes) {
                kept.push(id);
            }
        }
        kept
    })
}

proptest! {
    #[test]
    fn two_look_ups_find_the_narrowest_vip(
        ids in vips(),
        asked in proptest::collection::vec((0u32..20, 0u16..50, any::<bool>(), any::<bool>()), 32),
    ) {
        let vips = numbered(&ids);
        let wide = Wide::new(vips.clone());
        for (low, port, is_tcp, is_ipv6) in asked {
            let ip: IpAddr = match is_ipv6 {
                true => std::net::Ipv6Addr::from((0xfd << 120) | u128::from(low)).into(),
                false => std::net::Ipv4Addr::from(0x0a00_0000 | low).into(),
            };
            let (addr, protocol) = (SocketAddr::new(ip, port), if is_tcp { 6 } else { 17 });
            let of_protocol = vips.iter().filter(|(id, _)| id.protocol == protocol);
            let found = find(of_protocol.map(|(id, vip)| (id.addr, vip.index)), addr);
            prop_assert_eq!(look_up(&wide, addr, protocol), found.map(|(_, index)| index));
        }
        // Those that narrower ones hide wholly are in none.
        let there = wide.vips();
        for (id, vip) in &there {
            prop_assert!(vips.contains(&(*id, *vip)));
        }
    }
}
