//! Who may send to a guarded VIP.

use super::*;

#[test]
fn a_denied_source_is_cut_off_at_guarded_vips_alone() {
    let tables = HeapTables::new();
    let client = client_key(9);
    let syn = || frame(&client, tcp_flag::SYN, 0, &[]);
    tables.listed.borrow_mut().push((List::Deny, CLIENT));
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::ForwardIn, "nobody looks");

    tables.vip_flags.set(vip_flag::GUARDED);
    for flags in [tcp_flag::SYN, tcp_flag::ACK] {
        let mut packet = frame(&client, flags, 0, &[]);
        let before = packet.clone();
        assert_eq!(tables.route(&mut packet).verdict, Verdict::DropDenied);
        assert_eq!(packet, before);
    }
    tables.listed.borrow_mut().push((List::Allow, CLIENT));
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::ForwardIn, "allow beats deny");
}

#[test]
fn the_guard_stands_before_the_proxy_and_lets_its_others_in() {
    let tables = HeapTables::new();
    tables.vip_flags.set(vip_flag::GUARDED | vip_flag::L7);
    let syn = || frame(&client_key(9), tcp_flag::SYN, 0, &[]);
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::PassToProxy);
    tables.listed.borrow_mut().push((List::Deny, CLIENT));
    assert_eq!(tables.route(&mut syn()).verdict, Verdict::DropDenied);
}
