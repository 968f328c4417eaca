//! What a [`Collector`](super::Collector) writes with: one call for each family of metrics.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::histogram::Histogram;

/// Writes families of metrics. Names are without the prefix, and those of counters without `_total`.
#[derive(Debug)]
pub struct Families<'a>(DescriptorEncoder<'a>);

/// A label: its name, and its value, which comes from the configuration or from a fixed list.
pub type Label<'a> = (&'static str, &'a str);

impl<'a> Families<'a> {
    /// To be written where the collector is told to.
    pub fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self(encoder)
    }

    /// A gauge without labels.
    ///
    /// # Errors
    /// When it cannot be written; so in all others.
    pub fn gauge<V: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: V) -> fmt::Result {
        self.known_gauge(name, help, Some(value))
    }

    /// A gauge without labels; with nothing known, only its name and meaning.
    pub fn known_gauge<V>(&mut self, name: &str, help: &str, value: Option<V>) -> fmt::Result
    where
        V: EncodeGaugeValue,
    {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        value.map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    /// A gauge for each set of labels.
    pub fn gauges<L, V>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result
    where
        L: EncodeLabelSet,
        V: EncodeGaugeValue,
    {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A counter without labels.
    pub fn counter<V>(&mut self, name: &str, help: &str, value: V) -> fmt::Result
    where
        ConstCounter<V>: EncodeMetric,
    {
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    /// A counter for each set of labels.
    pub fn counters<L, V>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result
    where
        L: EncodeLabelSet,
        V: EncodeCounterValue,
        ConstCounter<V>: EncodeMetric,
    {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A histogram for each set of labels.
    pub fn histograms<'h, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in values {
            histogram.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
