//! The fake of DynamoDB Streams, spoken to by the real SDK.
//!
//! `contract` has one set of expectations, which the fake, Amazon's DynamoDB Local and ministack are all held to. The
//! other modules are about what only the fake can do. `make test` installs the emulators.

#[cfg(test)]
mod support;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod emulators;
#[cfg(test)]
mod expectations;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod lineage;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod watching;
