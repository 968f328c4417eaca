//! Which trace a frame belongs to, if it was sampled: what OpenTelemetry calls a span context.

/// The bytes of a [`TraceContext`].
pub const TRACE_CONTEXT_LEN: usize = 16 + 8 + 1;

/// A span that what is made of the frame is a child of (W3C Trace Context, `traceparent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace: not all zero.
    pub trace_id: [u8; 16],
    /// The span: not all zero.
    pub span_id: [u8; 8],
    /// `traceparent`'s flags: 1 is sampled.
    pub flags: u8,
}

impl TraceContext {
    /// The trace's id, the span's, the flags.
    #[must_use]
    pub fn to_bytes(self) -> [u8; TRACE_CONTEXT_LEN] {
        let mut bytes = [0; TRACE_CONTEXT_LEN];
        let all = self.trace_id.into_iter().chain(self.span_id).chain([self.flags]);
        bytes.iter_mut().zip(all).for_each(|(byte, value)| *byte = value);
        bytes
    }

    /// Reads [`TraceContext::to_bytes`]. `None` for anything else: a trace is never a reason to refuse a change.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&trace_id, rest) = bytes.split_first_chunk::<16>()?;
        let (&span_id, rest) = rest.split_first_chunk::<8>()?;
        let &[flags] = rest else { return None };
        let is_valid = trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self { trace_id, span_id, flags })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_context_reads_as_it_was_written(trace_id in any::<[u8; 16]>(), span_id in any::<[u8; 8]>(), flags in any::<u8>()) {
            prop_assume!(trace_id != [0; 16] && span_id != [0; 8]);
            let context = TraceContext { trace_id, span_id, flags };
            prop_assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
        }

        #[test]
        fn bytes_of_another_length_are_none(bytes in prop::collection::vec(1..=u8::MAX, 0..60)) {
            prop_assert_eq!(TraceContext::from_bytes(&bytes).is_some(), bytes.len() == TRACE_CONTEXT_LEN);
        }
    }

    #[test]
    fn ids_of_zeros_are_none() {
        assert_eq!(TraceContext::from_bytes(&[0; TRACE_CONTEXT_LEN]), None);
    }
}
