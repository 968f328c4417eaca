//! The registry's metrics in OpenTelemetry's model: the same names, labels and numbers as `/metrics` has.
//!
//! Counters are monotonic cumulative sums since the process started, without Prometheus' `_total` at the end of their
//! name, which collectors add again; histograms have explicit bounds. (OpenTelemetry Specification, "Prometheus and
//! OpenMetrics Compatibility".)

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prometheus_client::encoding::prometheus_protobuf::{encode, prometheus_data_model as prometheus};

use crate::metrics::Registry;

/// When what is counted began, and when it was read: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start_ns: u64,
    pub(super) now_ns: u64,
}

/// Everything that is registered, as it is now.
pub(super) fn request(
    registry: &Registry,
    resource: Resource,
    scope: InstrumentationScope,
    span: Span,
) -> Result<ExportMetricsServiceRequest, std::fmt::Error> {
    let families = encode(registry)?;
    let metrics = families.into_iter().filter_map(|family| metric(family, span)).collect();
    Ok(ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
            schema_url: String::new(),
        }],
    })
}

/// One family; nothing of one that has no values yet.
fn metric(family: prometheus::MetricFamily, span: Span) -> Option<Metric> {
    let is_counted = family.r#type() == prometheus::MetricType::Counter;
    let prometheus::MetricFamily { name, help, metric, .. } = family;
    let (mut numbers, mut distributions) = (Vec::new(), Vec::new());
    for prometheus::Metric { label, counter, gauge, untyped, histogram, .. } in metric {
        let attributes: Vec<KeyValue> = label.into_iter().map(attribute).collect();
        let value = counter
            .map(|of| of.value)
            .or_else(|| gauge.map(|of| of.value))
            .or_else(|| untyped.map(|of| of.value));
        match (value, histogram) {
            (Some(value), _) => numbers.push(number(attributes, value, span, is_counted)),
            (None, Some(value)) => distributions.push(distribution(attributes, value, span)),
            // A summary: nothing here makes them.
            (None, None) => {}
        }
    }
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let data = match (numbers.is_empty(), distributions.is_empty()) {
        (false, _) if is_counted => {
            Data::Sum(Sum { data_points: numbers, aggregation_temporality, is_monotonic: true })
        }
        (false, _) => Data::Gauge(Gauge { data_points: numbers }),
        (true, false) => Data::Histogram(Histogram { data_points: distributions, aggregation_temporality }),
        (true, true) => return None,
    };
    let name = if is_counted { name.strip_suffix("_total").unwrap_or(&name) } else { &name };
    let (name, unit) = (name.to_owned(), unit(name).to_owned());
    Some(Metric { name, description: help, unit, metadata: Vec::new(), data: Some(data) })
}

/// The unit that a name tells at its end, as UCUM has it.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some("ratio") => "1",
        _ => "",
    }
}

fn attribute(label: prometheus::LabelPair) -> KeyValue {
    let value = Some(any_value::Value::StringValue(label.value));
    KeyValue { key: label.name, value: Some(AnyValue { value }) }
}

fn number(attributes: Vec<KeyValue>, value: f64, span: Span, is_counted: bool) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        // What is no count has no beginning.
        start_time_unix_nano: if is_counted { span.start_ns } else { 0 },
        time_unix_nano: span.now_ns,
        exemplars: Vec::new(),
        flags: 0,
        value: Some(number_data_point::Value::AsDouble(value)),
    }
}

/// Prometheus counts what is at most as large as a bucket's bound; here each bucket counts by itself, and the last one
/// has no bound.
fn distribution(attributes: Vec<KeyValue>, value: prometheus::Histogram, span: Span) -> HistogramDataPoint {
    let bounded = value.bucket.iter().filter(|bucket| bucket.upper_bound < f64::MAX);
    let (mut explicit_bounds, mut bucket_counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in bounded {
        explicit_bounds.push(bucket.upper_bound);
        bucket_counts.push(bucket.cumulative_count.saturating_sub(below));
        below = bucket.cumulative_count;
    }
    bucket_counts.push(value.sample_count.saturating_sub(below));
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: span.start_ns,
        time_unix_nano: span.now_ns,
        count: value.sample_count,
        sum: Some(value.sample_sum),
        bucket_counts,
        explicit_bounds,
        exemplars: Vec::new(),
        flags: 0,
        min: None,
        max: None,
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge as PrometheusGauge;
    use prometheus_client::metrics::info::Info;

    use super::*;
    use crate::metrics;

    #[test]
    fn every_kind_of_metric_is_as_opentelemetry_has_it() {
        let mut registry = metrics::registry();
        let (counter, gauge): (Counter, PrometheusGauge) = (Counter::default(), PrometheusGauge::default());
        let histogram = metrics::Histogram::new(&[0.1, 1.0]);
        registry.register("records_read", "Records read", counter.clone());
        registry.register("queue_bytes", "Bytes in queues", gauge.clone());
        registry.register("put_seconds", "Puts", histogram.clone());
        registry.register("build", "The build", Info::new([("version", "1.2.3")]));
        counter.inc_by(7);
        gauge.set(-3);
        [0.05, 0.1, 0.5, 9.0].iter().for_each(|seconds| histogram.observe(*seconds));
        let span = Span { start_ns: 5, now_ns: 9 };
        let request = request(&registry, Resource::default(), InstrumentationScope::default(), span).unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let said: Vec<_> = metrics.iter().map(|metric| (&*metric.name, &*metric.unit)).collect();
        let expected = [
            ("warmcast_records_read", ""),
            ("warmcast_queue_bytes", "By"),
            ("warmcast_put_seconds", "s"),
            ("warmcast_build_info", ""),
        ];
        assert_eq!(said, expected);
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(7.0)));
        assert_eq!((sum.data_points[0].start_time_unix_nano, sum.data_points[0].time_unix_nano), (5, 9));
        let Some(Data::Gauge(gauge)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(-3.0)));
        let Some(Data::Histogram(histogram)) = &metrics[2].data else { panic!("{:?}", metrics[2]) };
        let point = &histogram.data_points[0];
        assert_eq!((&*point.explicit_bounds, &*point.bucket_counts), (&[0.1, 1.0][..], &[2, 1, 1][..]));
        assert_eq!((point.count, point.sum), (4, Some(0.05 + 0.1 + 0.5 + 9.0)));
        let Some(Data::Gauge(info)) = &metrics[3].data else { panic!("{:?}", metrics[3]) };
        assert_eq!(info.data_points[0].attributes[0].key, "version");
    }
}
