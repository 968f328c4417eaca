//! The formats that others must be able to read: protobuf types, the Kinesis frame, the cache-entry header.
//!
//! Pure: nothing here does I/O, reads a clock or keeps state between calls. The modules stand in the order in
//! which data meets them: a stream's sequence number becomes a [`position::Position`], the row becomes an
//! [`item::Item`] under a [`key::ItemKey`], both become a [`change::Change`], changes travel in a
//! [`frame`], or each as [`json`] in a record of the [`kpl`]; a reader takes any of them for a [`record`]; and they end as
//! a cache [`entry`]. The operators' commands [`show`] them. The protobuf schema is in `proto/schema`.

mod base36;
pub mod sequence;
pub mod position;
pub mod item;
pub mod key;
pub mod key_text;
pub mod change;
pub mod trace;
pub mod frame;
pub mod json;
pub mod kpl;
pub mod record;
pub mod entry;
pub mod show;

#[expect(
    missing_docs,
    unreachable_pub,
    reason = "generated: its documentation is the schema's, and its items are re-exported where they belong"
)]
mod generated {
    include!("generated/warmcast.v1.rs");
}
