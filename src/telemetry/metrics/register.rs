//! Metrics as they are defined, made and registered; and series taken back.

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use pgsluice_core::record::TopicPartition;

use super::MetricsError;
use super::definition::{Definition, Kind};

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, MetricsError> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn counter(registry: &Registry, metric: Definition) -> Result<IntCounter, MetricsError> {
    add(registry, IntCounter::new(metric.name, metric.help)?)
}

pub(super) fn gauge(registry: &Registry, metric: Definition) -> Result<IntGauge, MetricsError> {
    add(registry, IntGauge::new(metric.name, metric.help)?)
}

pub(super) fn counters(
    registry: &Registry,
    metric: Definition,
) -> Result<IntCounterVec, MetricsError> {
    add(registry, IntCounterVec::new(Opts::new(metric.name, metric.help), metric.labels)?)
}

pub(super) fn gauges(registry: &Registry, metric: Definition) -> Result<IntGaugeVec, MetricsError> {
    add(registry, IntGaugeVec::new(Opts::new(metric.name, metric.help), metric.labels)?)
}

pub(super) fn histogram(
    registry: &Registry,
    metric: Definition,
) -> Result<Histogram, MetricsError> {
    add(registry, Histogram::with_opts(options(metric))?)
}

pub(super) fn histograms(
    registry: &Registry,
    metric: Definition,
) -> Result<HistogramVec, MetricsError> {
    add(registry, HistogramVec::new(options(metric), metric.labels)?)
}

fn options(metric: Definition) -> HistogramOpts {
    let options = HistogramOpts::new(metric.name, metric.help);
    match metric.kind {
        Kind::Histogram(buckets) => options.buckets(buckets.to_vec()),
        Kind::Counter | Kind::Gauge => options,
    }
}

/// Removes every series of a metric whose `topic` and `partition` labels are the partition's.
pub(super) fn remove_series<B: MetricVecBuilder>(
    metric: &MetricVec<B>,
    partition: &TopicPartition,
) {
    let number = partition.partition.to_string();
    let label_order: Vec<&str> = metric
        .desc()
        .first()
        .map(|desc| desc.variable_labels.iter().map(String::as_str).collect())
        .unwrap_or_default();
    for family in metric.collect() {
        for series in family.get_metric() {
            let value = |name: &str| {
                series.get_label().iter().find(|pair| pair.name() == name).map_or("", |p| p.value())
            };
            if value("topic") != &*partition.topic || value("partition") != number {
                continue;
            }
            let labels: Vec<&str> = label_order.iter().map(|name| value(name)).collect();
            // The series was listed a moment ago; only another removal could have been faster.
            drop(metric.remove_label_values(&labels));
        }
    }
}
