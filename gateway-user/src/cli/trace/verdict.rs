//! What a verdict means to who is on call, and what to look at.

use gateway_common::verdict::Verdict;

/// In words, with what to try where something is to be done.
pub(super) fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::PassNotOurs => {
            "it is for no VIP and no reply to one, so this host's own network stack takes it; \
             `gateway status` shows the VIPs"
        }
        Verdict::PassToProxy => "its VIP is an L7 one: the proxy on this host takes it",
        Verdict::PassNotIp => {
            "it is neither IPv4 nor IPv6, so this host's own network stack takes it"
        }
        Verdict::ForwardIn => "it is sent to the backend",
        Verdict::ForwardOut => "it is sent back to the client",
        Verdict::ForwardError => {
            "it tells of a flow's packet, and is sent to whose packet that was"
        }
        Verdict::EchoAnswered => "it is answered: it asks whether the VIP is there",
        Verdict::DropTruncated => {
            "dropped: it is shorter than its headers say; if it was captured, capture whole packets \
             (`tcpdump -s 0`)"
        }
        Verdict::DropMalformed => {
            "dropped: its headers contradict themselves (version, lengths or TCP flags), which no \
             sane sender does"
        }
        Verdict::DropFragment => {
            "dropped: it is a later fragment of a packet whose first one was not seen before it, and \
             only that one names ports; trace them in order"
        }
        Verdict::DropNoBackend => {
            "dropped: no backend of the pool takes new flows of this class; `gateway status` shows \
             who is down, ejected or draining"
        }
        Verdict::DropNoFlow => {
            "dropped: it belongs to a connection that the flow table does not have (never seen, over, \
             or forgotten), and only a SYN, or a datagram, begins one"
        }
        Verdict::DropBackendGone => {
            "dropped: its flow's backend was removed from the configuration; the client has to \
             connect anew"
        }
        Verdict::DropPortsExhausted => {
            "dropped: no free source port towards the backend was found; widen `nat_ports`, or give \
             the gateway another address towards it"
        }
        Verdict::DropTableFull => {
            "dropped: its place in the flow table was being taken by another, or, with \
             `guard.keep_confirmed`, those that it could have are confirmed flows'; the client's next \
             SYN tries others; many of these: raise `flows_max`"
        }
        Verdict::DropRefusedRetry => {
            "dropped: the backend refused, which is kept from the client; its next SYN draws another"
        }
        Verdict::DropNoRoute => {
            "dropped: this host's routing table has no route to the next hop; see `ip route get` for \
             its address"
        }
        Verdict::DropNoNeighbour => {
            "dropped: the link address of the next hop is not known; see `ip neigh` for it, and \
             whether it answers ARP at all"
        }
        Verdict::DropForwardingOff => {
            "dropped: IPv4 forwarding is off on the interface that it came in by; turn on \
             `net.ipv4.conf.NAME.forwarding`"
        }
        Verdict::DropTooBig => {
            "dropped: it is larger than the MTU towards the next hop, and its sender is not told so, \
             since it may be cut, or since many were told just now; see `ip link` for the MTUs"
        }
        Verdict::TooBigAnswered => {
            "answered by ICMP \"fragmentation needed\", or ICMPv6 \"packet too big\": it is larger than \
             the MTU towards the next hop, with the outer headers if there are some; its sender sends \
             less from now on"
        }
        Verdict::DropTtl => {
            "dropped: its time to live is used up, and many senders were told so just now; is there \
             a loop of routes?"
        }
        Verdict::TtlAnswered => {
            "answered by ICMP \"time exceeded\": its time to live is used up, as that of a \
             traceroute's packets; is there a loop of routes?"
        }
        Verdict::ResetLost => {
            "answered by RST: its connection is lost, and the pool wants its client to hear so \
             (`reset_lost`)"
        }
        Verdict::DropDenied => {
            "dropped: its source is on the deny list of the guard, and not on the allow list; \
             `gateway guard deny list` shows what was added to it"
        }
        Verdict::DropRateNew => {
            "dropped: its source begins more flows at the VIP than `[vip.limit]` lets it; a flow that \
             is there goes on"
        }
        Verdict::DropRatePackets => {
            "dropped: its source sends more packets to the VIP than `[vip.limit]` lets it"
        }
        Verdict::SynChallenged => {
            "answered: its source has to prove that it is there, since the VIP is under a flood of SYNs \
             or always asks; a client does so by itself and sends its SYN again; \
             `gateway guard challenges` shows who asks"
        }
        Verdict::ChallengeMet => {
            "taken: it proves that its source is there, whose SYNs pass from now on"
        }
        Verdict::DropTables => {
            "dropped: the tables contradict each other; a daemon is writing them at this moment, or \
             one is needed that does: try again, else see its log"
        }
    }
}
