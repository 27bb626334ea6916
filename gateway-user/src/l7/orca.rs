//! Reading what a backend reports of its own load: the response header `endpoint-load-metrics`
//! in its TEXT and JSON forms (gRFC A51 and Envoy's `source/common/orca/orca_parser.cc`).
//!
//! A report comes from a machine that may be sick or hostile, so what is not a plain, finite,
//! non-negative number is refused as a whole rather than half believed.

use std::collections::HashMap;

use gateway_core::observation::LoadReport;
use serde::Deserialize;

/// The header's name.
pub(super) const HEADER: &str = "endpoint-load-metrics";

/// The header of the base64 protobuf form, which is not read but kept from the client all the same.
pub(super) const HEADER_BINARY: &str = "endpoint-load-metrics-bin";

/// Longest report that is read, bytes. Ten named metrics take about 400.
const REPORT_MAX: usize = 4_096;

/// Why a report could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReportError {
    #[error("longer than {REPORT_MAX} bytes")]
    TooLong,
    #[error("neither `TEXT k=v,…` nor `JSON {{…}}`")]
    UnknownForm,
    #[error("not a list of `name=number`, or not JSON of ORCA's fields")]
    Syntax,
    #[error("a number that is negative, infinite or NaN")]
    Range,
    #[error("neither application_utilization nor cpu_utilization")]
    NoUtilization,
}

/// Reads a header value.
pub(super) fn parse(value: &[u8]) -> Result<LoadReport, ReportError> {
    if value.len() > REPORT_MAX {
        return Err(ReportError::TooLong);
    }
    let text = std::str::from_utf8(value).map_err(|_| ReportError::Syntax)?;
    let (form, report) = text.trim().split_once(' ').ok_or(ReportError::UnknownForm)?;
    match form {
        "TEXT" => Fields::from_text(report)?.into_report(),
        "JSON" => {
            let fields: Fields = serde_json::from_str(report).map_err(|_| ReportError::Syntax)?;
            fields.into_report()
        }
        _ => Err(ReportError::UnknownForm),
    }
}

/// The fields that the loop uses, and those whose shape is checked although nobody uses them yet.
#[derive(Default, Deserialize)]
struct Fields {
    application_utilization: Option<f64>,
    cpu_utilization: Option<f64>,
    rps_fractional: Option<f64>,
    eps: Option<f64>,
    mem_utilization: Option<f64>,
    #[serde(default)]
    utilization: HashMap<String, f64>,
    #[serde(default)]
    request_cost: HashMap<String, f64>,
    #[serde(default)]
    named_metrics: HashMap<String, f64>,
}

impl Fields {
    fn from_text(text: &str) -> Result<Fields, ReportError> {
        let mut fields = Fields::default();
        for field in text.split(',') {
            let (name, number) = field.split_once('=').ok_or(ReportError::Syntax)?;
            let number: f64 = number.trim().parse().map_err(|_| ReportError::Syntax)?;
            fields.set(name.trim(), number)?;
        }
        Ok(fields)
    }

    fn set(&mut self, name: &str, number: f64) -> Result<(), ReportError> {
        let field = match name {
            "application_utilization" => &mut self.application_utilization,
            "cpu_utilization" => &mut self.cpu_utilization,
            "rps_fractional" => &mut self.rps_fractional,
            "eps" => &mut self.eps,
            "mem_utilization" => &mut self.mem_utilization,
            _ => return self.set_named(name, number),
        };
        // A field said twice may mean two things; neither is taken.
        if field.replace(number).is_some() { Err(ReportError::Syntax) } else { Ok(()) }
    }

    fn set_named(&mut self, name: &str, number: f64) -> Result<(), ReportError> {
        let (map, key) = name.split_once('.').ok_or(ReportError::Syntax)?;
        let map = match map {
            "utilization" => &mut self.utilization,
            "request_cost" => &mut self.request_cost,
            "named_metrics" => &mut self.named_metrics,
            _ => return Err(ReportError::Syntax),
        };
        map.insert(key.to_owned(), number);
        Ok(())
    }

