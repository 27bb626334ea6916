//! What the loop publishes, as metrics: read when somebody asks, so that what left the
//! configuration leaves the metrics with it.

mod canary;
mod forecast;
mod models;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use gateway_common::layout::{GuardCounts, Traffic};
use gateway_common::verdict::Verdict;
use gateway_core::clients::ClientClassState;
use gateway_core::decision::Health;
use gateway_core::flows::{Durations, FlowTally};
use gateway_core::state::{BackendState, PoolState, State, VipState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::plane::Counters;
use super::published::Published;
use crate::telemetry::Telemetry;

/// Weights, health, load and flows by backend; packets by VIP, backend and verdict.
#[derive(Debug)]
pub struct Gauges {
    published: Arc<Published>,
    telemetry: Telemetry,
}

impl Gauges {
    /// Reads from what the loop publishes, and how much of what was seen never reached it.
    pub fn new(published: Arc<Published>, telemetry: Telemetry) -> Gauges {
        Gauges { published, telemetry }
    }
}

impl Collector for Gauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let state = self.published.state();
        let counters = self.published.counters();
        page.counter(
            "gateway_observations_dropped",
            "Observations lost because the loop was behind",
            [(Vec::new(), self.telemetry.dropped())],
        )?;
        page.counter(
            "gateway_observations_stale",
            "Observations of backends that are gone",
            [(Vec::new(), state.observations_stale)],
        )?;
        page.steering(&state)?;
        page.health(&state)?;
        page.load(&state)?;
        page.canary(&state)?;
        page.models(&state)?;
        page.autoscale(&state)?;
        page.headroom(&state)?;
        page.admission(&state)?;
        page.forecasts(&state)?;
        page.clients(&state)?;
        page.flows(&state)?;
        page.packets(&counters)?;
        page.guard(&state, &counters)?;
        page.traffic("vip", &vip_names(&state), &counters.vips)?;
        page.traffic("backend", &backend_names(&state), &counters.backends)
    }
}

type Labels = Vec<(&'static str, String)>;

/// Labels of what a row counts for.
type Names = HashMap<u32, Labels>;

fn vip_names(state: &State) -> Names {
    state.vips.iter().map(|vip| (vip.row, vec![("vip", vip.name.clone())])).collect()
}

fn backend_names(state: &State) -> Names {
    each_backend(state).map(|(pool, backend)| (backend.row, labels(pool, backend))).collect()
}

fn each_backend(state: &State) -> impl Iterator<Item = (&PoolState, &BackendState)> {
    state.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)))
}

fn labels(pool: &PoolState, backend: &BackendState) -> Labels {
    vec![("pool", pool.name.clone()), ("backend", backend.name.clone())]
}

fn labels_and(
    pool: &PoolState,
    backend: &BackendState,
    key: &'static str,
    value: &'static str,
) -> Labels {
    let mut all = labels(pool, backend);
    all.push((key, value.to_owned()));
    all
}

