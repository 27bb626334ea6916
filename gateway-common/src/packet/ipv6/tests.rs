use std::vec;
use std::vec::Vec;

use super::super::SliceFrame;
use super::*;

const SOURCE: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const TARGET: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const ROUTE_OF_NO_HOPS: [u8; 8] = [0; 8];

/// An extension header of so many bytes.
fn extension(len: usize) -> Vec<u8> {
    let mut header = vec![0; len];
    header[1] = (len / 8 - 1) as u8;
    header
}

/// A segment of TCP without payload behind these extension headers, by number.
fn frame(extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let len: usize = extensions.iter().map(|(_, header)| header.len()).sum();
    let mut frame = vec![2; 12];
    frame.extend(ETHERTYPE_IPV6);
    frame.extend([0x6a, 0xb1, 2, 3]);
    frame.extend((len as u16 + 20).to_be_bytes());
    let mut kinds = extensions.iter().map(|(kind, _)| *kind).chain([TCP]);
    frame.extend([kinds.next().unwrap(), 64]);
    frame.extend(SOURCE);
    frame.extend(TARGET);
    for (_, header) in extensions {
        let at = frame.len();
        frame.extend(header);
        frame[at] = kinds.next().unwrap();
    }
    frame.extend([0x12, 0x34, 0, 80]);
    frame.extend([0; 8]);
    frame.extend([0x50, 2, 0, 0, 0, 0, 0, 0]);
    frame
}

fn decode(frame: &mut [u8]) -> Result<(Packet, FlowTuple6), Verdict> {
    let frame = SliceFrame::new(frame);
    let packet = transport(&frame, &header(&frame)?)?;
    Ok((packet, tuple(&frame, &packet).unwrap()))
}

/// A first or later fragment, by its field.
fn fragment_header(field: u16) -> Vec<u8> {
    let mut header = extension(8);
    header[2..4].copy_from_slice(&field.to_be_bytes());
    header
}

#[test]
fn a_segment_says_whose_it_is() {
    let mut bytes = frame(&[]);
    let (packet, tuple) = decode(&mut bytes).unwrap();
    assert_eq!((tuple.source_addr, tuple.target_addr), (SOURCE, TARGET));
    assert_eq!((tuple.source_port, tuple.target_port), ([0x12, 0x34], [0, 80]));
    assert_eq!((packet.ip_len, packet.ip_header_len), (60, 40));
    assert_eq!((packet.tos, packet.ttl, packet.fragment), (0xab, 64, 0));
}

#[test]
fn it_is_found_behind_extension_headers_of_any_length_within_the_limits() {
    for lens in [&[8][..], &[256], &[8, 16], &[8, 8, 8, 8], &[64, 64, 64, 64], &[8, 248]] {
        let kinds = [0, 60, 43, 60];
        let headers: Vec<_> =
            kinds.into_iter().zip(lens.iter().map(|len| extension(*len))).collect();
        let (packet, tuple) = decode(&mut frame(&headers)).unwrap();
        assert_eq!(packet.ip_header_len as usize, 40 + lens.iter().sum::<usize>());
        assert_eq!(tuple.target_port, [0, 80], "{lens:?}");
    }
}

#[test]
fn what_is_beyond_the_limits_or_not_understood_is_the_hosts() {
    let destination = |len| (60, extension(len));
    let mut hops_left = extension(8);
    hops_left[3] = 1;
    for (what, headers) in [
        ("five headers", vec![destination(8); 5]),
        ("264 bytes", vec![destination(264)]),
        ("264 bytes in two", vec![destination(8), destination(256)]),
        ("the longest", vec![destination(2_048)]),
        ("options for every hop in second place", vec![destination(8), (0, extension(8))]),
        ("hops that are left", vec![(43, hops_left)]),
        ("AH", vec![(51, extension(24))]),
        ("ESP", vec![(50, extension(24))]),
        ("a later fragment", vec![(44, fragment_header(8))]),
        ("the last fragment", vec![(44, fragment_header(0xfff8))]),
    ] {
        assert_eq!(decode(&mut frame(&headers)), Err(Verdict::PassNotOurs), "{what}");
    }
    assert!(decode(&mut frame(&[(43, ROUTE_OF_NO_HOPS.to_vec())])).is_ok());
}

#[test]
fn a_first_fragment_is_told_and_an_only_one_is_none() {
    let (first, _) = decode(&mut frame(&[(44, fragment_header(1))])).unwrap();
    assert_eq!(first.fragment, MORE_FRAGMENTS);
    let (only, _) = decode(&mut frame(&[(44, fragment_header(0))])).unwrap();
    assert_eq!(only.fragment, 0);
}

#[test]
fn later_fragments_are_not_walked_any_further() {
    let mut fragment = fragment_header(8);
    fragment[4..].copy_from_slice(&[1, 2, 3, 4]);
    let headers = [(44, fragment), (60, extension(2_048))];
    let mut bytes = frame(&headers);
    let behind = header(&SliceFrame::new(&mut bytes)).unwrap().behind;
    let fragment_id = [1, 2, 3, 4];
    assert_eq!(behind, Behind { protocol: 60, header_len: 48, fragment: 1, fragment_id });
}

#[test]
fn only_fragments_that_may_have_ports_are_told_as_such() {
    for (next, field, expected) in [
        (TCP, 1, true),
        (UDP, 8, true),
        (60, 8, true),
        (43, 8, true),
        (TCP, 0, false),
        (50, 8, false),
        (super::ICMPV6, 8, false),
    ] {
        let mut bytes = frame(&[(44, fragment_header(field))]);
        bytes[ETHERNET_LEN + IPV6_LEN] = next;
        let behind = header(&SliceFrame::new(&mut bytes)).unwrap().behind;
        assert_eq!(behind.is_fragment_with_ports(), expected, "{next} {field}");
    }
}

#[test]
fn a_packet_cut_anywhere_is_truncated() {
    let headers = [(0, extension(16)), (60, extension(24))];
    let whole = frame(&headers);
    for len in 14..whole.len() {
        assert_eq!(decode(&mut whole[..len].to_vec()), Err(Verdict::DropTruncated), "{len}");
    }
    // Cut by its own length rather than by its frame's.
    for payload_len in 1..40 + 4_u16 {
        let mut bytes = whole.clone();
        bytes[18..20].copy_from_slice(&payload_len.to_be_bytes());
        assert_eq!(decode(&mut bytes), Err(Verdict::DropTruncated), "{payload_len}");
    }
}

#[test]
fn what_is_no_packet_of_ipv6_is_told_apart() {
    let mut other_version = frame(&[]);
    other_version[14] = 0x45;
    assert_eq!(decode(&mut other_version), Err(Verdict::DropMalformed));
    let mut arp = frame(&[]);
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(decode(&mut arp), Err(Verdict::PassNotIp));
    let mut jumbogram = frame(&[(0, extension(8))]);
    jumbogram[18..20].fill(0);
    assert_eq!(decode(&mut jumbogram), Err(Verdict::PassNotOurs));
    let mut longest = frame(&[]);
    longest[18..20].copy_from_slice(&u16::MAX.to_be_bytes());
    longest.resize(70_000, 0);
    assert_eq!(decode(&mut longest), Err(Verdict::DropTooBig));
}
