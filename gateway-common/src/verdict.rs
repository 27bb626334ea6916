//! How a packet's journey can end. Every packet ends in exactly one [`Verdict`], and `VERDICTS`
//! counts it.

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $label:literal;)*) => {
        /// The end of one packet's journey; its number is its row in `VERDICTS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Verdict {
            $($(#[$doc])* $name = $value,)*
        }

        impl Verdict {
            /// All verdicts, by number.
            pub const ALL: &'static [Verdict] = &[$(Verdict::$name,)*];

            /// The metric label: a closed set.
            pub const fn as_str(self) -> &'static str {
                match self { $(Verdict::$name => $label,)* }
            }
        }
    };
}

verdicts! {
    /// Not for a VIP and not a reply to one: the host's own business.
    PassNotOurs = 0, "pass_not_ours";
    /// For an L7 VIP: the proxy takes it.
    PassToProxy = 1, "pass_to_proxy";
    /// Neither IPv4 nor IPv6 (ARP, a VLAN's …): the host's own business.
    PassNotIp = 2, "pass_not_ip";
    /// Forwarded to a backend.
    ForwardIn = 3, "forward_in";
    /// Forwarded back to a client.
    ForwardOut = 4, "forward_out";
    /// Shorter than its own headers say.
    DropTruncated = 5, "drop_truncated";
    /// Header fields that contradict each other (version, header length, TCP flags).
    DropMalformed = 6, "drop_malformed";
    /// A later fragment of a packet for a VIP, of which the first did not come before it.
    DropFragment = 7, "drop_fragment";
    /// No backend of the pool takes new flows.
    DropNoBackend = 8, "drop_no_backend";
    /// Not a SYN, and its flow is unknown or was given up.
    DropNoFlow = 9, "drop_no_flow";
    /// The flow's backend was removed.
    DropBackendGone = 10, "drop_backend_gone";
    /// No free source port towards the backend.
    DropPortsExhausted = 11, "drop_ports_exhausted";
    /// The places in the flow table that the new flow could have were taken by another CPU, or are
    /// confirmed flows' that are kept; its SYN is sent again.
    DropTableFull = 12, "drop_table_full";
    /// A backend's refusal, kept from the client: its next SYN draws another.
    DropRefusedRetry = 13, "drop_refused_retry";
    /// The kernel knows no route to the next hop.
    DropNoRoute = 14, "drop_no_route";
    /// The next hop's link address is not known yet.
    DropNoNeighbour = 15, "drop_no_neighbour";
    /// Forwarding is off on the interface that it came in by.
    DropForwardingOff = 16, "drop_forwarding_off";
    /// Larger than the next hop's MTU.
    DropTooBig = 17, "drop_too_big";
    /// Its time to live is used up.
    DropTtl = 18, "drop_ttl";
    /// The maps contradict each other; a daemon is writing or is needed.
    DropTables = 19, "drop_tables";
    /// Its connection is lost, and its client was told so by RST.
    ResetLost = 20, "reset_lost";
    /// An ICMP error about a packet of a flow: forwarded to whose packet it was.
    ForwardError = 21, "forward_error";
    /// An ICMP echo request to an L4 VIP's address: answered.
    EchoAnswered = 22, "echo_answered";
    /// Its source is denied, and not allowed, at a VIP that is guarded.
    DropDenied = 23, "drop_denied";
    /// Its source begins more flows at its VIP than it may.
    DropRateNew = 24, "drop_rate_new";
    /// Its source sends more packets to its VIP than it may.
    DropRatePackets = 25, "drop_rate_packets";
    /// Larger than its way has room for: its sender was told so by ICMP.
    TooBigAnswered = 26, "too_big_answered";
    /// Its time to live is used up: its sender was told so by ICMP.
    TtlAnswered = 27, "ttl_answered";
    /// A SYN at a VIP under a flood, of a source that has proven nothing: it is asked to.
    SynChallenged = 28, "syn_challenged";
    /// It proved that its source is there, which is all that it is for.
    ChallengeMet = 29, "challenge_met";
}

/// Rows of `VERDICTS`.
pub const VERDICTS_LEN: u32 = Verdict::ALL.len() as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rows_without_gaps() {
        for (row, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, row, "{}", verdict.as_str());
        }
    }
}
