//! Leases: who reads a shard, and how far it got.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Put, ReturnValue, TransactWriteItem};

use super::super::checkpoint::Checkpoint;
use super::super::compatibility::STATE_VERSION;
use super::super::parked::{LaneOnset, ParkedLanes};
use super::super::source::Shard;
use super::guest::{Guest, read_guest};
use super::item::{Attributes, FORMAT, Item, key, n, new_item, s};
use super::parked::{parked_value, read_parked, write_parked};
use super::{StateStore, StoreError, gap};
use crate::aws::CallError;

/// A lease as it was last read or written by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The stream.
    pub stream: Arc<str>,
    /// The shard.
    pub shard: Arc<str>,
    /// The shard's parents.
    pub parents: Vec<String>,
    /// Who reads it; nobody if it was released.
    pub owner: Option<String>,
    /// Grows with each change of ownership, so that an owner cannot mistake an older tenure for its own. Zero
    /// while the shard was never read.
    pub epoch: u64,
    /// How far it got.
    pub checkpoint: Checkpoint,
    /// Bytes a second that its last owner read, when it last wrote.
    pub bytes_per_s: u64,
    /// When everything that had come into the shard was last known to be done or on its way to the checkpoint: in
    /// milliseconds since the epoch; 0 if never. Tells a shard that was idle from one that was left alone.
    pub seen_ms: u64,
    /// Its last owner gave it to this one for balance, and this one has not taken it up.
    pub given: bool,
    /// Where it goes back to when what was done lately may be lost ([`Rewind`](super::super::rewind::Rewind)).
    /// `None`: it was not kept, or the shard had only begun.
    pub rewind: Option<Checkpoint>,
    /// The state of what its records were done into when its last tenure began, and so all that is below the
    /// checkpoint and is not lost. `None`: it was never begun, or by somebody who does not rewind.
    pub target: Option<String>,
    /// Records that arrived at this time or before are settling
    /// ([`Delivery::settling`](super::super::processor::Delivery::settling)): in milliseconds since the epoch; 0: the
    /// first record will tell. `None`: none are.
    pub settling_ms: Option<u64>,
    /// When and how it was read to its end. `None` of a shard that is finished because it is gone.
    pub ended: Option<Ended>,
    /// The lanes that it speaks for: each has everything below the checkpoint, or is parked. Empty in a fleet without
    /// lanes, and until the shard is begun.
    pub lanes: BTreeSet<String>,
    /// The lanes that are parked on the shard.
    pub parked: ParkedLanes,
    /// The command that reads the shard beside its owner, if its claim is live.
    pub guest: Option<Guest>,
    /// The least version that reads it. Of one that this version does not know ([`Lease::is_newer`]) only the owner, the
    /// epoch and the parents are as they were read.
    pub format: u64,
}

/// How a shard was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When that was written, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The shard's last watermark: whatever is in its children was created then or later. `None` if it had none.
    pub watermark_ms: Option<u64>,
}

impl Ended {
    /// Whether the shard ended so long ago that all its children show. The clock is the reader's, the time the
    /// writer's: only for durations that are long beside the difference.
    pub fn is_settled(&self, now_ms: u64, settle: Duration) -> bool {
        u128::from(now_ms.abs_diff(self.at_ms)) >= settle.as_millis()
    }
}

/// How the lease of a new shard begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin<'a> {
    /// It may be taken when its parents are finished.
    AfterParents,
    /// It may be taken at once, and whatever the shard descends from is finished with.
    Now,
    /// This worker, which finished its parents, goes on with it.
    OwnedBy(&'a str),
}

