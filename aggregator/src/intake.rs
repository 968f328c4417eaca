//! Where records leave their shard: each becomes a change on its way to the batcher, or a dead letter.

use std::sync::Arc;

use aws_sdk_dynamodbstreams::types::Record;
use bytes::Bytes;
use tokio::sync::mpsc;
use warmcast_common::consumer::{Ack, Asked, Delivery, LaneAck, Lanes, Processor, SequenceNumber};
use warmcast_common::dead_letter::{Envelope, Form, Letter, Origin, Quarantine, ReasonClass};
use warmcast_proto::change::{Change, ChangeKind};
use warmcast_proto::frame::change_len;

use crate::change::{ChangeMaker, Undecodable};
use crate::filter::Feeds;
use crate::stats::{Stats, Suppressed};
use crate::stream_record;

/// A change on its way.
#[derive(Debug)]
pub struct Pending {
    /// The change.
    pub change: Change,
    /// When it was asked for: milliseconds since the Unix epoch.
    pub read_ms: u64,
    /// For the regions that are to have it.
    pub ack: LaneAck,
}

/// Hands the records of one table's stream on.
#[derive(Debug)]
pub struct Intake {
    /// How its changes are made.
    pub maker: ChangeMaker,
    /// What each region receives of them.
    pub feeds: Feeds,
    /// What a frame's body can hold at most.
    pub body_bytes_max: usize,
    /// The batcher.
    pub batcher: mpsc::Sender<Vec<Pending>>,
    /// Where records go that cannot be used.
    pub quarantine: Quarantine,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// What the regions' filters leave out of the table.
    pub suppressed: Arc<Suppressed>,
}

impl Processor for Intake {
    type Record = Record;

    async fn process(&self, stream: &str, shard: &str, deliveries: Vec<Delivery<Record>>) {
        Stats::add(&self.stats.records_read, deliveries.len());
        let mut pending = Vec::with_capacity(deliveries.len());
        let mut letters = Vec::new();
        for Delivery { record, ack, asked, .. } in deliveries {
            match self.maker.make(&record.body, record.created_ms) {
                Ok(change) => {
                    // Nothing else makes an invalidation of a record that is in order.
                    let is_incomplete = change.kind == ChangeKind::Invalidate;
                    Stats::add(&self.stats.incomplete, usize::from(is_incomplete));
                    let waiting = ack.lanes();
                    let routes = self.feeds.route(&record.body, change, waiting);
                    let fed = routes.iter().fold(Lanes::NONE, |all, (_, lanes)| all.or(*lanes));
                    self.suppressed.add(waiting.without(fed));
                    self.route(routes, asked, ack, &mut pending);
                }
                Err(undecodable) => {
                    let sequence = record.sequence.as_ref();
                    let letter = self.letter((stream, shard), sequence, &record.body, &undecodable);
                    // Done when the letter is stored and, where the key is known, every region has it as invalid.
                    let ack = match undecodable.invalidation {
                        None => ack,
                        Some(change) => {
                            let lanes = ack.lanes();
                            let (acks, of_letter) = ack.route_beside(&[lanes]);
                            self.push(vec![(*change, lanes)], asked, acks, &mut pending);
                            of_letter
                        }
                    };
                    letters.push((letter, ack));
                }
            }
        }
        if !pending.is_empty() {
            // The batcher outlives the shards; were it gone, the dropped acks would have the records read again.
            let _batcher_gone = self.batcher.send(pending).await;
        }
        for (letter, ack) in letters {
            self.quarantine.set_aside(letter, || ack.done()).await;
        }
    }
}

impl Intake {
    /// Each set of regions gets its change. Those that are in none, or were parked meanwhile, get nothing.
    fn route(&self, routes: Vec<(Change, Lanes)>, asked: Asked, ack: Ack, pending: &mut Vec<Pending>) {
        let lanes: Vec<Lanes> = routes.iter().map(|(_, lanes)| *lanes).collect();
        self.push(routes, asked, ack.route(&lanes), pending);
    }

    fn push(
        &self,
        routes: Vec<(Change, Lanes)>,
        asked: Asked,
        acks: Vec<LaneAck>,
        pending: &mut Vec<Pending>,
    ) {
        for ((change, _), ack) in routes.into_iter().zip(acks) {
            if !ack.lanes().is_empty() {
                pending.push(Pending { change: self.fit(change), read_ms: asked.ms, ack });
            }
        }
    }

    /// A change that no frame can hold becomes an invalidation: a miss is always safe. DynamoDB's items have at
    /// most 400 KB, so only extreme ones (hundreds of thousands of tiny numbers) get there.
    fn fit(&self, change: Change) -> Change {
        if change_len(&change) <= self.body_bytes_max {
            return change;
        }
        Stats::add(&self.stats.oversize, 1);
        tracing::warn!(
            table = &*change.table,
            position = %change.position,
            bytes = change.payload.len(),
            bytes_max = self.body_bytes_max,
            "item too large for a frame: sent as an invalidation, so that readers go to the master"
        );
        Change { kind: ChangeKind::Invalidate, payload: Bytes::new(), ..change }
    }

    fn letter(
        &self,
        (stream, shard): (&str, &str),
        sequence: Option<&SequenceNumber>,
        record: &Record,
        undecodable: &Undecodable,
    ) -> Letter {
        let origin = Origin {
            source: self.quarantine.source(),
            stream: stream.into(),
            shard: Some(shard.into()),
            position: sequence.map(|sequence| sequence.as_str().into()),
        };
        let envelope = Envelope {
            origin,
            index: None,
            table: Some(self.maker.table()),
            key: undecodable.invalidation.as_ref().map(|change| change.key.to_vec()),
            class: ReasonClass::UndecodableRecord,
            reason: undecodable.reason.to_string(),
            form: Form::DynamodbStreamRecord,
        };
        Letter::new(envelope, &stream_record::encode(record))
    }
}