    fn into_report(self) -> Result<LoadReport, ReportError> {
        let plain = [
            self.application_utilization,
            self.cpu_utilization,
            self.rps_fractional,
            self.eps,
            self.mem_utilization,
        ];
        let named = [&self.utilization, &self.request_cost];
        let numbers = plain.into_iter().flatten();
        let mut numbers = numbers.chain(named.into_iter().flat_map(HashMap::values).copied());
        // Named metrics may be negative (xDS says nothing of their range), but not NaN.
        let named_finite = self.named_metrics.values().all(|number| number.is_finite());
        if !named_finite || !numbers.all(|number| number.is_finite() && number >= 0.0) {
            return Err(ReportError::Range);
        }
        // Zero is how protobuf writes "not set", so it does not hide the other one.
        let application = self.application_utilization.filter(|&utilization| utilization > 0.0);
        let utilization = application.or(self.cpu_utilization).or(self.application_utilization);
        Ok(LoadReport {
            utilization: utilization.ok_or(ReportError::NoUtilization)?,
            requests_per_second: self.rps_fractional,
            errors_per_second: self.eps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let expected = LoadReport {
            utilization: 0.3,
            requests_per_second: Some(10.0),
            errors_per_second: Some(0.0),
        };
        let text = b"TEXT cpu_utilization=0.3, rps_fractional=10,eps=0,named_metrics.kv_cache=0.7";
        assert_eq!(parse(text), Ok(expected));
        let json = br#"JSON {"cpu_utilization": 0.3, "rps_fractional": 10, "eps": 0,
                       "named_metrics": {"kv_cache": 0.7}}"#;
        assert_eq!(parse(json), Ok(expected));
    }

    #[test]
    fn application_utilization_wins_unless_it_is_unset() {
        let utilization = |text: &[u8]| parse(text).map(|report| report.utilization);
        assert_eq!(utilization(b"TEXT cpu_utilization=0.3,application_utilization=1.2"), Ok(1.2));
        assert_eq!(utilization(b"TEXT cpu_utilization=0.3,application_utilization=0"), Ok(0.3));
        assert_eq!(utilization(b"TEXT application_utilization=0"), Ok(0.0));
    }

    #[test]
    fn a_malformed_report_is_refused_as_a_whole() {
        let check =
            |value: &str, expected| assert_eq!(parse(value.as_bytes()), Err(expected), "{value}");
        check("", ReportError::UnknownForm);
        check("BIN AAAA", ReportError::UnknownForm);
        check("TEXT ", ReportError::UnknownForm);
        check("TEXT cpu_utilization", ReportError::Syntax);
        check("TEXT cpu_utilization=", ReportError::Syntax);
        check("TEXT cpu_utilization=0.3,", ReportError::Syntax);
        check("TEXT cpu_utilization=0.1,cpu_utilization=0.9", ReportError::Syntax);
        check("TEXT load=1", ReportError::Syntax);
        check("TEXT cpu_utilization=NaN", ReportError::Range);
        check("TEXT cpu_utilization=inf", ReportError::Range);
        check("TEXT cpu_utilization=-0.1", ReportError::Range);
        check("TEXT eps=1", ReportError::NoUtilization);
        check("JSON {", ReportError::Syntax);
        check("JSON []", ReportError::Syntax);
        check(r#"JSON {"cpu_utilization": "0.3"}"#, ReportError::Syntax);
        check(r#"JSON {"cpu_utilization": -1}"#, ReportError::Range);
        check(&format!("TEXT cpu_utilization=0.{}", "3".repeat(REPORT_MAX)), ReportError::TooLong);
        assert_eq!(parse(b"TEXT cpu_utilization=\xff"), Err(ReportError::Syntax));
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_backend_sends_is_read_or_refused(
            value: Vec<u8>,
            fields in "(TEXT|JSON) [a-z_.=,0-9eE+-]{0,64}",
        ) {
            for value in [&value[..], fields.as_bytes()] {
                let Ok(report) = parse(value) else { continue };
                let optional = [report.requests_per_second, report.errors_per_second];
                let numbers = optional.into_iter().flatten().chain([report.utilization]);
                let plain = |number: f64| number.is_finite() && number >= 0.0;
                proptest::prop_assert!(numbers.into_iter().all(plain));
            }
        }
    }
}