/// What a tenure begins with, beside its owner and its epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Onset<'a> {
    /// The checkpoint, and that which it would be rewound to, goes back to this; `None` leaves them as they are.
    pub back_to: Option<Checkpoint>,
    /// See [`Lease::target`]; `None` leaves it as it is.
    pub target: Option<&'a str>,
    /// See [`Lease::settling_ms`]; `None` leaves it as it is.
    pub settling_ms: Option<u64>,
    /// See [`Lease::lanes`] and [`Lease::parked`]; `None` leaves them as they are.
    pub lanes: Option<LaneOnset>,
}

/// What an owner writes about its shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progressed {
    /// See [`Lease::bytes_per_s`].
    pub bytes_per_s: u64,
    /// See [`Lease::seen_ms`].
    pub seen_ms: u64,
    /// See [`Lease::rewind`]; `None` leaves it as it is.
    pub rewind: Option<Checkpoint>,
    /// See [`Lease::settling_ms`]; `None` leaves it as it is.
    pub settling_ms: Option<u64>,
    /// See [`Lease::parked`]; `None` leaves it as it is.
    pub parked: Option<ParkedLanes>,
}

/// Who gets a lease that is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient<'a> {
    /// The worker.
    pub worker: &'a str,
    /// Whether it gets it for balance, and not because the owner stops.
    pub for_balance: bool,
}

impl Lease {
    /// A lease that nobody owns, with nothing to say beside its checkpoint.
    pub fn new(stream: &str, shard: &str, epoch: u64, checkpoint: Checkpoint) -> Self {
        Self {
            stream: stream.into(),
            shard: shard.into(),
            parents: Vec::new(),
            owner: None,
            epoch,
            checkpoint,
            bytes_per_s: 0,
            seen_ms: 0,
            given: false,
            rewind: None,
            target: None,
            settling_ms: None,
            ended: None,
            lanes: BTreeSet::new(),
            parked: ParkedLanes::new(),
            guest: None,
            format: FORMAT,
        }
    }

    /// Whether it takes a later version than this one to read it. It is taken for a shard that others read, and is not
    /// touched.
    pub fn is_newer(&self) -> bool {
        self.format > STATE_VERSION
    }

    /// The lanes that its records are read for.
    pub fn attached(&self) -> BTreeSet<String> {
        self.lanes.iter().filter(|lane| !self.parked.contains_key(*lane)).cloned().collect()
    }

    /// Whether nothing is left to be done: the shard was read to its end, and no lane is parked on it.
    pub fn is_over(&self) -> bool {
        self.checkpoint.is_end() && self.parked.is_empty()
    }

    /// Whether somebody began to read the shard, which nobody may before its parents are finished.
    pub fn has_started(&self) -> bool {
        self.epoch > 0
    }

    /// Where the shard was begun, as far as the lease tells: what was done since then has all come after it.
    pub fn beginning(&self) -> Checkpoint {
        match &self.checkpoint {
            Checkpoint::AtTime(at_ms) => Checkpoint::AtTime(*at_ms),
            Checkpoint::TrimHorizon | Checkpoint::After(_) | Checkpoint::ShardEnd => Checkpoint::TrimHorizon,
        }
    }

    /// A name for it in errors and logs.
    pub fn name(&self) -> String {
        format!("lease of {} in {}", self.shard, self.stream)
    }
}

impl StateStore {
    /// The leases of a stream, strongly consistent.
    ///
    /// # Errors
    /// When a call fails or an item is not a lease.
    pub async fn leases(&self, stream: &str) -> Result<Vec<Lease>, StoreError> {
        Ok(self.stream_state(stream, true).await?.leases)
    }

    /// The lease of one shard, strongly consistent.
    ///
    /// # Errors
    /// When the call fails or the item is not a lease.
    pub async fn lease(&self, stream: &str, shard: &str) -> Result<Option<Lease>, StoreError> {
        let item = self.get(key(partition(stream), sort(shard))).await?;
        let read = |attributes| read_lease(&Item { table: self.table(), attributes }, &stream.into());
        item.as_ref().map(read).transpose()
    }