/// A metrics page that is being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            if labels.is_empty() {
                metric.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            } else {
                ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn backends(
        &mut self,
        name: &str,
        help: &str,
        state: &State,
        value: impl Fn(&BackendState) -> Option<f64>,
    ) -> fmt::Result {
        let samples = each_backend(state)
            .filter_map(|(pool, backend)| Some((labels(pool, backend), value(backend)?)));
        self.gauge(name, help, samples)
    }

    fn steering(&mut self, state: &State) -> fmt::Result {
        self.backends(
            "gateway_backend_weight",
            "Weight for new flows and requests, relative to the pool's mean",
            state,
            |backend| Some(backend.weight),
        )?;
        self.backends(
            "gateway_backend_weight_shaped",
            "Weight by a split of the load that is forecast, which decides nothing",
            state,
            |backend| backend.shaped,
        )?;
        self.backends(
            "gateway_backend_share_wanted",
            "Share of the pool's new flows and requests that the weights ask for",
            state,
            |backend| Some(backend.share),
        )?;
        let effective = state.pools.iter().flat_map(effective_shares);
        self.gauge(
            "gateway_backend_share_effective",
            "Share of the pool's finished requests and first responses that the backend had",
            effective,
        )?;
        let sources = each_backend(state).map(|(pool, backend)| {
            (labels_and(pool, backend, "source", backend.source.as_str()), 1.0)
        });
        self.gauge(
            "gateway_backend_weight_source",
            "Who decided the weight: model, substitute, static, equal or manual",
            sources,
        )
    }

    fn health(&mut self, state: &State) -> fmt::Result {
        let healths = each_backend(state).flat_map(|(pool, backend)| {
            Health::ALL.into_iter().map(move |health| {
                let is = f64::from(u8::from(backend.health == health));
                (labels_and(pool, backend, "health", health.as_str()), is)
            })
        });
        self.gauge("gateway_backend_health", "1 for the health that the backend has", healths)
    }

    fn load(&mut self, state: &State) -> fmt::Result {
        self.backends(
            "gateway_backend_in_flight",
            "Flows and requests in flight",
            state,
            |backend| Some(backend.inputs.in_flight as f64),
        )?;
        self.backends(
            "gateway_backend_latency_p50_seconds",
            "Median latency in the loop's window",
            state,
            |backend| backend.inputs.latency_p50,
        )?;
        self.backends(
            "gateway_backend_latency_p99_seconds",
            "99th percentile of the latency in the loop's window",
            state,
            |backend| backend.inputs.latency_p99,
        )?;
        self.backends(
            "gateway_backend_failed_share",
            "Failed share of what finished in the loop's window",
            state,
            |backend| Some(backend.inputs.failed_share),
        )
    }

    fn clients(&mut self, state: &State) -> fmt::Result {
        let each = |of: fn(&ClientClassState) -> f64| {
            let class =
                move |class: &ClientClassState| (vec![("class", class.id.to_string())], of(class));
            state.clients.classes.iter().map(class).collect::<Vec<_>>()
        };
        self.gauge(
            "gateway_client_class_clients",
            "Clients of which enough is known that are in a class",
            each(|class| class.clients as f64),
        )?;
        self.gauge(
            "gateway_client_class_work_share",
            "Part of the work of all clients that are known that a class made when it was made",
            each(|class| f64::from(class.share)),
        )?;
        self.gauge(
            "gateway_client_class_cost_ratio",
            "What a request of a class's clients costs over the pool's usual",
            each(|class| f64::from(class.cost)),
        )
    }

    fn flows(&mut self, state: &State) -> fmt::Result {
        self.durations(
            "gateway_flow_connect_duration_seconds",
            "From SYN to SYN-ACK, of L4 flows",
            state,
            |flows| &flows.connect,
        )?;
        self.durations(
            "gateway_flow_first_response_seconds",
            "From an HTTP/1 request to its response, else from the client's first payload to the backend's, of L4 flows",
            state,
            |flows| &flows.first_response,
        )?;
        self.durations(
            "gateway_flow_duration_seconds",
            "From SYN to the end, of L4 flows that were closed or reset",
            state,
            |flows| &flows.duration,
        )?;
        let statuses = each_backend(state).flat_map(|(pool, backend)| {
            let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter();
            let counts = classes.zip(backend.flows.statuses);
            counts.map(move |(class, count)| (labels_and(pool, backend, "status", class), count))
        });
        self.counter(
            "gateway_flow_responses",
            "HTTP/1 responses in plain text in L4 flows, by the class of their status",
            statuses.filter(|(_, count)| *count > 0),
        )?;
        let resets = each_backend(state).flat_map(|(pool, backend)| {
            let FlowTally { resets_by_client, resets_by_backend, .. } = &backend.flows;
            let sides = [("client", *resets_by_client), ("backend", *resets_by_backend)];
            sides.map(|(side, count)| (labels_and(pool, backend, "side", side), count))
        });
        self.counter(
            "gateway_flow_resets",
            "Established L4 flows ended by a reset, by the side that sent it",
            resets.filter(|(_, count)| *count > 0),
        )
    }

    /// A histogram for each backend that has something in it.
    fn durations(
        &mut self,
        name: &str,
        help: &str,
        state: &State,
        of: fn(&FlowTally) -> &Durations,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (pool, backend) in each_backend(state) {
            let durations = of(&backend.flows);
            if durations.count() == 0 {
                continue;
            }
            let buckets: Vec<(f64, u64)> = durations.buckets().collect();
            metric.encode_family(&labels(pool, backend))?.encode_histogram::<NoLabelSet>(
                durations.sum_seconds(),
                durations.count(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn packets(&mut self, counters: &Counters) -> fmt::Result {
        let verdicts = Verdict::ALL.iter().zip(counters.verdicts);
        self.counter(
            "gateway_packets",
            "Packets that XDP saw, by how their journey ended",
            verdicts
                .map(|(verdict, count)| (vec![("verdict", verdict.as_str().to_owned())], count)),
        )?;
        self.gauge("gateway_flows", "Open L4 flows", [(Vec::new(), counters.flows as f64)])
    }

    fn guard(&mut self, state: &State, counters: &Counters) -> fmt::Result {
        let names = vip_names(state);
        let outcomes = |counts: &GuardCounts| {
            [
                ("denied", counts.denied),
                ("rate_new", counts.rate_new),
                ("rate_packets", counts.rate_packets),
                ("challenged", counts.challenged),
                ("proven", counts.proven),
            ]
        };
        let counted = counters.guarded.iter().flat_map(|(row, counts)| {
            let vip = names.get(row);
            outcomes(counts).into_iter().filter_map(move |(outcome, count)| {
                let mut labels = vip?.clone();
                labels.push(("outcome", outcome.to_owned()));
                Some((labels, count))
            })
        });
        self.counter("gateway_guard_packets", "Packets that the guard did something to", counted)?;
        let confirmed = counters
            .guarded
            .iter()
            .filter_map(|(row, counts)| Some((names.get(row)?.clone(), counts.confirmed)));
        self.counter(
            "gateway_vip_flows_confirmed",
            "L4 flows whose client answered the backend's acceptance",
            confirmed,
        )?;
        let vips = |value: fn(&VipState) -> f64| {
            state.vips.iter().map(move |vip| (vec![("vip", vip.name.clone())], value(vip)))
        };
        self.gauge(
            "gateway_guard_challenging",
            "1: sources of SYNs have to prove that they are there",
            vips(|vip| f64::from(u8::from(vip.challenging))),
        )?;
        self.gauge(
            "gateway_guard_unconfirmed_per_second",
            "Connections that begin and are not confirmed, and sources that are asked and do not answer",
            vips(|vip| vip.unconfirmed_per_second),
        )
    }

    fn traffic(&mut self, of: &str, names: &Names, rows: &BTreeMap<u32, Traffic>) -> fmt::Result {
        let directions = |read: fn(&Traffic) -> [(&'static str, u64); 2]| {
            rows.iter().flat_map(move |(row, traffic)| {
                let labels = names.get(row);
                read(traffic).into_iter().filter_map(move |(direction, value)| {
                    let mut labels = labels?.clone();
                    labels.push(("direction", direction.to_owned()));
                    Some((labels, value))
                })
            })
        };
        let plain = |read: fn(&Traffic) -> u64| {
            rows.iter()
                .filter_map(move |(row, traffic)| Some((names.get(row)?.clone(), read(traffic))))
        };
        self.counter(
            &format!("gateway_{of}_packets"),
            "Packets forwarded by XDP",
            directions(|traffic| [("in", traffic.packets_in), ("out", traffic.packets_out)]),
        )?;
        self.counter(
            &format!("gateway_{of}_bytes"),
            "IP bytes forwarded by XDP",
            directions(|traffic| [("in", traffic.bytes_in), ("out", traffic.bytes_out)]),
        )?;
        self.counter(
            &format!("gateway_{of}_flows"),
            "L4 flows begun",
            plain(|traffic| traffic.flows),
        )?;
        self.counter(
            &format!("gateway_{of}_resets"),
            "L4 flows ended by a reset, of either side",
            plain(|traffic| traffic.resets),
        )
    }
}

/// What each backend had of what finished; nothing where nothing did.
fn effective_shares(pool: &PoolState) -> impl Iterator<Item = (Labels, f64)> {
    let rate = |backend: &BackendState| backend.inputs.requests_per_second;
    let whole: f64 = pool.backends.iter().map(rate).sum();
    let counted = pool.backends.iter().filter(move |_| whole > 0.0);
    counted.map(move |backend| (labels(pool, backend), rate(backend) / whole))
}
