//! The labels: names from the configuration, and closed sets.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

/// A name from the configuration.
pub(in crate::l7) type Name = Arc<str>;

/// A VIP, a pool and a backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(in crate::l7) struct BackendLabels {
    pub(in crate::l7) vip: Name,
    pub(in crate::l7) pool: Name,
    pub(in crate::l7) backend: Name,
}

/// A backend, whichever VIP was asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(in crate::l7) struct PoolBackendLabels {
    pub(in crate::l7) pool: Name,
    pub(in crate::l7) backend: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) vip: Name,
    pub(super) pool: Name,
    pub(super) backend: Name,
    pub(super) status: StatusClass,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct TryLabels {
    pub(super) pool: Name,
    pub(super) backend: Name,
    pub(super) outcome: TryOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct RetryLabels {
    pub(super) vip: Name,
    pub(super) pool: Name,
    pub(super) reason: RetryReason,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct ErrorLabels {
    pub(super) vip: Name,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct RefusedLabels {
    pub(super) vip: Name,
    pub(super) pool: Name,
    pub(super) priority: &'static str,
    pub(super) cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct AbortLabels {
    pub(super) vip: Name,
    pub(super) by: AbortedBy,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct BytesLabels {
    pub(super) vip: Name,
    pub(super) direction: Direction,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct AffinityLabels {
    pub(super) vip: Name,
    pub(super) pool: Name,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct BodyLabels {
    pub(super) vip: Name,
    pub(super) result: BodyResult,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct VipLabels {
    pub(super) vip: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct CheckoutLabels {
    pub(super) pool: Name,
    pub(super) backend: Name,
    pub(super) source: CheckoutSource,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
pub(super) struct ReportLabels {
    pub(super) pool: Name,
    pub(super) backend: Name,
    pub(super) result: ReportResult,
}

/// A closed set of label values.
macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(in crate::l7) enum $name {
            $($(#[$value_doc])* $variant,)+
        }

        impl $name {
            /// As in the metrics.
            pub(in crate::l7) const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder,
            ) -> std::fmt::Result {
                self.as_str().encode(encoder)
            }
        }
    };
}

label_values!(
    /// The first digit of a status.
    StatusClass {
        Informational = "1xx",
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
        /// Nothing that HTTP knows: 600 to 999.
        Other = "other",
    }
);

impl StatusClass {
    pub(in crate::l7) fn of(status: http::StatusCode) -> StatusClass {
        match status.as_u16() / 100 {
            1 => StatusClass::Informational,
            2 => StatusClass::Success,
            3 => StatusClass::Redirection,
            4 => StatusClass::ClientError,
            5 => StatusClass::ServerError,
            _ => StatusClass::Other,
        }
    }
}

label_values!(
    /// How one try at a backend ended.
    TryOutcome {
        Answered = "answered",
        ServerError = "server_error",
        Broken = "broken",
        TimedOut = "timed_out",
        Abandoned = "abandoned",
        ConnectFailed = "connect_failed",
        /// The backend was found faulty, and its connections were closed.
        Reset = "reset",
    }
);

label_values!(
    /// Why a request was tried again.
    RetryReason {
        ConnectFailed = "connect_failed",
        ConnectTimeout = "connect_timeout",
        BrokenBeforeResponse = "broken_before_response",
        BadGateway = "status_502",
        ServiceUnavailable = "status_503",
        Reset = "reset",
    }
);

label_values!(
    /// Who ended a request before its response was complete.
    AbortedBy {
        Client = "client",
        Backend = "backend",
        IdleTimeout = "idle_timeout",
        /// The gateway, as the backend was found faulty.
        Reset = "reset",
    }
);

label_values!(
    /// Which body.
    Direction {
        Request = "request",
        Response = "response",
    }
);

label_values!(
    /// What became of reading the body of a request to a language model.
    BodyResult {
        /// All of it was read.
        Whole = "whole",
        /// Its beginning was: it is longer than is read, or came too slowly.
        Cut = "cut",
        /// It is no JSON.
        Malformed = "malformed",
        /// It was not looked at: it is packed, or says that it is something else.
        NotJson = "not_json",
    }
);

label_values!(
    /// Where a try's connection came from.
    CheckoutSource {
        New = "new",
        Reused = "reused",
        /// New, because the backend closed the reused one as the request was sent.
        Replayed = "replayed",
    }
);

label_values!(
    /// Whether a load report could be read.
    ReportResult {
        Read = "read",
        Malformed = "malformed",
    }
);
