//! What can be wrong with a backend of the lab, switched while it runs.

use serde::{Deserialize, Serialize};

/// A fault of one server of `lab-backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// Nothing is wrong.
    #[default]
    None,
    /// Every request takes `factor` times as long.
    Slow {
        /// Greater than 0.
        factor: f64,
    },
    /// It answers its health check, and this share of everything else with 503: a grey failure.
    Grey {
        /// From 0 to 1.
        share: f64,
    },
    /// It stopped listening: connections are refused, open ones end after their request.
    Refuse,
    /// Accepts, reads, never answers.
    Hang,
    /// Resets every connection.
    Reset,
    /// Answers with bytes that are not HTTP.
    Garbage,
}

impl Fault {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    /// A factor that is not positive, a share outside 0 to 1.
    pub fn check(self) -> Result<Fault, String> {
        match self {
            Fault::Slow { factor } if !(factor > 0.0 && factor.is_finite()) => {
                Err(format!("factor {factor}: must be positive, such as 5.0"))
            }
            Fault::Grey { share } if !(0.0..=1.0).contains(&share) => {
                Err(format!("share {share}: must be from 0 to 1"))
            }
            fault => Ok(fault),
        }
    }
}

/// Body of `POST /fault` at a backend's control address.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The server on this port; all of the process without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What shall be wrong from now on.
    #[serde(flatten)]
    pub fault: Fault,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_written_as_documented() {
        let order = Order { port: Some(8080), fault: Fault::Slow { factor: 5.0 } };
        let text = r#"{"port":8080,"kind":"slow","factor":5.0}"#;
        assert_eq!(serde_json::to_string(&order).unwrap(), text);
        assert_eq!(serde_json::from_str::<Order>(text).unwrap(), order);
        let all: Order = serde_json::from_str(r#"{"kind":"refuse"}"#).unwrap();
        assert_eq!(all, Order { port: None, fault: Fault::Refuse });
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Fault::Slow { factor: 0.0 }.check().is_err());
        assert!(Fault::Slow { factor: f64::NAN }.check().is_err());
        assert!(Fault::Grey { share: 1.5 }.check().is_err());
        assert!(serde_json::from_str::<Order>(r#"{"kind":"explode"}"#).is_err());
    }
}
