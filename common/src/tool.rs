//! What the operators' commands share: how they are told times and keys, how they keep to a rate, show how far they are,
//! report, and go on where a run before was stopped.

mod job_name;
mod lines;
mod moment;
mod progress;
mod raw_key;
mod report;
mod throttle;

pub use job_name::job_name;
pub use lines::{LinesError, read_lines};
pub use moment::{Moment, MomentError};
pub use progress::Progress;
pub use raw_key::{RawKey, RawKeyError};
pub use report::report;
pub use throttle::Throttle;
