//! The guest of a shard: a command that reads it beside its owner, in the place of the second reader.
//!
//! DynamoDB Streams lets two processes read a shard (AWS: "reading and processing a stream"): the owner of its lease, and
//! one more, which is the owner's own pass that catches a parked lane up. A command that reads streams takes that
//! place by a claim in the lease, in one conditional write: no lane is parked there, and nobody else has the place. Before
//! a pass begins the owner reads the lease, and waits while a claim is live. So the lanes go first: with one
//! parked, the guest's next renewal is refused, and it leaves.
//!
//! A claim ends by itself at its `until_ms`, the claimant's clock plus [`GUEST_CLAIM`], judged by the clock of who looks.
//! What is taken for granted: the clocks differ by less than a claim lasts beyond a renewal (50 s). If they
//! do not, or a lane is parked that the lease does not tell yet, three read the shard for a while: reads are throttled,
//! and nothing is lost. A claim further ahead than a claim can be is a wrong clock's, and nobody waits for it.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::compatibility::STATE_VERSION;
use super::item::{Attributes, Item, key, n, s};
use super::lease::{partition, sort};
use super::{StateStore, StoreError};
use crate::aws::CallError;
use crate::limits::GUEST_CLAIM;

const ATTRIBUTE: &str = "guest";

/// A claim to a shard's second reader, live or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Whose it is. A command that is run again has the same name, and so takes up what its killed run left.
    pub name: String,
    /// When it ends by itself: milliseconds since the epoch, by the claimant's clock.
    pub until_ms: u64,
}

/// What became of a claim, or of its renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The place is the claimant's until then: milliseconds since the epoch.
    Held {
        /// See [`Guest::until_ms`].
        until_ms: u64,
    },
    /// A lane is parked on the shard: the place is its owner's. What the claimant had of it is gone.
    Parked,
    /// Another has it.
    Taken(Guest),
    /// There is no lease: nobody else reads the shard.
    NoLease,
}

impl Guest {
    /// Whether the place is its.
    pub fn is_live(&self, now_ms: u64) -> bool {
        let ahead = u128::from(self.until_ms.saturating_sub(now_ms));
        ahead > 0 && ahead <= 2 * GUEST_CLAIM.as_millis()
    }
}

impl StateStore {
    /// Claims the second reader's place of a shard for `name`, or renews that claim: for [`GUEST_CLAIM`] from now. The
    /// lease may be anybody's, or of a shard that is finished.
    ///
    /// # Errors
    /// When a call fails or the item is not a lease.
    pub async fn claim_guest(
        &self,
        stream: &str,
        shard: &str,
        name: &str,
        now_ms: u64,
    ) -> Result<Claim, StoreError> {
        let claim_ms = u64::try_from(GUEST_CLAIM.as_millis()).unwrap_or(u64::MAX);
        let until_ms = now_ms.saturating_add(claim_ms);
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(partition(stream), sort(shard))))
            .update_expression("SET guest = :guest")
            .condition_expression(
                "attribute_exists(pk) AND (attribute_not_exists(#format) OR #format <= :known) AND \
                 attribute_not_exists(parked) AND (attribute_not_exists(guest) OR guest.#name = :name OR \
                 guest.until_ms <= :now OR guest.until_ms > :far)",
            )
            .expression_attribute_names("#format", "format")
            .expression_attribute_values(":known", n(STATE_VERSION))
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":guest", guest_value(name, until_ms))
            .expression_attribute_values(":name", s(name))
            .expression_attribute_values(":now", n(now_ms))
            .expression_attribute_values(":far", n(now_ms.saturating_add(2 * claim_ms)))
            .send()
            .await;
        let answer = self.answered("UpdateItem", answer);
        match answer {
            Ok(_) => return Ok(Claim::Held { until_ms }),
            Err(error) if error.is_code("ConditionalCheckFailedException") => {}
            Err(error) => return Err(error.into()),
        }
        // The lease may have changed meanwhile; whoever asks again gets a new answer.
        let Some(lease) = self.lease(stream, shard).await? else { return Ok(Claim::NoLease) };
        match lease.guest {
            Some(other) if other.name != name && lease.parked.is_empty() => Ok(Claim::Taken(other)),
            _ => Ok(Claim::Parked),
        }
    }

    /// Gives the place up, if `name` has it.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn release_guest(&self, stream: &str, shard: &str, name: &str) -> Result<(), CallError> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(partition(stream), sort(shard))))
            .update_expression("REMOVE guest")
            .condition_expression("guest.#name = :name")
            .expression_attribute_names("#name", "name")
            .expression_attribute_values(":name", s(name))
            .send()
            .await;
        let answer = self.answered("UpdateItem", answer);
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.is_code("ConditionalCheckFailedException") => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn guest_value(name: &str, until_ms: u64) -> AttributeValue {
    AttributeValue::M(HashMap::from([("name".to_owned(), s(name)), ("until_ms".to_owned(), n(until_ms))]))
}

/// Reads the attribute of a lease; one without it has no guest.
pub(super) fn read_guest(item: &Item<'_>) -> Result<Option<Guest>, StoreError> {
    let attributes: &Attributes = match item.attributes.get(ATTRIBUTE) {
        None => return Ok(None),
        Some(AttributeValue::M(attributes)) => attributes,
        Some(_) => return Err(item.wrong("guest is not a map".to_owned())),
    };
    let guest = Item { table: item.table, attributes };
    let within = |error: StoreError| item.wrong(format!("guest: {error}"));
    let name = guest.text("name").map_err(within)?.to_owned();
    Ok(Some(Guest { name, until_ms: guest.number("until_ms").map_err(within)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_live_until_its_time_and_one_of_a_wrong_clock_is_not() {
        let claim_ms = u64::try_from(GUEST_CLAIM.as_millis()).unwrap();
        let guest = Guest { name: "replay".to_owned(), until_ms: 1_000_000 };
        assert!(guest.is_live(999_999) && guest.is_live(1_000_000 - claim_ms));
        assert!(!guest.is_live(1_000_000) && !guest.is_live(1_000_001));
        assert!(guest.is_live(1_000_000 - 2 * claim_ms), "whose clock is behind by a claim");
        assert!(!guest.is_live(1_000_000 - 2 * claim_ms - 1));
    }
}
