//! Capture files written by hand, byte for byte as their formats say.

use std::io::Write;

use super::*;

/// 20 bytes that begin as an IPv4 header does.
const PACKET: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 100];

fn framed() -> Vec<u8> {
    packet::framed(ETHERTYPE_IPV4, &PACKET)
}

/// A classic file of one link layer, in this byte order.
fn classic(link: u32, packets: &[(&[u8], u32)], word: fn(u32) -> [u8; 4]) -> Vec<u8> {
    // Version 2.4, no offset from UTC, 256 KiB at most.
    let version = if word(1) == 1_u32.to_le_bytes() { [2, 0, 4, 0] } else { [0, 2, 0, 4] };
    let mut file =
        [word(0xa1b2_c3d4), version, word(0), word(0), word(262_144), word(link)].concat();
    for (data, wire_len) in packets {
        file.extend([word(1), word(2), word(data.len() as u32), word(*wire_len)].concat());
        file.extend(*data);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let len = (12 + padded as u32).to_le_bytes();
    let mut block = [&kind.to_le_bytes(), &len, body].concat();
    block.resize(8 + padded, 0);
    block.extend(len);
    block
}

/// A pcapng file of interfaces with these link layers, and packets of them.
fn pcapng(links: &[u16], packets: &[(u32, &[u8])]) -> Vec<u8> {
    let section =
        [&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &u64::MAX.to_le_bytes()].concat();
    let mut file = block(0x0a0d_0d0a, &section);
    for link in links {
        file.extend(block(1, &[&link.to_le_bytes()[..], &[0; 6]].concat()));
    }
    for (interface, data) in packets {
        let len = (data.len() as u32).to_le_bytes();
        file.extend(block(6, &[&interface.to_le_bytes()[..], &[0; 8], &len, &len, data].concat()));
    }
    file
}

/// What is read of a file, up to an error.
fn read(bytes: &[u8]) -> (Vec<Option<Vec<u8>>>, Option<String>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut frames = Vec::new();
    let ended = each(file.path(), |captured| {
        assert_eq!(captured.number, frames.len() as u64 + 1);
        frames.push(captured.frame);
        Ok(true)
    });
    (frames, ended.err().map(|error| error.to_string()))
}

#[test]
fn classic_files_of_either_byte_order_are_read() {
    for word in [u32::to_le_bytes, u32::to_be_bytes] {
        let frame = framed();
        let packets = [(&frame[..], 34), (&frame[..], 34)];
        let (frames, error) = read(&classic(1, &packets, word));
        assert_eq!((frames, error), (vec![Some(framed()); 2], None));
    }
}

#[test]
fn raw_packets_of_ipv6_become_frames_of_it() {
    let mut packet = [0; 40];
    packet[0] = 0x60;
    // Raw IP of either family, and of IPv6 alone.
    for link in [101, 229] {
        let (frames, error) = read(&classic(link, &[(&packet, 40)], u32::to_le_bytes));
        let frame = packet::framed(ETHERTYPE_IPV6, &packet);
        assert_eq!((frames, error), (vec![Some(frame)], None), "link layer {link}");
    }
}

#[test]
fn packets_of_several_link_layers_become_frames() {
    // Cooked, as `tcpdump -i any` writes: 16 bytes that end in the type, and version 2 of it, 20 bytes
    // that begin with it.
    let cooked = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0][..], &PACKET].concat();
    let cooked2 =
        [&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0][..], &PACKET].concat();
    let file = pcapng(
        &[1, 101, 113, 276, 105],
        &[(0, &framed()), (1, &PACKET), (2, &cooked), (3, &cooked2), (4, &PACKET), (9, &PACKET)],
    );
    let (frames, error) = read(&file);
    let known = frames.iter().map(Option::as_deref).collect::<Vec<_>>();
    let frame = framed();
    let same = Some(&frame[..]);
    // Wireless, and an interface that the file does not have, are told as unknown.
    assert_eq!((known, error), (vec![same, same, same, same, None, None], None));
}

#[test]
fn what_the_capture_cut_off_is_zeroes_up_to_what_can_be_tried_out() {
    let frame = framed();
    let (frames, _) = read(&classic(1, &[(&frame, 100), (&frame, u32::MAX)], u32::to_le_bytes));
    let lens: Vec<usize> = frames.iter().flatten().map(Vec::len).collect();
    assert_eq!(lens, [100, FRAME_MAX + 1]);
    assert!(frames.iter().flatten().all(|one| one.starts_with(&frame)));
}

#[test]
fn a_file_cut_short_anywhere_gives_what_is_whole_and_says_so() {
    let frame = framed();
    let whole = classic(1, &[(&frame, 34)], u32::to_le_bytes);
    for len in 0..whole.len() {
        let (frames, error) = read(&whole[..len]);
        assert!(frames.is_empty(), "{len}");
        // Nothing follows a header: an empty capture.
        assert_eq!(error.is_none(), len == 24, "{len}: {error:?}");
    }
    let (_, error) = read(&whole[..40]);
    assert!(error.unwrap().contains("cut short"));
}

#[test]
fn what_is_no_capture_file_is_told() {
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n and more of that kind", &[0; 64]] {
        let (_, error) = read(bytes);
        let error = error.unwrap();
        assert!(error.contains("no capture file"), "{error}");
    }
    let error = each(Path::new("/nonexistent.pcap"), |_| Ok(true)).unwrap_err().to_string();
    assert!(error.contains("/nonexistent.pcap"), "{error}");
}

#[test]
fn reading_ends_where_enough_was_seen() {
    let frame = framed();
    let file = classic(1, &[(&frame[..], 34); 3], u32::to_le_bytes);
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(&file).unwrap();
    let mut seen = 0;
    each(on_disk.path(), |captured| {
        seen = captured.number;
        Ok(captured.number != 2)
    })
    .unwrap();
    assert_eq!(seen, 2);
}
