//! What is read of HTTP/1, over whole exchanges.

use std::format;

use super::*;

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &[u8] = b"POST /a HTTP/1.1\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";

#[derive(Clone, Copy)]
enum Sender {
    Client,
    Backend,
}
use Sender::{Backend, Client};

/// A connection that loses nothing, but for what a test sends again.
struct Connection {
    tables: HeapTables,
    client: FlowKey,
    back: FlowKey,
    /// Where what each side sends next begins.
    next: [u32; 2],
    told: usize,
}

impl Connection {
    /// Established; the client's first byte has this sequence number.
    fn open(first: u32) -> Connection {
        let tables = HeapTables::new();
        let client = client_key(9);
        let mut syn = frame(&client, tcp_flag::SYN, 0, &[]);
        tables.route(&mut syn);
        let back = reverse(&key_of(&mut syn));
        tables.route(&mut frame(&back, tcp_flag::SYN | tcp_flag::ACK, 0, &[]));
        tables.route(&mut frame(&client, tcp_flag::ACK, 0, &[]));
        Connection { tables, client, back, next: [first, 77], told: 1 }
    }

    fn send(&mut self, from: Sender, payload: &[u8]) {
        let sequence = self.next[from as usize];
        self.next[from as usize] = sequence.wrapping_add(payload.len() as u32);
        self.send_at(from, sequence, payload);
    }

    fn send_at(&mut self, from: Sender, sequence: u32, payload: &[u8]) {
        let (key, other) = match from {
            Client => (&self.client, self.next[Backend as usize]),
            Backend => (&self.back, self.next[Client as usize]),
        };
        let mut packet = frame(key, tcp_flag::ACK, 0, payload);
        let tcp = ETHERNET_LEN + IPV4_LEN_MIN;
        packet[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        packet[tcp + 8..tcp + 12].copy_from_slice(&other.to_be_bytes());
        self.tables.route(&mut packet);
    }

    /// Statuses of the responses that were told since this was asked last.
    fn told(&mut self) -> Vec<u16> {
        let events = self.tables.events.borrow();
        let new = &events[self.told..];
        self.told = events.len();
        assert!(new.iter().all(|event| event.kind == event_kind::RESPONDED));
        new.iter().map(|event| event.status).collect()
    }

    fn elapsed(&self) -> u64 {
        self.tables.events.borrow().last().unwrap().elapsed_ns
    }

    fn waits(&self) -> bool {
        crate::sight::is_waiting(self.tables.known(&self.client).unwrap().requested_at)
    }
}

fn response(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} Any\r\ncontent-length: 4\r\n\r\nbody").into_bytes()
}

#[test]
fn each_request_of_a_connection_is_timed_and_its_status_read() {
    // Sequence numbers wrap, and half of them are negative differences from zero.
    for first in [0, 1, 5_000, 1 << 31, u32::MAX - 40, u32::MAX] {
        let mut connection = Connection::open(first);
        for (pause, status) in [(0, 200), (8, 503), (1, 404), (90, 500), (3, 301)] {
            connection.send(Client, REQUEST);
            // Acknowledgements take time and end nothing.
            (0..pause).for_each(|_| connection.send(Backend, b""));
            connection.send(Backend, &response(status));
            assert_eq!(connection.told(), [status], "{first}");
            assert_eq!(connection.elapsed(), (pause + 1) * STEP_NS);
            connection.send(Backend, b"more of the body");
            assert_eq!(connection.told(), []);
        }
    }
}

#[test]
fn a_request_that_is_sent_again_starts_nothing() {
    for first in [5_000, u32::MAX - 10] {
        let mut connection = Connection::open(first);
        for status in [200, 503] {
            let sequence = connection.next[Client as usize];
            connection.send(Client, REQUEST);
            connection.send_at(Client, sequence, REQUEST);
            connection.send(Backend, &response(status));
            assert_eq!(connection.elapsed(), 2 * STEP_NS, "from the first time it was sent");
            connection.send_at(Client, sequence, REQUEST);
            assert!(!connection.waits());
            assert_eq!(connection.told(), [status]);
        }
    }
}

#[test]
fn a_response_that_is_sent_again_is_told_once() {
    let mut connection = Connection::open(9);
    connection.send(Client, REQUEST);
    let sequence = connection.next[Backend as usize];
    connection.send(Backend, &response(503));
    connection.send_at(Backend, sequence, &response(503));
    assert_eq!(connection.told(), [503]);
}

#[test]
fn interim_responses_are_not_the_answer() {
    let mut connection = Connection::open(9);
    for _ in 0..2 {
        connection.send(Client, POST);
        connection.send(Backend, b"HTTP/1.1 100 Continue\r\n\r\n");
        connection.send(Backend, b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        assert_eq!(connection.told(), []);
        connection.send(Client, b"abc");
        connection.send(Backend, &response(502));
        assert_eq!(connection.told(), [502]);
    }
}

#[test]
fn of_requests_sent_at_once_the_first_is_timed_and_those_after_them_again() {
    let mut connection = Connection::open(9);
    (0..3).for_each(|_| connection.send(Client, REQUEST));
    connection.send(Backend, &response(200));
    (0..2).for_each(|_| connection.send(Backend, &response(503)));
    assert_eq!(connection.told(), [200]);
    connection.send(Client, REQUEST);
    connection.send(Backend, &response(404));
    assert_eq!(connection.told(), [404]);
}

#[test]
fn of_anything_else_the_first_gap_alone_is_told() {
    // As TLS begins on both sides, and two bytes that mean nothing.
    for (ask, answer) in [(&[22, 3, 1, 2, 0, 1][..], &[22, 3, 3, 0, 90, 2][..]), (b"x", b"y")] {
        let mut connection = Connection::open(9);
        for told in [&[0][..], &[], &[]] {
            connection.send(Client, &ask.repeat(9));
            connection.send(Backend, &answer.repeat(9));
            assert_eq!(connection.told(), told);
        }
    }
}

proptest! {
    /// However an exchange is cut, a status that is told is the one that was sent, no response is
    /// told twice, and to the first there is always something told.
    #[test]
    fn however_it_is_cut_nothing_false_is_told(
        statuses in proptest::collection::vec(200_u16..600, 1..6),
        cuts in proptest::collection::vec(1_usize..40, 1..40),
        first in any::<u32>(),
    ) {
        let mut connection = Connection::open(first);
        let mut cuts = cuts.iter().cycle();
        for (turn, status) in statuses.into_iter().enumerate() {
            for (from, message) in [(Client, REQUEST), (Backend, &response(status)[..])] {
                let mut left = message;
                while !left.is_empty() {
                    let (now, later) = left.split_at((*cuts.next().unwrap()).min(left.len()));
                    connection.send(from, now);
                    left = later;
                }
            }
            let told = connection.told();
            prop_assert!(told.len() <= 1 && (turn > 0 || told.len() == 1), "{told:?}");
            for seen in told {
                prop_assert!(seen == status || seen == 0 && turn == 0, "{seen} for {status}");
            }
        }
    }
}