    /// Writes the lease of a new shard. A lease that is there already stays as it is, and is not returned.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn create_lease(
        &self,
        stream: &str,
        shard: &Shard,
        start: &Checkpoint,
        begin: Begin<'_>,
    ) -> Result<Option<Lease>, CallError> {
        let (lease, item) = new_lease(stream, shard, start, begin, &Onset::default());
        Ok(self.put_new(item).await?.then_some(lease))
    }

    /// Writes the lease of a shard that was finished, for lanes that it was finished without. A lease that is there stays
    /// as it is.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn create_finished_lease(
        &self,
        stream: &str,
        shard: &Shard,
        lanes: LaneOnset,
    ) -> Result<(), CallError> {
        let onset = Onset { lanes: Some(lanes), ..Onset::default() };
        let (_, item) = new_lease(stream, shard, &Checkpoint::ShardEnd, Begin::Now, &onset);
        self.put_new(item).await.map(|_| ())
    }

    /// Parks lanes on a shard that was finished without them. It begins a new epoch, as what its owner knows is not all.
    ///
    /// # Errors
    /// When the call fails; [`StoreError::Fenced`] when the lease has changed.
    pub async fn park_on_finished(&self, lease: &Lease, lanes: LaneOnset) -> Result<(), StoreError> {
        let mut set = "SET epoch = :new_epoch, lanes = :lanes".to_owned();
        let mut values = vec![
            (":new_epoch", n(lease.epoch + 1)),
            (":lanes", AttributeValue::Ss(lanes.known.into_iter().collect())),
        ];
        let remove = write_parked(&lanes.parked, &mut set, &mut values);
        let and = as_parked(&lease.parked, &mut values);
        self.update(lease, &join(set, &[remove]), and, &values).await.map(|_| ())
    }

    /// Writes the lease of a shard's child, to be begun with its first record, as [`StateStore::create_lease`] does,
    /// but only while the lease of `parent` is there: when that is gone, the child was begun by others long ago, and
    /// its own lease may be gone as well. `onset` is of the tenure of who goes on with it.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn create_child_lease(
        &self,
        parent: &Lease,
        child: &Shard,
        begin: Begin<'_>,
        onset: &Onset<'_>,
    ) -> Result<Option<Lease>, CallError> {
        let (lease, item) = new_lease(&parent.stream, child, &Checkpoint::TrimHorizon, begin, onset);
        let parent_key = key(partition(&parent.stream), sort(&parent.shard));
        let parent_is_there = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(parent_key))
            .condition_expression("attribute_exists(pk)");
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(pk)");
        let (Ok(parent_is_there), Ok(put)) = (parent_is_there.build(), put.build()) else {
            // Every required field is set above.
            return Ok(None);
        };
        let answer = self
            .client
            .transact_write_items()
            .transact_items(TransactWriteItem::builder().condition_check(parent_is_there).build())
            .transact_items(TransactWriteItem::builder().put(put).build())
            .send()
            .await;
        let answer = self.answered("TransactWriteItems", answer);
        match answer {
            Ok(_) => Ok(Some(lease)),
            Err(error) if error.is_code("TransactionCanceledException") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `owner` the owner, if the lease still has the owner and the epoch that were read. The answer has the
    /// checkpoint of the table: the former owner may have written one since.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when it has changed hands since, or its owner, who was taken for dead, has finished
    /// the shard.
    pub async fn take_lease(&self, lease: &Lease, owner: &str) -> Result<Lease, StoreError> {
        self.begin_tenure(lease, owner, &Onset::default()).await
    }

    /// As [`StateStore::take_lease`], with what the tenure begins with in the same write. It is the one write that
    /// takes a checkpoint back: as it begins a new epoch, also of an owner that has the lease, no checkpoint of before
    /// can land after it.
    ///
    /// # Errors
    /// As there.
    pub async fn begin_tenure(
        &self,
        lease: &Lease,
        owner: &str,
        onset: &Onset<'_>,
    ) -> Result<Lease, StoreError> {
        let mut expression = "SET #owner = :new_owner, epoch = :new_epoch".to_owned();
        let mut values = vec![(":new_owner", s(owner)), (":new_epoch", n(lease.epoch + 1))];
        if let Some(back_to) = &onset.back_to {
            expression.push_str(", checkpoint = :back, rewind = :back");
            values.push((":back", s(back_to.to_string())));
        }
        if let Some(target) = onset.target {
            expression.push_str(", target_state = :target");
            values.push((":target", s(target)));
        }
        if let Some(settling_ms) = onset.settling_ms {
            expression.push_str(", settling_ms = :settling");
            values.push((":settling", n(settling_ms)));
        }
        let mut remove = "";
        if let Some(lanes) = &onset.lanes {
            remove = write_parked(&lanes.parked, &mut expression, &mut values);
            if !lanes.known.is_empty() {
                expression.push_str(", lanes = :lanes");
                values.push((":lanes", AttributeValue::Ss(lanes.known.iter().cloned().collect())));
            }
        }
        // One that is taken for its parked lanes is at its end.
        let and = match lease.checkpoint.is_end() {
            true => "",
            false => {
                values.push((":end", s(Checkpoint::ShardEnd.to_string())));
                " AND checkpoint <> :end"
            }
        };
        expression.push_str(" REMOVE given");
        expression.push_str(remove);
        // The former owner writes what is parked within its epoch: what was read may be old.
        let and = match onset.lanes {
            Some(_) => format!("{and}{}", as_parked(&lease.parked, &mut values)),
            None => and.to_owned(),
        };
        let attributes = self.update(lease, &expression, &and, &values).await?;
        read_lease(&Item { table: self.table(), attributes: &attributes }, &lease.stream)
    }

    /// Writes how far the shard got, if `lease` still has it. An end stays an end: a write that timed out here may
    /// land there after the next one.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the lease was lost.
    pub async fn checkpoint(
        &self,
        lease: &Lease,
        checkpoint: &Checkpoint,
        progressed: Progressed,
    ) -> Result<(), StoreError> {
        let Changes { mut set, mut values, remove } = progressed.into_changes();
        set.push_str(", checkpoint = :checkpoint");
        values.push((":checkpoint", s(checkpoint.to_string())));
        // Of one that is at its end what is parked moves on.
        let and = if lease.checkpoint.is_end() { "" } else { not_after_end(checkpoint, &mut values) };
        self.update(lease, &join(set, &[remove]), and, &values).await.map(|_| ())
    }

    /// Writes that the shard was read to its end and all of it is done, if `lease` still has it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the lease was lost.
    pub async fn finish_lease(
        &self,
        lease: &Lease,
        ended: Ended,
        progressed: Progressed,
    ) -> Result<(), StoreError> {
        let Changes { mut set, mut values, remove } = progressed.into_changes();
        set.push_str(", checkpoint = :checkpoint, ended_ms = :ended");
        values.push((":checkpoint", s(Checkpoint::ShardEnd.to_string())));
        values.push((":ended", n(ended.at_ms)));
        if let Some(watermark_ms) = ended.watermark_ms {
            set.push_str(", watermark_ms = :watermark");
            values.push((":watermark", n(watermark_ms)));
        }
        self.update(lease, &join(set, &[remove]), "", &values).await.map(|_| ())
    }

    /// Gives the lease up with its last checkpoint, in one write: to the worker `to`, or to whoever takes it, so
    /// that nobody need wait for it to expire.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the lease was lost before.
    pub async fn release_lease(
        &self,
        lease: &Lease,
        checkpoint: Option<&Checkpoint>,
        progressed: Progressed,
        to: Option<Recipient<'_>>,
    ) -> Result<(), StoreError> {
        let Changes { mut set, mut values, remove } = progressed.into_changes();
        let mut owner = "";
        let and = checkpoint.map_or("", |checkpoint| {
            set.push_str(", checkpoint = :checkpoint");
            values.push((":checkpoint", s(checkpoint.to_string())));
            not_after_end(checkpoint, &mut values)
        });
        match to {
            Some(to) => {
                set.push_str(", #owner = :to, epoch = :new_epoch, given = :given");
                values.extend([
                    (":to", s(to.worker)),
                    (":new_epoch", n(lease.epoch + 1)),
                    (":given", AttributeValue::Bool(to.for_balance)),
                ]);
            }
            None => owner = ", #owner",
        }
        self.update(lease, &join(set, &[owner, remove]), and, &values).await.map(|_| ())
    }

    /// Removes the lease of a finished shard, if nobody changed it since.
    ///
    /// # Errors
    /// When the call fails; [`StoreError::Fenced`] when it has changed.
    pub async fn delete_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        let answer = self
            .client
            .delete_item()
            .table_name(&self.table)
            .set_key(Some(key(partition(&lease.stream), sort(&lease.shard))))
            .condition_expression(format!(
                "epoch = :epoch AND checkpoint = :end AND attribute_not_exists(parked) AND {KNOWN_FORMAT}"
            ))
            .expression_attribute_names("#format", "format")
            .expression_attribute_values(":known", n(STATE_VERSION))
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":end", s(Checkpoint::ShardEnd.to_string()))
            .send()
            .await;
        let answer = self.answered("DeleteItem", answer);
        fenced(answer.map(|_| ()), lease)
    }

    /// Records that data was trimmed before it was read, for a repair to answer; asks for a backfill for the lanes
    /// that it was to be read for.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn record_gap(
        &self,
        lease: &Lease,
        lanes: &BTreeSet<String>,
        after: &Checkpoint,
        at_ms: u64,
    ) -> Result<(), CallError> {
        for lane in lanes {
            let why = format!("records of shard {} were trimmed after {after}", lease.shard);
            self.ask_backfill(lane, &lease.stream, &why, at_ms).await?;
        }
        let mut item = new_item(gap::partition(&lease.stream), format!("{}#{at_ms}", lease.shard));
        item.insert("after".to_owned(), s(after.to_string()));
        item.insert("at_ms".to_owned(), n(at_ms));
        self.put_new(item).await.map(|_| ())
    }

    /// The lease speaks for `lane` no more. It begins a new epoch, so that its owner, who may know the lane as parked,
    /// writes nothing more of it.
    pub(super) async fn forget_in(&self, lease: &Lease, lane: &str) -> Result<(), StoreError> {
        let (mut lanes, mut parked) = (lease.lanes.clone(), lease.parked.clone());
        lanes.remove(lane);
        parked.remove(lane);
        let mut set = "SET epoch = :new_epoch".to_owned();
        let mut values = vec![(":new_epoch", n(lease.epoch + 1))];
        let mut removed = vec![write_parked(&parked, &mut set, &mut values)];
        match lanes.is_empty() {
            true => removed.push(", lanes"),
            false => {
                set.push_str(", lanes = :lanes");
                values.push((":lanes", AttributeValue::Ss(lanes.into_iter().collect())));
            }
        }
        let and = as_parked(&lease.parked, &mut values);
        self.update(lease, &join(set, &removed), and, &values).await.map(|_| ())
    }

    /// Changes the lease if it is still as it was read, and if what `and` adds to the condition holds. Returns it
    /// as it is then.
    async fn update(
        &self,
        lease: &Lease,
        expression: &str,
        and: &str,
        values: &[(&str, AttributeValue)],
    ) -> Result<Attributes, StoreError> {
        let mut request = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(partition(&lease.stream), sort(&lease.shard))))
            .update_expression(expression)
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#format", "format")
            .expression_attribute_values(":epoch", n(lease.epoch))
            .expression_attribute_values(":known", n(STATE_VERSION))
            .return_values(ReturnValue::AllNew);
        for (name, value) in values {
            request = request.expression_attribute_values(*name, value.clone());
        }
        request = match &lease.owner {
            Some(owner) => request
                .expression_attribute_values(":owner", s(owner))
                .condition_expression(format!("#owner = :owner AND epoch = :epoch{and} AND {KNOWN_FORMAT}")),
            None => request.condition_expression(format!(
                "attribute_not_exists(#owner) AND epoch = :epoch{and} AND {KNOWN_FORMAT}"
            )),
        };
        let answer = self.answered("UpdateItem", request.send().await);
        fenced(answer.map(|updated| updated.attributes.unwrap_or_default()), lease)
    }
}

impl Progressed {
    /// What writes it, to which more can be added.
    fn into_changes(self) -> Changes {
        let mut set = "SET bytes_per_s = :rate, seen_ms = :seen".to_owned();
        let mut values = vec![(":rate", n(self.bytes_per_s)), (":seen", n(self.seen_ms))];
        if let Some(rewind) = self.rewind {
            set.push_str(", rewind = :rewind");
            values.push((":rewind", s(rewind.to_string())));
        }
        if let Some(settling_ms) = self.settling_ms {
            set.push_str(", settling_ms = :settling");
            values.push((":settling", n(settling_ms)));
        }
        let remove = self.parked.map_or("", |parked| write_parked(&parked, &mut set, &mut values));
        Changes { set, values, remove }
    }
}

/// Changes of an item: what is set, and one attribute that goes, with a comma before it.
struct Changes {
    set: String,
    values: Vec<(&'static str, AttributeValue)>,
    remove: &'static str,
}

/// The whole expression.
fn join(mut set: String, removed: &[&str]) -> String {
    let removed = removed.concat();
    if let Some(removed) = removed.strip_prefix(',') {
        set.push_str(" REMOVE");
        set.push_str(removed);
    }
    set
}

fn new_lease(
    stream: &str,
    shard: &Shard,
    start: &Checkpoint,
    begin: Begin<'_>,
    onset: &Onset<'_>,
) -> (Lease, Attributes) {
    let epoch = u64::from(begin != Begin::AfterParents);
    let lanes = onset.lanes.clone().unwrap_or_default();
    let lease = Lease {
        parents: shard.parents.clone(),
        owner: match begin {
            Begin::OwnedBy(owner) => Some(owner.to_owned()),
            Begin::AfterParents | Begin::Now => None,
        },
        target: onset.target.map(str::to_owned),
        settling_ms: onset.settling_ms,
        lanes: lanes.known,
        parked: lanes.parked,
        ..Lease::new(stream, &shard.id, epoch, start.clone())
    };
    let mut item = new_item(partition(stream), sort(&shard.id));
    item.insert("epoch".to_owned(), n(lease.epoch));
    item.insert("checkpoint".to_owned(), s(start.to_string()));
    if let Some(owner) = &lease.owner {
        item.insert("owner".to_owned(), s(owner));
    }
    if let Some(target) = &lease.target {
        item.insert("target_state".to_owned(), s(target));
    }
    if let Some(settling_ms) = lease.settling_ms {
        item.insert("settling_ms".to_owned(), n(settling_ms));
    }
    if !lease.lanes.is_empty() {
        item.insert("lanes".to_owned(), AttributeValue::Ss(lease.lanes.iter().cloned().collect()));
    }
    if !lease.parked.is_empty() {
        item.insert("parked".to_owned(), parked_value(&lease.parked));
    }
    if !shard.parents.is_empty() {
        item.insert("parents".to_owned(), AttributeValue::Ss(shard.parents.clone()));
    }
    (lease, item)
}

/// The condition that this version knows the lease's format: a newer worker's is left alone. An item of another format has
/// the attribute; what is compared with a missing one is not so.
const KNOWN_FORMAT: &str = "(attribute_not_exists(#format) OR #format <= :known)";

/// What keeps a checkpoint from undoing an end.
fn not_after_end(checkpoint: &Checkpoint, values: &mut Vec<(&'static str, AttributeValue)>) -> &'static str {
    if checkpoint.is_end() {
        return "";
    }
    values.push((":end", s(Checkpoint::ShardEnd.to_string())));
    " AND checkpoint <> :end"
}

/// The condition that nobody was parked, moved or caught up since the lease was read: its owner does that within its
/// epoch.
fn as_parked(parked: &ParkedLanes, values: &mut Vec<(&'static str, AttributeValue)>) -> &'static str {
    if parked.is_empty() {
        return " AND attribute_not_exists(parked)";
    }
    values.push((":was_parked", parked_value(parked)));
    " AND parked = :was_parked"
}

fn fenced<T>(answer: Result<T, CallError>, lease: &Lease) -> Result<T, StoreError> {
    answer.map_err(|error| match error.is_code("ConditionalCheckFailedException") {
        true => StoreError::Fenced { what: lease.name() },
        false => StoreError::Call(error),
    })
}

/// Whether an item of a stream's partition is a lease.
pub(super) fn is_lease(item: &Item<'_>) -> Result<bool, StoreError> {
    Ok(item.text("sk")?.starts_with(SHARD))
}

pub(super) fn read_lease(item: &Item<'_>, stream: &Arc<str>) -> Result<Lease, StoreError> {
    let format = item.format()?;
    let shard = item.text("sk")?.strip_prefix(SHARD);
    let shard = shard.ok_or_else(|| item.wrong("sk is not shard#SHARD".to_owned()))?;
    if format > STATE_VERSION {
        return Ok(read_newer(item, stream, shard, format));
    }
    let parse = |text: &str| text.parse().map_err(|e| item.wrong(format!("checkpoint: {e}")));
    let ended = |at_ms| {
        let watermark_ms = item.optional_number("watermark_ms")?;
        Ok::<_, StoreError>(Ended { at_ms, watermark_ms })
    };
    Ok(Lease {
        stream: Arc::clone(stream),
        shard: shard.into(),
        parents: item.text_set("parents")?,
        owner: item.optional_text("owner")?.map(str::to_owned),
        epoch: item.number("epoch")?,
        checkpoint: parse(item.text("checkpoint")?)?,
        bytes_per_s: item.optional_number("bytes_per_s")?.unwrap_or(0),
        seen_ms: item.optional_number("seen_ms")?.unwrap_or(0),
        given: item.flag("given")?,
        rewind: item.optional_text("rewind")?.map(parse).transpose()?,
        target: item.optional_text("target_state")?.map(str::to_owned),
        settling_ms: item.optional_number("settling_ms")?,
        ended: item.optional_number("ended_ms")?.map(ended).transpose()?,
        lanes: item.text_set("lanes")?.into_iter().collect(),
        parked: read_parked(item)?,
        guest: read_guest(item)?,
        format,
    })
}

/// A lease that takes a later version to read: of a shard that is not read to its end, whatever it says, so that nothing
/// that descends from it is begun. What every version keeps is read if it is there.
fn read_newer(item: &Item<'_>, stream: &Arc<str>, shard: &str, format: u64) -> Lease {
    let epoch = item.optional_number("epoch").ok().flatten().unwrap_or(1);
    Lease {
        owner: item.optional_text("owner").ok().flatten().map(str::to_owned),
        parents: item.text_set("parents").unwrap_or_default(),
        format,
        ..Lease::new(stream, shard, epoch, Checkpoint::TrimHorizon)
    }
}

const SHARD: &str = "shard#";

pub(super) fn partition(stream: &str) -> String {
    format!("stream#{stream}")
}

pub(super) fn sort(shard: &str) -> String {
    format!("{SHARD}{shard}")
}
